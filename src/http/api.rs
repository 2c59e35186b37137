//! The API: the views that the command line shows, as JSON under `/api/v1`, and the changes that it makes.

mod endpoints;

pub use endpoints::document;

use super::params::Params;
use super::problem::{OrProblem, Problem};
use super::site::Site;
use super::tasks::Task;
use super::wish::{self, Proposal, ScheduleChange};
use crate::domain::pause::PauseKind;
use crate::domain::report::{ReportBy, ReportKind, says_nothing};
use crate::domain::schedule::Zone;
use crate::domain::{ChatRequest, JobId, MustKeep, Rung};
use crate::store::report::Filter;
use crate::store::selection::{SelectedJob, Selection};
use crate::view::alert::AlertView;
use crate::view::batch::{BatchView, HeldBatchView, enqueues_table};
use crate::view::budget::BudgetView;
use crate::view::change::{JobChangeView, PauseChangeView};
use crate::view::compare;
use crate::view::course;
use crate::view::dollars::Dollars;
use crate::view::finding::DiagnosisView;
use crate::view::game_day::{GameDayReportView, GameDayView};
use crate::view::job::{Bodies, JobView};
use crate::view::moment;
use crate::view::report::asked;
use crate::view::report::periods::{self, Against, Periods};
use crate::view::schedule::{ScheduleView, TickView};
use crate::view::status::StatusView;
use crate::view::story::StoryView;
use crate::view::table::Table;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Rows of a page, unless a client says how many.
const USUAL: usize = 50;
/// The most rows of a page.
const MOST: usize = 1000;
/// How long jobs are looked for.
const FOR_JOBS: Duration = Duration::from_millis(800);

/// What a client says in the query.
type QueryPairs = Query<Vec<(String, String)>>;
type Here = State<Arc<Site>>;

/// The paths below `/api/v1`.
pub(super) fn router() -> Router<Arc<Site>> {
    Router::new()
        .route("/status", get(status))
        .route("/batches", get(batches))
        .route("/batches/{name}", get(batch))
        .route("/batches/{name}/enqueues", get(enqueues))
        .route("/batches/{name}/{action}", post(change_batch))
        .route("/jobs", get(jobs).post(change_jobs))
        .route("/jobs/{job}", get(job))
        .route("/jobs/{job}/{action}", post(change_job))
        .route("/routes/{name}/{action}", post(change_route))
        .route("/projects/{name}/{action}", post(change_project))
        .route("/providers/{name}/{action}", post(change_provider))
        .route("/reports/{kind}", get(report))
        .route("/budgets", get(budgets))
        .route("/budgets/{name}", post(change_budget))
        .route("/schedules", get(schedules))
        .route("/schedules/{name}/{action}", post(change_schedule))
        .route("/game-days", get(game_days))
        .route("/game-days/{name}", get(game_day))
        .route("/alerts", get(alerts))
        .route("/doctor", get(doctor))
        .route("/tasks", get(tasks))
        .route("/tasks/{task}", get(task))
        .route("/openapi.json", get(async || Json(document())))
        .fallback(async || Problem::not_found("there is no such path: /api/v1/openapi.json lists them"))
        .method_not_allowed_fallback(async || Problem {
            status: StatusCode::METHOD_NOT_ALLOWED,
            detail: "this path does not take this method: /api/v1/openapi.json says which it takes".to_owned(),
        })
}

fn params(Query(pairs): QueryPairs) -> OrProblem<Params> {
    Params::of_pairs(pairs)
}

async fn status(State(site): Here, asked: QueryPairs) -> OrProblem<Json<StatusView>> {
    params(asked)?.finish()?;
    Ok(Json(StatusView::from(site.look(async |store| store.status().await).await?)))
}

/// Some of many, and where the next page begins.
#[derive(Serialize)]
struct BatchesPage {
    batches: Vec<BatchView>,
    /// What `after` takes for the next page; `None`: there is none.
    next: Option<String>,
}

