//! The application: it enqueues, cancels, retries, pauses, and keeps a list of what it was told.

use super::Finding;
use super::diary::now_ms;
use super::schedule::Dice;
use serde_json::{Value, json};
use sluice::simulate::request_hash;
use sqlx::error::DatabaseError;
use sqlx::{PgPool, Row as _};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many unfinished jobs are kept waiting.
const BACKLOG: i64 = 220;

/// The fate of the transaction that a job was enqueued in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Committed, under this number.
    Accepted(i64),
    /// It must not exist: rolled back, failed before its commit, or its idempotency key had a job already.
    Never,
    /// The connection broke during the commit: all of its transaction or nothing.
    Unknown,
}

/// One job as it was to be enqueued. Its tag is its `custom_id` and begins its prompt.
#[derive(Clone, Debug)]
pub struct Wish {
    pub tag: String,
    pub prompt: u64,
    pub fate: Fate,
    pub transaction: u64,
    pub key: Option<String>,
    /// When that was told, in milliseconds of the wall clock.
    pub at: i64,
}

/// What a cancel or a retry answered; `None`: its answer was lost.
#[derive(Clone, Copy, Debug)]
pub struct Intervention {
    pub retry: bool,
    pub answer: Option<bool>,
    /// When.
    pub at: i64,
}

/// Everything that the application knows.
#[derive(Debug, Default)]
pub struct Told {
    pub wishes: Vec<Wish>,
    /// By job, in order.
    pub interventions: BTreeMap<i64, Vec<Intervention>>,
    /// The job that a key was said to belong to.
    pub keys: HashMap<String, i64>,
    /// When it was first said.
    pub keys_since: HashMap<String, i64>,
    /// Keys whose job may be lost: whether the next use of one makes a job is not known.
    pub unsure_keys: HashSet<String>,
    /// How often the database went back.
    pub losses: u64,
    pub findings: Vec<Finding>,
    /// Statements that failed, as they do when the database is away.
    pub failed_statements: u64,
    pub pauses: u64,
    /// Batches that a cancel or a retry of unknown outcome went to: each job in them may have been hit.
    pub doubtful_batches: Vec<String>,
}

impl Told {
    /// A statement failed. What the database itself says against it is a finding, unless it was being stopped.
    fn failed(&mut self, error: &sqlx::Error) {
        self.failed_statements += 1;
        let code = error.as_database_error().and_then(DatabaseError::code);
        // Takes no writes for now; or the job has gone with what the database has lost.
        let expected = |code: &str| code == "25006" || (code == "P0002" && self.losses > 0);
        if code.is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08") && !expected(&code)) {
            self.findings.push(Finding::of(format!("the application was told: {error}")));
        }
    }

    /// The database has gone back to this instant or an earlier one: the facts told since may be gone.
    pub fn lost_since(&mut self, from: i64) {
        self.losses += 1;
        let keys: Vec<String> =
            self.keys_since.iter().filter(|(_, since)| **since >= from).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.keys.remove(&key);
            self.keys_since.remove(&key);
            self.unsure_keys.insert(key);
        }
    }

    pub fn accepted(&self) -> usize {
        self.wishes.iter().filter(|wish| matches!(wish.fate, Fate::Accepted(_))).count()
    }
}

/// The application at work, until it is stopped.
pub struct Load {
    pub told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn start(pool: &PgPool, seed: u64) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let feeder =
            Feeder { pool: pool.clone(), told: Arc::clone(&told), dice: Dice::new(seed, 3), named: 0, transactions: 0 };
        let meddler = Meddler { pool: pool.clone(), told: Arc::clone(&told), dice: Dice::new(seed, 4) };
        let tasks = vec![tokio::spawn(feeder.run(Arc::clone(&stop))), tokio::spawn(meddler.run(Arc::clone(&stop)))];
        Self { told, stop, tasks }
    }

    pub async fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

struct Feeder {
    pool: PgPool,
    told: Arc<Mutex<Told>>,
    dice: Dice,
    named: u64,
    transactions: u64,
}

