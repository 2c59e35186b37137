//! Every table on screens of 80 and of 120 columns, as people see it. A change here is looked at.

use super::table;
use crate::domain::budget::{Budget, BudgetStanding, Coverage, Period, Unpriced};
use crate::domain::file_estimate::{FileEstimate, RungEstimate};
use crate::domain::{MaxFailed, NanoUsd, PerAnswer, Timestamp};
use crate::store::batch::Batch;
use crate::store::budget::BudgetRow;
use crate::store::report::{FailureWords, Grouping, Keys, LatencyRow, ShadowRow, Totals};
use crate::store::schedule::{ScheduleRow, TickRow};
use crate::view::budget::{self, BudgetView};
use crate::view::estimate::EstimateView;
use crate::view::schedule::{self, ScheduleView, TickView};
use crate::view::status::tables::tests as status;
use crate::view::table::Table;
use crate::view::trial::{self, RungTrial};
use crate::view::{batch, compare, report};
use chrono::DateTime;
use std::time::Duration;

/// Names and numbers as long as they get in earnest.
fn a_batch(name: &str) -> Batch {
    Batch {
        name: name.to_owned(),
        first_hour: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        last_hour: DateTime::from_timestamp(1_800_003_600, 0).unwrap(),
        jobs: 10_000_000,
        succeeded: 8_912_345,
        failed: 1_234,
        cancelled: 12,
        attempts: 12_345_678,
        cost: NanoUsd(1_234_567_890_123),
        waste: NanoUsd(34_567_890_123),
        uncertain: NanoUsd(1),
        unpriced: 7,
        paused: true,
        pause_reason: Some("stop-loss: 1,234 of 8,913,579 jobs failed, and 0.01 % may".to_owned()),
        max_failed: MaxFailed::parse("0.0001").ok(),
        max_wasted: None,
    }
}

