//! What hurts the queue: facts about the database and its users, and the findings that follow from them.

mod database;
mod queue;
mod roles;
mod sessions;
#[cfg(test)]
mod tests;
mod timeline;

pub use roles::Roles;

use super::NanoUsd;
use super::obstacle::Obstacle;
use super::timeline::History;
use std::time::Duration;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well.
    Ok,
    /// It could not be examined.
    Unseen,
    /// It will hurt, or hurts a little.
    Warning,
    /// It hurts.
    Bad,
}

impl Severity {
    /// The name of the severity.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check, which stays the same.
    pub check: &'static str,
    pub severity: Severity,
    /// The finding.
    pub what: String,
    /// Why it matters; empty when all is well.
    pub why: &'static str,
    /// The remedy; empty when all is well.
    pub remedy: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, what: what.into(), why: "", remedy: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, what: what.into(), why, remedy: remedy.into() }
    }

    fn bad(check: &'static str, what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Bad, ..Self::warning(check, what, why, remedy) }
    }

    fn unseen(check: &'static str, reason: &str) -> Self {
        Self {
            check,
            severity: Severity::Unseen,
            what: format!("could not be looked at: {reason}"),
            why: "",
            remedy: String::new(),
        }
    }

    /// `Bad` or `Warning`.
    fn grave(self, is_bad: bool) -> Self {
        if is_bad { Self { severity: Severity::Bad, ..self } } else { self }
    }
}

/// A fact as it was read, or the reason why it could not be read.
pub type Seen<T> = Result<T, String>;

/// The thresholds of warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A transaction that is open for longer is a warning; one that is open twelve times as long is bad.
    pub transaction: Duration,
    /// A job that could be worked on is a warning once it has waited for longer.
    pub waiting: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { transaction: Duration::from_mins(5), waiting: Duration::from_hours(1) }
    }
}

/// All facts that were read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether there is a pooler between this process and Postgres.
    pub pooled: bool,
    /// Whether it is the private Postgres.
    pub private: bool,
    pub schema: Seen<SchemaState>,
    /// The server and its settings.
    pub server: Seen<ServerState>,
    /// How far the server's clock is ahead of this machine's, in milliseconds, and how far off that may be.
    pub clock: Seen<(i64, i64)>,
    /// Transactions that are open.
    pub sessions: Seen<Vec<Session>>,
    /// Whether `sessions` includes those of other logins.
    pub sees_all_sessions: bool,
    /// Prepared transactions: name and age in seconds.
    pub prepared: Seen<Vec<(String, i64)>>,
    /// Replication slots.
    pub slots: Seen<Vec<ReplicationSlot>>,
    /// Standbys that ask the server to keep old rows for them: name, and how many transactions back.
    pub standbys: Seen<Vec<(String, i64)>>,
    /// Tables whose rows change all day.
    pub tables: Seen<Vec<ChurningTable>>,
    /// Tables that autovacuum is told to leave alone.
    pub vacuum_off: Seen<Vec<String>>,
    /// Indexes that the migrations made and that are not there, and indexes that cannot be used.
    pub indexes: Seen<(Vec<String>, Vec<String>)>,
    /// Whether the trigger that puts new jobs into the queue exists and fires; `None`: it does not exist.
    pub trigger: Seen<Option<bool>>,
    pub partitions: Seen<Partitions>,
    /// The plans of the statements that the queue depends on.
    pub plans: Seen<Vec<StatementPlan>>,
    pub queue: Seen<Queue>,
    /// Jobs that are in no queue.
    pub unqueued: Seen<Unqueued>,
    /// Results whose cost is not that of their calls.
    pub misbilled: Seen<Misbilled>,
    /// Budgets whose sums are not those of the books.
    pub budgets: Seen<Vec<WrongBudget>>,
    /// The faults of budgets by the configuration, each with the budget's name.
    pub budget_faults: Seen<Vec<String>>,
    /// Schedules that do not do what they should.
    pub schedules: Seen<Vec<AilingSchedule>>,
    /// Targets with calls of the last day whose cost is in doubt.
    pub doubted_costs: Seen<Vec<DoubtedCosts>>,
    /// Messages of alerts that did not get through.
    pub alert_mail: Seen<AlertMail>,
    /// Sums that are larger than the counted calls can have made them.
    pub absurd_sums: Seen<Vec<String>>,
    /// The finished work that is still kept.
    pub retention: Seen<FinishedWork>,
    /// Whether the database has gone back in time.
    pub history: Seen<History>,
    /// The roles for applications, reports and workers.
    pub roles: Seen<Roles>,
}

/// A schedule that does not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AilingSchedule {
    pub name: String,
    pub ails: Ailment,
}

/// The fault of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Its last tick has failed for this reason, and is not tried again.
    Failed(String),
    /// Its last tick has failed for this reason, and is tried again.
    Retrying(String),
    /// No worker has had it for so many seconds, although it is to fire.
    Unseen(i64),
    /// The configuration has no such route.
    NoRoute(String),
}

