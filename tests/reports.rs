//! Reports, the status and the views, and which login may see which of them.

use crate::support::program::{Program, ended, text};
use crate::support::queue::{NewJob, Queue, accepted, failed, failure, in_an_hour, in_batch, park, rejected, success};
use serde_json::{Value, json};
use sluice::domain::{ErrorClass, FirstChoice, NanoUsd};
use sluice::exit_code::ExitCode;
use sluice::store::report::{Filter, Grouping, Moment};
use sluice::store::settle::{AttemptRow, Settlement};
use sluice::store::status::Counted;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

mod fallbacks;
mod logins;
mod sums;

/// A batch of four jobs: one answered at once, one after a rejected answer and by a fallback, one failed, one
/// cancelled; and a job of another project without a known price.
async fn history() -> Queue {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("nightly"), 4).await;
    let claimed = queue.claim(worker, 3).await;
    queue.succeed(&claimed[0]).await;
    let first = AttemptRow {
        provider: "deepseek".to_owned(),
        model: "deepseek-chat".to_owned(),
        ..rejected(&claimed[1], 1, "not_json")
    };
    let first_choice = FirstChoice {
        target: "deepseek/deepseek-chat".to_owned(),
        why: "soft_failure".to_owned(),
        cost: Some(NanoUsd(10_000)),
    };
    let second = AttemptRow { first_choice: Some(first_choice), ..accepted(&claimed[1], 2) };
    let mut ending = success(&claimed[1]);
    ending.after_fallback = true;
    let mut lost = failed(&claimed[2], 1, ErrorClass::Timeout);
    lost.uncertain = NanoUsd(7_000);
    queue
        .settle(Settlement {
            attempts: vec![first, second, lost],
            endings: vec![ending, failure(&claimed[2], ErrorClass::Timeout)],
            parks: Vec::new(),
        })
        .await;
    queue.store.cancel_batch("nightly", |_| {}).await.unwrap();
    queue.enqueue(NewJob { project: "other", ..NewJob::default() }, 1).await;
    let claimed = queue.claim_one(worker).await;
    let unpriced =
        AttemptRow { provider: "local".to_owned(), total_ms: 2400, cost: None, price: None, ..accepted(&claimed, 1) };
    let mut ending = success(&claimed);
    ending.cost = None;
    ending.target = Some(("local".to_owned(), "gpt-4o-mini".to_owned()));
    queue.settle(Settlement { attempts: vec![unpriced], endings: vec![ending], parks: Vec::new() }).await;
    queue
}

fn program(queue: &Queue) -> Program {
    Program::new("[http]\nlisten = \"off\"\n", &queue.database.url())
}

async fn json_of(program: &Program, arguments: &[&str]) -> Value {
    let output = program.output(&[arguments, &["--format", "json"]].concat()).await;
    serde_json::from_str(&output).unwrap()
}

// ------------------------------------------------------------------------------------------------------ reports

#[tokio::test]
async fn sums_can_be_told_apart_by_every_dimension_and_filtered() {
    let queue = history().await;
    for folded in [false, true] {
        let all = queue.store.totals(&[], &Filter::default()).await.unwrap();
        assert_eq!(all.len(), 1);
        let all = &all[0];
        assert_eq!((all.enqueued, all.succeeded, all.failed, all.cancelled), (4, 3, 1, 1));
        assert_eq!((all.attempts, all.unpriced, all.fallbacks), (5, 1, 1));
        assert_eq!((all.cost, all.waste, all.uncertain), (NanoUsd(90_000), NanoUsd(30_000), NanoUsd(7_000)));
        assert_eq!((all.input_tokens, all.cached_tokens, all.output_tokens), (400, 80, 200));
        for dimension in [
            Grouping::Provider,
            Grouping::Model,
            Grouping::Route,
            Grouping::Project,
            Grouping::Batch,
            Grouping::Class,
            Grouping::Detail,
            Grouping::Day,
            Grouping::Hour,
        ] {
            let rows = queue.store.totals(&[dimension], &Filter::default()).await.unwrap();
            assert_eq!(rows.iter().map(|row| row.attempts).sum::<i64>(), 5, "{dimension:?}, folded: {folded}");
        }
        let filter = Filter { batch: Some("nightly".to_owned()), ..Filter::default() };
        assert_eq!(queue.store.totals(&[], &filter).await.unwrap()[0].attempts, 4);
        let filter =
            Filter { project: Some("other".to_owned()), route: Some("default".to_owned()), ..Filter::default() };
        assert_eq!(queue.store.totals(&[], &filter).await.unwrap()[0].known_cost(), None);
        queue.store.fold_tally().await.unwrap();
    }
}

