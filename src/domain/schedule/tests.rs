use super::*;
use chrono::DateTime;

/// A schedule in UTC that is as usual but for its line.
pub(super) fn schedule(line: &str) -> Schedule {
    Schedule {
        name: "nightly".to_owned(),
        line: CronLine::parse(line).unwrap(),
        zone: Zone::default(),
        is_enabled: true,
        overlap: Overlap::Skip,
        catch_up: CatchUp::Last,
        catch_up_within: Duration::from_hours(7 * 24),
        catch_up_limit: 24,
        source: TickSource::Request(r#"{"prompt":"?"}"#.to_owned()),
        question: RowQuestion::default(),
        sql_timeout: Duration::from_mins(5),
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: Template::parse(USUAL_BATCH).unwrap(),
        priority: 0,
        deadline: None,
        max_attempts: None,
        stop_loss: StopLoss::default(),
    }
}

#[test]
fn a_batch_is_named_by_the_local_time_of_its_tick() {
    let mut nightly = schedule("0 2 * * *");
    nightly.zone = Zone::parse("Europe/Berlin").unwrap();
    let name = |schedule: &Schedule, at: &str, by_hand| {
        let at = Timestamp(DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis());
        schedule.batch_of(at, by_hand).unwrap()
    };
    assert_eq!(name(&nightly, "2026-11-02T01:00:00Z", false), "nightly-2026-11-02-0200");
    assert_eq!(name(&nightly, "2026-11-02T01:00:07Z", false), "nightly-2026-11-02-020007");
    assert_eq!(name(&nightly, "2026-11-02T01:00:00Z", true), "nightly-2026-11-02-020000", "not that of the tick");
    // The hour that comes twice.
    assert_eq!(name(&nightly, "2026-10-25T00:30:00Z", false), "nightly-2026-10-25-0230");
    assert_eq!(name(&nightly, "2026-10-25T01:30:00Z", false), "nightly-2026-10-25-0230+0100");
    nightly.batch = Template::parse("news/{month}/{date} {time}").unwrap();
    assert_eq!(name(&nightly, "2026-11-02T01:00:00Z", false), "news/2026-11/2026-11-02 0200");
    for known in BATCH_NAMES {
        nightly.batch = Template::parse(&format!("{{{known}}}")).unwrap();
        assert!(!name(&nightly, "2026-11-02T01:00:00Z", false).is_empty());
    }
    nightly.batch = Template::parse("{other}").unwrap();
    assert!(nightly.batch_of(Timestamp(0), false).is_err());
}
