//! Health probes: a server whose page fails is called by no job, and comes back without a call that fails; and the
//! command that probes a provider by hand.

use crate::support::fleet::Fleet;
use crate::support::program::{Program, text};
use crate::support::scripted::{Reply, Scripted, answer};
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const KEY: &str = "sk-probe-key-7f3a91c2";

/// A server whose page `/health` says what a test wants. Everything else is answered well.
struct Server {
    scripted: Scripted,
    is_well: Arc<AtomicBool>,
}

impl Server {
    async fn start(is_well: bool) -> Self {
        let is_well = Arc::new(AtomicBool::new(is_well));
        let well = Arc::clone(&is_well);
        let scripted = Scripted::start(move |call, _| -> Reply {
            if !call.path.contains("/health") {
                return answer("Yes.");
            }
            let quoted = call.authorization.clone().unwrap_or_default();
            let down = format!(r#"{{"error": {{"code": 503, "message": "Loading model for {quoted}"}}}}"#);
            if well.load(Ordering::Relaxed) { (200, b"{}".to_vec()) } else { (503, down.into_bytes()) }
        });
        Self { scripted: scripted.await, is_well }
    }

    fn is_now(&self, well: bool) {
        self.is_well.store(well, Ordering::Relaxed);
    }

    /// How often its page was asked, and how often anything else.
    fn asked(&self) -> (usize, usize) {
        let calls = self.scripted.calls("main");
        let pages = calls.iter().filter(|call| call.path.contains("/health")).count();
        (pages, calls.len() - pages)
    }

    /// A provider with a key at this server, probed by a page.
    fn provider(&self, probe: &str) -> String {
        format!(
            "[providers.main]\ndialect = \"openai\"\nbase_url = \"{}\"\napi_key_env = \"PROBE_KEY\"\n{probe}\
             [models.\"main/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n",
            self.scripted.base_url("main")
        )
    }
}

const PROBE: &str = "probe = { path = \"/main/health?deep=1\", every = \"150ms\", failures = 2 }\n";
const BESIDE: &str = "[providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/two/v1\"\n\
                      [models.\"two/m\"]\nprice = { input = \"1\", output = \"2\" }\n";
const SCENARIO: &str = "[providers.two]\ndialect = \"openai\"\nmodels.m.price = { input = \"1\", output = \"2\" }\n";
/// Jobs take the rungs in their order, and wait for none.
const AT_ONCE: &str = "strategy = \"priority\"\npatience = \"0s\"\n";
const WORKER: &str = "[worker]\nmax_in_flight = 20\ndrain_timeout = \"5s\"\n";

/// The targets that live workers hold shut for their probes.
const SHUT: &str = "select count(*) from sluice.worker w, jsonb_array_elements(w.stats->'gate'->'targets') t
                     where w.state = 'live' and t->'shut'->>'reason' = 'health_probe'";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_page_fails_gets_no_call_and_its_jobs_take_the_other_rung() {
    let server = Server::start(false).await;
    let config = format!(
        "{WORKER}{}{BESIDE}[routes.default]\nrungs = [\"main/m\", \"two/m\"]\n{AT_ONCE}",
        server.provider(PROBE)
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    let worker = fleet.start_with(&[("PROBE_KEY", KEY)]);
    worker.until_said("the health probe fails", 1).await;
    fleet.enqueue("default", 30).await;
    fleet.until_answered(30).await;
    assert_eq!((server.asked().1, fleet.verdict().total.calls), (0, 30), "no call was spent on it");
    let failed = fleet.number("select count(*) from sluice.attempts where not accepted").await;
    assert_eq!(failed, 0);
    let skipped = "select count(*) from sluice.attempt
                    where decision->'skipped'->0->>'why' = 'health_probe'
                      and decision->'skipped'->0->>'target' = 'main/m'";
    assert_eq!(fleet.number(skipped).await, 30, "each call says why it went elsewhere");
    // The page is asked of its own server, with the key and with its query.
    let calls = server.scripted.calls("main");
    assert!(calls.iter().all(|call| call.path == "/main/health?deep=1"), "{calls:?}");
    assert!(calls.iter().all(|call| call.authorization == Some(format!("Bearer {KEY}"))));
    // It says so once, however often the page fails, and shows no key.
    let before = server.asked().0;
    until("it is asked again", async || server.asked().0 > before + 3).await;
    let said = worker.said();
    assert_eq!(said.matches("the health probe fails").count(), 1, "{said}");
    assert!(said.contains("HTTP 503: Loading model for") && !said.contains(KEY), "{said}");
    server.is_now(true);
    worker.until_said("the health probe is good again", 1).await;
    fleet.enqueue("default", 1).await;
    fleet.until_answered(31).await;
    until("it is called again", async || server.asked().1 == 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_other_rung_jobs_wait_and_every_face_says_for_what() {
    let server = Server::start(false).await;
    let config = format!("{WORKER}{}[routes.default]\nrungs = [\"main/m\"]\n", server.provider(PROBE));
    let fleet = Fleet::new(SCENARIO, &config).await;
    let worker = fleet.start_with(&[("PROBE_KEY", KEY)]);
    until("it is shut", async || fleet.number(SHUT).await == 1).await;
    fleet.enqueue("default", 8).await;
    let waits = "select count(*) from sluice.jobs where waits_for = 'main/m: health_probe (nowhere else to go)'";
    until("they wait for the probe", async || fleet.number(waits).await == 8).await;
    let job: i64 = sqlx::query_scalar("select min(id) from sluice.jobs").fetch_one(&fleet.pool).await.unwrap();
    for command in [&["explain", &job.to_string()][..], &["job", "show", &job.to_string()], &["status"]] {
        let output = fleet.program(command).output().await.unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        // Tables fold.
        let folded = out.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = if command[0] == "status" { "health_probe" } else { "health probe fails (HTTP 503: Loading model" };
        assert!(folded.contains(words), "{command:?}: {out}{err}");
        assert!(!out.contains(KEY), "{out}");
    }
    let explained = text(&fleet.program(&["explain", &job.to_string()]).output().await.unwrap().stdout);
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(explained.contains(" since "), "{explained}");
    assert_eq!(server.asked().1, 0);
    server.is_now(true);
    fleet.until_answered(8).await;
    fleet.books_are_in_order(8).await;
    assert_eq!(server.asked().1, 8, "it came back without a call that failed");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_a_simulated_server_fails_shuts_it_although_its_calls_go_well() {
    let scenario = format!("{SCENARIO}[providers.ill]\ndialect = \"openai\"\nunhealthy = [{{}}]\n");
    let config = format!(
        "{WORKER}{BESIDE}[providers.ill]\ndialect = \"openai\"\nbase_url = \"http://simulator/ill/v1\"\n\
         probe = {{ path = \"/ill/health\", every = \"100ms\" }}\n\
         [models.\"ill/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"ill/m\", \"two/m\"]\n{AT_ONCE}"
    );
    let fleet = Fleet::new(&scenario, &config).await;
    let worker = fleet.start();
    worker.until_said("the health probe fails", 1).await;
    fleet.enqueue("default", 10).await;
    fleet.until_answered(10).await;
    assert!(fleet.calls().iter().all(|call| call.provider == "two"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_shut_and_one_that_no_route_uses_is_not_asked() {
    let unused = Server::start(true).await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "{WORKER}{}[providers.gone]\ndialect = \"openai\"\nbase_url = \"http://{nowhere}/v1\"\n\
         probe = {{ path = \"/health\", every = \"100ms\", failures = 1 }}\n\
         [routes.default]\nrungs = [\"gone/m\"]\n",
        unused.provider(PROBE)
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    let worker = fleet.start_with(&[("PROBE_KEY", KEY)]);
    until("it is shut", async || fleet.number(SHUT).await == 1).await;
    assert!(worker.said().contains("the health probe fails (no connection"), "{}", worker.said());
    assert_eq!(unused.asked(), (0, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_begins_and_ends_probes() {
    let server = Server::start(false).await;
    let with = |probe: &str| format!("{WORKER}{}[routes.default]\nrungs = [\"main/m\"]\n", server.provider(probe));
    let fleet = Fleet::new(SCENARIO, &with("")).await;
    let worker = fleet.start_with(&[("PROBE_KEY", KEY)]);
    worker.until_said("worker is ready", 1).await;
    let reload = async |probe: &str, times: usize| {
        fleet.configure(&with(probe));
        worker.signal(Signal::HUP);
        worker.until_said("the configuration was read again and is in force", times).await;
    };
    assert_eq!(server.asked(), (0, 0));
    reload(PROBE, 1).await;
    worker.until_said("the health probe fails", 1).await;
    // Without the probe nothing holds it shut.
    reload("", 2).await;
    fleet.enqueue("default", 3).await;
    fleet.until_answered(3).await;
    let (pages, _) = server.asked();
    // A page that is there, on another path: the failures of the other one do not count.
    server.is_now(true);
    reload(&PROBE.replace("deep=1", "deep=2"), 3).await;
    until("the other page is asked", async || server.asked().0 > pages + 1).await;
    assert_eq!(worker.said().matches("the health probe fails").count(), 1, "{}", worker.said());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_a_schedule_probes_a_paid_provider_and_is_on_the_ledger() {
    let config = format!(
        "{WORKER}{BESIDE}[routes.default]\nrungs = [\"two/m\"]\n\
         [routes.probe_two]\nrungs = [\"two/m\"]\nmax_attempts = 1\n\
         [schedules.probe_two]\ncron = \"* * * * * *\"\nroute = \"probe_two\"\nproject = \"probes\"\n\
         request = {{ prompt = \"Say OK.\", max_tokens = 16 }}\ndeadline = \"4m\"\nbatch = \"probe_two\"\n"
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    let worker = fleet.start();
    let calls = "select count(*) from sluice.attempts
                  where project = 'probes' and batch = 'probe_two' and route = 'probe_two' and cost > 0";
    until("several probes are booked", async || fleet.number(calls).await >= 3).await;
    worker.stop().await;
    let (code, out, err) = run(&fleet, &["report", "cost", "--project", "probes"]).await;
    assert!(code == 0 && out.contains("two"), "{out}{err}");
}

/// Runs a command with the key; its exit status, standard output, standard error.
async fn run(fleet: &Fleet, arguments: &[&str]) -> (i32, String, String) {
    let output = fleet.program(arguments).env("PROBE_KEY", KEY).output().await.unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_probed_by_hand_and_what_workers_hold_back_is_told_with_what_ends_it() {
    let server = Server::start(true).await;
    let config = format!(
        "{WORKER}{}{BESIDE}[routes.default]\nrungs = [\"main/m\", \"main/n\", \"two/m\"]\n",
        server.provider(PROBE)
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    let (code, out, err) = run(&fleet, &["provider", "probe", "main"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("its health page /main/health?deep=1 is good after "), "{out}");
    assert!(out.contains("2 of 2 calls answered") && out.contains("cost unknown"), "{out}");
    assert!(!out.contains("hold it back") && !out.contains("two/m"), "{out}");
    let (code, out, _) = run(&fleet, &["provider", "probe", "main", "--model", "m", "--format", "json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["ok"], &told["page"]["http_status"]), (0, &true.into(), &200.into()), "{told:#}");
    assert_eq!(told["calls"].as_array().unwrap().len(), 1);
    assert_eq!((&told["calls"][0]["target"], &told["held_back"]), (&"main/m".into(), &serde_json::json!([])));
    // A worker that has given it up in several ways: it answers all the same.
    let stats = serde_json::json!({ "version": 2, "gate": {
        "buckets": [{ "name": "waits", "rates": [], "shut": { "reason": "rate_limit", "since_ms": 1 } }],
        "targets": [
            { "target": "main/m", "bucket": "main", "breaker": "open", "said": "overloaded, HTTP 503",
              "shut": { "reason": "breaker_open", "since_ms": 1 } },
            { "target": "main/n", "bucket": "waits", "breaker": "closed", "shut": null },
            { "target": "main/p", "bucket": "main", "breaker": "closed", "said": "HTTP 503: Loading model",
              "shut": { "reason": "health_probe", "since_ms": 1 } },
            { "target": "two/m", "bucket": "two", "breaker": "open", "shut": { "reason": "breaker_open" } },
        ],
        "keys": [{ "provider": "main", "key": "PROBE_KEY", "state": "out",
                   "shut": { "reason": "auth", "since_ms": 1 } }],
    } });
    sqlx::query(
        "insert into sluice.worker (host, pid, version, lease_until, stats)
              values ('h', 1, '1', now() + interval '1 h', $1)",
    )
    .bind(&stats)
    .execute(&fleet.pool)
    .await
    .unwrap();
    let (code, out, _) = run(&fleet, &["provider", "probe", "main"]).await;
    assert_eq!(code, 0, "{out}");
    for words in [
        "workers hold it back:\n  main/m: its breaker is open after failures (overloaded, HTTP 503)",
        "  main/n: its limit is used up",
        "  main/p: its provider's health probe fails (HTTP 503: Loading model) since ",
        "  the key PROBE_KEY is out of service (auth)",
        "  do: sluice provider reopen main\n",
        "  do: the first good health probe of a worker ends it\n",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(!out.contains("two/m") && out.matches("provider reopen").count() == 1, "{out}");
    server.is_now(false);
    let (code, out, _) = run(&fleet, &["provider", "probe", "main"]).await;
    assert!(code == 1 && out.contains("FAILED after ") && out.contains("HTTP 503: “Loading model"), "{code} {out}");
    assert!(!out.contains(KEY), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_probed_is_refused_with_what_there_is_and_failures_say_what_to_do() {
    let scenario = format!(
        "{SCENARIO}[providers.out]\ndialect = \"openai\"\nkeys = [\"another\"]\n\
         [providers.busy]\ndialect = \"openai\"\nfaults = [{{ kind = \"503\" }}]\n"
    );
    let provider = |name: &str, more: &str| {
        format!("[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n{more}\n")
    };
    let config = format!(
        "{BESIDE}{}{}{}[routes.default]\nrungs = [\"two/m\", \"out/m\", \"busy/m\"]\n",
        provider("out", "api_key_env = \"PROBE_KEY\""),
        provider("busy", ""),
        provider("idle", "")
    );
    let fleet = Fleet::new(&scenario, &config).await;
    for (arguments, code, words) in [
        (&["nothing"][..], 6, "there is no provider \"nothing\"; there are: busy, idle, out, two"),
        (&["two", "--model", "x"], 6, "no route names the model \"x\" of two; they name: m"),
        (&["idle"], 6, "no route names a model of the provider \"idle\""),
        (&["two", "--timeout", "soon"], 2, "expected a duration"),
        (&[], 2, "<NAME>"),
    ] {
        let (status, _, err) = run(&fleet, &[&["provider", "probe"], arguments].concat()).await;
        assert!(status == code && err.contains(words), "{arguments:?}: {status} {err}");
    }
    assert_eq!(fleet.verdict().total.calls, 0);
    for (name, code, words) in [
        ("out", 3, "do: replace the key, and reload the workers (SIGHUP)"),
        ("busy", 1, "do: look at the server's log or the provider's status page"),
    ] {
        let (status, out, _) = run(&fleet, &["provider", "probe", name]).await;
        assert!(status == code && out.contains(words), "{status} {out}");
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    }
    // Without a database the calls are made all the same.
    let simulator = format!("http://{}", fleet.simulator.addr());
    let alone = Program::new(&config.replace("http://simulator", &simulator), "postgresql://u@127.0.0.1:1/none");
    let output = alone.command(&["provider", "probe", "two"]).env("PROBE_KEY", KEY).output().await.unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("1 of 1 call answered") && err.contains("what workers hold back is not known"), "{out}{err}");
}