/// Three jobs of the batch share three answers' money, one of which was rejected, and two of them succeeded.
#[tokio::test]
async fn an_accepted_answer_costs_the_same_wherever_it_is_told() {
    let queue = history().await;
    let program = program(&queue);
    for folded in [false, true] {
        let by_batch = json_of(&program, &["report", "cost", "--by", "batch"]).await;
        let of_batch = by_batch.as_array().unwrap().iter().find(|row| row["batch"] == "nightly").unwrap();
        assert_eq!(of_batch["cost_per_answer"], json!(0.000_045), "folded: {folded}");
        let shown = json_of(&program, &["batch", "show", "nightly"]).await;
        assert_eq!(shown["cost_per_answer"], json!(0.000_045));
        let listed = json_of(&program, &["batch", "list"]).await;
        assert_eq!(listed[0]["cost_per_answer"], json!(0.000_045));
        // The job without a price makes the figure of the route unknown, and the table says so.
        let by_route = json_of(&program, &["report", "cost", "--by", "route"]).await;
        assert_eq!((&by_route[0]["cost"], &by_route[0]["cost_per_answer"]), (&json!(0.000_09), &Value::Null));
        let table = program.output(&["report", "cost", "--format", "table"]).await;
        for figure in ["$0.00003+", "unknown"] {
            assert!(table.contains(figure), "{figure}: {table}");
        }
        let status = json_of(&program, &["status"]).await;
        let spent = &status["spent"][0];
        assert_eq!(
            (&spent["route"], &spent["answered"], &spent["attempts"], &spent["unpriced_attempts"]),
            (&json!("default"), &json!(3), &json!(5), &json!(1))
        );
        assert_eq!(spent["cost_per_answer"], Value::Null);
        let of_views: Vec<Option<String>> = sqlx::query_scalar(
            "select cost_per_answer::text from sluice.batches
              union all (select cost_per_answer::text from sluice.cost_by_provider order by provider)
              union all select cost_per_answer::text from sluice.cost_by_route",
        )
        .fetch_all(&queue.pool)
        .await
        .unwrap();
        let told: Vec<Option<&str>> = of_views.iter().map(Option::as_deref).collect();
        assert_eq!(told, [Some("0.000045000"), None, None, Some("0.000030000"), None], "folded: {folded}");
        queue.store.fold_tally().await.unwrap();
    }
    queue.run("update sluice.tally_hour set hour = hour - interval '2 days'").await;
    assert_eq!(json_of(&program, &["status"]).await["spent"], json!([]), "lately is a day");
}

#[tokio::test]
async fn an_estimate_takes_what_was_accepted_from_the_ledger_once_there_is_enough_of_it() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let config = "[http]\nlisten = \"off\"\n[providers.openai]\napi_key_env = \"OPENAI_API_KEY\"\n\
                  [models.\"openai/gpt-4o-mini\"]\nprice = { input = \"1\", output = \"1\" }\n\
                  [routes.default]\nrungs = [\"openai/gpt-4o-mini\"]\n";
    let program = Program::new(config, &queue.database.url());
    program.file("q.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n");
    let estimate = async |arguments: &[&str]| json_of(&program, &[&["estimate", "q.jsonl"], arguments].concat()).await;
    let told = |row: &Value| ["history_answers", "history_accepted"].map(|member| row[member].as_i64().unwrap_or(-1));
    assert_eq!(told(&estimate(&[]).await[0]), [-1, -1], "nothing is learned unasked");
    let early = program.run(&["estimate", "q.jsonl", "--history", "--format", "json"]).await;
    assert!(text(&early.stderr).contains("fewer than 20 teach nothing"), "{}", text(&early.stderr));
    queue.enqueue(NewJob::default(), 10).await;
    for claimed in queue.claim(worker, 10).await {
        // One answer in three is accepted; a call without an answer is none.
        let attempts = vec![
            rejected(&claimed, 1, "empty"),
            rejected(&claimed, 2, "not_json"),
            failed(&claimed, 3, ErrorClass::RateLimit),
            accepted(&claimed, 4),
        ];
        queue.settle(Settlement { attempts, endings: vec![success(&claimed)], parks: Vec::new() }).await;
    }
    let row = &estimate(&["--history"]).await[0];
    assert_eq!(told(row), [30, 10]);
    let (expected, each) = (row["expected"].as_f64().unwrap(), row["expected_per_answer"].as_f64().unwrap());
    assert!((each - expected / 2.0 * 3.0).abs() < 2e-9, "{row}");
    let other = &estimate(&["--history=2020-01-01"]).await[0];
    assert_eq!(told(other), [30, 10]);
    let wrong = program.run(&["estimate", "q.jsonl", "--history=yesterday"]).await;
    assert_eq!(wrong.status.code(), Some(ExitCode::Usage as i32));
}

