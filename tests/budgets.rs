//! Budgets with real worker processes against the simulator, whose own book says how much was charged.
//!
//! A call may cost a cent at most, and a budget is a dollar: when no call fits any more, less than five cents are left.

mod commands;
mod statements;
mod walk;

use crate::support::fleet::{Fleet, Process, stop};
use crate::support::program::text;
use crate::support::queue::Queue;
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::exit_code::ExitCode;

const DOLLAR: i64 = 1_000_000_000;

/// A provider that answers with so many tokens, for ten dollars a million.
fn one(latency: &str, output: &str) -> String {
    format!(
        "[providers.one]\ndialect = \"openai\"\nlatency = {latency}\noutput = {output}\n\
         models.model.price = {{ input = \"0\", output = \"10\" }}\n"
    )
}

/// A worker of this size with that provider, and these budgets.
fn worker(max_in_flight: u32, more: &str) -> String {
    format!(
        "[worker]\nmax_in_flight = {max_in_flight}\ndrain_timeout = \"30s\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"0\", output = \"10\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\n{more}"
    )
}

const A_DOLLAR: &str = "[budgets.all]\nlimit = \"1.00\"\n";

impl Fleet {
    /// Jobs of which each may answer with so many tokens.
    async fn enqueue_capped(&self, jobs: i64, max_tokens: i64) {
        sqlx::query(
            "insert into sluice.job (request, batch, project)
                  select jsonb_build_object('prompt', 'question ' || n, 'max_tokens', $2::bigint), 'b', 'p'
                    from generate_series(1, $1) n",
        )
        .bind(jobs)
        .bind(max_tokens)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Waits until the budget has no room, and no call is under way that might give some of it back.
    async fn until_spent(&self, budget: &'static str) {
        until("the budget is spent", async || {
            let spent: i64 = sqlx::query_scalar(
                "select count(*) from sluice.budgets b
                  where b.name = $1 and b.holds and b.reserved = 0 and not exists (select from sluice.inflight)",
            )
            .bind(budget)
            .fetch_one(&self.pool)
            .await
            .unwrap();
            spent == 1
        })
        .await;
    }

    /// Spent, uncertain and reserved of a budget, in billionths of a dollar.
    async fn sums(&self, budget: &str) -> (i64, i64, i64) {
        let store = self.database().store().await;
        let found = store.budgets().await.unwrap().budgets.0.into_iter().find(|it| it.budget.name == budget).unwrap();
        (found.spent.0, found.uncertain.0, found.reserved.0)
    }

    /// The budget is used up, and what it says is what the ledger says.
    async fn is_used_up(&self, budget: &str) -> (i64, i64) {
        let (spent, uncertain, reserved) = self.sums(budget).await;
        assert_eq!(reserved, 0);
        let used = spent + uncertain;
        assert!((DOLLAR * 95 / 100..=DOLLAR).contains(&used), "{spent} spent, {uncertain} uncertain");
        let ledger = "select coalesce(sum(cost_nanos), 0)::bigint from sluice.attempt";
        assert_eq!(self.number(ledger).await, spent);
        let may_be = "select coalesce(sum(uncertain_nanos), 0)::bigint from sluice.attempt";
        assert_eq!(self.number(may_be).await, uncertain);
        assert_eq!(self.database().store().await.check_budgets(false).await.unwrap(), []);
        (spent, uncertain)
    }

    /// No call of a job was counted as a failure of it.
    async fn no_attempt_is_used_up(&self) {
        assert_eq!(self.number("select count(*) from sluice.attempt where not accepted and not placeholder").await, 0);
        assert_eq!(self.number("select count(*) from sluice.result where state <> 'succeeded'").await, 0);
    }
}

fn charged(fleet: &Fleet) -> i64 {
    i64::try_from(fleet.verdict().total.charged_nano_usd).unwrap()
}

/// A process that is killed in the midst of its calls, and found dead.
async fn kill(fleet: &Fleet, mut process: Process) {
    process.kill().await;
    sqlx::query("update sluice.worker set lease_until = now() - interval '1 second' where pid = $1 and state = 'live'")
        .bind(process.pid())
        .execute(&fleet.pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_spend_a_dollar_and_no_more() {
    let output = "{ uniform = [300, 1000] }";
    let fleet = Fleet::new(&one("{ uniform = [0.02, 0.1] }", output), &worker(20, A_DOLLAR)).await;
    let processes = fleet.start_many(3).await;
    fleet.enqueue_capped(400, 1000).await;
    fleet.until_spent("all").await;
    let (spent, uncertain) = fleet.is_used_up("all").await;
    assert_eq!((charged(&fleet), uncertain), (spent, 0), "the provider's own book");
    fleet.no_attempt_is_used_up().await;
    let warned = processes.iter().map(|process| process.said().matches("a budget has no room").count());
    assert_eq!(warned.sum::<usize>(), 1, "one of them has said so");
    stop(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_may_have_spent_counts() {
    let output = "{ uniform = [300, 1000] }";
    let fleet = Fleet::new(&one("{ fixed = 0.5 }", output), &worker(20, A_DOLLAR)).await;
    let mut processes = fleet.start_many(3).await;
    fleet.enqueue_capped(400, 1000).await;
    let killed = processes.remove(0);
    until("it has calls under way", async || {
        let calls: i64 = sqlx::query_scalar(
            "select count(*) from sluice.reservation r join sluice.inflight i on i.job_id = r.job_id
                    join sluice.worker w on w.id = i.worker where w.pid = $1",
        )
        .bind(killed.pid())
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
        calls >= 10
    })
    .await;
    kill(&fleet, killed).await;
    fleet.until_spent("all").await;
    let (spent, uncertain) = fleet.is_used_up("all").await;
    assert!(uncertain > 0, "it died in the midst of calls");
    assert!((spent..=spent + uncertain).contains(&charged(&fleet)), "{} were charged", charged(&fleet));
    stop(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_calls_at_once_overshoot_nothing() {
    // Long enough for hundreds of calls to begin before the first of them ends, on a slow machine too.
    let fleet = Fleet::new(&one("{ fixed = 4.0 }", "{ uniform = [30, 100] }"), &worker(500, A_DOLLAR)).await;
    let processes = fleet.start_many(3).await;
    fleet.enqueue_capped(4_000, 100).await;
    fleet.until_spent("all").await;
    let (spent, _) = fleet.is_used_up("all").await;
    assert_eq!(charged(&fleet), spent);
    assert!(fleet.verdict().total.max_concurrency > 300, "{}", fleet.verdict().total.max_concurrency);
    fleet.no_attempt_is_used_up().await;
    stop(processes).await;
}

/// Five hundred tokens are expected where a request sets no cap, and nothing is known of the answers. The reservation
/// is for all that the model can write.
#[tokio::test(flavor = "multi_thread")]
async fn answers_four_times_as_long_as_expected_overshoot_nothing() {
    let config = worker(20, A_DOLLAR).replace("price = {", "max_output_tokens = 2000\nprice = {");
    let fleet = Fleet::new(&one("{ fixed = 0.05 }", "{ tokens = 2000 }"), &config).await;
    let processes = fleet.start_many(3).await;
    fleet.enqueue("default", 200).await;
    fleet.until_spent("all").await;
    let (spent, _) = fleet.is_used_up("all").await;
    assert_eq!((charged(&fleet), spent), (DOLLAR, DOLLAR), "fifty answers for two cents each");
    stop(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_a_budget_is_raised_turns_or_is_removed() {
    let budget = "[budgets.all]\nlimit = \"0.05\"\nper = \"day\"\n";
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 1000 }"), &worker(20, budget)).await;
    let process = fleet.start();
    fleet.enqueue_capped(30, 1000).await;
    fleet.until_spent("all").await;
    assert_eq!(fleet.answered().await, 5);
    let waits = "select count(*) from sluice.jobs where waits_for = 'budget all'";
    assert_eq!(fleet.number(waits).await, 25);
    // Raised.
    let raised: bool =
        sqlx::query_scalar("select sluice.raise_budget('all', 0.10)").fetch_one(&fleet.pool).await.unwrap();
    assert!(raised);
    fleet.until_answered(10).await;
    fleet.until_spent("all").await;
    assert_eq!(fleet.answered().await, 10);
    // The window turns: yesterday's sums are not today's.
    for statement in [
        "select from sluice.hold_budgets(null, now())",
        "update sluice.budget_window set starts_at = starts_at - interval '1 day'",
        "update sluice.budget set window_start = window_start - interval '1 day'",
        "update sluice.parked set run_at = now()",
    ] {
        sqlx::query(statement).execute(&fleet.pool).await.unwrap();
    }
    fleet.until_answered(20).await;
    fleet.until_spent("all").await;
    assert_eq!((fleet.answered().await, fleet.sums("all").await.0), (20, DOLLAR / 10));
    // Removed.
    sqlx::query("select sluice.drop_budget('all')").execute(&fleet.pool).await.unwrap();
    fleet.until_answered(30).await;
    fleet.no_attempt_is_used_up().await;
    assert_eq!(fleet.number("select count(*) from sluice.reservation").await, 0);
    stop(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_budget_closes_its_rungs_and_the_jobs_go_on_elsewhere() {
    let scenario = one("{ fixed = 0.01 }", "{ tokens = 1000 }")
        + "[providers.two]\ndialect = \"openai\"\nmodels.model.price = { input = \"0\", output = \"20\" }\n";
    let more = "[providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/two/v1\"\n\
                [models.\"two/model\"]\nprice = { input = \"0\", output = \"20\" }\n\
                [budgets.first]\nlimit = \"0.05\"\nprovider = \"one\"\n";
    let config = worker(20, more).replace("[\"one/model\"]", "[\"one/model\", \"two/model\"]\npatience = \"0s\"");
    let fleet = Fleet::new(&scenario, &config).await;
    let process = fleet.start();
    fleet.enqueue_capped(30, 1000).await;
    fleet.until_answered(30).await;
    let by_provider = "select count(*) from sluice.attempt where provider = 'one' and accepted";
    assert_eq!(fleet.number(by_provider).await, 5);
    assert_eq!(fleet.sums("first").await, (DOLLAR / 20, 0, 0));
    fleet.no_attempt_is_used_up().await;
    let told = fleet.program(&["explain", "30"]).output().await.unwrap();
    assert!(text(&told.stdout).contains("its provider's budget had no room"), "{}", text(&told.stdout));
    stop(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_soft_threshold_jobs_go_along_the_cheaper_route_and_that_is_said_once() {
    let scenario = one("{ fixed = 0.3 }", "{ tokens = 1000 }")
        + "[providers.two]\ndialect = \"openai\"\noutput = { tokens = 10 }\n\
           models.model.price = { input = \"0\", output = \"1\" }\n";
    let more = "[providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/two/v1\"\n\
                [models.\"two/model\"]\nprice = { input = \"0\", output = \"1\" }\n\
                [routes.cheap]\nrungs = [\"two/model\"]\n\
                [budgets.all]\nlimit = \"0.20\"\nproject = \"p\"\nsoft = 0.25\nthen_route = \"cheap\"\n";
    let fleet = Fleet::new(&scenario, &worker(2, more)).await;
    let processes = fleet.start_many(2).await;
    fleet.enqueue_capped(40, 1000).await;
    fleet.until_answered(40).await;
    let dear = fleet.number("select count(*) from sluice.attempt where provider = 'one'").await;
    // From the threshold on, but for the jobs that are in hand.
    assert!((5..=16).contains(&dear), "{dear}");
    assert_eq!(fleet.number("select count(*) from sluice.result").await, 40);
    let soft = fleet.number("select count(*) from sluice.budgets where soft_at is not null").await;
    assert_eq!(soft, 1);
    let told = fleet.program(&["explain", "40"]).output().await.unwrap();
    let expected = "the budget all is past its soft threshold, which led from default to cheap";
    assert!(text(&told.stdout).contains(expected), "{}", text(&told.stdout));
    let said = processes.iter().map(|process| process.said().matches("past its soft threshold").count());
    assert_eq!(said.sum::<usize>(), 1);
    stop(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_fits_and_what_has_no_price_is_told_plainly() {
    let more = "[providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                [routes.unpriced]\nrungs = [\"two/model\"]\n\
                [budgets.all]\nlimit = \"0.05\"\n";
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 10 }"), &worker(20, more)).await;
    let process = fleet.start();
    fleet.enqueue_capped(1, 6_000).await;
    fleet.enqueue("unpriced", 1).await;
    let failed = "select count(*) from sluice.result where state = 'failed' and error_class = 'never_fits'";
    until("both have failed", async || fleet.number(failed).await == 2).await;
    let said: Vec<String> =
        sqlx::query_scalar("select error from sluice.result order by job_id").fetch_all(&fleet.pool).await.unwrap();
    assert!(said[0].contains("one/model: may cost $0.06, and the whole budget all is $0.05"), "{}", said[0]);
    assert!(said[0].contains("a smaller max_tokens lowers that"), "{}", said[0]);
    assert!(said[1].contains("two/model: has no price, and the budget all takes only calls"), "{}", said[1]);
    // A call whose price may be unknown is made, and counted as such.
    sqlx::query("select sluice.set_budget('all', 0.05, unpriced => 'allow')").execute(&fleet.pool).await.unwrap();
    sqlx::query("select sluice.retry(max(id)) from sluice.job").execute(&fleet.pool).await.unwrap();
    fleet.until_answered(1).await;
    until("the call is counted", async || {
        fleet.number("select coalesce(max(unpriced_calls), 0) from sluice.budgets").await == 1
    })
    .await;
    assert_eq!(charged(&fleet), 100_000);
    assert_eq!(fleet.sums("all").await, (0, 0, 0));
    // A limit that is used up from the start is said to be.
    sqlx::query("update sluice.budget_window set spent_nanos = 2000000000").execute(&fleet.pool).await.unwrap();
    let lowered = fleet.program(&["budget", "lower", "all", "0.01"]).output().await.unwrap();
    let said = text(&lowered.stderr);
    assert!(said.contains("it is full: $2.00 of it is used up already, so what it covers waits"), "{said}");
    stop(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_call_without_room_neither_spins_nor_blocks_small_ones() {
    let budget = "[budgets.all]\nlimit = \"0.10\"\n";
    let fleet = Fleet::new(&one("{ fixed = 0.02 }", "{ tokens = 100 }"), &worker(20, budget)).await;
    let process = fleet.start();
    fleet.enqueue_capped(5, 1000).await;
    fleet.until_answered(5).await;
    // Nine of ten cents of room are not enough for these, and enough for all of those.
    sqlx::query("select sluice.set_budget('all', 0.014)").execute(&fleet.pool).await.unwrap();
    fleet.enqueue_capped(20, 1000).await;
    fleet.enqueue_capped(20, 100).await;
    until("small ones were answered", async || fleet.answered().await >= 14).await;
    fleet.until_spent("all").await;
    assert_eq!(fleet.number("select count(*) from sluice.result").await, 14);
    let claimed = "select max((stats ->> 'claimed')::bigint) from sluice.worker";
    let before = fleet.number(claimed).await;
    let beats = "select max((stats ->> 'beats')::bigint) from sluice.worker";
    let began = fleet.number(beats).await;
    until("some seconds are over", async || fleet.number(beats).await >= began + 2).await;
    let now = fleet.number(claimed).await;
    assert!(now - before <= 40, "{now} claims, of which {before} before");
    stop(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_max_cost_stops_says_how_to_go_on_and_goes_on_when_raised() {
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 1000 }"), &worker(20, "")).await;
    let line = "{\"prompt\":\"a\",\"max_tokens\":1000}\n";
    fleet.file("q.jsonl", &line.repeat(12));
    let program = |arguments: &'static [&'static str]| async {
        let output = fleet.program(arguments).output().await.unwrap();
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl", "--max-cost", "0.05"]).await;
    assert_eq!(code, ExitCode::Stuck as i32, "{said}");
    assert!(said.contains("the budget batch:q is spent: $0.05 of $0.05 is spent"), "{said}");
    let go_on =
        ["7 jobs are left and stay queued. Go on with:", "budget raise batch:q 0.127 &&\n", "run q.jsonl -o out.jsonl"];
    assert!(go_on.iter().all(|words| said.contains(words)), "{said}");
    // The same command again keeps the budget, another amount changes it.
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl", "--max-cost", "0.05"]).await;
    assert!(code == ExitCode::Stuck as i32 && !said.contains("from now on"), "{said}");
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl", "--max-cost", "0.08"]).await;
    assert!(code == ExitCode::Stuck as i32 && said.contains("is $0.08 from now on; it was $0.05"), "{said}");
    assert_eq!(fleet.answered().await, 8);
    let (code, said) = program(&["budget", "raise", "batch:q", "0.20"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(fleet.number("select count(*) from sluice.result").await, 12);
    assert_eq!(charged(&fleet), 12 * DOLLAR / 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_last_jobs_rest_for_reservations_goes_on_to_its_end() {
    let fleet = Fleet::new(&one("{ uniform = [0.02, 0.05] }", "{ tokens = 10 }"), &worker(100, "")).await;
    fleet.file("q.jsonl", &"{\"prompt\":\"a\",\"max_tokens\":1000}\n".repeat(150));
    let output = fleet.program(&["run", "q.jsonl", "-o", "out.jsonl", "--max-cost", "0.05"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((fleet.answered().await, charged(&fleet)), (150, 150 * DOLLAR / 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_last_jobs_need_more_than_is_left_says_so_and_ends() {
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 100 }"), &worker(20, "")).await;
    let (small, large) = ("{\"prompt\":\"a\",\"max_tokens\":250}\n", "{\"prompt\":\"b\",\"max_tokens\":1000}\n");
    fleet.file("q.jsonl", &format!("{}{}", small.repeat(6), large.repeat(3)));
    let run = ["run", "q.jsonl", "-o", "out.jsonl", "--max-cost", "0.0101"];
    let output = fleet.program(&run).output().await.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(ExitCode::Stuck as i32), "{said}");
    // One of the large calls may have come first.
    assert!(said.contains("the budget batch:q is spent: $0.00") && said.contains(" of $0.0101 is spent"), "{said}");
    assert!(said.contains("budget raise batch:q 0.0202 &&\n"), "{said}");
    // There is room for a small call, and no work for which a worker would have to stay.
    let drained = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert_eq!(drained.status.code(), Some(0), "{}", text(&drained.stderr));
    assert!((6..=7).contains(&fleet.answered().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_of_the_only_provider_ends_a_run_and_a_drain() {
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 1000 }"), &worker(20, "")).await;
    fleet.file("q.jsonl", &"{\"prompt\":\"a\",\"max_tokens\":1000}\n".repeat(3));
    let program = |arguments: &'static [&'static str]| async {
        let output = fleet.program(arguments).output().await.unwrap();
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = program(&["budget", "set", "prov", "0.01", "--provider", "one"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl"]).await;
    assert_eq!(code, ExitCode::Stuck as i32, "{said}");
    assert!(said.contains("the budget prov is spent: $0.01 of $0.01 is spent"), "{said}");
    assert!(said.contains("budget raise prov 0.032 &&\n"), "{said}");
    let (code, said) = program(&["worker", "--drain"]).await;
    assert_eq!((code, fleet.answered().await), (0, 1), "{said}");
    // What the program says helps.
    assert_eq!(program(&["budget", "raise", "prov", "0.03"]).await.0, 0);
    let (code, said) = program(&["run", "q.jsonl", "-o", "out.jsonl"]).await;
    assert_eq!((code, fleet.answered().await), (0, 3), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_keeps_what_it_covers_until_it_is_removed() {
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 10 }"), &worker(20, "")).await;
    fleet.file("q.jsonl", "{\"prompt\":\"a\"}\n");
    let program = |arguments: &'static [&'static str]| async {
        let output = fleet.program(arguments).output().await.unwrap();
        (output.status.code().unwrap(), text(&output.stderr) + &text(&output.stdout))
    };
    let set = ["budget", "set", "news", "25", "--per", "day", "--project", "news", "--soft", "0.8"];
    assert_eq!(fleet.program(&set).output().await.unwrap().status.code(), Some(0));
    let (code, said) = program(&["budget", "set", "news", "10"]).await;
    assert!(
        code == 2 && said.contains("covers project news per day, and this one would cover everything once"),
        "{said}"
    );
    let (code, said) = program(&["budget", "lower", "news", "10"]).await;
    assert!(code == 0 && said.contains("$10.00 per day for project news; it was $25.00"), "{said}");
    let (code, said) = program(&["budget", "lower", "news", "11"]).await;
    assert!(code == 2 && said.contains("`sluice budget raise` raises it"), "{said}");
    let soft = "select count(*) from sluice.budgets where name = 'news' and soft = 0.8 and \"limit\" = 10";
    assert_eq!(fleet.number(soft).await, 1, "the rest of it stays");
    // The name under which `--max-cost` keeps its budget is taken by another one.
    assert_eq!(program(&["budget", "set", "batch:q", "5", "--project", "p"]).await.0, 0);
    let (code, said) = program(&["enqueue", "q.jsonl", "--max-cost", "1"]).await;
    assert!(code == 2 && said.contains("covers project p, and would be lost; nothing was enqueued"), "{said}");
    // Another budget covers the batch already.
    assert_eq!(program(&["budget", "remove", "batch:q"]).await.0, 0);
    assert_eq!(program(&["budget", "set", "mine", "5", "--batch", "q"]).await.0, 0);
    let (code, said) = program(&["enqueue", "q.jsonl", "--max-cost", "1"]).await;
    assert!(code == 2 && said.contains("the budget mine is one of this batch already, of $5.00"), "{said}");
    assert!(said.contains("`sluice budget raise mine 1.00`"), "{said}");
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_the_configuration_follow_it_and_a_raise_by_hand_stays() {
    let two = "[budgets.all]\nlimit = \"1\"\n[budgets.mine]\nlimit = \"2\"\nproject = \"p\"\nper = \"day\"\n";
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 10 }"), &worker(20, two)).await;
    let process = fleet.start();
    fleet.until_live(1).await;
    let limits = async || {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select name, \"limit\"::numeric(9, 2)::text from sluice.budgets order by name")
                .fetch_all(&fleet.pool)
                .await
                .unwrap();
        rows.into_iter().map(|(name, limit)| format!("{name} {limit}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(limits().await, "all 1.00, mine 2.00");
    sqlx::query("select sluice.raise_budget('all', 5)").execute(&fleet.pool).await.unwrap();
    fleet.configure(&worker(20, "[budgets.all]\nlimit = \"1\"\n[budgets.new]\nlimit = \"3\"\nroute = \"default\"\n"));
    process.signal(Signal::HUP);
    until("the budgets were read again", async || limits().await == "all 5.00, new 3.00").await;
    fleet.configure(&worker(20, "[budgets.all]\nlimit = \"7\"\n"));
    process.signal(Signal::HUP);
    until("the budgets were read again", async || limits().await == "all 7.00").await;
    stop(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_a_reload_raises_its_budget_and_waits_when_it_lowers_it() {
    let budget = |limit: &str| worker(5, &format!("[budgets.all]\nlimit = \"{limit}\"\n"));
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 1000 }"), &budget("0.05")).await;
    let process = fleet.start();
    fleet.enqueue_capped(12, 1000).await;
    fleet.until_spent("all").await;
    assert_eq!(fleet.answered().await, 5, "a cent each");
    fleet.configure(&budget("0.09"));
    process.signal(Signal::HUP);
    fleet.until_answered(9).await;
    fleet.until_spent("all").await;
    assert_eq!((fleet.answered().await, fleet.sums("all").await.0), (9, DOLLAR * 9 / 100));
    // Less than is spent already: nothing of it is left.
    fleet.configure(&budget("0.02"));
    process.signal(Signal::HUP);
    let room = "select count(*) from sluice.budgets where room = -0.07 and holds";
    until("the budget is lower", async || fleet.number(room).await == 1).await;
    // Without a budget all the rest is done.
    fleet.configure(&worker(5, ""));
    process.signal(Signal::HUP);
    fleet.until_answered(12).await;
    fleet.no_attempt_is_used_up().await;
    stop(vec![process]).await;
}

/// A session's zone changes neither the windows of budgets nor the hours in which something is counted, also where it
/// is half an hour off.
#[tokio::test]
async fn the_zone_of_a_session_changes_no_window_and_no_hour() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let mut session = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with(queue.database.connect_options())
        .await
        .unwrap()
        .acquire()
        .await
        .unwrap();
    for zone in ["UTC", "Asia/Kathmandu", "Pacific/Marquesas"] {
        for statement in [
            format!("set timezone = '{zone}'"),
            "insert into sluice.job (batch, request)
                  select 'b', '{\"prompt\": \"x\"}' from generate_series(1, 3)"
                .to_owned(),
            "select sluice.cancel(min(job_id)) from sluice.ready".to_owned(),
            "select sluice.retry(max(job_id)) from sluice.result where state = 'cancelled'".to_owned(),
            "select sluice.set_budget('hour', 0.1, per => 'hour')".to_owned(),
            "select sluice.set_budget('day', 1, per => 'day')".to_owned(),
            "select sluice.set_budget('month', 10, per => 'month')".to_owned(),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *session).await.unwrap();
        }
        let windows: i64 = sqlx::query_scalar(
            "select count(*) from sluice.budgets b
              where b.starts_at = date_trunc(b.period, now(), 'UTC')
                and b.ends_at at time zone 'UTC' = b.starts_at at time zone 'UTC' + ('1 ' || b.period)::interval",
        )
        .fetch_one(&mut *session)
        .await
        .unwrap();
        assert_eq!(windows, 3, "{zone}");
        let astray = "select count(*) from sluice.tally where hour <> date_trunc('hour', hour, 'UTC')";
        assert_eq!(queue.count(astray).await, 0, "{zone}");
        // The amount spent counts the same, in any session.
        queue.succeed(&queue.claim(worker, 1).await[0]).await;
        let spent = "select round(spent * 1e9)::bigint from sluice.budgets where name = 'day'";
        let by_session: i64 = sqlx::query_scalar(spent).fetch_one(&mut *session).await.unwrap();
        let by_store = queue.store.budgets().await.unwrap().budgets.0;
        let by_store = by_store.iter().find(|standing| standing.budget.name == "day").unwrap().spent.0;
        assert_eq!(by_session, by_store, "{zone}");
        assert!(by_store > 0, "{zone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_once_what_is_wrong_with_budgets_that_were_set_by_sql() {
    let fleet = Fleet::new(&one("{ fixed = 0.01 }", "{ tokens = 10 }"), &worker(20, "")).await;
    let process = fleet.start();
    fleet.until_live(1).await;
    for statement in [
        "select sluice.set_budget('day', 5, per => 'day', soft => 0.5, then_route => 'cheep')",
        "select sluice.set_budget('hour', 9, per => 'hour')",
    ] {
        sqlx::query(statement).execute(&fleet.pool).await.unwrap();
    }
    process.until_said("there is no such route", 1).await;
    process.until_said("is never reached", 1).await;
    // It goes on, and says nothing twice.
    fleet.enqueue("default", 5).await;
    fleet.until_answered(5).await;
    let said = process.said();
    assert_eq!((said.matches("no such route").count(), said.matches("is never reached").count()), (1, 1), "{said}");
    stop(vec![process]).await;
}
