//! The facts that `sluice doctor` reads. Each is read on its own: one that this login may not read, or that an older
//! schema does not have, does not hide the others. The text of other people's statements is not read: it may hold
//! prompts.

mod plans;
mod schedules;

use super::lanes::Lane;
use super::waits::Spot;
use super::{Doing, Store, StoreError, within};
use crate::domain::budget::{Budget, faults};
use crate::domain::diagnosis::{
    ChurningTable, Facts, FinishedWork, Partitions, Queue, ReplicationSlot, SchemaState, Seen, ServerState, Session,
};
use crate::domain::obstacle::{Circumstances, Obstacle};
use crate::domain::pause::FixedWait;
use crate::domain::retention::Retention;
use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

const DIAGNOSING: &str = "looking at the database";

/// Why a fact could not be read in time.
const LATE: &str = "not within the time that a page has; `sluice doctor` takes longer";

/// Costs that a provider puts at another figure are told of for so long.
const A_DAY: Duration = Duration::from_hours(24);

/// How many job numbers one partition holds.
const PARTITION: i64 = 10_000_000;

/// The indexes that the migrations made, by name. A test compares the list with a new database.
const INDEXES: [&str; 81] = [
    "alert_delivery_alert",
    "alert_delivery_due",
    "alert_delivery_pkey",
    "alert_delivery_written_at",
    "alert_fired_at",
    "alert_open",
    "alert_pkey",
    "alert_sample_pkey",
    "alert_watch_pkey",
    "allowance_login",
    "allowance_pkey",
    "answered_job",
    "answered_pkey",
    "asking_pkey",
    "attempt_ended_at",
    "attempt_pkey",
    "batch_end_ended_at",
    "batch_end_pkey",
    "batch_turn_pkey",
    "bucket_name_key",
    "bucket_pkey",
    "bucket_state_pkey",
    "budget_entry_pkey",
    "budget_pkey",
    "budget_scope",
    "budget_version_pkey",
    "budget_window_pkey",
    "cache_use_hour",
    "cache_use_pkey",
    "enqueued_pkey",
    "failure_sample_pkey",
    "following_leader",
    "following_pkey",
    "health_pkey",
    "idempotency_pkey",
    "idempotency_unowned_pkey",
    "inflight_pkey",
    "inflight_worker",
    "installation_pkey",
    "job_batch",
    "job_pkey",
    "migration_pkey",
    "open_job_pkey",
    "parked_pkey",
    "parked_run_at",
    "parked_waiting",
    "pause_pkey",
    "paused_job_pkey",
    "race_call_pkey",
    "ready_pkey",
    "ready_suspects",
    "recall_pkey",
    "reservation_pkey",
    "result_pkey",
    "retired_pkey",
    "retiring_pkey",
    "retiring_touched_pkey",
    "schedule_pkey",
    "schedule_turn_pkey",
    "schema_support_one",
    "schema_support_pkey",
    "shadow_made_at",
    "shadow_pkey",
    "shadow_shadow_id_key",
    "stop_loss_due",
    "stop_loss_pkey",
    "tally_day_all_pkey",
    "tally_hour_all_pkey",
    "tally_hour_batch",
    "tally_hour_latest",
    "tally_hour_no_batch",
    "tally_hour_pkey",
    "tally_hour_target_pkey",
    "tally_pkey",
    "tick_done",
    "tick_ended",
    "tick_open",
    "tick_pkey",
    "timeline_pkey",
    "turn_pkey",
    "worker_pkey",
];

