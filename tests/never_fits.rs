//! Requests that are larger than a limit or a window, with the real worker. They go where they fit, or end with the
//! numbers; they are not sent in vain, and they hold up no other job.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use sluice::simulate::{Scenario, Simulator};
use sqlx::{PgPool, Row as _};

/// Jobs that fit everywhere, and jobs that fit only the big provider. Ten tokens, and some two thousand.
const SMALL_JOBS: i64 = 30;
const LARGE_JOBS: i64 = 5;

struct Stage {
    _database: TestDatabase,
    pool: PgPool,
    simulator: Simulator,
    program: Program,
}

impl Stage {
    /// A provider of this dialect whose limit large jobs exceed, known to the worker or not; one that takes everything;
    /// a route over both and one over the small provider alone.
    async fn new(dialect: &str, limits: &str, model: &str) -> Self {
        let database = database().await;
        let scenario = format!(
            "record_calls = 100000\n[providers.small]\ndialect = \"{dialect}\"\n\
             quota = {{ tokens_per_minute = 1000 }}\n\
             output = {{ tokens = 1 }}\n[providers.big]\ndialect = \"openai\"\noutput = {{ tokens = 1 }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[http]\nlisten = \"off\"\n\
             [providers.small]\ndialect = \"{dialect}\"\nbase_url = \"{}\"\n{limits}\n\
             [providers.big]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"small/model\"]\n{model}\n\
             [routes.default]\nstrategy = \"priority\"\nrungs = [\"small/model\", \"big/model\"]\n\
             patience = \"forever\"\n\
             [routes.alone]\nrungs = [\"small/model\"]\n\
             [routes.pinned]\nrungs = [\"small/model\"]\nfallback = \"never\"\n",
            simulator.base_url("small").unwrap(),
            simulator.base_url("big").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), _database: database, simulator, program }
    }

    /// The large ones first, so that they would be in the way of the small ones if they could be.
    async fn enqueue(&self, route: &str, large: i64, small: i64) {
        for (count, words) in [(large, 1_600), (small, 6)] {
            sqlx::query(
                "insert into sluice.job (route, metadata, request)
                 select $1, jsonb_build_object('words', $3::int),
                        jsonb_build_object('prompt', n || ' ' || $1 || repeat(' word', $3), 'max_tokens', 5)
                   from generate_series(1, $2) n",
            )
            .bind(route)
            .bind(count)
            .bind(words)
            .execute(&self.pool)
            .await
            .unwrap();
        }
    }

    async fn drain(&self) {
        let worker = self.program.run(&["worker", "--drain"]).await;
        assert!(worker.status.success(), "{}", text(&worker.stderr));
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    fn calls(&self, provider: &str) -> i64 {
        i64::try_from(self.simulator.verdict().providers[provider].figures.calls).unwrap()
    }

    /// How each failed job ended, without repetitions.
    async fn endings(&self) -> Vec<(String, String, String)> {
        let query =
            "select distinct route, error_class, error from sluice.results where state = 'failed' order by 1, 3";
        let rows = sqlx::query(query).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_configured_limit_goes_to_the_larger_rung_and_is_never_sent_in_vain() {
    let stage = Stage::new("openai", "limits = { tokens_per_minute = 1000 }", "").await;
    stage.enqueue("default", LARGE_JOBS, SMALL_JOBS).await;
    stage.drain().await;
    assert_eq!((stage.calls("small"), stage.calls("big")), (SMALL_JOBS, LARGE_JOBS));
    assert_eq!(
        stage.count("select count(*) from sluice.results where state = 'succeeded'").await,
        LARGE_JOBS + SMALL_JOBS
    );
    let job = stage.count("select max(job_id) from sluice.attempt where provider = 'big'").await;
    let story = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(story.contains("tokens can never fit its limit of 1000 at once"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_window_goes_to_the_larger_rung_or_ends_with_the_numbers() {
    let stage = Stage::new("openai", "", "context_window = 900").await;
    stage.enqueue("default", LARGE_JOBS, SMALL_JOBS).await;
    stage.enqueue("alone", 1, 0).await;
    stage.drain().await;
    assert_eq!((stage.calls("small"), stage.calls("big")), (SMALL_JOBS, LARGE_JOBS));
    let endings = stage.endings().await;
    let [(_, class, reason)] = &endings[..] else { panic!("{endings:?}") };
    assert_eq!(class, "context_length");
    assert!(reason.contains("small/model: needs about ") && reason.ends_with("tokens, its window has 900"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_finds_too_large_is_sent_there_once_and_holds_up_nobody() {
    // Those whose answers tell how large the limit is. A refusal without a number says nothing of what would fit.
    for dialect in ["openai", "anthropic", "gemini"] {
        let stage = Stage::new(dialect, "", "").await;
        stage.enqueue("default", LARGE_JOBS, SMALL_JOBS).await;
        stage.drain().await;
        let seen = stage.simulator.verdict().total;
        let refused = stage.count("select count(*) from sluice.attempts where class = 'never_fits'").await;
        // A job that comes after an answer whose headers told of the limit is not sent: how many come before is
        // chance.
        assert!((1..=LARGE_JOBS).contains(&refused), "{dialect}: {refused} refused");
        assert_eq!((stage.calls("small"), stage.calls("big")), (SMALL_JOBS + refused, LARGE_JOBS), "{dialect}");
        // Each of them once, and no wait was made of it: nothing that fits was told to stay away.
        let jobs = stage.count("select count(distinct job_id) from sluice.attempts where class = 'never_fits'").await;
        assert_eq!(jobs, refused, "{dialect}");
        assert_eq!(
            (i64::try_from(seen.refused_by_quota).unwrap(), seen.retried_non_retryables),
            (refused, 0),
            "{dialect}"
        );
        let elsewhere = "select count(*) from sluice.attempts where class = 'never_fits' and provider <> 'small'";
        assert_eq!(stage.count(elsewhere).await, 0, "{dialect}");
        let done = stage.count("select count(*) from sluice.results where state = 'succeeded'").await;
        assert_eq!(done, LARGE_JOBS + SMALL_JOBS, "{dialect}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_ends_with_the_numbers_and_the_limit() {
    for (limits, calls) in [("limits = { tokens_per_minute = 1000 }", 3), ("", 5)] {
        let stage = Stage::new("openai", limits, "").await;
        stage.enqueue("alone", 1, 3).await;
        stage.enqueue("pinned", 1, 0).await;
        stage.drain().await;
        assert_eq!(stage.calls("small"), calls, "{limits}");
        let endings = stage.endings().await;
        let [(_, _, alone), (_, _, pinned)] = &endings[..] else { panic!("{endings:?}") };
        for (_, class, reason) in &endings {
            assert_eq!(class, "never_fits", "{reason}");
            assert!(reason.contains("small/model: "), "{reason}");
            assert!(
                reason.contains("needs about 2") && reason.contains("tokens, its limit allows 1000 at once"),
                "{reason}"
            );
        }
        assert!(alone.starts_with("no rung is left"), "{alone}");
        assert_eq!(pinned.contains("which route pinned does not fall back on"), limits.is_empty(), "{pinned}");
    }
}
