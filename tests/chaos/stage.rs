//! What a run takes place on: a cluster that survives its crashes, a simulator that counts, machines with a network of
//! their own, and the processes on them.

use super::Finding;
use super::diary::{Diary, Window, now_ms};
use super::load::Told;
use super::providers::{config, scenario};
use super::schedule::{Act, Event, Room, Size, Trouble};
use super::servers::{LOGIN, Servers};
use super::small_disk::SmallDisk;
use crate::support::program::{Program, text};
use crate::support::proxy::{Proxy, Weather};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use sluice::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

/// How long a supervisor waits before it starts one again that has ended by itself.
const RESTART: Duration = Duration::from_secs(1);
/// How long a worker may take to stop when nothing is in its way.
const PATIENCE: Duration = Duration::from_mins(2);

/// A worker process.
struct Running {
    child: Child,
    pid: i32,
    machine: usize,
    log: PathBuf,
    room: Room,
    began: i64,
    paused_since: Option<i64>,
    /// It was asked to end, in one way or the other.
    asked: bool,
}

#[derive(Default)]
struct Slot {
    running: Option<Running>,
    wanted: Option<(usize, Room)>,
    last_pid: Option<i32>,
    /// One that ended by itself is not started again at once.
    not_before: Option<Instant>,
}

pub struct Stage {
    pub pool: PgPool,
    pub simulator: Simulator,
    /// The instant at which the simulator's clock began, in milliseconds of the wall clock.
    pub simulator_began: i64,
    pub diary: Diary,
    pub program: Program,
    pub findings: Vec<Finding>,
    proxies: Vec<Proxy>,
    /// Since when the network of a machine has been in trouble.
    cut_off: Vec<Option<i64>>,
    crashed: Option<i64>,
    /// Since when the database refuses, and since when a machine is led to the standby.
    refused: Option<i64>,
    misled: Vec<Option<i64>>,
    slots: Vec<Slot>,
    logs: Vec<PathBuf>,
    folder: tempfile::TempDir,
    small_disk: Option<SmallDisk>,
    servers: Servers,
    /// What the application was told: some of it may be lost.
    told: Arc<Mutex<Told>>,
}

impl Stage {
    /// `synchronous`: every commit waits for the standby.
    pub async fn new(seed: u64, size: Size, synchronous: bool, troubles: &[Trouble]) -> Self {
        let Size { machines, workers, .. } = size;
        let mut servers = Servers::new(synchronous).await;
        let server = servers.options();
        let pool = PgPoolOptions::new()
            .max_connections(6)
            .acquire_timeout(Duration::from_secs(3))
            .connect_lazy_with(server.clone().application_name("chaos"));
        Store::from_pool(pool.clone()).migrate().await.unwrap();
        servers.complete().await;
        let mut proxies = Vec::new();
        for _ in 0..machines {
            proxies.push(Proxy::to(&server).await);
        }
        let scenario = Scenario::from_toml(&scenario(seed, troubles)).unwrap();
        let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = config().replace("http://simulator", &format!("http://{}", simulator.addr()));
        let mut stage = Self {
            pool,
            simulator_began: 0,
            diary: Diary::default(),
            program: Program::new(&config, &proxies[0].url("sluice", "sluice")),
            findings: Vec::new(),
            proxies,
            cut_off: vec![None; machines],
            crashed: None,
            refused: None,
            misled: vec![None; machines],
            slots: (0..workers).map(|_| Slot::default()).collect(),
            logs: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            small_disk: SmallDisk::mount(),
            servers,
            told: Arc::default(),
            simulator,
        };
        if stage.small_disk.is_none() {
            eprintln!("chaos: no disk can be mounted that is full; such spools are switched off instead");
        }
        for slot in 0..workers {
            stage.slots[slot].wanted = Some((slot % machines, Room::Plenty));
        }
        stage.tend();
        stage.simulator.reset();
        stage.simulator_began = now_ms();
        stage
    }

