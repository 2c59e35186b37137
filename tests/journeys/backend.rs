//! The backend developer's day: her own transaction, waiting for the answer, cancelling, a batch of her own, and tests
//! of her own, all with no more than the enqueuer's role.

use super::testing_page;
use crate::support::page::{Page, python};
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::wait::within_patience;
use serde_json::Value;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use std::process::Stdio;

const PAGE: &str = "testing-your-integration.md";

/// A database with an application's login and a worker's, and the files that the page shows.
struct Shop {
    pool: PgPool,
    database: TestDatabase,
    app: String,
    worker: String,
    program: Program,
}

impl Shop {
    async fn new(suffix: &str) -> Self {
        let database = database().await;
        let pool = database.pool();
        let [app, worker] = ["app", "worker"].map(|name| format!("shop_{name}_{suffix}"));
        for (login, role) in [(&app, "sluice_enqueuer"), (&worker, "sluice_worker")] {
            let statement = format!("create role {login} login; grant {role} to {login}");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        }
        let page = Page::read(PAGE);
        let blocks = page.blocks("toml");
        let url = database.url().replace("user=sluice", &format!("user={app}"));
        let program = Program::new(blocks[1], &url);
        program.file("scenario.toml", blocks[0]);
        Self { pool, database, app, worker, program }
    }

    fn url_of(&self, login: &str) -> String {
        self.database.url().replace("user=sluice", &format!("user={login}"))
    }

    async fn connect(&self, login: &str) -> PgConnection {
        PgConnection::connect_with(&self.database.connect_options().username(login)).await.unwrap()
    }

    /// The worker of another process, which works until nothing is left.
    async fn work(&self, base_url: &str) {
        let mut worker = self.program.command(&["worker", "--drain"]);
        worker.env("DATABASE_URL", self.url_of(&self.worker)).env("SLUICE__PROVIDERS__OPENAI__BASE_URL", base_url);
        let worked = ended(worker.spawn().unwrap()).await;
        assert!(worked.status.success(), "{}", text(&worked.stderr));
    }
}

