//! Many lanes: a login with a project per customer, or with invented projects, stops no other login; and a lane belongs
//! to a login.

use crate::support::fleet::Fleet;
use crate::support::postgres::TestDatabase;
use crate::support::queue::{Queue, failure};
use crate::support::wait::until;
use serde_json::Value;
use sluice::domain::rotation::{Rotation, WINDOW};
use sluice::domain::{ErrorClass, JobId};
use sluice::store::claim::{Take, Terms};
use sluice::store::job::{Changed, Place};
use sluice::store::lanes::Lane;
use sluice::store::settle::Settlement;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Twenty thousand batches over five thousand projects.
const MANY: &str = "insert into sluice.job (project, batch, request)
     select 'p' || n % 5000, 'b' || n, '{\"prompt\": \"Hi\"}' from generate_series(1, 20000) n";

/// A login of the database's own, which may enqueue.
async fn login(queue: &PgPool, database: &TestDatabase, name: &str) -> PgPool {
    let role = format!(
        "do $$ begin create role {name} login in role sluice_enqueuer;
         exception when duplicate_object or unique_violation then null; end $$"
    );
    sqlx::raw_sql(AssertSqlSafe(role)).execute(queue).await.unwrap();
    PgPoolOptions::new().connect_with(database.connect_options().username(name)).await.unwrap()
}