/// The tables whose rows change all day, with the settings that the migrations gave them.
const CHURNING: [(&str, &[&str]); 16] = [
    (
        "ready",
        &[
            "autovacuum_vacuum_scale_factor",
            "autovacuum_vacuum_threshold",
            "autovacuum_vacuum_cost_delay",
            "autovacuum_vacuum_insert_threshold",
            "vacuum_truncate",
        ],
    ),
    ("parked", &["autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold", "vacuum_truncate"]),
    ("inflight", &["autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold", "vacuum_truncate"]),
    ("asking", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("following", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("race_call", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("budget", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("budget_window", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("budget_entry", &["autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("reservation", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("alert", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("alert_delivery", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("alert_sample", &["autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
    ("tally", &[]),
    ("worker", &["fillfactor"]),
    ("bucket_state", &["fillfactor", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"]),
];

/// Facts that the caller knows and the database does not.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Whether it is the private Postgres.
    pub private: bool,
    /// Connections that each worker opens at most.
    pub connections_each: u32,
    /// The routes of the configuration; empty: routes are not checked.
    pub routes: HashSet<String>,
    /// The providers of the configuration; empty: they are not checked.
    pub providers: HashSet<String>,
    /// The schedules of the configuration.
    pub schedules: HashSet<String>,
    /// `[retention]` of the configuration.
    pub retention: Option<Retention>,
}

/// The fact, or in words why it could not be read.
fn seen<T>(looked: Result<T, StoreError>) -> Seen<T> {
    looked.map_err(|error| {
        let words = match &error {
            StoreError::Sql { source, .. } => super::in_words(source),
            error => error.to_string(),
        };
        if error.is_denied() {
            format!("{words}; a role such as sluice_reporter may, and for plans sluice_worker")
        } else {
            words
        }
    })
}

/// How long the doctor may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookTime {
    /// At all; `None`: as long as it takes. A fact that was not read by then is one that could not be read.
    pub in_all: Option<Duration>,
    /// For jobs that are in no queue. With many millions of jobs only the newest are examined.
    pub unqueued: Duration,
    /// For results that do not agree with the ledger, the newest first.
    pub bills: Duration,
}

impl LookTime {
    /// An operator has asked for it by a command, or a worker looks by itself.
    pub const LONG: Self = Self { in_all: None, unqueued: Duration::from_secs(10), bills: Duration::from_secs(5) };

    /// A page is to show it.
    pub const SHORT: Self =
        Self { in_all: Some(Duration::from_secs(6)), unqueued: Duration::from_secs(1), bills: Duration::from_secs(1) };
}

/// The time that is left for looking.
struct Ends(Option<Instant>);

impl Ends {
    /// The fact, if it is read in the time that is left.
    async fn look<T>(&self, looking: impl Future<Output = Result<T, StoreError>>) -> Seen<T> {
        let Some(end) = self.0 else { return seen(looking.await) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LATE.to_owned());
        }
        match within(left, DIAGNOSING, looking).await {
            Err(StoreError::Timeout { .. }) => Err(LATE.to_owned()),
            Err(error) if error.is_cut_short() => Err(LATE.to_owned()),
            looked => seen(looked),
        }
    }
}

impl Store {
    /// Reads every fact that this login may read, those first that cost little.
    pub async fn facts(&self, around: &Surroundings, time: LookTime) -> Facts {
        let ends = Ends(time.in_all.map(|in_all| Instant::now() + in_all));
        Facts {
            pooled: self.is_pooled(),
            private: around.private,
            schema: ends
                .look(async {
                    let version = self.schema_version().await?;
                    Ok(SchemaState { found: version.found, known: version.known, oldest: version.oldest })
                })
                .await,
            server: ends.look(self.server()).await,
            clock: ends.look(self.clock_difference()).await,
            sessions: ends.look(self.open_transactions()).await,
            sees_all_sessions: ends.look(self.sees_all_sessions()).await.unwrap_or(false),
            prepared: ends.look(self.prepared_transactions()).await,
            slots: ends.look(self.slots()).await,
            standbys: ends.look(self.standbys()).await,
            tables: ends.look(self.churning_tables()).await,
            vacuum_off: ends.look(self.vacuum_off()).await,
            indexes: ends.look(self.faulty_indexes()).await,
            trigger: ends.look(self.trigger_fires()).await,
            partitions: ends.look(self.partition_headroom()).await,
            roles: ends.look(self.roles()).await,
            history: ends.look(self.history_of_database()).await,
            budget_faults: ends.look(self.budget_faults(around)).await,
            schedules: ends.look(self.ailing_schedules(around)).await,
            alert_mail: ends.look(self.alert_mail()).await,
            retention: ends.look(self.kept(around.retention)).await,
            plans: ends.look(self.plans()).await,
            queue: ends.look(self.queue_health(around)).await,
            // These read sums and stretches of the ledger.
            budgets: ends.look(self.check_budgets(false)).await,
            doubted_costs: ends.look(self.doubted_costs(A_DAY)).await,
            unqueued: ends.look(self.unqueued(time.unqueued)).await,
            misbilled: ends.look(self.misbilled(time.bills)).await,
            absurd_sums: ends.look(self.absurd_sums()).await,
        }
    }

    async fn server(&self) -> Result<ServerState, StoreError> {
        let row = sqlx::query!(
            r#"select current_setting('server_version_num')::integer as "version!",
                      current_setting('server_version') as "name!",
                      pg_is_in_recovery() as "standby!",
                      current_setting('transaction_read_only')::boolean as "read_only!",
                      pg_encoding_to_char(d.encoding) as "encoding!",
                      (select coalesce(array_agg(s.name || '=' || s.setting order by s.name), '{}') from pg_settings s
                        where s.name in ('fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum',
                                        'track_counts')
                          and s.setting = 'off') as "off!",
                      current_setting('max_connections')::bigint
                          - current_setting('superuser_reserved_connections')::bigint as "connections!",
                      (select count(*) from pg_stat_activity
                        where datid is not null and pid <> pg_backend_pid()) as "used!",
                      age(d.datfrozenxid)::bigint as "transaction_age!",
                      mxid_age(d.datminmxid)::bigint as "multixact_age!",
                      current_setting('autovacuum_freeze_max_age')::bigint as "freeze_max_age!",
                      pg_database_size(d.oid) as "bytes!"
                 from pg_database d where d.datname = current_database()"#
        )
        .fetch_one(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let off = row.off.iter().filter_map(|setting| setting.split_once('='));
        Ok(ServerState {
            version: row.version,
            version_name: row.name,
            standby: row.standby,
            read_only: row.read_only,
            encoding: row.encoding,
            off: off.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            connections: row.connections,
            used_connections: row.used,
            transaction_age: row.transaction_age,
            multixact_age: row.multixact_age,
            freeze_max_age: row.freeze_max_age,
            bytes: row.bytes,
        })
    }

    /// How far the server's clock is ahead of this machine's, in milliseconds, and half of the time that the question
    /// took.
    async fn clock_difference(&self) -> Result<(i64, i64), StoreError> {
        let millis = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        let before = millis();
        let there = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#)
            .fetch_one(&self.db)
            .await
            .doing(DIAGNOSING)?
            .timestamp_millis();
        let after = millis();
        Ok((there - i64::midpoint(before, after), (after - before) / 2 + 1))
    }

    async fn sees_all_sessions(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select pg_has_role(current_user, 'pg_read_all_stats', 'usage') as "all!""#)
            .fetch_one(&self.db)
            .await
            .doing(DIAGNOSING)
    }

    async fn open_transactions(&self) -> Result<Vec<Session>, StoreError> {
        sqlx::query_as!(
            Session,
            r#"select pid as "pid!", coalesce(application_name, '') as "application!", coalesce(state, '') as "state!",
                      extract(epoch from clock_timestamp() - xact_start)::bigint as "seconds!",
                      coalesce(extract(epoch from clock_timestamp() - state_change), 0)::bigint as "state_seconds!",
                      (backend_xmin is not null or backend_xid is not null) as "holds_rows!"
                 from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
                  and backend_type <> 'autovacuum worker'"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)
    }

    async fn prepared_transactions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"select gid as "name!", extract(epoch from clock_timestamp() - prepared)::bigint as "seconds!"
                 from pg_prepared_xacts where database = current_database()"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        Ok(rows.into_iter().map(|row| (row.name, row.seconds)).collect())
    }

    async fn slots(&self) -> Result<Vec<ReplicationSlot>, StoreError> {
        sqlx::query_as!(
            ReplicationSlot,
            r#"select slot_name::text as "name!", active as "active!", age(xmin)::bigint as row_age,
                      coalesce(case when not pg_is_in_recovery()
                        then pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) end,
                               0)::bigint as "bytes!"
                 from pg_replication_slots"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)
    }

    async fn standbys(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"select application_name as "name!", age(backend_xmin)::bigint as "age!"
                 from pg_stat_replication where backend_xmin is not null"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        Ok(rows.into_iter().map(|row| (row.name, row.age)).collect())
    }

    async fn churning_tables(&self) -> Result<Vec<ChurningTable>, StoreError> {
        let names: Vec<String> = CHURNING.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = sqlx::query!(
            r#"select c.relname::text as "name!", coalesce(s.n_live_tup, 0) as "live!",
                      coalesce(s.n_dead_tup, 0) as "dead!",
                      extract(epoch from clock_timestamp()
                              - greatest(s.last_vacuum, s.last_autovacuum))::bigint as vacuumed,
                      (select coalesce(array_agg(o.option_name), '{}')
                        from pg_options_to_table(c.reloptions) o) as "settings!"
                 from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
                where c.relnamespace = 'sluice'::regnamespace and c.relname = any ($1)"#,
            &names
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let missing = |name: &str, settings: &[String]| {
            let expected = CHURNING.iter().find(|(table, _)| *table == name).map(|(_, expected)| *expected);
            let expected = expected.unwrap_or_default().iter();
            expected.filter(|name| !settings.iter().any(|set| set == *name)).map(|name| (*name).to_owned()).collect()
        };
        Ok(rows
            .into_iter()
            .map(|row| ChurningTable {
                missing: missing(&row.name, &row.settings),
                name: row.name,
                live: row.live,
                dead: row.dead,
                vacuumed: row.vacuumed,
            })
            .collect())
    }

    async fn vacuum_off(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            r#"select c.relname::text as "name!" from pg_class c cross join lateral pg_options_to_table(c.reloptions) o
                where c.relnamespace = 'sluice'::regnamespace and o.option_name = 'autovacuum_enabled'
                  and not o.option_value::boolean
                order by 1"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)
    }

    async fn faulty_indexes(&self) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let rows = sqlx::query!(
            r#"select c.relname::text as "name!", (i.indisvalid and i.indisready) as "valid!"
                 from pg_index i join pg_class c on c.oid = i.indexrelid
                where c.relnamespace = 'sluice'::regnamespace order by 1"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let is_there = |name: &str| rows.iter().any(|row| row.name == name);
        let missing = INDEXES.iter().filter(|name| !is_there(name)).map(|name| (*name).to_owned()).collect();
        let invalid = rows.iter().filter(|row| !row.valid).map(|row| row.name.clone()).collect();
        Ok((missing, invalid))
    }

    /// The latest hours whose sums have more tokens, or cost more, than that few calls can.
    async fn absurd_sums(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            r#"select t.provider || '/' || t.model || ' at ' || to_char(t.hour at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                          as "name!"
                 from sluice.totals t
                where sluice.absurd(t.attempts, greatest(t.input_tokens, t.cached_tokens, t.output_tokens),
                                    greatest(t.cost_nanos, t.waste_nanos, t.uncertain_nanos))
                group by t.hour, t.provider, t.model order by t.hour desc limit 10"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)
    }

    /// Whether the trigger fires; `None`: there is no such trigger.
    async fn trigger_fires(&self) -> Result<Option<bool>, StoreError> {
        sqlx::query_scalar!(
            r#"select bool_and(tgenabled in ('O', 'A')) as "fires!" from pg_trigger
                where tgrelid = to_regclass('sluice.job') and tgname in ('job_bounds', 'job_enqueued')
               having count(*) = 2"#
        )
        .fetch_optional(&self.db)
        .await
        .doing(DIAGNOSING)
    }

    async fn partition_headroom(&self) -> Result<Partitions, StoreError> {
        let row = sqlx::query!(
            r#"select last_value as "next!",
                      (select coalesce(array_agg(c.relname::text), '{}')
                         from pg_inherits i join pg_class c on c.oid = i.inhrelid
                        where i.inhparent in ('sluice.job'::regclass, 'sluice.result'::regclass,
                                              'sluice.attempt'::regclass))
                          as "tables!"
                 from sluice.job_id_seq"#
        )
        .fetch_one(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let there: HashSet<&str> = row.tables.iter().map(String::as_str).collect();
        let present = row.next / PARTITION;
        let number = |name: &&str| name.rsplit_once("_p").and_then(|(_, number)| number.parse::<i64>().ok());
        let last = there.iter().filter_map(number).max().unwrap_or(present).max(present);
        let names = |partition: i64| ["job", "result", "attempt"].map(|base| format!("{base}_p{partition}"));
        let missing: Vec<String> =
            (present..=last).flat_map(names).filter(|name| !there.contains(name.as_str())).collect();
        Ok(Partitions { ids_left: (last + 1) * PARTITION - row.next, missing })
    }

    /// The faults of budgets by the configuration, each with the budget's name.
    async fn budget_faults(&self, around: &Surroundings) -> Result<Vec<String>, StoreError> {
        let budgets: Vec<Budget> = self.budget_rows().await?.into_iter().map(|row| row.standing.budget).collect();
        let has = |known: &HashSet<String>, name: &str| known.is_empty() || known.contains(name);
        let faults = faults(&budgets, |route| has(&around.routes, route), |name| has(&around.providers, name));
        let named = |(index, fault): (usize, String)| Some(format!("{} {fault}", budgets.get(index)?.name));
        Ok(faults.into_iter().filter_map(named).collect())
    }

    async fn queue_health(&self, around: &Surroundings) -> Result<Queue, StoreError> {
        let known = self.known().await?;
        let of_one_batch = known.workers.iter().filter(|worker| worker.only_batch.is_some()).count();
        let dead = sqlx::query!(
            r#"select i.worker, count(*) as "jobs!",
                      extract(epoch from now() - coalesce(w.lease_until, min(i.claimed_at)))::bigint as "seconds!"
                 from sluice.inflight i left join sluice.worker w on w.id = i.worker
                where w.id is null or w.state <> 'live' or w.lease_until < now()
                group by i.worker, w.lease_until"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let lanes = self.lanes().await?;
        let pauses = self.pauses().await?;
        let budgets = self.budgets().await?.budgets;
        let is_open = |lane: &&Lane| {
            pauses.held_back(&lane.route, &lane.project, lane.batch.as_deref()).is_none()
                && budgets.without_room(&lane.outlay()).is_none()
        };
        let open: Vec<i64> = lanes.iter().filter(is_open).map(|lane| lane.first).collect();
        let oldest = sqlx::query!(
            r#"select j.route as "route!",
                      extract(epoch from now() - greatest(j.created_at, j.run_at))::bigint as "seconds!"
                 from unnest($1::bigint[]) f(id)
                      cross join lateral (select * from sluice.job b where b.id = f.id limit 1) j
                order by 2 desc limit 1"#,
            &open
        )
        .fetch_optional(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let held_up = self.held_up(&lanes, &known).await?;
        let strange: HashSet<&String> = lanes.iter().map(|lane| &lane.route).collect();
        let strange = strange.into_iter().filter(|route| !around.routes.is_empty() && !around.routes.contains(*route));
        let mut strange_routes: Vec<String> = strange.cloned().collect();
        strange_routes.sort();
        Ok(Queue {
            workers: i64::try_from(known.workers.len()).unwrap_or(i64::MAX),
            workers_of_one_batch: i64::try_from(of_one_batch).unwrap_or(i64::MAX),
            connections_each: around.connections_each.into(),
            dead: dead.into_iter().map(|row| (row.worker, row.jobs, row.seconds)).collect(),
            oldest: oldest.map(|row| (row.route, row.seconds)),
            are_all_held: !lanes.is_empty() && open.is_empty(),
            strange_routes,
            held_up,
        })
    }

    /// What holds up the jobs of these lanes, and those that rest, each obstacle once. Jobs that were enqueued for
    /// later, or are paused one by one, are meant to wait.
    async fn held_up(&self, lanes: &[Lane], known: &Circumstances) -> Result<Vec<Obstacle>, StoreError> {
        let resting = self.resting().await?.into_iter().map(|group| group.spot);
        let spots: Vec<Spot> = lanes.iter().map(Spot::ready).chain(resting).collect();
        let reasons = self.obstacles(&spots).await?;
        let mut held_up: Vec<Obstacle> = Vec::new();
        let mut seen = HashSet::new();
        for (spot, reason) in spots.iter().zip(&reasons) {
            let Some(reason) = reason else { continue };
            if matches!(FixedWait::read(reason), Some(FixedWait::Scheduled | FixedWait::Paused)) {
                continue;
            }
            let obstacle = Obstacle::of(reason, spot.subject(None), known);
            if seen.insert(obstacle.in_words()) {
                held_up.push(obstacle);
            }
        }
        Ok(held_up)
    }

    async fn kept(&self, retention: Option<Retention>) -> Result<FinishedWork, StoreError> {
        let (keep, age) = retention.map_or((0.0, 0.0), |retention| {
            (retention.finished.as_secs_f64(), retention.partition_age().as_secs_f64())
        });
        let held = sqlx::query!(
            r#"select part, open_job as "job!" from sluice.retiring where open_job is not null order by part"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let stuck = sqlx::query!(
            r#"select part, extract(epoch from now() - since)::bigint as "seconds!" from sluice.retiring
                where open_job is null and dependents is null
                  and (youngest is null or youngest < now() - make_interval(secs => $1))
                order by since limit 1"#,
            keep
        )
        .fetch_optional(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let dependents = sqlx::query_scalar!(
            r#"select distinct d.name as "name!"
                 from pg_inherits i join pg_class c on c.oid = i.inhrelid
                      cross join lateral unnest(
                          sluice.dependents(substring(c.relname from '^job_p(\d+)$')::bigint)) d(name)
                where i.inhparent = 'sluice.job'::regclass and c.relname ~ '^job_p\d+$'
                order by 1"#
        )
        .fetch_all(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let row = sqlx::query_file!("src/store/doctor/finished_work.sql", keep, age)
            .fetch_one(&self.db)
            .await
            .doing(DIAGNOSING)?;
        Ok(FinishedWork {
            configured: retention.is_some(),
            past: row.past,
            due: if retention.is_some() { row.due } else { 0 },
            stuck: stuck.map(|row| (row.part, row.seconds)),
            late: row.late,
            dependents,
            held: held.into_iter().map(|row| (row.part, row.job)).collect(),
            dropped: row.dropped,
        })
    }
}