#[tokio::test]
async fn sums_and_latencies_are_told_apart_by_time() {
    let queue = history().await;
    queue.run("update sluice.tally set hour = '2026-01-31T10:00:00Z' where batch <> ''").await;
    queue
        .run(
            "update sluice.attempt a set ended_at = '2026-01-31T10:20:00Z' from sluice.job j
              where j.id = a.job_id and j.batch is not null",
        )
        .await;
    let at = |text: &str| Some(Moment::At(text.parse().unwrap()));
    let attempts = async |since, until| {
        queue.store.totals(&[], &Filter { since, until, ..Filter::default() }).await.unwrap()[0].attempts
    };
    assert_eq!(attempts(at("2026-01-31T10:00:00Z"), at("2026-01-31T11:00:00Z")).await, 4);
    // The hour in which an instant falls counts whole.
    assert_eq!(attempts(at("2026-01-31T10:59:00Z"), at("2026-01-31T11:00:00Z")).await, 4);
    assert_eq!(attempts(at("2026-01-31T11:00:00Z"), at("2026-01-31T12:00:00Z")).await, 0);
    assert_eq!(attempts(None, at("2026-01-31T10:00:00Z")).await, 0);
    assert_eq!(attempts(Some(Moment::Ago(Duration::from_hours(2))), None).await, 1);
    let days = queue.store.totals(&[Grouping::Day, Grouping::Batch], &Filter::default()).await.unwrap();
    assert_eq!(days[0].keys.values().collect::<Vec<_>>(), ["2026-01-31", "nightly"]);
    let hours = queue.store.totals(&[Grouping::Hour], &Filter::default()).await.unwrap();
    assert_eq!(hours[0].keys.get(Grouping::Hour), Some("2026-01-31T10:00Z"));

    // Latencies are sums like the others.
    let filter = Filter { since: at("2026-01-31T10:20:00Z"), until: at("2026-01-31T10:21:00Z"), ..Filter::default() };
    let latencies = queue.store.latencies(&[Grouping::Provider, Grouping::Hour], &filter).await.unwrap();
    assert_eq!(latencies.len(), 1);
    assert_eq!(latencies[0].keys.values().collect::<Vec<_>>(), ["openai", "2026-01-31T10:00Z"]);
    let filter = Filter { since: Some(Moment::Ago(Duration::from_hours(1))), ..Filter::default() };
    let latencies = queue.store.latencies(&[Grouping::Provider, Grouping::Project], &filter).await.unwrap();
    assert_eq!((latencies.len(), latencies[0].keys.get(Grouping::Project)), (1, Some("other")));
}

#[tokio::test]
async fn percentiles_are_those_of_accepted_answers() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 100).await;
    let claimed = queue.claim_all(worker).await;
    let mut attempts = Vec::new();
    for (index, job) in claimed.iter().enumerate() {
        let mut attempt = accepted(job, 2);
        attempt.total_ms = i32::try_from(index + 1).unwrap() * 10;
        attempts.push(attempt);
        let mut slow = failed(job, 1, ErrorClass::Timeout);
        slow.total_ms = 600_000;
        attempts.push(slow);
    }
    queue.settle(Settlement { attempts, ..Settlement::default() }).await;
    let latencies = queue.store.latencies(&[Grouping::Provider, Grouping::Model], &Filter::default()).await.unwrap();
    let row = &latencies[0];
    assert_eq!((row.answers, row.mean_ms), (100, 505), "these are exact");
    let read = [row.p50_ms, row.p95_ms, row.p99_ms, row.first_byte_p50_ms];
    for (read, truth) in read.into_iter().zip([500.0, 950.0, 990.0, 300.0]) {
        let read = f64::from(i32::try_from(read.unwrap()).unwrap());
        assert!((read / truth - 1.0).abs() < 0.049, "{read} is not about {truth}");
    }
}

