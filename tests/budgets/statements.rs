//! The statements of budgets: the amounts reserved, booked, given back and counted, regardless of the events in
//! between.

use crate::support::clock;
use crate::support::queue::{NewJob, Queue, accepted, failed, in_batch, park, success};
use sluice::domain::budget::{Budget, Coverage, Period, Shortage, Unpriced};
use sluice::domain::{ErrorClass, NanoUsd, Target, Timestamp};
use sluice::store::budget::{Covered, Look};
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::settle::{AttemptRow, Settlement};
use std::sync::Arc;

pub(super) fn call(claimed: &Claimed, number: i16, worst: impl Into<Option<i64>>) -> OpenCall {
    OpenCall {
        lease: claimed.lease,
        number,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: worst.into().map(NanoUsd),
        labels: Arc::new(claimed.labels()),
    }
}

pub(super) fn budget(name: &str, scope: Coverage, limit: i64) -> Budget {
    let (limit, period) = (NanoUsd(limit), Period::Day);
    Budget { name: name.to_owned(), scope, period, limit, soft: None, then_route: None, unpriced: Unpriced::Refuse }
}

impl Queue {
    async fn set(&self, budget: Budget) {
        assert!(self.store.set_budget(&budget).await.unwrap());
    }

    async fn look(&self) -> Look {
        self.store.budgets().await.unwrap()
    }

    /// Spent, uncertain and reserved.
    async fn sums(&self, name: &str) -> (i64, i64, i64) {
        let look = self.look().await;
        let it = look.budgets.0.iter().find(|it| it.budget.name == name).unwrap();
        (it.spent.0, it.uncertain.0, it.reserved.0)
    }

    async fn open(&self, calls: &[OpenCall]) -> Vec<Covered> {
        let look = self.look().await;
        self.store.open_covered_calls(calls, false, &look).await.unwrap().unwrap().outcomes
    }

    async fn is_right(&self) {
        assert_eq!(self.store.check_budgets(false).await.unwrap(), []);
    }
}

fn cost(row: AttemptRow, cost: i64) -> AttemptRow {
    AttemptRow { cost: Some(NanoUsd(cost)), ..row }
}

pub(super) fn booked(claimed: &Claimed, number: i16, nanos: i64) -> Settlement {
    Settlement { attempts: vec![cost(failed(claimed, number, ErrorClass::Timeout), nanos)], ..Settlement::default() }
}

#[tokio::test]
async fn what_is_reserved_becomes_what_was_spent_in_every_budget_that_covers_the_call() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let login: String = sqlx::query_scalar("select session_user::text").fetch_one(&queue.pool).await.unwrap();
    let scopes = [
        ("total", Coverage::Total),
        ("project", Coverage::Project("p".into())),
        ("route", Coverage::Route("default".into())),
        ("provider", Coverage::Provider("openai".into())),
        ("batch", Coverage::Batch("b".into())),
        ("login", Coverage::Login(login)),
    ];
    for (name, scope) in scopes.clone() {
        queue.set(budget(name, scope, 1_000_000)).await;
    }
    queue.set(budget("other", Coverage::Project("q".into()), 1_000_000)).await;
    queue.enqueue(NewJob { project: "p", ..in_batch("b") }, 1).await;
    let claimed = queue.claim_one(worker).await;
    assert_eq!(queue.open(&[call(&claimed, 1, 50_000)]).await, [Covered::Open]);
    for (name, _) in &scopes {
        assert_eq!(queue.sums(name).await, (0, 0, 50_000), "{name}");
    }
    queue.is_right().await;
    queue
        .settle(Settlement {
            attempts: vec![accepted(&claimed, 1)],
            endings: vec![success(&claimed)],
            ..Settlement::default()
        })
        .await;
    for (name, _) in &scopes {
        assert_eq!(queue.sums(name).await, (30_000, 0, 0), "{name}");
    }
    assert_eq!(queue.sums("other").await, (0, 0, 0));
    queue.is_right().await;
    // Sent again after an unknown outcome, it counts once.
    queue.settle(Settlement { attempts: vec![accepted(&claimed, 1)], ..Settlement::default() }).await;
    assert_eq!(queue.sums("total").await, (30_000, 0, 0));
}