/// The version of the schema.
#[derive(Clone, Copy, Debug)]
pub struct SchemaState {
    /// The version that the database has.
    pub found: i64,
    /// The version that this binary brings.
    pub known: i64,
    /// The oldest version that a binary must know.
    pub oldest: i64,
}

/// The server and its settings.
#[derive(Clone, Debug)]
pub struct ServerState {
    /// `server_version_num`.
    pub version: i32,
    /// The version in words.
    pub version_name: String,
    pub standby: bool,
    /// Whether the sessions of this login are read-only, on a standby or by a setting.
    pub read_only: bool,
    /// How the database writes text, such as `UTF8`.
    pub encoding: String,
    /// Settings that should be on and are not: name and value.
    pub off: Vec<(String, String)>,
    /// How many connections the server takes from logins that are not superusers.
    pub connections: i64,
    /// How many connections there are.
    pub used_connections: i64,
    /// How old the oldest row that is not frozen is, in transactions.
    pub transaction_age: i64,
    /// The same for shared row locks.
    pub multixact_age: i64,
    /// The age from which autovacuum freezes rows.
    pub freeze_max_age: i64,
    /// The size of the database.
    pub bytes: i64,
}

/// An open transaction.
#[derive(Clone, Debug)]
pub struct Session {
    /// The number of its server process.
    pub pid: i32,
    /// The name that the application gives itself.
    pub application: String,
    /// `active`, `idle in transaction`, …
    pub state: String,
    /// For how many seconds the transaction has been open.
    pub seconds: i64,
    /// For how many seconds it has been in that state.
    pub state_seconds: i64,
    /// Whether it keeps dead rows from being removed.
    pub holds_rows: bool,
}

/// A replication slot.
#[derive(Clone, Debug)]
pub struct ReplicationSlot {
    pub name: String,
    /// Whether a client reads from it.
    pub active: bool,
    /// How many transactions back it keeps dead rows; `None`: it keeps none.
    pub row_age: Option<i64>,
    /// How much WAL it keeps, in bytes.
    pub bytes: i64,
}

/// A table whose rows change all day.
#[derive(Clone, Debug)]
pub struct ChurningTable {
    pub name: String,
    /// Rows that are live.
    pub live: i64,
    /// Rows that are dead and not yet removed.
    pub dead: i64,
    /// Seconds since it was last vacuumed.
    pub vacuumed: Option<i64>,
    /// Settings that the migrations made and that are now missing.
    pub missing: Vec<String>,
}

/// The partitions of jobs.
#[derive(Clone, Debug)]
pub struct Partitions {
    /// How many job numbers are left before one has no partition.
    pub ids_left: i64,
    /// Tables that are missing between others.
    pub missing: Vec<String>,
}

/// How the server would carry out a statement.
#[derive(Clone, Debug)]
pub struct StatementPlan {
    pub statement: &'static str,
    /// The faults of its plan.
    pub faults: Vec<String>,
    /// Whether the queue is too short for the plan to say anything.
    pub is_small: bool,
}

/// The queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Workers that live.
    pub workers: i64,
    /// Those of them that take jobs of one batch alone.
    pub workers_of_one_batch: i64,
    /// Connections that each worker opens at most.
    pub connections_each: i64,
    /// Workers that are gone and still hold jobs: number, jobs, seconds since their lease ran out.
    pub dead: Vec<(i64, i64, i64)>,
    /// The ready, unpaused job that could have been taken first: its route, and how many seconds it has waited.
    pub oldest: Option<(String, i64)>,
    /// Whether there are ready jobs, and all of them are paused or wait for budgets.
    pub are_all_held: bool,
    /// Routes of ready jobs that the configuration here does not have.
    pub strange_routes: Vec<String>,
    /// What holds up ready jobs, each obstacle once.
    pub held_up: Vec<Obstacle>,
}

/// Unfinished jobs that are in no queue: they came in while triggers were off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unqueued {
    /// How many were found.
    pub jobs: i64,
    /// The first few of them.
    pub some: Vec<i64>,
    /// The oldest job that was examined, where there were too many to examine all; `None`: all were examined.
    pub looked_from: Option<i64>,
}

/// A budget whose sums are not those of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongBudget {
    pub name: String,
    pub spent: NanoUsd,
    pub booked: NanoUsd,
    pub uncertain: NanoUsd,
    pub booked_uncertain: NanoUsd,
    pub reserved: NanoUsd,
    pub under_way: NanoUsd,
}

/// Results whose cost is not that of their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misbilled {
    /// How many were found.
    pub jobs: i64,
    /// The first few of them.
    pub some: Vec<i64>,
    /// The oldest job that was examined, where there were too many to examine all; `None`: all were examined.
    pub looked_from: Option<i64>,
}

/// Calls of one target whose cost is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubtedCosts {
    /// `provider/model`.
    pub target: String,
    /// Calls whose cost is unknown, because their price is.
    pub unpriced: i64,
    /// Calls whose cost by the provider differs from the computed one.
    pub differing: i64,
    /// How much more the provider says than was computed; negative: less.
    pub more: NanoUsd,
}

