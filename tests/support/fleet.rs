//! Several worker processes over one database and one simulator, and what the simulator saw of them.

use super::postgres::{TestDatabase, database};
use super::program::{Program, text};
use super::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{CallRecord, Scenario, Simulator, Verdict};
use sluice::store::Store;
use sqlx::PgPool;
use tokio::process::Child;

/// A database, a simulator, and the configuration that all processes have.
pub struct Fleet {
    pub pool: PgPool,
    pub simulator: Simulator,
    program: Program,
    /// Dropped with the fleet; absent where the test brought a server of its own.
    database: Option<TestDatabase>,
}

impl Fleet {
    /// A simulator that plays `scenario`, and a configuration in which `http://simulator` stands for its address.
    pub async fn new(scenario: &str, config: &str) -> Self {
        let database = database().await;
        let fleet = Self::over(database.pool(), &database.url(), scenario, config);
        Self { database: Some(database), ..fleet }
    }

    /// The same over a database that is there already.
    pub fn over(pool: PgPool, url: &str, scenario: &str, config: &str) -> Self {
        // One process's 429 has to reach the others within a second: until then their calls are on their way.
        let scenario = format!("record_calls = 1000000\nverdict.in_flight_grace = \"1s\"\n{scenario}");
        let scenario = Scenario::from_toml(&scenario).unwrap();
        let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap();
        let program = Program::new("", url);
        let fleet = Self { pool, simulator, program, database: None };
        fleet.configure(config);
        fleet
    }

    /// Its database.
    pub fn database(&self) -> &TestDatabase {
        self.database.as_ref().expect("a fleet of its own")
    }

    /// Writes the configuration anew, for processes that are yet to read it.
    pub fn configure(&self, config: &str) {
        let config = config.replace("http://simulator", &format!("http://{}", self.simulator.addr()));
        self.program.file("sluice.toml", format!("[http]\nlisten = \"off\"\n{config}"));
    }

    /// Writes a file beside the configuration.
    pub fn file(&self, name: &str, text: &str) -> std::path::PathBuf {
        self.program.file(name, text)
    }

    /// Starts one more process.
    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// A process that is not started yet, for a test that wants it otherwise.
    pub fn command(&self) -> tokio::process::Command {
        self.program.command(&["worker"])
    }

    /// Any command with the configuration of the fleet, not started yet.
    pub fn program(&self, arguments: &[&str]) -> tokio::process::Command {
        self.program.command(arguments)
    }

    /// Starts one more process with these variables.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Process {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.command();
        command.envs(variables.iter().copied());
        command.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
        let child = command.spawn().unwrap();
        Process { pid: i32::try_from(child.id().unwrap()).unwrap(), child, said }
    }

    /// Starts processes and waits until all of them are there: none of them has a head start.
    pub async fn start_many(&self, count: i64) -> Vec<Process> {
        let processes = (0..count).map(|_| self.start()).collect();
        self.until_live(count).await;
        processes
    }

    /// The files in the folder of spools: its processes are all of one machine.
    pub fn spools(&self) -> Vec<std::path::PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.program.path("spool")) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Waits until this many processes have registered, those that are gone left out.
    pub async fn until_live(&self, count: i64) {
        let live = "select count(*) from sluice.worker where state = 'live'";
        until("all processes have registered", async || self.number(live).await >= count).await;
    }

    /// Enqueues jobs of a route, each with a prompt of its own.
    pub async fn enqueue(&self, route: &str, jobs: i64) {
        sqlx::query(
            "insert into sluice.job (route, request)
                  select $1, jsonb_build_object('prompt', $1 || ', question ' || n) from generate_series(1, $2) n",
        )
        .bind(route)
        .bind(jobs)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// The one number that a query answers.
    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// How many jobs a process has in hand.
    pub async fn held_by(&self, process: &Process) -> i64 {
        sqlx::query_scalar(
            "select count(*) from sluice.inflight i join sluice.worker w on w.id = i.worker where w.pid = $1",
        )
        .bind(process.pid())
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// How many jobs have ended well.
    pub async fn answered(&self) -> i64 {
        self.number("select count(*) from sluice.result where state = 'succeeded'").await
    }

    /// Waits until this many jobs have ended well.
    pub async fn until_answered(&self, jobs: i64) {
        until("the jobs are answered", async || self.answered().await >= jobs).await;
    }

    /// All jobs have ended well, and the books agree.
    pub async fn books_are_in_order(&self, jobs: i64) {
        let audit = Store::from_pool(self.pool.clone()).audit().await.unwrap();
        assert_eq!(audit.faults(), Vec::<String>::new());
        assert_eq!((audit.jobs, audit.succeeded), (jobs, jobs), "{audit:?}");
    }

    /// What the simulator counted.
    pub fn verdict(&self) -> Verdict {
        self.simulator.verdict()
    }

    /// Calls that the provider's quota has let through.
    pub fn admitted(&self) -> u64 {
        let total = self.verdict().total;
        total.calls - total.refused_by_quota
    }

    /// Waits until the quota has let so many calls through, and returns the simulator's time.
    pub async fn until_admitted(&self, calls: u64) -> f64 {
        until("the calls are let through", async || self.admitted() >= calls).await;
        self.verdict().seconds
    }

    /// Every call that has ended, in the order of arrival.
    pub fn calls(&self) -> Vec<CallRecord> {
        let mut calls = self.simulator.calls(usize::MAX);
        calls.sort_by_key(|call| call.arrived_ms);
        calls
    }
}

/// A worker process; killed when it is dropped.
pub struct Process {
    child: Child,
    pid: i32,
    said: tempfile::NamedTempFile,
}

impl Process {
    /// Its number, also when it is gone.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        text(&std::fs::read(self.said.path()).unwrap())
    }

    /// Waits until it has said this so many times.
    pub async fn until_said(&self, words: &str, times: usize) {
        until(words, async || self.said().matches(words).count() >= times).await;
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).unwrap(), signal).unwrap();
    }

    /// Ends it as the kernel does when memory runs out.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(self) {
        self.signal(Signal::TERM);
        let (code, said) = self.ended().await;
        assert_eq!(code, Some(0), "{said}");
    }

    /// Waits until it has ended; returns its exit status and what it said.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().await.unwrap().code();
        (code, self.said())
    }
}

/// Stops processes, one after the other.
pub async fn stop(processes: Vec<Process>) {
    for process in processes {
        process.stop().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = text(&std::fs::read(self.said.path()).unwrap_or_default());
            eprintln!("what the process {} said:\n{said}", self.pid);
        }
    }
}
