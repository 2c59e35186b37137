//! The sums are those of the ledger, also where a row comes late or is computed again; and every report is made of
//! them.

use super::{json_of, program};
use crate::support::clock;
use crate::support::program::text;
use crate::support::queue::{NewJob, Queue, accepted, failed, failure, in_batch, rejected, success};
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sluice::domain::{ErrorClass, FirstChoice, NanoUsd, Target, Timestamp};
use sluice::exit_code::ExitCode;
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::report::{Filter, Grouping, LatencyRow, Moment, OTHERS};
use sluice::store::reprice::{Recosted, RepriceScope};
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HOUR: i64 = 3_600_000;
const CALLS_EACH: usize = 4;

/// How many sums the ledger has, and how many of the sums that are kept differ from it, in either set of them.
async fn beside_ledger(queue: &Queue) -> (i64, i64, i64) {
    let mut found = (0, 0, 0);
    for query in
        [include_str!("../support/measures_beside_ledger.sql"), include_str!("../support/latencies_beside_ledger.sql")]
    {
        let (of_ledger, astray, apart): (i64, i64, i64) = sqlx::query_as(query).fetch_one(&queue.pool).await.unwrap();
        found = (found.0 + of_ledger, found.1 + astray, found.2 + apart);
    }
    found
}

/// The calls of one job, none like the other: failures with and without codes, rejected answers, re-asks, fallbacks,
/// unknown prices, several hours and targets.
fn calls(claimed: &Claimed, index: usize, hours: i64) -> (Vec<AttemptRow>, EndingRow) {
    let number = i64::try_from(index).unwrap();
    let target = |row: AttemptRow, place: usize| AttemptRow {
        provider: ["openai", "deepseek", "local"][place % 3].to_owned(),
        model: ["large", "small"][place % 2].to_owned(),
        ended_at: Timestamp(clock::millis() - HOUR * (number % hours)),
        total_ms: i32::try_from(7 + number * 37 % 90_000).unwrap(),
        first_byte_ms: (!index.is_multiple_of(4)).then_some(i32::try_from(number * 13 % 3_000).unwrap()),
        cost: (!place.is_multiple_of(7)).then_some(NanoUsd(1_000 + number)),
        uncertain: NanoUsd(number % 3),
        ..row
    };
    let classes = [ErrorClass::Timeout, ErrorClass::RateLimit, ErrorClass::ServerError];
    let first = AttemptRow {
        code: index.is_multiple_of(2).then(|| format!("code\n{}", index % 6)),
        http_status: (!index.is_multiple_of(5)).then_some(503),
        message: Some(format!("the provider says {}", index % 6)),
        ..target(failed(claimed, 1, classes[index % 3]), index)
    };
    let second = target(rejected(claimed, 2, ["empty", "not_json"][index % 2]), index + 1);
    let third = AttemptRow { reask_of: Some(2), ..target(rejected(claimed, 3, "not_json"), index + 1) };
    let first_choice = FirstChoice {
        target: "openai/large".to_owned(),
        why: classes[index % 3].as_str().to_owned(),
        cost: (!index.is_multiple_of(11)).then_some(NanoUsd(900)),
    };
    let last = AttemptRow {
        reask_of: index.is_multiple_of(3).then_some(3),
        first_choice: (index % 4 != 1).then_some(first_choice),
        ..target(accepted(claimed, 4), index + 2)
    };
    let ending = EndingRow {
        target: Some((last.provider.clone(), last.model.clone())),
        after_fallback: last.first_choice.is_some(),
        repaired: index.is_multiple_of(9),
        attempts: 4,
        cost: None,
        ..success(claimed)
    };
    (vec![first, second, third, last], ending)
}

/// So many calls, by two logins, in batches of several sizes and in none.
async fn a_history(attempts: usize) -> Queue {
    a_history_of(attempts, 5).await
}

