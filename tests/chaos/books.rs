//! The reckoning: what the application was told, what the ledger says and what the simulator counted, one by one.

use super::load::{Fate, Intervention, Told};
use super::stage::{Diary, Stage, Window};
use super::{Finding, MAX_ATTEMPTS};
use sluice::domain::ErrorClass;
use sluice::simulate::CallRecord;
use sqlx::{FromRow, PgPool};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How long an answer may be in a worker's hands before it is safe: until the database has taken it or, when that does
/// not answer, the spool. A worker that is killed meanwhile takes it along. Milliseconds.
const IN_HAND: i64 = 8_000;
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
    message: Option<String>,
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
           (extract(epoch from ended_at) * 1000)::bigint as ended, accepted, class, detail, message, request_id,
           cost_nanos, uncertain_nanos, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000)::bigint as known
      from sluice.attempt order by job_id, started_at, fence, number";

/// What was counted, in the order in which it is to be read.
#[derive(Debug, Default)]
pub struct Table(Vec<(String, String)>);

impl Table {
    pub fn add(&mut self, what: impl Into<String>, count: impl ToString) {
        self.0.push((what.into(), count.to_string()));
    }

    pub fn print(&self) {
        let width = self.0.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, count) in &self.0 {
            eprintln!("  {what:width$}  {count:>14}");
        }
    }
}

/// Checks everything; what is wrong is added to the findings of the stage.
pub async fn reckon(stage: &mut Stage, told: Told) -> Table {
    let mut table = Table::default();
    let jobs: Vec<Job> = fetch(&stage.pool, JOBS).await;
    let rows: Vec<Row> = fetch(&stage.pool, ROWS).await;
    let mut calls = stage.simulator.calls(usize::MAX);
    calls.sort_by_key(|call| call.arrived_ms);

    stage.findings.extend(told.findings.iter().cloned());
    let mut findings = Vec::new();
    endings(&jobs, &told, &mut table, &mut findings);
    let audit = stage.store().audit().await.unwrap();
    findings.extend(audit.faults().into_iter().map(|fault| Finding::of(format!("audit: {fault}"))));
    if audit.unfinished > 0 {
        findings.push(Finding::of(format!("{} jobs are not finished", audit.unfinished)));
    }
    let matched = Matched::of(&jobs, &rows, &calls, &told, stage.simulator_began, &mut findings);
    matched.judge(&stage.diary, &mut table, &mut findings);
    attempts(&jobs, &rows, &mut findings);
    cancelled(&jobs, &rows, &told, &mut findings);
    manners(stage, &calls, &mut table, &mut findings);
    stage.findings.extend(findings);
    table
}

async fn fetch<T>(pool: &PgPool, query: &'static str) -> Vec<T>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(query).fetch_all(pool).await.unwrap()
}

