//! The pages of a worker without a job, and without its database.

use super::{Stage, is_page};
use crate::support::proxy::{Proxy, Weather};
use crate::support::site::Site;
use crate::support::wait::until;
use futures_util::future::join_all;

const PAGES: [&str; 13] = [
    "/",
    "/batches",
    "/batches/night",
    "/jobs",
    "/jobs/1",
    "/failures",
    "/limits",
    "/budgets",
    "/pauses",
    "/schedules",
    "/alerts",
    "/reports/cost",
    "/doctor",
];

#[tokio::test(flavor = "multi_thread")]
async fn pages_answer_without_a_job_and_say_that_the_database_is_away() {
    let stage = Stage::new("").await;
    let server = stage.database.connect_options();
    let proxy = Proxy::to(&server).await;
    let url = proxy.url(server.get_username(), server.get_database().unwrap());
    let site = Site::start(&stage.program, &[("DATABASE_URL", &url)]).await;
    // What the doctor could not look at in time is a finding of its own, and holds up no other.
    let mut lock = stage.pool.begin().await.unwrap();
    sqlx::query("lock table sluice.retiring").execute(&mut *lock).await.unwrap();
    let late = site.get("/api/v1/doctor").await.json();
    lock.rollback().await.unwrap();
    let findings = late["findings"].as_array().unwrap();
    let is_unseen = |check: &str| findings.iter().any(|it| it["check"] == check && it["severity"] == "unseen");
    assert!(is_unseen("retention") && !is_unseen("schema"), "{findings:#?}");
    let page = site.get("/doctor").await.body;
    for part in ["Not looked at", "not within the time that a page has; `sluice doctor` takes longer"] {
        assert!(page.contains(part), "{page}");
    }
    for (page, words) in [
        ("/", "nothing waits and nothing runs"),
        ("/batches", "there are no batches yet"),
        ("/jobs", "no job"),
        ("/failures", "nothing has failed"),
        ("/budgets", "there are no budgets"),
        ("/pauses", "nothing is paused"),
        ("/alerts", "none"),
        ("/reports/cost", "there is nothing to report"),
        ("/doctor", "All is well"),
        ("/limits", "Targets and their breakers"),
    ] {
        let reply = site.get(page).await;
        is_page(&reply);
        assert!(reply.body.contains(words), "{page}: {}", reply.body);
    }
    proxy.set(Weather::Refuse);
    until("what was known a moment ago is shown no longer", async || site.get("/limits").await.status == 503).await;
    // All at once: none waits for the others.
    let replies = join_all(PAGES.map(async |page| (page, site.get(page).await))).await;
    for (page, reply) in replies {
        assert_eq!(reply.status, 503, "{page}: {reply:?}");
        assert_eq!(reply.header("retry-after"), Some("5"), "{page}");
        for part in ["<nav aria-label=\"Pages\">", "data-again", "This page is read again"] {
            assert!(reply.body.contains(part), "{page} lacks {part}: {}", reply.body);
        }
        assert!(!reply.body.contains("sqlx") && !reply.body.contains(&url), "{page}: {}", reply.body);
    }
    let told = site.get("/api/v1/status").await;
    assert_eq!((told.status, told.header("content-type")), (503, Some("application/problem+json")), "{told:?}");
    assert_eq!(site.get("/healthz").await.status, 200);
    proxy.set(Weather::Clear);
    until("pages are there again", async || site.get("/doctor").await.status == 200).await;
    site.stop().await;
}