/// The same, spread over so many hours.
async fn a_history_of(attempts: usize, hours: i64) -> Queue {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let jobs = i32::try_from(attempts / CALLS_EACH).unwrap();
    queue.enqueue(in_batch("large"), jobs / 2).await;
    queue.enqueue(NewJob { project: "other", ..in_batch("small") }, jobs / 4).await;
    queue.enqueue(NewJob { route: "b", ..NewJob::default() }, jobs - jobs / 2 - jobs / 4).await;
    queue.run("update sluice.job set enqueued_by = 'app' where id % 3 = 0 and batch is null").await;
    let mut place = 0;
    loop {
        let claimed = queue.claim(worker, 500).await;
        if claimed.is_empty() {
            return queue;
        }
        let mut settlement = Settlement::default();
        for job in &claimed {
            let (calls, ending) = calls(job, place, hours);
            settlement.attempts.extend(calls);
            settlement.endings.push(ending);
            place += 1;
        }
        assert_eq!(queue.settle(settlement).await, Vec::<i64>::new());
    }
}

/// A call of a worker that is taken for dead, and reports after all.
async fn comes_late(queue: &Queue, is_answer: bool) {
    let id = queue.enqueue(in_batch("late"), 1).await[0];
    let worker = queue.worker().await;
    let stale = queue.claim_one(worker).await;
    let call = OpenCall {
        lease: stale.lease,
        number: 1,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: Some(NanoUsd(900)),
        labels: Arc::new(stale.labels()),
    };
    queue.store.open_calls(&[call], 0).await.unwrap().unwrap();
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    assert_eq!(beside_ledger(queue).await.1, 0, "what was booked in its place");
    let (attempt, ending) = if is_answer {
        (accepted(&stale, 1), success(&stale))
    } else {
        let attempt = AttemptRow { code: Some("late".to_owned()), ..failed(&stale, 1, ErrorClass::ServerError) };
        (attempt, failure(&stale, ErrorClass::ServerError))
    };
    queue.settle(Settlement { attempts: vec![attempt], endings: vec![ending], parks: Vec::new() }).await;
    let booked = "select count(*) from sluice.attempt where placeholder";
    assert_eq!(queue.count(booked).await, 0, "the report has taken its place");
    assert_eq!(queue.places(id).await, if is_answer { "e" } else { "r" });
    if !is_answer {
        queue.store.cancel_batch("late", |_| {}).await.unwrap();
    }
}

/// Computes costs again: more, less, one that was unknown, and one that is unknown now.
async fn reprice(queue: &Queue) -> u64 {
    let mut walk = queue.store.costed(RepriceScope::default(), None);
    let mut changed = 0;
    while let Some((_, attempts)) = walk.next().await.unwrap() {
        let changes = attempts.into_iter().enumerate().filter_map(|(index, was)| {
            let cost = match (index % 5, was.cost) {
                (0, Some(NanoUsd(nanos))) => Some(NanoUsd(nanos + 77)),
                (1, Some(NanoUsd(nanos))) => Some(NanoUsd(nanos / 2)),
                (2, Some(_)) => None,
                (_, None) => Some(NanoUsd(123)),
                _ => return None,
            };
            let (computed, source) = (was.computed, cost.map(|_| "price"));
            Some(Recosted { cost, computed, source, price: was.price, differs: false, was })
        });
        changed += queue.store.recost(&changes.collect::<Vec<_>>()).await.unwrap();
    }
    changed
}

#[tokio::test]
async fn fifty_thousand_attempts_sum_up_to_the_ledger_also_late_and_repriced_ones() {
    const ATTEMPTS: usize = 50_000;
    let queue = a_history(ATTEMPTS).await;
    let all = async |queue: &Queue| queue.store.totals(&[], &Filter::default()).await.unwrap()[0].attempts;
    assert_eq!(all(&queue).await, i64::try_from(ATTEMPTS).unwrap());
    let (of_ledger, astray, apart) = beside_ledger(&queue).await;
    assert!(of_ledger > 1_000, "{of_ledger}");
    assert_eq!((astray, apart), (0, 0), "nothing is folded");
    // Part of it is folded, then more comes, and then all of it is.
    queue.store.fold_some(700).await.unwrap();
    assert_eq!(beside_ledger(&queue).await.1, 0, "partly folded");
    comes_late(&queue, true).await;
    comes_late(&queue, false).await;
    while queue.store.fold_tally().await.unwrap().rows > 0 {}
    assert_eq!(beside_ledger(&queue).await, (beside_ledger(&queue).await.0, 0, 0), "folded");
    assert!(reprice(&queue).await > 10_000);
    let repriced = beside_ledger(&queue).await;
    assert_eq!((repriced.1, repriced.2), (0, 0), "repriced");
    while queue.store.fold_tally().await.unwrap().rows > 0 {}
    let folded = beside_ledger(&queue).await;
    assert_eq!((folded.1, folded.2), (0, 0), "repriced and folded");
    every_report_is_the_full_sum(&queue).await;
}

