//! Game days: calls that fail on purpose while they are on, with the real worker.

use crate::support::clock;
use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::wait::until;
use chrono::{DateTime, SecondsFormat, TimeDelta};
use rustix::process::Signal;
use serde_json::{Value, json};

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\n[providers.two]\ndialect = \"openai\"\n";

/// Two rungs, and a game day of two hours at the first one that ends so many minutes from now.
fn config(minutes: i64) -> String {
    let at = |minutes: i64| {
        let at = DateTime::from_timestamp_millis(clock::millis()).unwrap() + TimeDelta::minutes(minutes);
        at.to_rfc3339_opts(SecondsFormat::Secs, true)
    };
    let provider = |name: &str, price: i64| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n"
        )
    };
    let (one, two) = (provider("one", 1), provider("two", 5));
    format!(
        "{one}{two}[routes.default]\nrungs = [\"one/m\", \"two/m\"]\npatience = \"0s\"\n\
         [game_days.friday]\ntargets = [\"one\"]\nshare = 0.5\nfrom = \"{}\"\nuntil = \"{}\"\n",
        at(minutes - 120),
        at(minutes)
    )
}

impl Fleet {
    async fn screen(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    async fn in_json(&self, arguments: &[&str]) -> Value {
        let output = self.program(&[arguments, &["--format", "json"]].concat()).output().await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_calls_fails_on_purpose_and_no_job_is_lost() {
    const JOBS: i64 = 60;
    const ON_PURPOSE: &str = "select count(*) from sluice.attempt where code = 'game_day'";
    let fleet = Fleet::new(SCENARIO, &config(60)).await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    let status = fleet.in_json(&["status"]).await;
    let days = &status["game_days"];
    assert_eq!(
        (&days[0]["game_day"], &days[0]["targets"], &days[0]["share"]),
        (&json!("friday"), &json!(["one"]), &json!(0.5))
    );
    let shown = fleet.screen(&["status", "--format", "table"]).await;
    assert!(shown.starts_with("Game days: calls fail on purpose\n"), "{shown}");

    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    let failed = fleet.number(ON_PURPOSE).await;
    // The breaker opens after ten calls at the earliest, of which half have failed.
    assert!(failed >= 5, "{failed}");
    let of_others = "select count(*) from sluice.attempt where code = 'game_day' and provider <> 'one'";
    let paid = "select count(*) from sluice.attempt where code = 'game_day'
                   and (coalesce(cost_nanos, 0) <> 0 or uncertain_nanos <> 0)";
    assert_eq!((fleet.number(of_others).await, fleet.number(paid).await), (0, 0));
    // None of them reached the provider.
    let made = fleet.number("select count(*) from sluice.attempt where code is distinct from 'game_day'").await;
    assert_eq!(i64::try_from(fleet.verdict().total.calls).unwrap(), made);

    let report = fleet.in_json(&["game-day", "report", "friday"]).await;
    let number = |key: &str| report[key].as_i64().unwrap();
    assert_eq!((number("calls_failed"), number("failed"), number("unfinished")), (failed, 0, 0), "{report}");
    let touched = "select count(distinct job_id) from sluice.attempt where code = 'game_day'";
    assert_eq!(number("jobs"), fleet.number(touched).await);
    let fell_back = "select count(*) from sluice.result r where provider = 'two' and exists
                     (select from sluice.attempt a where a.job_id = r.job_id and a.code = 'game_day')";
    assert_eq!(number("fell_back"), fleet.number(fell_back).await);
    assert_eq!(number("same_target") + number("fell_back"), number("jobs"));
    assert!(number("fell_back") > 0, "{report}");
    assert_eq!(report["state"], "on");
    let told = fleet.screen(&["game-day", "report", "friday", "--format", "table"]).await;
    assert!(told.contains("answered by another target") && told.contains("no job was lost"), "{told}");

    let job = fleet.number("select min(job_id) from sluice.attempt where code = 'game_day'").await.to_string();
    let explained = fleet.screen(&["explain", &job]).await;
    assert!(explained.contains("game day friday: this call was not made"), "{explained}");

    // It is over, as the configuration says now.
    fleet.configure(&config(-1));
    worker.signal(Signal::HUP);
    until("it is over", async || fleet.in_json(&["status"]).await["game_days"] == json!([])).await;
    fleet.enqueue("default", 20).await;
    fleet.until_answered(JOBS + 20).await;
    assert_eq!(fleet.number(ON_PURPOSE).await, failed);
    assert_eq!(fleet.in_json(&["game-day", "list"]).await[0]["state"], "over");
    let unknown = fleet.program(&["game-day", "report", "fryday"]).output().await.unwrap();
    assert_eq!(unknown.status.code(), Some(6));
    assert!(text(&unknown.stderr).contains("perhaps \"friday\" is meant"), "{}", text(&unknown.stderr));
    worker.stop().await;
}