#[tokio::test]
async fn the_reports_of_the_program_agree_with_the_ledger_in_every_shape() {
    let queue = history().await;
    let program = program(&queue);
    let cost = program.run(&["report", "cost", "--format", "csv"]).await;
    assert_eq!(
        text(&cost.stdout),
        "provider,model,answered,attempts,input_tokens,cached_tokens,output_tokens,cost,waste,uncertain,unpriced,\
         cost_per_answer\n\
         openai,gpt-4o-mini,2,3,200,40,100,0.00006,0.00,0.000007,0,0.00003\n\
         deepseek,deepseek-chat,0,1,100,20,50,0.00003,0.00003,0.00,0,\n\
         local,gpt-4o-mini,1,1,100,20,50,,,0.00,1,\n"
    );
    assert!(text(&cost.stderr).contains("the price of 1 attempt is unknown"), "{}", text(&cost.stderr));
    assert!(text(&cost.stderr).contains("\"local/gpt-4o-mini\""), "{}", text(&cost.stderr));
    let quiet = program.run(&["report", "cost", "--quiet"]).await;
    assert_eq!(text(&quiet.stderr), "");

    let plain = program.output(&["report", "cost", "--by", "project", "--by", "batch"]).await;
    assert!(plain.contains("default\tnightly\t2\t4\t"), "{plain}");
    let table = program.output(&["report", "cost", "--format", "table"]).await;
    assert!(table.contains("total") && table.contains("$0.00009"), "{table}");

    let failures = json_of(&program, &["report", "failures", "--by", "class"]).await;
    assert_eq!(failures[0]["share"], 0.2);
    let find = |class: &str| failures.as_array().unwrap().iter().find(|row| row["class"] == class).unwrap().clone();
    assert_eq!((&find("timeout")["jobs_failed"], &find("timeout")["attempts"]), (&json!(1), &json!(1)));
    assert_eq!(find("soft_failure")["detail"], "not_json");

    let waste = json_of(&program, &["report", "waste"]).await;
    assert_eq!((&waste[0]["provider"], &waste[0]["waste"].to_string()), (&json!("deepseek"), &"0.00003".to_owned()));
    let fallbacks = json_of(&program, &["report", "fallbacks", "--by", "model,provider"]).await;
    assert_eq!((&fallbacks[0]["after_fallback"], &fallbacks[0]["share"]), (&json!(1), &json!(0.5)));
    let paths = json_of(&program, &["report", "fallbacks"]).await;
    assert_eq!(
        paths,
        json!([{
            "from": "deepseek/deepseek-chat", "why": "soft_failure", "to": "openai/gpt-4o-mini",
            "jobs_answered": null, "after_fallback": 1, "share": 1.0 / 3.0, "cost": 0.000_03, "cost_more": 0.000_02,
            "unknown": 0,
        }])
    );
    let quality = json_of(&program, &["report", "quality", "--by", "provider"]).await;
    let of = |name: &str| quality.as_array().unwrap().iter().find(|row| row["provider"] == name).unwrap().clone();
    assert_eq!((&of("openai")["accepted"], &of("openai")["acceptance"]), (&json!(2), &json!(1.0)));
    assert_eq!((&of("deepseek")["acceptance"], &of("deepseek")["not_json"]), (&json!(0.0), &json!(1)));
    let latency = json_of(&program, &["report", "latency", "--by", "provider"]).await;
    assert_eq!((&latency[0]["provider"], &latency[0]["p95_ms"]), (&json!("local"), &json!(2363)), "2400, to 4.9 %");

    let before = ["--since", "2020-01-01", "--until", "2020-02-01"];
    let nothing = program.run(&[&["report", "cost", "--batch", "nightly"][..], &before].concat()).await;
    assert!(nothing.status.success() && text(&nothing.stderr).contains("nothing to report"));
    for (option, name) in
        [("--batch", "nigthly"), ("--project", "nosuch"), ("--route", "nosuch"), ("--login", "nosuch")]
    {
        let unknown = program.run(&["report", "cost", option, name]).await;
        assert_eq!(unknown.status.code(), Some(ExitCode::NotFound as i32), "{option}");
        assert!(text(&unknown.stderr).contains("there is no "), "{}", text(&unknown.stderr));
    }
    for wrong in ["yesterday", "999999999d", "+262142-12-31"] {
        for option in ["--since", "--until"] {
            let output = program.run(&["report", "cost", option, wrong]).await;
            assert_eq!(
                output.status.code(),
                Some(ExitCode::Usage as i32),
                "{option} {wrong}: {}",
                text(&output.stderr)
            );
        }
    }
    let nothing = program.run(&["report", "cost", "--since", "999years"]).await;
    assert!(nothing.status.success(), "{}", text(&nothing.stderr));
}