/// Calls of one provider in some time: how many, of which accepted, what they cost and wasted, in billionths of a
/// dollar, their input and output, how many have no price, and how long the accepted ones took.
type OfTime = (String, i64, i64, i64, i64, i64, i64, i64, i64);

/// The same of the ledger. The hours in which the time begins and ends count whole.
const OF_TIME: &str = "
select provider, count(*), count(*) filter (where accepted), coalesce(sum(cost_nanos), 0)::bigint,
       coalesce(sum(cost_nanos) filter (where not accepted), 0)::bigint,
       sum(input_tokens + cache_read_tokens + cache_write_tokens)::bigint, sum(output_tokens)::bigint,
       count(*) - count(cost_nanos), coalesce(avg(total_ms) filter (where accepted), 0)::numeric::bigint
  from sluice.attempt
 where ($1::timestamptz is null or ended_at >= date_trunc('hour', $1, 'UTC'))
   and ($2::timestamptz is null or date_trunc('hour', ended_at, 'UTC') < $2)
 group by provider order by provider";

#[tokio::test]
async fn a_time_that_begins_and_ends_inside_a_day_sums_up_to_the_ledger_of_its_hours() {
    let queue = a_history_of(3_000, 75).await;
    let now = queue.store.hour_of(None).await.unwrap();
    let ago = |hours: i64, minutes: i64| Some(now - TimeDelta::hours(hours) + TimeDelta::minutes(minutes));
    let midnight = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    let mut times = vec![(None, None), (ago(2, 0), None), (None, ago(30, 0)), (None, ago(30, 17)), (ago(1, 59), None)];
    // Within a day, over one midnight and over several, on the hour and between; of days, and of nothing.
    for from in [1, 7, 24, 25, 31, 48, 50, 74] {
        for length in [1, 5, 23, 24, 26, 49] {
            times.extend([(ago(from, 0), ago(from - length, 0)), (ago(from, 17), ago(from - length, 43))]);
        }
    }
    times.extend([(Some(midnight - TimeDelta::days(2)), Some(midnight)), (Some(midnight), None)]);
    times.push((None, Some(midnight)));
    times.push((Some(midnight - TimeDelta::microseconds(1)), Some(midnight + TimeDelta::microseconds(1))));
    for folded in ["nothing", "some", "all"] {
        for (since, until) in &times {
            let expected: Vec<OfTime> =
                sqlx::query_as(OF_TIME).bind(since).bind(until).fetch_all(&queue.pool).await.unwrap();
            let filter = Filter { since: since.map(Moment::At), until: until.map(Moment::At), ..Filter::default() };
            let latencies = queue.store.latencies(&[Grouping::Provider], &filter).await.unwrap();
            for by in [&[][..], &[Grouping::Hour], &[Grouping::Day], &[Grouping::Batch]] {
                let by = [&[Grouping::Provider][..], by].concat();
                let mut told: BTreeMap<String, OfTime> = BTreeMap::new();
                for row in queue.store.totals(&by, &filter).await.unwrap() {
                    // Jobs that ended are counted where no call is.
                    let provider = row.keys.get(Grouping::Provider).unwrap().to_owned();
                    let sum = told.entry(provider.clone()).or_insert((provider, 0, 0, 0, 0, 0, 0, 0, 0));
                    sum.1 += row.attempts;
                    sum.2 += row.attempts - row.unused;
                    sum.3 += row.cost.0;
                    sum.4 += row.waste.0;
                    sum.5 += row.input_tokens;
                    sum.6 += row.output_tokens;
                    sum.7 += row.unpriced;
                }
                let mut told: Vec<OfTime> = told.into_values().filter(|sum| sum.1 != 0).collect();
                for sum in &mut told {
                    let of_it = |row: &&LatencyRow| row.keys.get(Grouping::Provider) == Some(sum.0.as_str());
                    let latency = latencies.iter().find(of_it);
                    assert_eq!(latency.map_or(0, |row| row.answers), sum.2, "{since:?} to {until:?}: {latency:?}");
                    sum.8 = latency.map_or(0, |row| row.mean_ms);
                }
                assert_eq!(told, expected, "{since:?} to {until:?} by {by:?}, folded: {folded}");
            }
        }
        match folded {
            "nothing" => assert!(queue.store.fold_some(900).await.unwrap().left > 0),
            _ => while queue.store.fold_tally().await.unwrap().rows > 0 {},
        }
    }
    // The days of the view are those of the session.
    for zone in ["UTC", "Asia/Tokyo"] {
        let mut session = queue.pool.begin().await.unwrap();
        let set = format!("set local timezone = '{zone}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *session).await.unwrap();
        let (days, astray): (i64, i64) = sqlx::query_as(
            "with ledger as (
                 select date_trunc('day', a.ended_at) as day, j.project, a.provider, a.model, count(*) as attempts,
                        round(coalesce(sum(a.cost_nanos), 0) / 1e9, 9) as cost
                   from sluice.attempt a join sluice.job j on j.id = a.job_id group by 1, 2, 3, 4
             ), days as (select day, project, provider, model, attempts, cost from sluice.cost_daily where attempts > 0)
             select (select count(distinct day) from days),
                    (select count(*) from ((table days except table ledger) union all
                                           (table ledger except table days)) d)",
        )
        .fetch_one(&mut *session)
        .await
        .unwrap();
        assert!(days >= 3, "{days} days in {zone}");
        assert_eq!(astray, 0, "{zone}");
        session.rollback().await.unwrap();
    }
    // And as one types it.
    let (since, until) = (ago(31, 17).unwrap(), ago(3, 43).unwrap());
    let written = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (from, to) = (written(since), written(until));
    let rows =
        json_of(&program(&queue), &["report", "cost", "--by", "provider", "--since", &from, "--until", &to]).await;
    let expected: Vec<OfTime> = sqlx::query_as(OF_TIME).bind(since).bind(until).fetch_all(&queue.pool).await.unwrap();
    for sum in &expected {
        let row = rows.as_array().unwrap().iter().find(|row| row["provider"] == sum.0.as_str()).unwrap();
        assert_eq!((&row["attempts"], &row["unpriced"]), (&json!(sum.1), &json!(sum.7)));
        let cost = format!("{}.{:09}", sum.3 / 1_000_000_000, sum.3 % 1_000_000_000);
        assert_eq!(row["cost"].as_f64(), Some(cost.parse().unwrap()));
    }
    assert_eq!((rows.as_array().unwrap().len(), expected.len()), (3, 3));
}

