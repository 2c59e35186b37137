//! SIGHUP to `sluice worker`: reads the configuration again, and applies every change that a running worker can make.

use super::GlobalArgs;
use super::context::environment;
use super::worker::{blueprint, settings};
use crate::config::{Config, ConfigErrors, Database, Http, Traces};
use crate::domain::budget::Budget;
use crate::shutdown::Hangups;
use crate::systemd::Notifier;
use crate::worker::Reloader;
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// Reads the configuration again at each SIGHUP, for the rest of the process's life. `started` is the configuration
/// that the worker started with.
pub(super) async fn at_each(
    mut hangups: Hangups,
    mut reloader: Reloader,
    started: Config,
    global: GlobalArgs,
    notifier: Arc<Notifier>,
) {
    let mut budgets = started.budgets.clone();
    loop {
        hangups.next().await;
        if reloader.is_stopping() {
            tracing::info!("SIGHUP changes nothing: the worker is stopping");
            continue;
        }
        notifier.reloading();
        let config = reload(&mut reloader, &started, &global);
        if let Some(config) = &config {
            apply_budgets(&reloader, &mut budgets, &config.budgets).await;
        }
        notifier.reloaded(config.is_some());
    }
}

/// Sets the budgets as they are configured now. `before`: as they were before, for the next time.
async fn apply_budgets(reloader: &Reloader, before: &mut Vec<Budget>, budgets: &[Budget]) {
    let is_gone = |name: &String| !budgets.iter().any(|budget| budget.name == *name);
    let gone: Vec<String> = before.iter().map(|budget| budget.name.clone()).filter(is_gone).collect();
    match reloader.apply_budgets(budgets, &gone).await {
        Ok(changed) => {
            budgets.clone_into(before);
            if !changed.is_empty() {
                tracing::info!(budgets = changed.join(", "), "budgets were set or removed");
            }
        }
        Err(error) => tracing::error!(error = %error, "the budgets are as they were; the next SIGHUP tries again"),
    }
}

/// Returns the configuration that is in force now, if it is another one.
fn reload(reloader: &mut Reloader, started: &Config, global: &GlobalArgs) -> Option<Config> {
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
            return None;
        }
    };
    if let Err(error) = reloader.reload(&blueprint(&config), &settings(&config, false)) {
        tracing::error!(error = %error, "the new configuration is refused; the worker goes on with the one before");
        return None;
    }
    for key in waits_for_a_restart(started, &config) {
        tracing::warn!(key, "a key of the configuration has changed, and takes effect when the worker is restarted");
    }
    let (routes, providers) = (config.routes.len(), config.providers.len());
    tracing::info!(routes, providers, "the configuration was read again and is in force");
    Some(config)
}

/// The same file and the same variables as at the start.
fn read(started: &Config, global: &GlobalArgs) -> Result<Config, ConfigErrors> {
    let config = started.load_again(environment(global))?;
    config.require_providers().map(|()| config)
}

/// The keys that have changed and that a running worker cannot change.
fn waits_for_a_restart(started: &Config, now: &Config) -> Vec<&'static str> {
    restart_keys(started, now).into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}