// ---------------------------------------------------------------------------------------- jobs, batches, status

#[tokio::test]
async fn a_job_is_explained_without_its_prompt() {
    let queue = history().await;
    let program = program(&queue);
    let id: i64 =
        sqlx::query_scalar("select job_id from sluice.attempt where number = 2").fetch_one(&queue.pool).await.unwrap();
    let id = id.to_string();
    let story = program.output(&["explain", &id]).await;
    assert!(story.contains("#1 deepseek/deepseek-chat") && story.contains("soft_failure, not_json"), "{story}");
    assert!(story.contains("Total: $0.00006 in 2 attempts"), "{story}");
    let told = json_of(&program, &["explain", &id]).await;
    assert_eq!((&told["attempts"][1]["accepted"], &told["total"]["attempts"]), (&json!(true), &json!(2)));
    for arguments in [["explain", &id], ["job", "show"]] {
        let arguments: Vec<&str> = if arguments[0] == "job" { vec!["job", "show", &id] } else { arguments.to_vec() };
        for format in ["table", "json"] {
            let shown = program.output(&[arguments.as_slice(), &["--format", format]].concat()).await;
            assert!(!shown.contains("a secret"), "{shown}");
            let shown = program.output(&[arguments.as_slice(), &["--format", format, "--show-request"]].concat()).await;
            assert!(shown.contains("a secret"), "{shown}");
        }
    }
    let missing = program.run(&["explain", "999"]).await;
    assert_eq!(missing.status.code(), Some(ExitCode::NotFound as i32));
    assert_eq!(text(&missing.stderr), "error: there is no job 999\n");
}

#[tokio::test]
async fn jobs_are_cancelled_and_tried_anew_by_number() {
    let queue = Queue::new().await;
    let ids = queue.enqueue(NewJob::default(), 2).await;
    let (one, two) = (ids[0].to_string(), ids[1].to_string());
    let program = program(&queue);
    let cancelled = program.output(&["job", "cancel", &one, &two, "--format", "csv"]).await;
    assert_eq!(cancelled, format!("job,outcome\n{one},cancelled\n{two},cancelled\n"));
    let retried = program.run(&["job", "retry", &one, "999", "--format", "csv"]).await;
    assert_eq!(text(&retried.stdout), format!("job,outcome\n{one},queued again\n"));
    assert_eq!(retried.status.code(), Some(ExitCode::NotFound as i32));
    assert_eq!((queue.state(ids[0]).await.as_str(), queue.state(ids[1]).await.as_str()), ("queued", "cancelled"));
}

#[tokio::test]
async fn batches_are_listed_changed_and_watched_to_their_end() {
    let queue = history().await;
    let program = program(&queue);
    let list = json_of(&program, &["batch", "list"]).await;
    assert_eq!(
        (&list[0]["batch"], &list[0]["jobs"], &list[0]["unfinished"]),
        (&json!("nightly"), &json!(4), &json!(0))
    );
    let watched = program.run(&["watch", "nightly"]).await;
    assert_eq!(watched.status.code(), Some(ExitCode::JobsFailed as i32));
    assert_eq!(
        text(&watched.stdout),
        "nightly: done, 2 succeeded, 1 failed, 1 cancelled, 4 attempts, $0.00009 and perhaps up to $0.000007 more, \
                at least $0.000045 per answer\n"
    );
    let lines = program.run(&["watch", "nightly", "--format", "json"]).await;
    let last: Value = serde_json::from_str(text(&lines.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&last["done"], &last["failed"]), (&json!(4), &json!(1)));

    let unknown = program.run(&["watch", "nigthly"]).await;
    assert_eq!(unknown.status.code(), Some(ExitCode::NotFound as i32));
    assert!(text(&unknown.stderr).contains("there is no batch \"nigthly\"; perhaps \"nightly\" is meant"));

    assert_eq!(program.output(&["batch", "retry", "nightly"]).await, "batch nightly: 2 jobs queued again\n");
    assert_eq!(program.output(&["batch", "pause", "nightly", "--reason", "lunch"]).await, "batch nightly is paused\n");
    assert_eq!(json_of(&program, &["batch", "show", "nightly"]).await["paused"], true);
    assert_eq!(program.output(&["batch", "resume", "nightly"]).await, "batch nightly goes on\n");
    assert_eq!(program.output(&["batch", "cancel", "nightly"]).await, "batch nightly: 2 jobs cancelled\n");
    let slip = program.run(&["batch", "pause", "nigthly"]).await;
    assert_eq!(slip.status.code(), Some(ExitCode::NotFound as i32));
}