/// What a report shows, beside the same figures from the ledger.
async fn every_report_is_the_full_sum(queue: &Queue) {
    let program = program(queue);
    for by in ["provider", "batch", "login", "hour"] {
        let column = match by {
            "provider" => "a.provider",
            "login" => "j.enqueued_by",
            "batch" => "coalesce(j.batch, '')",
            _ => "to_char(a.ended_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:00\"Z\"')",
        };
        for (report, measures) in [
            (
                "cost",
                "'attempts', count(*), 'cost', round(sum(a.cost_nanos) / 1e9, 9), 'unpriced',
                 count(*) - count(a.cost_nanos), 'output_tokens', sum(a.output_tokens)",
            ),
            (
                "waste",
                "'attempts', count(*) filter (where not a.accepted),
                 'waste', round(sum(a.cost_nanos) filter (where not a.accepted) / 1e9, 9)",
            ),
            ("failures", "'attempts', count(*) filter (where not a.accepted)"),
            (
                "quality",
                "'accepted', count(*) filter (where a.accepted), 'empty', count(*) filter (where a.detail = 'empty'),
                 'answers', count(*) filter (where a.accepted or a.class = 'soft_failure')",
            ),
            (
                "reasks",
                "'reasks', count(a.reask_of), 'accepted', count(a.reask_of) filter (where a.accepted),
                 'unpriced', count(*) filter (where a.reask_of is not null and a.cost_nanos is null)",
            ),
            (
                "latency",
                "'answers', count(*) filter (where a.accepted),
                 'p95_ms', sluice.latency_of((percentile_disc(0.95) within group
                     (order by sluice.latency_class(a.total_ms)) filter (where a.accepted))::integer),
                 'first_byte_p50_ms', sluice.latency_of((percentile_disc(0.5) within group
                     (order by sluice.latency_class(a.first_byte_ms)) filter (where a.accepted))::integer)",
            ),
            (
                "fallbacks",
                "'cost', round(coalesce(sum(a.cost_nanos) filter (where a.accepted and a.instead_of <> ''), 0) / 1e9,
                               9),
                 'unknown', count(*) filter (where a.accepted and a.instead_of <> ''
                                               and (a.cost_nanos is null or a.instead_nanos is null))",
            ),
        ] {
            let rows = json_of(&program, &["report", report, "--by", by, "--since", "3d"]).await;
            let query = format!(
                "select coalesce(jsonb_object_agg(s.key, s.told), '{{}}') from (
                     select {column} as key, jsonb_build_object({measures}) as told
                       from sluice.attempt a join sluice.job j on j.id = a.job_id group by 1) s"
            );
            let expected: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&queue.pool).await.unwrap();
            let mut seen = 0;
            for row in rows.as_array().unwrap() {
                let Some(sums) = expected[row[by].as_str().unwrap_or_default()].as_object() else {
                    // Jobs that ended without a call have no attempts to be told.
                    continue;
                };
                for (measure, sum) in sums {
                    assert_eq!(row[measure].as_f64(), sum.as_f64(), "report {report} --by {by}: {measure} in {row}");
                }
                seen += 1;
            }
            assert!(seen > 0, "report {report} --by {by}: {rows}");
        }
    }
    let paths = json_of(&program, &["report", "fallbacks"]).await;
    let more: Vec<(String, String, i64, f64)> = sqlx::query_as(
        "select a.instead_why, a.provider || '/' || a.model, count(*),
                round(sum(a.cost_nanos - a.instead_nanos) / 1e9, 9)::double precision
           from sluice.attempt a where a.accepted and a.instead_of is not null group by 1, 2",
    )
    .fetch_all(&queue.pool)
    .await
    .unwrap();
    assert_eq!(paths.as_array().unwrap().len(), more.len());
    for (why, to, answers, extra) in more {
        let is_it = |row: &&Value| row["why"] == why.as_str() && row["to"] == to.as_str();
        let row = paths.as_array().unwrap().iter().find(is_it).unwrap();
        assert_eq!((&row["from"], &row["after_fallback"]), (&json!("openai/large"), &json!(answers)));
        assert_eq!(row["cost_more"].as_f64(), Some(extra), "{row}");
    }
    let codes = json_of(&program, &["report", "failures", "--by", "code", "--by", "class"]).await;
    let of = |class: &str, code: Value| {
        codes.as_array().unwrap().iter().find(|row| row["class"] == class && row["code"] == code).cloned()
    };
    let row = of("timeout", json!("code 0")).unwrap();
    assert_eq!(row["message"], "the provider says 0");
    assert!(of("rate_limit", json!("503")).is_some(), "a failure without a code has its status: {codes}");
}

