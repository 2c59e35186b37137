//! The dashboard over a fleet as it may be on a Monday morning: a provider that fails, a batch that is paused, limits
//! that are used up. What an operator looks for is there, and the pictures of the documentation are taken of it.

use crate::support::browser::Browser;
use crate::support::picture::with_palette;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::Program;
use crate::support::site::Site;
use crate::support::wait::until;
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use std::path::{Path, PathBuf};

const SCENARIO: &str = r#"
seed = 3
[providers.groq]
dialect = "openai"
models.llama-small.price = { input = "0.11", output = "0.34" }
latency = { median = "120ms", p99 = "400ms" }
output = { uniform = [90, 260] }
faults = [{ kind = "empty", rate = 0.03 }]
[providers.openai]
dialect = "openai"
models.gpt-4o-mini.price = { input = "0.15", output = "0.60" }
models."gpt-4.1".price = { input = "2.00", output = "8.00" }
latency = { median = "60ms", p99 = "200ms" }
output = { uniform = [60, 200] }
faults = [{ kind = "400", containing = "attachment" }]
[providers.anthropic]
dialect = "anthropic"
models.claude-haiku-4-5.price = { input = "1.00", output = "5.00" }
faults = [{ kind = "overloaded" }]
"#;

const CONFIG: &str = r#"
[worker]
max_in_flight = 60
[http]
listen = "127.0.0.1:0"
[providers.groq]
dialect = "openai"
base_url = "http://simulator/groq/v1"
limits = { requests_per_minute = 300, tokens_per_minute = 2000000, concurrency = 20 }
[providers.openai]
dialect = "openai"
base_url = "http://simulator/openai/v1"
limits = { requests_per_minute = 10000, concurrency = 30 }
[providers.anthropic]
dialect = "anthropic"
base_url = "http://simulator/anthropic/v1"
limits = { requests_per_minute = 1000, concurrency = 10 }
breaker = { min_calls = 5, failure_rate = 0.5, window = "60s", open = "10m" }
[models."groq/llama-small"]
price = { input = "0.11", output = "0.34" }
[models."openai/gpt-4o-mini"]
price = { input = "0.15", output = "0.60" }
[models."openai/gpt-4.1"]
price = { input = "2.00", output = "8.00" }
[models."anthropic/claude-haiku-4-5"]
price = { input = "1.00", output = "5.00" }
[routes.summaries]
rungs = ["groq/llama-small", "openai/gpt-4.1"]
patience = "forever"
[routes.support]
rungs = ["anthropic/claude-haiku-4-5", "openai/gpt-4o-mini"]
patience = "0s"
[routes.contracts]
rungs = ["anthropic/claude-haiku-4-5"]
patience = "forever"
[routes.catalogue]
rungs = ["openai/gpt-4o-mini"]
[schedules.nightly]
cron = "30 1 * * *"
timezone = "Europe/Berlin"
route = "summaries"
request = { prompt = "Summarise the day" }
"#;

/// What stood there before: a day of work, and the batches of the nights before.
const YESTERDAY: &str = "
    insert into sluice.tally (hour, route, project, batch, provider, model, enqueued, succeeded, failed, attempts,
                              cost_nanos, waste_nanos, input_tokens, output_tokens, class)
         select date_trunc('hour', now()) - make_interval(hours => ago), route, project, batch, provider, model,
                done + failed, done, failed, done + failed, (done * dear)::bigint, (failed * dear)::bigint,
                done * 800, done * 160, ''
           from generate_series(1, 23) ago
                cross join (values ('summaries', 'newsroom', 'groq', 'llama-small', 420000),
                                   ('support', 'helpdesk', 'openai', 'gpt-4o-mini', 230000)) r(route, project, provider,
                                                                                          model, dear)
                cross join lateral (select (900 + 700 * sin(ago * 0.7 + length(route)))::integer as done,
                                           (20 + 18 * cos(ago * 1.3))::integer as failed,
                                           case when route = 'support' then 'support-tickets-sunday'
                                                else 'nightly-summaries-sunday' end as batch) n";

struct Fleet {
    _database: TestDatabase,
    _simulator: Simulator,
    program: Program,
    pool: PgPool,
}

