//! The private Postgres: real starts of a real server.

use crate::support::cluster::used_before;
use crate::support::postgres::{Watchdog, database, temporary_dir};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal};
use sluice::embedded::{EmbeddedError, EmbeddedPostgres, Keeper, Options};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A data directory that goes away with its server.
struct Home {
    dir: PathBuf,
    _watchdog: Watchdog,
}

impl Home {
    fn new() -> Self {
        Self::at(temporary_dir())
    }

    /// One whose server was started before: for tests that are not about the first start.
    async fn used_before() -> Self {
        let home = Self::new();
        used_before(&home.dir).await;
        home
    }

    fn at(dir: PathBuf) -> Self {
        let watchdog = Watchdog::over(&dir);
        Self { dir, _watchdog: watchdog }
    }

    async fn try_start(&self) -> Result<EmbeddedPostgres, EmbeddedError> {
        let options = Options { data_dir: self.dir.clone(), fsync: true, max_connections: 20 };
        EmbeddedPostgres::start(&options).await
    }

    async fn start(&self) -> EmbeddedPostgres {
        self.try_start().await.expect("the server starts")
    }

    fn pid(&self) -> Pid {
        let text = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).expect("a running server");
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }
}

async fn connect(postgres: &EmbeddedPostgres) -> PgConnection {
    postgres.connect_options("sluice").connect().await.expect("the server answers")
}

async fn show(postgres: &EmbeddedPostgres, setting: &str) -> String {
    sqlx::query_scalar("select current_setting($1)")
        .bind(setting)
        .fetch_one(&mut connect(postgres).await)
        .await
        .unwrap()
}

/// A process that ended and waits for its parent to notice counts as dead.
fn is_alive(pid: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    rustix::process::test_kill_process(pid).is_ok() && !state.contains(") Z ")
}

/// Whether any TCP socket of this machine belongs to the process.
fn has_tcp_socket(pid: Pid) -> bool {
    let of_the_process: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!of_the_process.is_empty(), "the Unix socket at least is seen");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table
            .lines()
            .any(|line| line.split_whitespace().nth(9).is_some_and(|inode| of_the_process.iter().any(|i| i == inode)))
    })
}

