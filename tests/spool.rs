//! Answers that come while the database is away, workers that are killed, stopped and continued: no answer is lost, no
//! call is bought twice, and calls that may have been bought are named.

use crate::support::cluster::OwnCluster;
use crate::support::fleet::{Fleet, Process};
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::journal::{NextItem, Records};
use std::io::Write as _;

/// One provider whose answers take as long as `behaviour` says.
fn scenario(behaviour: &str) -> String {
    format!(
        "[providers.one]\ndialect = \"openai\"\n{behaviour}\nmodels.model.price = {{ input = \"1\", output = \"2\" }}\n"
    )
}

/// Workers that may hold so many jobs; a setting of theirs beside.
fn config(max_in_flight: u32, more: &str) -> String {
    format!(
        "[worker]\nmax_in_flight = {max_in_flight}\ndrain_timeout = \"5s\"\n{more}\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
         limits = {{ concurrency = 100 }}\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\n"
    )
}

fn calls(fleet: &Fleet) -> i64 {
    i64::try_from(fleet.verdict().total.calls).unwrap()
}

/// Calls that the provider has answered in full.
fn answered(fleet: &Fleet) -> i64 {
    i64::try_from(fleet.calls().iter().filter(|call| call.status == 200).count()).unwrap()
}

async fn until_calls(fleet: &Fleet, least: i64) {
    until("calls are under way", async || calls(fleet) >= least).await;
}

async fn until_said(process: &Process, words: &str) {
    until(words, async || process.said().contains(words)).await;
}

/// Outcomes in spools.
fn spooled(fleet: &Fleet) -> usize {
    fleet.spools().iter().map(|path| records(&std::fs::read(path).unwrap()) - 1).sum()
}

fn records(journal: &[u8]) -> usize {
    let mut records = Records::new(journal, 0);
    let mut count = 0;
    while let NextItem::Record(_) = records.read_next().unwrap() {
        count += 1;
    }
    count
}

/// A cluster that may be killed, with workers of one machine.
async fn stage(behaviour: &str, max_in_flight: u32, more: &str) -> (OwnCluster, Fleet) {
    let cluster = OwnCluster::start().await;
    let fleet = Fleet::over(cluster.pool.clone(), &cluster.url, &scenario(behaviour), &config(max_in_flight, more));
    (cluster, fleet)
}

