//! The reckoning: what the application was told, what the ledger says and what the simulator counted, one by one.

mod matched;
#[cfg(test)]
mod tests;

use super::diary::{Diary, Window};
use super::load::{Fate, Told, Wish};
use super::providers::FIRST_BYTE;
use super::stage::Stage;
use super::{Finding, MAX_ATTEMPTS};
use matched::Matched;
use sluice::domain::ErrorClass;
use sluice::simulate::{CallRecord, Verdict};
use sqlx::{FromRow, PgPool};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;

/// How long an answer may be in a worker's hands before it is safe: until the database has taken it or, when that does
/// not answer, the spool. A worker that is killed meanwhile takes it along. Milliseconds.
const IN_HAND: i64 = 4_000;
/// For how long a worker believes an answer of the database that takes its time. Milliseconds.
const ANSWER: i64 = 6_000;
/// Two clocks that follow the same one. Milliseconds.
const CLOCKS: i64 = 250;

/// A job, where it is and how it ended.
#[derive(Debug, FromRow)]
struct Job {
    id: i64,
    custom_id: String,
    route: String,
    batch: Option<String>,
    idempotency_key: Option<String>,
    max_attempts: Option<i16>,
    places: i64,
    results: i64,
    state: Option<String>,
    /// When the result was committed.
    ended: Option<i64>,
    answered_by: Option<String>,
}

/// A row of the ledger. Instants in milliseconds.
#[derive(Debug, FromRow)]
struct Row {
    job_id: i64,
    fence: i64,
    number: i16,
    round: i16,
    provider: String,
    model: String,
    started: i64,
    ended: i64,
    accepted: bool,
    class: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
    cost_nanos: Option<i64>,
    uncertain_nanos: i64,
    /// When it was committed.
    known: Option<i64>,
}

const JOBS: &str = "
    select j.id, coalesce(j.custom_id, '') as custom_id, j.route, j.batch, j.idempotency_key, j.max_attempts,
           (select count(*) from sluice.ready r where r.job_id = j.id)
             + (select count(*) from sluice.parked p where p.job_id = j.id)
             + (select count(*) from sluice.inflight i where i.job_id = j.id) as places,
           (select count(*) from sluice.result r where r.job_id = j.id) as results,
           r.state, (extract(epoch from pg_xact_commit_timestamp(r.xmin)) * 1000)::bigint as ended,
           r.request_id as answered_by
      from sluice.job j left join sluice.result r on r.job_id = j.id";

const ROWS: &str = "
    select job_id, fence, number, round, provider, model, (extract(epoch from started_at) * 1000)::bigint as started,
           (extract(epoch from ended_at) * 1000)::bigint as ended, accepted, class, detail, request_id,
           cost_nanos, uncertain_nanos, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000)::bigint as known
      from sluice.attempt order by job_id, started_at, fence, number";

/// The counts, in the order in which they are to be read.
#[derive(Debug, Default)]
pub struct Table(Vec<(String, String)>);

impl Table {
    pub fn add(&mut self, what: impl Into<String>, count: impl Display) {
        self.0.push((what.into(), format!("{count}")));
    }

    pub fn print(&self) {
        let width = self.0.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, count) in &self.0 {
            eprintln!("  {what:width$}  {count:>14}");
        }
    }
}

/// What the three parties say.
struct Evidence {
    jobs: Vec<Job>,
    rows: Vec<Row>,
    /// In the order of arrival.
    calls: Vec<CallRecord>,
    told: Told,
    diary: Diary,
    /// The beginning of the simulator's time, in milliseconds of the wall clock.
    began: i64,
}

/// Checks everything; faults are added to the findings of the stage.
pub async fn reckon(stage: &mut Stage, told: Told) -> Table {
    let mut calls = stage.simulator.calls(usize::MAX);
    calls.sort_by_key(|call| call.arrived_ms);
    let evidence = Evidence {
        jobs: fetch(&stage.pool, JOBS).await,
        rows: fetch(&stage.pool, ROWS).await,
        calls,
        told,
        diary: std::mem::take(&mut stage.diary),
        began: stage.simulator_began,
    };
    let (mut table, findings) = evidence.judge();
    stage.findings.extend(evidence.told.findings);
    stage.findings.extend(findings);
    let audit = stage.store().audit().await.unwrap();
    stage.findings.extend(audit.faults().into_iter().map(|fault| Finding::of(format!("audit: {fault}"))));
    if audit.unfinished > 0 {
        stage.findings.push(Finding::of(format!("{} jobs are not finished", audit.unfinished)));
    }
    let went_back = !evidence.diary.lost.is_empty();
    stage.findings.extend(misconduct(&stage.simulator.verdict(), went_back, &mut table));
    stage.diary = evidence.diary;
    table
}

