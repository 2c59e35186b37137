//! Prices by the clock, with the real worker: what a call costs at which hour, and jobs that wait for cheaper ones.

use crate::support::clock;
use crate::support::fleet::Fleet;
use crate::support::wait::until;

/// Two models of one price, each with these hours, and a route of this patience to each.
async fn stage(one: &str, other: &str, patience: &str) -> Fleet {
    let model = |name: &str, hours: &str| {
        format!(
            "[models.\"house/{name}\"]\nprice = {{ input = \"1\", output = \"2\" }}\npeak_hours = [{hours}]\n\
             off_peak = \"0.5\"\n[routes.{name}]\nrungs = [\"house/{name}\"]\npatience = \"{patience}\"\n"
        )
    };
    let config = format!(
        "[providers.house]\ndialect = \"openai\"\nbase_url = \"http://simulator/house/v1\"\n{}{}",
        model("one", one),
        model("other", other)
    );
    Fleet::new("[providers.house]\ndialect = \"openai\"\n", &config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_costs_what_the_hour_says_in_which_it_is_made() {
    // No hour is a peak hour, and all are: so it does not matter when the test runs.
    let fleet = stage("", "\"00:00-24:00\"", "forever").await;
    let check = fleet.program(&["check"]).output().await.unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    for hours in ["no hours", "00:00-24:00"] {
        assert!(check.contains(&format!("    $0.50 in, $1.00 out outside {hours} (UTC)\n")), "{check}");
    }
    fleet.enqueue("one", 3).await;
    fleet.enqueue("other", 3).await;
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let costs: Vec<(String, i64, i64)> = sqlx::query_as(
        "select model, (price->>'input')::bigint, count(*) from sluice.attempt where accepted group by 1, 2 order by 1",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(costs, [("one".to_owned(), 500_000_000, 3), ("other".to_owned(), 1_000_000_000, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_patience_rests_until_the_cheap_hours_and_says_so() {
    // The peak began an hour ago, and ends in two.
    let minute = clock::millis().div_euclid(60_000);
    let time = |minute: i64| format!("{:02}:{:02}", minute.div_euclid(60).rem_euclid(24), minute.rem_euclid(60));
    let peak = format!("\"{}-{}\"", time(minute - 60), time(minute + 120));
    let fleet = stage(&peak, &peak, "4h").await;
    fleet.enqueue("one", 2).await;
    let worker = fleet.start();
    until("both are parked", async || {
        let parked = "select count(*) from sluice.parked where reason = 'house/one: peak_hours (within patience)' \
                      and run_at > now() + interval '100 minutes'";
        fleet.number(parked).await == 2
    })
    .await;
    let job = fleet.number("select max(id) from sluice.job").await.to_string();
    let story = fleet.program(&["explain", &job]).output().await.unwrap();
    let story = String::from_utf8(story.stdout).unwrap();
    assert!(story.contains("house/one: it is in its peak hours, which end at "), "{story}");
    assert!(story.contains("it waits for this rung as long as its patience lasts"), "{story}");
    assert_eq!(fleet.verdict().providers["house"].figures.calls, 0);
    worker.stop().await;
}