#[tokio::test]
async fn workers_of_an_earlier_version_fold_nothing_and_what_they_append_counts() {
    let queue = a_history(400).await;
    // Such a worker asks for its turn at folding by the name that it had then.
    let old: bool =
        sqlx::query_scalar("select sluice.take_turn('fold_tally', false)").fetch_one(&queue.pool).await.unwrap();
    assert!(!old);
    queue
        .run(
            "insert into sluice.tally (hour, route, project, provider, model, attempts, total_ms, cost_nanos)
                  values (date_trunc('hour', now()), 'default', 'default', 'older', 'm', 3, 600, 9)",
        )
        .await;
    for folded in [false, true] {
        let rows = queue.store.totals(&[Grouping::Provider, Grouping::Login], &Filter::default()).await.unwrap();
        let row = rows.iter().find(|row| row.keys.get(Grouping::Provider) == Some("older")).unwrap();
        assert_eq!((row.keys.get(Grouping::Login), row.attempts, row.cost), (Some(""), 3, NanoUsd(9)));
        let latencies = queue.store.latencies(&[Grouping::Provider], &Filter::default()).await.unwrap();
        let row = latencies.iter().find(|row| row.keys.get(Grouping::Provider) == Some("older")).unwrap();
        assert_eq!((row.answers, row.mean_ms, row.p50_ms), (3, 200, None), "folded: {folded}");
        queue.store.fold_tally().await.unwrap();
    }
}

