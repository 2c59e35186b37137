//! A database that answers and refuses: it takes no writes, or no longer knows the login. No row is at fault. Paid
//! answers wait on the disk, and are written when the database takes them.

use crate::support::cluster::OwnCluster;
use crate::support::fleet::{Fleet, Process};
use crate::support::postgres::{TestDatabase, database};
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::journal::{NextItem, Records};
use sqlx::{AssertSqlSafe, PgPool};

const JOBS: usize = 8;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [1.0, 1.5] }\n\
                        models.model.price = { input = \"1\", output = \"2\" }\n";
const CONFIG: &str = "[worker]\nmax_in_flight = 8\ndrain_timeout = \"2s\"\n\
                      [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 100 }\n\
                      [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\n";

/// A way in which a database refuses a login, and how that ends. `LOGIN`, `DATABASE` stand for their names.
struct Refusal {
    name: &'static str,
    begins: &'static [&'static str],
    ends: &'static [&'static str],
    /// Whether it holds for sessions that exist already.
    at_once: bool,
}

/// Where the server can be asked and takes no writes, a worker that starts waits for it.
const READ_ONLY: &str = "the database was made read-only";

const REFUSALS: &[Refusal] = &[
    Refusal {
        name: READ_ONLY,
        begins: &["alter database DATABASE set default_transaction_read_only = on"],
        ends: &["alter database DATABASE reset default_transaction_read_only"],
        at_once: false,
    },
    Refusal {
        name: "the login lost its role",
        begins: &["revoke sluice_worker from LOGIN"],
        ends: &["grant sluice_worker to LOGIN"],
        at_once: true,
    },
    Refusal {
        name: "the login may not log in",
        begins: &["alter role LOGIN nologin"],
        ends: &["alter role LOGIN login"],
        at_once: false,
    },
    Refusal {
        name: "the login may have no connections",
        begins: &["alter role LOGIN connection limit 0"],
        ends: &["alter role LOGIN connection limit -1"],
        at_once: false,
    },
    Refusal {
        name: "the login may not connect to the database",
        begins: &["revoke connect on database DATABASE from public, LOGIN"],
        ends: &["grant connect on database DATABASE to public"],
        at_once: false,
    },
    Refusal {
        name: "a table is gone for a while",
        begins: &["alter table sluice.attempt rename to attempt_away"],
        ends: &["alter table sluice.attempt_away rename to attempt"],
        at_once: true,
    },
    Refusal {
        name: "the partition of the results is detached for a while",
        begins: &["alter table sluice.result detach partition sluice.result_p0"],
        ends: &["alter table sluice.result attach partition sluice.result_p0 for values from (minvalue) to (10000000)"],
        at_once: true,
    },
];

struct Stage {
    database: TestDatabase,
    admin: PgPool,
    fleet: Fleet,
    login: String,
}

impl Stage {
    async fn new() -> Self {
        let database = database().await;
        let admin = database.pool();
        let name: String = sqlx::query_scalar("select current_database()").fetch_one(&admin).await.unwrap();
        let login = format!("login_{name}");
        let stage = Self {
            fleet: Fleet::over(
                admin.clone(),
                &database.url().replace("user=sluice", &format!("user={login}")),
                SCENARIO,
                CONFIG,
            ),
            database,
            admin,
            login,
        };
        stage.run(&["create role LOGIN login in role sluice_worker"]).await;
        stage
    }

    async fn run(&self, statements: &[&str]) {
        let name = self.database.connect_options().get_database().unwrap().to_owned();
        for statement in statements {
            let statement = statement.replace("LOGIN", &self.login).replace("DATABASE", &name);
            sqlx::query(AssertSqlSafe(statement)).execute(&self.admin).await.unwrap();
        }
    }

    async fn begin(&self, refusal: &Refusal) {
        self.run(refusal.begins).await;
        if !refusal.at_once {
            self.run(&["select pg_terminate_backend(pid) from pg_stat_activity where usename = 'LOGIN'"]).await;
        }
    }
}