/// A job that is about to be enqueued.
struct Draft {
    wish: Wish,
    route: &'static str,
    project: &'static str,
    batch: Option<String>,
    priority: i16,
    max_attempts: Option<i16>,
    later: bool,
    request: Value,
}

impl Feeder {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let waiting = sqlx::query_scalar::<_, i64>(
                "select (select count(*) from sluice.ready) + (select count(*) from sluice.parked)
                        + (select count(*) from sluice.inflight)",
            )
            .fetch_one(&self.pool)
            .await;
            // When it cannot be asked it is tried all the same: that is how an application meets an outage.
            if waiting.is_ok_and(|waiting| waiting > BACKLOG) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            match self.dice.below(10) {
                0..=4 => self.rows().await,
                5..=6 => self.one().await,
                _ => self.many().await,
            }
            let pause = self.dice.seconds(0.02, 0.15);
            tokio::time::sleep(pause).await;
        }
    }

    fn draft(&mut self) -> Draft {
        self.named += 1;
        let tag = format!("tag-{:06}", self.named);
        let words = "Tell me about the water mill. ".repeat(self.dice.below(6));
        let prompt = format!("{tag}: {words}");
        let system = self.dice.chance(0.3).then_some("Be brief.");
        let request = match system {
            None => json!({ "prompt": prompt, "max_tokens": 200 }),
            Some(system) => json!({ "max_tokens": 200, "messages": [
                { "role": "system", "content": system }, { "role": "user", "content": prompt }] }),
        };
        let hash = request_hash(system.unwrap_or_default(), &[&prompt]);
        let wish = Wish { tag, prompt: hash, fate: Fate::Unknown, transaction: self.transactions, key: None, at: 0 };
        let batch = self.dice.chance(0.5).then(|| format!("batch-{}", self.dice.below(12)));
        Draft {
            wish,
            route: if self.dice.chance(0.12) { "narrow" } else { "default" },
            project: ["apple", "pear", "plum"][self.dice.below(3)],
            batch,
            priority: [0, 0, 0, 5, -3][self.dice.below(5)],
            max_attempts: self.dice.chance(0.1).then_some(2),
            later: self.dice.chance(0.05),
            request,
        }
    }

    fn note(&self, drafts: Vec<Draft>, fate: impl Fn(usize) -> Fate) {
        let mut told = self.told.lock().unwrap();
        for (index, draft) in drafts.into_iter().enumerate() {
            told.wishes.push(Wish { fate: fate(index), at: now_ms(), ..draft.wish });
        }
    }

    /// Plain rows in a transaction of the application's, which is rolled back now and then.
    async fn rows(&mut self) {
        self.transactions += 1;
        let drafts: Vec<Draft> = (0..=self.dice.below(12)).map(|_| self.draft()).collect();
        let give_up = self.dice.chance(0.15);
        let mut ids: Vec<i64> = Vec::new();
        let inserted = async {
            let mut transaction = self.pool.begin().await?;
            for draft in &drafts {
                let id: i64 = sqlx::query_scalar(
                    "insert into sluice.job (route, project, batch, custom_id, priority, max_attempts, run_at, request)
                     values ($1, $2, $3, $4, $5, $6, case when $7 then now() + interval '2 seconds' end, $8)
                     returning id",
                )
                .bind(draft.route)
                .bind(draft.project)
                .bind(&draft.batch)
                .bind(&draft.wish.tag)
                .bind(draft.priority)
                .bind(draft.max_attempts)
                .bind(draft.later)
                .bind(&draft.request)
                .fetch_one(&mut *transaction)
                .await?;
                ids.push(id);
            }
            Ok::<_, sqlx::Error>(transaction)
        };
        let inserted = inserted.await;
        match inserted {
            Err(error) => {
                self.failed(&error);
                self.note(drafts, |_| Fate::Never);
            }
            Ok(transaction) if give_up => {
                // Dropped or told: it is the same to the server.
                let _ = transaction.rollback().await;
                self.note(drafts, |_| Fate::Never);
            }
            Ok(transaction) => match transaction.commit().await {
                Ok(()) => self.note(drafts, |index| Fate::Accepted(ids[index])),
                Err(error) => {
                    self.failed(&error);
                    self.note(drafts, |_| Fate::Unknown);
                }
            },
        }
    }

    fn failed(&self, error: &sqlx::Error) {
        self.told.lock().unwrap().failed(error);
    }

    /// A key: a new one, or one that has been used.
    fn key(&mut self, project: &str) -> String {
        let number = if self.dice.chance(0.3) { self.dice.below(20) } else { 1_000 + self.dice.below(1_000_000_000) };
        format!("{project}/{number}")
    }

    /// One job through the function, often with a key.
    async fn one(&mut self) {
        self.transactions += 1;
        let mut draft = self.draft();
        if self.dice.chance(0.7) {
            draft.wish.key = Some(self.key(draft.project));
        }
        let enqueued = sqlx::query_scalar::<_, i64>(
            "select sluice.enqueue($1, route => $2, project => $3, batch => $4, custom_id => $5, priority => $6,
                                   max_attempts => $7, idempotency_key => $8)",
        )
        .bind(&draft.request)
        .bind(draft.route)
        .bind(draft.project)
        .bind(&draft.batch)
        .bind(&draft.wish.tag)
        .bind(i32::from(draft.priority))
        .bind(draft.max_attempts.map(i32::from))
        .bind(&draft.wish.key)
        .fetch_one(&self.pool)
        .await;
        match enqueued {
            Ok(id) => self.keyed(vec![draft], &[(id, None)]),
            Err(error) => {
                self.failed(&error);
                self.note(vec![draft], |_| Fate::Unknown);
            }
        }
    }

    /// Many at once, with keys, some of which are used twice.
    async fn many(&mut self) {
        self.transactions += 1;
        let mut drafts: Vec<Draft> = (0..=self.dice.below(15)).map(|_| self.draft()).collect();
        for draft in &mut drafts {
            if self.dice.chance(0.6) {
                draft.wish.key = Some(self.key(draft.project));
            }
        }
        let give_up = self.dice.chance(0.1);
        let jobs: Vec<Value> = drafts
            .iter()
            .map(|draft| {
                json!({ "request": draft.request, "route": draft.route, "project": draft.project, "batch": draft.batch,
                        "custom_id": draft.wish.tag, "priority": draft.priority, "max_attempts": draft.max_attempts,
                        "idempotency_key": draft.wish.key })
            })
            .collect();
        let enqueued = async {
            let mut transaction = self.pool.begin().await?;
            let rows = sqlx::query("select job_id, existing from sluice.enqueue_many($1) order by ordinal")
                .bind(Value::Array(jobs))
                .fetch_all(&mut *transaction)
                .await?;
            let rows: Vec<(i64, Option<bool>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            Ok::<_, sqlx::Error>((transaction, rows))
        };
        match enqueued.await {
            Err(error) => {
                self.failed(&error);
                self.note(drafts, |_| Fate::Never);
            }
            Ok((transaction, _)) if give_up => {
                let _ = transaction.rollback().await;
                self.note(drafts, |_| Fate::Never);
            }
            Ok((transaction, rows)) => match transaction.commit().await {
                Ok(()) => self.keyed(drafts, &rows),
                Err(error) => {
                    self.failed(&error);
                    self.note(drafts, |_| Fate::Unknown);
                }
            },
        }
    }

    /// The committed drafts, where a key may have had a job already. Without a word on that (`enqueue` says none) the
    /// number tells, where the key is known.
    fn keyed(&self, drafts: Vec<Draft>, rows: &[(i64, Option<bool>)]) {
        let mut told = self.told.lock().unwrap();
        for (draft, &(id, existing)) in drafts.into_iter().zip(rows) {
            let known = draft.wish.key.as_ref().and_then(|key| told.keys.get(key).copied());
            if let Some(known) = known.filter(|known| *known != id) {
                let what = format!("the key {:?} belongs to job {known}, and then to job {id}", draft.wish.key);
                told.findings.push(Finding { what, job: Some(known) });
            }
            if existing == Some(false) && known.is_some() {
                let what = format!("the key {:?} was said to be new", draft.wish.key);
                told.findings.push(Finding { what, job: Some(id) });
            }
            if let Some(key) = &draft.wish.key {
                told.keys.insert(key.clone(), id);
                told.keys_since.entry(key.clone()).or_insert_with(now_ms);
            }
            let fate = match (known, existing) {
                (Some(_), _) | (None, Some(true)) => Fate::Never,
                (None, Some(false)) => Fate::Accepted(id),
                // A use of the key whose outcome is unknown may have been the first.
                (None, None) => {
                    let doubtful = draft.wish.key.as_ref().is_some_and(|key| {
                        let unknown = |wish: &Wish| wish.key.as_ref() == Some(key) && wish.fate == Fate::Unknown;
                        told.unsure_keys.contains(key) || told.wishes.iter().any(unknown)
                    });
                    if doubtful { Fate::Unknown } else { Fate::Accepted(id) }
                }
            };
            told.wishes.push(Wish { fate, at: now_ms(), ..draft.wish });
        }
    }
}