#[tokio::test]
async fn of_a_class_of_a_target_twenty_codes_are_told_apart_and_messages_are_short_and_plain() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 30).await;
    let claimed = queue.claim_all(worker).await;
    let attempt = |index: usize, job: &Claimed| AttemptRow {
        code: Some(format!("code_{index}_{}", "x".repeat(100))),
        message: Some(format!("\u{1b}[2Jline\nline {}", "y".repeat(1_000))),
        ..failed(job, 1, ErrorClass::ServerError)
    };
    for half in [0..15, 15..30] {
        let attempts = half.map(|index| attempt(index, &claimed[index])).collect();
        queue.settle(Settlement { attempts, ..Settlement::default() }).await;
        queue.store.fold_tally().await.unwrap();
    }
    // An answer may be quoted in what a validator says of it.
    let rejected = AttemptRow { message: Some("quotes the answer".to_owned()), ..rejected(&claimed[0], 2, "empty") };
    queue.settle(Settlement { attempts: vec![rejected], ..Settlement::default() }).await;
    queue.store.fold_tally().await.unwrap();
    let rows = json_of(&program(&queue), &["report", "failures", "--by", "code"]).await;
    let rows = rows.as_array().unwrap();
    let attempts = |row: &Value| row["attempts"].as_i64().unwrap();
    assert_eq!(rows.iter().map(attempts).sum::<i64>(), 31);
    let others = rows.iter().find(|row| row["code"] == "(other)").unwrap();
    assert_eq!((rows.len(), attempts(others)), (22, 10));
    for row in rows.iter().filter(|row| row["code"].as_str().is_some_and(|code| code.starts_with("code"))) {
        assert_eq!(row["code"].as_str().unwrap().chars().count(), 60);
        let message = row["message"].as_str().unwrap();
        assert_eq!(message.chars().count(), 300);
        assert!(message.starts_with(" [2Jline line yyy") && !message.contains(char::is_control), "{message}");
    }
    assert_eq!(queue.count("select count(*) from sluice.failure_sample where message like 'quotes%'").await, 0);
}

/// All rows of the second report that the first one does not name are summed up in its row of others.
fn are_summed_up(report: &str, some: &Value, all: &Value, measures: &[&str]) {
    let batch = |row: &Value| row["batch"].as_str().unwrap_or_default().to_owned();
    let (some, all) = (some.as_array().unwrap(), all.as_array().unwrap());
    let named: Vec<String> = some.iter().map(batch).filter(|name| name != OTHERS).collect();
    assert_eq!(named.len(), 4, "{report}: three batches, and the jobs of none: {named:?}");
    for row in some.iter().filter(|row| batch(row) != OTHERS) {
        assert_eq!(Some(row), all.iter().find(|own| batch(own) == batch(row)), "{report}");
    }
    let others = some.iter().find(|row| batch(row) == OTHERS).unwrap_or_else(|| panic!("{report}: {some:?}"));
    for measure in measures {
        let sum = all.iter().filter(|row| !named.contains(&batch(row))).map(|row| row[*measure].as_f64().unwrap());
        let (told, expected) = (others[*measure].as_f64().unwrap(), sum.sum::<f64>());
        assert!(expected > 0.0 && (told - expected).abs() < 1e-9, "{report}: {measure} is {told}, not {expected}");
    }
}

