//! The roles for applications, reports and workers, and the rights of each. Roles belong to the whole cluster, so one
//! may be missing where the migrating login may not make it; each `sluice migrate` adds what it can.

use super::database::Transaction;
use super::{Doing, Store, StoreError};
use crate::domain::diagnosis::Roles;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

const ENQUEUER: &str = "sluice_enqueuer";
const REPORTER: &str = "sluice_reporter";
const WORKER: &str = "sluice_worker";

/// The roles of applications, readers of reports, and workers.
pub const ROLES: [&str; 3] = [ENQUEUER, REPORTER, WORKER];

/// The kind of object that a right is about.
#[derive(Clone, Copy)]
enum On {
    Schema,
    Table,
    /// These columns of `sluice.job`.
    Column,
    Sequence,
    /// All functions of this name.
    Function,
}

/// Rights by role: which, and on what. A migration that makes an object adds it here; a test compares the two.
const RIGHTS: &[(&str, On, &[&str], &[&str])] = &[
    (ENQUEUER, On::Schema, &["usage"], &["sluice"]),
    // Every command reads the version of the schema first.
    (ENQUEUER, On::Table, &["select"], &["migration", "schema_support", "jobs", "results", "attempts", "enqueues"]),
    (
        ENQUEUER,
        On::Column,
        &["insert"],
        &[
            "route",
            "project",
            "batch",
            "custom_id",
            "priority",
            "run_at",
            "deadline",
            "max_attempts",
            "idempotency_key",
            "metadata",
            "request",
        ],
    ),
    (ENQUEUER, On::Column, &["select"], &["id", "created_at"]),
    // Lets it ask for the number of its last job (currval), but not take numbers.
    (ENQUEUER, On::Sequence, &["select"], &["job_id_seq"]),
    (
        ENQUEUER,
        On::Function,
        &["execute"],
        &[
            "enqueue",
            "enqueue_many",
            "batch_standing",
            "batch_lines",
            "open_batch_turn",
            "take_batch_turn",
            "whereabouts",
            "cancel",
            "cancellable",
            "own_batch",
            "own_max_wasted",
            "own_batch_waits_for",
            "own_batches",
            "own_results",
            "own_results_of",
            "own_listed",
            "batch_lines_kept",
            "replace_waiting",
            "wait",
            "note_enqueue",
            "cancel_enqueue",
            "cancel_enqueued",
        ],
    ),
    (REPORTER, On::Schema, &["usage"], &["sluice"]),
    (
        REPORTER,
        On::Table,
        &["select"],
        &[
            "migration",
            "schema_support",
            "installation",
            "jobs",
            "results",
            "attempts",
            "batches",
            "totals",
            "totals_all",
            "totals_days",
            "cost_by_login",
            "failure_codes",
            "failure_sample",
            "tally",
            "tally_hour",
            "tally_hour_all",
            "tally_day_all",
            "tally_hour_target",
            "fallback_paths",
            "quality",
            "cache_savings",
            "prompt_caches",
            "cost_by_provider",
            "cost_by_route",
            "cost_daily",
            "failures",
            "waste",
            "fallbacks",
            "latency",
            "reasks",
            "buckets",
            "claimers",
            "hindrances",
            "job",
            "result",
            "attempt",
            "ready",
            "parked",
            "inflight",
            "worker",
            "pause",
            "paused_job",
            "bucket",
            "bucket_state",
            "retired",
            "retiring",
            "timeline",
            "allowance",
            "stop_loss",
            "cache_use",
            "health",
            "enqueues",
            "budget",
            "budget_window",
            "budget_entry",
            "budget_version",
            "budget_standing",
            "budget_holds",
            "budgets",
            "reservation",
            "schedule",
            "tick",
            "schedules",
            "ticks",
            "alerts",
            "alert",
            "alert_delivery",
            "shadow",
            "shadows",
        ],
    ),
    (REPORTER, On::Sequence, &["select"], &["job_id_seq"]),
    (
        REPORTER,
        On::Function,
        &["execute"],
        &["dependents", "dependents_on_keys", "unqueued", "whereabouts", "wait", "check_budgets"],
    ),
    (WORKER, On::Schema, &["usage"], &["sluice"]),
    (
        WORKER,
        On::Table,
        &["select", "insert", "update", "delete"],
        &[
            "job",
            "result",
            "attempt",
            "ready",
            "parked",
            "inflight",
            "race_call",
            "idempotency",
            "worker",
            "pause",
            "recall",
            "tally",
            "tally_hour",
            "tally_hour_all",
            "tally_day_all",
            "tally_hour_target",
            "failure_sample",
            "bucket",
            "bucket_state",
            "batch_turn",
            "stop_loss",
            "answered",
            "asking",
            "following",
            "cache_use",
            "budget",
            "budget_window",
            "budget_entry",
            "reservation",
            "health",
            "schedule",
            "schedule_turn",
            "tick",
            "alert",
            "alert_delivery",
            "alert_watch",
            "alert_sample",
            "batch_end",
            "shadow",
        ],
    ),
    (WORKER, On::Table, &["update"], &["timeline", "schema_support"]),
    (
        WORKER,
        On::Table,
        &["select"],
        &[
            "migration",
            "schema_support",
            "installation",
            "jobs",
            "results",
            "attempts",
            "batches",
            "totals",
            "totals_all",
            "totals_days",
            "cost_by_login",
            "failure_codes",
            "fallback_paths",
            "quality",
            "cache_savings",
            "prompt_caches",
            "cost_by_provider",
            "cost_by_route",
            "cost_daily",
            "failures",
            "waste",
            "fallbacks",
            "latency",
            "reasks",
            "buckets",
            "claimers",
            "hindrances",
            "paused_job",
            "retired",
            "retiring",
            "timeline",
            "allowance",
            "enqueues",
            "budget_version",
            "budget_standing",
            "budget_holds",
            "budgets",
            "schedules",
            "ticks",
            "alerts",
            "shadows",
        ],
    ),
    (WORKER, On::Sequence, &["usage", "select"], &["job_id_seq", "fence_seq", "worker_id_seq", "bucket_id_seq"]),
    (
        WORKER,
        On::Function,
        &["execute"],
        &[
            "enqueue",
            "enqueue_many",
            "batch_standing",
            "batch_lines",
            "batch_lines_kept",
            "replace_waiting",
            "open_batch_turn",
            "take_batch_turn",
            "take_turn",
            "own_keys",
            "repriced_from",
            "cancel",
            "cancellable",
            "wait",
            "retry",
            "pause",
            "resume",
            "move",
            "reprioritize",
            "send_along",
            "may_change_all",
            "stop_loss",
            "stop_waste",
            "ensure_partitions",
            "job_enqueued",
            "book_open_call",
            "begin_partition",
            "retire",
            "dependents",
            "dependents_on_keys",
            "unqueued",
            "queue_unqueued",
            "whereabouts",
            "look_at_timeline",
            "make_room",
            "ask_cache",
            "leave_cache",
            "cast_shadows",
            "count_spending",
            "release_reservations",
            "settle_budgets",
            "hold_budgets",
            "booked_of",
            "check_budgets",
            "set_budget",
            "raise_budget",
            "drop_budget",
            "known_schedule",
            "pause_schedule",
            "resume_schedule",
            "run_schedule",
            "tell_health",
            "note_enqueue",
            "cancel_enqueue",
            "cancel_enqueued",
        ],
    ),
];

