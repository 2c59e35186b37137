//! How the server would run the statements on which the queue's speed rests, and what of that is slow.

use super::DIAGNOSING;
use crate::domain::diagnosis::StatementPlan;
use crate::store::{Doing, Store, StoreError, claim};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Row as _};

impl Store {
    /// The plans of the statements that look for lanes and claim jobs.
    pub(super) async fn plans(&self) -> Result<Vec<StatementPlan>, StoreError> {
        let pages = sqlx::query_scalar!(
            r#"select pg_relation_size('sluice.ready') / current_setting('block_size')::bigint as "pages!""#
        )
        .fetch_one(&self.db)
        .await
        .doing(DIAGNOSING)?;
        let first = self.lanes().await?.into_iter().next();
        let (flow, prio) = first.map_or((0, 0), |lane| (lane.flow, lane.prio));
        // For a few pages, a scan is as good as any other plan.
        let is_small = pages < 50;
        let lanes = explained(include_str!("../lanes/walk.sql"));
        let claim = explained(include_str!("../claim/claim.sql"));
        let lanes = sqlx::query(AssertSqlSafe(lanes))
            .bind(vec![i64::MIN])
            .bind(vec![i64::MAX])
            .bind(vec![1_000_i32])
            .bind(false)
            .fetch_one(&self.db)
            .await
            .doing(DIAGNOSING)?;
        let claim = sqlx::query(AssertSqlSafe(claim))
            .bind(0_i64)
            .bind(vec![flow])
            .bind(vec![prio])
            .bind(vec![0_i64])
            .bind(vec![100_i32])
            .bind(claim::MOST_REQUEST_BYTES)
            .bind(claim::MOST_STORED_BYTES)
            .bind(0_i64)
            .bind(Some(0_i16))
            .bind(Vec::<String>::new())
            .bind(0_i32)
            .bind(Vec::<String>::new())
            .fetch_one(&self.db)
            .await
            .doing(DIAGNOSING)?;
        let mut plans = Vec::new();
        for (statement, row) in [("looking for lanes", lanes), ("claiming", claim)] {
            let Json(plan): Json<Value> = row.try_get(0).doing(DIAGNOSING)?;
            let mut faults = Vec::new();
            walk(&plan, &mut faults);
            plans.push(StatementPlan { statement, faults, is_small });
        }
        Ok(plans)
    }
}

fn explained(statement: &str) -> String {
    format!("explain (format json) {statement}")
}

/// Whether anything below this node reads `ready`, other than a few rows of it.
fn reads_ready(node: &Value) -> bool {
    if node["Node Type"] == "Limit" {
        return false;
    }
    let is_scan = node["Node Type"].as_str().is_some_and(|kind| kind.ends_with("Scan"));
    is_scan && node["Relation Name"] == "ready" || children(node).any(reads_ready)
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

/// Collects each part of a plan that reads `ready` neither in the order of its primary key nor by the place of a row.
fn walk(plan: &Value, faults: &mut Vec<String>) {
    if let Some(all) = plan.as_array() {
        for plan in all {
            walk(&plan["Plan"], faults);
        }
        return;
    }
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    if plan["Relation Name"] == "ready" {
        let by_key = matches!(kind, "Index Scan" | "Index Only Scan") && plan["Index Name"] == "ready_pkey";
        if kind.ends_with("Scan") && kind != "Tid Scan" && !by_key {
            let index = plan["Index Name"].as_str().map(|name| format!(" using {name}")).unwrap_or_default();
            faults.push(format!("{kind} on ready{index}"));
        }
    }
    if matches!(kind, "Sort" | "Incremental Sort") && reads_ready(plan) {
        faults.push(format!("{kind} of ready"));
    }
    for child in children(plan) {
        walk(child, faults);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_is_good_when_the_queue_is_read_by_its_key_or_by_place() {
        let faults = |plan: Value| {
            let mut faults = Vec::new();
            walk(&json!([{ "Plan": plan }]), &mut faults);
            faults
        };
        let by_key = json!({ "Node Type": "Index Scan", "Relation Name": "ready", "Index Name": "ready_pkey" });
        let by_place = json!({ "Node Type": "Tid Scan", "Relation Name": "ready" });
        let delete = json!({ "Node Type": "ModifyTable", "Relation Name": "ready", "Plans": [by_place, by_key] });
        assert!(faults(delete).is_empty());
        let whole = json!({ "Node Type": "Seq Scan", "Relation Name": "ready" });
        let sorted = json!({ "Node Type": "Limit", "Plans": [{ "Node Type": "Sort", "Plans": [whole] }] });
        assert_eq!(faults(sorted), ["Sort of ready", "Seq Scan on ready"]);
        let other = json!({ "Node Type": "Index Scan", "Relation Name": "ready", "Index Name": "mine" });
        assert_eq!(faults(other), ["Index Scan on ready using mine"]);
        let bodies = json!({ "Node Type": "Seq Scan", "Relation Name": "job_p0" });
        assert!(faults(json!({ "Node Type": "Sort", "Plans": [bodies] })).is_empty());
    }
}