async fn run(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

// ------------------------------------------------------------------------------------------------------- looking

#[tokio::test]
async fn each_of_many_lanes_is_seen_over_time_and_each_look_finds_a_bounded_number() {
    let queue = Queue::new().await;
    queue.run(MANY).await;
    let mut rotation = Rotation::default();
    let mut seen = HashSet::new();
    let mut looks = 0;
    while seen.len() < 20_000 {
        let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
        assert!(!look.is_all && look.lanes.len() <= 2 * WINDOW, "{}", look.lanes.len());
        seen.extend(look.lanes.iter().map(|lane| lane.flow));
        looks += 1;
        assert!(looks <= 60, "{} of 20,000 lanes were seen in {looks} looks", seen.len());
    }
    // When they have become few, all of them are seen at once again.
    queue.run("delete from sluice.ready where job_id % 100 <> 0").await;
    queue.store.look(&mut rotation, &[], 0).await.unwrap();
    let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
    assert_eq!((look.is_all, look.lanes.len()), (true, 200));
}

#[tokio::test]
async fn a_look_reads_a_bounded_number_of_rows_however_many_lanes_there_are_and_however_deep_they_are() {
    let queue = Queue::new().await;
    // Beside many thin lanes two deep ones, which lie elsewhere in the index.
    queue.run(MANY).await;
    queue
        .run("insert into sluice.job (batch, request) select 'deep' || n % 2, '{}' from generate_series(1, 20000) n")
        .await;
    queue.run("vacuum analyze sluice.ready").await;
    let statement = include_str!("../src/store/lanes/walk.sql");
    let mut connection = queue.pool.acquire().await.unwrap();
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    let prepare = format!("prepare walk (bigint[], bigint[], integer[], boolean) as {statement}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    for (heads, most) in [("true", 500), ("false", 500), ("true", 5)] {
        let explain = format!(
            "explain (analyze, timing off, format json) execute walk ('{{-9223372036854775808}}', \
             '{{9223372036854775807}}', '{{{most}}}', {heads})"
        );
        let plan: sqlx::types::Json<Value> =
            sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await.unwrap();
        let read = rows_read(&plan.0[0]["Plan"], "ready");
        // A step reads eight rows and one more, which tells whether the last lane goes on; some may be of the same
        // lane.
        assert!(
            read >= f64::from(most) && read <= f64::from(most * 9 / 8 + 9 * 8),
            "{read} rows for {most} lanes: {}",
            plan.0
        );
    }
}

#[tokio::test]
async fn a_sweep_takes_neighbours_and_leaves_a_login_that_lies_elsewhere_its_share() {
    let queue = Queue::new().await;
    let other = login(&queue.pool, &queue.database, "lanes_elsewhere").await;
    run(
        &other,
        "insert into sluice.job (batch, request)
              select 'b' || n, '{\"prompt\": \"Hi\"}' from generate_series(1, 600) n",
    )
    .await;
    let first: i64 = queue.count("select max(id) from sluice.job").await;
    queue.run(MANY).await;
    let mut rotation = Rotation::default();
    let mut seen = HashSet::new();
    let mut before = usize::MAX;
    let mut swept = 0;
    for _ in 0..40 {
        let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
        let (few, many): (Vec<&Lane>, Vec<&Lane>) = look.lanes.iter().partition(|lane| lane.login == "lanes_elsewhere");
        // Its lanes end within a look now and then.
        assert!(few.len().max(before) >= WINDOW / 4, "{} of its lanes, whose share is half a window", few.len());
        before = few.len();
        let mut places: Vec<i64> = many.iter().map(|lane| lane.first).collect();
        places.sort_unstable();
        // Of the neighbours in a sweep three in four are new to the look: a stretch of a tenth of the jobs has most.
        let most =
            places.iter().map(|from| places.iter().filter(|at| (*from..from + 2_000).contains(at)).count()).max();
        swept += usize::from(most.unwrap_or(0) * 4 >= places.len() * 3);
        seen.extend(look.lanes.iter().map(|lane| lane.flow));
    }
    assert!(swept >= 20, "{swept} of 40 looks took neighbours");
    assert_eq!(seen.len(), 20_600, "and all lanes are seen, beginning with job {first}");
}

/// Jobs that lie together may have numbers in a row, or with gaps between them.
#[tokio::test]
async fn what_a_sweep_says_of_a_lane_is_what_its_first_job_says_whether_its_neighbours_are_there_or_not() {
    let queue = Queue::new().await;
    queue
        .run(
            "insert into sluice.job (project, batch, deadline, request)
                  select 'p' || n % 7, 'b' || n,
                         case n % 3 when 0 then 'infinity'
                                    when 1 then '2100-01-01 00:00:00+00'::timestamptz + n * interval '1 s' end,
                         '{\"prompt\": \"Hi\"}'
                    from generate_series(1, 12000) n",
        )
        .await;
    for gaps in [false, true] {
        if gaps {
            queue.run("delete from sluice.ready where job_id % 5 <> 0").await;
        }
        let mut rotation = Rotation::default();
        let mut placed = 0;
        for _ in 0..6 {
            let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
            for lane in look.lanes.iter().filter(|lane| lane.place.is_some()) {
                placed += 1;
                let n: i64 = lane.batch.as_ref().unwrap()[1..].parse().unwrap();
                assert_eq!((lane.project.as_str(), lane.jobs), (format!("p{}", n % 7).as_str(), Some(1)));
                let deadline = (n % 3 == 1).then(|| 4_102_444_800 + n);
                assert_eq!(lane.deadline.map(|at| at.timestamp()), deadline, "the deadline of {n}");
                let batch: String = sqlx::query_scalar("select batch from sluice.job where id = $1")
                    .bind(lane.first)
                    .fetch_one(&queue.pool)
                    .await
                    .unwrap();
                assert_eq!(Some(&batch), lane.batch.as_ref());
            }
        }
        assert!(placed > 1_000, "{placed} lanes were swept");
    }
}

#[tokio::test]
async fn the_only_job_of_a_lane_is_claimed_from_its_place_and_only_if_it_still_lies_there() {
    let queue = Queue::new().await;
    queue.run(MANY).await;
    let worker = queue.worker().await;
    let mut rotation = Rotation::default();
    // The first look does without a sweep.
    queue.store.look(&mut rotation, &[], 0).await.unwrap();
    let lanes = queue.store.look(&mut rotation, &[], 0).await.unwrap().lanes;
    let some: Vec<&Lane> = lanes.iter().filter(|lane| lane.place.is_some()).take(4).collect();
    let [one, other, gone, twice] = some[..] else { panic!("{} lanes have a place", some.len()) };
    let claim = async |lane: &Lane, place: &Option<String>| {
        let take = Take { flow: lane.flow, prio: lane.prio, after: lane.first - 1, count: 1 };
        let place = std::slice::from_ref(place);
        let terms = Terms { room: usize::MAX, members: &Arc::default(), weigh: &|_, body| body.len() };
        let claim = queue.store.claim_of(worker, &[take], place, None, &terms).await;
        claim.unwrap().jobs.iter().map(|job| job.lease.job.0).collect::<Vec<_>>()
    };
    assert_eq!(claim(one, &other.place).await, [0; 0], "the job of another lane is not taken");
    assert_eq!(claim(one, &one.place).await, [one.first]);
    assert_eq!(claim(one, &one.place).await, [0; 0], "nor one that was taken");
    // The job has moved: it was claimed and given back.
    let moves = "with moved as (delete from sluice.ready where job_id = $1 returning *)
                 insert into sluice.ready select * from moved";
    queue.run_with(moves, gone.first).await;
    assert_eq!(claim(gone, &gone.place).await, [0; 0]);
    assert_eq!(claim(gone, &None).await, [gone.first], "by the index it is found");
    let again = queue.store.look(&mut rotation, &[twice.flow], 0).await.unwrap().lanes;
    assert!(again.iter().any(|lane| lane.flow == twice.flow), "what was not taken is seen again");
}

/// How many rows scans of a table gave, all loops together.
fn rows_read(node: &Value, table: &str) -> f64 {
    let own = if node["Relation Name"] == table {
        let filtered = node["Rows Removed by Filter"].as_f64().unwrap_or(0.0);
        (node["Actual Rows"].as_f64().unwrap() + filtered) * node["Actual Loops"].as_f64().unwrap()
    } else {
        0.0
    };
    own + node["Plans"].as_array().into_iter().flatten().map(|below| rows_read(below, table)).sum::<f64>()
}

#[tokio::test]
async fn a_new_job_and_another_login_are_seen_at_the_next_look_however_many_lanes_there_are() {
    let queue = Queue::new().await;
    let other = login(&queue.pool, &queue.database, "lanes_quiet").await;
    run(&other, "insert into sluice.job (project, batch, request) values ('quiet', 'old', '{}')").await;
    let owners: i64 = queue.count("select count(*) from sluice.job where enqueued_by = 'lanes_quiet'").await;
    assert_eq!(owners, 1);
    queue.run(MANY).await;
    let mut rotation = Rotation::default();
    for _ in 0..5 {
        let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
        assert!(look.lanes.iter().any(|lane| lane.login == "lanes_quiet"), "its old job, far from the newest");
    }
    queue.run("insert into sluice.job (project, batch, request) values ('new', 'new', '{}')").await;
    let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
    let new = look.lanes.iter().find(|lane| lane.project == "new").unwrap();
    assert_eq!(look.newest.last(), Some(&(new.flow, new.prio)), "the latest comes last");
    // A known lane is looked up again, wherever the window is.
    let look = queue.store.look(&mut rotation, &[new.flow], 0).await.unwrap();
    let again = look.lanes.iter().find(|lane| lane.flow == new.flow);
    assert_eq!(again, Some(&Lane { jobs: Some(1), ..new.clone() }), "and its jobs are counted");
}

#[tokio::test]
async fn a_look_tells_how_many_jobs_a_lane_has_where_they_are_few() {
    let queue = Queue::new().await;
    queue
        .run(
            "insert into sluice.job (batch, request) select 'b' || n, '{}' from generate_series(1, 30) n, \
             generate_series(1, n)",
        )
        .await;
    let mut jobs: Vec<_> =
        queue.store.lanes().await.unwrap().into_iter().map(|lane| (lane.batch.unwrap(), lane.jobs)).collect();
    jobs.sort();
    let mut expected: Vec<_> = (1..=30).map(|n| (format!("b{n}"), (n <= 8).then_some(n))).collect();
    expected.sort();
    assert_eq!(jobs, expected);
}

#[tokio::test]
async fn of_a_flow_the_highest_priority_is_seen_first_also_where_lanes_are_many() {
    let queue = Queue::new().await;
    queue.run(MANY).await;
    queue
        .run(
            "insert into sluice.job (project, batch, priority, request)
                  select 'mixed', 'mixed', n, '{}' from generate_series(-20, 20) n order by -n",
        )
        .await;
    let mut rotation = Rotation::default();
    for _ in 0..3 {
        let look = queue.store.look(&mut rotation, &[], 0).await.unwrap();
        let prios: Vec<i16> = look.lanes.iter().filter(|lane| lane.project == "mixed").map(|lane| lane.prio).collect();
        assert_eq!(prios, [-20], "the newest job of the flow has the lowest priority");
    }
}

#[tokio::test]
async fn status_says_at_least_where_lanes_are_many_and_all_unfinished_jobs_are_found() {
    let queue = Queue::new().await;
    queue.run(MANY).await;
    let ready = queue.store.queue().await.unwrap()["default"].ready;
    assert!(ready.more && ready.rows >= 500 && ready.rows <= 3000, "{ready:?}");
    assert!(queue.store.outstanding(&["default".to_owned()]).await.unwrap());
    assert!(!queue.store.outstanding(&["other".to_owned()]).await.unwrap());
    // Behind very many that do not count there is one that does.
    queue.run("insert into sluice.pause (kind, name) values ('route', 'default')").await;
    assert!(!queue.store.outstanding(&["default".to_owned()]).await.unwrap());
    queue.run("insert into sluice.job (route, project, request) values ('other', 'p7', '{}')").await;
    assert!(queue.store.outstanding(&["other".to_owned()]).await.unwrap());
    let jobs = queue.store.unfinished_of_route("default").await.unwrap();
    assert_eq!(jobs.len(), 20_000);
}

// --------------------------------------------------------------------------------------------------------- logins

#[tokio::test]
async fn a_priority_goes_before_nothing_of_another_login_also_in_a_batch_of_the_same_name() {
    let queue = Queue::new().await;
    let (honest, pushy) = (
        login(&queue.pool, &queue.database, "lanes_honest").await,
        login(&queue.pool, &queue.database, "lanes_pushy").await,
    );
    run(&honest, "insert into sluice.job (project, batch, request) select 'p', 'b', '{}' from generate_series(1, 3)")
        .await;
    run(
        &pushy,
        "insert into sluice.job (project, batch, priority, request) select 'p', 'b', 1000, '{}' from \
         generate_series(1, 3)",
    )
    .await;
    let lanes = queue.store.lanes().await.unwrap();
    let owners: HashSet<&str> = lanes.iter().map(|lane| lane.login.as_str()).collect();
    assert_eq!((lanes.len(), owners), (2, HashSet::from(["lanes_honest", "lanes_pushy"])));
    assert_ne!(lanes[0].flow, lanes[1].flow);
    assert_ne!(lanes[0].flow >> 48, lanes[1].flow >> 48, "they lie apart");
    // Names that only look alike when they are joined are lanes of their own.
    queue
        .run("insert into sluice.job (project, batch, request) values (E'a\\x1fb', 'c', '{}'), ('a', E'b\\x1fc', '{}')")
        .await;
    assert_eq!(queue.store.lanes().await.unwrap().len(), 4);
}

#[tokio::test]
async fn what_was_queued_before_lanes_belonged_to_logins_goes_on() {
    let queue = Queue::new().await;
    queue
        .run(
            "insert into sluice.job (project, batch, custom_id, request)
                  select 'p', 'b', n::text, '{\"prompt\": \"Hi\"}' from generate_series(1, 6) n;
             -- As a version before has queued them.
             update sluice.ready r set flow = sluice.flow_of(j.route, j.project, j.batch)
               from sluice.job j where j.id = r.job_id",
        )
        .await;
    let lanes = queue.store.lanes().await.unwrap();
    let [lane] = &lanes[..] else { panic!("one lane: {lanes:?}") };
    assert_eq!(queue.count("select count(*) from sluice.jobs where waits_for = 'no queue'").await, 0);
    assert_eq!(queue.count("select count(*) from sluice.unqueued(1, 1000)").await, 0);
    let first = lane.first;
    assert!(matches!(queue.store.job(JobId(first)).await.unwrap().unwrap().place, Place::Ready { .. }));
    assert_eq!(queue.store.cancel_job(JobId(first)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.store.pause_job(JobId(first + 1), None).await.unwrap(), Changed::Yes);
    assert_eq!(queue.store.resume_job(JobId(first + 1)).await.unwrap(), Changed::Yes);
    // A late answer finds its job in the queue.
    let worker = queue.worker().await;
    let take = Take { flow: lane.flow, prio: lane.prio, after: i64::MIN, count: 1 };
    let claimed = queue.store.claim(worker, &[take], usize::MAX).await.unwrap().jobs.remove(0);
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    assert_eq!(queue.places(claimed.lease.job.0).await, "r");
    assert!(queue.succeed(&claimed).await.is_empty(), "the answer was used");
    assert_eq!(queue.state(claimed.lease.job.0).await, "succeeded");
    // What fails and is tried anew queues as today.
    let claimed = queue.store.claim(queue.worker().await, &[take], usize::MAX).await.unwrap().jobs.remove(0);
    let mut ending = failure(&claimed, ErrorClass::InvalidRequest);
    ending.attempts = 0;
    queue.settle(Settlement { endings: vec![ending], ..Settlement::default() }).await;
    assert_eq!(queue.store.retry_job(JobId(claimed.lease.job.0)).await.unwrap(), Changed::Yes);
    let lanes = queue.store.lanes().await.unwrap();
    assert_eq!(lanes.len(), 2, "{lanes:?}");
    assert!(queue.store.cancel_job(JobId(claimed.lease.job.0)).await.unwrap() == Changed::Yes);
}

// ----------------------------------------------------------------------------------------------------- end to end

fn scenario(behaviour: &str) -> String {
    format!(
        "[providers.one]\ndialect = \"openai\"\nmodels.model.price = {{ input = \"1\", output = \"2\" }}\n{behaviour}\n"
    )
}

fn config(in_flight: u32, routes: &str) -> String {
    format!(
        "[worker]\nmax_in_flight = {in_flight}\n[providers.one]\ndialect = \"openai\"\n\
         base_url = \"http://simulator/one/v1\"\nlimits = {{ concurrency = {in_flight} }}\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n{routes}\n"
    )
}

const DEFAULT: &str = "[routes.default]\nrungs = [\"one/model\"]";

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_is_served_long_before_twenty_thousand_lanes_are_done() {
    let fleet = Fleet::new(&scenario("latency = { fixed = 0.2 }"), &config(50, DEFAULT)).await;
    run(&fleet.pool, MANY).await;
    let process = fleet.start();
    until("it works", async || fleet.answered().await > 50).await;
    run(&fleet.pool, "insert into sluice.job (project, batch, request) values ('new', 'new', '{\"prompt\": \"Hi\"}')")
        .await;
    let before = fleet.answered().await;
    let new = "select count(*) from sluice.result r join sluice.job j on j.id = r.job_id where j.project = 'new'";
    until("the newcomer is served", async || fleet.number(new).await == 1).await;
    let meanwhile = fleet.answered().await - before;
    assert!(meanwhile < 3000, "{meanwhile} others were served first");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_two_thousand_projects_and_the_highest_priority_gets_no_more_than_another() {
    let fleet = Fleet::new(&scenario("latency = { fixed = 0.02 }"), &config(4, DEFAULT)).await;
    let database = fleet.database();
    let (honest, greedy) =
        (login(&fleet.pool, database, "lanes_honest").await, login(&fleet.pool, database, "lanes_greedy").await);
    run(
        &greedy,
        "insert into sluice.job (project, batch, priority, request)
              select 'p' || n, 'b', 1000, '{\"prompt\": \"Hi\"}' from generate_series(1, 2000) n;
         insert into sluice.job (project, batch, priority, request)
              select 'honest', 'b', 1000, '{\"prompt\": \"Hi\"}' from generate_series(1, 500) n",
    )
    .await;
    run(
        &honest,
        "insert into sluice.job (project, batch, request)
              select 'honest', 'b', '{\"prompt\": \"Hi\"}' from generate_series(1, 100) n",
    )
    .await;
    let process = fleet.start();
    let of_honest = "select count(*) from sluice.result r join sluice.job j on j.id = r.job_id where j.enqueued_by = \
                     'lanes_honest'";
    until("the honest jobs are done", async || fleet.number(of_honest).await == 100).await;
    // Those that began before the last of the honest ones did.
    let meanwhile = fleet
        .number(
            "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id
              where j.enqueued_by = 'lanes_greedy' and a.started_at <= (
                    select max(b.started_at) from sluice.attempt b join sluice.job k on k.id = b.job_id
                     where k.enqueued_by = 'lanes_honest')",
        )
        .await;
    assert!((80..=125).contains(&meanwhile), "beside a hundred jobs of one login, {meanwhile} of the other began");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_nobody_may_claim_from_hide_none_behind_them_and_are_told_of_in_one_line() {
    let routes = format!("{DEFAULT}\n[routes.other]\nrungs = [\"one/model\"]");
    let fleet = Fleet::new(&scenario(""), &config(50, &routes)).await;
    // Five thousand paused batches, and five thousand jobs of as many routes that no worker has, with long names.
    run(
        &fleet.pool,
        "insert into sluice.pause (kind, name) values ('route', 'other');
         insert into sluice.job (batch, request) select 'hidden' || n, '{\"prompt\": \"Hi\"}'
           from generate_series(1, 20) n;
         insert into sluice.job (route, batch, request)
              select 'other', 'b' || n, '{\"prompt\": \"Hi\"}' from generate_series(1, 5000) n;
         insert into sluice.job (route, request)
              select n || repeat('x', 100), '{\"prompt\": \"Hi\"}' from generate_series(1, 5000) n",
    )
    .await;
    let process = fleet.start();
    until("what is hidden is found", async || fleet.answered().await == 20).await;
    let said = process.said();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("jobs wait for routes")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].len() < 1000 && lines[0].contains(" more"), "{}", lines[0]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_claim_loop_stands_still_says_that_it_is_not_ready_and_why() {
    let fleet = Fleet::new(&scenario(""), &config(5, DEFAULT)).await;
    let process = fleet.start_with(&[("SLUICE__HTTP__LISTEN", "127.0.0.1:0")]);
    let address = || {
        let said = process.said();
        let (_, rest) = said.split_once("http.listen=")?;
        Some(rest.split_once(char::is_whitespace)?.0.to_owned())
    };
    until("it says where it listens", async || address().is_some()).await;
    let address = address().unwrap();
    let ready = async || {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    until("it is ready", async || ready().await.starts_with("HTTP/1.1 200 ")).await;
    // Heartbeats go on, but no look ends.
    let mut holder = fleet.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table sluice.ready in access exclusive mode").execute(&mut *holder).await.unwrap();
    until("it says why it is not ready", async || {
        let answer = ready().await;
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("not ready: the claim loop has not turned for 10 s")
    })
    .await;
    holder.rollback().await.unwrap();
    until("it is ready again", async || ready().await.starts_with("HTTP/1.1 200 ")).await;
    process.stop().await;
}
