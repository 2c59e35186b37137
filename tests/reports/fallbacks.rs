//! Fallbacks as they happen: a worker, a rung that fails, and what the report makes of it.

use crate::support::fleet::{Fleet, stop};
use crate::support::program::text;
use crate::support::wait::until;
use serde_json::{Value, json};

const JOBS: i64 = 60;

/// From, why, to, how often, what it cost, and what it cost more, as the ledger has it. What it cost more is worked out
/// from the tokens and the prices below: a dollar more for a million of the input, ten for one of the output.
const LEDGER: &str = "
select instead_of, instead_why, provider || '/' || model, count(*), sum(cost_nanos)::bigint,
       (sum(input_tokens + cache_read_tokens) * 1000 + sum(output_tokens) * 10000)::bigint
  from sluice.attempt where accepted and provider = 'two' group by 1, 2, 3 order by 1, 2, 3";

/// Answers of which the ledger gives a failure as the reason that their job had not met.
const WITHOUT_CAUSE: &str = "
select count(*) from sluice.attempt a
 where a.accepted and a.provider = 'two' and a.instead_why in ('server_error', 'soft_failure')
   and not exists (select from sluice.attempt b
                    where b.job_id = a.job_id and b.provider = 'one' and b.class = a.instead_why)";

/// Dollars as they are told, in billionths.
#[expect(clippy::cast_possible_truncation, reason = "small amounts")]
fn in_nanos(dollars: &Value) -> i64 {
    (dollars.as_f64().unwrap() * 1e9).round() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_from_where_why_to_where_how_often_and_for_how_much_more() {
    // Some jobs meet a server that fails, and some an empty answer, which is paid for.
    let scenario = "[providers.one]\ndialect = \"openai\"\noutput = { uniform = [10, 90] }\n\
                    models.model.price = { input = \"1\", output = \"10\" }\n\
                    faults = [{ kind = \"server_error\", containing = \"question 5\" },\n\
                              { kind = \"empty\", containing = \"question 6\" }]\n\
                    [providers.two]\ndialect = \"openai\"\noutput = { uniform = [10, 90] }\n\
                    models.model.price = { input = \"2\", output = \"20\" }\n";
    let provider = |name: &str, input: u8| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/model\"]\nprice = {{ input = \"{input}\", output = \"{input}0\" }}\n"
        )
    };
    let route = "[routes.default]\nrungs = [\"one/model\", \"two/model\"]\nstrategy = \"priority\"\n\
                 patience = \"0s\"\n";
    let config = format!("[worker]\nmax_in_flight = 4\n{}{}{route}", provider("one", 1), provider("two", 2));
    let fleet = Fleet::new(scenario, &config).await;
    let process = fleet.start();
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    stop(vec![process]).await;
    let answers = "select count(*) from sluice.attempt where accepted";
    until("all is booked", async || fleet.number(answers).await == JOBS).await;
    let report = async |arguments: &[&str]| -> Value {
        let told = fleet.program(&[&["report"], arguments, &["--format", "json"]].concat()).output().await.unwrap();
        assert!(told.status.success(), "{}", text(&told.stderr));
        serde_json::from_slice(&told.stdout).unwrap()
    };
    let expected: Vec<(String, String, String, i64, i64, i64)> =
        sqlx::query_as(LEDGER).fetch_all(&fleet.pool).await.unwrap();
    let rows = report(&["fallbacks"]).await;
    let in_ledger = fleet.number("select count(*) from sluice.attempt where accepted and provider = 'two'").await;
    let told = rows.as_array().unwrap().iter().map(|row| row["after_fallback"].as_i64().unwrap()).sum::<i64>();
    assert_eq!(told, in_ledger, "{rows}");
    assert_eq!(fleet.number(WITHOUT_CAUSE).await, 0);
    assert_eq!(rows.as_array().unwrap().len(), expected.len(), "{rows}");
    for (from, why, to, answers, nanos, more) in expected {
        let is_it = |row: &&Value| row["from"] == from.as_str() && row["why"] == why.as_str();
        let row = rows.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("{why}: {rows}"));
        let told = (&row["to"], &row["after_fallback"], &row["unknown"]);
        assert_eq!(told, (&json!(to), &json!(answers), &json!(0)), "{why}: {rows}");
        for (measure, nanos) in [("cost", nanos), ("cost_more", more)] {
            assert_eq!(in_nanos(&row[measure]), nanos, "{why}: {measure}, and what it is in the ledger");
        }
        assert!(more > 0 && answers > 0);
    }
    // So many failures may have opened the breaker meanwhile.
    for whys in [&["server_error", "breaker_open"][..], &["soft_failure"]] {
        let is_told = rows.as_array().unwrap().iter().any(|row| whys.contains(&row["why"].as_str().unwrap()));
        assert!(is_told, "{whys:?}: {rows}");
    }
    // What the first calls cost that brought nothing is in the report of waste.
    let wasted = fleet.number("select sum(cost_nanos)::bigint from sluice.attempt where not accepted").await;
    let waste = report(&["waste", "--by", "provider"]).await;
    assert!(wasted > 0, "{waste}");
    assert_eq!(in_nanos(&waste[0]["waste"]), wasted, "{waste}");
    let by_route = report(&["fallbacks", "--by", "route"]).await;
    assert_eq!((&by_route[0]["jobs_answered"], &by_route[0]["after_fallback"]), (&json!(JOBS), &json!(in_ledger)));
}
