//! Budgets under any interleaving: processes that know of old budgets, reservations, reports, late reports, crashes,
//! claims that end, raises, removals and windows that turn, each as the statements that workers run, in an order that
//! is drawn.
//!
//! The spent, the uncertain and the reserved amount together are at most the limit whenever a call is let through, and
//! nothing else adds to that sum. So at no time more is spent than the limit, but for what the ledger has as uncertain.

use super::statements::{booked, budget, call};
use crate::support::clock;
use crate::support::queue::{NewJob, Queue, park, success};
use sluice::domain::budget::{BudgetStanding, Coverage};
use sluice::domain::{JobId, NanoUsd, Timestamp};
use sluice::store::budget::{Covered, Look};
use sluice::store::claim::Claimed;
use sluice::store::settle::Settlement;

const STEPS: usize = 250;
const DAY: i64 = 86_400_000;

/// Draws numbers, always the same ones for a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn nanos(&mut self, most: i64) -> i64 {
        i64::try_from(self.below(u64::try_from(most).unwrap() + 1)).unwrap()
    }

    fn one_of<T>(&mut self, some: &mut Vec<T>) -> Option<T> {
        if some.is_empty() {
            return None;
        }
        let place = usize::try_from(self.below(u64::try_from(some.len()).unwrap())).unwrap();
        Some(some.swap_remove(place))
    }
}

/// A call that is under way, or that was when its worker died.
struct Call {
    claimed: Claimed,
    number: i16,
    worst: i64,
    process: usize,
    /// How many windows ago it began, or was lost.
    days: i64,
}

/// A process: its worker's number, and the budgets that it knows of.
struct Process {
    worker: i64,
    look: Look,
    idle: Vec<Claimed>,
}

struct World {
    queue: Queue,
    draw: Draw,
    processes: Vec<Process>,
    under_way: Vec<Call>,
    lost: Vec<Call>,
    has_project_budget: bool,
}

/// What a step may do to the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A call was let through.
    Granted,
    /// The limits or the budgets themselves changed.
    Changed,
    /// Anything else.
    Other,
}

impl World {
    async fn new(seed: u64) -> Self {
        let queue = Queue::new().await;
        let mut processes = Vec::new();
        for _ in 0..3 {
            processes.push(Process { worker: queue.worker().await, look: Look::default(), idle: Vec::new() });
        }
        queue.store.set_budget(&budget("all", Coverage::Total, 400)).await.unwrap();
        let (under_way, lost) = (Vec::new(), Vec::new());
        Self { queue, draw: Draw(seed), processes, under_way, lost, has_project_budget: false }
    }

    fn process(&mut self) -> usize {
        usize::try_from(self.draw.below(3)).unwrap()
    }

    /// A worker asks for a call, by what it knows of budgets.
    async fn ask(&mut self) -> Kind {
        let index = self.process();
        let project = if self.draw.below(2) == 0 { "p" } else { "q" };
        let worst = 1 + self.draw.nanos(60);
        let process = &mut self.processes[index];
        if process.idle.is_empty() {
            self.queue.enqueue(NewJob { project, ..NewJob::default() }, 1).await;
            process.idle = self.queue.claim_all(process.worker).await;
        }
        let Some(claimed) = process.idle.pop() else { return Kind::Other };
        let number = claimed.attempts + 1;
        let asked = call(&claimed, number, worst);
        let opened = if process.look.may_cover(&asked) {
            let opened = self.queue.store.open_covered_calls(&[asked], false, &process.look).await.unwrap();
            opened.map(|opened| opened.outcomes[0] == Covered::Open)
        } else {
            let opened = self.queue.store.open_calls(&[asked], process.look.version).await.unwrap();
            opened.map(|opened| !opened.is_empty())
        };
        match opened {
            Some(true) => {
                self.under_way.push(Call { claimed, number, worst, process: index, days: 0 });
                return Kind::Granted;
            }
            Some(false) => {}
            None => process.look = self.queue.store.budgets().await.unwrap(),
        }
        process.idle.push(claimed);
        Kind::Other
    }

