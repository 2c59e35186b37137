//! Findings on workers, waiting jobs and kept work.

use super::{
    AilingSchedule, Ailment, AlertMail, DoubtedCosts, Finding, FinishedWork, Misbilled, Queue, Seen, ServerState,
    Thresholds, Unqueued, WrongBudget, grouped, span,
};
use crate::domain::NanoUsd;
use crate::domain::counted::counted;
use crate::domain::obstacle::{Hindrance, Obstacle};
use crate::domain::roll::roll;

pub(super) fn connections(server: &ServerState, queue: Option<&Queue>, pooled: bool) -> Finding {
    const CHECK: &str = "connections";
    const WHY: &str = "when all are taken, workers, commands and your application get no new connection";
    const REMEDY: &str = "raise max_connections, lower [database] max_connections, or put a pooler in front";
    let what = format!("{} of {}", server.used_connections, server.connections);
    let share = server.used_connections.saturating_mul(100) / server.connections.max(1);
    let wanted = queue.map_or(0, |queue| queue.workers.saturating_mul(queue.connections_each));
    if share >= 80 {
        return Finding::warning(CHECK, format!("{what} are taken"), WHY, REMEDY).grave(share >= 95);
    }
    if wanted > server.connections && !pooled {
        let what = format!("the workers may want {wanted} of {}", server.connections);
        return Finding::warning(CHECK, what, WHY, REMEDY);
    }
    Finding::ok(CHECK, format!("{what} are taken"))
}

pub(super) fn all(queue: &Queue, thresholds: Thresholds) -> Vec<Finding> {
    vec![workers(queue), held(queue), routes(queue), held_up(queue, thresholds), waiting(queue, thresholds)]
}

fn workers(queue: &Queue) -> Finding {
    match (queue.workers, &queue.oldest) {
        (0, Some(_)) => Finding::bad(
            "workers",
            "none is running, and jobs are ready",
            "no worker works on them",
            "start one: sluice worker",
        ),
        (0, None) if queue.held_up.iter().any(|obstacle| matches!(obstacle.kind, Hindrance::NoWorker { .. })) => {
            Finding::bad(
                "workers",
                "none is running, and jobs wait that could go on",
                "no worker works on them",
                "start one: sluice worker",
            )
        }
        (0, None) if queue.are_all_held => {
            Finding::ok("workers", "none is running, and all that is ready is paused or waits for a budget")
        }
        (0, None) => Finding::ok("workers", "none is running, and nothing is ready"),
        (workers, _) if workers == queue.workers_of_one_batch => Finding::ok(
            "workers",
            format!("{workers} running, each on one batch alone (sluice run): they take no other jobs"),
        ),
        (workers, _) => Finding::ok("workers", format!("{workers} running")),
    }
}

/// Living workers take over within seconds. When they do not, something prevents them.
fn held(queue: &Queue) -> Finding {
    const CHECK: &str = "dead_workers";
    let jobs: i64 = queue.dead.iter().map(|(_, jobs, _)| jobs).sum();
    let Some((worker, _, longest)) = queue.dead.iter().max_by_key(|(_, _, seconds)| *seconds) else {
        return Finding::ok(CHECK, "none holds a job");
    };
    Finding::warning(
        CHECK,
        format!(
            "{} held by workers that are gone, the longest by worker {worker}, for {}",
            counted(jobs, "job is", "jobs are"),
            span(*longest)
        ),
        "no worker works on these jobs until another one takes them over",
        "any running worker does so within seconds: start one, or look into its log",
    )
    .grave(*longest >= 60)
}

fn routes(queue: &Queue) -> Finding {
    const CHECK: &str = "routes";
    if queue.strange_routes.is_empty() {
        return Finding::ok(CHECK, "each route with ready jobs is known here");
    }
    Finding::warning(
        CHECK,
        format!(
            "jobs wait for routes that the configuration here does not have: {}",
            roll(queue.strange_routes.iter().map(String::as_str))
        ),
        "only a worker that has the route works on them",
        "add [routes.NAME] to the configuration and reload the workers (SIGHUP), or sluice route cancel NAME",
    )
}