/// 1. Every job that was accepted has ended once, and no other exists.
fn endings(jobs: &[Job], told: &Told, table: &mut Table, findings: &mut Vec<Finding>) {
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
    let mut transactions: BTreeMap<u64, Vec<(&str, bool)>> = BTreeMap::new();
    for wish in &told.wishes {
        let found = by_tag.get(wish.tag.as_str());
        match wish.fate {
            Fate::Accepted(id) => {
                fates[0] += 1;
                if found.is_none_or(|job| job.id != id) {
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

/// Each call with the row that it has on the ledger.
struct Matched<'a> {
    pairs: Vec<(&'a CallRecord, &'a Row)>,
    /// Calls that are on nobody's books.
    unbooked: Vec<(&'a CallRecord, Option<i64>)>,
    /// Rows without a call.
    uncalled: Vec<&'a Row>,
    cancelled: HashSet<i64>,
    began: i64,
    charged: u64,
}

impl<'a> Matched<'a> {
    /// By request id where the answer's head came, else by job and target in the order of time.
    fn of(
        jobs: &[Job],
        rows: &'a [Row],
        calls: &'a [CallRecord],
        told: &Told,
        began: i64,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let ids: HashMap<&str, i64> = jobs.iter().map(|job| (job.custom_id.as_str(), job.id)).collect();
        let job_of: HashMap<String, Option<i64>> = told
            .wishes
            .iter()
            .map(|wish| (format!("{:016x}", wish.prompt), ids.get(wish.tag.as_str()).copied()))
            .collect();
        let mut by_request: HashMap<&str, &Row> = HashMap::new();
        let mut cut: HashMap<(i64, &str, &str), Vec<&Row>> = HashMap::new();
        for row in rows {
            match &row.request_id {
                None => cut.entry((row.job_id, &row.provider, &row.model)).or_default().push(row),
                Some(id) => {
                    if by_request.insert(id, row).is_some() {
                        let what = format!("the call {id} is booked twice");
                        findings.push(Finding { what, job: Some(row.job_id) });
                    }
                }
            }
        }
        let (mut pairs, mut open) = (Vec::new(), Vec::new());
        for call in calls {
            match by_request.remove(call.request_id.as_str()) {
                Some(row) => pairs.push((call, row)),
                None => open.push(call),
            }
        }
        let mut unbooked = Vec::new();
        for call in open {
            let Some(job) = job_of.get(&call.request).copied().flatten() else {
                unbooked.push((call, None));
                continue;
            };
            // The latest row that had begun when the call arrived: those before it may never have been sent.
            let arrived = began + i64::try_from(call.arrived_ms).unwrap();
            let candidates = cut.entry((job, &call.provider, &call.model)).or_default();
            let latest = candidates.iter().rposition(|row| row.started <= arrived + CLOCKS);
            match latest {
                Some(at) => pairs.push((call, candidates.remove(at))),
                None => unbooked.push((call, Some(job))),
            }
        }
        let uncalled = cut.into_values().flatten().chain(by_request.into_values()).collect();
        let cancels = |list: &[Intervention]| list.iter().any(|one| !one.retry && one.answer != Some(false));
        let mut cancelled: HashSet<i64> =
            told.interventions.iter().filter(|(_, list)| cancels(list)).map(|(job, _)| *job).collect();
        let batches: HashSet<&str> = told.doubtful_batches.iter().map(String::as_str).collect();
        let in_batch = |job: &&Job| job.batch.as_deref().is_some_and(|batch| batches.contains(batch));
        cancelled.extend(jobs.iter().filter(in_batch).map(|job| job.id));
        let charged = calls.iter().filter_map(|call| call.nano_usd).sum();
        Self { pairs, unbooked, uncalled, cancelled, began, charged }
    }

    /// 2, 3 and 5: no call without a row, no row without a call, and the same money on both sides.
    fn judge(&self, diary: &Diary, table: &mut Table, findings: &mut Vec<Finding>) {
        let mut finding = |job: Option<i64>, what: String| findings.push(Finding { what, job });
        let wall = |millis: u64| self.began + i64::try_from(millis).unwrap();
        let mut lost_answers = 0_u64;
        let (mut same_money, mut uncertain_money) = (0_u64, 0_u64);
        let mut placeholders = 0_u64;
        for (call, row) in &self.pairs {
            let charged = i64::try_from(call.nano_usd.unwrap_or(0)).unwrap();
            let cost = row.cost_nanos.unwrap_or(-1);
            let named = cost == 0 && row.uncertain_nanos >= charged && row.uncertain_nanos > 0;
            if cost == charged {
                same_money += call.nano_usd.unwrap_or(0);
            } else if named {
                uncertain_money += call.nano_usd.unwrap_or(0);
            } else {
                finding(
                    Some(row.job_id),
                    format!("the provider charged {charged}, the ledger says {cost}: {call:?}, {row:?}"),
                );
            }
            let good = call.charged && matches!(call.fault, None | Some("slow" | "slow_drip"));
            if row.request_id.is_some() {
                let used = row.accepted || row.is("abandoned", Some("late"));
                if good && !used {
                    finding(Some(row.job_id), format!("a good answer was thrown away: {call:?}, {row:?}"));
                }
                continue;
            }
            placeholders += u64::from(row.is("abandoned", Some("worker_died")));
            if !call.charged {
                continue;
            }
            // Given out in full, and nobody has it.
            lost_answers += 1;
            let ended = wall(call.ended_ms);
            let killed = diary.kills.iter().any(|kill| (row.started..=ended + IN_HAND).contains(kill));
            let paused = diary.pauses.iter().any(|pause| pause.meets(row.started, row.ended));
            let excused = match row.class.as_deref() {
                Some("abandoned") if row.detail.as_deref() == Some("worker_died") => killed,
                Some("abandoned") => self.cancelled.contains(&row.job_id),
                Some("timeout" | "network") => paused,
                _ => false,
            };
            if !excused {
                finding(Some(row.job_id), format!("an answer that was given out is lost: {call:?}, {row:?}"));
            }
        }
        for (call, job) in &self.unbooked {
            finding(*job, format!("a call is on nobody's books: {call:?}"));
        }
        let mut unsent: BTreeMap<String, u64> = BTreeMap::new();
        for row in &self.uncalled {
            let class = row.class.as_deref().unwrap_or("accepted");
            *unsent.entry([class, row.detail.as_deref().unwrap_or("")].join(" ")).or_default() += 1;
            let paused = diary.pauses.iter().any(|pause| pause.meets(row.started, row.ended));
            let excused = row.request_id.is_none()
                && match class {
                    "abandoned" | "unreachable" => true,
                    // It was stopped before it had sent anything, and found its time over.
                    "timeout" | "network" => paused,
                    _ => false,
                };
            if !excused || row.cost_nanos != Some(0) {
                finding(Some(row.job_id), format!("a row without a call: {row:?}"));
            }
        }
        table.add("calls at the providers", self.pairs.len() + self.unbooked.len());
        table.add("  on the ledger by their request id", self.pairs.iter().filter(|(_, r)| r.request_id.is_some()).count());
        table.add("  on the ledger as cut", self.pairs.iter().filter(|(_, row)| row.request_id.is_none()).count());
        table.add("    of them with a worker that died", placeholders);
        table.add("  on nobody's books", self.unbooked.len());
        table.add("answers given out in full that nobody has", lost_answers);
        for (class, count) in unsent {
            table.add(format!("rows without a call: {class}"), count);
        }
        table.add("nano-dollars charged by the providers", self.charged);
        table.add("  on the ledger as cost", same_money);
        table.add("  on the ledger as uncertain", uncertain_money);
    }
}

impl Row {
    fn is(&self, class: &str, detail: Option<&str>) -> bool {
        self.class.as_deref() == Some(class) && self.detail.as_deref() == detail
    }

    /// Whether it uses up one of the attempts that a job has.
    fn counts(&self) -> bool {
        let class = |name: &str| ErrorClass::ALL.iter().find(|class| class.as_str() == name);
        self.class.as_deref().is_none_or(|name| class(name).is_none_or(|class| class.uses_up_an_attempt()))
    }
}

/// 4. No job ran an attempt too many: whoever began a call knew of fewer attempts than are allowed.
fn attempts(jobs: &[Job], rows: &[Row], findings: &mut Vec<Finding>) {
    let jobs: HashMap<i64, &Job> = jobs.iter().map(|job| (job.id, job)).collect();
    let mut of_job: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        of_job.entry(row.job_id).or_default().push(row);
    }
    for (id, rows) in of_job {
        let Some(job) = jobs.get(&id) else { continue };
        let routes = MAX_ATTEMPTS.iter().find(|(route, _)| *route == job.route).map_or(0, |(_, most)| *most);
        let most = job.max_attempts.map_or(routes, |most| usize::try_from(most).unwrap());
        for row in &rows {
            let claimed = rows.iter().filter(|other| other.fence == row.fence).map(|other| other.started).min();
            // A row of an earlier claim was known when it was committed before this one, which is itself not known: it
            // lies some seconds at most before the first call under it.
            let known = rows.iter().filter(|other| {
                let same = other.fence == row.fence && other.number < row.number;
                let earlier = other.fence != row.fence
                    && other.known.zip(claimed).is_some_and(|(known, claimed)| known < claimed - 3_000);
                other.round == row.round && other.counts() && (same || earlier)
            });
            let known = known.count();
            if known >= most {
                findings.push(Finding {
                    what: format!("{} was tried {known} times, {most} are allowed, and then came {row:?}", job.custom_id),
                    job: Some(id),
                });
                break;
            }
        }
        // And whoever has an answer calls no more.
        if let Some(accepted) = rows.iter().find(|row| row.accepted) {
            if rows.iter().filter(|row| row.accepted).count() > 1 {
                findings.push(Finding { what: "two answers were accepted".to_owned(), job: Some(id) });
            }
            let after = rows.iter().find(|row| accepted.known.is_some_and(|known| row.started > known + 3_000));
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

/// Nobody is called after its cancellation was committed; and who was cancelled is, unless it was retried.
fn cancelled(jobs: &[Job], rows: &[Row], told: &Told, findings: &mut Vec<Finding>) {
    let jobs: HashMap<i64, &Job> = jobs.iter().map(|job| (job.id, job)).collect();
    let batches: HashSet<&str> = told.doubtful_batches.iter().map(String::as_str).collect();
    for (id, list) in &told.interventions {
        let Some(job) = jobs.get(id) else { continue };
        let untouched = job.batch.as_deref().is_none_or(|batch| !batches.contains(batch));
        let sure = list.iter().all(|one| one.answer.is_some());
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
        if job.state.as_deref() == Some("cancelled") && job.ended.is_some_and(|ended| row.started > ended + CLOCKS) {
            let (late, row) = (row.started - job.ended.unwrap_or(0), row);
            let what = format!("called {late} ms after it was cancelled: {row:?}");
            findings.push(Finding { what, job: Some(row.job_id) });
        }
    }
}

/// 6. Nobody comes before the time that was told, as far as those who came could know of it.
fn manners(stage: &Stage, calls: &[CallRecord], table: &mut Table, findings: &mut Vec<Finding>) {
    let verdict = stage.simulator.verdict();
    let wall = |millis: u64| stage.simulator_began + i64::try_from(millis).unwrap();
    let windows = |from: i64, until: i64| {
        let Diary { kills, pauses, apart, .. } = &stage.diary;
        kills.iter().any(|kill| Window { from: *kill - 1_000, until: *kill }.meets(from, until))
            || pauses.iter().chain(apart).any(|window| window.meets(from, until))
    };
    let mut excused = 0_u64;
    for early in calls.iter().filter(|call| call.early) {
        // Whoever was told may have died with it, or may have been unable to tell.
        let told = calls.iter().filter(|call| {
            let opens = call.told_ms.map(|wait| call.ended_ms + wait);
            call.provider == early.provider
                && call.ended_ms <= early.arrived_ms
                && opens.is_some_and(|opens| early.arrived_ms < opens)
        });
        let mut told = told.peekable();
        let known = told.peek().is_some() && told.all(|told| !windows(wall(told.ended_ms), wall(early.arrived_ms)));
        if known {
            findings.push(Finding::of(format!("came too early: {early:?}")));
        } else {
            excused += 1;
        }
    }
    for (count, what) in [
        (verdict.total.retried_non_retryables, "requests sent again after an answer that can only repeat itself"),
        (verdict.total.malformed_requests, "malformed requests"),
    ] {
        if count > 0 {
            findings.push(Finding::of(format!("{count} {what}")));
        }
    }
    table.add("answers 429", verdict.total.rate_limited);
    table.add("  calls before their time, which nobody could know", excused);
    table.add("requests that were answered well twice", verdict.answered_twice);
    table.add("most calls for one request", verdict.max_calls_per_request);
    table.add("faults at the providers", verdict.total.by_fault.values().sum::<u64>());
}