/// What `schedule list` and `schedule ticks` show.
fn schedules() -> [(&'static str, Table); 2] {
    let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
    let row = |name: &str, cron: &str, timezone: &str| ScheduleRow {
        name: name.to_owned(),
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        enabled: true,
        settings: serde_json::json!({ "source": "sql", "route": "default", "project": "default" }),
        looked_at: at(0),
        next_at: None,
        seen_at: at(0),
        paused_at: None,
        paused_by: None,
        pause_reason: None,
    };
    let tick = |name: &str, state: &str, reason: Option<&str>| TickRow {
        schedule: name.to_owned(),
        at: at(-25_200),
        state: state.to_owned(),
        by_hand: reason.is_none(),
        login: "worker".to_owned(),
        worker: Some(3),
        batch: reason.is_none().then(|| format!("{name}-2027-01-15-0200")),
        jobs: if reason.is_none() { 10_000_000 } else { 0 },
        enqueue: None,
        failures: i16::from(reason.is_some()),
        retry_at: None,
        reason: reason.map(str::to_owned),
        ended_at: at(-25_199),
        reported: None,
    };
    let rows = [
        row("nightly_classification", "*/15 8-18 * * mon-fri", "America/Argentina/ComodRivadavia"),
        row("reviews", "0 2 * * *", "Europe/Berlin"),
    ];
    let ticks = [
        tick("nightly_classification", "done", None),
        tick("reviews", "failed", Some("/data/reviews/2027/reviews.jsonl:17: body.messages[0].role: expected a role")),
    ];
    let views = ScheduleView::all(&rows, &[], &ticks, at(1));
    let zone = crate::domain::schedule::Zone::parse("Europe/Berlin").ok();
    let ticks: Vec<TickView> = ticks.iter().map(|tick| TickView::of(tick, zone)).collect();
    [("schedule list", schedule::table(&views)), ("schedule ticks", schedule::ticks(&ticks))]
}

fn a_budget(name: &str) -> BudgetView {
    let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
    let standing = BudgetStanding {
        budget: Budget {
            name: name.to_owned(),
            scope: Coverage::Batch("nightly-classification-2027-01-15".to_owned()),
            period: Period::Month,
            limit: NanoUsd(12_500_000_000_000),
            soft: Some(800_000),
            then_route: Some("cheap".to_owned()),
            unpriced: Unpriced::Refuse,
        },
        ends_at: Some(Timestamp(1_801_440_000_000)),
        spent: NanoUsd(10_234_567_890_123),
        uncertain: NanoUsd(1_500_000),
        reserved: NanoUsd(12_345_678),
        least: Some(NanoUsd(10_014_000)),
        least_is_old: false,
    };
    let row = BudgetRow {
        standing,
        starts_at: at(0),
        unpriced_calls: 0,
        soft_at: Some(at(60)),
        full_at: None,
        burn: NanoUsd(31_002_537_504),
        set_by: "sluice".to_owned(),
        set_at: at(0),
        is_configured: true,
    };
    BudgetView::of(&row, at(3600))
}

fn totals(by: &[Grouping], keys: &[&str]) -> Totals {
    Totals {
        keys: Keys::of(by, keys.iter().copied()),
        succeeded: 8_912_345,
        failed: 1_234,
        attempts: 12_345_678,
        unused: 3_433_333,
        fallbacks: 123_456,
        input_tokens: 12_345_678_901,
        cached_tokens: 1_234_567_890,
        output_tokens: 2_345_678_901,
        cost: NanoUsd(1_234_567_890_123),
        waste: NanoUsd(34_567_890_123),
        uncertain: NanoUsd(1_500_000_000),
        unpriced: 7,
        ..Totals::default()
    }
}

fn tables() -> Vec<(&'static str, Table)> {
    let by = [Grouping::Provider, Grouping::Model];
    let rows = || {
        vec![totals(&by, &["azure_westeurope", "gpt-4.1-mini-2025-04-14"]), totals(&by, &["deepseek", "deepseek-chat"])]
    };
    let class = [Grouping::Class, Grouping::Provider, Grouping::Model];
    let of_class = Totals {
        keys: Keys::of(
            &FailureWords::BY,
            ["azure_westeurope", "gpt-4.1-mini-2025-04-14", "invalid_request", "", "unsupported_value"],
        ),
        ..totals(&[], &[])
    };
    let words = FailureWords {
        keys: of_class.keys.clone(),
        message:
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is \
                  supported."
                .to_owned(),
    };
    let path = [Grouping::From, Grouping::Why, Grouping::To];
    let detours = Totals {
        detours: 123_456,
        detour_cost: NanoUsd(1_234_567_890),
        detour_extra: NanoUsd(-234_567_890),
        detour_unknown: 12,
        ..totals(&path, &["azure_westeurope/gpt-4.1-mini-2025-04-14", "rate_limit", "deepseek/deepseek-chat"])
    };
    let of_quality = report::quality::by_of_quality(&by);
    let quality = [("", ""), ("soft_failure", "schema_violation"), ("soft_failure", "truncated")]
        .map(|(class, detail)| totals(&of_quality, &["azure_westeurope", "gpt-4.1-mini-2025-04-14", class, detail]));
    let latency = LatencyRow {
        keys: Keys::of(&by, ["azure_westeurope", "gpt-4.1-mini-2025-04-14"]),
        answers: 8_912_345,
        first_byte_p50_ms: Some(412),
        p50_ms: Some(1_234),
        p95_ms: Some(12_345),
        p99_ms: Some(123_456),
        mean_ms: 2_345,
    };
    let of_shadows = [Grouping::Route, Grouping::Provider, Grouping::Model];
    let shadow = ShadowRow {
        keys: Keys::of(&of_shadows, ["classification", "azure_westeurope", "gpt-4.1-mini-2025-04-14"]),
        pairs: 8_912_345,
        both_accepted: 8_911_111,
        compared: 8_901_234,
        same: 7_654_321,
        fields: 23_456_789,
        fields_same: 21_098_765,
        cost: NanoUsd(1_234_567_890_123),
        unpriced: 7,
        shadow_cost: NanoUsd(34_567_890_123),
        shadow_unpriced: 0,
        p50_ms: Some(1_234),
        shadow_p50_ms: Some(412),
        waiting: 12_345,
        not_asked: 1_234,
    };
    let batches = [a_batch("nightly-classification-2027-01-15"), a_batch("b")];
    let mut tables = vec![
        ("batch list", batch::table(&batches)),
        ("report cost", report::cost(&by, rows(), &totals(&[], &[]))),
        ("report failures", report::failures(&class, vec![of_class], &totals(&[], &[]), &[words])),
        ("report waste", report::waste(&by, rows(), &totals(&[], &[]))),
        ("report fallbacks", report::fallbacks(&path, vec![detours], &totals(&[], &[]))),
        ("report fallbacks by target", report::fallbacks(&by, rows(), &totals(&[], &[]))),
        ("report quality", report::quality::quality(&by, &quality)),
        ("report cost compared", {
            let before = report::cost(&by, rows(), &totals(&[], &[]));
            let now = rows().into_iter().map(|row| Totals { cost: NanoUsd(1_034_567_890_123), attempts: 9, ..row });
            compare::compare(&before, &report::cost(&by, now.collect(), &totals(&[], &[])), by.len())
        }),
        ("report latency", report::latency(&by, vec![latency])),
        ("report shadow", report::shadow::shadows(&of_shadows, std::slice::from_ref(&shadow), Some(&shadow))),
    ];
    let rung = |target: &str| RungTrial {
        target: target.to_owned(),
        asked: 50,
        accepted: 41,
        failed: 9,
        cancelled: 0,
        attempts: 72,
        rejected: vec![("schema_violation".to_owned(), 12), ("truncated".to_owned(), 3)],
        unanswered: vec![("rate_limit".to_owned(), 16)],
        p50_ms: Some(1_234),
        p95_ms: Some(12_345),
        input_tokens: 123_456,
        output_tokens: 23_456,
        cost: Some(NanoUsd(12_345_678)),
        per_answer: Some(PerAnswer::Exactly(NanoUsd(301_114))),
        whole_file: Some(NanoUsd(301_114_000_000)),
    };
    tables.push((
        "trial",
        trial::table(&[rung("azure_westeurope/gpt-4.1-mini-2025-04-14"), rung("deepseek/deepseek-chat")]),
    ));
    let rung = |target: &str| RungEstimate {
        target: target.to_owned(),
        jobs: 1_000_000,
        first_choice: 987_654,
        too_large: 12_346,
        input_tokens: 1_234_567_890,
        output_tokens: 234_567_890,
        expected: Some(NanoUsd(301_114_000_000)),
        expected_first: Some(NanoUsd(301_114_000_000)),
        most: Some(NanoUsd(1_301_114_000_000)),
        ..RungEstimate::default()
    };
    let rungs = vec![rung("azure_westeurope/gpt-4.1-mini-2025-04-14"), rung("deepseek/deepseek-chat")];
    let amount = Some(NanoUsd(301_114_000_000));
    let sums =
        FileEstimate { jobs: 1_000_000, rungs, as_routed: amount, most: amount, stranded: 5, ..Default::default() };
    let time = Some(Duration::from_secs(123_456));
    let view = EstimateView { sums, at_least: vec![time; 2], at_least_in_all: time, ..EstimateView::default() };
    tables.push(("estimate", view.table()));
    tables.push(("budget list", budget::table(&[a_budget("batch:nightly-classification-2027-01-15"), a_budget("b")])));
    tables.extend(schedules());
    tables.extend(status::tables());
    tables
}

fn for_terminal(table: &Table, screen: Option<usize>, is_wide: bool) -> String {
    table::for_terminal(table, screen, is_wide).to_string()
}

#[test]
fn at_80_and_120_columns_no_name_and_no_number_is_split_or_cut() {
    for screen in [80, 120] {
        let shown: Vec<String> = tables()
            .iter()
            .map(|(name, table)| format!("{name}\n{}\n", for_terminal(table, Some(screen), false)))
            .collect();
        for line in shown.iter().flat_map(|table| table.lines()) {
            assert!(line.chars().count() <= screen, "{line}");
        }
        insta::assert_snapshot!(format!("screens_{screen}"), shown.join("\n"));
    }
}

#[test]
fn asked_for_all_columns_a_table_has_them_all() {
    for (name, table) in tables() {
        let shown = for_terminal(&table, None, true);
        let heads = shown.lines().next().unwrap_or_default();
        for column in &table.columns {
            assert!(heads.contains(&column.replace('_', " ")), "{name} without {column}: {heads}");
        }
    }
}