impl Evidence {
    fn judge(&self) -> (Table, Vec<Finding>) {
        let (mut table, mut findings) = (Table::default(), Vec::new());
        self.endings(&mut table, &mut findings);
        Matched::of(self, &mut findings).judge(self, &mut table, &mut findings);
        self.attempts(&mut findings);
        self.cancelled(&mut findings);
        self.manners(&mut table, &mut findings);
        (table, findings)
    }

    /// 1. Every job that was accepted has ended once, and no other exists.
    fn endings(&self, table: &mut Table, findings: &mut Vec<Finding>) {
        let Self { jobs, told, .. } = self;
        let mut finding = |job: Option<i64>, what: String| findings.push(Finding { what, job });
        let by_tag: HashMap<&str, &Job> = jobs.iter().map(|job| (job.custom_id.as_str(), job)).collect();
        if by_tag.len() != jobs.len() {
            finding(None, format!("{} jobs have {} different tags", jobs.len(), by_tag.len()));
        }
        for job in jobs {
            if (job.results, job.places) != (1, 0) {
                let (results, places) = (job.results, job.places);
                finding(Some(job.id), format!("{} has {results} results and is in {places} places", job.custom_id));
            }
        }
        let mut fates = [0_u64; 3];
        // Confirmed, and gone with what the database has lost: each has a name.
        let (mut gone, mut at_stake) = (Vec::new(), 0_u64);
        let mut transactions: BTreeMap<u64, Vec<(&str, bool)>> = BTreeMap::new();
        for wish in &told.wishes {
            let found = by_tag.get(wish.tag.as_str());
            match wish.fate {
                Fate::Accepted(id) => {
                    fates[0] += 1;
                    let may_be_lost = self.is_lost(wish.at - CLOCKS, wish.at);
                    at_stake += u64::from(may_be_lost);
                    if found.is_none() && may_be_lost {
                        gone.push(wish.tag.as_str());
                    } else if found.is_none_or(|job| job.id != id) {
                        finding(Some(id), format!("{} was accepted as job {id} and is lost: {found:?}", wish.tag));
                    }
                }
                Fate::Never => {
                    fates[1] += 1;
                    if let Some(job) = found {
                        finding(Some(job.id), format!("{} was never committed and exists", wish.tag));
                    }
                }
                Fate::Unknown => {
                    fates[2] += 1;
                    // With a key another job may stand for it.
                    if wish.key.is_none() {
                        transactions.entry(wish.transaction).or_default().push((&wish.tag, found.is_some()));
                    }
                }
            }
        }
        for wishes in transactions.values() {
            if wishes.iter().any(|(_, exists)| *exists != wishes[0].1) {
                finding(None, format!("half of a transaction is there: {wishes:?}"));
            }
        }
        let mut keyed: HashMap<&str, Vec<i64>> = HashMap::new();
        for job in jobs {
            if let Some(key) = &job.idempotency_key {
                keyed.entry(key).or_default().push(job.id);
            }
        }
        for (key, id) in &told.keys {
            if keyed.get(key.as_str()).is_none_or(|ids| ids[..] != [*id]) {
                finding(Some(*id), format!("the key {key} was of job {id}, and is of {:?}", keyed.get(key.as_str())));
            }
        }
        let in_state = |state: &str| jobs.iter().filter(|job| job.state.as_deref() == Some(state)).count();
        table.add("jobs accepted", fates[0]);
        table.add("  told in a time that the database may have lost", at_stake);
        table.add("  lost with it", gone.len());
        if !gone.is_empty() {
            eprintln!("chaos: jobs that were confirmed and are lost: {}", gone.join(", "));
        }
        table.add("jobs rolled back or refused", fates[1]);
        table.add("jobs whose commit was cut", fates[2]);
        table.add("jobs there", jobs.len());
        for state in ["succeeded", "failed", "cancelled"] {
            table.add(format!("  {state}"), in_state(state));
        }
        table.add("cancels and retries", told.interventions.values().map(Vec::len).sum::<usize>());
        table.add("pauses", told.pauses);
        table.add("statements of the application that failed", told.failed_statements);
    }

