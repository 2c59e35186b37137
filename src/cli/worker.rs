//! `sluice worker`: the daemon.

use super::GlobalArgs;
use super::context::Context;
use super::reload;
use crate::config::{Config, RouteConfig};
use crate::domain::Route;
use crate::domain::billing::Tolerance;
use crate::domain::counted::counted;
use crate::exit_code::ExitCode;
use crate::http;
use crate::shutdown::Hangups;
use crate::store::doctor::Surroundings;
use crate::systemd::Notifier;
use crate::worker::alerts::Alerting;
use crate::worker::gate::ProviderSetup;
use crate::worker::plan::{Blueprint, Plan, ProviderPlan};
use crate::worker::spool::SpoolSettings;
use crate::worker::traces::TraceSettings;
use crate::worker::{Settings, Summary, Worker};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Claims jobs and works on them until it is told to stop.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Stop when nothing is left to do: no job is ready, running or waiting for a retry
    #[arg(long)]
    pub drain: bool,
}

/// The blueprint of a worker, by the configuration.
#[must_use]
pub fn blueprint(config: &Config) -> Blueprint {
    let providers = config.providers.iter().map(|(name, provider)| {
        let own = config.model_buckets.iter().filter(|(target, _)| target.provider == *name);
        let setup = ProviderSetup {
            bucket: provider.bucket.clone(),
            charging: provider.charging,
            breaker: provider.breaker,
            keys: provider.endpoint.keys.iter().map(|key| key.name.clone()).collect(),
            recheck: provider.recheck,
            probe: provider.probe.clone(),
            server: provider.endpoint.mark(),
            targets: Vec::new(),
            model_buckets: own.map(|(target, bucket)| (target.model.clone(), vec![bucket.clone()])).collect(),
        };
        (name.clone(), ProviderPlan { endpoint: provider.endpoint.clone(), setup, quality: provider.quality })
    });
    Blueprint {
        buckets: config.buckets.clone(),
        providers: providers.collect(),
        routes: config.routes.values().flat_map(with_shadow).collect(),
        traces: config.traces.is_some(),
    }
}

/// A route, and that of its shadows.
fn with_shadow(config: &RouteConfig) -> impl Iterator<Item = Arc<Route>> {
    let shadow = config.route.shadow.as_ref().map(|shadow| Arc::clone(&shadow.route));
    std::iter::once(Arc::clone(&config.route)).chain(shadow)
}

/// The settings of a worker, by the configuration.
#[must_use]
pub fn settings(config: &Config, until_done: bool) -> Settings {
    Settings {
        max_in_flight: config.worker.max_in_flight,
        max_in_flight_bytes: config.worker.max_in_flight_bytes,
        drain_timeout: config.worker.drain_timeout,
        max_crashes: config.worker.max_crashes,
        retention: config.retention,
        schedules: config.schedules.iter().cloned().map(Arc::new).collect(),
        game_days: config.game_days.iter().cloned().collect(),
        tolerance: Tolerance { share: config.prices.reported_difference },
        until_done,
        only_batch: None,
        spool: config.spool.dir.clone().map(|dir| SpoolSettings { dir, max_bytes: config.spool.max_bytes }),
        spool_is_optional: !config.spool.chosen,
        alerts: Some(Alerting {
            settings: config.alerts.settings.clone(),
            receivers: config.alerts.receivers.clone(),
            around: surroundings(config),
        }),
        traces: config
            .traces
            .as_ref()
            .map(|traces| TraceSettings { collector: traces.collector.clone(), sample: traces.sample }),
    }
}

/// What the doctor has to know of a configuration.
#[must_use]
pub fn surroundings(config: &Config) -> Surroundings {
    Surroundings {
        private: config.database.url.is_none(),
        connections_each: config.database.max_connections,
        routes: config.route_names().map(str::to_owned).collect(),
        providers: config.providers.keys().cloned().collect(),
        schedules: config.schedules.iter().map(|schedule| schedule.name.clone()).collect(),
        retention: config.retention,
    }
}

/// Fails when a part of the worker has ended unexpectedly, so that a service manager starts another worker.
///
/// # Errors
/// Which part it was, and the fate of the worker's jobs.
pub fn went_down(summary: &Summary) -> anyhow::Result<()> {
    let Some(part) = summary.fallen else { return Ok(()) };
    let jobs = match summary.lost {
        0 => "All its jobs were written, spooled or given back.".to_owned(),
        lost => format!(
            "{} could not be written (the log names the jobs): other workers take these jobs over, and ask for their \
             answers once more. All other jobs were written, spooled or given back.",
            counted(lost, "outcome", "outcomes")
        ),
    };
    anyhow::bail!(
        "the worker's {part} failed because of a bug in Sluice, so the worker shut down cleanly. {jobs} Start the \
         worker again, and please report the log lines about {part}"
    )
}

/// Starts the loops that the daemon has beside those of the worker: its HTTP server, and the reloading of its
/// configuration. They are under the same watch.
pub fn attend(
    worker: &Worker,
    listener: Option<TcpListener>,
    reach: http::Reach,
    hangups: Hangups,
    config: &Config,
    global: &GlobalArgs,
    notifier: &Arc<Notifier>,
) {
    if let Some(listener) = listener {
        let observer = worker.observer();
        let hosts = config.http.hosts.clone();
        let pages = http::Pages {
            reach,
            token: config.http.token.clone(),
            read_only: config.http.read_only,
            bodies: config.http.bodies,
        };
        worker.loops().endless("http", async move {
            if let Err(error) = http::serve(listener, observer, &hosts, pages).await {
                tracing::error!(error = %error, "the HTTP server ended");
            }
        });
    }
    let reloading = reload::at_each(hangups, worker.reloader(), config.clone(), global.clone(), Arc::clone(notifier));
    worker.loops().endless("reload", reloading);
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps the worker from starting. Once it works, the command returns normally.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    // Before anything slow: a signal that came meanwhile would end the process.
    let hangups = Hangups::listen()?;
    let mut context = Context::open_for_work(global).await?;
    let signals = context.listen()?;
    let (store, config) = (&context.store, &context.config);
    let listener = match config.http.listen {
        Some(listen) => match http::bind(listen).await {
            Ok(listener) => Some(listener),
            Err(error) if config.http.chosen => return Err(error),
            Err(error) => {
                tracing::warn!(error = %error, "going on without the HTTP endpoints");
                None
            }
        },
        None => None,
    };
    let plan = Plan::new(&blueprint(config))?;
    store.apply_budgets(&config.budgets, &[]).await?;
    let worker = Worker::register(store.clone(), plan, settings(config, args.drain)).await?;
    let notifier = Arc::new(Notifier::new());
    attend(&worker, listener, context.reach.clone(), hangups, config, global, &notifier);
    let (stop, hurry) = (signals.stop.clone(), signals.hurry.clone());
    let summary = worker
        .run(async move { stop.cancelled().await }, async move { hurry.cancelled().await }, move |sign| {
            notifier.sign(sign);
        })
        .await;
    context.close().await?;
    if let Some(version) = summary.outgrown {
        version.require()?;
    }
    went_down(&summary)?;
    // Outcomes in the spool are safe, and yet the operator has to know of them.
    Ok(if summary.spooled > 0 { ExitCode::Database } else { ExitCode::Success })
}