#[tokio::test]
async fn a_new_server_is_durable_private_and_has_the_database() {
    let home = Home::new();
    let postgres = home.start().await;
    assert_eq!(show(&postgres, "fsync").await, "on");
    assert_eq!(show(&postgres, "full_page_writes").await, "on");
    assert_eq!(show(&postgres, "synchronous_commit").await, "on");
    assert_eq!(show(&postgres, "listen_addresses").await, "");
    assert_eq!(show(&postgres, "max_connections").await, "20");
    assert_eq!(show(&postgres, "server_encoding").await, "UTF8");
    if Path::new("/proc/net/tcp").exists() {
        assert!(!has_tcp_socket(home.pid()));
    }
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn the_url_leads_to_the_server() {
    let home = Home::used_before().await;
    let postgres = home.start().await;
    let options: sqlx::postgres::PgConnectOptions = postgres.url("sluice").parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    let user: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(user, "sluice");
    drop(connection);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn the_last_of_two_users_stops_the_server() {
    let home = Home::used_before().await;
    let first = home.start().await;
    let pid = home.pid();
    let second = home.start().await;
    assert_eq!(home.pid(), pid, "the second one adopted the running server");
    first.stop().await.unwrap();
    assert_eq!(show(&second, "fsync").await, "on");
    second.stop().await.unwrap();
    assert!(!home.dir.join("data/postmaster.pid").exists());
    until("the server has ended", async || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_dropped_user_stops_the_server_too() {
    let home = Home::used_before().await;
    let postgres = home.start().await;
    let pid = home.pid();
    drop(postgres);
    until("the server has ended", async || !is_alive(pid)).await;
}

/// A process that is being started holds copies of all open files until it runs its own program.
#[tokio::test]
async fn the_last_user_stops_the_server_while_this_process_starts_others() {
    let home = Home::used_before().await;
    let others = ProcessesThatTakeLongToBegin::start();
    for _ in 0..5 {
        let postgres = home.start().await;
        let pid = home.pid();
        drop(postgres);
        until("the server has ended", async || !is_alive(pid)).await;
    }
    drop(others);
}

/// Starts processes without end: at every moment some of them have not yet come to run their own program.
struct ProcessesThatTakeLongToBegin {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl ProcessesThatTakeLongToBegin {
    fn start() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        // The program is looked for in each of these folders, by the process that would run it.
        let long_way = "/nowhere:".repeat(200_000);
        let threads = (0..3).map(|_| {
            let (end, long_way) = (Arc::clone(&end), long_way.clone());
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    Command::new("no-such-program").env("PATH", &long_way).spawn().expect_err("it is nowhere");
                }
            })
        });
        Self { threads: threads.collect(), end }
    }
}

impl Drop for ProcessesThatTakeLongToBegin {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only starts processes");
        }
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_server() {
    let home = Home::new();
    let pid_file = home.dir.join("data/postmaster.pid");
    let server_has_begun = async {
        while !std::fs::read_to_string(&pid_file).is_ok_and(|text| text.contains('\n')) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = home.start() => {}
        () = server_has_begun => {}
    }
    until("the server has ended", async || !pid_file.exists()).await;
}

#[tokio::test]
async fn a_start_while_the_server_stops_waits_and_starts_it_again() {
    let home = Home::used_before().await;
    let postgres = home.start().await;
    let pid = home.pid();
    drop(postgres);
    let again = home.start().await;
    assert_eq!(show(&again, "fsync").await, "on");
    assert_ne!(home.pid(), pid);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_killed_recovers_what_was_committed() {
    let home = Home::used_before().await;
    let postgres = home.start().await;
    let mut connection = connect(&postgres).await;
    sqlx::query("create table paid as select 42 as answer").execute(&mut connection).await.unwrap();
    let pid = home.pid();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let again = home.start().await;
    assert_ne!(home.pid(), pid);
    let answer: i32 =
        sqlx::query_scalar("select answer from paid").fetch_one(&mut connect(&again).await).await.unwrap();
    assert_eq!(answer, 42);
    postgres.stop().await.unwrap();
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_kept_server_that_was_killed_comes_back_until_the_keeper_stops() {
    let home = Home::used_before().await;
    let postgres = home.start().await;
    let options = Options { data_dir: home.dir.clone(), fsync: true, max_connections: 20 };
    let keeper = Keeper::of(options);
    for _ in 0..2 {
        let pid = home.pid();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        until("another server answers", async || {
            let is_another = std::fs::read_to_string(home.dir.join("data/postmaster.pid"))
                .is_ok_and(|text| text.lines().next() != Some(&pid.to_string()));
            is_another && postgres.connect_options("sluice").connect().await.is_ok()
        })
        .await;
    }
    keeper.stop().await;
    let pid = home.pid();
    postgres.stop().await.unwrap();
    until("the server has ended", async || !is_alive(pid)).await;
}

#[tokio::test]
async fn the_server_of_a_killed_process_is_adopted_and_stopped_by_the_next() {
    let home = Home::used_before().await;
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::hold_a_server_until_killed", "--ignored", "--nocapture"])
        .env("SLUICE_TEST_DATA_DIR", &home.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(owner.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("the server is up")), "the other process started it");
    let pid = home.pid();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(is_alive(pid));
    let postgres = home.start().await;
    assert_eq!(home.pid(), pid);
    postgres.stop().await.unwrap();
    until("the server has ended", async || !is_alive(pid)).await;
}

/// The other process of the test above.
#[tokio::test]
#[ignore = "runs inside another test"]
async fn hold_a_server_until_killed() {
    let Some(data_dir) = std::env::var_os("SLUICE_TEST_DATA_DIR") else { return };
    let options = Options { data_dir: data_dir.into(), fsync: true, max_connections: 20 };
    let _postgres = EmbeddedPostgres::start(&options).await.unwrap();
    eprintln!("the server is up");
    let mut end_of_input = String::new();
    std::io::stdin().read_line(&mut end_of_input).unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_does_not_hinder_the_start() {
    let home = Home::used_before().await;
    home.start().await.stop().await.unwrap();
    let dir = home.dir.display();
    for stale in [format!("{}\n{dir}/data\n1\n5432\n{dir}/run\n\n  1 1\nready   \n", std::process::id()), String::new()]
    {
        std::fs::write(home.dir.join("data/postmaster.pid"), stale).unwrap();
        home.start().await.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_long_data_directory_gets_a_short_socket_path() {
    let home = Home::at(temporary_dir());
    let deep = home.dir.join("a".repeat(60)).join("b".repeat(60));
    let parent = deep.parent().unwrap();
    std::fs::create_dir(parent).unwrap();
    for dir in [home.dir.as_path(), parent] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let inner = Home::at(deep);
    let postgres = inner.start().await;
    let socket_dir = show(&postgres, "unix_socket_directories").await;
    assert!(socket_dir.starts_with("\"/tmp/sluice-"), "{socket_dir}");
    postgres.stop().await.unwrap();
    assert!(!Path::new(socket_dir.trim_matches('"')).exists());
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_left_alone() {
    let home = Home::new();
    std::fs::write(home.dir.join("thesis.txt"), "chapter 1").unwrap();
    let before = home.dir.metadata().unwrap().permissions();
    let error = home.try_start().await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotADataDirectory(_)), "{error}");
    assert_eq!(home.dir.metadata().unwrap().permissions(), before);
    assert_eq!(std::fs::read_dir(&home.dir).unwrap().count(), 1);
}

#[tokio::test]
async fn a_cluster_of_another_version_is_named_and_left_alone() {
    let home = Home::new();
    std::fs::create_dir(home.dir.join("data")).unwrap();
    std::fs::write(home.dir.join("data/PG_VERSION"), "9\n").unwrap();
    std::fs::write(home.dir.join("start.lock"), "").unwrap();
    let error = home.try_start().await.unwrap_err();
    assert!(error.to_string().contains("was made by PostgreSQL 9, but only version"), "{error}");
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    let (one, other) = tokio::join!(database(), database());
    sqlx::query("create table only_here (x int)").execute(&one.pool()).await.unwrap();
    let found: bool =
        sqlx::query_scalar("select to_regclass('only_here') is not null").fetch_one(&other.pool()).await.unwrap();
    assert!(!found);
    assert_ne!(one.url(), other.url());
    let name: String = sqlx::query_scalar("select current_database()::text")
        .fetch_one(&mut other.connect_options().connect().await.unwrap())
        .await
        .unwrap();
    assert!(other.url().contains(&name));
}

#[tokio::test]
async fn no_row_and_no_statement_reaches_the_servers_log() {
    let home = Home::used_before().await;
    // As of a version that did not see to it yet, and then as of this one.
    for undo in [false, true] {
        let postgres = home.start().await;
        let mut connection = connect(&postgres).await;
        sqlx::raw_sql("create table if not exists note (n int not null, text text not null check (text <> 'hunter2'))")
            .execute(&mut connection)
            .await
            .unwrap();
        for faulty in ["insert into note values (1, 'hunter2')", "insert into note values (null, 'hunter2')", "hunter2"]
        {
            sqlx::raw_sql(faulty).execute(&mut connection).await.unwrap_err();
        }
        if !undo {
            sqlx::raw_sql("alter database sluice reset all").execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        postgres.stop().await.unwrap();
    }
    let log = std::fs::read_to_string(home.dir.join("postgres.log")).unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("violates") || line.contains("syntax")).collect();
    assert_eq!(said.len(), 6, "errors are still told: {log}");
    // The word itself is at fault where the message names it.
    assert!(!log.lines().any(|line| line.contains("hunter2") && !line.contains("syntax error")), "{log}");
}

/// Only root's umask matters: others run the server themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_gets_through_whatever_the_umask_is() {
    let home = Home::new();
    std::fs::set_permissions(&home.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let inner = Home::at(home.dir.join("var/lib/postgres"));
    let program = Program::new(&format!("[database]\ndata_dir = \"{}\"\n", inner.dir.display()), "");
    let sluice = program.command(&["migrate"]);
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(sluice.as_std().get_program());
    command.args(sluice.as_std().get_args()).current_dir(program.path("")).env_remove("DATABASE_URL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(command.spawn().unwrap()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}