    /// Whom to tell when the database has lost something.
    pub fn tell(&mut self, told: &Arc<Mutex<Told>>) {
        self.told = Arc::clone(told);
    }

    pub fn store(&self) -> Store {
        Store::from_pool(self.pool.clone())
    }

    /// Does everything on the schedule in its time.
    pub async fn play(&mut self, events: &[Event], length: Duration, mut tell: impl FnMut(&Diary)) {
        let began = Instant::now();
        let mut told = began;
        for event in events.iter().filter(|event| event.at <= length) {
            while began.elapsed() < event.at {
                self.tend();
                self.servers.tend().await;
                if told.elapsed() > Duration::from_secs(20) {
                    told = Instant::now();
                    tell(&self.diary);
                }
                tokio::time::sleep(Duration::from_millis(50).min(event.at.saturating_sub(began.elapsed()))).await;
            }
            self.act(event.act).await;
        }
        while began.elapsed() < length {
            self.tend();
            self.servers.tend().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn act(&mut self, act: Act) {
        let now = now_ms();
        let name = match act {
            Act::Kill { slot } => {
                let Some(running) = &mut self.slots[slot].running else { return self.diary.in_vain += 1 };
                running.asked = true;
                running.signal(Signal::KILL);
                if let Some(from) = running.paused_since.take() {
                    self.diary.pauses.push(Window { from, until: now });
                }
                self.diary.kills.push(now);
                "killed"
            }
            Act::Term { slot } => {
                let Some(running) = &mut self.slots[slot].running else { return self.diary.in_vain += 1 };
                running.asked = true;
                running.signal(Signal::TERM);
                "asked to stop"
            }
            Act::Reload { slot } => {
                // In its very first moments it cannot hear anything yet.
                let running = self.slots[slot].running.as_ref().filter(|running| now > running.began + 1_000);
                let Some(running) = running else { return self.diary.in_vain += 1 };
                running.signal(Signal::HUP);
                "told to reload"
            }
            Act::Stop { slot } => {
                let Some(running) = &mut self.slots[slot].running else { return self.diary.in_vain += 1 };
                running.signal(Signal::STOP);
                running.paused_since.get_or_insert(now);
                "paused"
            }
            Act::Continue { slot } => {
                if let Some(running) = &mut self.slots[slot].running {
                    running.signal(Signal::CONT);
                    if let Some(from) = running.paused_since.take() {
                        self.diary.pauses.push(Window { from, until: now });
                    }
                }
                return;
            }
            Act::Start { slot, machine, spool } => {
                self.slots[slot].wanted = Some((machine, spool));
                self.tend();
                return;
            }
            Act::Expire { slot } => {
                let Some(pid) = self.slots[slot].last_pid else { return };
                let pool = self.pool.clone();
                // Not waited for: the database may be away.
                tokio::spawn(async move { expire(&pool, Some(pid)).await });
                "leases run out"
            }
            Act::Terminate { backends, draw } => {
                let pool = self.pool.clone();
                tokio::spawn(async move {
                    let _ = sqlx::query(
                        "select pg_terminate_backend(pid) from (
                             select pid from pg_stat_activity
                              where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = 'sluice'
                              order by hashint8extended(pid, $1) limit $2) some",
                    )
                    .bind(draw)
                    .bind(backends)
                    .execute(&pool)
                    .await;
                });
                self.apart(now);
                "backends terminated"
            }
            Act::Crash => {
                self.recovered().await;
                if !self.servers.crash().await {
                    return self.diary.in_vain += 1;
                }
                self.crashed.get_or_insert(now);
                "Postgres crashed"
            }
            Act::Recover => {
                self.servers.recover();
                return;
            }
            Act::ReadOnly => {
                if !self.servers.make_read_only().await {
                    return self.diary.in_vain += 1;
                }
                self.refused.get_or_insert(now);
                "made read-only"
            }
            Act::Refuse { how } => {
                if !self.servers.refuse(how).await {
                    return self.diary.in_vain += 1;
                }
                self.refused.get_or_insert(now);
                "login refused"
            }
            Act::Lift => return self.lift().await,
            Act::Mislead { machine } => {
                let Some(standby) = self.servers.standby_options() else { return self.diary.in_vain += 1 };
                self.proxies[machine].lead_to(&standby);
                self.proxies[machine].cut();
                self.misled[machine].get_or_insert(now);
                "led to the standby"
            }
            Act::LeadBack { machine } => {
                self.proxies[machine].lead_to(&self.servers.options());
                if let Some(from) = self.misled[machine].take() {
                    self.diary.apart.push(Window { from, until: now + 2_000 });
                }
                return;
            }
            Act::CutOff => {
                self.servers.cut_off().await;
                return;
            }
            Act::BackUp => {
                self.servers.back_up();
                return;
            }
            Act::Promote => {
                let Some(lost) = self.servers.promote().await else { return self.diary.in_vain += 1 };
                self.moved(now, (!self.servers.synchronous).then_some(lost));
                "standby promoted"
            }
            Act::Restore => {
                let Some(lost) = self.servers.restore().await else { return self.diary.in_vain += 1 };
                self.moved(now, Some(lost));
                "backup restored"
            }
            Act::Net { machine, weather } => {
                self.proxies[machine].set(weather);
                if let Some(from) = self.cut_off[machine].take() {
                    self.diary.apart.push(Window { from, until: now });
                }
                let name = match weather {
                    Weather::Clear => return,
                    Weather::Delay(_) => "network slow",
                    Weather::Refuse => "network refuses",
                    Weather::Blackhole => "network half open",
                    Weather::Stall => "network stalls",
                };
                self.cut_off[machine] = Some(now);
                name
            }
            Act::Cut { machine } => {
                self.proxies[machine].cut();
                self.apart(now);
                "connections reset"
            }
            Act::CutAt { machine, moment } => {
                self.proxies[machine].cut_at(moment);
                self.apart(now);
                "cut at a commit"
            }
        };
        *self.diary.done.entry(name).or_default() += 1;
    }

    /// A client lost a connection just now.
    fn apart(&mut self, now: i64) {
        self.diary.apart.push(Window { from: now, until: now + 1_000 });
    }

    /// Another server serves. Rows that only the earlier primary had are lost.
    fn moved(&mut self, since: i64, lost: Option<Window>) {
        let server = self.servers.options();
        self.pool.set_connect_options(server.clone().application_name("chaos"));
        let now = now_ms();
        if let Some(Window { from, .. }) = lost {
            self.diary.lost.push(Window { from, until: now });
            self.told.lock().unwrap().lost_since(from);
        }
        for machine in 0..self.proxies.len() {
            self.proxies[machine].lead_to(&server);
            self.proxies[machine].cut();
            self.misled[machine] = None;
        }
        let from = lost.map_or(since, |lost| lost.from.min(since));
        // Until the new standby is there commits wait for it.
        self.diary.apart.push(Window { from, until: now + 3_000 });
        self.crashed = None;
    }

    /// Nothing is refused any more.
    async fn lift(&mut self) {
        if self.servers.lift().await
            && let Some(from) = self.refused.take()
        {
            self.diary.apart.push(Window { from, until: now_ms() + 2_000 });
        }
    }

    /// Waits until the server that was to come back is back.
    async fn recovered(&mut self) {
        if self.servers.recovered().await
            && let Some(from) = self.crashed.take()
        {
            self.diary.apart.push(Window { from, until: now_ms() });
        }
    }

    /// Buries who has ended, and starts who is wanted, as a supervisor does.
    fn tend(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if let Some(running) = &mut slot.running {
                let Some(status) = running.child.try_wait().unwrap() else { continue };
                // One that cannot reach the database at its start gives up with 4, and is started again.
                let excused = running.asked || status.code() == Some(4);
                if !excused {
                    let log = running.log.clone();
                    self.findings.push(Finding::of(format!("a worker ended by itself: {status}\n{}", tail(&log, 30))));
                }
                if !running.asked {
                    slot.wanted.get_or_insert((running.machine, running.room));
                    slot.not_before = Some(Instant::now() + RESTART);
                }
                self.diary.roomless.extend(running.roomless());
                slot.running = None;
            }
            let slot = &mut self.slots[index];
            let rests = slot.not_before.is_some_and(|start| Instant::now() < start);
            if !rests && let Some((machine, room)) = slot.wanted.take() {
                self.start(index, machine, room);
            }
        }
    }

