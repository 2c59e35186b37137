//! Whether the database has gone back in time, and the loss that this caused.

use super::{Finding, Seen, grouped, span};
use crate::domain::ErrorClass;
use crate::domain::abandonment::Abandonment;
use crate::domain::counted::counted;
use crate::domain::timeline::{Change, History};

/// How many seconds a change is worth mentioning.
const OF_INTEREST: i64 = 7 * 86_400;

pub(super) fn all(history: &Seen<History>) -> Vec<Finding> {
    match history {
        Ok(history) => {
            let mut findings = vec![timeline(history)];
            findings.extend(lost_calls(history));
            findings
        }
        Err(reason) => vec![Finding::unseen("timeline", reason)],
    }
}

fn timeline(history: &History) -> Finding {
    const CHECK: &str = "timeline";
    if history.is_news {
        return Finding::warning(
            CHECK,
            "the database is on another timeline, or another database, than a worker has noted last",
            "new jobs may get the numbers of lost ones",
            "a worker that runs notes it within seconds; without one, run sluice migrate before anything is enqueued",
        );
    }
    if !history.is_readable {
        return Finding::unseen(
            CHECK,
            "the owner of the schema may not call pg_control_system, pg_current_wal_flush_lsn or pg_walfile_name, so \
             that a promotion is noticed only by what it has lost; grant execute on them to that login",
        );
    }
    let Some(turn) = &history.turn else {
        return Finding::ok(CHECK, "no worker has noted one yet");
    };
    if turn.change == Change::First || turn.age > OF_INTEREST {
        let which = if history.is_standby { "a standby, of".to_owned() } else { "the same since".to_owned() };
        return Finding::ok(CHECK, format!("{which} {}", turn.began_at));
    }
    if turn.lost_to.is_none() && matches!(turn.change, Change::Cluster | Change::Database | Change::Tables) {
        // An import as well as a restore: no worker has found a commit of its own gone.
        return Finding::warning(
            CHECK,
            format!("{} ago (noticed at {}) {}", span(turn.age), turn.began_at, turn.in_words()),
            "what was done in the original after its export is not here; after a move with the workers stopped, \
             nothing is missing",
            format!(
                "only if the original went on after the export: enqueue again what your application has enqueued \
                 since, with the same idempotency keys, and repeat its pauses and cancellations. New jobs are numbered \
                 from {} on. Never work on the original as well",
                grouped(turn.next_job.unwrap_or(0))
            ),
        );
    }
    let is_loss = turn.lost_to.is_some() || turn.change != Change::Timeline;
    Finding::warning(
        CHECK,
        format!("{} ago (noticed at {}) {}", span(turn.age), turn.began_at, turn.in_words()),
        if is_loss {
            "jobs, answers, pauses and cancellations of that time are gone with what they cost"
        } else {
            "with an asynchronous standby the last commits may be gone although they were confirmed"
        },
        format!(
            "enqueue again what your application has enqueued since then, with the same idempotency keys; repeat its \
             pauses and cancellations. Jobs with numbers below {} that it has noted may be gone. Never let the former \
             server come back as a primary",
            grouped(turn.next_job.unwrap_or(0))
        ),
    )
}

fn lost_calls(history: &History) -> Option<Finding> {
    const CHECK: &str = "lost_calls";
    let mut parts = Vec::new();
    if history.stray.calls > 0 {
        parts.push(format!(
            "{} for jobs that are not in the database any more ({})",
            counted(grouped(history.stray.calls), "call was", "calls were"),
            history.stray.money()
        ));
    }
    if history.again.calls > 0 {
        parts.push(format!(
            "{} ({})",
            counted(
                grouped(history.again.calls),
                "call was answered and its outcome lost, so its job is called for again",
                "calls were answered and their outcomes lost, so their jobs are called for again"
            ),
            history.again.money()
        ));
    }
    if history.late.calls > 0 && !parts.is_empty() {
        parts.push(format!(
            "{} when the job had been answered again ({})",
            counted(grouped(history.late.calls), "answer came", "answers came"),
            history.late.money()
        ));
    }
    (!parts.is_empty()).then(|| {
        Finding::warning(
            CHECK,
            parts.join("; "),
            "the database has lost what it had confirmed, and this was paid for in vain",
            format!(
                "sluice report waste --by class has it as {}: {}, {}, {}, {}; an answer of a lost job is kept in \
                 sluice.attempt (round = -1)",
                ErrorClass::Abandoned,
                Abandonment::OtherJob,
                Abandonment::LostJob,
                Abandonment::LostAnswer,
                Abandonment::Late
            ),
        )
    })
}
