//! The shared limits as `sluice status` and the view show them.

use crate::support::program::{Program, text};
use crate::support::queue::Queue;
use serde_json::{Value, json};
use sluice::domain::limits::{Dimension, Heard};
use sluice::domain::shared_bucket::{Report, SharedBucket, Stock, Wait};
use sluice::domain::shut::Reason;
use sluice::domain::{Limits, Rate, Unit};
use sluice::store::quota::Rewrite;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);

/// A worker that holds so much, and would like to.
fn holding(units: u64, places: u32) -> Report {
    let stock = Stock {
        dimension: Dimension { unit: Unit::Requests, seconds: 60 },
        epoch: 0,
        left: i64::try_from(units).unwrap(),
        quiet: Duration::ZERO,
        refund: 0,
        refund_age: Duration::ZERO,
        need: 0,
        waiting: 0,
        want: units,
    };
    Report { stocks: vec![stock], slots_wanted: places, ..Report::default() }
}

/// Reports in turn to a bucket, written as workers write it.
async fn tell(queue: &Queue, bucket: &str, limits: &Limits, reports: impl IntoIterator<Item = (i64, Report)>) {
    let names = [bucket.to_owned()];
    for (worker, report) in reports {
        let (registers, now) = queue.store.read_buckets(&names).await.unwrap();
        let register = registers[bucket].clone();
        let mut state = register.state;
        state.exchange(worker, limits, &report, now);
        let rewrite = Rewrite { id: register.id, from: register.version, state };
        assert_eq!(queue.store.write_buckets(&[rewrite]).await.unwrap(), [register.id]);
    }
}

/// A bucket that is shared by two workers, and one that is shut for an hour. Only so slowly does the first one fill
/// that it makes no difference to the test.
async fn shared_limits() -> (Queue, i64, i64) {
    let queue = Queue::new().await;
    let (first, second) = (queue.worker().await, queue.worker().await);
    let rate = Rate { unit: Unit::Requests, amount: 1, per: MINUTE, burst: 49 };
    let limits = Limits { rates: vec![rate], concurrency: Some(8) };
    let heard = Heard {
        dimension: Dimension { unit: Unit::Tokens, seconds: 86_400 },
        limit: Some(1_000),
        remaining: Some(900),
        corrected: 0,
    };
    let told = Report { heard: vec![heard], ..holding(0, 2) };
    let mut asked = holding(20, 3);
    asked.stocks[0].left = 0;
    let mut also_asked = told;
    also_asked.stocks[0].want = 9;
    // The first has spent five of its twenty since.
    let mut spent = holding(20, 3);
    (spent.stocks[0].left, spent.stocks[0].want) = (15, 15);
    tell(&queue, "openai", &limits, [(first, asked), (second, also_asked), (first, spent)]).await;

    let hour = Duration::from_hours(1);
    let wait =
        Wait { reason: Reason::RateLimit, remaining: hour, recheck: hour, drained: Vec::new(), too_steep: false };
    let told = Report { wait: Some(wait), refused: 2, ..Report::default() };
    tell(&queue, "shut", &Limits::default(), [(first, told)]).await;
    // Slices are void after three seconds without a word, which a busy machine may need to come to the assertions.
    queue
        .run(
            "update sluice.bucket_state s
                set state = jsonb_set(state, '{shares}', (
                    select coalesce(jsonb_object_agg(w.key, jsonb_set(w.value, '{until}',
                                    to_jsonb((w.value ->> 'until')::bigint + 600000))), '{}')
                      from jsonb_each(s.state -> 'shares') w))",
        )
        .await;
    (queue, first, second)
}

