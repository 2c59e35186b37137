//! Alerts, with the real program and real receivers: ones that fail, hang, reset, redirect, and come back.

use crate::support::clock;
use crate::support::fleet::{Fleet, Process, stop};
use crate::support::inbox::{Inbox, Letter, Reply, ok, status};
use crate::support::postgres::database;
use crate::support::program::{ended, text};
use crate::support::wait::until;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sluice::domain::alert::RouteFlow;
use sluice::store::Store;
use sqlx::postgres::PgPoolOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// 32 bytes.
const SECRET: &str = "whsec_YWxlcnQtc2VjcmV0LW9mLTMyLWJ5dGVzLWV4YWN0bHk=";
const SECRET_BYTES: &[u8] = b"alert-secret-of-32-bytes-exactly";

/// HMAC-SHA256 by its definition (RFC 2104), apart from the crate that signs.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let with = |pad: u8| block.map(|byte| byte ^ pad).to_vec();
    let inner = Sha256::digest([with(0x36), message.to_vec()].concat());
    Sha256::digest([with(0x5c), inner.to_vec()].concat()).to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

const SCENARIO: &str = "
[providers.good]
dialect = \"openai\"
latency = { uniform = [0.002, 0.01] }
models.m = { price = { input = \"1\", output = \"1\" } }
models.free = {}
[providers.bad]
dialect = \"openai\"
faults = [{ kind = \"server_error\" }]
[providers.locked]
dialect = \"openai\"
keys = [\"another-key\"]
[providers.stuck]
dialect = \"openai\"
faults = [{ kind = \"stuck\" }]
";

const PROVIDERS: &str = "
[providers.good]
dialect = \"openai\"
base_url = \"http://simulator/good/v1\"
[providers.bad]
dialect = \"openai\"
base_url = \"http://simulator/bad/v1\"
breaker = { min_calls = 1, failure_rate = 0.1, window = \"60s\", open = \"30s\" }
[providers.stuck]
dialect = \"openai\"
base_url = \"http://simulator/stuck/v1\"
[providers.locked]
dialect = \"openai\"
base_url = \"http://simulator/locked/v1\"
api_key_env = \"LOCKED_KEY\"
[models.\"good/m\"]
price = { input = \"1\", output = \"1\" }
[models.\"bad/m\"]
price = { input = \"0.1\", output = \"0.1\" }
[models.\"stuck/m\"]
price = { input = \"1\", output = \"1\" }
[models.\"locked/m\"]
price = { input = \"1\", output = \"1\" }
[routes.default]
rungs = [\"good/m\"]
[routes.falls]
rungs = [\"bad/m\", \"good/m\"]
patience = \"0s\"
[routes.unpriced]
rungs = [\"good/free\"]
[routes.stuck]
rungs = [\"stuck/m\"]
[routes.locked]
rungs = [\"locked/m\"]
";

/// Every rule from its first sighting on.
const RULES: &str = "
[alerts]
every = \"1s\"
clear = \"1s\"
source = \"test\"
[alerts.rules]
breaker_open = { for = \"0s\" }
fallback_share = { share = 0.2, window = \"30s\", answers = 1 }
dearer_rung = { share = 0.25, window = \"30s\", amount = \"0.000000001\" }
budget_short = { for = \"0s\" }
budget_full = { for = \"0s\" }
stuck_queue = { for = \"2s\" }
cost_spike = { times = 2, amount = \"0.000000001\" }
spool_in_use = { for = \"0s\" }
doctor = { every = \"1h\" }
";

fn receiver(name: &str, url: &str, more: &str) -> String {
    format!("[alerts.receivers.{name}]\nurl = \"{url}\"\ntimeout = \"1s\"\nseverity = \"info\"\n{more}\n")
}

async fn fleet(receivers: &str) -> Fleet {
    let fleet = Fleet::new(SCENARIO, &format!("{PROVIDERS}{RULES}{receivers}")).await;
    fleet.file("ops.secret", SECRET);
    fleet
}

fn start(fleet: &Fleet) -> Process {
    fleet.start_with(&[("LOCKED_KEY", "the-wrong-key-4711")])
}

async fn run(fleet: &Fleet, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&fleet.pool).await.unwrap();
}

async fn enqueue(fleet: &Fleet, route: &str, batch: Option<&str>, jobs: i32) {
    sqlx::query(
        "insert into sluice.job (route, batch, request)
         select $1, $2, jsonb_build_object('prompt', 'zqprompt ' || n) from generate_series(1, $3) n",
    )
    .bind(route)
    .bind(batch)
    .bind(jobs)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

fn lasting() -> BTreeSet<String> {
    use sluice::domain::alert::AlertRule;
    let rules = AlertRule::ALL.into_iter().filter(|rule| !rule.is_event());
    rules.map(|rule| rule.as_str().to_owned()).collect()
}

/// Every rule really fires against a receiver that fails in every way and comes back, nothing is doubled by three
/// workers, and the end of each is told.
#[tokio::test(flavor = "multi_thread")]
async fn each_rule_fires_and_is_over_whatever_the_receiver_does() {
    // The first tries fail, each in another way.
    let inbox = Inbox::start(|_, before| match before {
        0 => status(500),
        1 => Reply::Hang,
        2 => Reply::Reset,
        3 => Reply::Say(302, "location: http://127.0.0.1:9/\r\n".to_owned(), String::new()),
        4 => Reply::Say(429, "retry-after: 2\r\n".to_owned(), String::new()),
        5 => status(404),
        _ => ok(),
    })
    .await;
    let ops = receiver("ops", &inbox.url("/hook"), "secret_file = \"ops.secret\"");
    let fleet = fleet(&ops).await;
    let rules = RULES.replace("every = \"1h\"", "every = \"1s\"");
    fleet.configure(&format!("{PROVIDERS}{rules}{ops}"));
    // What hours have usually cost.
    run(
        &fleet,
        "insert into sluice.tally_hour_all (hour, route, project, login, provider, model, class, detail, code,
                                            instead_of, instead_why, cost_nanos)
         select date_trunc('hour', now()) - n * interval '1 hour', 'default', 'p', '', 'good', 'm', '', '', '', '', '',
                1 from generate_series(2, 9) n",
    )
    .await;
    let workers: Vec<Process> = (0..3).map(|_| start(&fleet)).collect();
    fleet.until_live(3).await;
    let mut victim = start(&fleet);
    fleet.until_live(4).await;
    victim.kill().await;

    // What real calls bring about.
    enqueue(&fleet, "falls", None, 5).await;
    enqueue(&fleet, "unpriced", None, 2).await;
    enqueue(&fleet, "locked", None, 3).await;
    enqueue(&fleet, "default", None, 3).await;
    // However three workers share them, one has five.
    enqueue(&fleet, "stuck", None, 15).await;
    fleet.until_answered(25).await;
    let later = "insert into sluice.job (route, batch, run_at, request)
                 select 'default', 'later', now() + interval '1 day', '{\"prompt\": \"zqprompt\"}'
                   from generate_series(1, 900)";
    run(&fleet, later).await;
    // What operators and other processes do.
    run(
        &fleet,
        "insert into sluice.pause (kind, name, since) values ('project', 'old', now() - interval '2 days');
         select sluice.stop_loss('lossy', 0.01);
         insert into sluice.pause (kind, name, reason) values ('batch', 'lossy', 'stop-loss: 3 of 10 jobs failed');
         update sluice.stop_loss set stopped_at = now() where batch = 'lossy';
         update sluice.attempt set cost_differs = true, computed_cost_nanos = 10, reported_cost_nanos = 20
          where provider = 'good' and model = 'm';
         insert into sluice.worker (host, pid, version, lease_until, state, stats)
         values ('elsewhere', 1, 'x', now() + interval '1 hour', 'live', '{\"spooled\": 4}'),
                ('elsewhere', 2, 'x', now(), 'gone', '{\"fallen\": \"claimer\"}');
         select sluice.set_budget('soft', 100, project => 'one', soft => 0.5);
         select sluice.set_budget('full', 100, project => 'two');
         select sluice.set_budget('short', 0.005, route => 'default');
         update sluice.budget_window set spent_nanos = 60000000000 where budget = 'soft';
         update sluice.budget_window set spent_nanos = 100000000000 where budget = 'full';
         alter table sluice.job disable trigger user",
    )
    .await;

    let all = lasting();
    inbox.until_told("alert.firing", &all).await;
    inbox.has_nothing_double();
    let firing = fleet.number("select count(*) from sluice.alerts where state = 'firing'").await;
    assert!(firing >= i64::try_from(all.len()).unwrap() - 2, "some are over by themselves: {firing}");
    let status = text(&ended(fleet.program(&["status"]).spawn().unwrap()).await.stdout);
    assert!(status.contains("# alerts"), "{status}");

    // All of it is put right.
    run(
        &fleet,
        "alter table sluice.job enable trigger user;
         delete from sluice.pause; delete from sluice.stop_loss;
         update sluice.attempt set cost_differs = false;
         delete from sluice.worker where host = 'elsewhere' or state = 'dead';
         select sluice.cancel(id) from sluice.jobs where route = 'locked';
         select sluice.drop_budget('soft'); select sluice.drop_budget('full'); select sluice.drop_budget('short');
         delete from sluice.ready; delete from sluice.parked;
         update sluice.tally set unpriced = 0, cost_nanos = 0;
         update sluice.tally_hour_all set unpriced = 0, cost_nanos = 0",
    )
    .await;
    // Without routes to them nothing is known of the bad and the stuck provider and the locked key any more. No look
    // may miss what the calls bring about, so the windows were long; they end now.
    let config = format!("{PROVIDERS}{rules}{ops}").replace("window = \"30s\"", "window = \"2s\"");
    let without = config
        .replace("\"bad/m\", ", "")
        .replace("rungs = [\"stuck/m\"]", "rungs = [\"good/m\"]")
        .replace("[routes.locked]\nrungs = [\"locked/m\"]", "[routes.locked]\nrungs = [\"good/m\"]");
    let cut = |text: &str, from: &str, to: &str| {
        let (before, rest) = text.split_once(from).unwrap();
        format!("{before}{}", &rest[rest.find(to).unwrap()..])
    };
    let without = cut(&without, "[providers.locked]", "[models");
    let without = cut(&without, "[models.\"locked/m\"]", "[routes");
    fleet.configure(&without);
    for worker in &workers {
        worker.signal(rustix::process::Signal::HUP);
    }
    inbox.until_told("alert.resolved", &all).await;
    inbox.has_nothing_double();
    // One firing, one end; in order; and the values say something.
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for letter in inbox.taken() {
        told.entry(letter.body["data"]["alert"].to_string()).or_default().push(letter.kind().to_owned());
        assert_eq!(letter.data("source"), "test");
        assert!(!letter.data("summary").is_empty() && !letter.text.contains("zqprompt"), "{}", letter.text);
    }
    for (alert, kinds) in &told {
        let turns: Vec<&str> = kinds.iter().map(String::as_str).collect();
        assert!(turns == ["alert.firing", "alert.resolved"] || turns == ["alert.firing"], "{alert}: {turns:?}");
    }
    assert!(inbox.letters().len() > inbox.taken().len(), "the receiver has failed at first");
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_signed_so_that_a_receiver_can_check_it_and_slack_gets_its_own_form() {
    let inbox = Inbox::start(|_, _| ok()).await;
    let only = "rules = [\"forgotten_pause\"]";
    let receivers = receiver("ops", &inbox.url("/generic?a=b"), &format!("secret_file = \"ops.secret\"\n{only}"))
        + &receiver("chat", &inbox.url("/slack"), &format!("format = \"slack\"\n{only}"))
        + &receiver("pager", &inbox.url("/pager"), only).replace("severity = \"info\"", "severity = \"critical\"");
    let fleet = fleet(&receivers).await;
    run(
        &fleet,
        "insert into sluice.pause (kind, name, since, reason)
         values ('project', '<!channel>', now() - interval '2 days', 'because & so')",
    )
    .await;
    let worker = start(&fleet);
    let to = |path: &str| inbox.taken().into_iter().find(|letter| letter.path == path);
    until("both have it", async || to("/generic?a=b").is_some() && to("/slack").is_some()).await;
    let signed = to("/generic?a=b").unwrap();
    assert_eq!(signed.headers["content-type"], "application/json");
    let at: i64 = signed.headers["webhook-timestamp"].parse().unwrap();
    assert!((at * 1000 - clock::millis()).abs() < 120_000, "the time of the try: {at}");
    let content = format!("{}.{at}.{}", signed.id(), signed.text);
    let expected = format!("v1,{}", base64(&hmac(SECRET_BYTES, content.as_bytes())));
    assert_eq!(signed.headers["webhook-signature"], expected);
    assert_eq!(signed.kind(), "alert.firing");
    assert_eq!(signed.data("key"), "forgotten_pause:project <!channel>");
    assert!(signed.data("summary").contains("has been paused for 2d by"), "{}", signed.text);
    let chat = to("/slack").unwrap();
    assert!(!chat.headers.contains_key("webhook-signature"));
    let line = chat.body["text"].as_str().unwrap();
    assert!(line.starts_with("[warning] project &lt;!channel&gt; has been paused"), "{line}");
    assert!(line.contains("because &amp; so"), "{line}");
    assert_eq!(chat.body["attachments"][0]["color"], "#f9a825");

    // The end of it, to those who were told; and the pager takes only critical alerts.
    run(&fleet, "delete from sluice.pause").await;
    let over = |letter: &Letter| letter.kind() == "alert.resolved" || letter.text.contains("[resolved]");
    until("both know that it is over", async || inbox.taken().iter().filter(|letter| over(letter)).count() >= 2).await;
    assert_eq!(inbox.taken().iter().filter(|letter| over(letter)).count(), 2);
    assert!(to("/pager").is_none());
    stop(vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_batch_is_told_once_and_again_when_jobs_were_added() {
    let inbox = Inbox::start(|_, _| ok()).await;
    let rules = "rules = [\"batch_completed\", \"batch_failed\"]";
    let fleet = fleet(&receiver("app", &inbox.url("/app"), rules)).await;
    let workers: Vec<Process> = (0..3).map(|_| start(&fleet)).collect();
    fleet.until_live(3).await;
    enqueue(&fleet, "default", Some("n"), 20).await;
    let of = |batch: &str| -> Vec<Letter> {
        inbox.taken().into_iter().filter(|letter| letter.data("batch") == batch).collect()
    };
    until("the batch has completed", async || !of("n").is_empty()).await;
    let first = of("n").remove(0);
    assert_eq!(first.kind(), "batch.completed");
    let data = &first.body["data"];
    assert_eq!((&data["jobs"], &data["succeeded"], &data["failed"]), (&json!(20), &json!(20), &json!(0)));
    assert!(data["cost"].as_str().is_some_and(|cost| cost.starts_with("0.0")), "{data}");
    assert_eq!((&data["completed_before"], &data["source"]), (&json!(0), &json!("test")));
    // More jobs; and a batch that fails as a whole.
    enqueue(&fleet, "default", Some("n"), 5).await;
    sqlx::query("insert into sluice.job (batch, request) select 'bad', '{\"messages\": 1}' from generate_series(1, 3)")
        .execute(&fleet.pool)
        .await
        .unwrap();
    until("it has completed again", async || of("n").len() == 2 && !of("bad").is_empty()).await;
    let (again, bad) = (of("n").remove(1), of("bad").remove(0));
    assert_eq!((&again.body["data"]["jobs"], &again.body["data"]["completed_before"]), (&json!(25), &json!(1)));
    assert_eq!((bad.kind(), &bad.body["data"]["failed"]), ("batch.failed", &json!(3)));
    // Several looks later nothing else has come.
    let looked = fleet.number("select extract(epoch from looked_at)::bigint from sluice.alert_watch").await;
    until("it was looked again", async || {
        fleet.number("select extract(epoch from looked_at)::bigint from sluice.alert_watch").await > looked + 3
    })
    .await;
    assert_eq!((of("n").len(), of("bad").len()), (2, 1));
    // A failed job that is tried again opens its batch, which ends once more.
    run(&fleet, "select sluice.retry(min(id)) from sluice.job where batch = 'bad'").await;
    stop(workers).await;
    inbox.has_nothing_double();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_tells_of_the_batch_that_it_has_just_ended() {
    let inbox = Inbox::start(|_, _| ok()).await;
    let receivers = receiver("app", &inbox.url("/app"), "");
    let fleet = fleet(&receivers).await;
    fleet.configure(&format!("{PROVIDERS}{RULES}{receivers}").replace("every = \"1s\"", "every = \"1m\""));
    enqueue(&fleet, "default", Some("n"), 3).await;
    let mut drain = fleet.program(&["worker", "--drain"]);
    let output = ended(drain.env("LOCKED_KEY", "x-no-key").spawn().unwrap()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let taken = inbox.taken();
    assert_eq!(taken.iter().filter(|letter| letter.kind() == "batch.completed").count(), 1, "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_worker_is_killed_comes_again_with_the_same_id() {
    let inbox = Inbox::start(|_, before| if before == 0 { Reply::Hang } else { ok() }).await;
    let only = "rules = [\"forgotten_pause\"]";
    let fleet = fleet(&receiver("ops", &inbox.url("/hook"), only).replace("\"1s\"", "\"20s\"")).await;
    run(&fleet, "insert into sluice.pause (kind, name, since) values ('project', 'p', now() - interval '2 days')")
        .await;
    let mut worker = start(&fleet);
    until("the receiver hangs", async || inbox.letters().len() == 1).await;
    worker.kill().await;
    // Its lease runs out at once, as it would in half a minute.
    run(&fleet, "update sluice.alert_delivery set leased_until = now() where leased_until is not null").await;
    let heir = start(&fleet);
    until("it comes again", async || inbox.taken().iter().any(|letter| letter.data("rule") == "forgotten_pause")).await;
    let letters = inbox.letters();
    let again = letters.iter().skip(1).find(|letter| letter.data("rule") == "forgotten_pause").unwrap();
    assert_eq!((letters[0].id(), &letters[0].text), (again.id(), &again.text));
    stop(vec![heir]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_keeps_neither_work_nor_other_receivers_waiting() {
    let deaf = Inbox::start(|_, _| Reply::Hang).await;
    let inbox = Inbox::start(|_, _| ok()).await;
    let receivers = receiver("deaf", &deaf.url("/"), "rules = [\"forgotten_pause\"]").replace("\"1s\"", "\"1m\"")
        + &receiver("ops", &inbox.url("/"), "rules = [\"batch_completed\", \"forgotten_pause\"]");
    let fleet = fleet(&receivers).await;
    run(&fleet, "insert into sluice.pause (kind, name, since) values ('project', 'p', now() - interval '2 days')")
        .await;
    let worker = start(&fleet);
    until("the deaf one has a message", async || !deaf.letters().is_empty()).await;
    enqueue(&fleet, "default", Some("n"), 10).await;
    fleet.until_answered(10).await;
    until("the other one is told", async || inbox.taken().len() == 2).await;
    assert_eq!(deaf.letters().len(), 1, "one at a time");
    worker.signal(rustix::process::Signal::TERM);
    let (code, said) = worker.ended().await;
    assert_eq!(code, Some(0), "{said}");
}

/// The first message is tried again and again, and reminders come meanwhile: one waits behind it, the newest.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_away_gets_one_reminder_and_not_all_of_them() {
    let inbox = Inbox::start(|_, _| status(503)).await;
    let rules = RULES.replace("source = \"test\"", "source = \"test\"\nrepeat = \"1s\"");
    let ops = receiver("ops", &inbox.url("/"), "");
    let fleet = Fleet::new(SCENARIO, &format!("{PROVIDERS}{rules}{ops}")).await;
    run(&fleet, "insert into sluice.pause (kind, name, since) values ('project', 'p', now() - interval '2 days')")
        .await;
    let worker = start(&fleet);
    until("it is told", async || !inbox.letters().is_empty()).await;
    until("it would be reminded often", async || {
        fleet.number("select coalesce(max(reminders), 0)::bigint from sluice.alert").await >= 4
    })
    .await;
    let waiting = "select count(*) from sluice.alert_delivery where kind = 'alert.firing'";
    assert!((1..=3).contains(&fleet.number(waiting).await), "the first one, the newest, and one that is being sent");
    stop(vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_said_by_the_doctor() {
    let inbox = Inbox::start(|_, _| status(410)).await;
    let fleet = fleet(&receiver("ops", &inbox.url("/"), "")).await;
    run(
        &fleet,
        "insert into sluice.pause (kind, name, since) values ('project', 'p', now() - interval '2 days');
         insert into sluice.alert_delivery (receiver, kind, message, written_at)
         values ('of_old', 'alert.firing', '{}', now() - interval '25 hours')",
    )
    .await;
    let worker = start(&fleet);
    let given_up = "select count(*) from sluice.alert_delivery where gave_up_at is not null";
    until("it is given up", async || fleet.number(given_up).await >= 1).await;
    let output = ended(fleet.program(&["doctor", "--format", "json"]).spawn().unwrap()).await;
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = findings["findings"].as_array().unwrap().iter().find(|it| it["check"] == "alert_messages").unwrap();
    assert_eq!(finding["severity"], "warning");
    assert!(finding["what"].as_str().unwrap().contains("ops"), "{finding}");
    let list = ended(fleet.program(&["alert", "list", "--format", "json"]).spawn().unwrap()).await;
    let alerts: Value = serde_json::from_slice(&list.stdout).unwrap();
    let alert = alerts.as_array().unwrap().iter().find(|alert| alert["rule"] == "forgotten_pause").unwrap();
    assert_eq!((&alert["state"], &alert["given_up"]), (&json!("firing"), &json!(1)), "{alerts}");
    stop(vec![worker]).await;
}

#[tokio::test]
async fn a_test_message_tells_what_the_receiver_says() {
    let inbox = Inbox::start(|letter, _| match letter.path.as_str() {
        "/ok" => ok(),
        "/hang" => Reply::Hang,
        _ => Reply::Say(403, String::new(), format!("invalid_token at {}", letter.path)),
    })
    .await;
    let receivers = receiver("ops", &inbox.url("/ok"), "secret_file = \"ops.secret\"")
        + &receiver("chat", &inbox.url("/services/T0zq1/B0zq2/zq-very-secret-path"), "format = \"slack\"")
        + &receiver("deaf", &inbox.url("/hang"), "")
        + &receiver("away", "http://127.0.0.1:1/x", "");
    let fleet = fleet(&receivers).await;
    let test = async |name: &str, format: &str| {
        // No provider's key is needed, and no database.
        let mut command = fleet.program(&["alert", "test", name, "--format", format]);
        let output = ended(command.env("DATABASE_URL", "postgres://127.0.0.1:1/x").spawn().unwrap()).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, _) = test("ops", "json").await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &said["taken"], &said["status"], &said["signed"]),
        (Some(0), &json!(true), &json!(200), &json!(true))
    );
    assert_eq!(inbox.taken()[0].kind(), "alert.test");
    let (code, said, _) = test("chat", "plain").await;
    assert_eq!(code, Some(1));
    assert!(said.starts_with("chat has not taken the test message: HTTP 403: invalid_token at"), "{said}");
    assert!(!said.contains("zq-very-secret") && !said.contains("T0zq1/B0zq2"), "{said}");
    for name in ["deaf", "away"] {
        let (code, said, _) = test(name, "plain").await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no answer began in time") || said.contains("no connection"), "{said}");
    }
    let (code, _, error) = test("nobody", "plain").await;
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("there is no receiver \"nobody\"; there are: away, chat, deaf, ops"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_receiver_gets_out() {
    const PATH: &str = "zqT0Path11/zqB0Path22/zqsecretpath333";
    const MEMBER: &str = "zqmember44445555";
    let inbox = Inbox::start(|letter, before| {
        // It says back all that it was told, in its words, in a header, and where it sends on to.
        let heard = format!("{} {SECRET} {:?}", letter.path, letter.headers);
        let status = if before % 2 == 0 { 302 } else { 400 };
        Reply::Say(status, format!("location: http://127.0.0.1:1{}\r\n", letter.path), heard)
    })
    .await;
    let config = |url_key: &str| {
        format!(
            "{PROVIDERS}{RULES}[log]\nfilter = \"trace\"\n[alerts.receivers.chat]\nurl_env = \"{url_key}\"\n\
             severity = \"info\"\ntimeout = \"1s\"\nsecret_env = \"HOOK_SECRET\"\n"
        )
    };
    let fleet = fleet("").await;
    fleet.configure(&config("HOOK_URL"));
    run(&fleet, "insert into sluice.pause (kind, name, since) values ('project', 'p', now() - interval '2 days')")
        .await;
    let url = inbox.url(&format!("/{PATH}?token={MEMBER}"));
    let variables = [("HOOK_URL", url.as_str()), ("HOOK_SECRET", SECRET), ("LOCKED_KEY", "the-wrong-key-4711")];
    let worker = fleet.start_with(&variables);
    let tried = "select count(*) from sluice.alert_delivery where tries > 1 and last_words is not null";
    until("it was tried", async || fleet.number(tried).await > 0).await;
    let no_secret = |place: &str, shown: &str| {
        for secret in [PATH, "zqsecretpath333", MEMBER, &SECRET[6..], SECRET, "alert-secret-of-32-bytes"] {
            assert!(!shown.contains(secret), "{place} shows {secret}: {shown}");
        }
    };
    for arguments in [
        &["alert", "test", "chat"][..],
        &["alert", "list", "--wide"],
        &["alert", "list", "--all", "--format", "json"],
        &["status"],
        &["check"],
        &["doctor"],
    ] {
        let mut command = fleet.program(arguments);
        let output = ended(command.envs(variables).spawn().unwrap()).await;
        no_secret(&format!("{arguments:?}"), &(text(&output.stdout) + &text(&output.stderr)));
    }
    for relation in ["alert", "alert_delivery", "alert_watch", "worker", "alerts"] {
        let query =
            sqlx::AssertSqlSafe(format!("select coalesce(string_agg(t::text, ' '), '') from sluice.{relation} t"));
        let rows: String = sqlx::query_scalar(query).fetch_one(&fleet.pool).await.unwrap();
        no_secret(relation, &rows);
    }
    let said = worker.said();
    assert!(said.contains("did not take a message"), "{said}");
    no_secret("the log", &said);
    stop(vec![worker]).await;
    // With each fault of the configuration.
    for (variable, value) in [
        ("HOOK_URL", format!("ftp://host/{PATH}")),
        ("HOOK_URL", format!("http://me:{MEMBER}@host/{PATH}")),
        ("HOOK_URL", PATH.to_owned()),
        ("HOOK_SECRET", format!("whsec_{PATH}")),
        ("HOOK_SECRET", "whsec_enFtZW1iZXI0NDQ0NTU1NQ==".to_owned()),
        ("SLUICE__ALERTS__RECEIVERS__CHAT__SECRET", SECRET.to_owned()),
        ("SLUICE__ALERTS__RECEIVERS__CHAT__URL", url.clone()),
        ("SLUICE__ALERTS__RECEIVERS__CHAT", url.clone()),
        ("SLUICE__ALERTS__RECEIVERS__CHAT__URL_ENV", url.clone()),
    ] {
        for command in ["check", "worker"] {
            let mut command = fleet.program(&[command]);
            let output = ended(command.envs(variables).env(variable, &value).spawn().unwrap()).await;
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{variable}: {shown}");
            no_secret(variable, &shown);
        }
    }
    // It was sent, or all this shows nothing.
    assert!(inbox.letters().iter().any(|letter| letter.path.contains(MEMBER)));
}

/// Only one worker looks at a time, and when it dies another goes on.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_worker_that_looks_dies_another_goes_on() {
    let inbox = Inbox::start(|_, _| ok()).await;
    let fleet = fleet(&receiver("ops", &inbox.url("/"), "")).await;
    let mut workers: Vec<Process> = (0..2).map(|_| start(&fleet)).collect();
    fleet.until_live(2).await;
    until("one has looked", async || {
        fleet.number("select count(*) from sluice.alert_watch where looked_at is not null").await == 1
    })
    .await;
    let pid: i32 = sqlx::query_scalar("select w.pid from sluice.alert_watch a join sluice.worker w on w.id = a.worker")
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    let at = workers.iter().position(|worker| worker.pid() == pid).unwrap();
    workers.remove(at).kill().await;
    until("the other one tells of its loss", async || inbox.rules("alert.firing").contains("worker_lost")).await;
    inbox.has_nothing_double();
    stop(workers).await;
}

/// A worker that has just started has its first jobs to fetch, and the sums may be millions of rows.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_look_of_a_worker_reads_no_sums_that_a_worker_has_read_a_short_while_ago() {
    let rules = "[alerts]\nevery = \"60s\"\n";
    let fleet = Fleet::new(SCENARIO, &format!("{PROVIDERS}{rules}")).await;
    for (age, notes) in [("1 minute", 0), ("6 minutes", 1)] {
        sqlx::query(
            "with forgotten as (delete from sluice.alert_sample),
                  turn as (update sluice.alert_watch set looked_at = null)
             insert into sluice.alert_sample (taken_at, route, ended, answered, fallbacks, cost_nanos, extra_nanos)
             values (now() - $1::interval, '', 0, 0, 0, 0, 0)",
        )
        .bind(age)
        .execute(&fleet.pool)
        .await
        .unwrap();
        let worker = start(&fleet);
        until("the worker has looked", async || {
            fleet.number("select count(*) from sluice.alert_watch where looked_at is not null").await == 1
        })
        .await;
        let noted = "select count(distinct taken_at) from sluice.alert_sample where taken_at > now() - interval '50 s'";
        assert_eq!(fleet.number(noted).await, notes, "{age}");
        worker.stop().await;
    }
}

/// Reads of the sums that are not folded yet, which may be millions of rows.
async fn reads_of_sums(pool: &sqlx::PgPool) -> i64 {
    sqlx::query_scalar(
        "select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relid = 'sluice.tally'::regclass",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn what_jobs_have_come_to_is_read_once_and_counted_since_the_note_that_is_nearest() {
    let database = database().await;
    let one = PgPoolOptions::new().max_connections(1).connect_with(database.connect_options()).await.unwrap();
    let (store, pool) = (Store::from_pool(one), database.pool());
    // Where an hour is about to end, the sums are those of the next one.
    sqlx::raw_sql(
        "insert into sluice.tally (hour, route, project, succeeded, failed, fallbacks, cost_nanos, extra_nanos)
         select date_trunc('hour', now() + interval '1 minute') - ago, route, 'p', good, bad, others, cost, extra
           from (values (interval '0', 'a', 3, 0, 1, 400, 0), ('0', 'a', 1, 0, 0, 100, 7), ('0', 'b', 0, 2, 0, 0, 0),
                        ('3 hours', 'a', 10, 0, 0, 1000, 0)) t(ago, route, good, bad, others, cost, extra);
         insert into sluice.alert_sample (taken_at, route, ended, answered, fallbacks, cost_nanos, extra_nanos)
         values (now() - interval '2 minutes', 'a', 1, 1, 0, 50, 0), (now() - interval '2 minutes', '', 0, 0, 0, 0, 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before = reads_of_sums(&pool).await;
    let windows = [90, 3_600, 4 * 3_600].map(Duration::from_secs);
    let flows = store.look_at_flows(windows).await.unwrap();
    let told = flows.map(|flows| {
        let of = |flow: RouteFlow| {
            let figures = [flow.ended, flow.answered, flow.fallbacks, flow.cost.0, flow.extra.0];
            (flow.route, figures)
        };
        flows.into_iter().map(of).collect::<Vec<_>>()
    });
    let [a, b] = ["a", "b"].map(str::to_owned);
    assert_eq!(told[0], [(a.clone(), [3, 3, 1, 450, 7]), (b.clone(), [2, 0, 0, 0, 0])]);
    assert_eq!(told[1], [(a.clone(), [4, 4, 1, 500, 7]), (b.clone(), [2, 0, 0, 0, 0])]);
    assert_eq!(told[2], [(a.clone(), [14, 14, 1, 1_500, 7]), (b.clone(), [2, 0, 0, 0, 0])]);

    sqlx::raw_sql("select pg_stat_force_next_flush()").execute(store.pool()).await.unwrap();
    assert_eq!(reads_of_sums(&pool).await - before, 1);
    let noted = "select route, array[ended, answered, fallbacks, cost_nanos, extra_nanos] from sluice.alert_sample
                  where taken_at > now() - interval '1 minute' order by route";
    let noted: Vec<(String, Vec<i64>)> = sqlx::query_as(noted).fetch_all(&pool).await.unwrap();
    let nothing = (String::new(), vec![0; 5]);
    assert_eq!(noted, [nothing, (a, vec![4, 4, 1, 500, 7]), (b, vec![2, 0, 0, 0, 0])]);
}