    /// 4. No job ran an attempt too many: a worker that began a call knew of fewer attempts than are allowed.
    fn attempts(&self, findings: &mut Vec<Finding>) {
        let jobs: HashMap<i64, &Job> = self.jobs.iter().map(|job| (job.id, job)).collect();
        let mut of_job: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            of_job.entry(row.job_id).or_default().push(row);
        }
        for (id, rows) in of_job {
            let Some(job) = jobs.get(&id) else { continue };
            let routes = MAX_ATTEMPTS.iter().find(|(route, _)| *route == job.route).map_or(0, |(_, most)| *most);
            let most = job.max_attempts.map_or(routes, |most| usize::try_from(most).unwrap());
            for row in &rows {
                let claimed = rows.iter().filter(|other| other.fence == row.fence).map(|other| other.started).min();
                // A row of an earlier claim was known when it was committed before this one, which is itself not known:
                // it lies some seconds at most before the first call under it.
                let known = rows.iter().filter(|other| {
                    let same = other.fence == row.fence && other.number < row.number;
                    let earlier = other.fence != row.fence
                        && other.known.zip(claimed).is_some_and(|(known, claimed)| known < claimed - 3_000);
                    other.round == row.round && other.counts() && (same || earlier)
                });
                let known = known.count();
                if known >= most {
                    findings.push(Finding {
                        what: format!(
                            "{} was tried {known} times, {most} are allowed, and then came {row:?}",
                            job.custom_id
                        ),
                        job: Some(id),
                    });
                    break;
                }
            }
            // And a job that has an answer is called no more.
            if let Some(accepted) = rows.iter().find(|row| row.accepted) {
                if rows.iter().filter(|row| row.accepted).count() > 1 {
                    findings.push(Finding { what: "two answers were accepted".to_owned(), job: Some(id) });
                }
                let begun_after = |row: &&&Row| accepted.known.is_some_and(|known| self.begun_after(row, known));
                let after = rows.iter().filter(|row| !self.is_lost_claim(row)).find(begun_after);
                if let Some(after) = after {
                    findings.push(Finding { what: format!("called after it was answered: {after:?}"), job: Some(id) });
                }
                if job.state.as_deref() != Some("succeeded") || job.answered_by != accepted.request_id {
                    let what = format!("accepted {:?}, and the result says {job:?}", accepted.request_id);
                    findings.push(Finding { what, job: Some(id) });
                }
            }
        }
    }

    /// No job is called after its cancellation was committed; and a cancelled job stays so, unless it was retried.
    fn cancelled(&self, findings: &mut Vec<Finding>) {
        let Self { rows, told, .. } = self;
        let jobs: HashMap<i64, &Job> = self.jobs.iter().map(|job| (job.id, job)).collect();
        let batches: HashSet<&str> = told.doubtful_batches.iter().map(String::as_str).collect();
        for (id, list) in &told.interventions {
            let Some(job) = jobs.get(id) else { continue };
            let untouched = job.batch.as_deref().is_none_or(|batch| !batches.contains(batch));
            // The act may be undone, and the number may have been another job's.
            let told_lately =
                |wish: &&Wish| wish.fate == Fate::Accepted(*id) && self.is_lost(wish.at - CLOCKS, wish.at);
            let stable = !list.iter().any(|one| self.is_lost(one.at - CLOCKS, one.at))
                && (self.diary.lost.is_empty() || !told.wishes.iter().any(|wish| told_lately(&wish)));
            let sure = stable && list.iter().all(|one| one.answer.is_some());
            // The last one that did anything.
            let last = list.iter().rev().find(|one| one.answer == Some(true));
            let state = job.state.as_deref();
            let expected = match last {
                Some(last) if sure && untouched && !last.retry => state == Some("cancelled"),
                Some(_) | None if sure && untouched => state != Some("cancelled"),
                _ => true,
            };
            if !expected {
                findings.push(Finding { what: format!("{list:?}, and the job is {state:?}"), job: Some(*id) });
            }
        }
        for row in rows {
            let Some(job) = jobs.get(&row.job_id) else { continue };
            let is_cancelled = job.state.as_deref() == Some("cancelled");
            let begun_after = job.ended.is_some_and(|ended| self.begun_after(row, ended));
            if is_cancelled && begun_after && !self.is_lost_claim(row) {
                let (late, row) = (row.started - job.ended.unwrap_or(0), row);
                let what = format!("called {late} ms after it was cancelled: {row:?}");
                findings.push(Finding { what, job: Some(row.job_id) });
            }
        }
    }

    /// 6. No call comes before the time that a provider named, as far as the calling worker could know of it.
    fn manners(&self, table: &mut Table, findings: &mut Vec<Finding>) {
        let calls = &self.calls;
        let alone = |from: i64, until: i64| {
            let Diary { kills, pauses, apart, .. } = &self.diary;
            kills.iter().any(|kill| Window { from: *kill - 1_000, until: *kill }.meets(from, until))
                || pauses.iter().chain(apart).any(|window| window.meets(from, until))
        };
        let mut excused = 0_u64;
        for early in calls.iter().filter(|call| call.early) {
            let mut told = calls.iter().filter(|call| {
                let opens = call.told_ms.map(|wait| call.ended_ms + wait);
                call.provider == early.provider
                    && call.ended_ms <= early.arrived_ms
                    && opens.is_some_and(|opens| early.arrived_ms < opens)
            });
            // The worker that was told may have died with it, or may have been unable to pass it on.
            if told.all(|told| alone(self.wall(told.ended_ms), self.wall(early.arrived_ms))) {
                excused += 1;
            } else {
                findings.push(Finding::of(format!("came too early: {early:?}")));
            }
        }
        table.add("calls before their time, which no worker could know", excused);
    }

    /// Whether a call was begun that no worker could have been allowed after this instant. It was allowed when the
    /// database noted it: a worker that hears of that late, or hangs before it acts on it, calls later.
    fn begun_after(&self, row: &Row, instant: i64) -> bool {
        let between = |windows: &[Window]| windows.iter().any(|window| window.meets(instant, row.started));
        let late = row.started - instant;
        late > CLOCKS && !between(&self.diary.pauses) && (late > ANSWER || !between(&self.diary.apart))
    }

    /// Whether something that was committed between these instants may be lost.
    fn is_lost(&self, from: i64, until: i64) -> bool {
        self.diary.lost.iter().any(|window| window.meets(from, until))
    }

    /// Whether a call was allowed by a claim, or a retry, that the database may have lost.
    fn is_lost_claim(&self, row: &Row) -> bool {
        row.round < 0 || self.is_lost(row.started - ANSWER, row.started)
    }

    /// Whether the database may have lost what it knew of a call: that it was opened, or its outcome. While the
    /// database was away that waited, and was written when it was back.
    fn may_be_lost(&self, call: &CallRecord) -> bool {
        let (from, ended) = (self.wall(call.arrived_ms) - CLOCKS, self.wall(call.ended_ms));
        let Diary { apart, pauses, roomless, .. } = &self.diary;
        let waited = apart.iter().chain(pauses).chain(roomless).filter(|window| window.meets(from, ended + IN_HAND));
        let until = waited.map(|window| window.until + ANSWER).max().unwrap_or(0).max(ended + IN_HAND);
        self.is_lost(from, until)
    }

    /// An instant of the simulator's, in milliseconds of the wall clock.
    fn wall(&self, millis: u64) -> i64 {
        self.began + i64::try_from(millis).unwrap()
    }
}

