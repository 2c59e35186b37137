//! Everything that keeps the server from removing dead rows: transactions, prepared transactions, slots, standbys.

use super::{Finding, ReplicationSlot, Seen, Session, Thresholds, grouped, seen, size, span};

const WHY: &str = "rows that the queue is done with stay until it is over, and each claim has to read past them";
/// From here on a slot or a standby holds back a table that turns over noticeably, …
const MANY_TRANSACTIONS: i64 = 1_000_000;
/// … and from here on badly.
const TOO_MANY_TRANSACTIONS: i64 = 20_000_000;
const MUCH_WAL: i64 = 1 << 30;
const TOO_MUCH_WAL: i64 = 20 << 30;

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The oldest snapshot, and sessions that sit in a transaction and do nothing.
pub(super) fn transactions(all: &Seen<Vec<Session>>, sees_all: bool, thresholds: Thresholds) -> Vec<Finding> {
    let limit = seconds(thresholds.transaction);
    let judge = |check, judge: &dyn Fn(&[Session]) -> Finding| {
        let finding = seen(check, all, |sessions: &Vec<Session>| judge(sessions));
        // The sessions of others are hidden from most logins, so seeing none proves nothing.
        if finding.severity == super::Severity::Ok && !sees_all {
            return Finding {
                remedy: "grant pg_read_all_stats to this login (pg_monitor includes it)".to_owned(),
                ..Finding::unseen(check, "this login sees only its own sessions")
            };
        }
        finding
    };
    vec![
        judge("oldest_snapshot", &|sessions| oldest_snapshot(sessions, limit)),
        judge("idle_in_transaction", &|sessions| idle(sessions, limit)),
    ]
}

fn name(session: &Session) -> String {
    if session.application.is_empty() {
        format!("process {}", session.pid)
    } else {
        format!("process {} ({})", session.pid, session.application)
    }
}

fn oldest_snapshot(sessions: &[Session], limit: i64) -> Finding {
    const CHECK: &str = "oldest_snapshot";
    let Some(oldest) = sessions.iter().filter(|session| session.holds_rows).max_by_key(|session| session.seconds)
    else {
        return Finding::ok(CHECK, "no other transaction holds one");
    };
    let what = format!("{} has held one for {}, {}", name(oldest), span(oldest.seconds), oldest.state);
    if oldest.seconds < limit {
        return Finding::ok(CHECK, what);
    }
    Finding::warning(
        CHECK,
        what,
        WHY,
        format!("end it: select pg_terminate_backend({}), or let its author commit sooner", oldest.pid),
    )
    .grave(oldest.seconds >= limit.saturating_mul(12))
}

fn idle(sessions: &[Session], limit: i64) -> Finding {
    const CHECK: &str = "idle_in_transaction";
    let idle = || {
        let idle = sessions.iter().filter(|session| session.state.starts_with("idle in transaction"));
        idle.filter(|session| session.state_seconds >= limit)
    };
    let Some(longest) = idle().max_by_key(|session| session.state_seconds) else {
        return Finding::ok(CHECK, "no session sits in a transaction and does nothing");
    };
    Finding::warning(
        CHECK,
        format!(
            "{} sessions sit in a transaction and do nothing, {} for {}",
            idle().count(),
            name(longest),
            span(longest.state_seconds)
        ),
        "the locks that it holds make migrations and retention wait; with a snapshot, dead rows stay too",
        "set idle_in_transaction_session_timeout for that login, and end it with pg_terminate_backend",
    )
    .grave(longest.state_seconds >= limit.saturating_mul(12))
}

pub(super) fn prepared(all: &[(String, i64)], thresholds: Thresholds) -> Finding {
    const CHECK: &str = "prepared_transactions";
    let limit = seconds(thresholds.transaction);
    match all.iter().max_by_key(|(_, age)| *age) {
        None => Finding::ok(CHECK, "none"),
        Some((name, age)) if *age < limit => Finding::ok(CHECK, format!("{name:?}, for {}", span(*age))),
        Some((name, age)) => Finding::warning(
            CHECK,
            format!("{}, the oldest {name:?} for {}", all.len(), span(*age)),
            WHY,
            format!("finish it: commit prepared '{0}' or rollback prepared '{0}'", name.replace('\'', "''")),
        )
        .grave(*age >= limit.saturating_mul(12)),
    }
}

pub(super) fn slots(all: &[ReplicationSlot]) -> Finding {
    const CHECK: &str = "replication_slots";
    let is_bad =
        |slot: &ReplicationSlot| slot.row_age.unwrap_or(0) >= TOO_MANY_TRANSACTIONS || slot.bytes >= TOO_MUCH_WAL;
    let hurts = |slot: &ReplicationSlot| {
        !slot.active || slot.row_age.unwrap_or(0) >= MANY_TRANSACTIONS || slot.bytes >= MUCH_WAL
    };
    let Some(worst) = all.iter().filter(|slot| hurts(slot)).max_by_key(|slot| (is_bad(slot), slot.bytes)) else {
        return Finding::ok(CHECK, format!("{}, all of them read", all.len()));
    };
    let reader = if worst.active { "is behind" } else { "has no reader" };
    let rows = worst.row_age.map(|age| format!(" and dead rows of {} transactions", grouped(age))).unwrap_or_default();
    Finding::warning(
        CHECK,
        format!("{:?} {reader} and keeps {} of WAL{rows}", worst.name, size(worst.bytes)),
        "what it keeps grows until it is read: the disk fills, and dead rows stay",
        format!("bring its reader back, or drop it: select pg_drop_replication_slot('{}')", worst.name),
    )
    .grave(is_bad(worst))
}

pub(super) fn standbys(all: &[(String, i64)]) -> Finding {
    const CHECK: &str = "standbys";
    match all.iter().max_by_key(|(_, age)| *age) {
        None => Finding::ok(CHECK, "none that keeps rows"),
        Some((name, age)) if *age < MANY_TRANSACTIONS => {
            Finding::ok(CHECK, format!("{name:?} keeps rows of {} transactions", grouped(*age)))
        }
        Some((name, age)) => Finding::warning(
            CHECK,
            format!("{name:?} keeps rows of {} transactions (hot_standby_feedback)", grouped(*age)),
            WHY,
            "end the long query there, or set max_standby_streaming_delay in place of hot_standby_feedback",
        )
        .grave(*age >= TOO_MANY_TRANSACTIONS),
    }
}