    fn start(&mut self, slot: usize, machine: usize, room: Room) {
        let log = self.folder.path().join(format!("worker-{}-slot-{slot}.log", self.logs.len()));
        let mut command = self.worker(machine, room, &["worker"], &log);
        let child = command.spawn().unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        self.logs.push(log.clone());
        self.slots[slot].last_pid = Some(pid);
        self.slots[slot].running =
            Some(Running { child, pid, machine, log, room, began: now_ms(), paused_since: None, asked: false });
        *self.diary.done.entry("processes started").or_default() += 1;
    }

    fn worker(&self, machine: usize, room: Room, arguments: &[&str], log: &Path) -> tokio::process::Command {
        let said = std::fs::File::create(log).unwrap();
        let mut command = self.program.command(arguments);
        command
            .env("DATABASE_URL", self.proxies[machine].url(LOGIN, "sluice"))
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        command.env("SLUICE__SPOOL__DIR", self.spool(machine, room));
        command
    }

    /// Where a worker keeps what the database does not take.
    fn spool(&self, machine: usize, room: Room) -> PathBuf {
        match (room, &self.small_disk) {
            (Room::Plenty, _) => self.folder.path().join(format!("spool-{machine}")),
            (Room::Disk, Some(disk)) => disk.path.join("spool"),
            (Room::Off, _) | (Room::Disk, None) => PathBuf::from("off"),
        }
    }