/// Pauses are forgotten, keys and models mend themselves by no wait, a budget that counts once has no room again, and
/// workers on other batches take no job of this one.
fn held_up(queue: &Queue, thresholds: Thresholds) -> Finding {
    const CHECK: &str = "held_up";
    let Some(first) = queue.held_up.first() else { return Finding::ok(CHECK, "nothing is in the way of jobs") };
    let is_for_a_person = |obstacle: &&Obstacle| {
        let paused = obstacle.pause().map(|pause| pause.since.until(obstacle.as_of));
        let takes_none = match &obstacle.kind {
            // That none is running is a finding of its own.
            Hindrance::NoWorker { others } => *others > 0,
            Hindrance::RouteUnknown { .. } => true,
            _ => false,
        };
        takes_none
            || !obstacle.stuck.is_empty()
            || obstacle.lasting_budget().is_some()
            || paused.is_some_and(|time| time >= thresholds.waiting)
    };
    let told = queue.held_up.iter().find(is_for_a_person);
    let others = match queue.held_up.len().saturating_sub(1) {
        0 => String::new(),
        others => format!("; sluice status has {others} more"),
    };
    let what = format!("{}{others}", told.unwrap_or(first).in_words());
    match told {
        None => Finding::ok(CHECK, what),
        Some(_) => Finding::warning(
            CHECK,
            what,
            "these jobs do not go on by themselves: a person has to do something",
            "sluice status says for each what to do: resume what is paused, mend the key or the name of the model, \
             raise the budget, start a worker that has the route",
        ),
    }
}

fn waiting(queue: &Queue, thresholds: Thresholds) -> Finding {
    const CHECK: &str = "oldest_job";
    match &queue.oldest {
        None => Finding::ok(CHECK, "nothing is ready"),
        Some((route, seconds)) => {
            let what = format!("one of route {route} could have been taken for {}", span(*seconds));
            if u64::try_from(*seconds).unwrap_or(0) < thresholds.waiting.as_secs() {
                return Finding::ok(CHECK, what);
            }
            Finding::warning(
                CHECK,
                what,
                "jobs arrive faster than workers finish them, or a target is shut",
                "sluice status shows the room in the limits, and the targets that are shut; more workers help only \
                 when the present ones are full",
            )
        }
    }
}

pub(super) fn unqueued(unqueued: &Unqueued) -> Finding {
    const CHECK: &str = "unqueued_jobs";
    let looked = looked_from(unqueued.looked_from);
    if unqueued.jobs == 0 {
        return Finding::ok(CHECK, format!("every job that has not ended is in the queue{looked}"));
    }
    Finding::bad(
        CHECK,
        format!(
            "{} in no queue: {}{looked}",
            counted(grouped(unqueued.jobs), "job has not ended and is", "jobs have not ended and are"),
            some_of(unqueued.jobs, &unqueued.some)
        ),
        "no worker ever finds them: they came in while triggers were off (session_replication_role, a logical restore)",
        "sluice doctor --repair puts them into the queue. It leaves those whose idempotency key is another job's, and \
         those with a priority or max_attempts that is out of range: sluice job cancel ends them",
    )
}

pub(super) fn misbilled(misbilled: &Misbilled) -> Finding {
    const CHECK: &str = "result_costs";
    let looked = looked_from(misbilled.looked_from);
    if misbilled.jobs == 0 {
        return Finding::ok(CHECK, format!("every result costs what its calls cost{looked}"));
    }
    Finding::warning(
        CHECK,
        format!(
            "{}: {}{looked}",
            counted(
                grouped(misbilled.jobs),
                "result costs something else than its calls",
                "results cost something else than their calls"
            ),
            some_of(misbilled.jobs, &misbilled.some)
        ),
        "a worker of an older version booked a call after the job had ended; the ledger and the reports are right",
        "sluice doctor --repair corrects these results",
    )
}

pub(super) fn budgets(wrong: &[WrongBudget]) -> Finding {
    const CHECK: &str = "budgets";
    if wrong.is_empty() {
        return Finding::ok(CHECK, "every budget says what the ledger says");
    }
    let told = wrong.iter().map(|it| {
        format!(
            "{}: {} spent, {} on the ledger; {} and {} uncertain; {} reserved, {} under way",
            it.name, it.spent, it.booked, it.uncertain, it.booked_uncertain, it.reserved, it.under_way
        )
    });
    Finding::warning(
        CHECK,
        told.collect::<Vec<_>>().join("; "),
        "a worker of an older version booked calls, which counts nothing into budgets; so does a change by hand",
        "end such workers, and sluice doctor --repair corrects the budgets",
    )
}

