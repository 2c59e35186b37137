//! The rights of each role, with real logins: each `sluice migrate` makes up for steps that the one before could not
//! take.

use crate::support::cluster::used_before;
use crate::support::postgres::{Watchdog, temporary_dir};
use crate::support::program::{Program, text};
use serde_json::Value;
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// A server of its own: roles belong to all databases of one.
struct Server {
    admin: PgPool,
    url: String,
    postgres: EmbeddedPostgres,
    _watchdog: Watchdog,
}

impl Server {
    async fn start() -> Self {
        let dir = temporary_dir();
        let watchdog = Watchdog::over(&dir);
        used_before(&dir).await;
        let options = Options { data_dir: dir, fsync: false, max_connections: 50 };
        let postgres = EmbeddedPostgres::start(&options).await.unwrap();
        let admin = PgPoolOptions::new().max_connections(2).connect_lazy_with(postgres.connect_options("postgres"));
        run(&admin, "create role shop login").await;
        run(&admin, "create database shop owner shop").await;
        Self { admin, url: postgres.url("shop"), postgres, _watchdog: watchdog }
    }

    /// The program with a login.
    fn program(&self, user: &str) -> Program {
        Program::new("", &self.url.replace("user=sluice", &format!("user={user}")))
    }

    async fn stop(self) {
        self.admin.close().await;
        self.postgres.stop().await.unwrap();
    }
}

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