async fn batches(State(site): Here, asked: QueryPairs) -> OrProblem<Json<BatchesPage>> {
    let mut params = params(asked)?;
    let (limit, after) = (params.limit(USUAL, MOST)?, params.text("after"));
    params.finish()?;
    let mut found = site.look(async |store| store.batches_after(after.as_deref(), limit + 1).await).await?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| is_more).map(|batch| batch.name.clone());
    Ok(Json(BatchesPage { batches: found.iter().map(BatchView::of).collect(), next }))
}

async fn batch(State(site): Here, Path(name): Path<String>, asked: QueryPairs) -> OrProblem<Json<HeldBatchView>> {
    params(asked)?.finish()?;
    let found = site.look(async |store| {
        let Some(batch) = store.batch(&name).await? else { return Ok(None) };
        let (obstacle, long_calls) = store.standstill(&batch).await?;
        Ok(Some(HeldBatchView::of(&batch, obstacle.as_ref(), long_calls.as_ref())))
    });
    found.await?.map(Json).ok_or_else(|| Problem::not_found(format!("there is no batch {name:?}")))
}

/// The most enqueues of a batch that are listed.
const MOST_ENQUEUES: i64 = 1000;

async fn enqueues(State(site): Here, Path(name): Path<String>, asked: QueryPairs) -> OrProblem<Json<Table>> {
    params(asked)?.finish()?;
    let found = site.look(async |store| {
        let found = store.enqueues(&name, MOST_ENQUEUES).await?;
        Ok(if found.is_empty() && store.batch(&name).await?.is_none() { None } else { Some(found) })
    });
    let found = found.await?.ok_or_else(|| Problem::not_found(format!("there is no batch {name:?}")))?;
    Ok(Json(enqueues_table(&found)))
}

/// A job in a list.
#[derive(Serialize)]
struct JobLine {
    job: i64,
    route: String,
    project: String,
    batch: Option<String>,
    custom_id: Option<String>,
    state: &'static str,
    /// Calls made for it; `None`: it has not ended.
    attempts: Option<i16>,
    /// All its calls together; `None`: it has not ended, or a price is unknown.
    cost: Option<Dollars>,
    error_class: Option<String>,
    error: Option<String>,
}

impl From<SelectedJob> for JobLine {
    fn from(job: SelectedJob) -> Self {
        let SelectedJob { job, route, project, batch, custom_id, state, attempts, error_class, error, cost } = job;
        let (state, cost) = (state.as_str(), cost.map(Dollars));
        Self { job, route, project, batch, custom_id, state, attempts, cost, error_class, error }
    }
}

/// Some jobs, the newest first.
#[derive(Serialize)]
struct JobsPage {
    jobs: Vec<JobLine>,
    /// What `below` takes for the next page; `None`: there is none. Looking for few among many ends early, so a page
    /// may have fewer jobs than asked for.
    next: Option<i64>,
}

async fn jobs(State(site): Here, asked: QueryPairs) -> OrProblem<Json<JobsPage>> {
    let mut params = params(asked)?;
    let selection = params.selection()?;
    let limit = params.limit(USUAL, MOST)?;
    let below = params.parsed("below", "a job's number")?;
    params.finish()?;
    let page = site.look(async |store| store.selected(&selection, below, limit, FOR_JOBS).await).await?;
    Ok(Json(JobsPage { jobs: page.jobs.into_iter().map(JobLine::from).collect(), next: page.next }))
}

async fn job(State(site): Here, Path(job): Path<String>, asked: QueryPairs) -> OrProblem<Json<StoryView>> {
    let mut params = params(asked)?;
    let wants_bodies = params.flag("bodies")?;
    params.finish()?;
    let job = number(&job)?;
    let bodies = bodies(&site, wants_bodies)?;
    story(&site, job, bodies).await.map(Json)
}