    /// A call ends; its report may come after its window has turned.
    async fn end(&mut self) {
        let Some(ended) = self.draw.one_of(&mut self.under_way) else { return };
        let cost = self.draw.nanos(ended.worst);
        let days = self.draw.nanos(ended.days);
        let mut settlement = settled(&ended, cost, days);
        if self.draw.below(2) == 0 {
            settlement.endings = vec![success(&ended.claimed)];
        } else {
            settlement.parks = vec![park(&ended.claimed, None)];
        }
        self.queue.settle(settlement).await;
        self.queue.pass_time().await;
    }

    /// A call that was opened is not made: its worker gives its money back, or ends its claim without that.
    async fn not_made(&mut self, is_given_back: bool) {
        let Some(unmade) = self.draw.one_of(&mut self.under_way) else { return };
        if is_given_back {
            self.queue.store.release(&[(unmade.claimed.lease, unmade.number)]).await.unwrap();
        }
        let parks = vec![park(&unmade.claimed, None)];
        self.queue.settle(Settlement { parks, ..Settlement::default() }).await;
    }

    /// A process dies in the midst of its calls, and another one finds that.
    async fn die(&mut self) {
        let index = self.process();
        let worker = self.queue.worker().await;
        let dead =
            std::mem::replace(&mut self.processes[index], Process { worker, look: Look::default(), idle: Vec::new() });
        self.queue.silence(dead.worker).await;
        self.queue.store.rescue(50).await.unwrap();
        let (of_the_dead, others) = std::mem::take(&mut self.under_way).into_iter().partition(|it| it.process == index);
        self.under_way = others;
        self.lost.extend(Vec::<Call>::into_iter(of_the_dead).map(|lost| Call { days: 0, ..lost }));
    }

    async fn cancel(&mut self) {
        let Some(cancelled) = self.draw.one_of(&mut self.under_way) else { return };
        self.queue.store.cancel_job(JobId(cancelled.claimed.lease.job.0)).await.unwrap();
        self.lost.push(Call { days: 0, ..cancelled });
    }

    /// The report of a call that was given up comes after all. It ended before that was noticed.
    async fn found(&mut self) {
        let Some(found) = self.draw.one_of(&mut self.lost) else { return };
        let cost = self.draw.nanos(found.worst);
        self.queue.settle(settled(&found, cost, found.days)).await;
    }

    async fn change(&mut self) {
        let name = if self.draw.below(2) == 0 { "all" } else { "project" };
        let limit = NanoUsd(60 + self.draw.nanos(400));
        match self.draw.below(4) {
            _ if name == "project" && !self.has_project_budget => {
                let set = budget("project", Coverage::Project("p".into()), limit.0);
                self.has_project_budget = self.queue.store.set_budget(&set).await.unwrap();
            }
            0 if name == "project" => {
                self.has_project_budget = !self.queue.store.drop_budget("project").await.unwrap();
            }
            _ => {
                self.queue.store.raise_budget(name, limit).await.unwrap();
            }
        }
    }

    /// A day passes.
    async fn turn(&mut self) {
        self.queue
            .run(
                "update sluice.budget set window_start = window_start - interval '1 day';
                 update sluice.budget_window set starts_at = starts_at - interval '100000 days';
                 update sluice.budget_window set starts_at = starts_at + interval '99999 days';
                 update sluice.budget_entry set starts_at = starts_at - interval '1 day';
                 update sluice.attempt set started_at = started_at - interval '1 day',
                                           ended_at = ended_at - interval '1 day';
                 update sluice.tally set hour = hour - interval '1 day'",
            )
            .await;
        self.under_way.iter_mut().chain(&mut self.lost).for_each(|call| call.days += 1);
    }

    async fn tend(&self) {
        self.queue.run("update sluice.reservation set reserved_at = now() - interval '1 minute'").await;
        self.queue.store.tend_budgets().await.unwrap();
    }

    async fn step(&mut self) -> Kind {
        match self.draw.below(40) {
            0..=15 => return self.ask().await,
            16..=23 => self.end().await,
            24..=25 => self.not_made(true).await,
            26 => self.not_made(false).await,
            27..=28 => self.die().await,
            29..=30 => self.cancel().await,
            31..=33 => self.found().await,
            34..=36 => {
                self.change().await;
                return Kind::Changed;
            }
            37 => self.turn().await,
            _ => self.tend().await,
        }
        Kind::Other
    }

    async fn standings(&self) -> Vec<BudgetStanding> {
        self.queue.store.budgets().await.unwrap().budgets.0
    }
}