/// What the doctor finds of the roles: severity and words.
async fn diagnosis(program: &Program) -> (String, String) {
    let output = program.run(&["doctor", "--format", "json"]).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let findings = found["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "roles").unwrap();
    let words = format!("{} {}", finding["what"].as_str().unwrap(), finding["do"].as_str().unwrap_or_default());
    (finding["severity"].as_str().unwrap().to_owned(), words)
}

/// Applications, readers and workers can do what they are for.
async fn the_roles_work(server: &Server, suffix: &str) {
    for (login, role, command) in [
        ("app", "sluice_enqueuer", &["enqueue", "q.jsonl"][..]),
        ("reader", "sluice_reporter", &["status"]),
        ("hand", "sluice_worker", &["job", "cancel", "1"]),
    ] {
        let login = format!("{login}_{suffix}");
        run(&server.admin, &format!("create role {login} login; grant {role} to {login}")).await;
        let program = server.program(&login);
        program.file("q.jsonl", "{\"prompt\": \"a\"}\n");
        program.output(command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_may_make_no_roles_is_told_what_is_missing_and_repairs_it_later() {
    let server = Server::start().await;
    let owner = server.program("shop");
    let first = owner.run(&["migrate"]).await;
    let said = text(&first.stderr);
    assert_eq!(first.status.code(), Some(0), "{said}");
    assert!(text(&first.stdout).contains("migrated from version 0"));
    for role in ["sluice_enqueuer", "sluice_reporter", "sluice_worker"] {
        assert!(said.contains(&format!("warning: the role {role} is missing\n")), "{said}");
        assert!(said.contains(&format!("create role {role} nologin;")), "{said}");
    }
    assert!(said.contains("run `sluice migrate` as shop"), "{said}");
    assert_eq!(said.lines().count(), 4, "nothing of the server's own words: {said}");
    let (severity, words) = diagnosis(&owner).await;
    assert_eq!(severity, "warning");
    assert!(words.contains("the role sluice_worker is missing"), "{words}");

    run(&server.admin, "alter role shop createrole").await;
    let second = owner.run(&["migrate"]).await;
    assert_eq!((second.status.code(), text(&second.stderr).as_str()), (Some(0), ""));
    assert_eq!(diagnosis(&owner).await.0, "ok");
    the_roles_work(&server, "one").await;
    let again = owner.run(&["migrate", "--format", "json"]).await;
    let told: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&told["changed"], &told["missing_roles"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(text(&again.stderr), "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_an_administrator_made_are_granted_to_without_a_wrong_warning() {
    let server = Server::start().await;
    let owner = server.program("shop");
    run(&server.admin, "create role sluice_enqueuer nologin").await;
    let first = text(&owner.run(&["migrate"]).await.stderr);
    assert!(!first.contains("sluice_enqueuer") && first.contains("the role sluice_worker is missing"), "{first}");
    // The others come after the schema.
    run(&server.admin, "create role sluice_reporter nologin; create role sluice_worker nologin").await;
    let (severity, words) = diagnosis(&owner).await;
    assert_eq!(severity, "warning");
    assert!(
        words.contains("the role sluice_worker lacks") && words.contains("run `sluice migrate` as shop"),
        "{words}"
    );
    let second = owner.run(&["migrate"]).await;
    assert_eq!((second.status.code(), text(&second.stderr).as_str()), (Some(0), ""));
    the_roles_work(&server, "two").await;
    assert_eq!(diagnosis(&owner).await.0, "ok");

    // The error tells what one role lacks, and who can help.
    run(&server.admin, "create role guest login in role sluice_reporter").await;
    let shop = PgPoolOptions::new().max_connections(1).connect_lazy_with(server.postgres.connect_options("shop"));
    run(&shop, "revoke select on sluice.jobs from sluice_enqueuer").await;
    let (severity, words) = diagnosis(&server.program("guest")).await;
    assert_eq!(severity, "warning");
    assert!(
        words.contains("the role sluice_enqueuer lacks select on sluice.jobs run `sluice migrate` as shop"),
        "{words}"
    );
    shop.close().await;
    server.stop().await;
}

/// Every right of our roles, but for partitions, which no statement names.
const RIGHTS: &str = "
    select string_agg(line, chr(10) order by line) from (
        select concat_ws(' ', a.grantee::regrole, lower(a.privilege_type), 'on', c.relname) as line
          from pg_class c cross join lateral aclexplode(c.relacl) a
         where c.relnamespace = 'sluice'::regnamespace and a.grantee <> c.relowner and not c.relispartition
           -- The first migration let workers write to views, which none of them can.
           and (c.relkind <> 'v' or a.privilege_type = 'SELECT')
        union all
        select concat_ws(' ', a.grantee::regrole, lower(a.privilege_type), 'on', c.relname, t.attname)
          from pg_attribute t join pg_class c on c.oid = t.attrelid cross join lateral aclexplode(t.attacl) a
         where c.relnamespace = 'sluice'::regnamespace and not c.relispartition
        union all
        select concat_ws(' ', a.grantee::regrole, 'on', p.oid::regprocedure)
          from pg_proc p cross join lateral aclexplode(p.proacl) a
         where p.pronamespace = 'sluice'::regnamespace and a.grantee <> p.proowner and a.grantee <> 0
           -- Functions that every login may call anyway.
           and not exists (select from aclexplode(p.proacl) e where e.grantee = 0)
        union all
        select concat_ws(' ', a.grantee::regrole, lower(a.privilege_type), 'on', n.nspname)
          from pg_namespace n cross join lateral aclexplode(n.nspacl) a
         where n.nspname = 'sluice' and a.grantee <> n.nspowner) lines";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_migrations_grant_can_be_granted_again() {
    let server = Server::start().await;
    let shop = PgPoolOptions::new().max_connections(2).connect_lazy_with(server.postgres.connect_options("shop"));
    let store = Store::from_pool(shop.clone());
    store.migrate().await.unwrap();
    let rights = async || sqlx::query_scalar::<_, String>(RIGHTS).fetch_one(&shop).await.unwrap();
    let before = rights().await;
    assert!(before.lines().count() > 100);
    run(&shop, "drop owned by sluice_enqueuer, sluice_reporter, sluice_worker").await;
    assert_eq!(store.roles().await.unwrap().lacking.len(), 3);
    store.migrate().await.unwrap();
    let after = rights().await;
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    assert_eq!((only(&before, &after), only(&after, &before)), (Vec::new(), Vec::new()));
    shop.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_owns_the_schema_and_may_make_none_migrates_and_works() {
    let server = Server::start().await;
    // The database belongs to another role, as with most hosts.
    run(
        &server.admin,
        "create role app login; create role other login; create role host; alter database shop owner to host",
    )
    .await;
    let app = server.program("app");
    let without = app.run(&["migrate"]).await;
    let said = text(&without.stderr);
    assert_eq!(without.status.code(), Some(4), "{said}");
    assert!(said.contains("app may not make one in the database shop"), "{said}");
    assert!(said.contains("create schema sluice authorization app;"), "{said}");

    let shop = PgPoolOptions::new().max_connections(1).connect_lazy_with(server.postgres.connect_options("shop"));
    run(&shop, "create schema sluice authorization app").await;
    let of_another = server.program("other").run(&["migrate"]).await;
    let said = text(&of_another.stderr);
    assert_eq!(of_another.status.code(), Some(4), "{said}");
    assert!(said.contains("the schema sluice belongs to app, and other may not change it"), "{said}");

    let migrated = app.run(&["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    app.file("q.jsonl", "{\"prompt\": \"a\"}\n");
    app.output(&["enqueue", "q.jsonl"]).await;
    app.output(&["job", "cancel", "1"]).await;
    assert!(app.output(&["migrate"]).await.contains("nothing to do"));
    // A member of the owner's role may too.
    run(&server.admin, "create role deployer login; grant app to deployer").await;
    run(&shop, "drop schema sluice cascade; create schema sluice authorization app").await;
    let migrated = server.program("deployer").run(&["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    shop.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_another_role_may_change_is_not_filled() {
    let server = Server::start().await;
    run(&server.admin, "create role mallory login; create role admin login superuser").await;
    let shop = PgPoolOptions::new().max_connections(1).connect_lazy_with(server.postgres.connect_options("shop"));
    for laid in [
        "create schema sluice authorization mallory",
        // The schema has a good owner, and the table in it has not.
        "create schema sluice; create table sluice.ready (); alter table sluice.ready owner to mallory",
        "create schema sluice; create function sluice.job_enqueued() returns trigger language plpgsql
             as 'begin return null; end'; alter function sluice.job_enqueued() owner to mallory",
        "create schema sluice; create domain sluice.text as text; alter domain sluice.text owner to mallory",
        "create schema sluice; grant create on schema sluice to mallory",
        "create schema sluice; grant create on schema sluice to public",
    ] {
        run(&shop, laid).await;
        let output = server.program("admin").run(&["migrate"]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{laid}: {said}");
        assert!(said.contains("mallory may change") || said.contains("every role may change"), "{laid}: {said}");
        assert!(said.contains("drop schema sluice cascade"), "{said}");
        let tables: i64 =
            sqlx::query_scalar("select count(*) from pg_tables where schemaname = 'sluice' and tablename <> 'ready'")
                .fetch_one(&shop)
                .await
                .unwrap();
        assert_eq!(tables, 0, "{laid}: nothing was made");
        run(&shop, "drop schema sluice cascade").await;
    }
    // A schema that an administrator made, or that belongs to a role of this login, is filled.
    run(&shop, "create schema sluice; grant usage on schema sluice to mallory").await;
    let migrated = server.program("admin").run(&["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    shop.close().await;
    server.stop().await;
}