/// A user who keeps cancelling, retrying and pausing.
struct Meddler {
    pool: PgPool,
    told: Arc<Mutex<Told>>,
    dice: Dice,
}

impl Meddler {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            match self.dice.below(12) {
                0..=4 => self.intervene(false).await,
                5..=7 => self.intervene(true).await,
                8 => self.intervene_in_batch().await,
                _ => self.pause().await,
            }
            let pause = self.dice.seconds(0.05, 0.4);
            tokio::time::sleep(pause).await;
        }
        let _ = sqlx::query("delete from sluice.pause").execute(&self.pool).await;
    }

    /// Cancels one of the latest jobs, or retries one that was cancelled or any other.
    async fn intervene(&mut self, retry: bool) {
        let job = {
            let told = self.told.lock().unwrap();
            let cancelled: Vec<i64> = told.interventions.keys().copied().collect();
            let latest = told.wishes.iter().rev().filter_map(|wish| match wish.fate {
                Fate::Accepted(id) => Some(id),
                _ => None,
            });
            let latest: Vec<i64> = latest.take(250).collect();
            let from = if retry && self.dice.chance(0.7) { &cancelled } else { &latest };
            if from.is_empty() {
                return;
            }
            from[self.dice.below(from.len())]
        };
        let statement = if retry { "select sluice.retry($1::bigint)" } else { "select sluice.cancel($1::bigint)" };
        let answer = sqlx::query_scalar::<_, bool>(statement).bind(job).fetch_one(&self.pool).await;
        let mut told = self.told.lock().unwrap();
        let answer = answer.inspect_err(|error| told.failed(error)).ok();
        told.interventions.entry(job).or_default().push(Intervention { retry, answer, at: now_ms() });
    }

    async fn intervene_in_batch(&mut self) {
        let batch = format!("batch-{}", self.dice.below(12));
        let retry = self.dice.chance(0.5);
        let statement = if retry { "select sluice.retry($1::text)" } else { "select sluice.cancel($1::text)" };
        let done = sqlx::query(statement).bind(&batch).execute(&self.pool).await;
        let mut told = self.told.lock().unwrap();
        if let Err(error) = done {
            told.failed(&error);
        }
        told.doubtful_batches.push(batch);
    }

    /// Pauses something for a moment.
    async fn pause(&mut self) {
        let (kind, name) = match self.dice.below(4) {
            0 => ("route", "narrow".to_owned()),
            1 => ("project", "plum".to_owned()),
            2 => ("provider", super::providers::PROVIDERS[self.dice.below(3)].to_owned()),
            _ => ("batch", format!("batch-{}", self.dice.below(12))),
        };
        let paused = sqlx::query("insert into sluice.pause (kind, name) values ($1, $2) on conflict do nothing")
            .bind(kind)
            .bind(&name)
            .execute(&self.pool)
            .await;
        {
            let mut told = self.told.lock().unwrap();
            match paused {
                Ok(_) => told.pauses += 1,
                Err(error) => told.failed(&error),
            }
        }
        let rest = self.dice.seconds(0.1, 1.0);
        tokio::time::sleep(rest).await;
        let _ = sqlx::query("delete from sluice.pause where kind = $1 and name = $2")
            .bind(kind)
            .bind(&name)
            .execute(&self.pool)
            .await;
    }
}
