//! Game days: calls that fail on purpose while they are on, with the real worker.

use crate::support::clock;
use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::queue::{NewJob, Queue, accepted, failed, failure, success};
use crate::support::wait::until;
use chrono::{DateTime, SecondsFormat, TimeDelta};
use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::domain::game_day::{CODE, GameDay, GameFault};
use sluice::domain::{ErrorClass, FirstChoice, NanoUsd, Timestamp};
use sluice::store::claim::Claimed;
use sluice::store::game_day::GameDayOutcome;
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use std::time::Duration;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\n[providers.two]\ndialect = \"openai\"\n";

/// Two rungs, and a game day of two hours at the first one that ends so many minutes from now.
fn config(minutes: i64) -> String {
    let at = |minutes: i64| {
        let at = DateTime::from_timestamp_millis(clock::millis()).unwrap() + TimeDelta::minutes(minutes);
        at.to_rfc3339_opts(SecondsFormat::Secs, true)
    };
    let provider = |name: &str, price: i64| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n"
        )
    };
    let (one, two) = (provider("one", 1), provider("two", 5));
    format!(
        "{one}{two}[routes.default]\nrungs = [\"one/m\", \"two/m\"]\npatience = \"0s\"\n\
         [game_days.friday]\ntargets = [\"one\"]\nshare = 0.5\nfrom = \"{}\"\nuntil = \"{}\"\n",
        at(minutes - 120),
        at(minutes)
    )
}

