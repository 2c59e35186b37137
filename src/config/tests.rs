//! The configuration as its users meet it: good files, bad files, variables.

mod alerts;
mod answers;
mod cascades;
mod defaults;
mod forks;
mod keys;
mod packs;
mod prompt_caches;
mod providers;
mod rungs;
mod shadows;
mod strategies;
mod streams;
mod tiers;
mod traces;
mod variables;

use super::*;
use crate::domain::{BreakerSettings, ErrorClass, MaxFailed, Patience, Rate, StopLoss, Strategy, Unit};
use crate::provider::openai;
use crate::store::Pooler;
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// A file in a directory of its own, with variables.
struct Given {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

fn given(toml: &str) -> Given {
    let dir = tempfile::tempdir().unwrap();
    write_private(&dir.path().join("sluice.toml"), toml);
    Given { dir, variables: Vec::new() }
}

/// Writes a file with the mode that one with a secret should have.
fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Given {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn with_file(self, name: &str, text: &str) -> Self {
        write_private(&self.dir.path().join(name), text);
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(Some(&self.dir.path().join("sluice.toml")), self.variables.clone())
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Each fault as `key: problem; expected …`; checks that it names the file or the environment.
    fn faults(&self) -> Vec<String> {
        let errors = self.load().expect_err("a faulty configuration");
        for fault in errors.faults() {
            assert!(
                fault.place.ends_with("sluice.toml")
                    || ["the environment", "the command line"].contains(&fault.place.as_str()),
                "{fault}"
            );
        }
        let strip = |fault: &Fault| fault.to_string().split_once(": ").unwrap().1.to_owned();
        errors.faults().iter().map(strip).collect()
    }
}

const LOCAL: &str = "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1/\"\n";

/// A route over the provider above, with these additional lines.
fn route(lines: &str) -> Given {
    given(&format!("{LOCAL}[routes.default]\nrungs = [\"local/m\"]\n{lines}"))
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = given("").config();
    assert!(config.database.url.is_none());
    assert_eq!(config.worker.max_in_flight, 500);
    assert_eq!(config.worker.drain_timeout, Duration::from_mins(1));
    assert_eq!(config.http.listen, Some("127.0.0.1:9470".parse().unwrap()));
    assert_eq!(config.log, Log::default());
    assert!(config.warnings.is_empty());
}

#[test]
fn without_a_provider_the_error_says_what_to_add() {
    let error = given("").config().require_providers().unwrap_err().to_string();
    assert!(error.contains("[providers.openai]") && error.contains("sluice demo"), "{error}");
    let error = given(LOCAL).config().require_providers().unwrap_err().to_string();
    assert!(error.contains("there are no routes"), "{error}");
    assert!(route("").config().require_providers().is_ok());
}

#[test]
fn everything_of_a_full_file_arrives() {
    let config = given(
        r#"
        [database]
        url = "postgres://me:secret@db/sluice"
        max_connections = 20
        pooler = "transaction"
        [worker]
        max_in_flight = 7
        drain_timeout = "90s"
        [http]
        listen = "off"
        [log]
        format = "json"
        filter = "warn,sluice=debug"
        dir = "logs"
        keep = 3

        [providers.openai]
        api_key_env = "OPENAI_API_KEY"
        headers = { "OpenAI-Organization" = "org-1" }
        limits.requests_per_minute = 600
        limits.tokens_per_minute = 90000
        limits.requests_per_day = 10000
        limits.concurrency = 20
        limits.burst_requests = 50
        timeouts = { connect = "1s", total = "2m" }
        breaker = { min_calls = 3, failure_rate = 0.25, window = "10s", open = "5s" }
        recheck = "1h"
        [providers.team_b]
        vendor = "openai"
        api_key_file = "team_b.key"
        bucket = "shared"
        [buckets.shared]
        requests_per_second = 5

        [models."team_b/gpt-4o-mini"]
        context_window = 4096
        limits = { tokens_per_minute = 7000 }
        [models."openai/gpt-4o"]
        bucket = "shared"
        [models."openai/house/model.1"]
        price = { input = "1", output = "2.5", cached_input = "0.1" }
        tools = false

        [routes.default]
        strategy = "priority"
        rungs = [
            "openai/gpt-4o-mini",
            { target = "team_b/gpt-4o-mini", timeouts = { total = "5m" } },
            "openai/house/model.1",
        ]
        patience = "forever"
        max_attempts = 4
        max_failed = 0.05
        max_wasted = 0.3
        fallback_on = ["rate_limit", "timeout"]
        validate.min_chars = 2
        validate.forbidden_patterns = ["(?i)lorem"]
        validate.json_schema = { type = "object" }
        validate.refusal = false
        [routes.pinned]
        rungs = ["openai/gpt-4o-mini"]
        fallback = "never"
        patience = "0s"
        "#,
    )
    .with("OPENAI_API_KEY", "sk-1")
    .with_file("team_b.key", "sk-2\n");
    let dir = config.dir.path().to_owned();
    let config = config.config();
    assert_eq!(config.database.url.as_ref().unwrap().expose_secret(), "postgres://me:secret@db/sluice");
    assert_eq!(config.database.pooler, Pooler::Transaction);
    assert_eq!((config.worker.max_in_flight, config.worker.drain_timeout), (7, Duration::from_secs(90)));
    assert_eq!(config.http.listen, None);
    assert_eq!(
        (config.log.format, config.log.keep, config.log.dir.clone()),
        (LogFormat::Json, 3, Some(dir.join("logs")))
    );

    let openai = &config.providers["openai"];
    assert_eq!(openai.endpoint.dialect, &openai::DIALECT);
    assert_eq!(openai.endpoint.base_url, "https://api.openai.com/v1");
    assert_eq!(openai.endpoint.keys[0].secret.expose_secret(), "sk-1");
    assert_eq!(openai.endpoint.headers, [("OpenAI-Organization".to_owned(), "org-1".to_owned())]);
    assert_eq!(openai.endpoint.timeouts.connect, Duration::from_secs(1));
    assert_eq!(openai.bucket, "openai");
    assert_eq!(openai.recheck, Duration::from_hours(1));
    let breaker = BreakerSettings {
        min_calls: 3,
        failure_rate: 0.25,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
    };
    assert_eq!(openai.breaker, breaker);
    let limits = &config.buckets["openai"];
    assert_eq!(limits.concurrency, Some(20));
    let rate = |unit, amount, seconds, burst| Rate { unit, amount, per: Duration::from_secs(seconds), burst };
    assert_eq!(
        limits.rates,
        [
            rate(Unit::Requests, 600, 60, 50),
            rate(Unit::Requests, 10_000, 86_400, 10_000),
            rate(Unit::Tokens, 90_000, 60, 90_000),
        ]
    );
    let team_b = &config.providers["team_b"];
    assert_eq!(team_b.endpoint.keys[0].secret.expose_secret(), "sk-2");
    assert_eq!(team_b.bucket, "shared");
    assert_eq!(config.buckets["shared"].rates, [rate(Unit::Requests, 5, 1, 5)]);
    assert!(!config.buckets.contains_key("team_b"));
    assert_eq!(config.buckets["team_b/gpt-4o-mini"].rates, [rate(Unit::Tokens, 7_000, 60, 7_000)]);
    let own: Vec<_> =
        config.model_buckets.iter().map(|(target, bucket)| (target.to_string(), bucket.as_str())).collect();
    assert_eq!(own, [("openai/gpt-4o".to_owned(), "shared"), ("team_b/gpt-4o-mini".to_owned(), "team_b/gpt-4o-mini")]);

    let RouteConfig { route, stop_loss } = &config.routes["default"];
    let share = MaxFailed::of_millionths;
    assert_eq!(*stop_loss, StopLoss { max_failed: share(50_000), max_wasted: share(300_000) });
    assert_eq!(config.routes["pinned"].stop_loss, StopLoss::default());
    assert_eq!((&route.strategy, route.patience, route.max_attempts), (&Strategy::Priority, Patience::Forever, 4));
    assert_eq!(route.fallback_on, [ErrorClass::RateLimit, ErrorClass::Timeout].into());
    let timeouts = |rung: usize| (route.rungs[rung].timeouts.connect, route.rungs[rung].timeouts.total);
    assert_eq!(timeouts(0), (Duration::from_secs(1), Duration::from_mins(2)));
    assert_eq!(timeouts(1), (Duration::from_secs(10), Duration::from_mins(5)));
    assert!(route.rules.json && !route.rules.reject_refusals && route.rules.reject_html && route.rules.non_empty);
    assert!(route.rules.json_schema.as_ref().unwrap().check(&serde_json::json!([])).is_err());
    assert!(route.rules.forbidden_patterns[0].is_match("Lorem ipsum"));

    let known = &route.rungs[0].model;
    assert_eq!(known.terms.price.as_ref().unwrap().usual.input, 150_000_000);
    let overlaid = &route.rungs[1].model;
    assert_eq!((&overlaid.terms, overlaid.capabilities.context_window), (&known.terms, Some(4096)));
    let own = &route.rungs[2];
    assert_eq!(own.target.model, "house/model.1");
    let price = own.model.terms.price.as_ref().unwrap().usual;
    assert_eq!((price.input, price.output, price.cached_input), (1_000_000_000, 2_500_000_000, Some(100_000_000)));
    assert_eq!(own.model.capabilities.tools, Some(false));
    let pinned = &config.routes["pinned"].route;
    assert!(pinned.fallback_on.is_empty());
    assert_eq!(pinned.patience, Patience::For(Duration::ZERO));
    assert_eq!(
        config.warnings,
        ["no route uses the model openai/gpt-4o: its price holds only where a provider answers with it unasked"]
    );
}

#[test]
fn without_a_default_route_it_is_said_what_becomes_of_jobs_that_name_none() {
    let config = given(&format!("{LOCAL}[routes.night]\nrungs = [\"local/m\"]")).config();
    let warned = config.warnings.iter().find(|warning| warning.contains("[routes.default]")).unwrap();
    assert!(warned.contains("stay queued") && !warned.contains("fail"), "{warned}");
}

#[test]
fn each_bad_value_is_named_with_what_was_expected() {
    let cases: &[(&str, &str)] = &[
        ("[worker]\nmax_inflight = 1", "worker.max_inflight: no such key; expected perhaps max_in_flight"),
        ("[workers]\nmax_in_flight = 1", "workers: no such key; expected perhaps worker"),
        ("[worker]\ncolour = 1", "worker.colour: no such key; expected one of max_in_flight, "),
        (
            "[providers.local.models.m]\ntools = true",
            "providers.local.models: no such key; expected it in a section of its own, [models.\"PROVIDER/MODEL\"]",
        ),
        ("[game_days.d]\nshare = 0.5", "game_days.d.until: is missing; expected an instant such as "),
        ("[game_days.d]\nshare = 2", "game_days.d.share: \"2\" is above 1"),
        (
            "[game_days.d]\ntargets = [\"locla\"]",
            "game_days.d.targets[0]: there is no provider \"locla\"; expected a list of providers",
        ),
        ("[game_days.d]\ntargets = []", "game_days.d.targets: is empty"),
        ("[game_days.d]\nfaults = [\"fire\"]", "game_days.d.faults[0]: \"fire\" is no failure of game days"),
        ("[game_days.d]\nfrom = \"tomorrow\"", "game_days.d.from: \"tomorrow\" is no instant"),
        (
            "[game_days.d]\nfrom = \"2026-12-04T11:00:00Z\"\nuntil = \"2026-12-04T11:00:00Z\"",
            "game_days.d.until: is not after from",
        ),
        (
            "[game_days.d]\nfrom = \"2026-12-04T11:00:00Z\"\nuntil = \"2026-12-05T11:00:01Z\"",
            "game_days.d.until: is more than 24 hours after from",
        ),
        ("worker = 3", "worker: is 3; expected a table"),
        ("[worker]\nmax_in_flight = 0", "worker.max_in_flight: is 0; expected a whole number from 1 to 100000"),
        ("[worker]\nmax_in_flight = \"7\"", "worker.max_in_flight: is \"7\"; expected a whole number"),
        ("[worker]\ndrain_timeout = 60", "worker.drain_timeout: is 60; expected a duration such as \"90s\""),
        ("[worker]\ndrain_timeout = \"10 parsecs\"", "worker.drain_timeout: \"10 parsecs\" is not a duration"),
        ("[database]\nurl = \"mysql://u:secret@h/d\"", "database.url: is not the URL of a Postgres database"),
        ("[http]\nlisten = \"localhost\"", "http.listen: \"localhost\" is not an address with a port"),
        ("[log]\nformat = \"xml\"", "log.format: \"xml\" is not a format; expected \"human\" or \"json\""),
        ("[log]\nfilter = \"sluice=loud\"", "log.filter: \"sluice=loud\" is not a filter"),
        ("[budgets.b]\nper = \"day\"", "budgets.b.limit: is missing; expected dollars as a text"),
        ("[budgets.b]\nlimit = 25", "budgets.b.limit: is 25; expected dollars as a text"),
        ("[budgets.b]\nlimit = \"$25\"", "budgets.b.limit: \"$25\" has the sign of a currency"),
        ("[budgets.b]\nlimit = \"-1\"", "budgets.b.limit: \"-1\" is below 0"),
        ("[budgets.b]\nlimit = \"0\"", "budgets.b.limit: \"0\" is nothing: to let nothing run, pause it"),
        ("[budgets.b]\nlimit = \"1\"\nper = \"year\"", "budgets.b.per: \"year\" is a window that never turns"),
        ("[budgets.b]\nlimit = \"1\"\nsoft = 0.0", "budgets.b.soft: is 0; expected a share above 0 and up to 1"),
        ("[budgets.b]\nlimit = \"1\"\nsoft = 1.5", "budgets.b.soft: \"1.5\" is above 1"),
        ("[budgets.b]\nlimit = \"1\"\nproject = \"p\"\nbatch = \"b\"", "budgets.b.batch: project is said as well"),
        ("[budgets.b]\nlimit = \"1\"\nroute = \"nope\"", "budgets.b.route: there is no route \"nope\""),
        ("[budgets.b]\nlimit = \"1\"\nprovider = \"nope\"", "budgets.b.provider: there is no provider \"nope\""),
        (
            "[budgets.b]\nlimit = \"1\"\nsoft = 0.5\nthen_route = \"no\"",
            "budgets.b.then_route: there is no route \"no\"",
        ),
        ("[budgets.a]\nlimit = \"1\"\n[budgets.b]\nlimit = \"2\"", "budgets.b.limit: a covers everything once already"),
        (
            "[budgets.a]\nlimit = \"9\"\nper = \"hour\"\n[budgets.b]\nlimit = \"2\"\nper = \"day\"",
            "budgets.a.limit: is never reached: b allows everything less ($2.00 per day)",
        ),
        ("[routes.r]\nmax_failed = -0.1", "routes.r.max_failed: \"-0.1\" is below 0; expected a share from 0 to 1"),
        ("[routes.r]\nmax_wasted = 5", "routes.r.max_wasted: \"5\" is above 1; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = 5", "routes.r.max_failed: \"5\" is above 1; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = 1.01", "routes.r.max_failed: \"1.01\" is above 1; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = nan", "routes.r.max_failed: \"NaN\" is not a share; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = \"5%\"", "routes.r.max_failed: is \"5%\"; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = \"0.05\"", "routes.r.max_failed: is \"0.05\"; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = true", "routes.r.max_failed: is true; expected a share from 0 to 1"),
        ("[routes.r]\nmax_failed = 0.0000001", "routes.r.max_failed: \"0.0000001\" has more than six decimals"),
        ("[providers.x]\nbase_url = \"http://h\"", "providers.x.dialect: is missing"),
        ("[providers.x]\ndialect = \"openai\"", "providers.x.base_url: is missing"),
        (
            "[providers.openai]\ndialect = \"telex\"",
            "\"telex\" is not a dialect; expected one of openai, anthropic, gemini",
        ),
        (
            "[providers.openai]\nbase_url = \"ftp://h\"",
            "providers.openai.base_url: \"ftp://h\" is not an http or https URL",
        ),
        (
            "[providers.openai]\nbase_url = \"http://a:secret@h\"",
            "providers.openai.base_url: holds a user name or password",
        ),
        (
            "[providers.openai]\napi_key_env = \"NOT_SET\"",
            "providers.openai.api_key_env: the variable NOT_SET is not set, so there is no key for the provider openai",
        ),
        ("[providers.openai]\napi_key_env = \"sk-secret\"", "api_key_env: is not the name of a variable"),
        ("[providers.openai]\napi_key = \"sk-secret\"", "api_key: keys do not belong into the configuration file"),
        ("[providers.openai]\napi_key_file = \"nowhere\"", "the key of the provider openai cannot be read from "),
        ("[providers.openai]\ncredential = \"openai\"", "CREDENTIALS_DIRECTORY is not set"),
        (
            "[providers.openai]\napi_key_env = \"A\"\napi_key_file = \"b\"",
            "providers.openai.api_key_env: the key is given in more than one way",
        ),
        ("[providers.openai]\nheaders = { Authorization = \"secret\" }", "headers.Authorization: keys do not belong"),
        (
            "[providers.openai]\nlimits = { requests_per_minute = 0 }",
            "limits.requests_per_minute: is 0; expected a whole number, at least 1",
        ),
        (
            "[providers.openai]\nlimits = { request_per_minute = 1 }",
            "limits.request_per_minute: no such key; expected perhaps requests_per_minute",
        ),
        (
            "[providers.openai]\nbucket = \"b\"",
            "providers.openai.bucket: there is no bucket \"b\"; expected a section [buckets.b]",
        ),
        (
            "[providers.openai]\nbreaker = { failure_rate = 50 }",
            "breaker.failure_rate: is 50; expected a share above 0",
        ),
        ("[providers.openai]\ntimeouts = { total = \"0s\" }", "timeouts.total: is zero; expected a duration"),
        (
            "[providers.Open-AI]\nvendor = \"openai\"",
            "providers.Open-AI: \"Open-AI\" cannot be a name; expected a name of",
        ),
        (
            "[database]\npooler = \"pgbouncer\"",
            "database.pooler: \"pgbouncer\" is no kind of pooler; expected \"auto\"",
        ),
        (
            "[http]\nhosts = \"a\"",
            "http.hosts: is a text; expected a list of names such as [\"sluice.example.org\"], without ports",
        ),
        ("[models.gpt]\nprice = { input = \"1\", output = \"1\" }", "models.gpt: has no provider or no model"),
        (
            "[models.\"openai/x\"]\nprice = { input = 0.15, output = \"1\" }",
            "models.\"openai/x\".price.input: is 0.15; expected dollars as a decimal string",
        ),
        ("[models.\"openai/x\"]\nprice = { input = \"1\" }", "price.output: is missing from the price"),
        ("[routes.default]", "routes.default.rungs: the route has no rungs"),
        ("[routes.default]\nrungs = []", "routes.default.rungs: the route has no rungs"),
        ("[routes.default]\nrungs = [\"local\"]", "routes.default.rungs[0]: \"local\" has no provider or no model"),
        ("[routes.default]\nrungs = [\"local/\"]", "routes.default.rungs[0]: \"local/\" has no provider or no model"),
        ("[routes.default]\nrungs = [7]", "routes.default.rungs[0]: is not a rung"),
        ("[routes.default]\nrungs = [{ timeouts = {} }]", "routes.default.rungs[0].target: is missing"),
        (
            "[providers.openai]\n[routes.default]\nrungs = [\"opneai/m\"]",
            "rungs[0]: there is no provider \"opneai\"; expected perhaps openai",
        ),
        (
            "[providers.openai]\n[routes.default]\nrungs = [\"openai/m\", \"openai/m\"]",
            "rungs[1]: openai/m is a rung of this route already",
        ),
        (
            "[providers.openai]\n[routes.default]\nrungs = [{ target = \"openai/m\", timeouts = { idel = \"1s\" } }]",
            "routes.default.rungs[0].timeouts.idel: no such key; expected perhaps idle",
        ),
    ];
    for (toml, expected) in cases {
        let faults = given(toml).faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{toml}\n{faults:#?}\n{expected}");
        assert!(!faults.iter().any(|fault| fault.contains("secret")), "{faults:#?}");
    }
}

#[test]
fn each_bad_line_of_a_route_is_named() {
    let cases: &[(&str, &str)] = &[
        ("strategy = \"luck\"", "strategy: \"luck\" is not a strategy; expected \"cost\", \"priority\", "),
        ("strategy = \"race\"", "strategy: a race over one rung"),
        ("patience = \"a while\"", "patience: \"a while\" is not a duration"),
        ("max_attempts = 0", "max_attempts: is 0; expected a whole number from 1 to 1000"),
        ("max_cost = \"-1\"", "max_cost: \"-1\" is negative; expected dollars as a decimal string"),
        ("max_cost = \"much\"", "max_cost: \"much\" is not an amount of money; expected dollars as a decimal string"),
        ("fallback = \"sometimes\"", "fallback: \"sometimes\" is not a rule"),
        ("fallback = \"never\"\nfallback_on = [\"timeout\"]", "fallback: there is a list fallback_on too"),
        (
            "fallback_on = [\"ratelimit\"]",
            "fallback_on[0]: \"ratelimit\" is not an error class; perhaps \"rate_limit\" is meant; expected a list of \
             rate_limit, rate_limit_daily",
        ),
        ("validate = { min_char = 1 }", "validate.min_char: no such key; expected perhaps min_chars"),
        ("validate = { min_chars = 9, max_chars = 3 }", "validate.min_chars: 9 is more than max_chars, which is 3"),
        ("validate = { non_empty = \"yes\" }", "validate.non_empty: is \"yes\"; expected true or false"),
        (
            "validate = { required_patterns = [\"(\"] }",
            "validate.required_patterns[0]: the pattern \"(\" does not compile: unclosed group",
        ),
        (
            "validate = { json_schema = { type = \"objekt\" } }",
            "validate.json_schema: the schema does not compile at /type: ",
        ),
        ("validate = { json_schema_file = \"nowhere.json\" }", "nowhere.json: No such file"),
        ("validate = { language = [\"german\"] }", "validate.language[0]: \"german\" is no language that is told"),
        ("validate = { script = [\"runes\"] }", "validate.script[0]: \"runes\" is no script that is told; expected a"),
        (
            "validate = { raise_cap = \"at times\" }",
            "validate.raise_cap: \"at times\" does not say which answers raise",
        ),
        ("validate = { filter = \"off\" }", "validate.filter: \"off\" does not say whether the filter has to run"),
        ("validate = { served = \"me\" }", "validate.served: \"me\" does not say which model may answer"),
        (
            "validate = { json_schema = {}, json_schema_file = \"x\" }",
            "validate.json_schema: there is a json_schema_file too",
        ),
    ];
    for (line, expected) in cases {
        let faults = route(line).faults();
        assert_eq!(faults.len(), 1, "{line}\n{faults:#?}");
        assert!(faults[0].contains(expected), "{line}\n{faults:#?}\n{expected}");
        assert!(faults[0].starts_with("routes.default."), "{faults:#?}");
    }
}

#[test]
fn a_schema_file_is_found_beside_the_configuration_and_its_faults_name_it() {
    let line = "validate = { json_schema_file = \"answer.json\" }";
    let config = route(line).with_file("answer.json", r#"{"type": "array"}"#).config();
    let rules = &config.routes["default"].route.rules;
    assert!(rules.json && rules.json_schema.as_ref().unwrap().check(&serde_json::json!([])).is_ok());
    for (text, reason) in [(r#"{"type": 7}"#, "does not compile at /type"), ("{", "is not JSON")] {
        let faults = route(line).with_file("answer.json", text).faults();
        assert!(faults[0].contains("answer.json") && faults[0].contains(reason), "{faults:#?}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let faults = given(
        "[worker]\ndrain_timeout = \"soon\"\nspeed = 9\n[providers.x]\ndialect = \"telex\"\napi_key_env = \"NOT_SET\"\n\
         [routes.default]\nrungs = [\"y/m\", \"z\"]\nfallback_on = [\"bad_luck\"]\n",
    )
    .with("SLUICE__WORKER__MAX_IN_FLIGHT", "many")
    .faults();
    assert_eq!(faults.len(), 9, "{faults:#?}");
}

#[test]
fn a_syntax_error_names_file_and_line() {
    let errors = given("[worker]\nmax_in_flight = \n").load().unwrap_err().to_string();
    assert!(errors.contains("sluice.toml: is not valid TOML: ") && errors.contains("line 2"), "{errors}");
}

#[test]
fn a_named_file_that_is_missing_is_a_fault() {
    let error = Config::load(Some(Path::new("/nowhere/sluice.toml")), []).unwrap_err().to_string();
    assert!(error.contains("/nowhere/sluice.toml: the file cannot be read"), "{error}");
    let variables = [("SLUICE_CONFIG".to_owned(), "/nowhere/else.toml".to_owned())];
    let error = Config::load(None, variables).unwrap_err().to_string();
    assert!(error.contains("/nowhere/else.toml"), "{error}");
}

#[test]
fn secrets_are_not_in_the_debug_output() {
    let config = given("[providers.openai]\napi_key_env = \"K\"\n[database]\nurl = \"postgres://u:hunter2@h/d\"\n")
        .with("K", "sk-hunter2")
        .config();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn unknown_prices_and_unused_parts_are_warnings() {
    let config = given(&format!(
        "{LOCAL}[providers.openai]\n[buckets.idle]\n[models.\"opnai/x\"]\n[models.\"local/spare\"]\n\
         [routes.night]\nrungs = [\"local/m\"]\n"
    ))
    .config();
    let all = config.warnings.join("\n");
    for expected in [
        "the price of local/m (route night) is unknown",
        "there is no [routes.default]",
        "no route uses the provider openai",
        "no provider uses the bucket idle",
        "no route uses the model local/spare",
        "[models.\"opnai/x\"] is not used: there is no provider opnai; perhaps openai is meant",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
}

#[test]
fn a_member_to_pass_that_resembles_a_known_one_is_a_warning() {
    let warnings = |pass: &str| route(&format!("pass = {pass}\n")).config().warnings.join("\n");
    for (pass, meant) in [
        ("[\"tols\"]", "no provider is known to take \"tols\"; perhaps \"tools\" is meant"),
        ("[\"tool.web_search\"]", "perhaps \"tools\" is meant"),
        ("[\"servce_tier\"]", "perhaps \"service_tier\" is meant"),
        ("[\"speed\", \"web_serch\"]", "perhaps \"web_search\" is meant"),
        ("[\"temprature\"]", "perhaps \"temperature\" is meant"),
    ] {
        assert!(warnings(pass).contains(meant), "{pass}\n{}", warnings(pass));
    }
    for pass in ["[\"*\"]", "[\"tools\", \"tools.web_search\"]", "[\"service_tier\"]", "[\"x_of_a_new_gateway\"]"] {
        assert!(!warnings(pass).contains("is known to take"), "{pass}\n{}", warnings(pass));
    }
}

#[test]
fn a_key_sent_in_clear_text_is_a_warning() {
    let toml = |url: &str| format!("[providers.x]\ndialect = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"K\"\n");
    let warns = |url: &str| {
        given(&toml(url)).with("K", "sk-1").config().warnings.iter().any(|warning| warning.contains("unencrypted"))
    };
    assert!(warns("http://example.com/v1"));
    assert!(!warns("https://example.com/v1"));
    assert!(!warns("http://localhost:1/v1") && !warns("http://127.0.0.1:1/v1") && !warns("http://[::1]:1/v1"));
}

const DEFAULT_FILE: &str = include_str!("../../config/sluice.toml");

#[test]
fn the_default_file_changes_nothing() {
    let (shipped, nothing) = (given(DEFAULT_FILE).config(), given("").config());
    assert_eq!(shipped.warnings, nothing.warnings);
    assert_eq!(format!("{:?}", (&shipped.worker, &shipped.http, &shipped.log)), {
        format!("{:?}", (&nothing.worker, &nothing.http, &nothing.log))
    });
    assert!(shipped.providers.is_empty() && shipped.routes.is_empty());
}

#[test]
fn the_default_file_loads_with_everything_uncommented() {
    // A comment in prose starts with a capital letter or ends in a sentence; a setting has a key, a bracket or a list.
    let is_setting = |line: &str| {
        let line = line.trim_start();
        line.starts_with(['[', ']', '"', '{'])
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let uncommented: Vec<&str> = DEFAULT_FILE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if is_setting(setting) => setting,
            _ => line,
        })
        .collect();
    let config = given(&uncommented.join("\n"))
        .with("OPENAI_API_KEY", "sk-1")
        .with("ANTHROPIC_API_KEY", "sk-2")
        .with("SLUICE_HTTP_TOKEN", "a-token-without-blanks-is-long-enough")
        .with("SLUICE_OPS_URL", "https://ops.example.com/hook")
        .with("SLUICE_OPS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .with("SLUICE_TRACES_HEADERS", "Authorization: Bearer x")
        .config();
    assert_eq!(config.providers.len(), 3);
    let default = &config.routes["default"].route;
    assert_eq!(default.rungs.len(), 3);
    assert!(default.rungs.iter().all(|rung| rung.model.is_priced()), "{:#?}", default.rungs);
    // The defaults that the file shows are the real ones.
    let plain = route("").config().routes["default"].route.clone();
    assert_eq!(
        (&default.strategy, default.patience, default.max_attempts),
        (&plain.strategy, plain.patience, plain.max_attempts)
    );
    assert_eq!(default.fallback_on, plain.fallback_on);
    let (shown, unset) = (&config.providers["openai"], &given("[providers.openai]").config().providers["openai"]);
    assert_eq!((shown.breaker, shown.recheck), (unset.breaker, unset.recheck));
    assert_eq!(shown.endpoint.timeouts, unset.endpoint.timeouts);
    assert_eq!(
        (&shown.endpoint.base_url, shown.endpoint.max_body),
        (&unset.endpoint.base_url, unset.endpoint.max_body)
    );
    let defaults = given("").config();
    assert_eq!((config.worker.max_in_flight, config.worker.max_crashes), (500, defaults.worker.max_crashes));
    assert_eq!(config.worker.drain_timeout, defaults.worker.drain_timeout);
    assert_eq!(config.http.listen, defaults.http.listen);
    assert!(config.http.chosen && !defaults.http.chosen);
    assert_eq!(config.database.max_connections, defaults.database.max_connections);
    assert_eq!(config.database.pooler, defaults.database.pooler);
}

// -------------------------------------------------------------------------------------------------- retention

#[test]
fn finished_work_is_kept_for_ever_unless_a_time_is_given() {
    let kept = |text: &str| given(text).config().retention.map(|retention| retention.finished);
    assert_eq!(kept(""), None);
    assert_eq!(kept("[retention]\n"), None);
    assert_eq!(kept("[retention]\nfinished = \"90d\"\n"), Some(Duration::from_hours(90 * 24)));
    assert_eq!(kept("[retention]\nfinished = \"1h\"\n"), Some(Duration::from_hours(1)));
    let expected = "expected a duration such as \"90d\", an hour at least";
    for (value, problem) in [("\"59m\"", "\"59m\" is too short"), ("90", "is 90")] {
        let faults = given(&format!("[retention]\nfinished = {value}\n")).faults();
        assert_eq!(faults, [format!("retention.finished: {problem}; {expected}")]);
    }
}