/// The keys that a running worker cannot change, and whether each has changed.
fn restart_keys(started: &Config, now: &Config) -> Vec<(&'static str, bool)> {
    let Config {
        file: _,
        is_found: _,
        database,
        // The settings that a worker reads at each step, and those that only commands use.
        worker: _,
        retention: _,
        providers: _,
        buckets: _,
        model_buckets: _,
        routes: _,
        models: _,
        prices: _,
        spool,
        http,
        log,
        traces,
        budgets: _,
        schedules: _,
        game_days: _,
        alerts: _,
        warnings: _,
    } = started;
    let url = |database: &Database| database.url.as_ref().map(|url| url.expose_secret().to_owned());
    let token = |http: &Http| http.token.as_ref().map(|token| token.expose_secret().to_owned());
    let headers = |traces: &Traces| -> Vec<(String, String)> {
        let headers = traces.collector.headers.iter();
        headers.map(|(name, value)| (name.to_string(), value.expose_secret().to_owned())).collect()
    };
    // Where there were no traces before, or are none any more, their endpoint says it.
    let traced = |differ: &dyn Fn(&Traces, &Traces) -> bool| {
        traces.as_ref().zip(now.traces.as_ref()).is_some_and(|(before, after)| differ(before, after))
    };
    let endpoint = |traces: &Option<Traces>| traces.as_ref().map(|traces| traces.collector.endpoint.to_string());
    vec![
        ("database.url", url(database) != url(&now.database)),
        ("database.data_dir", database.data_dir != now.database.data_dir),
        ("database.max_connections", database.max_connections != now.database.max_connections),
        ("database.pooler", database.pooler != now.database.pooler),
        ("spool.dir", (&spool.dir, spool.chosen) != (&now.spool.dir, now.spool.chosen)),
        ("spool.max_bytes", spool.max_bytes != now.spool.max_bytes),
        ("http.listen", (http.listen, http.chosen) != (now.http.listen, now.http.chosen)),
        ("http.hosts", http.hosts != now.http.hosts),
        ("http.token_env", token(http) != token(&now.http)),
        ("http.read_only", http.read_only != now.http.read_only),
        ("http.bodies", http.bodies != now.http.bodies),
        ("log.format", log.format != now.log.format),
        ("log.filter", log.filter != now.log.filter),
        ("log.dir", log.dir != now.log.dir),
        ("log.keep", log.keep != now.log.keep),
        ("traces.endpoint", endpoint(traces) != endpoint(&now.traces)),
        ("traces.headers_env", traced(&|before, after| headers(before) != headers(after))),
        ("traces.sample", traced(&|before, after| before.sample.total_cmp(&after.sample).is_ne())),
        ("traces.timeout", traced(&|before, after| before.collector.timeout != after.collector.timeout)),
        ("traces.service", traced(&|before, after| before.collector.service != after.collector.service)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::worker::plan::{Plan, RungPlan};

    const NOW: Timestamp = Timestamp(1_000_000);
    const CONFIG: &str = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                          api_key_env = \"ONE\"\n\
                          [providers.two]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                          [routes.default]\nrungs = [\"one/model\", \"two/model\"]\n";

    fn config(text: &str, key: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sluice.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), [("ONE".to_owned(), key.to_owned())]).unwrap()
    }

    fn after(plan: &Plan, text: &str, key: &str) -> Plan {
        plan.succeeded_by(&blueprint(&config(text, key)), NOW).unwrap()
    }

    fn rung<'a>(plan: &'a Plan, provider: &str) -> &'a RungPlan {
        let rungs = plan.routes["default"].rungs.iter();
        rungs.into_iter().find(|rung| rung.target.target().provider == provider).unwrap()
    }

    fn has_the_same_client(before: &Plan, after: &Plan, provider: &str) -> bool {
        Arc::ptr_eq(&rung(before, provider).provider, &rung(after, provider).provider)
    }

    #[tokio::test]
    async fn connections_stay_with_a_provider_until_something_about_it_is_changed() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let plan = Plan::new(&blueprint(&config(CONFIG, "k1"))).unwrap();
        let same = after(&plan, &CONFIG.replace("\"one/model\", \"two/model\"", "\"two/model\", \"one/model\""), "k1");
        assert!(has_the_same_client(&plan, &same, "one") && has_the_same_client(&plan, &same, "two"));
        assert_eq!(same.routes["default"].rungs[0].target.target().provider, "two");
        let renewed = after(&plan, CONFIG, "k2");
        assert!(!has_the_same_client(&plan, &renewed, "one") && has_the_same_client(&plan, &renewed, "two"));
        for more in ["timeouts = { total = \"7s\" }", "max_body_bytes = 4096", "headers = { x-team = \"a\" }"] {
            let changed =
                after(&plan, &CONFIG.replace("[providers.two]\n", &format!("[providers.two]\n{more}\n")), "k1");
            assert!(
                has_the_same_client(&plan, &changed, "one") && !has_the_same_client(&plan, &changed, "two"),
                "{more}"
            );
        }
    }

    #[tokio::test]
    async fn a_route_keeps_what_its_jobs_are_like() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let plan = Plan::new(&blueprint(&config(CONFIG, "k"))).unwrap();
        plan.routes["default"].see(50_000, Some(7));
        let next = after(&plan, &format!("{CONFIG}patience = \"forever\"\n"), "k");
        assert_eq!(next.routes["default"].typical(), plan.routes["default"].typical());
        // A job that began before the change still counts for those after it.
        plan.routes["default"].see(90_000, None);
        assert_eq!(next.routes["default"].typical(), plan.routes["default"].typical());
    }

    #[tokio::test]
    async fn a_blueprint_that_cannot_be_resolved_changes_nothing() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let limited = CONFIG.replace("[routes", "limits = { concurrency = 3 }\n[routes");
        let plan = Plan::new(&blueprint(&config(&limited, "k"))).unwrap();
        let mut broken = blueprint(&config(&limited.replace("concurrency = 3", "concurrency = 5"), "k"));
        broken.providers.remove("one");
        assert!(plan.succeeded_by(&broken, NOW).is_err());
        let mut broken = blueprint(&config(&limited.replace("concurrency = 3", "concurrency = 5"), "k"));
        broken.providers.get_mut("one").unwrap().endpoint.base_url = "no address".to_owned();
        assert!(plan.succeeded_by(&broken, NOW).is_err());
        let limits = plan.gate.limits();
        assert_eq!(limits["two"].concurrency, Some(3));
    }

    #[test]
    fn what_a_running_worker_cannot_change_is_named() {
        let started = config(CONFIG, "k");
        let waits = |more: &str| waits_for_a_restart(&started, &config(&format!("{CONFIG}{more}\n"), "k"));
        assert_eq!(waits("[worker]\nmax_in_flight = 3\ndrain_timeout = \"1s\"\nmax_crashes = 9"), [""; 0]);
        assert_eq!(
            waits("[database]\nurl = \"postgres://a/b\"\ndata_dir = \"/d\"\nmax_connections = 3\npooler = \"none\""),
            ["database.url", "database.data_dir", "database.max_connections", "database.pooler"]
        );
        assert_eq!(
            waits("[http]\nlisten = \"off\"\nhosts = [\"a\"]\nread_only = true\nbodies = true"),
            ["http.listen", "http.hosts", "http.read_only", "http.bodies"]
        );
        assert_eq!(waits("[spool]\ndir = \"/s\"\nmax_bytes = 1000000"), ["spool.dir", "spool.max_bytes"]);
        let compared: Vec<&str> = restart_keys(&started, &started).into_iter().map(|(key, _)| key).collect();
        assert_eq!(compared, crate::config::restart_keys(), "what the declarations say of a restart");
        let log = "[log]\nformat = \"json\"\nfilter = \"debug\"\ndir = \"/l\"\nkeep = 3";
        assert_eq!(waits(log), ["log.format", "log.filter", "log.dir", "log.keep"]);
        let traces = "[traces]\nendpoint = \"http://127.0.0.1:9\"";
        assert_eq!(waits(traces), ["traces.endpoint"]);
        let traced = config(&format!("{CONFIG}{traces}\n"), "k");
        let more = "sample = 0.5\ntimeout = \"1s\"\nservice = \"s\"\nheaders_env = \"ONE\"";
        let other = config(&format!("{CONFIG}{traces}\n{more}\n"), "a:b");
        assert_eq!(
            waits_for_a_restart(&traced, &other),
            ["traces.headers_env", "traces.sample", "traces.timeout", "traces.service"]
        );
    }
}