pub(super) fn budget_settings(faults: &[String]) -> Finding {
    const CHECK: &str = "budget_settings";
    if faults.is_empty() {
        return Finding::ok(CHECK, "budgets do not contradict each other, and name what there is");
    }
    Finding::warning(
        CHECK,
        faults.join("; "),
        "such a budget does less than it seems to: it was set by SQL, or the configuration has changed since",
        "set it anew (sluice budget set), raise or lower one of two that contradict, or remove it",
    )
}

/// Schedules that do not do what they should.
pub(super) fn schedules(ailing: &[AilingSchedule]) -> Finding {
    const CHECK: &str = "schedules";
    if ailing.is_empty() {
        return Finding::ok(CHECK, "each has a worker, and no last tick has failed");
    }
    let words = |AilingSchedule { name, ails }: &AilingSchedule| match ails {
        Ailment::Failed(reason) => format!("{name}: its last tick has failed ({reason})"),
        Ailment::Retrying(reason) => format!("{name}: its last tick is tried again ({reason})"),
        Ailment::Unseen(seconds) => format!("{name}: no worker has had it for {}", span(*seconds)),
        Ailment::NoRoute(route) => format!("{name}: there is no route {route}"),
    };
    let told: Vec<String> = ailing.iter().map(words).collect();
    let is_bad = ailing.iter().any(|schedule| matches!(schedule.ails, Ailment::Failed(_)));
    Finding::warning(
        CHECK,
        told.join("; "),
        "a batch that a schedule has not enqueued is nowhere: no job waits for it, and no job fails",
        "`sluice schedule list` shows them; mend the source and run it by hand (sluice schedule run NAME), or start a \
         worker that has it",
    )
    .grave(is_bad)
}

pub(super) fn alert_messages(mail: &AlertMail) -> Finding {
    const CHECK: &str = "alert_messages";
    let receivers = roll(mail.receivers.iter().map(String::as_str));
    let what = match (mail.given_up, mail.late) {
        (0, 0) => return Finding::ok(CHECK, "every message of an alert has reached its receiver"),
        (0, late) => {
            let late = counted(late, "message waits", "messages wait");
            format!("{late} for more than ten minutes, for {receivers}")
        }
        (given_up, late) => {
            let given_up = counted(given_up, "message was", "messages were");
            format!("{given_up} given up within the last day, and {late} wait, for {receivers}")
        }
    };
    Finding::warning(
        CHECK,
        what,
        "an operator is not told of what goes wrong",
        "sluice alert test NAME says what the receiver answers; correct [alerts.receivers] and reload the workers",
    )
}

/// Whether the costs of the last day are known, and are those that the providers say.
pub(super) fn costs(doubted: &Seen<Vec<DoubtedCosts>>) -> [Finding; 2] {
    const UNKNOWN: &str = "unknown_prices";
    const DIFFERING: &str = "reported_costs";
    let doubted = match doubted {
        Ok(doubted) => doubted,
        Err(reason) => return [UNKNOWN, DIFFERING].map(|check| Finding::unseen(check, reason)),
    };
    let targets = |calls: fn(&DoubtedCosts) -> i64, words: &dyn Fn(&DoubtedCosts) -> String| {
        let found: Vec<&DoubtedCosts> = doubted.iter().filter(|doubted| calls(doubted) > 0).collect();
        let mut named: Vec<String> = found.iter().take(NAMED_TARGETS).map(|found| words(found)).collect();
        if found.len() > NAMED_TARGETS {
            named.push(format!("{} more targets", found.len() - NAMED_TARGETS));
        }
        named.join("; ")
    };
    let unknown = targets(|doubted| doubted.unpriced, &|doubted| {
        format!("{} of {}", counted(grouped(doubted.unpriced), "call", "calls"), doubted.target)
    });
    let differing = targets(|doubted| doubted.differing, &|doubted| {
        let (more, word) = match doubted.more {
            NanoUsd(more) if more < 0 => (NanoUsd(more.saturating_neg()), "less"),
            more => (more, "more"),
        };
        let calls = counted(grouped(doubted.differing), "call", "calls");
        format!("{calls} of {}, together {more} {word} than computed", doubted.target)
    });
    let unknown = if unknown.is_empty() {
        Finding::ok(UNKNOWN, "every call of the last 24 hours has a price")
    } else {
        Finding::warning(
            UNKNOWN,
            format!("the cost is unknown of {unknown}"),
            "their cost is NULL, and no sum has it",
            "give the model a price ([models] in the configuration, or `sluice prices update`), then `sluice reprice`; \
             where it has one, another model or tier answered, which needs it (`sluice report cost` says more)",
        )
    };
    let differing = if differing.is_empty() {
        Finding::ok(DIFFERING, "no provider said another cost than its price comes to in the last 24 hours")
    } else {
        Finding::warning(
            DIFFERING,
            format!("providers say another cost than was computed: {differing}"),
            "what the provider says is booked; estimates and budgets go by the price",
            "correct the price ([models], or `sluice prices update`); `sluice explain JOB` shows both figures",
        )
    };
    [unknown, differing]
}

