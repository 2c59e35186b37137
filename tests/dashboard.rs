//! The dashboard and the API of a real worker: what they show, what they change, and who may.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::Program;
use crate::support::site::{Reply, Site};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;

mod api;
mod batches;
mod browser;
mod fleet;
mod outage;

/// One provider that refuses some requests for good, and is slow with others.
const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\n\
    models.model.price = { input = \"1\", output = \"2\" }\n\
    faults = [{ kind = \"400\", containing = \"stumble\" }]\n\
    latency = { uniform = [0.001, 0.002] }\n";

/// A name that would do harm on a page that does not write it as text.
const HOSTILE: &str = "<script>alert(1)</script>\"'&/x";

struct Stage {
    database: TestDatabase,
    simulator: Simulator,
    program: Program,
    pool: PgPool,
}

impl Stage {
    async fn new(http: &str) -> Self {
        let database = database().await;
        let simulator =
            Simulator::start(Scenario::from_toml(SCENARIO).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 8\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             limits = {{ requests_per_minute = 60000, concurrency = 8 }}\n\
             [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\nmax_attempts = 1\n\
             [routes.other]\nrungs = [\"one/model\"]\n\
             [game_days.practice]\ntargets = [\"one\"]\nshare = 0.5\n\
             from = \"2026-01-01T10:00:00Z\"\nuntil = \"2026-01-01T11:00:00Z\"\n\
             [schedules.rare]\ncron = \"0 0 1 1 *\"\nrequest = {{ prompt = \"go, by the clock\" }}\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), database, simulator, program }
    }

    async fn site(&self) -> Site {
        Site::start(&self.program, &[]).await
    }

    /// Jobs of a batch whose prompts begin with this word.
    async fn enqueue(&self, batch: &str, word: &str, jobs: i64) {
        let add = "insert into sluice.job (request, batch, project)
                        select jsonb_build_object('prompt', $2::text || ' ' || n), $1, 'books'
                          from generate_series(1, $3) n";
        sqlx::query(add).bind(batch).bind(word).bind(jobs).execute(&self.pool).await.unwrap();
    }

    async fn count(&self, state: &str) -> i64 {
        let count = "select count(*) from sluice.jobs where state = $1";
        sqlx::query_scalar(count).bind(state).fetch_one(&self.pool).await.unwrap()
    }

    /// How the jobs that failed have done so.
    async fn errors(&self) -> Vec<(String, String)> {
        let errors = "select error_class, error from sluice.results where state = 'failed'";
        sqlx::query_as(errors).fetch_all(&self.pool).await.unwrap()
    }

    /// A batch that is done but for what failed, one that is paused, and one with a hostile name.
    async fn fill(&self) {
        sqlx::query("select sluice.pause('batch', 'held', 'the budget is not decided')")
            .execute(&self.pool)
            .await
            .unwrap();
        self.enqueue("night", "go", 12).await;
        self.enqueue("night", "stumble", 3).await;
        self.enqueue("held", "wait", 4).await;
        self.enqueue(HOSTILE, "go", 1).await;
        until("all but the paused ones have ended", async || {
            let failed = self.count("failed").await;
            assert!(failed <= 3, "{:?}", self.errors().await);
            failed == 3 && self.count("succeeded").await == 13
        })
        .await;
        // The sums that pages show are written with what they sum up.
        assert_eq!(self.simulator.verdict().total.calls, 16);
    }
}

fn is_page(reply: &Reply) {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("content-type").unwrap().starts_with("text/html"), "{reply:?}");
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    assert_eq!(reply.header("referrer-policy"), Some("same-origin"));
    for part in ["<script>", "javascript:", " style=", " onclick", "http://", "https://"] {
        assert!(!reply.body.contains(part), "{part}: {}", reply.body);
    }
    for part in ["<main id=\"main\">", "lang=\"en\"", "name=\"viewport\"", "href=\"#main\""] {
        assert!(reply.body.contains(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_what_there_is_and_why_nothing_moves() {
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    let held = "select min(id) from sluice.job where batch = 'held'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&stage.pool).await.unwrap();
    let failed = "select min(job_id) from sluice.result where state = 'failed'";
    let failed: i64 = sqlx::query_scalar(failed).fetch_one(&stage.pool).await.unwrap();
    let hostile = "/batches/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26%2Fx";
    let why = "batch held is paused by";
    // A page does not wait for the doctor.
    assert_eq!(site.get("/api/v1/doctor").await.status, 200);
    for (path, parts) in [
        ("/", vec!["Overview", "one/model", "13 succeeded, 3 failed", why]),
        ("/batches", vec!["night", "held", hostile]),
        ("/batches/night", vec!["15 of 15", "3 failed", "Retry what failed"]),
        ("/batches/held", vec!["0 of 4", "the budget is not decided", "Resume", "Cancel what is left"]),
        (hostile, vec!["&lt;script&gt;", "1 of 1"]),
        ("/jobs", vec!["Retry all of these", "refused", hostile]),
        ("/jobs?state=failed&class=refused", vec!["night", "failed"]),
        ("/jobs?batch=held", vec!["queued"]),
        (&format!("/jobs/{failed}"), vec!["has failed", "refused", "Total:"]),
        (&format!("/jobs/{held}"), vec!["is queued", "the budget is not decided", "Pause", "Cancel"]),
        ("/failures", vec!["refused", "one", "Retry"]),
        ("/limits", vec!["requests/min", "closed", "live"]),
        ("/pauses", vec!["held", "the budget is not decided", "Resume"]),
        ("/budgets", vec!["there are no budgets"]),
        ("/schedules", vec!["practice", "what it did", "rare", "Run now", "0 0 1 1 *", "there have been no ticks"]),
        ("/alerts", vec!["Firing", "Over"]),
        ("/doctor", vec!["Looked at", "All is well", "sluice check"]),
        ("/game-days/practice", vec!["Game day practice", "over", "calls failed"]),
        ("/reports/cost?since=1h&compare=before", vec!["change", "before: "]),
        ("/reports/cost", vec!["one", "model", "JSON"]),
        ("/reports/quality?by=route&since=7d", vec!["default"]),
        ("/confirm?action=retry&state=failed", vec!["Retry 3 jobs?", "in state failed"]),
        ("/changes", vec!["none"]),
    ] {
        let page = site.get(path).await;
        is_page(&page);
        for part in parts {
            assert!(page.body.contains(part), "{path} lacks {part}:\n{}", page.body);
        }
        // On every page, regardless of what else it shows.
        assert!(page.body.contains("the budget is not decided"), "{path} does not say why nothing moves");
    }
    for (path, status) in [
        ("/batches/none", 404),
        ("/jobs/999999", 404),
        ("/jobs/x", 404),
        ("/jobs?stat=failed", 400),
        ("/jobs?state=done", 400),
        ("/reports/none", 404),
        ("/reports/cost?compare=before", 400),
        ("/reports/cost?since=7d&compare=never", 400),
        ("/reports/cost?since=7d&compare=1h", 400),
        ("/reports/cost?since=7d&compare=before&by=day", 400),
        ("/game-days/none", 404),
        ("/reports/latency?by=class", 400),
        ("/confirm?action=burn", 404),
        ("/changes/7", 404),
        ("/nothing", 404),
    ] {
        let page = site.get(path).await;
        assert_eq!(page.status, status, "{path}: {page:?}");
        assert!(!page.body.contains("sqlx") && !page.body.contains("select "), "{page:?}");
    }
    for (path, kind) in [("/assets/style.css", "text/css"), ("/assets/live.js", "text/javascript")] {
        assert!(site.get(path).await.header("content-type").unwrap().starts_with(kind));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_changes_what_its_buttons_say_and_tells_the_count_first() {
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    // One thing at once, and back to where it was asked for.
    let resumed = site.submit("/do", "action=resume&kind=batch&name=held&back=%2Fbatches%2Fheld", "").await;
    assert_eq!((resumed.status, resumed.header("location")), (303, Some("/batches/held")));
    until("the batch goes on", async || stage.count("succeeded").await == 17).await;
    let elsewhere = site.submit("/do", "action=pause&kind=route&name=other&back=%2F%2Fevil.example", "").await;
    assert_eq!((elsewhere.status, elsewhere.header("location")), (303, Some("/")));
    let unknown = site.submit("/do", "action=pause&kind=route&name=nil", "").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("there are: default, other"), "{unknown:?}");
    // Many, after their number was told.
    let asked = site.get("/confirm?action=retry&class=refused").await;
    assert!(asked.body.contains("Retry 3 jobs?") && asked.body.contains("of class refused"), "{asked:?}");
    let done = site.submit("/do", "action=retry&class=refused", "").await;
    assert_eq!((done.status, done.header("location")), (303, Some("/changes/1")));
    let change = site.task(&json!({ "task": 1 })).await;
    assert_eq!((&change["state"], &change["jobs"]), (&"done".into(), &3.into()), "{change}");
    is_page(&site.get("/changes/1").await);
    until("they are asked again", async || stage.simulator.verdict().total.calls == 23).await;
    until("they have failed again", async || stage.count("failed").await == 3).await;
    // Nothing, and everything.
    let nothing = site.get("/confirm?action=cancel&batch=night").await;
    assert!(nothing.body.contains("there is nothing to do"), "{nothing:?}");
    assert_eq!(site.submit("/do", "action=cancel&batch=night", "").await.status, 409);
    let all = site.get("/confirm?action=retry").await;
    assert!(all.body.contains("every job of every login"), "{all:?}");
    assert_eq!(site.submit("/do", "action=retry", "").await.status, 400);
    // A budget gets another limit.
    stage.program.output(&["budget", "set", "all", "5"]).await;
    let page = site.get("/budgets").await;
    assert!(page.body.contains("name=\"limit\"") && page.body.contains("value=\"5.00\""), "{}", page.body);
    assert_eq!(site.submit("/do", "action=limit&kind=budget&name=all&limit=7.50", "").await.status, 303);
    assert!(site.get("/budgets").await.body.contains("value=\"7.50\""));
    for (limit, words) in [("0", "is nothing"), ("x", "expected dollars")] {
        let refused = site.submit("/do", &format!("action=limit&kind=budget&name=all&limit={limit}"), "").await;
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains(words), "{refused:?}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_change_nothing_and_a_read_only_dashboard_offers_nothing() {
    let stage = Stage::new("").await;
    let site = stage.site().await;
    let form = "action=pause&kind=route&name=default";
    let kind = "content-type: application/x-www-form-urlencoded\r\n";
    for headers in [
        "origin: http://evil.example\r\n",
        "origin: null\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
        "origin: http://localhost:1\r\n",
    ] {
        let headers = format!("{kind}{headers}");
        for path in ["/do", "/api/v1/routes/default/pause"] {
            let reply = site.ask("POST", path, &headers, form).await;
            assert_eq!(reply.status, 403, "{headers}: {reply:?}");
        }
    }
    // A body is taken by changes alone, and not a large one.
    assert_eq!(site.ask("POST", "/jobs", kind, form).await.status, 413);
    let large = format!("reason={}", "x".repeat(70_000));
    assert_eq!(site.ask("POST", "/do", kind, &large).await.status, 413);
    let pauses = "select count(*) from sluice.pause";
    assert_eq!(sqlx::query_scalar::<_, i64>(pauses).fetch_one(&stage.pool).await.unwrap(), 0);
    site.stop().await;

    let stage = Stage::new("read_only = true\n").await;
    let site = stage.site().await;
    stage.fill().await;
    for path in ["/batches/held", "/jobs", "/pauses", "/failures"] {
        let page = site.get(path).await;
        is_page(&page);
        assert!(!page.body.contains("/do\"") && !page.body.contains("/confirm\""), "{path}: {}", page.body);
    }
    for (path, body) in [("/do", form), ("/api/v1/batches/held/resume", "")] {
        let reply = site.submit(path, body, "").await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("read_only"), "{reply:?}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_pages_and_the_api_by_session_or_header() {
    const TOKEN: &str = "a-token-of-thirty-six-letters-or-so.";
    let stage = Stage::new("token_env = \"PAGES\"\n").await;
    let site = Site::start(&stage.program, &[("PAGES", TOKEN)]).await;
    let refused = site.get("/api/v1/status").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let page = site.get("/batches").await;
    assert_eq!((page.status, page.header("location")), (303, Some("/sign-in")));
    // Probes and scrapes go on without it.
    for path in ["/healthz", "/readyz", "/metrics", "/sign-in", "/assets/style.css"] {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(site.ask("GET", "/api/v1/status", &bearer, "").await.status, 200);
    assert_eq!(site.ask("GET", "/api/v1/status", "authorization: Bearer x\r\n", "").await.status, 401);
    let wrong = site.submit("/sign-in", "token=wrong", "").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.body.contains("That is not the token.") && wrong.header("set-cookie").is_none());
    let signed_in = site.submit("/sign-in", &format!("token={TOKEN}"), "").await;
    assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("/")));
    let cookie = signed_in.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let cookie = format!("cookie: {}\r\n", cookie.split_once(';').unwrap().0);
    let page = site.ask("GET", "/batches", &cookie, "").await;
    is_page(&page);
    assert!(page.body.contains("Sign out"));
    assert_eq!(site.submit("/do", "action=pause&kind=route&name=default", &cookie).await.status, 303);
    let foreign = format!("{cookie}origin: http://evil.example\r\n");
    assert_eq!(site.ask("POST", "/do", &foreign, "action=resume&kind=route&name=default").await.status, 403);
    assert!(!site.said().contains(TOKEN));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_other_machines_listen_nothing_is_shown_without_a_token() {
    let stage = Stage::new("").await;
    let mut site = Site::start(&stage.program, &[("SLUICE__HTTP__LISTEN", "0.0.0.0:0")]).await;
    let port = site.address.rsplit_once(':').unwrap().1.to_owned();
    site.address = format!("127.0.0.1:{port}");
    for path in ["/", "/batches", "/api/v1/status", "/api/v1/jobs"] {
        let reply = site.get(path).await;
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
        assert!(reply.body.contains("token_file in [http]"), "{reply:?}");
    }
    assert_eq!(site.get("/healthz").await.status, 200);
    assert!(site.said().contains("closed there without a token"), "{}", site.said());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_shown_where_the_configuration_allows_it() {
    let job = "select min(job_id) from sluice.result where state = 'succeeded'";
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    let id: i64 = sqlx::query_scalar(job).fetch_one(&stage.pool).await.unwrap();
    let page = site.get(&format!("/jobs/{id}?bodies=true")).await;
    assert!(page.body.contains("are not shown here") && !page.body.contains("go 1"), "{}", page.body);
    let refused = site.get(&format!("/api/v1/jobs/{id}?bodies=true")).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(site.get(&format!("/api/v1/jobs/{id}")).await.json()["request"], Value::Null);
    site.stop().await;
    let config = std::fs::read_to_string(stage.program.path("sluice.toml")).unwrap();
    stage.program.file("sluice.toml", config.replace("[http]\n", "[http]\nbodies = true\n"));
    let site = stage.site().await;
    let page = site.get(&format!("/jobs/{id}?bodies=true")).await;
    assert!(page.body.contains("go 1") && page.body.contains("Answer"), "{}", page.body);
    assert!(!site.get(&format!("/jobs/{id}")).await.body.contains("go 1"));
    let story = site.get(&format!("/api/v1/jobs/{id}?bodies=true")).await.json();
    assert!(story["request"].to_string().contains("go 1"), "{story}");
    site.stop().await;
}
