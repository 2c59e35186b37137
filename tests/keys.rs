//! Several keys of one provider with the real program: one is rejected, one runs out of money during the run, one is
//! good.

use crate::support::fleet::Fleet;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, text};
use crate::support::queue::enqueue_questions;
use crate::support::scripted::{Scripted, answer};
use crate::support::wait::until;
use serde_json::Value;
use sluice::simulate::{Scenario, Simulator};
use sluice::store::Store;
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::process::Child;

/// Not shaped like any vendor's, so that no pattern of keys takes them out by chance.
const REJECTED: &str = "first-key-3f9a1c77";
const POOR: &str = "second-key-b8d20e41";
const GOOD: &str = "third-key-5c6e9f02";

/// More calls at once there are not, so that many may be under way with a key when it turns out to be dead.
const AT_ONCE: usize = 12;

struct Stage {
    database: TestDatabase,
    pool: PgPool,
    simulator: Simulator,
    program: Program,
}

impl Stage {
    /// A provider that takes these keys, and a worker that has all three.
    async fn new(keys: &str, recheck: &str) -> Self {
        let database = database().await;
        // An answer of 16 tokens costs 16 millionths of a dollar.
        let scenario = format!(
            "record_calls = 100000\n[providers.one]\ndialect = \"openai\"\nkeys = {keys}\n\
             latency = {{ uniform = [0.002, 0.02] }}\nmodels.model.price = {{ input = \"0\", output = \"1\" }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        // One attempt has to do: a key that fails must not cost a job its only one.
        let config = format!(
            "[worker]\nmax_in_flight = {AT_ONCE}\n[http]\nlisten = \"off\"\n\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\nrecheck = \"{recheck}\"\n\
             keys = [{{ api_key_env = \"FIRST_KEY\" }}, {{ api_key_file = \"second.key\" }}, {{ credential \
             = \"third\" }}]\n\
             [models.\"one/model\"]\nprice = {{ input = \"0\", output = \"1\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\nmax_attempts = 1\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        program.file("second.key", format!("{POOR}\n"));
        program.file("third", GOOD);
        Self { pool: database.pool(), database, simulator, program }
    }

    async fn enqueue(&self, jobs: i32) {
        enqueue_questions(&self.pool, jobs).await;
    }

    fn worker(&self) -> Child {
        let mut command = self.program.command(&["worker"]);
        command.env("FIRST_KEY", REJECTED).env("CREDENTIALS_DIRECTORY", self.program.path(""));
        command.spawn().unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// How the calls ended that were made with the key at this place of the simulator's list.
    fn statuses(&self, key: Option<usize>) -> Vec<u16> {
        let calls = self.simulator.calls(100_000);
        calls.iter().rev().filter(|call| call.key == key).map(|call| call.status).collect()
    }

    /// Everything in every table, as text.
    async fn all_rows(&self) -> String {
        let tables: Vec<String> = sqlx::query_scalar(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert!(tables.iter().any(|table| table == "sluice.attempt"), "{tables:?}");
        let mut all = String::new();
        for table in tables {
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("select t::text from {table} t")))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            all.push_str(&rows.join("\n"));
        }
        all
    }

    async fn books_are_in_order(&self, jobs: i64) {
        let audit = Store::from_pool(self.database.pool()).audit().await.unwrap();
        assert_eq!(audit.faults(), Vec::<String>::new());
        assert_eq!((audit.jobs, audit.succeeded), (jobs, jobs), "{audit:?}");
    }
}

async fn stop(worker: Child) -> String {
    let pid = i32::try_from(worker.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM).unwrap();
    let output = ended(worker).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

/// The keys as `sluice status` shows them, by name.
async fn key_states(program: &Program) -> Vec<(String, String, Option<String>)> {
    let status: Value = serde_json::from_str(&program.output(&["status", "--format", "json"]).await).unwrap();
    let word = |key: &Value, member: &str| key[member].as_str().map(str::to_owned);
    let keys = status["workers"][0]["stats"]["gate"]["keys"].as_array().cloned().unwrap_or_default();
    let state = |key| (word(key, "key").unwrap(), word(key, "state").unwrap(), word(&key["shut"], "reason"));
    keys.iter().map(state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_good_key_of_three_is_enough_and_no_job_pays_for_the_others() {
    // Enough for some forty answers.
    let poor = format!("{{ key = \"{POOR}\", credit = \"0.00064\", disguise = 429 }}");
    let stage = Stage::new(&format!("[{poor}, \"{GOOD}\"]"), "10m").await;
    stage.enqueue(300).await;
    let worker = stage.worker();
    until("all jobs have ended", async || stage.count("select count(*) from sluice.result").await == 300).await;
    stage.books_are_in_order(300).await;

    let [rejected, poor, good] = [None, Some(0), Some(1)].map(|key| stage.statuses(key));
    assert!(!rejected.is_empty() && rejected.len() <= AT_ONCE, "{rejected:?}");
    let refused = poor.iter().filter(|status| **status == 429).count();
    assert!((1..=AT_ONCE).contains(&refused), "{poor:?}");
    assert_eq!((poor.len() - refused) + good.len(), 300, "every other call is an answer that is used");
    assert!(poor.len() - refused >= 40, "the money was there to be used: {poor:?}");

    // The ledger has every call, with the key's name, and none of them counts against a job.
    let second = stage.program.path("second.key").display().to_string();
    let booked = "select count(*) from sluice.attempts where decision->>'key' is not null";
    assert_eq!(stage.count(booked).await, i64::try_from(rejected.len() + poor.len() + good.len()).unwrap());
    let failed: Vec<(String, String, i64)> = sqlx::query_as(
        "select class, decision->>'key', count(*) from sluice.attempts where not accepted group by 1, 2 order by 1",
    )
    .fetch_all(&stage.pool)
    .await
    .unwrap();
    let expected = [
        ("auth".to_owned(), "FIRST_KEY".to_owned(), i64::try_from(rejected.len()).unwrap()),
        ("quota_exhausted".to_owned(), second.clone(), i64::try_from(refused).unwrap()),
    ];
    assert_eq!(failed, expected);
    assert_eq!(stage.count("select count(*) from sluice.parked").await, 0);

    // Who looks, sees which keys are out and why.
    let state =
        |name: &str, state: &str, why: Option<&str>| (name.to_owned(), state.to_owned(), why.map(str::to_owned));
    let expected = [
        state("FIRST_KEY", "out", Some("auth")),
        state(&second, "out", Some("quota_exhausted")),
        state("third", "in_service", None),
    ];
    until("the status shows the keys", async || key_states(&stage.program).await == expected).await;
    let mut shown = stage.program.output(&["status"]).await;
    assert!(shown.contains("# keys") && shown.contains("quota_exhausted"), "{shown}");
    let job: i64 = sqlx::query_scalar("select job_id from sluice.attempts where class = 'auth' limit 1")
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    let story = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(story.contains("it was called with the key FIRST_KEY"), "{story}");
    assert!(story.contains("#2 ") && story.contains("It succeeded"), "{story}");
    shown.push_str(&story);

    let log = stop(worker).await;
    let warnings = |what: &str, key: &str| {
        log.lines().filter(|line| line.contains("WARN") && line.contains(what) && line.contains(key)).count()
    };
    assert_eq!(warnings("the key is rejected", "FIRST_KEY"), 1, "{log}");
    assert_eq!(warnings("the key is out of money", &second), 1, "{log}");

    shown.push_str(&log);
    shown.push_str(&stage.all_rows().await);
    for key in [REJECTED, POOR, GOOD] {
        assert!(!shown.contains(key), "a key is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_names_an_only_key_when_it_is_refused_and_only_then() {
    let stage =
        Stage::new(&format!("[\"{GOOD}\"]\nfaults = [{{ kind = \"auth\", first_n_calls = 1 }}]"), "100ms").await;
    stage.enqueue(1).await;
    let mut command = stage.program.command(&["worker", "--drain"]);
    let three = "[{ api_key_env = \"FIRST_KEY\" }, { api_key_file = \"second.key\" }, { credential = \"third\" }]";
    let config = std::fs::read_to_string(stage.program.path("sluice.toml")).unwrap();
    stage.program.file("sluice.toml", config.replace(three, "[{ api_key_env = \"FIRST_KEY\" }]"));
    let output = ended(command.env("FIRST_KEY", GOOD).spawn().unwrap()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: Vec<Option<String>> = sqlx::query_scalar("select decision->>'key' from sluice.attempts order by number")
        .fetch_all(&stage.pool)
        .await
        .unwrap();
    assert_eq!(told, [Some("FIRST_KEY".to_owned()), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_keys_out_jobs_wait_until_a_recheck_finds_one_good_again() {
    // In the first wave each job can meet each key once; the refusals that are left are met by probes.
    let refusals = 3 * AT_ONCE + 6;
    let stage = Stage::new(
        &format!(
            "[\"{REJECTED}\", \"{POOR}\", \"{GOOD}\"]\nfaults = [{{ kind = \"402\", first_n_calls = {refusals} }}]"
        ),
        "100ms",
    )
    .await;
    stage.enqueue(40).await;
    let worker = stage.worker();
    until("all jobs have ended", async || stage.count("select count(*) from sluice.result").await == 40).await;
    stage.books_are_in_order(40).await;
    assert_eq!(usize::try_from(stage.simulator.verdict().total.calls).unwrap(), 40 + refusals);
    let log = stop(worker).await;
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("the key is out of money; "), 3, "{log}");
    let probes = lines("tried again: the key is out of money");
    // How many calls are in the first wave depends on how fast it starts; at least one of each key is not a probe.
    assert!((6..=refusals - 3).contains(&probes), "{probes} probes\n{log}");
    assert_eq!(lines("the key works again"), 3, "{log}");
}

/// What OpenAI says of a key that it does not know.
const WRONG_KEY: &str =
    r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}"#;

/// In place of a status: 401 as a gateway says it, without a word of keys.
const BARE: u16 = 1;

/// A server that answers with this status, the words of all that are no answers being those for a wrong key; at its
/// provider `never` no key has ever been right.
async fn server_with(status: &Arc<AtomicU16>) -> Scripted {
    let status = Arc::clone(status);
    Scripted::start(move |call, _| match (call.provider.as_str(), status.load(Ordering::Relaxed)) {
        ("never", _) => (401, WRONG_KEY.into()),
        (_, 200) => answer("Yes."),
        (_, BARE) => (401, b"Unauthorized".to_vec()),
        (_, status) => (status, WRONG_KEY.into()),
    })
    .await
}

async fn shown(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.program(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The states of a provider's keys and why they are not in service, as `sluice status` shows them.
async fn states_at(fleet: &Fleet, provider: &str) -> Vec<(String, Option<String>)> {
    let status: Value = serde_json::from_str(&shown(fleet, &["status", "--format", "json"]).await).unwrap();
    let keys = status["workers"][0]["stats"]["gate"]["keys"].as_array().cloned().unwrap_or_default();
    let of = keys.iter().filter(|key| key["provider"] == provider);
    of.map(|key| (key["state"].as_str().unwrap().to_owned(), key["shut"]["reason"].as_str().map(str::to_owned)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_refused_together_are_an_outage_and_their_provider_comes_back_without_a_person() {
    const DOUBTED: &str = "the key was refused although it had answered lately";
    const REFUSALS: &str = "select count(*) from sluice.attempts where provider = 'main' and class = 'auth'";
    let status = Arc::new(AtomicU16::new(200));
    let server = server_with(&status).await;
    let of_server = |name: &str, keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("{{ api_key_env = \"{key}\" }}")).collect();
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{}\"\nkeys = [{}]\n\
             breaker = {{ min_calls = 1000 }}\n[models.\"{name}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n",
            server.base_url(name),
            keys.join(", ")
        )
    };
    let at_once = "strategy = \"priority\"\npatience = \"0s\"\n";
    // One attempt has to do for jobs that know no other provider: an outage must not cost them their only one.
    let config = format!(
        "[worker]\nmax_in_flight = 4\n[alerts]\nevery = \"1s\"\n[alerts.rules]\n\
         breaker_open = {{ for = \"0s\" }}\n{}{}[providers.two]\ndialect = \"openai\"\n\
         base_url = \"http://simulator/two/v1\"\n[models.\"two/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"main/m\", \"two/m\"]\n{at_once}\
         [routes.never]\nrungs = [\"never/m\", \"two/m\"]\n{at_once}\
         [routes.alone]\nrungs = [\"main/m\"]\nmax_attempts = 1\n",
        of_server("main", &["KEY_ONE", "KEY_TWO", "KEY_THREE"]),
        of_server("never", &["KEY_FOUR", "KEY_FIVE"])
    );
    let scenario = "[providers.two]\ndialect = \"openai\"\nmodels.m.price = { input = \"1\", output = \"2\" }\n";
    let fleet = Fleet::new(scenario, &config).await;
    let keys =
        ["ONE", "TWO", "THREE", "FOUR", "FIVE"].map(|key| (format!("KEY_{key}"), format!("secret-of-{key}-93b1")));
    let variables: Vec<(&str, &str)> = keys.iter().map(|(name, key)| (name.as_str(), key.as_str())).collect();
    let worker = fleet.start_with(&variables);
    fleet.enqueue("default", 12).await;
    fleet.until_answered(12).await;
    let used: BTreeSet<Option<String>> = server.calls("main").into_iter().map(|call| call.authorization).collect();
    assert_eq!(used.len(), 3, "all three keys have answered");

    // Keys that have never answered are out at once.
    fleet.enqueue("never", 3).await;
    fleet.until_answered(15).await;
    let out = ("out".to_owned(), Some("auth".to_owned()));
    until("both keys are out", async || states_at(&fleet, "never").await == [out.clone(), out.clone()]).await;
    let said = worker.said();
    assert_eq!((said.matches("the key is rejected").count(), said.matches(DOUBTED).count()), (2, 0), "{said}");

    // All three are refused: jobs take the other rung, or wait where there is none.
    status.store(401, Ordering::Relaxed);
    fleet.enqueue("default", 20).await;
    fleet.enqueue("alone", 4).await;
    fleet.until_answered(35).await;
    let outage = "main/m: keys refused as in an outage (all 3 keys were refused within ";
    until("the status names the outage", async || {
        let told = shown(&fleet, &["status", "--format", "table"]).await;
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        told.contains(outage) && told.contains(" s: taken for an outage)")
    })
    .await;
    until("no key is believed to be out", async || {
        let states = states_at(&fleet, "main").await;
        states.len() == 3 && states.iter().all(|(_, why)| why.as_deref() == Some("keys_in_doubt"))
    })
    .await;
    let job = fleet.number("select min(id) from sluice.jobs where route = 'alone'").await.to_string();
    let told = shown(&fleet, &["explain", &job]).await;
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("all 3 keys were refused within"), "{told}");
    let skipped = "select count(*) from sluice.attempts
                    where provider = 'two' and decision->'skipped'->0->>'why' = 'keys_in_doubt'";
    assert!(fleet.number(skipped).await > 0);
    let ended = "select count(*) from sluice.results where state <> 'succeeded' or route = 'alone'";
    assert_eq!(fleet.number(ended).await, 0);
    worker.until_said("taken for an outage; its jobs go elsewhere or wait", 1).await;
    assert_eq!(worker.said().matches("the key is rejected").count(), 2, "of the other provider");
    until("the alert names the outage", async || {
        let told = shown(&fleet, &["alert", "list", "--format", "json"]).await;
        told.contains("main takes no calls: all 3 keys were refused within ")
    })
    .await;
    // Waiting is the advice of a probe as well: as far as workers know, no key has to be replaced.
    let probe = fleet.program(&["provider", "probe", "main"]).envs(variables.iter().copied()).output().await.unwrap();
    let told = text(&probe.stdout);
    assert_eq!(probe.status.code(), Some(3), "{told}");
    assert!(told.matches("do: wait: keys that had answered").count() == 3 && !told.contains("reload"), "{told}");

    // It is over.
    status.store(200, Ordering::Relaxed);
    fleet.until_answered(39).await;
    worker.until_said("the keys work again: the outage is over", 1).await;
    // Four calls at once may have been under way, and then one at a time asked.
    let refused = fleet.number(REFUSALS).await;
    assert!((3..20).contains(&refused), "{refused}");
    let by_main = "select count(*) from sluice.attempts where provider = 'main' and accepted";
    let before = fleet.number(by_main).await;
    fleet.enqueue("default", 6).await;
    fleet.until_answered(45).await;
    assert_eq!(fleet.number(by_main).await, before + 6);

    // A server that fails says nothing of keys, whatever its words are.
    let doubts = worker.said().matches(DOUBTED).count();
    status.store(500, Ordering::Relaxed);
    fleet.enqueue("default", 6).await;
    fleet.until_answered(51).await;
    let failed = "select count(*) from sluice.attempts where provider = 'main' and class = 'server_error'";
    assert!(fleet.number(failed).await >= 6);
    assert_eq!((fleet.number(REFUSALS).await, worker.said().matches(DOUBTED).count()), (refused, doubts));
    let well = ("in_service".to_owned(), None);
    until("all keys are in service", async || states_at(&fleet, "main").await == vec![well.clone(); 3]).await;

    // The same outage in a gateway's words, which might concern one request: it takes more refusals, and no job.
    status.store(BARE, Ordering::Relaxed);
    fleet.enqueue("alone", 8).await;
    worker.until_said("taken for an outage; its jobs go elsewhere or wait", 2).await;
    status.store(200, Ordering::Relaxed);
    fleet.until_answered(59).await;
    worker.stop().await;
    fleet.books_are_in_order(59).await;
}