async fn fetch<T>(pool: &PgPool, query: &'static str) -> Vec<T>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(query).fetch_all(pool).await.unwrap()
}

impl Row {
    fn is(&self, class: &str, detail: Option<&str>) -> bool {
        self.class.as_deref() == Some(class) && self.detail.as_deref() == detail
    }

    /// Whether it uses up one of the attempts that a job has.
    fn counts(&self) -> bool {
        let class = |name: &str| ErrorClass::ALL.iter().find(|class| class.as_str() == name);
        self.class.as_deref().is_none_or(|name| class(name).is_none_or(|class| class.facts().uses_up_an_attempt))
    }
}

/// The rest of the simulator's verdict.
fn misconduct(verdict: &Verdict, went_back: bool, table: &mut Table) -> Vec<Finding> {
    table.add("answers 429", verdict.total.rate_limited);
    table.add("requests that were answered well twice", verdict.answered_twice);
    table.add("most calls for one request", verdict.max_calls_per_request);
    table.add("faults at the providers", verdict.total.by_fault.values().sum::<u64>());
    // A lost answer is not known, and the request is sent again.
    let repeated = if went_back { 0 } else { verdict.total.retried_non_retryables };
    let counts = [
        (repeated, "requests sent again after an answer that can only repeat itself"),
        (verdict.total.malformed_requests, "malformed requests"),
    ];
    let wrong = counts.into_iter().filter(|(count, _)| *count > 0);
    wrong.map(|(count, what)| Finding::of(format!("{count} {what}"))).collect()
}