#[tokio::test]
async fn the_status_shows_the_limits_as_all_workers_share_them() {
    let (queue, first, second) = shared_limits().await;
    tell(&queue, "idle", &Limits { rates: Vec::new(), concurrency: Some(3) }, [(first, Report::default())]).await;
    let program = Program::new("[http]\nlisten = \"off\"\n", &queue.database.url());
    let status: Value = serde_json::from_str(&program.output(&["status", "--format", "json"]).await).unwrap();
    let buckets = status["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| &bucket["bucket"]).collect::<Vec<_>>(), ["idle", "openai", "shut"]);
    let mut limit = buckets[1]["limits"][0].clone();
    // Five of one that comes back in a minute.
    assert_eq!(limit["utilisation"].take(), json!(5.0));
    let leased = json!({ first.to_string(): 15, second.to_string(): 9 });
    assert_eq!(
        limit,
        json!({
            "limit": "requests/min", "unit": "requests", "per_seconds": 60, "amount": 1, "capacity": 49,
            "source": "configured", "level": 20, "leased": leased, "used_last_minute": 5, "utilisation": null,
        })
    );
    let learned = &buckets[1]["limits"][1];
    assert_eq!(
        (&learned["limit"], &learned["source"], &learned["amount"]),
        (&json!("tokens/day"), &json!("learned"), &json!(1_000))
    );
    let places = json!({ first.to_string(): 3, second.to_string(): 2 });
    assert_eq!((&buckets[1]["concurrency"], &buckets[1]["places"]), (&json!(8), &places));
    assert_eq!((&buckets[1]["shut"], &buckets[1]["refused_last_minute"]), (&Value::Null, &json!(0)));
    assert_eq!((&buckets[2]["shut"]["reason"], &buckets[2]["refused_last_minute"]), (&json!("rate_limit"), &json!(2)));
    let instant =
        |name: &str| chrono::DateTime::parse_from_rfc3339(buckets[2]["shut"][name].as_str().unwrap()).unwrap();
    assert_eq!((instant("until") - instant("since")).num_seconds(), 3_600);

    let shown = program.output(&["status", "--format", "plain"]).await;
    let section = shown.split("# buckets\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let lines: Vec<&str> = section.lines().collect();
    assert_eq!(lines.len(), 4, "two limits, one bucket without any, none that is idle: {section}");
    let expected = format!(
        "openai\trequests/min\t1\tconfigured\t20\t{first}:15 {second}:9\t5.000000\t{first}:3 {second}:2\t8\t\t\t0"
    );
    assert_eq!(lines[1], expected);
    assert!(lines[2].starts_with("openai\ttokens/day\t1000\tlearned\t"), "{section}");
    assert!(lines[3].starts_with("shut\t") && lines[3].contains("\trate_limit\t"), "{section}");
}

/// One row of the view: limit, source, level, who holds what, and the gate.
type Row = (String, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<i64>, i64, Value, Option<String>);

#[tokio::test]
async fn a_reporter_sees_the_limits_in_the_view() {
    let (queue, first, second) = shared_limits().await;
    queue.run("create role test_limits login; grant sluice_reporter to test_limits").await;
    let options = queue.database.connect_options().username("test_limits");
    let mut reporter = PgConnection::connect_with(&options).await.unwrap();
    let rows: Vec<Row> = sqlx::query_as(
        "select bucket, unit, per_seconds, amount, source, level, leased, leased_to, shut
           from sluice.buckets order by bucket, unit",
    )
    .fetch_all(&mut reporter)
    .await
    .unwrap();
    let text = |text: &str| Some(text.to_owned());
    let leased_to = json!({ first.to_string(): 15, second.to_string(): 9 });
    let openai = || "openai".to_owned();
    assert_eq!(
        rows,
        [
            (openai(), text("requests"), Some(60), Some(1), text("configured"), Some(20), 24, leased_to, None),
            (openai(), text("tokens"), Some(86_400), Some(1_000), text("learned"), Some(900), 0, json!({}), None),
            ("shut".to_owned(), None, None, None, None, None, 0, json!({}), text("rate_limit")),
        ]
    );
    let (concurrency, places, opens_in): (i64, i64, Option<f64>) = sqlx::query_as(
        "select max(concurrency) filter (where bucket = 'openai'), max(places) filter (where bucket = 'openai'),
                max(extract(epoch from shut_until - written_at))::float8
           from sluice.buckets",
    )
    .fetch_one(&mut reporter)
    .await
    .unwrap();
    assert_eq!((concurrency, places), (8, 5));
    assert!(opens_in.is_some_and(|seconds| seconds > 3_000.0), "{opens_in:?}");

    // Slices and waits that are over are not shown.
    queue
        .run(
            "update sluice.bucket_state
                set state = regexp_replace(state::text, '\"until\": \\d+', '\"until\": 1', 'g')::jsonb",
        )
        .await;
    let (leased, places, shut): (i64, i64, Option<String>) =
        sqlx::query_as("select max(leased), max(places), max(shut) from sluice.buckets")
            .fetch_one(&mut reporter)
            .await
            .unwrap();
    assert_eq!((leased, places, shut), (0, 0, None));
}

#[tokio::test]
async fn a_state_that_cannot_be_read_counts_as_new_and_the_log_says_so() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let limits = Limits { rates: Vec::new(), concurrency: Some(3) };
    tell(&queue, "odd", &limits, [(worker, Report::default())]).await;
    queue.run("update sluice.bucket_state set state = '{\"shares\": 7}'").await;
    let (buckets, _) = queue.store.all_buckets().await.unwrap();
    assert_eq!(buckets["odd"], SharedBucket::default());
    let program = Program::new("[http]\nlisten = \"off\"\n", &queue.database.url());
    let output = program.run(&["status"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("the shared state of this limit cannot be read") && said.contains("odd"), "{said}");
}