fn calls(fleet: &Fleet) -> usize {
    usize::try_from(fleet.verdict().total.calls).unwrap()
}

/// Outcomes in spools.
fn spooled(fleet: &Fleet) -> usize {
    let records = |path: &std::path::PathBuf| {
        let journal = std::fs::read(path).unwrap_or_default();
        let mut records = Records::new(&journal[..], 0);
        let mut count = 0_usize;
        while let Ok(NextItem::Record(_)) = records.read_next() {
            count += 1;
        }
        // The first says whose it is.
        count.saturating_sub(1)
    };
    fleet.spools().iter().map(records).sum()
}

/// Eight calls are answered while the database refuses, and wait on the disk.
async fn answers_that_are_refused(stage: &Stage, refusal: &Refusal) -> Process {
    let worker = stage.fleet.start();
    stage.fleet.until_live(1).await;
    stage.fleet.enqueue("default", i64::try_from(JOBS).unwrap()).await;
    until("the calls are under way", async || calls(&stage.fleet) == JOBS).await;
    stage.begin(refusal).await;
    until("the answers are on the disk", async || spooled(&stage.fleet) == JOBS).await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_answers_while_the_database_refuses_it() {
    for refusal in REFUSALS {
        let stage = Stage::new().await;
        let worker = answers_that_are_refused(&stage, refusal).await;
        // The outlet has tried and goes on trying.
        worker.until_said("they wait in the spool", 1).await;
        assert_eq!(spooled(&stage.fleet), JOBS, "{}", refusal.name);
        stage.run(refusal.ends).await;
        stage.fleet.until_answered(i64::try_from(JOBS).unwrap()).await;
        assert_eq!(calls(&stage.fleet), JOBS, "{}: nothing is bought twice", refusal.name);
        stage.fleet.books_are_in_order(i64::try_from(JOBS).unwrap()).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_worker_keeps_what_a_dead_one_left_while_the_database_refuses_it() {
    for refusal in REFUSALS {
        let stage = Stage::new().await;
        let mut worker = answers_that_are_refused(&stage, refusal).await;
        worker.kill().await;
        let next = stage.fleet.start();
        if refusal.name == READ_ONLY {
            next.until_said("the worker waits until its database takes writes", 1).await;
            next.signal(Signal::TERM);
        }
        let (code, said) = next.ended().await;
        assert!(matches!(code, Some(1 | 4)), "{}: {said}", refusal.name);
        assert_eq!(spooled(&stage.fleet), JOBS, "{}: {said}", refusal.name);
        stage.run(refusal.ends).await;
        let heir = stage.fleet.start();
        stage.fleet.until_answered(i64::try_from(JOBS).unwrap()).await;
        assert_eq!(calls(&stage.fleet), JOBS, "{}: nothing is bought twice", refusal.name);
        stage.fleet.books_are_in_order(i64::try_from(JOBS).unwrap()).await;
        heir.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_turns_read_only_under_its_sessions_loses_nothing_and_work_goes_on() {
    let cluster = OwnCluster::start().await;
    let fleet = Fleet::over(cluster.pool.clone(), &cluster.url, SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 2 * i64::try_from(JOBS).unwrap()).await;
    until("the first calls are under way", async || calls(&fleet) == JOBS).await;
    let set = async |value: &str| {
        let mut connection = cluster.pool.acquire().await.unwrap();
        for statement in [
            "set default_transaction_read_only = off".to_owned(),
            format!("alter system set default_transaction_read_only = {value}"),
            "select pg_reload_conf()".to_owned(),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
        }
    };
    set("on").await;
    until("the answers are on the disk", async || spooled(&fleet) == JOBS).await;
    assert_eq!(calls(&fleet), JOBS, "no call is begun that could not be noted");
    set("off").await;
    fleet.until_answered(2 * i64::try_from(JOBS).unwrap()).await;
    assert_eq!(calls(&fleet), 2 * JOBS, "nothing is bought twice");
    fleet.books_are_in_order(2 * i64::try_from(JOBS).unwrap()).await;
    worker.stop().await;
    cluster.stop().await;
}