/// What a client may see of a job's prompt and answer.
fn bodies(site: &Site, wants: bool) -> OrProblem<Bodies> {
    if wants && !site.bodies {
        let words = "prompts and answers are not shown here: set bodies = true in [http], or use `sluice job show`";
        return Err(Problem { status: StatusCode::FORBIDDEN, detail: words.to_owned() });
    }
    Ok(Bodies { request: wants, response: wants })
}

/// A job with its ledger.
pub(super) async fn story(site: &Site, job: i64, bodies: Bodies) -> OrProblem<StoryView> {
    let id = JobId(job);
    let found = site.look(async |store| {
        let Some(record) = store.job(id).await? else { return Ok(None) };
        let shadow = match record.shadow {
            Some(shadow) => store.job(JobId(shadow)).await?,
            None => None,
        };
        Ok(Some((record, store.job_attempts(id).await?, shadow)))
    });
    let Some((record, attempts, shadow)) = found.await? else {
        return Err(Problem::not_found(format!("there is no job {job}")));
    };
    let observer = site.gauged.observer();
    let routes = observer.routes();
    let find = |name: &str| routes.get(name).map(|route| &**route);
    let refuses = |rung: &Rung, request: &ChatRequest, must_keep: &MustKeep| observer.refusal(rung, request, must_keep);
    let course = course::by(&find, routes.len(), &record, &attempts, observer.now(), &refuses);
    let mut story = StoryView::of(JobView::of(record, bodies), attempts, course);
    if let Some(shadow) = &shadow {
        story.take_shadow(shadow);
    }
    Ok(story)
}

fn number(text: &str) -> OrProblem<i64> {
    text.parse().map_err(|_| Problem::not_found(format!("{text:?} is no job's number")))
}