/// A call that has ended so many days ago, at this cost.
fn settled(call: &Call, cost: i64, days: i64) -> Settlement {
    let mut settlement = booked(&call.claimed, call.number, cost);
    settlement.attempts[0].ended_at = Timestamp(clock::millis() - days * DAY);
    settlement.attempts[0].started_at = settlement.attempts[0].ended_at;
    settlement
}

fn in_all(standing: &BudgetStanding) -> i64 {
    (standing.used() + standing.reserved).0
}

/// Walks; `fault`: statements that break a rule of budgets first.
async fn walk(seed: u64, fault: &'static str) {
    let mut world = World::new(seed).await;
    world.queue.run(fault).await;
    let mut before = world.standings().await;
    let (mut granted, mut refused) = (0, 0);
    for number in 0..STEPS {
        let kind = world.step().await;
        let now = world.standings().await;
        assert_eq!(world.queue.store.check_budgets(false).await.unwrap(), [], "seed {seed}, step {number}: the books");
        for standing in &now {
            let told = format!("seed {seed}, step {number}, {kind:?}: {standing:?}");
            let was = before.iter().find(|was| was.budget.name == standing.budget.name);
            match (kind, was) {
                (Kind::Granted, Some(was)) if in_all(was) < in_all(standing) => {
                    assert!(in_all(standing) <= standing.budget.limit.0, "{told}");
                }
                (Kind::Changed, _) | (_, None) => {}
                (_, Some(was)) => assert!(in_all(standing) <= in_all(was), "{told}; it was {was:?}"),
            }
        }
        match kind {
            Kind::Granted => granted += 1,
            Kind::Other | Kind::Changed => refused += 1,
        }
        before = now;
    }
    assert!(granted > STEPS / 10 && refused > STEPS / 10, "seed {seed}: {granted} calls, {refused} other steps");
    // When all calls have ended nothing is reserved, and all that is left can be spent.
    while !world.under_way.is_empty() {
        world.end().await;
    }
    world.tend().await;
    assert!(world.standings().await.iter().all(|standing| standing.reserved == NanoUsd::ZERO), "seed {seed}");
}

#[tokio::test]
async fn no_budget_is_overshot_under_any_interleaving() {
    for seed in [1, 2] {
        walk(seed, "").await;
    }
}

#[tokio::test]
async fn no_budget_is_overshot_under_any_other_interleaving() {
    for seed in [3, 4] {
        walk(seed, "").await;
    }
}

/// What a walk would not find says nothing: each of these rules is broken in turn.
#[tokio::test]
async fn a_walk_finds_a_rule_that_is_broken() {
    for (rule, fault) in [
        (
            "what is given back is given back once",
            "create or replace function sluice.release_reservations(jobs bigint[], fences bigint[],
                                                                    numbers smallint[]) returns void
                 language sql as $$
                 with gone as (
                     delete from sluice.reservation r using unnest(jobs, fences, numbers) c(job_id, fence, number)
                      where r.job_id = c.job_id and r.fence = c.fence and (c.number is null or r.number = c.number)
                     returning r.budgets, r.nanos
                 )
                 insert into sluice.budget_entry (budget, reserved_nanos)
                 select u.name, -2 * sum(g.nanos) from gone g cross join lateral unnest(g.budgets) u(name)
                  group by u.name
                 $$",
        ),
        (
            "a process that knows of old budgets opens nothing",
            "create function public.stays() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger stays before update on sluice.budget_version
                 for each row execute function public.stays()",
        ),
        (
            "what is reserved stays reserved when the window turns",
            "create function public.forgets() returns trigger language plpgsql as $$
                 begin new.reserved_nanos := 0; return new; end $$;
             create trigger forgets before update on sluice.budget
                 for each row when (new.window_start > old.window_start) execute function public.forgets()",
        ),
        (
            "what a dead worker may have spent counts",
            "create function public.is_nothing() returns trigger language plpgsql as $$
                 begin new.uncertain_nanos := 0; return new; end $$;
             create trigger is_nothing before insert on sluice.budget_entry
                 for each row when (new.uncertain_nanos > 0) execute function public.is_nothing()",
        ),
    ] {
        let walked = tokio::spawn(walk(1, fault)).await;
        assert!(walked.is_err_and(|error| error.is_panic()), "{rule}: the walk has found nothing");
    }
}