#[tokio::test]
async fn a_watch_goes_on_until_the_last_job_has_ended() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 2).await;
    let program = program(&queue);
    let mut watch = program.command(&["watch", "b", "--format", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next =
        async || -> Option<Value> { lines.next_line().await.unwrap().map(|line| serde_json::from_str(&line).unwrap()) };
    let first = next().await.unwrap();
    assert_eq!((&first["done"], &first["idle"]), (&json!(0), &json!("no worker is running")));
    let worker = queue.worker().await;
    let claimed = queue.claim_all(worker).await;
    queue.succeed(&claimed[0]).await;
    let second = next().await.unwrap();
    assert_eq!((&second["done"], &second["cost"], &second["idle"]), (&json!(1), &json!(0.00003), &Value::Null));
    queue.succeed(&claimed[1]).await;
    let last = next().await.unwrap();
    assert_eq!((&last["done"], &last["unfinished"]), (&json!(2), &json!(0)));
    assert_eq!(next().await, None);
    assert!(ended(watch).await.status.success());
}

#[tokio::test]
async fn only_what_is_configured_can_be_paused_and_anything_paused_resumed() {
    let queue = Queue::new().await;
    let config = "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                  [routes.default]\nrungs = [\"local/m\"]\n";
    let program = Program::new(config, &queue.database.url());
    assert_eq!(program.output(&["provider", "pause", "local"]).await, "provider local is paused\n");
    assert_eq!(program.output(&["provider", "pause", "local"]).await, "provider local was paused already\n");
    assert_eq!(program.output(&["route", "pause", "default"]).await, "route default is paused\n");
    assert_eq!(program.output(&["project", "pause", "anything"]).await, "project anything is paused\n");
    let slip = program.run(&["route", "pause", "defualt"]).await;
    assert_eq!(slip.status.code(), Some(ExitCode::NotFound as i32));
    assert!(text(&slip.stderr).contains("there is no route \"defualt\"; there are: default"));
    queue.run("insert into sluice.pause (kind, name) values ('route', 'of-yesterday')").await;
    assert_eq!(program.output(&["route", "resume", "of-yesterday"]).await, "route of-yesterday goes on\n");
    let paused = json_of(&program, &["status"]).await["paused"].clone();
    assert_eq!(paused.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_status_counts_what_waits_and_runs_by_route() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob { route: "a", ..NewJob::default() }, 3).await;
    let claimed = queue.claim_all(worker).await;
    queue.settle(Settlement { parks: vec![park(&claimed[0], Some(in_an_hour()))], ..Settlement::default() }).await;
    queue.enqueue(NewJob { route: "a", ..in_batch("x") }, 5).await;
    queue.enqueue(NewJob { route: "a", priority: 9, ..in_batch("x") }, 5).await;
    queue.run("insert into sluice.job (route, run_at, request) values ('b', now() + interval '1 day', '{}')").await;
    let status = queue.store.status().await.unwrap();
    let a = &status.routes["a"];
    assert_eq!((a.ready, a.running), (Counted { rows: 10, more: false }, 2));
    assert!(a.oldest_ready.is_some_and(|since| since <= status.now));
    assert_eq!(a.parked["openai/gpt-4o-mini: rate_limit"].count, Counted { rows: 1, more: false });
    let b = &status.routes["b"];
    assert_eq!((b.ready.rows, b.running, b.parked["scheduled"].count.rows), (0, 0, 1));
    assert_eq!((status.workers.len(), status.workers[0].holds, status.workers[0].is_alive()), (1, 2, true));
    queue.silence(worker).await;
    assert!(!queue.store.status().await.unwrap().workers[0].is_alive());
    assert_eq!(queue.store.live_workers().await.unwrap(), 0);

    let program = program(&queue);
    let shown = program.run(&["status"]).await;
    assert!(text(&shown.stdout).starts_with("# queue\nroute\tready\t"), "{}", text(&shown.stdout));
    assert!(text(&shown.stderr).contains("no worker is running"));
    let shown = json_of(&program, &["status"]).await;
    assert_eq!((&shown["routes"][0]["route"], &shown["routes"][0]["ready"]["jobs"]), (&json!("a"), &json!(10)));
}

#[tokio::test]
async fn counting_stops_at_a_bound() {
    let queue = Queue::new().await;
    queue.enqueue(NewJob::default(), 100_001).await;
    let status = queue.store.status().await.unwrap();
    assert_eq!(status.routes["default"].ready, Counted { rows: 100_000, more: true });
}

// ------------------------------------------------------------------------------------------------- the schema

/// The number of the last migration.
fn newest_schema() -> u32 {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.split_once('_').unwrap().0.parse().unwrap()).max().unwrap()
}