    /// Ends all trouble and every worker.
    pub async fn heal(&mut self) {
        let now = now_ms();
        for machine in 0..self.proxies.len() {
            self.proxies[machine].cut_at_none();
            self.act(Act::Net { machine, weather: Weather::Clear }).await;
        }
        self.act(Act::Recover).await;
        self.recovered().await;
        for machine in 0..self.proxies.len() {
            self.act(Act::LeadBack { machine }).await;
        }
        self.lift().await;
        // In a synchronous run nothing is committed without it.
        while self.servers.standby_options().is_none() {
            self.servers.tend().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for slot in 0..self.slots.len() {
            self.act(Act::Continue { slot }).await;
        }
        until("the database takes statements", async || {
            sqlx::query("truncate sluice.pause").execute(&self.pool).await.is_ok()
        })
        .await;
        for slot in &mut self.slots {
            slot.wanted = None;
            let Some(mut running) = slot.running.take() else { continue };
            running.signal(Signal::TERM);
            self.diary.roomless.extend(running.roomless());
            match timeout(PATIENCE, running.child.wait()).await {
                Ok(status) => {
                    let status: ExitStatus = status.unwrap();
                    let said = tail(&running.log, 30);
                    // A process that was told to stop before it listened for signals has begun nothing.
                    let unborn = said.trim().is_empty() && status.signal() == Some(Signal::TERM.as_raw());
                    if !status.success() && !running.asked && !unborn && status.code() != Some(4) {
                        self.findings.push(Finding::of(format!("a worker did not stop well: {status}\n{said}")));
                    }
                }
                Err(late) => {
                    let said = tail(&running.log, 60);
                    self.findings.push(Finding::of(format!("a worker did not stop on SIGTERM: {late}\n{said}")));
                    self.diary.kills.push(now_ms());
                    running.child.kill().await.unwrap();
                }
            }
        }
        self.apart(now);
    }

    /// Healthy workers on every machine, until nothing is left to do.
    pub async fn drain(&mut self, bound: Duration) {
        expire(&self.pool, None).await;
        let mut children = Vec::new();
        // Every spool has a worker that replays it.
        let mut spools: Vec<(usize, Room)> = (0..self.proxies.len()).map(|machine| (machine, Room::Plenty)).collect();
        spools.extend(self.small_disk.is_some().then_some((0, Room::Disk)));
        for (index, (machine, room)) in spools.into_iter().enumerate() {
            let log = self.folder.path().join(format!("drain-{index}.log"));
            let child = self.worker(machine, room, &["worker", "--drain"], &log).spawn().unwrap();
            self.logs.push(log.clone());
            children.push((child, log));
        }
        let deadline = Instant::now() + bound;
        for (mut child, log) in children {
            match tokio::time::timeout_at(deadline, child.wait()).await {
                Ok(status) if status.as_ref().unwrap().success() => {}
                Ok(status) => {
                    let (status, said) = (status.unwrap(), tail(&log, 60));
                    self.findings.push(Finding::of(format!("a draining worker failed: {status}\n{said}")));
                }
                Err(_) => {
                    let said = tail(&log, 60);
                    self.findings.push(Finding::of(format!("the work that is left is not done in {bound:?}\n{said}")));
                    child.kill().await.unwrap();
                }
            }
        }
        // A call whose worker is gone ends when the simulator notices.
        let all = || self.simulator.verdict().total.calls == self.simulator.calls(usize::MAX).len() as u64;
        until("the simulator has seen the end of every call", async || all()).await;
        let small = self.small_disk.as_ref().map(|_| self.spool(0, Room::Disk));
        let folders = (0..self.proxies.len()).map(|machine| self.spool(machine, Room::Plenty)).chain(small);
        for folder in folders.collect::<Vec<_>>() {
            let left: Vec<_> =
                std::fs::read_dir(&folder).into_iter().flatten().map(|file| file.unwrap().path()).collect();
            if !left.is_empty() {
                self.findings.push(Finding::of(format!("a spool was not written to the database: {left:?}")));
            }
        }
        for log in &self.logs {
            let said = std::fs::read(log).unwrap_or_default();
            let said = text(&said);
            if let Some(line) = said.lines().find(|line| line.contains("panicked at")) {
                self.findings.push(Finding::of(format!("a worker panicked: {line}")));
            }
        }
    }

    /// How often a connection was cut exactly at its moment.
    pub fn struck(&self) -> u64 {
        self.proxies.iter().map(Proxy::struck).sum()
    }

    /// What the latest workers said last.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for log in self.logs.iter().rev().take(12).rev() {
            let _ = writeln!(words, "--- {}\n{}", log.file_name().unwrap().to_string_lossy(), tail(log, 25));
        }
        words
    }
}

impl Running {
    /// The time in which its spool had no room, which is all of its life or nothing.
    fn roomless(&self) -> Option<Window> {
        (self.room != Room::Plenty).then(|| Window { from: self.began, until: now_ms() })
    }

    fn signal(&self, signal: Signal) {
        // It may have ended and not been buried yet.
        let _ = kill_process(Pid::from_raw(self.pid).unwrap(), signal);
    }
}

/// Thirty seconds without a heartbeat pass for this process, or for all.
async fn expire(pool: &PgPool, pid: Option<i32>) {
    let expired = sqlx::query(
        "update sluice.worker set lease_until = now() - interval '1 second'
          where state = 'live' and ($1::integer is null or pid = $1)",
    )
    .bind(pid);
    let _ = expired.execute(pool).await;
}

/// The last lines of a file.
fn tail(path: &Path, lines: usize) -> String {
    let said = text(&std::fs::read(path).unwrap_or_default());
    let all: Vec<&str> = said.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