#[tokio::test]
async fn of_many_batches_the_latest_have_rows_and_one_row_sums_up_the_others() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    for batch in ["b1", "b2", "b3", "b4", "b5", "b6", "b7"] {
        queue.enqueue(in_batch(batch), 30).await;
    }
    queue.enqueue(NewJob::default(), 30).await;
    let claimed: Vec<(usize, Claimed)> = queue.claim_all(worker).await.into_iter().enumerate().collect();
    for some in claimed.chunks(60) {
        let mut settlement = Settlement::default();
        for (place, job) in some {
            let (attempts, ending) = calls(job, *place, 5);
            settlement.attempts.extend(attempts);
            settlement.endings.push(ending);
        }
        queue.settle(settlement).await;
    }
    let program = program(&queue);
    for folded in ["nothing", "some", "all"] {
        for (report, measures) in [
            ("cost", &["attempts", "cost", "waste", "output_tokens", "unpriced"][..]),
            ("quality", &["answers", "accepted", "repaired", "empty", "not_json"]),
            ("failures", &["attempts", "waste"]),
            ("waste", &["attempts", "waste"]),
            ("fallbacks", &["after_fallback", "cost", "unknown"]),
            ("reasks", &["reasks", "accepted"]),
            ("latency", &["answers"]),
        ] {
            let of = async |limit: &str, more: &[&str]| {
                let arguments = [&["report", report, "--by", "batch", "--limit", limit], more].concat();
                json_of(&program, &arguments).await
            };
            let all = of("0", &[]).await;
            are_summed_up(report, &of("3", &[]).await, &all, measures);
            let since = ["--since", "3h"];
            are_summed_up(report, &of("3", &since).await, &of("0", &since).await, &measures[..1]);
            assert_eq!(of("8", &[]).await, all, "{report}: all of them have a row");
            assert_eq!(json_of(&program, &["report", report, "--by", "batch"]).await, all);
        }
        // A percentile of the others is no sum: it comes from the rest of all histograms.
        let rows = json_of(&program, &["report", "latency", "--by", "batch", "--limit", "3"]).await;
        let named: Vec<&str> = rows.as_array().unwrap().iter().filter_map(|row| row["batch"].as_str()).collect();
        let p95: i64 = sqlx::query_scalar(
            "select sluice.latency_of((percentile_disc(0.95) within group
                        (order by sluice.latency_class(a.total_ms)))::integer)
               from sluice.attempt a join sluice.job j on j.id = a.job_id
              where a.accepted and j.batch is not null and j.batch <> all ($1)",
        )
        .bind(&named)
        .fetch_one(&queue.pool)
        .await
        .unwrap();
        let others = rows.as_array().unwrap().iter().find(|row| row["batch"] == OTHERS).unwrap();
        assert_eq!(others["p95_ms"], json!(p95), "{rows}");
        match folded {
            "nothing" => assert!(queue.store.fold_some(400).await.unwrap().rows > 0),
            _ => while queue.store.fold_tally().await.unwrap().rows > 0 {},
        }
    }
    let told = program.run(&["report", "cost", "--by", "batch", "--limit", "3", "--format", "csv"]).await;
    let expected = "the 3 batches in which something happened last, within an hour by name, have rows; all others are \
                    in the row (others)";
    assert!(text(&told.stderr).contains(expected), "{}", text(&told.stderr));
}

#[tokio::test]
async fn what_providers_have_said_is_forgotten_with_finished_work() {
    let queue = a_history(400).await;
    while queue.store.fold_tally().await.unwrap().rows > 0 {}
    let all = queue.count("select count(*) from sluice.failure_sample").await;
    assert!(all > 2, "{all}");
    let codes = async || json_of(&program(&queue), &["report", "failures", "--by", "code"]).await;
    let before = codes().await;
    queue
        .run(
            "update sluice.failure_sample set seen_at = now() - interval '90 days'
              where ctid in (select ctid from sluice.failure_sample limit 2)",
        )
        .await;
    let keep = |days: u64| Duration::from_hours(days * 24);
    assert_eq!(queue.store.forget_failure_words(keep(91)).await.unwrap(), 0);
    assert_eq!(queue.store.forget_failure_words(keep(89)).await.unwrap(), 2);
    assert_eq!(queue.count("select count(*) from sluice.failure_sample").await, all - 2);
    // The sums stay, with their codes.
    let attempts = |rows: &Value| -> Vec<(String, i64)> {
        let row = |row: &Value| (row["code"].to_string(), row["attempts"].as_i64().unwrap());
        rows.as_array().unwrap().iter().map(row).collect()
    };
    assert_eq!(attempts(&codes().await), attempts(&before));
}