impl Fleet {
    async fn new() -> Self {
        let database = database().await;
        let simulator =
            Simulator::start(Scenario::from_toml(SCENARIO).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = CONFIG.replace("http://simulator", &format!("http://{}", simulator.addr()));
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), _database: database, _simulator: simulator, program }
    }

    async fn enqueue(&self, batch: &str, route: &str, project: &str, prompt: &str, jobs: i64) {
        let add = "insert into sluice.job (request, batch, route, project, custom_id)
                        select jsonb_build_object('prompt', $4::text || ' ' || n || repeat(' and so on', 40),
                                                  'max_tokens', 400), $1, $2, $3, $1 || '-' || n
                          from generate_series(1, $5) n";
        let query = sqlx::query(add).bind(batch).bind(route).bind(project).bind(prompt).bind(jobs);
        query.execute(&self.pool).await.unwrap();
    }

    async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// Work that has ended, work that goes on, and work that waits for each of the usual reasons.
    async fn fill(&self) {
        sqlx::query(YESTERDAY).execute(&self.pool).await.unwrap();
        self.program.output(&["budget", "set", "newsroom", "40", "--project", "newsroom", "--per", "day"]).await;
        self.program.output(&["budget", "set", "everything", "500", "--per", "month"]).await;
        sqlx::query("select sluice.pause('batch', 'product-descriptions', 'waits for the price list of December')")
            .execute(&self.pool)
            .await
            .unwrap();
        self.enqueue("product-descriptions", "catalogue", "shop", "Describe article", 120).await;
        self.enqueue("support-tickets", "support", "helpdesk", "Answer ticket", 160).await;
        self.enqueue("invoices", "catalogue", "shop", "Book invoice", 60).await;
        self.enqueue("invoices", "catalogue", "shop", "Read the attachment of invoice", 9).await;
        self.enqueue("contract-extraction", "contracts", "legal", "Extract the parties of contract", 40).await;
        // Eight minutes of work: it goes on while every page is looked at, on a slow machine, too.
        self.enqueue("nightly-summaries", "summaries", "newsroom", "Summarise article", 2400).await;
    }

    async fn until_it_is_monday(&self) {
        let ended = "select count(*) from sluice.jobs
                      where batch in ('support-tickets', 'invoices') and state in ('succeeded', 'failed')";
        until("tickets and invoices are answered", async || self.number(ended).await == 229).await;
        let summaries = "select count(*) from sluice.jobs where batch = 'nightly-summaries' and state = 'succeeded'";
        until("some articles are summarised", async || self.number(summaries).await >= 60).await;
        let waits = "select count(*) from sluice.worker w, jsonb_array_elements(w.stats->'gate'->'targets') t
                      where t->'shut'->>'reason' = 'breaker_open'";
        until("a breaker is open", async || self.number(waits).await > 0).await;
        let empty = "select count(*) from sluice.attempts where detail = 'empty'";
        until("an answer was empty", async || self.number(empty).await > 0).await;
        until("another rung has answered", async || self.fallen_back().await > 0).await;
    }

    /// The first job that the second rung answered, because the first one's answer was of no use; 0: none yet.
    async fn fallen_back(&self) -> i64 {
        self.number(
            "select coalesce(min(a.job_id), 0) from sluice.attempts a join sluice.results r on r.job_id = a.job_id
              where r.state = 'succeeded' and r.provider = 'openai' and a.provider = 'groq' and not a.accepted",
        )
        .await
    }
}

/// Where the pictures of the documentation are kept, if they are to be made.
fn pictures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
    std::env::var("SLUICE_WRITE_SCREENSHOTS").is_ok_and(|value| value == "1").then_some(folder)
}

/// A picture of the documentation is small.
const LARGEST: usize = 150_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_why_nothing_moves_who_answers_what_fails_and_who_holds_what() {
    let Some(browser) = Browser::start().await else { return };
    let fleet = Fleet::new().await;
    fleet.fill().await;
    let site = Site::start(&fleet.program, &[]).await;
    fleet.until_it_is_monday().await;
    let job = format!("/jobs/{}", fleet.fallen_back().await);
    let at = |path: &str| format!("http://{}{path}", site.address);
    browser.look_like(1280, 900, false).await;
    let pages = [
        "/",
        "/batches",
        "/batches/nightly-summaries",
        "/jobs",
        &job,
        "/failures",
        "/limits",
        "/budgets",
        "/pauses",
        "/schedules",
        "/alerts",
        "/reports/cost",
        "/doctor",
        "/changes",
    ];
    for page in pages {
        let why = ["contracts", "anthropic/claude-haiku-4-5", "waits for the price list of December"];
        browser.open_until_it_has(&at(page), "#why", &why).await;
    }
    for (page, selector, parts) in [
        ("/", "#routes", &["support", "openai/gpt-4o-mini", "summaries", "groq/llama-small"][..]),
        ("/", "#queue", &["catalogue", "contracts", "summaries"]),
        ("/pauses", "#pauses", &["batch", "product-descriptions", "waits for the price list of December", "sluice"]),
        ("/failures", "#failures", &["refused", "openai", "9", "overloaded", "anthropic", "Overloaded"]),
        ("/limits", "#buckets", &["groq", "requests/min", "300", "concurrency"]),
        ("/limits", "#targets", &["anthropic", "claude-haiku-4-5", "open"]),
        ("/batches/nightly-summaries", "#progress", &["of 2,400 done", "at the end about $", "to go"]),
        (&job, "#story", &["1. groq/llama-small", "soft_failure, empty", "answered by openai/gpt-4.1", "Total: $"]),
        ("/doctor", "#findings", &["Looked at", "All is well", "partitions", "indexes"]),
        ("/reports/cost?since=2h&compare=before", "#report", &["before", "now", "change"]),
    ] {
        browser.open_until_it_has(&at(page), selector, parts).await;
    }
    // The holders: this worker, with its number.
    let worker = fleet.number("select id from sluice.worker").await;
    browser.open_until_it_has(&at("/limits"), "#buckets", &[&format!("{worker}:")]).await;
    if let Some(folder) = pictures() {
        for (width, height, device) in [(1280, 900, "desktop"), (390, 844, "phone")] {
            for (is_dark, light) in [(false, "light"), (true, "dark")] {
                browser.look_like(width, height, is_dark).await;
                for (page, name) in
                    [("/", "overview"), ("/batches/nightly-summaries", "batch"), (&job, "job"), ("/limits", "limits")]
                {
                    browser.open(&at(page)).await;
                    let path = folder.join(format!("{name}-{device}-{light}.png"));
                    let picture = with_palette(&browser.screenshot().await);
                    assert!(picture.len() < LARGEST, "{} has {} bytes", path.display(), picture.len());
                    std::fs::write(&path, picture).unwrap();
                }
            }
        }
    }
    browser.close().await;
    drop(site);
}