fn simulator() -> sluice::simulate::Simulator {
    let scenario = sluice::simulate::Scenario::from_toml(Page::read(PAGE).blocks("toml")[0]).unwrap();
    sluice::simulate::Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pytest_that_the_page_shows_passes() {
    let Some(python) = python() else { return };
    let shop = Shop::new("pytest").await;
    shop.program.file("test_tickets.py", Page::read(PAGE).blocks("python")[0]);
    let mut pytest = tokio::process::Command::new(python);
    pytest
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tickets.py"])
        .current_dir(shop.program.path("."))
        .env("SLUICE", env!("CARGO_BIN_EXE_sluice"))
        .env("DATABASE_URL", shop.url_of(&shop.app))
        .env("WORKER_DATABASE_URL", shop.url_of(&shop.worker))
        .env("SLUICE__SPOOL__DIR", shop.program.path("spool"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let tested = ended(pytest.spawn().unwrap()).await;
    let said = text(&tested.stdout);
    assert!(tested.status.success() && said.contains("5 passed"), "{said}\n{}", text(&tested.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_test_that_the_page_shows_passes_and_is_the_one_that_is_shown() {
    let page = Page::read(PAGE);
    let compiled = include_str!("testing_page.rs");
    assert_eq!(compiled.split_once("\n\n").unwrap().1, page.blocks("rust")[0]);
    let shop = Shop::new("rust").await;
    let folder = shop.program.path(".").display().to_string();
    // The page's worker knows nothing of this test's spool.
    let config = format!("[spool]\ndir = \"{folder}/spool\"\n{}", page.blocks("toml")[1]);
    shop.program.file("sluice.toml", config);
    let (app, worker) = (shop.url_of(&shop.app), shop.url_of(&shop.worker));
    testing_page::a_ticket_is_classified(env!("CARGO_BIN_EXE_sluice"), &folder, &app, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_gets_through_its_day_with_the_enqueuers_role_alone() {
    let (shop, simulator) = (Shop::new("day").await, simulator());
    let base_url = simulator.base_url("openai").unwrap();
    // Another login's work, in a batch of the same name.
    shop.pool
        .execute(
            "insert into sluice.job (request, batch)
                  select '{\"prompt\": \"an invoice\"}', 'tickets' from generate_series(1, 3)",
        )
        .await
        .unwrap();

    // The application's own transaction: the ticket and its question, or neither.
    shop.pool
        .execute("create table public.ticket (id bigint generated always as identity, job bigint, label text)")
        .await
        .unwrap();
    let statement = format!("grant all on public.ticket to {}", shop.app);
    shop.pool.execute(AssertSqlSafe(statement)).await.unwrap();
    let mut app = shop.connect(&shop.app).await;
    let insert = "insert into public.ticket (job) values
        (sluice.enqueue('{\"prompt\": \"My invoice is wrong\"}', batch => 'tickets', idempotency_key => 'ticket-1'))
        returning job";
    let mut transaction = app.begin().await.unwrap();
    let given_up: i64 = sqlx::query_scalar(insert).fetch_one(&mut *transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = app.begin().await.unwrap();
    let job: i64 = sqlx::query_scalar(insert).fetch_one(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_ne!(job, given_up);

    // A session of hers listens.
    let hers =
        PgPoolOptions::new().max_connections(2).connect_lazy_with(shop.database.connect_options().username(&shop.app));
    let mut listener = PgListener::connect_with(&hers).await.unwrap();
    listener.listen("sluice_settled").await.unwrap();

    // She waits in one session while a worker works in another process.
    let waiting = async {
        let mut waiter = shop.connect(&shop.app).await;
        sqlx::query_as::<_, (String, Option<Value>)>("select state, answer_json from sluice.wait($1, '1 minute')")
            .bind(job)
            .fetch_one(&mut waiter)
            .await
            .unwrap()
    };
    let both = Box::pin(async { tokio::join!(waiting, shop.work(&base_url)) });
    let (answer, ()) = within_patience("the answer came", both).await;
    assert_eq!(answer, ("succeeded".to_owned(), Some(serde_json::json!({"label": "billing", "sure": true}))));
    // Her job is among those that the worker tells of, with those of the other login.
    let mut told: Vec<i64> = Vec::new();
    while told.len() < 4 {
        let notice = within_patience("a notice", listener.recv()).await.unwrap();
        let notice: Value = serde_json::from_str(notice.payload()).unwrap();
        told.extend(notice["jobs"].as_array().unwrap().iter().filter_map(Value::as_i64));
    }
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, job]);
    let labelled = "update public.ticket t set label = r.answer_json ->> 'label' from sluice.results r
                     where r.job_id = t.job and r.state = 'succeeded'";
    assert_eq!(app.execute(labelled).await.unwrap().rows_affected(), 1);

    // A file of more of them by command, some of which she no longer wants.
    shop.program.file("q.jsonl", "{\"prompt\": \"the program crashed\"}\n{\"prompt\": \"an invoice\"}\n");
    shop.program.output(&["enqueue", "q.jsonl", "--batch", "files"]).await;
    let second: i64 =
        sqlx::query_scalar("select max(id) from sluice.jobs where batch = 'files'").fetch_one(&mut app).await.unwrap();
    let said = shop.program.output(&["job", "cancel", &second.to_string()]).await;
    assert!(said.contains("cancelled"), "{said}");
    shop.work(&base_url).await;
    let watched = shop.program.run(&["watch", "files"]).await;
    assert_eq!(watched.status.code(), Some(5), "{}", text(&watched.stderr));
    let said = text(&watched.stdout);
    assert!(said.contains("files: done, 1 succeeded, 0 failed, 1 cancelled"), "{said}");
    let shown = shop.program.output(&["batch", "show", "files", "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["jobs"], &shown["succeeded"], &shown["cancelled"]),
        (&2.into(), &1.into(), &1.into()),
        "{shown}"
    );
    assert_eq!(shown["waste"].as_f64(), Some(0.0), "{shown}");
    let results = shop.program.run(&["results", "files", "-o", "a.jsonl", "--errors", "e.jsonl"]).await;
    assert_eq!(results.status.code(), Some(5), "{}", text(&results.stderr));
    let answers = json_lines(&shop.program.path("a.jsonl"));
    assert_eq!((answers.len(), json_lines(&shop.program.path("e.jsonl")).len()), (1, 1));

    // What failed or was cancelled is listed, answers are followed, and stand beside the rows of her file.
    let listed = shop.program.output(&["batch", "jobs", "files", "--state", "cancelled"]).await;
    assert!(listed.contains(&format!("{second}\t")) && listed.lines().count() == 2, "{listed}");
    let none = shop.program.output(&["batch", "jobs", "files", "--class", "timeout"]).await;
    assert_eq!(none, "");
    let followed = shop.program.run(&["results", "files", "--follow", "-o", "f.jsonl", "--errors", "fe.jsonl"]).await;
    assert_eq!(followed.status.code(), Some(5), "{}", text(&followed.stderr));
    let again = shop.program.run(&["results", "files", "--follow", "-o", "f.jsonl", "--errors", "fe.jsonl"]).await;
    assert!(text(&again.stderr).contains("2 lines were there before"), "{}", text(&again.stderr));
    assert_eq!(json_lines(&shop.program.path("f.jsonl")).len(), 1);
    shop.program.file("rows.csv", "id,text\nt2,an invoice\nt1,a crash\n");
    let table = ["--prompt", "{text}", "--id-column", "id"];
    shop.program.output(&[&["enqueue", "rows.csv"][..], &table].concat()).await;
    shop.work(&base_url).await;
    shop.program.output(&["results", "rows", "--rows", "rows.csv", "--id-column", "id", "-o", "joined.csv"]).await;
    let joined = std::fs::read_to_string(shop.program.path("joined.csv")).unwrap();
    let begins: Vec<&str> = joined.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(begins, ["id", "t2", "t1"], "{joined}");

    // Of the batch that she shares she sees and cancels her own part alone.
    shop.program.file("more.jsonl", "{\"prompt\": \"an invoice, too\"}\n");
    shop.program.output(&["enqueue", "more.jsonl", "--batch", "tickets", "--append"]).await;
    shop.pool
        .execute("insert into sluice.job (request, batch) values ('{\"prompt\": \"mine\"}', 'tickets')")
        .await
        .unwrap();
    let said = shop.program.output(&["batch", "cancel", "tickets"]).await;
    assert!(said.contains("1 job"), "{said}");
    let own = shop.program.run(&["results", "tickets", "-o", "own.jsonl"]).await;
    assert_eq!(own.status.code(), Some(5), "{}", text(&own.stderr));
    assert_eq!(json_lines(&shop.program.path("own.jsonl")).len(), 1);
    let of_others: Vec<(String, i64)> = sqlx::query_as(
        "select v.state, count(*) from sluice.jobs v join sluice.job j on j.id = v.id
          where j.enqueued_by <> $1 group by 1 order by 1",
    )
    .bind(&shop.app)
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    assert_eq!(of_others, [("queued".to_owned(), 1), ("succeeded".to_owned(), 3)]);

    // What she may not do is said in words, with the role that may.
    for (arguments, code, words) in [
        (&["results", "tickets", "--login", "*"][..], 2, "may read only the jobs that it has enqueued itself"),
        (&["watch", "of_others"], 6, "there is no batch \"of_others\" with jobs of this login; recent ones are: "),
        (&["batch", "retry", "files"], 1, "this needs a role such as sluice_worker"),
        (&["job", "cancel", "1"], 6, "no job 1"),
        (&["db", "export", "all.dump"], 2, "it needs sluice, the owner of the schema sluice"),
    ] {
        let refused = shop.program.run(arguments).await;
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let label: String = sqlx::query_scalar("select label from public.ticket").fetch_one(&mut app).await.unwrap();
    assert_eq!(label, "billing");
    assert!(simulator.verdict().clean, "{:?}", simulator.verdict().reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_cookbook_are_statements_and_a_configuration_that_work() {
    let (shop, simulator, cookbook) = (Shop::new("cook").await, simulator(), Page::read("cookbook.md"));
    shop.pool.execute("create table public.review (id bigint, text text, label text)").await.unwrap();
    shop.pool.execute("insert into public.review values (1, 'an invoice'), (2, 'a crash')").await.unwrap();
    let [enqueue, label, failures] = cookbook.blocks("sql")[..] else { panic!("the page has three statements") };
    for _ in 0..2 {
        let asked: i64 = sqlx::query_scalar(AssertSqlSafe(enqueue.to_owned())).fetch_one(&shop.pool).await.unwrap();
        assert_eq!(asked, 2);
    }
    shop.work(&simulator.base_url("openai").unwrap()).await;
    let labelled = shop.pool.execute(AssertSqlSafe(label.to_owned())).await.unwrap();
    assert_eq!(labelled.rows_affected(), 2, "each was asked once");
    let labels: Vec<String> =
        sqlx::query_scalar("select label from public.review order by id").fetch_all(&shop.pool).await.unwrap();
    assert_eq!(labels, ["billing", "fault"]);
    assert_eq!(shop.pool.execute(AssertSqlSafe(failures.to_owned())).await.unwrap().rows_affected(), 0);

    let providers =
        ["deepseek", "openai", "anthropic"].map(|name| format!("[providers.{name}]\napi_key_env = \"KEY\"\n"));
    let config = Program::new(&(providers.concat() + &cookbook.blocks("toml").concat()), "");
    config.file("invoice.schema.json", cookbook.blocks("json")[0]);
    let mut check = config.command(&["check"]);
    let checked = ended(check.env("KEY", "sk-none-123456").env_remove("DATABASE_URL").spawn().unwrap()).await;
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}