/// Messages of alerts that did not get through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertMail {
    /// Messages that were given up within the last day.
    pub given_up: i64,
    /// Messages that have waited for more than ten minutes.
    pub late: i64,
    /// The receivers of both, by name.
    pub receivers: Vec<String>,
}

/// The finished work that is still kept.
#[derive(Clone, Debug)]
pub struct FinishedWork {
    /// Whether the configuration here has `[retention]`.
    pub configured: bool,
    /// Partitions that no new job goes into.
    pub past: i64,
    /// How many of them are old enough to drop, by their last job.
    pub due: i64,
    /// Partitions that would be old enough, and the job that keeps each.
    pub held: Vec<(i64, i64)>,
    /// Objects of others (foreign keys, views, functions) that depend on partitions, so that these cannot be dropped.
    pub dependents: Vec<String>,
    /// The partition that has been waiting longest to be dropped, and for how many seconds.
    pub stuck: Option<(i64, i64)>,
    /// For how many seconds new jobs should have gone into another partition; negative: it is not time yet.
    pub late: Option<i64>,
    /// Partitions that were dropped.
    pub dropped: i64,
}

/// Makes all findings from the facts.
#[must_use]
pub fn diagnose(facts: &Facts, thresholds: Thresholds) -> Vec<Finding> {
    let mut findings = vec![database::connection(facts.pooled, facts.private)];
    findings.extend(database::server(&facts.server));
    findings.push(seen("schema", &facts.schema, |schema| database::schema(*schema)));
    findings.push(seen("clock", &facts.clock, |clock| database::clock(*clock)));
    findings.extend(sessions::transactions(&facts.sessions, facts.sees_all_sessions, thresholds));
    findings.push(seen("prepared_transactions", &facts.prepared, |all| sessions::prepared(all, thresholds)));
    findings.push(seen("replication_slots", &facts.slots, |slots| sessions::slots(slots)));
    findings.push(seen("standbys", &facts.standbys, |standbys| sessions::standbys(standbys)));
    let connections = match (&facts.server, &facts.queue) {
        (Ok(server), queue) => queue::connections(server, queue.as_ref().ok(), facts.pooled),
        (Err(reason), _) => Finding::unseen("connections", reason),
    };
    if matches!(facts.schema, Ok(SchemaState { found: 0, .. })) {
        // The other checks look at what the schema holds: of each it would be said that it is not there.
        findings.push(connections);
        return findings;
    }
    findings.push(seen("dead_rows", &facts.tables, |tables| database::dead_rows(tables)));
    findings.push(seen("table_settings", &facts.tables, |tables| database::table_settings(tables)));
    findings.push(seen("autovacuum", &facts.vacuum_off, |tables| database::vacuum_off(tables)));
    findings.push(seen("indexes", &facts.indexes, |(missing, invalid)| database::indexes(missing, invalid)));
    findings.push(seen("trigger", &facts.trigger, |fires| database::trigger(*fires)));
    findings.push(seen("partitions", &facts.partitions, database::partitions));
    findings.push(seen("plans", &facts.plans, |plans| database::plans(plans)));
    findings.push(connections);
    match &facts.queue {
        Ok(queue) => findings.extend(queue::all(queue, thresholds)),
        Err(reason) => findings.push(Finding::unseen("workers", reason)),
    }
    findings.push(seen("unqueued_jobs", &facts.unqueued, queue::unqueued));
    findings.push(seen("result_costs", &facts.misbilled, queue::misbilled));
    findings.push(seen("budgets", &facts.budgets, |wrong| queue::budgets(wrong)));
    findings.push(seen("budget_settings", &facts.budget_faults, |faults| queue::budget_settings(faults)));
    findings.push(seen("schedules", &facts.schedules, |ailing| queue::schedules(ailing)));
    findings.extend(queue::costs(&facts.doubted_costs));
    findings.push(seen("alert_messages", &facts.alert_mail, queue::alert_messages));
    findings.push(seen("absurd_sums", &facts.absurd_sums, |sums| queue::absurd_sums(sums)));
    findings.push(seen("retention", &facts.retention, queue::retention));
    findings.extend(timeline::all(&facts.history));
    findings.push(seen("roles", &facts.roles, roles::roles));
    findings
}

/// The finding when there is no database.
#[must_use]
pub fn unreachable(reason: &str) -> Finding {
    Finding::bad(
        "connection",
        reason,
        "nothing else can be looked at; workers begin no call, and what came of calls waits in their spools",
        "start the server, or correct [database] url",
    )
}

/// The gravest severity among the findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

fn seen<T>(check: &'static str, fact: &Seen<T>, judge: impl FnOnce(&T) -> Finding) -> Finding {
    match fact {
        Ok(fact) => judge(fact),
        Err(reason) => Finding::unseen(check, reason),
    }
}

/// A number of seconds in words, roughly.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number of bytes in words, roughly.
fn size(bytes: i64) -> String {
    match bytes {
        ..10_485_760 => format!("{} kB", bytes / 1024),
        10_485_760..10_737_418_240 => format!("{} MB", bytes / 1_048_576),
        _ => format!("{} GB", bytes / 1_073_741_824),
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut shown = if number < 0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