const LOOKING: &str = "looking at the roles";
const SETTING_UP: &str = "setting up the roles";

/// A right that a role lacks.
struct Lack {
    role: String,
    privilege: String,
    /// The name of the object in a grant.
    object: String,
}

impl Store {
    /// The roles that are missing, and the rights that existing ones lack.
    pub async fn roles(&self) -> Result<Roles, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        let row = sqlx::query!(
            r#"select (select coalesce(array_agg(r.name order by r.name), '{}') from unnest($1::text[]) r(name)
                        where to_regrole(r.name) is null) as "missing!",
                      (select pg_get_userbyid(n.nspowner)::text from pg_namespace n
                        where n.nspname = 'sluice') as owner"#,
            &ROLES.map(str::to_owned) as _
        )
        .fetch_one(&mut transaction)
        .await
        .doing(LOOKING)?;
        let mut lacking: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for lack in lacks(&mut transaction).await? {
            lacking.entry(lack.role).or_default().push(format!("{} on {}", lack.privilege, lack.object));
        }
        transaction.commit().await.doing(LOOKING)?;
        Ok(Roles { missing: row.missing, lacking, owner: row.owner.unwrap_or_default() })
    }
}

/// Makes the missing roles, if that is allowed: before the migrations, which grant them their rights.
pub(super) async fn make(transaction: &mut Transaction) -> Result<(), StoreError> {
    for role in ROLES {
        // Another database of the cluster may be making it.
        let statement = format!(
            "do $$ begin
                 if to_regrole('{role}') is null then create role {role} nologin; end if;
             exception when duplicate_object or unique_violation or insufficient_privilege then null;
             end $$"
        );
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await.doing(SETTING_UP)?;
    }
    Ok(())
}

/// Grants the rights that existing roles lack. Only the owner of the schema can; for other logins this does nothing.
pub(super) async fn grant(transaction: &mut Transaction) -> Result<(), StoreError> {
    let is_owner = sqlx::query_scalar!(
        "select pg_has_role(current_user, n.nspowner, 'usage') from pg_namespace n where n.nspname = 'sluice'"
    )
    .fetch_optional(&mut *transaction)
    .await
    .doing(SETTING_UP)?;
    if is_owner.flatten() != Some(true) {
        return Ok(());
    }
    for Lack { role, privilege, object } in lacks(transaction).await? {
        let statement = format!("grant {privilege} on {object} to {role}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await.doing(SETTING_UP)?;
    }
    Ok(())
}

/// The rights that existing roles lack. Objects that an older schema does not have are not counted.
async fn lacks(transaction: &mut Transaction) -> Result<Vec<Lack>, StoreError> {
    let (mut roles, mut kinds, mut privileges, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (role, on, some, objects) in RIGHTS {
        for object in *objects {
            for privilege in *some {
                roles.push((*role).to_owned());
                kinds.push(match on {
                    On::Schema => "schema".to_owned(),
                    On::Table => "table".to_owned(),
                    On::Column => "column".to_owned(),
                    On::Sequence => "sequence".to_owned(),
                    On::Function => "function".to_owned(),
                });
                privileges.push((*privilege).to_owned());
                names.push((*object).to_owned());
            }
        }
    }
    sqlx::query_file_as!(Lack, "src/store/roles/lacking.sql", &roles as _, &kinds as _, &privileges as _, &names as _)
        .fetch_all(transaction)
        .await
        .doing(LOOKING)
}
