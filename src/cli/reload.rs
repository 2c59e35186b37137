//! SIGHUP to `sluice worker`: the configuration is read again, and what can be changed while it works is.

use super::GlobalArgs;
use super::context::environment;
use super::worker::{blueprint, settings};
use crate::config::{Config, ConfigErrors, Database};
use crate::shutdown::Hangups;
use crate::systemd::Notifier;
use crate::worker::Reloader;
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// Reads the configuration again at each SIGHUP, for the rest of the process's life. `started` is what the worker began
/// with.
pub(super) async fn at_each(
    mut hangups: Hangups,
    mut reloader: Reloader,
    started: Config,
    global: GlobalArgs,
    notifier: Arc<Notifier>,
) {
    loop {
        hangups.next().await;
        if reloader.is_stopping() {
            tracing::info!("SIGHUP changes nothing: the worker is stopping");
            continue;
        }
        notifier.reloading();
        let is_in_force = reload(&mut reloader, &started, &global);
        notifier.reloaded(is_in_force);
    }
}

/// Returns whether the configuration as it is now is in force.
fn reload(reloader: &mut Reloader, started: &Config, global: &GlobalArgs) -> bool {
    let config = match read(started, global) {
        Ok(config) => config,
        Err(errors) => {
            for fault in errors.faults() {
                tracing::error!("{fault}");
            }
            tracing::error!(
                faults = errors.faults().len(),
                "the new configuration is refused; the worker goes on with the one before"
            );
            return false;
        }
    };
    if let Err(error) = reloader.reload(&blueprint(&config), &settings(&config, false)) {
        tracing::error!(error = %error, "the new configuration is refused; the worker goes on with the one before");
        return false;
    }
    for key in waits_for_a_restart(started, &config) {
        tracing::warn!(key, "has changed and takes effect when the worker is restarted");
    }
    let (routes, providers) = (config.routes.len(), config.providers.len());
    tracing::info!(routes, providers, "the configuration was read again and is in force");
    true
}

/// The same file and the same variables as at the start.
fn read(started: &Config, global: &GlobalArgs) -> Result<Config, ConfigErrors> {
    let config = Config::load(started.file.as_deref().or(global.config.as_deref()), environment(global))?;
    config.require_providers().map(|()| config)
}

/// What a running worker cannot change.
fn waits_for_a_restart(started: &Config, now: &Config) -> Vec<&'static str> {
    let Config {
        file: _,
        database,
        // What a worker reads anew with each step, and the rest of it, which is for commands.
        worker: _,
        retention: _,
        providers: _,
        buckets: _,
        model_buckets: _,
        routes: _,
        models: _,
        spool,
        http,
        log,
        warnings: _,
    } = started;
    let url = |database: &Database| database.url.as_ref().map(|url| url.expose_secret().to_owned());
    let changes = [
        ("database.url", url(database) != url(&now.database)),
        ("database.data_dir", database.data_dir != now.database.data_dir),
        ("database.max_connections", database.max_connections != now.database.max_connections),
        ("database.pooler", database.pooler != now.database.pooler),
        ("spool", *spool != now.spool),
        ("http.listen", *http != now.http),
        ("log.format", log.format != now.log.format),
        ("log.filter", log.filter != now.log.filter),
        ("log.dir", log.dir != now.log.dir),
        ("log.keep", log.keep != now.log.keep),
    ];
    changes.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}