/// The database is killed while twenty calls are under way, and they are answered without it.
async fn answers_without_a_database(cluster: &OwnCluster, fleet: &Fleet) -> Process {
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 20).await;
    until_calls(fleet, 20).await;
    cluster.kill();
    until("all answers have come", async || answered(fleet) == 20).await;
    until("they are on the disk", async || spooled(fleet) == 20).await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_came_while_the_database_was_away_outlive_their_worker() {
    let (mut cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let mut worker = answers_without_a_database(&cluster, &fleet).await;
    worker.kill().await;
    assert_eq!(fleet.spools().len(), 1);
    cluster.return_of_the_server().await;
    let heir = fleet.start();
    fleet.until_answered(20).await;
    assert_eq!(calls(&fleet), 20, "nothing was bought twice");
    fleet.books_are_in_order(20).await;
    // Its worker is known to be dead although its lease has not run out, and nothing had to be rescued.
    let dead = "select count(*) from sluice.worker where state = 'dead'";
    until("its worker is declared dead", async || fleet.number(dead).await == 1).await;
    assert_eq!(fleet.number("select count(*) from sluice.attempt where class = 'abandoned'").await, 0);
    heir.stop().await;
    assert_eq!(fleet.spools(), Vec::<std::path::PathBuf>::new(), "nothing is left behind");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_a_spool_whose_claim_is_locked_holds_up_neither_the_others_nor_the_next_worker() {
    let (mut cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let mut worker = answers_without_a_database(&cluster, &fleet).await;
    worker.kill().await;
    cluster.return_of_the_server().await;
    // The first of them, behind which all others were written.
    let mut open = fleet.pool.begin().await.unwrap();
    let cancel = "select sluice.cancel(job_id) from (select min(job_id) as job_id from sluice.inflight) i";
    sqlx::query(cancel).execute(&mut *open).await.unwrap();
    let heir = fleet.start();
    fleet.until_answered(19).await;
    until_said(&heir, "other transactions have locked jobs").await;
    fleet.enqueue("default", 5).await;
    fleet.until_answered(24).await;
    assert_eq!(spooled(&fleet), 20, "the file stays");
    open.rollback().await.unwrap();
    fleet.until_answered(25).await;
    fleet.books_are_in_order(25).await;
    until("the file is gone", async || fleet.spools().len() == 1 && spooled(&fleet) == 0).await;
    heir.stop().await;
    cluster.stop().await;
}

/// The same of a worker that lives: what it cannot write outlives it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_claim_is_locked_outlives_its_worker() {
    let (cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let mut worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 20).await;
    until_calls(&fleet, 20).await;
    let mut open = fleet.pool.begin().await.unwrap();
    let cancel = "select sluice.cancel(job_id) from sluice.inflight limit 3";
    assert_eq!(sqlx::query(cancel).fetch_all(&mut *open).await.unwrap().len(), 3);
    fleet.until_answered(17).await;
    until("the other three are on the disk", async || spooled(&fleet) == 3).await;
    fleet.enqueue("default", 5).await;
    fleet.until_answered(22).await;
    worker.kill().await;
    let heir = fleet.start();
    fleet.enqueue("default", 5).await;
    fleet.until_answered(27).await;
    open.rollback().await.unwrap();
    fleet.until_answered(30).await;
    fleet.books_are_in_order(30).await;
    heir.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_without_a_database_leaves_its_answers_for_the_next() {
    let (mut cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let worker = answers_without_a_database(&cluster, &fleet).await;
    worker.signal(Signal::TERM);
    let (code, said) = worker.ended().await;
    // The status of a database that cannot be reached: an operator has to see it.
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("outcomes stay in the spool"), "{said}");
    cluster.return_of_the_server().await;
    let heir = fleet.start();
    fleet.until_answered(20).await;
    assert_eq!(calls(&fleet), 20);
    fleet.books_are_in_order(20).await;
    heir.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_by_itself_when_the_database_is_back() {
    let (mut cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let worker = answers_without_a_database(&cluster, &fleet).await;
    cluster.return_of_the_server().await;
    fleet.until_answered(20).await;
    fleet.enqueue("default", 20).await;
    fleet.until_answered(40).await;
    assert_eq!(calls(&fleet), 40);
    fleet.books_are_in_order(40).await;
    assert_eq!(fleet.number("select count(*) from sluice.attempt where class = 'abandoned'").await, 0);
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_full_stops_calls_and_drops_no_answer() {
    // Forty answers of some hundred kilobytes do not fit into a megabyte.
    let (mut cluster, fleet) =
        stage("latency = { uniform = [1.5, 2.5] }\noutput = { tokens = 20000 }", 40, "[spool]\nmax_bytes = 1000000")
            .await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 50).await;
    until_calls(&fleet, 40).await;
    cluster.kill();
    until("the answers have come", async || answered(&fleet) >= 40).await;
    until_said(&worker, "the spool takes no more outcomes").await;
    cluster.return_of_the_server().await;
    fleet.until_answered(50).await;
    assert_eq!(calls(&fleet), 50, "no answer was dropped, so none was bought twice");
    fleet.books_are_in_order(50).await;
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_put_aside_and_the_rest_of_it_is_written() {
    let (mut cluster, fleet) = stage("latency = { uniform = [1.5, 2.5] }", 20, "").await;
    let mut worker = answers_without_a_database(&cluster, &fleet).await;
    worker.kill().await;
    let path = fleet.spools().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // And one of another installation, which is not ours to touch.
    let mut other = std::fs::File::create(path.with_file_name("other.journal")).unwrap();
    other.write_all(&bytes[..4]).unwrap();
    cluster.return_of_the_server().await;
    let heir = fleet.start();
    fleet.until_answered(20).await;
    // The outcomes that could not be read were asked for again, and each of these calls is named.
    let again = calls(&fleet) - 20;
    assert!((1..20).contains(&again), "{again} calls were made anew");
    let named = "select count(*) from sluice.attempt where detail = 'worker_died' and uncertain_nanos > 0";
    assert_eq!(fleet.number(named).await, again);
    assert!(fleet.spools().iter().any(|path| path.extension().is_some_and(|ending| ending == "damaged")));
    assert_eq!(fleet.number("select count(*) from sluice.results where state = 'succeeded'").await, 20);
    heir.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_over_from_its_predecessor_without_waiting_for_the_lease() {
    let fleet = Fleet::new(&scenario("latency = { uniform = [0.5, 1] }"), &config(20, "")).await;
    let mut worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 60).await;
    until_calls(&fleet, 25).await;
    worker.kill().await;
    let made = calls(&fleet);
    let heir = fleet.start();
    until("the heir has registered", async || fleet.number("select count(*) from sluice.worker").await == 2).await;
    // Before it has registered itself, it has given back what its predecessor held.
    let early = "select count(*) from sluice.worker where state = 'dead' and lease_until > now()";
    assert_eq!(fleet.number(early).await, 1, "a lease of thirty seconds had not run out");
    fleet.until_answered(60).await;
    // Every call that was made twice is on the ledger with what it may have cost, and what the provider answered to it.
    let named = fleet.number("select count(*) from sluice.attempt where detail = 'worker_died'").await;
    let total = calls(&fleet);
    assert!(total <= 60 + named, "{named} calls are named, {total} were made ({made} before the kill)");
    let unnamed = total - fleet.number("select count(*) from sluice.attempt").await;
    assert!(unnamed <= 0, "{unnamed} calls are not on the ledger");
    fleet.books_are_in_order(60).await;
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_worker_that_was_taken_for_dead_are_used() {
    let fleet = Fleet::new(&scenario("latency = { fixed = 2 }"), &config(10, "")).await;
    let zombie = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 10).await;
    until_calls(&fleet, 10).await;
    zombie.signal(Signal::STOP);
    // Its lease runs out, and others find that out.
    sqlx::query("update sluice.worker set state = 'dead'").execute(&fleet.pool).await.unwrap();
    let rescuer = fleet.start();
    until("its jobs are called for again", async || calls(&fleet) == 20).await;
    zombie.signal(Signal::CONT);
    fleet.until_answered(10).await;
    until("every call is on the ledger", async || {
        fleet.number("select count(*) from sluice.attempt where not placeholder").await == 20
    })
    .await;
    // Of each job one answer is used; the other call was dropped, or its answer came late.
    let unused = "select count(*) from sluice.attempt where class = 'abandoned'";
    assert_eq!(fleet.number(unused).await, 10);
    let zombies = "select count(*) from sluice.result r join sluice.attempt a using (job_id, fence)
                    where a.accepted and a.ended_at > a.started_at + interval '1 second'";
    assert_eq!(fleet.number(zombies).await, 10);
    fleet.books_are_in_order(10).await;
    zombie.stop().await;
    rescuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_chosen_and_cannot_be_had_is_an_error_and_leaves_no_worker_behind() {
    let fleet = Fleet::new(&scenario(""), &config(10, "")).await;
    // A file where the folder should be.
    let process = fleet.start_with(&[("SLUICE__SPOOL__DIR", fleet.file("in-the-way", "").to_str().unwrap())]);
    let (code, said) = process.ended().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the spool") && said.contains("in-the-way"), "{said}");
    assert_eq!(fleet.number("select count(*) from sluice.worker where state = 'live'").await, 0);
}