#[tokio::test]
async fn two_periods_are_told_side_by_side() {
    let queue = a_history(400).await;
    while queue.store.fold_tally().await.unwrap().rows > 0 {}
    queue
        .run(
            "create temporary table double as select * from sluice.tally_hour_all;
             update sluice.tally_hour_all set hour = hour - interval '2 days';
             insert into sluice.tally_hour_all select * from double;
             update sluice.tally_hour_all set cost_nanos = cost_nanos * 2, attempts = attempts * 2
              where hour >= now() - interval '1 day'",
        )
        .await;
    let program = program(&queue);
    // No whole day lies in either: days have sums of their own, which are as they were.
    let told = json_of(&program, &["report", "cost", "--by", "route", "--since", "7h", "--compare=55h"]).await;
    let find = |measure: &str| {
        told.as_array().unwrap().iter().find(|row| row["route"] == "b" && row["measure"] == measure).cloned()
    };
    let attempts = find("attempts").unwrap();
    let (before, now) = (attempts["before"].as_i64().unwrap(), attempts["now"].as_i64().unwrap());
    assert!(before > 0);
    assert_eq!((now, &attempts["change"], &attempts["percent"]), (before * 2, &json!(before), &json!(1.0)));
    assert_eq!(find("answered").unwrap()["change"], 0);
    let right_before = program.run(&["report", "quality", "--since", "1d", "--compare", "--format", "json"]).await;
    assert!(right_before.status.success(), "{}", text(&right_before.stderr));
    let periods = text(&right_before.stderr);
    assert!(periods.contains("before: ") && periods.contains("; now: "), "{periods}");
}

#[tokio::test]
async fn what_a_report_cannot_tell_is_refused_in_words() {
    let queue = Queue::new().await;
    let program = program(&queue);
    for (arguments, words) in [
        (&["cost", "--by", "planet"][..], "invalid value 'planet' for '--by <DIMENSION>'"),
        (&["costs"], "invalid value 'costs'"),
        (&["cost", "--since", "1h", "--until", "2h"], "--until is not after --since"),
        (&["cost", "--since", "2026-02-01", "--until", "2026-01-01"], "--until is not after --since"),
        (&["cost", "--since", "someday"], "expected how long ago"),
        (&["cost", "--compare"], "--compare needs --since"),
        (&["cost", "--compare=someday", "--since", "1d"], "expected how long ago"),
        (&["cost", "--compare=2d", "--since", "3d", "--until", "1d"], "the two periods overlap"),
        (&["cost", "--compare=1h", "--since", "1d"], "the two periods overlap"),
        (&["cost", "--compare", "--since", "2d", "--by", "day"], "--by day and --by hour compare nothing"),
        (&["quality", "--by", "class"], "--by class says nothing here"),
        (&["latency", "--by", "class"], "--by class says nothing here"),
        (&["cost", "--by", "code"], "--by code says nothing here"),
        (&["cost", "--by", "from"], "`sluice report fallbacks` takes them"),
        (&["cost", "--limit", "3"], "it goes with --by batch"),
        (&["cost", "--limit", "3", "--by", "batch", "--batch", "b"], "it goes with --by batch"),
        (&["cost", "--limit", "few", "--by", "batch"], "invalid value 'few'"),
        (&["cache", "--by", "login"], "--by takes these"),
        (&["cache", "--login", "app"], "leave --batch and --login out"),
    ] {
        let refused = program.run(&[&["report"], arguments].concat()).await;
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(ExitCode::Usage as i32), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
        assert_eq!(text(&refused.stdout), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn sums_of_one_login_are_told_apart() {
    let queue = a_history(400).await;
    let program = program(&queue);
    let by_login = json_of(&program, &["report", "cost", "--by", "login"]).await;
    let rows = by_login.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{by_login}");
    let app = rows.iter().find(|row| row["login"] == "app").unwrap();
    let alone = json_of(&program, &["report", "cost", "--login", "app", "--by", "route"]).await;
    assert_eq!((&alone[0]["attempts"], &alone[0]["cost"]), (&app["attempts"], &app["cost"]));
    let jobs: i64 = queue.count("select jobs from sluice.cost_by_login where login = session_user").await;
    assert_eq!(jobs, 75, "jobs in batches were counted when they came");
}