impl Fleet {
    async fn screen(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    async fn in_json(&self, arguments: &[&str]) -> Value {
        let output = self.program(&[arguments, &["--format", "json"]].concat()).output().await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_calls_fails_on_purpose_and_no_job_is_lost() {
    const JOBS: i64 = 60;
    const ON_PURPOSE: &str = "select count(*) from sluice.attempt where code = 'game_day'";
    let fleet = Fleet::new(SCENARIO, &config(60)).await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    let status = fleet.in_json(&["status"]).await;
    let days = &status["game_days"];
    assert_eq!(
        (&days[0]["game_day"], &days[0]["targets"], &days[0]["share"]),
        (&json!("friday"), &json!(["one"]), &json!(0.5))
    );
    let shown = fleet.screen(&["status", "--format", "table"]).await;
    assert!(shown.starts_with("Game days: calls fail on purpose\n"), "{shown}");

    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    let failed = fleet.number(ON_PURPOSE).await;
    // The breaker opens after ten calls at the earliest, of which half have failed.
    assert!(failed >= 5, "{failed}");
    let of_others = "select count(*) from sluice.attempt where code = 'game_day' and provider <> 'one'";
    let paid = "select count(*) from sluice.attempt where code = 'game_day'
                   and (coalesce(cost_nanos, 0) <> 0 or uncertain_nanos <> 0)";
    assert_eq!((fleet.number(of_others).await, fleet.number(paid).await), (0, 0));
    // None of them reached the provider.
    let made = fleet.number("select count(*) from sluice.attempt where code is distinct from 'game_day'").await;
    assert_eq!(i64::try_from(fleet.verdict().total.calls).unwrap(), made);

    let report = fleet.in_json(&["game-day", "report", "friday"]).await;
    let number = |key: &str| report[key].as_i64().unwrap();
    assert_eq!((number("calls_failed"), number("failed"), number("unfinished")), (failed, 0, 0), "{report}");
    let touched = "select count(distinct job_id) from sluice.attempt where code = 'game_day'";
    assert_eq!(number("jobs"), fleet.number(touched).await);
    let fell_back = "select count(*) from sluice.result r where provider = 'two' and exists
                     (select from sluice.attempt a where a.job_id = r.job_id and a.code = 'game_day')";
    assert_eq!(number("fell_back"), fleet.number(fell_back).await);
    assert_eq!(number("same_target") + number("fell_back"), number("jobs"));
    assert!(number("fell_back") > 0, "{report}");
    assert_eq!(report["state"], "on");
    // Each token costs five times as much there: four fifths of what these answers cost is more than without.
    let more =
        "select (sum(a.cost_nanos) * 4 / 5)::bigint from sluice.attempt a where a.accepted and a.provider = 'two' and
                (exists (select from sluice.attempt b where b.job_id = a.job_id and b.code = 'game_day'))";
    let nanos = (report["extra_cost"].as_f64().unwrap() * 1e9).round().to_string();
    assert_eq!(nanos, fleet.number(more).await.to_string(), "{report}");
    // Jobs that met the shut target without a failed call of their own.
    let beside = "select count(*) from sluice.result r where provider = 'two' and not exists
                  (select from sluice.attempt a where a.job_id = r.job_id and a.code = 'game_day')
                  and exists (select from sluice.attempts a where a.job_id = r.job_id and a.accepted
                              and a.instead_why = 'game_day')";
    assert_eq!(number("beside"), fleet.number(beside).await);
    assert_eq!((number("extra_cost_unknown"), number("beside_extra_cost_unknown")), (0, 0));
    assert_eq!((&report["routes"][0]["route"], &report["routes"][0]["jobs"]), (&json!("default"), &report["jobs"]));
    let told = fleet.screen(&["game-day", "report", "friday", "--format", "table"]).await;
    assert!(told.contains("answered by another target") && told.contains("no job was lost"), "{told}");

    let job = fleet.number("select min(job_id) from sluice.attempt where code = 'game_day'").await.to_string();
    let explained = fleet.screen(&["explain", &job]).await;
    assert!(explained.contains("game day friday: this call was not made"), "{explained}");

    // It is over, as the configuration says now, of which the worker does not know yet.
    fleet.configure(&config(-1));
    let list = fleet.screen(&["game-day", "list"]).await;
    assert!(list.contains("not as here of game day friday") && list.contains("reload the workers"), "{list}");
    assert_eq!(worker.said().matches("a game day is on").count(), 1, "{}", worker.said());
    worker.signal(Signal::HUP);
    until("it is over", async || fleet.in_json(&["status"]).await["game_days"] == json!([])).await;
    fleet.enqueue("default", 20).await;
    fleet.until_answered(JOBS + 20).await;
    assert_eq!(fleet.number(ON_PURPOSE).await, failed);
    assert_eq!(fleet.in_json(&["game-day", "list"]).await[0]["state"], "over");
    let unknown = fleet.program(&["game-day", "report", "fryday"]).output().await.unwrap();
    assert_eq!(unknown.status.code(), Some(6));
    assert!(text(&unknown.stderr).contains("perhaps \"friday\" is meant"), "{}", text(&unknown.stderr));
    worker.until_said("a game day is over", 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_game_day_when_it_is_over_and_shadows_are_spared() {
    const JOBS: i64 = 40;
    let config = |minutes| {
        let all = config(minutes).replace("share = 0.5", "share = 1.0\nfaults = [\"overloaded\"]");
        format!(
            "{all}[routes.default.shadow]\ntarget = \"one/s\"\nshare = 1.0\nlimit = \"10\"\n\
             [models.\"one/s\"]\nprice = {{ input = \"1\", output = \"1\" }}\nmax_output_tokens = 100\n"
        )
    };
    let fleet = Fleet::new(SCENARIO, &config(60)).await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", JOBS).await;
    let at = |provider: &'static str| match provider {
        "one" => {
            "select count(*) from sluice.result r join sluice.job j on j.id = r.job_id
                   where r.state = 'succeeded' and r.provider = 'one' and j.route = 'default'"
        }
        _ => {
            "select count(*) from sluice.result r join sluice.job j on j.id = r.job_id
               where r.state = 'succeeded' and r.provider = 'two' and j.route = 'default'"
        }
    };
    until("all fall back", async || fleet.number(at("two")).await == JOBS).await;
    let shut = async || {
        let status = fleet.in_json(&["status"]).await;
        let targets = status["targets"].as_array().unwrap().clone();
        targets.into_iter().find(|target| target["target"] == "one/m").unwrap()["shut"].clone()
    };
    until("the status says why it is shut", async || shut().await.to_string().contains("game_day")).await;
    // Other workers, and later ones, hear nothing of it.
    let told = "select count(*) from sluice.health where state::text like '%\"open\"%'";
    assert_eq!(fleet.number(told).await, 0);
    let shadows = "select count(*) from sluice.result r join sluice.job j on j.id = r.job_id
                    where j.route = 'shadow:default' and r.state = 'succeeded' and r.attempts = 1";
    until("shadows are answered", async || fleet.number(shadows).await > 0).await;
    let struck = "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id
                   where a.code = 'game_day' and j.route <> 'default'";
    assert_eq!(fleet.number(struck).await, 0);

    // As many as fit beside each other at first all go to their first choice at once.
    fleet.configure(&config(-1));
    worker.signal(Signal::HUP);
    worker.until_said("a game day is over", 1).await;
    fleet.enqueue("default", 12).await;
    until("the next ones are answered", async || {
        fleet.number(at("one")).await + fleet.number(at("two")).await == JOBS + 12
    })
    .await;
    assert_eq!(fleet.number(at("one")).await, 12, "{}", worker.said());
    worker.stop().await;
}

#[tokio::test]
async fn the_report_compares_each_answer_with_its_first_choice_and_counts_what_it_does_not_know() {
    let now = Timestamp(clock::millis());
    let day = GameDay {
        name: "friday".to_owned(),
        targets: vec!["one".to_owned()],
        faults: vec![GameFault::Overloaded],
        share: 1,
        from: now - Duration::from_mins(5),
        until: now + Duration::from_mins(5),
    };
    let struck = |job: &Claimed| AttemptRow {
        provider: "one".to_owned(),
        model: "m".to_owned(),
        code: Some(CODE.to_owned()),
        message: Some(day.mark()),
        ..failed(job, 1, ErrorClass::Overloaded)
    };
    let answer = |job: &Claimed, first: Option<(&str, &str, Option<i64>)>| AttemptRow {
        first_choice: first.map(|(target, why, cost)| FirstChoice {
            target: target.to_owned(),
            why: why.to_owned(),
            cost: cost.map(NanoUsd),
        }),
        ..accepted(job, 2)
    };
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let of = |route| NewJob { route, ..NewJob::default() };
    queue.enqueue(of("default"), 9).await;
    queue.enqueue(of("other"), 1).await;
    queue.enqueue(of("shadow:default"), 1).await;
    let mut jobs = queue.claim_all(worker).await;
    jobs.sort_by_key(|job| job.lease.job);
    let [dear, unpriced, elsewhere, same, lost, beside, beside_unknown, real, another, other, shadow] = &jobs[..]
    else {
        panic!("{}", jobs.len())
    };
    let attempts = vec![
        // Its answer has cost 30,000, and 10,000 would have done.
        struck(dear),
        answer(dear, Some(("one/m", "overloaded", Some(10_000)))),
        struck(unpriced),
        answer(unpriced, Some(("one/m", "overloaded", None))),
        // Its first choice was another target, which was full.
        struck(elsewhere),
        answer(elsewhere, Some(("three/m", "concurrency", Some(1)))),
        struck(same),
        AttemptRow { provider: "one".to_owned(), model: "m".to_owned(), ..answer(same, None) },
        struck(lost),
        answer(beside, Some(("one/m", "game_day", Some(40_000)))),
        answer(beside_unknown, Some(("one/m", "game_day", None))),
        // A breaker that real failures opened, and another game day.
        answer(real, Some(("one/m", "breaker_open", Some(1)))),
        answer(another, Some(("three/m", "game_day", Some(1)))),
        struck(other),
        answer(other, Some(("one/m", "overloaded", Some(29_999)))),
        // As an earlier version struck it.
        struck(shadow),
    ];
    let answered = [dear, unpriced, elsewhere, beside, beside_unknown, real, another, other].map(success);
    let at_one = EndingRow { target: Some(("one".to_owned(), "m".to_owned())), ..success(same) };
    let failed = [lost, shadow].map(|job| failure(job, ErrorClass::Overloaded));
    let endings = answered.into_iter().chain([at_one]).chain(failed).collect();
    queue.settle(Settlement { attempts, endings, ..Settlement::default() }).await;

    let routes = queue.store.game_day(&day).await.unwrap();
    let default = GameDayOutcome {
        route: "default".to_owned(),
        calls: 5,
        jobs: 5,
        same_target: 1,
        fell_back: 3,
        failed: 1,
        cost: NanoUsd(4 * 30_000),
        extra: Some(NanoUsd(20_000)),
        extra_unknown: 2,
        beside: 2,
        // It was cheaper.
        beside_extra: Some(NanoUsd(-10_000)),
        beside_unknown: 1,
        ..GameDayOutcome::default()
    };
    let other = GameDayOutcome {
        route: "other".to_owned(),
        calls: 1,
        jobs: 1,
        fell_back: 1,
        cost: NanoUsd(30_000),
        extra: Some(NanoUsd(1)),
        ..GameDayOutcome::default()
    };
    assert_eq!(routes, [default, other]);
    assert_eq!(GameDayOutcome::total(&routes).extra, Some(NanoUsd(20_001)));
}