#[tokio::test]
async fn calls_are_let_through_in_order_as_long_as_there_is_room() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 100)).await;
    queue.enqueue(NewJob::default(), 4).await;
    let jobs = queue.claim_all(worker).await;
    let calls: Vec<OpenCall> = jobs.iter().zip([60, 50, 30, 200]).map(|(job, worst)| call(job, 1, worst)).collect();
    let outcomes = queue.open(&calls).await;
    let refusal = |outcome: &Covered| match outcome {
        Covered::Refused(why) => Some(why.refusal),
        Covered::Open | Covered::Lost => None,
    };
    assert_eq!((&outcomes[0], &outcomes[2]), (&Covered::Open, &Covered::Open));
    assert_eq!(refusal(&outcomes[1]), Some(Shortage::NoRoom { budget: 0, is_moment: true }));
    assert_eq!(refusal(&outcomes[3]), Some(Shortage::NeverFits { budget: 0, worst: NanoUsd(200) }));
    assert_eq!(queue.sums("all").await, (0, 0, 90));
    // A refused call is not noted as under way.
    assert_eq!(queue.count("select count(*) from sluice.inflight where call_number is not null").await, 2);
    queue.is_right().await;
}

#[tokio::test]
async fn what_a_dead_worker_may_have_spent_counts_until_its_report_comes() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 1_000)).await;
    queue.enqueue(NewJob::default(), 1).await;
    let claimed = queue.claim_one(worker).await;
    queue.open(&[call(&claimed, 1, 900)]).await;
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    assert_eq!(queue.sums("all").await, (0, 900, 0));
    queue.is_right().await;
    queue.store.settle(&booked(&claimed, 1, 250)).await.unwrap();
    assert_eq!(queue.sums("all").await, (250, 0, 0));
    queue.is_right().await;
}

#[tokio::test]
async fn a_cancelled_call_counts_as_uncertain_and_a_call_that_was_not_made_as_nothing() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 10_000)).await;
    queue.enqueue(NewJob::default(), 3).await;
    let jobs = queue.claim_all(worker).await;
    queue.open(&jobs.iter().map(|job| call(job, 1, 900)).collect::<Vec<_>>()).await;
    assert_eq!(queue.sums("all").await, (0, 0, 2_700));
    queue.run_with("select sluice.cancel($1)", jobs[0].lease.job.0).await;
    assert_eq!(queue.sums("all").await, (0, 900, 1_800));
    // Given back at once by its worker, …
    queue.store.release(&[(jobs[1].lease, 1)]).await.unwrap();
    queue.store.release(&[(jobs[1].lease, 1)]).await.unwrap();
    assert_eq!(queue.sums("all").await, (0, 900, 900), "once");
    // … or, where the worker could not, after its claim is over.
    queue.settle(Settlement { parks: vec![park(&jobs[2], None)], ..Settlement::default() }).await;
    assert_eq!(queue.sums("all").await, (0, 900, 900));
    queue.run("update sluice.reservation set reserved_at = now() - interval '1 minute'").await;
    queue.store.tend_budgets().await.unwrap();
    assert_eq!(queue.sums("all").await, (0, 900, 0));
    queue.is_right().await;
}

#[tokio::test]
async fn the_same_call_opened_again_is_reserved_once() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 10_000)).await;
    queue.enqueue(NewJob::default(), 1).await;
    let claimed = queue.claim_one(worker).await;
    queue.open(&[call(&claimed, 1, 900)]).await;
    queue.open(&[call(&claimed, 1, 700)]).await;
    assert_eq!(queue.sums("all").await, (0, 0, 700));
    queue.is_right().await;
}

#[tokio::test]
async fn a_new_budget_counts_what_was_booked_in_its_window_and_what_is_under_way() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 2).await;
    let jobs = queue.claim_all(worker).await;
    queue.store.settle(&booked(&jobs[0], 1, 400)).await.unwrap();
    queue.run("update sluice.attempt set ended_at = ended_at").await;
    queue.store.open_calls(&[call(&jobs[1], 1, 900)], 0).await.unwrap().unwrap();
    // A worker that does not know of the budget yet opens nothing.
    queue.set(budget("all", Coverage::Batch("b".into()), 10_000)).await;
    assert_eq!(queue.sums("all").await, (400, 0, 900));
    assert_eq!(queue.store.open_calls(&[call(&jobs[0], 2, 900)], 0).await.unwrap(), None);
    queue.is_right().await;
    queue.store.settle(&booked(&jobs[1], 1, 300)).await.unwrap();
    assert_eq!(queue.sums("all").await, (700, 0, 0));
    queue.is_right().await;
}

#[tokio::test]
async fn a_call_counts_in_the_window_in_which_it_ended_and_is_reserved_until_it_is_booked() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 1_000)).await;
    queue.enqueue(NewJob::default(), 2).await;
    let jobs = queue.claim_all(worker).await;
    queue.open(&[call(&jobs[0], 1, 600), call(&jobs[1], 1, 400)]).await;
    // A day passes: the next steps are in another window than that in which the calls began.
    queue.run("update sluice.budget set window_start = window_start - interval '1 day'").await;
    assert_eq!(queue.sums("all").await, (0, 0, 1_000), "calls under way may end in the new window");
    let yesterday = |mut settlement: Settlement| {
        settlement.attempts[0].ended_at = Timestamp(clock::millis() - 86_400_000);
        settlement
    };
    queue.store.settle(&yesterday(booked(&jobs[0], 1, 500))).await.unwrap();
    assert_eq!(queue.sums("all").await, (0, 0, 400));
    queue.store.settle(&booked(&jobs[1], 1, 300)).await.unwrap();
    assert_eq!(queue.sums("all").await, (300, 0, 0));
    queue.is_right().await;
    let windows = "select count(*) from sluice.budget_window where spent_nanos in (300, 500)";
    assert_eq!(queue.count(windows).await, 2);
}

