//! The list of batches, a page at a time.

use crate::support::postgres::database;
use crate::support::program::{Program, text};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::AssertSqlSafe;

const LATEST: &str = include_str!("../../src/store/batch/latest.sql");

/// Batches that were worked on in two hours, three hundred of them in each.
const FILL: &str = "
    insert into sluice.tally_hour (hour, route, project, batch, provider, model, enqueued, succeeded)
         select date_trunc('hour', now()) - make_interval(hours => n / 300 + later), 'r', 'p', 'b' || n, 'one', 'm', 1,
                1
           from generate_series($1::integer, $2::integer) n cross join generate_series(0, 1) later";

/// Some of them have sums that are not folded yet, in this hour or one before; and so have new ones.
const FRESH: &str = "
    insert into sluice.tally (hour, route, project, batch, enqueued)
         select date_trunc('hour', now()) - make_interval(hours => n % 2), 'r', 'p', b.name, 1
           from generate_series(1, 20) n cross join lateral (values ('b' || n * 29), ('new' || n)) b(name)";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_batches_reads_few_rows_however_many_there_are() {
    let database = database().await;
    let (pool, store) = (database.pool(), database.store().await);
    // At one instant: an hour may begin at any time.
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(FILL).bind(1).bind(600).execute(&mut *transaction).await.unwrap();
    sqlx::query(FRESH).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let sorted = "select batch from sluice.totals where batch <> '' group by batch order by max(hour) desc, batch";
    let sorted: Vec<String> = sqlx::query_scalar(sorted).fetch_all(&pool).await.unwrap();
    let mut walked: Vec<String> = Vec::new();
    loop {
        let page = store.batches_after(walked.last().map(String::as_str), 47).await.unwrap();
        if page.is_empty() {
            break;
        }
        walked.extend(page.into_iter().map(|batch| batch.name));
    }
    assert_eq!(walked, sorted);
    assert!(store.batches_after(Some("no such batch"), 5).await.unwrap().is_empty());
    let first = &store.batches(1).await.unwrap()[0];
    assert_eq!((first.name.as_str(), first.jobs), ("b1", 2), "{first:?}");
    let program = Program::new("[http]\nlisten = \"off\"\n", &database.url());
    for (limit, is_told) in [("3", true), ("100000", false)] {
        let listed = program.run(&["batch", "list", "--limit", limit, "--format", "table"]).await;
        let said = text(&listed.stderr);
        assert_eq!(said.contains("these are the 3 latest; there are more (--limit)"), is_told, "{said}");
    }
    // However many there are.
    sqlx::query(FILL).bind(601).bind(30_000).execute(&pool).await.unwrap();
    sqlx::raw_sql("analyze sluice.tally_hour; analyze sluice.tally").execute(&pool).await.unwrap();
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(format!("explain (analyze, format json) {LATEST}")))
        .bind(None::<DateTime<Utc>>)
        .bind("")
        .bind(51_i64)
        .fetch_one(&pool)
        .await
        .unwrap();
    let read = rows_read(&plan[0]["Plan"]);
    assert!((100.0..2_000.0).contains(&read), "{read} rows of 60,000: {plan:#}");
}

/// How many rows of the folded sums a plan has read.
fn rows_read(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let rows = (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops");
    let own = if node["Relation Name"] == "tally_hour" { rows } else { 0.0 };
    own + node["Plans"].as_array().into_iter().flatten().map(rows_read).sum::<f64>()
}