#[tokio::test]
async fn migrating_twice_changes_nothing_and_a_newer_schema_is_refused() {
    let queue = Queue::new().await;
    let program = program(&queue);
    assert_eq!(
        program.output(&["migrate"]).await,
        format!("the schema is at version {}: nothing to do\n", newest_schema())
    );
    assert_eq!(json_of(&program, &["migrate", "--dry-run"]).await["changed"], false);
    queue
        .run(
            "insert into sluice.migration (version, description, success, checksum, execution_time)
                  values (20990101, 'of tomorrow', true, '', 0);
             update sluice.schema_support set oldest = 20990101",
        )
        .await;
    for arguments in [&["migrate"][..], &["migrate", "--dry-run"], &["status"], &["report", "cost"]] {
        let refused = program.run(arguments).await;
        assert_eq!(refused.status.code(), Some(ExitCode::Database as i32));
        assert!(text(&refused.stderr).contains("upgrade sluice on this machine"), "{}", text(&refused.stderr));
    }
}

#[tokio::test]
async fn an_empty_database_is_refused_with_a_hint_and_then_migrated() {
    let queue = Queue::new().await;
    queue.run("drop schema sluice cascade").await;
    let program = program(&queue);
    let refused = program.run(&["status"]).await;
    assert_eq!(refused.status.code(), Some(ExitCode::Database as i32));
    assert!(text(&refused.stderr).contains("run `sluice migrate`"), "{}", text(&refused.stderr));
    assert_eq!(
        program.output(&["migrate", "--dry-run"]).await,
        format!("would migrate from version 0 to {}\n", newest_schema())
    );
    assert_eq!(program.output(&["migrate"]).await, format!("migrated from version 0 to {}\n", newest_schema()));
    assert!(program.run(&["status"]).await.status.success());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let program = Program::new("", "postgres://me:hunter2@127.0.0.1:1/nowhere");
    let refused = program.run(&["status"]).await;
    assert_eq!(refused.status.code(), Some(ExitCode::Database as i32));
    let error = text(&refused.stderr);
    assert!(error.contains("127.0.0.1:1/nowhere: no server answers there"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_job_that_failed_was_answered_by_nobody() {
    let queue = history().await;
    let program = program(&queue);
    let ended: Vec<(i64, String)> =
        sqlx::query_as("select job_id, state from sluice.results where provider is not null order by 1")
            .fetch_all(&queue.pool)
            .await
            .unwrap();
    assert_eq!(ended.len(), 4);
    for (id, state) in ended {
        let id = id.to_string();
        let place = json_of(&program, &["job", "show", &id]).await["place"].clone();
        let shown = program.output(&["job", "show", &id]).await;
        let (there, not_there) =
            if state == "succeeded" { ("answered_by", "last_asked") } else { ("last_asked", "answered_by") };
        assert!(place[there].as_str().unwrap().contains("/gpt-4o-mini") && place[not_there].is_null(), "{place}");
        assert!(shown.contains(there) && !shown.contains(not_there), "{shown}");
    }
}