/// How many targets a finding names.
const NAMED_TARGETS: usize = 3;

/// How far a look at the newest jobs came, in words; empty when it saw all.
fn looked_from(first: Option<i64>) -> String {
    first.map_or_else(String::new, |first| format!(" (looked at jobs from {first} on)"))
}

/// The first few of so many jobs.
fn some_of(jobs: i64, some: &[i64]) -> String {
    let named: Vec<String> = some.iter().map(ToString::to_string).collect();
    let more = if usize::try_from(jobs).is_ok_and(|jobs| jobs > some.len()) { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

pub(super) fn absurd_sums(sums: &[String]) -> Finding {
    const CHECK: &str = "absurd_sums";
    if sums.is_empty() {
        return Finding::ok(CHECK, "no sum is larger than its calls can have made it");
    }
    Finding::warning(
        CHECK,
        format!("more tokens or money than such calls can have: {}", listed(sums)),
        "a worker of an older version has booked what a provider said, however absurd; reports show it",
        "upgrade the workers, which do not believe such counts, and look at that provider in sluice.attempts",
    )
}

/// The first few names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.get(..SHOWN).unwrap_or(names).join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

pub(super) fn retention(kept: &FinishedWork) -> Finding {
    const CHECK: &str = "retention";
    /// `[retention]` keeps eight and a bit.
    const MANY: i64 = 24;
    /// A drop is tried every minute.
    const LONG: i64 = 3600;
    let what =
        format!("{} past partitions are kept, {} of them may go, {} were dropped", kept.past, kept.due, kept.dropped);
    if kept.configured && !kept.dependents.is_empty() {
        return Finding::warning(
            CHECK,
            format!("{what}; objects outside Sluice depend on their tables or keys: {}", listed(&kept.dependents)),
            "a partition that something depends on is never dropped, so the disk fills; its idempotency keys stay too",
            "drop a foreign key (keep the job's number without one); let views and functions read sluice.jobs, \
             sluice.results or sluice.attempts, which no partition is needed for",
        );
    }
    if let (true, Some((partition, seconds))) = (kept.configured, kept.stuck.filter(|(_, seconds)| *seconds >= LONG)) {
        return Finding::warning(
            CHECK,
            format!("{what}; partition {partition} has been about to be dropped for {}", span(seconds)),
            "the disk fills, and each try holds others up for a moment",
            "transactions on sluice.job that stay open are in the way (oldest_snapshot, idle_in_transaction), or no \
             worker has [retention]",
        );
    }
    if let (true, Some(seconds)) = (kept.configured, kept.late.filter(|seconds| *seconds >= LONG)) {
        return Finding::warning(
            CHECK,
            format!("{what}; new jobs should have gone into another partition for {}", span(seconds)),
            "the present one can be dropped only as a whole",
            "transactions that enqueue and stay open are in the way (idle_in_transaction), or no worker has \
             [retention]",
        );
    }
    if let (true, Some((partition, job))) = (kept.configured, kept.held.first()) {
        return Finding::warning(
            CHECK,
            format!("{what}; partition {partition} is kept by job {job}, which has not ended"),
            "a partition of ten million numbers goes as a whole, when its last job has ended",
            format!("sluice explain {job} says what it waits for; cancel it if its answer is not needed"),
        );
    }
    if kept.past >= MANY {
        return Finding::warning(
            CHECK,
            what,
            "statements look into more tables, and the disk fills",
            if kept.configured {
                "long transactions may keep them from being dropped: see oldest_snapshot and idle_in_transaction"
            } else {
                "set [retention] finished, such as \"90d\""
            },
        );
    }
    Finding::ok(
        CHECK,
        if kept.configured {
            what
        } else {
            format!("finished work is kept for ever: {} past partitions", grouped(kept.past))
        },
    )
}
