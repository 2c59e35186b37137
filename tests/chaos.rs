//! Everything goes wrong at once, and the books still have to be right afterwards.
//!
//! Several worker processes, an application that enqueues, cancels and retries all the time, providers that fail in
//! every way, and a schedule of faults drawn from a seed: kills, hangs, cut and half-open connections, commits that are
//! carried out and not confirmed, a Postgres that crashes. In the end three accounts are compared one by one: the
//! replies that the application got, the ledger, and the simulator's counts.
//!
//! The schedule is a function of the seed, of the length and of the number of workers. The operating system decides
//! what each fault hits. `make chaos` prints how to repeat a schedule.

mod books;
mod diary;
mod load;
mod providers;
mod schedule;
mod servers;
mod small_disk;
mod stage;

use books::reckon;
use load::Load;
use providers::{PROVIDERS, TROUBLES};
use schedule::{Dice, Kind, Size, schedule, troubles};
use stage::Stage;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Attempts that count, by route.
const MAX_ATTEMPTS: [(&str, usize); 2] = [("default", 6), ("narrow", 4)];

/// Something that is not as it should be.
#[derive(Clone, Debug)]
struct Finding {
    what: String,
    /// Which job it is about.
    job: Option<i64>,
}

impl Finding {
    fn of(what: String) -> Self {
        Self { what, job: None }
    }

    /// The same for findings that differ in their numbers.
    fn kind(&self) -> String {
        let head = self.what.split([':', '{', '(']).next().unwrap_or_default();
        head.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().trim().chars().take(80).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_right_after_half_a_minute_of_chaos() {
    run(7, Size { seconds: 20, workers: 3, machines: 2 }, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_and_a_restore_have_lost_has_a_name() {
    run(3, Size { seconds: 15, workers: 3, machines: 2 }, Some("kill,promotion,restore")).await;
}

/// `make chaos`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn the_books_are_right_after_minutes_of_chaos() {
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let number = |name: &str| {
        let parse =
            |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}: expected a number, found {text:?}"));
        text(name).map(parse)
    };
    let drawn = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 1_000_000;
    let seed = number("SLUICE_CHAOS_SEED").unwrap_or(drawn);
    let seconds = number("SLUICE_CHAOS_SECONDS").unwrap_or(300);
    let workers = usize::try_from(number("SLUICE_CHAOS_WORKERS").unwrap_or(4)).unwrap().max(1);
    run(seed, Size { seconds, workers, machines: 2.min(workers) }, text("SLUICE_CHAOS_KINDS").as_deref()).await;
}

/// The kinds of faults with these names; all when none are named.
fn kinds(names: Option<&str>) -> Vec<Kind> {
    let known = |name: &str| {
        let found = Kind::ALL.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("SLUICE_CHAOS_KINDS: no kind {name:?} among {:?}", Kind::ALL)).1
    };
    names.map_or_else(|| Kind::ALL.map(|(_, kind)| kind).to_vec(), |names| names.split(',').map(known).collect())
}

async fn run(seed: u64, size: Size, only: Option<&str>) {
    let Size { seconds, workers, machines } = size;
    let same = only.map(|kinds| format!("SLUICE_CHAOS_KINDS={kinds} ")).unwrap_or_default();
    let synchronous = Dice::new(seed, 5).chance(0.5);
    let mode = if synchronous { "a synchronous" } else { "an asynchronous" };
    eprintln!(
        "chaos: seed {seed}, {seconds} s, {workers} workers on {machines} machines, {mode} standby. The same schedule \
         again:\n\
         SLUICE_CHAOS_SEED={seed} SLUICE_CHAOS_SECONDS={seconds} SLUICE_CHAOS_WORKERS={workers} {same}make chaos"
    );
    // A restored backup has lost something, regardless of what its standby knew.
    let kinds: Vec<Kind> = kinds(only).into_iter().filter(|kind| !(synchronous && *kind == Kind::Restore)).collect();
    let events = schedule(seed, size, &kinds);
    let troubles = troubles(seed, size, PROVIDERS.len(), TROUBLES.len());
    let mut stage = Stage::new(seed, size, synchronous, &troubles).await;
    let load = Load::start(&stage.pool, seed);
    let told = std::sync::Arc::clone(&load.told);
    stage.tell(&told);
    stage
        .play(&events, Duration::from_secs(seconds), |diary| {
            let accepted = told.lock().unwrap().accepted();
            let acts: u64 = diary.done.values().sum();
            eprintln!("chaos: {accepted} jobs accepted, {acts} acts");
        })
        .await;
    let told = load.stop().await;
    stage.heal().await;
    stage.drain(Duration::from_secs(120 + seconds / 2)).await;

    let mut table = reckon(&mut stage, told).await;
    for (name, count) in &stage.diary.done {
        table.add(format!("fault: {name}"), count);
    }
    table.add("fault: of the cuts at a commit, struck", stage.struck());
    table.add("acts that met no process", stage.diary.in_vain);
    table.print();
    let findings = std::mem::take(&mut stage.findings);
    if findings.is_empty() {
        eprintln!("chaos: the books are right");
        return;
    }
    eprintln!("\nthe schedule of seed {seed}:");
    for event in &events {
        eprintln!("{event}");
    }
    eprintln!("\nwhat the workers said last:\n{}", stage.last_words());
    let mut jobs: Vec<i64> = findings.iter().filter_map(|finding| finding.job).collect();
    jobs.dedup();
    for job in jobs.iter().take(5) {
        let explained = stage.program.run(&["explain", &job.to_string()]).await;
        eprintln!("\n$ sluice explain {job}\n{}", String::from_utf8_lossy(&explained.stdout));
    }
    eprintln!();
    let mut kinds: BTreeMap<String, Vec<&Finding>> = BTreeMap::new();
    for finding in &findings {
        kinds.entry(finding.kind()).or_default().push(finding);
    }
    for (kind, findings) in &kinds {
        for finding in findings.iter().take(8) {
            eprintln!("finding: {}{}", finding.job.map(|job| format!("job {job}: ")).unwrap_or_default(), finding.what);
        }
        eprintln!("{} findings: {kind}\n", findings.len());
    }
    panic!("seed {seed}: {} findings", findings.len());
}