#[tokio::test]
async fn sums_that_are_wrong_are_found_and_mended() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("all", Coverage::Total, 1_000)).await;
    queue.enqueue(NewJob::default(), 1).await;
    let claimed = queue.claim_one(worker).await;
    queue.open(&[call(&claimed, 1, 600)]).await;
    queue.store.settle(&booked(&claimed, 1, 500)).await.unwrap();
    queue.run("delete from sluice.budget_entry").await;
    let wrong = queue.store.check_budgets(false).await.unwrap();
    assert_eq!((wrong.len(), wrong[0].spent.0, wrong[0].booked.0, wrong[0].reserved.0), (1, 0, 500, 600));
    assert_eq!(queue.store.check_budgets(true).await.unwrap(), wrong);
    queue.is_right().await;
    assert_eq!(queue.sums("all").await, (500, 0, 0));
}

#[tokio::test]
async fn a_removed_budget_leaves_nothing_and_others_keep_what_is_reserved() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.set(budget("a", Coverage::Total, 1_000)).await;
    queue.set(budget("b", Coverage::Project("default".into()), 1_000)).await;
    queue.enqueue(NewJob::default(), 1).await;
    let claimed = queue.claim_one(worker).await;
    queue.open(&[call(&claimed, 1, 600)]).await;
    assert!(queue.store.drop_budget("a").await.unwrap());
    assert!(!queue.store.drop_budget("a").await.unwrap());
    queue.store.settle(&booked(&claimed, 1, 500)).await.unwrap();
    queue.store.tend_budgets().await.unwrap();
    assert_eq!(queue.sums("b").await, (500, 0, 0));
    let left = "select (select count(*) from sluice.budget_window where budget = 'a')
                     + (select count(*) from sluice.budget_entry) + (select count(*) from sluice.reservation)";
    assert_eq!(queue.count(left).await, 0);
    queue.is_right().await;
}

#[tokio::test]
async fn bad_budgets_are_refused_by_sql_with_what_was_expected() {
    let queue = Queue::new().await;
    queue.set(budget("news", Coverage::Project("news".into()), 1_000)).await;
    for (statement, expected) in [
        ("select sluice.set_budget('x', -1)", "budget x: the amount is -1; expected dollars above 0"),
        ("select sluice.set_budget('x', 0)", "budget x: the amount is 0; expected dollars above 0"),
        ("select sluice.set_budget('x', null)", "budget x: expected an amount in dollars"),
        ("select sluice.set_budget('x', 0.0000000001)", "expected at most nine decimals"),
        ("select sluice.set_budget('x', 1e12)", "expected at most 9000000000 dollars"),
        ("select sluice.set_budget('', 1)", "expected the name of a budget"),
        ("select sluice.set_budget('x', 1, 'year')", "per is 'year', a window that never turns"),
        ("select sluice.set_budget('x', 1, null)", "per is null, a window that never turns"),
        ("select sluice.set_budget('x', 1, project => 'p', batch => 'b')", "at most one of project, route, provider"),
        ("select sluice.set_budget('x', 1, project => '')", "expected a name and not an empty text"),
        ("select sluice.set_budget('x', 1, soft => 0)", "soft is 0; expected a share above 0 and up to 1"),
        ("select sluice.set_budget('x', 1, soft => 1.01)", "soft is 1.01; expected a share above 0 and up to 1"),
        ("select sluice.set_budget('x', 1, then_route => 'r')", "expected soft as well"),
        (
            "select sluice.set_budget('x', 1, provider => 'p', soft => 0.5, then_route => 'r')",
            "then_route is for the jobs",
        ),
        ("select sluice.set_budget('x', 1, unpriced => 'maybe')", "unpriced is 'maybe'; expected refuse or allow"),
        ("select sluice.set_budget('x', 1, 'day', project => 'news')", "news covers the same in the same window"),
        ("select sluice.raise_budget('x', 1)", "there is no budget x"),
        ("select sluice.raise_budget('news', -1)", "the amount is -1"),
    ] {
        let error = sqlx::query(statement).execute(&queue.pool).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
    assert_eq!(queue.count("select count(*) from sluice.budget").await, 1);
}