async fn change_job(
    State(site): Here,
    Path((job, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Json<JobChangeView>> {
    let mut params = Params::of_json(&body)?;
    let deed = wish::deed(&site, &action, &mut params)?;
    params.finish()?;
    wish::change_job(&site, number(&job)?, &deed).await.map(Json)
}

/// The outcome of a request to change many jobs.
enum ManyChanged {
    Would(Proposal),
    Begun(Task),
}

impl IntoResponse for ManyChanged {
    fn into_response(self) -> Response {
        match self {
            Self::Would(proposal) => Json(proposal).into_response(),
            Self::Begun(task) => (StatusCode::ACCEPTED, Json(task)).into_response(),
        }
    }
}

async fn change_many(site: &Site, selection: Selection, action: &str, mut params: Params) -> OrProblem<ManyChanged> {
    let deed = wish::deed(site, action, &mut params)?;
    let (is_dry, is_all) = (params.flag("dry_run")?, params.flag("all")?);
    params.finish()?;
    if is_dry {
        return wish::propose(site, &selection, &deed).await.map(ManyChanged::Would);
    }
    wish::change_jobs(site, selection, deed, is_all).await.map(ManyChanged::Begun)
}

async fn change_jobs(State(site): Here, body: Bytes) -> OrProblem<ManyChanged> {
    let mut params = Params::of_json(&body)?;
    let selection = params.selection()?;
    let Some(action) = params.text("action") else {
        return Err(params.missing("action is missing: cancel, retry, pause, resume, move or priority"));
    };
    change_many(&site, selection, &action, params).await
}

async fn change_batch(
    State(site): Here,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Response> {
    if matches!(action.as_str(), "pause" | "resume") {
        return change_pause(&site, PauseKind::Batch, &name, &action, &body).await.map(IntoResponse::into_response);
    }
    let mut params = Params::of_json(&body)?;
    let selection = params.selection()?;
    if selection.batch.is_some() {
        return Err(Problem::bad("batch is in the path already"));
    }
    let selection = Selection { batch: Some(name), ..selection };
    change_many(&site, selection, &action, params).await.map(IntoResponse::into_response)
}

async fn change_pause(
    site: &Site,
    kind: PauseKind,
    name: &str,
    action: &str,
    body: &[u8],
) -> OrProblem<Json<PauseChangeView>> {
    let mut params = Params::of_json(body)?;
    let reason = params.text("reason");
    params.finish()?;
    let is_pause = match action {
        "pause" => true,
        "resume" => false,
        _ => {
            return Err(Problem::not_found(format!(
                "there is no {action:?}: a {} takes pause and resume",
                kind.as_str()
            )));
        }
    };
    wish::change_pause(site, kind, name, reason.as_deref(), is_pause).await.map(Json)
}

async fn change_route(
    State(site): Here,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Json<PauseChangeView>> {
    change_pause(&site, PauseKind::Route, &name, &action, &body).await
}

async fn change_project(
    State(site): Here,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Json<PauseChangeView>> {
    change_pause(&site, PauseKind::Project, &name, &action, &body).await
}

async fn change_provider(
    State(site): Here,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Json<PauseChangeView>> {
    change_pause(&site, PauseKind::Provider, &name, &action, &body).await
}

/// A report: a row for each group, whose first members are the groups' names.
#[derive(Serialize)]
struct ReportAnswer {
    report: &'static str,
    rows: Table,
    /// Attempts whose price is unknown, and which are not in the sums.
    unpriced_attempts: i64,
    /// Something else that has to be known beside the rows.
    note: Option<String>,
}

/// What a report is asked for.
pub(super) struct ReportWish {
    pub(super) kind: ReportKind,
    pub(super) by: Vec<ReportBy>,
    pub(super) filter: Filter,
    /// The period that it is compared with.
    pub(super) against: Option<Against>,
}

impl ReportWish {
    pub(super) fn read(kind: &str, params: &mut Params) -> OrProblem<Self> {
        let Some(kind) = ReportKind::named(kind) else {
            let known = ReportKind::names().join(", ");
            return Err(Problem::not_found(format!("there is no report {kind:?}; there are {known}")));
        };
        let by = params.list("by", ReportBy::named, || ReportBy::names().join(", "))?;
        if let Some(fault) = says_nothing(kind, &by) {
            return Err(Problem::bad(fault.trim_start_matches("--")));
        }
        let mut moment = |name| {
            let text: Option<String> = params.text(name);
            text.map(|text| moment::parse(&text).map_err(|fault| Problem::bad(format!("{name}: {fault}")))).transpose()
        };
        let filter = Filter {
            since: moment("since")?,
            until: moment("until")?,
            batch: params.text("batch"),
            project: params.text("project"),
            route: params.text("route"),
            login: params.text("login"),
            failures_only: false,
            shown: None,
        };
        if kind == ReportKind::Cache && (filter.batch.is_some() || filter.login.is_some()) {
            return Err(Problem::bad("what the cache saved is not kept by batch or login: leave batch and login out"));
        }
        let against = params
            .text("compare")
            .map(|text| periods::against(&text).map_err(|fault| Problem::bad(format!("compare: {fault}"))))
            .transpose()?;
        if against.is_some() {
            if filter.since.is_none() {
                return Err(Problem::bad(
                    "compare needs since: it compares the time from then on with as long a time before it, e.g. \
                     since=7d&compare=before",
                ));
            }
            if let Some(fault) = periods::without_pairs(&by) {
                return Err(Problem::bad(fault.replace("--", "")));
            }
        }
        Ok(Self { kind, by, filter, against })
    }

    pub(super) async fn answer(self, site: &Site) -> OrProblem<asked::ReportRead> {
        let Self { kind, by, mut filter, against } = self;
        let is_by_batch = by.contains(&ReportBy::Batch) && filter.batch.is_none();
        let by = asked::dimensions(kind, &by);
        let read = site.look(async |store| {
            let most = if is_by_batch { asked::MOST_BATCHES } else { 0 };
            let said = asked::show_latest(store, &mut filter, most).await?;
            let Some(against) = against else {
                let answer = asked::read(store, kind, &by, filter).await?;
                return Ok(Ok(asked::ReportRead { note: answer.note.or(said), ..answer }));
            };
            let Periods { before, now } = match periods::of(store, &filter, against).await? {
                Ok(periods) => periods,
                Err(fault) => return Ok(Err(fault)),
            };
            let told = format!("before: {}; now: {}", periods::in_words(&before), periods::in_words(&now));
            let before = asked::read(store, kind, &by, before).await?;
            let now = asked::read(store, kind, &by, now).await?;
            Ok(Ok(asked::ReportRead {
                table: compare::compare(&before.table, &now.table, by.len()),
                unpriced: before.unpriced + now.unpriced,
                note: Some(
                    [Some(told), said, before.note, now.note].into_iter().flatten().collect::<Vec<_>>().join("; "),
                ),
            }))
        });
        read.await?.map_err(|fault| Problem::bad(fault.replace("--", "")))
    }
}

async fn report(State(site): Here, Path(kind): Path<String>, asked: QueryPairs) -> OrProblem<Json<ReportAnswer>> {
    let mut params = params(asked)?;
    let wish = ReportWish::read(&kind, &mut params)?;
    params.finish()?;
    let report = wish.kind.as_str();
    let asked::ReportRead { table, unpriced, note } = wish.answer(&site).await?;
    Ok(Json(ReportAnswer { report, rows: table, unpriced_attempts: unpriced, note }))
}

/// Where all budgets stand.
pub(super) async fn standing(site: &Site) -> OrProblem<Vec<BudgetView>> {
    let read = site.look(async |store| {
        let now = DateTime::from_timestamp_millis(store.known().await?.now.0).unwrap_or_default();
        let rows = store.budget_rows().await?;
        let needs = store.budget_needs(rows.iter().map(|row| &row.standing.budget)).await?;
        Ok((now, rows, needs))
    });
    let (now, rows, needs) = read.await?;
    let view = |row: &_| {
        let view = BudgetView::of(row, now);
        let need = needs.get(&view.budget).copied();
        view.beside(need, Vec::new())
    };
    Ok(rows.iter().map(view).collect())
}

async fn budgets(State(site): Here, asked: QueryPairs) -> OrProblem<Json<Vec<BudgetView>>> {
    params(asked)?.finish()?;
    standing(&site).await.map(Json)
}

async fn change_budget(State(site): Here, Path(name): Path<String>, body: Bytes) -> OrProblem<Json<BudgetView>> {
    let mut params = Params::of_json(&body)?;
    let limit = params.text("limit").ok_or_else(|| params.missing("limit is missing: dollars, such as \"25\""))?;
    params.finish()?;
    wish::change_budget(&site, &name, &limit).await?;
    let found = standing(&site).await?.into_iter().find(|budget| budget.budget == name);
    found.map(Json).ok_or_else(|| Problem::not_found(format!("there is no budget {name:?}")))
}

/// The schedules that workers have, and the newest ticks of each.
#[derive(Serialize)]
struct SchedulesAnswer {
    schedules: Vec<ScheduleView>,
    ticks: Vec<TickView>,
}

/// The newest ticks of each schedule that are shown.
const TICKS: i64 = 10;

/// The schedules that workers have, and their newest ticks, the latest first.
pub(super) async fn schedules_and_ticks(site: &Site) -> OrProblem<(Vec<ScheduleView>, Vec<TickView>)> {
    let read = site.look(async |store| {
        let at = store.schedules_at().await?;
        Ok((at, store.ticks(None, TICKS).await?))
    });
    let (at, rows) = read.await?;
    let now = DateTime::from_timestamp_millis(at.now.0).unwrap_or_default();
    let views = ScheduleView::all(&at.rows, &[], &rows, now);
    let zone = |name: &str| {
        let view = views.iter().find(|view| view.schedule == name)?;
        Zone::parse(&view.timezone).ok()
    };
    let mut ticks: Vec<TickView> = rows.iter().map(|row| TickView::of(row, zone(&row.schedule))).collect();
    ticks.sort_by(|one, other| other.tick.cmp(&one.tick).then_with(|| one.schedule.cmp(&other.schedule)));
    Ok((views, ticks))
}

async fn schedules(State(site): Here, asked: QueryPairs) -> OrProblem<Json<SchedulesAnswer>> {
    params(asked)?.finish()?;
    let (schedules, ticks) = schedules_and_ticks(&site).await?;
    Ok(Json(SchedulesAnswer { schedules, ticks }))
}

async fn change_schedule(
    State(site): Here,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> OrProblem<Json<ScheduleChange>> {
    let mut params = Params::of_json(&body)?;
    let reason = params.text("reason");
    params.finish()?;
    wish::change_schedule(&site, &name, &action, reason.as_deref()).await.map(Json)
}

/// The game days of the worker's configuration.
pub(super) fn game_days_of(site: &Site) -> Vec<GameDayView> {
    let observer = site.gauged.observer();
    observer.game_days().iter().map(|day| GameDayView::of(day, observer.now())).collect()
}

/// What one of them did.
pub(super) async fn game_day_report(site: &Site, name: &str) -> OrProblem<GameDayReportView> {
    let observer = site.gauged.observer();
    let days = observer.game_days();
    let Some(day) = days.iter().find(|day| day.name == name) else {
        let known: Vec<&str> = days.iter().map(|day| day.name.as_str()).collect();
        let known =
            if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(Problem::not_found(format!("there is no game day {name:?}; {known}")));
    };
    let outcomes = site.look(async |store| store.game_day(day).await).await?;
    Ok(GameDayReportView::of(GameDayView::of(day, observer.now()), &outcomes))
}

async fn game_days(State(site): Here, asked: QueryPairs) -> OrProblem<Json<Vec<GameDayView>>> {
    params(asked)?.finish()?;
    Ok(Json(game_days_of(&site)))
}

async fn game_day(
    State(site): Here,
    Path(name): Path<String>,
    asked: QueryPairs,
) -> OrProblem<Json<GameDayReportView>> {
    params(asked)?.finish()?;
    game_day_report(&site, &name).await.map(Json)
}

/// The alerts that fire; with `all` also those of lately that are over.
pub(super) async fn alerts_of(site: &Site, all: bool) -> OrProblem<Vec<AlertView>> {
    let rows = site.look(async |store| store.alerts(all).await).await?;
    Ok(rows.into_iter().map(AlertView::from).collect())
}

async fn alerts(State(site): Here, asked: QueryPairs) -> OrProblem<Json<Vec<AlertView>>> {
    let mut params = params(asked)?;
    let all = params.flag("all")?;
    params.finish()?;
    alerts_of(&site, all).await.map(Json)
}

/// What the doctor finds.
#[derive(Serialize)]
struct DoctorAnswer<'a> {
    /// When it looked: at most once a minute.
    looked_at: DateTime<Utc>,
    #[serde(flatten)]
    found: DiagnosisView<'a>,
}

async fn doctor(State(site): Here, asked: QueryPairs) -> OrProblem<Response> {
    params(asked)?.finish()?;
    let found = site.diagnosis().await?;
    Ok(Json(DoctorAnswer { looked_at: found.looked_at, found: DiagnosisView::of(&found.findings) }).into_response())
}

async fn tasks(State(site): Here, asked: QueryPairs) -> OrProblem<Json<Vec<Task>>> {
    params(asked)?.finish()?;
    Ok(Json(site.tasks.all()))
}

async fn task(State(site): Here, Path(task): Path<String>, asked: QueryPairs) -> OrProblem<Json<Task>> {
    params(asked)?.finish()?;
    let found = task.parse().ok().and_then(|task| site.tasks.get(task));
    found.map(Json).ok_or_else(|| {
        Problem::not_found(format!("there is no change {task:?}: a worker remembers the last 50 that it was asked for"))
    })
}
