//! Schedules and their ticks.

use super::{at, shown};
use crate::domain::schedule::Zone;
use crate::store::schedule::{ScheduleRow, TickRow};
use crate::view::schedule::{ScheduleRunView, ScheduleStory, ScheduleView, TickView};
use serde_json::json;

fn row() -> ScheduleRow {
    ScheduleRow {
        name: "nightly".to_owned(),
        cron: "0 2 * * *".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        enabled: true,
        settings: json!({
            "source": "file", "file": "/data/a.jsonl", "route": "default", "project": "acme", "priority": 0,
            "overlap": "skip", "catch_up": "last",
        }),
        looked_at: at(0),
        next_at: None,
        seen_at: at(30),
        paused_at: None,
        paused_by: None,
        pause_reason: None,
    }
}

fn tick(state: &str, reason: Option<&str>) -> TickRow {
    TickRow {
        schedule: "nightly".to_owned(),
        at: at(-25_200),
        state: state.to_owned(),
        by_hand: false,
        login: "worker".to_owned(),
        worker: Some(3),
        batch: Some("nightly-2027-01-15-0200".to_owned()),
        jobs: 7,
        enqueue: Some(5),
        failures: 0,
        retry_at: None,
        reason: reason.map(str::to_owned),
        ended_at: at(-25_199),
        reported: None,
    }
}

#[test]
fn a_schedule_shows_its_next_tick_in_its_zone_and_what_came_of_the_last_one() {
    let last = json!({
        "schedule": "nightly", "tick": "2027-01-15T01:00:00Z", "local": "2027-01-15 02:00 +01:00", "state": "done",
        "by_hand": false, "batch": "nightly-2027-01-15-0200", "jobs": 7, "enqueue": 5, "reported": null,
        "reason": null, "failures": 0, "retry_at": null, "ended_at": "2027-01-15T01:00:01Z", "worker": 3,
        "login": "worker",
    });
    let all = ScheduleView::all(&[row()], &[], &[tick("done", None)], at(60));
    let expected = json!({
        "schedule": "nightly", "state": "ok", "cron": "0 2 * * *", "timezone": "Europe/Berlin",
        "next_tick": "2027-01-16T01:00:00Z", "next_local": "2027-01-16 02:00 +01:00", "last": last,
        "source": "file", "file": "/data/a.jsonl", "report": null, "receiver": null, "route": "default",
        "project": "acme", "overlap": "skip", "catch_up": "last", "enabled": true, "paused": false,
        "paused_at": null, "paused_by": null, "pause_reason": null, "seen_at": "2027-01-15T08:00:30Z",
        "is_configured": false,
    });
    assert_eq!(shown(&all[0]), expected);
    let ticks = vec![TickView::of(&tick("done", None), Zone::parse("Europe/Berlin").ok())];
    let story = shown(&ScheduleStory { schedule: all[0].clone(), ticks });
    assert_eq!((&story["ticks"], &story["cron"]), (&json!([last]), &json!("0 2 * * *")));
    let run = ScheduleRunView {
        schedule: "nightly".to_owned(),
        tick: at(0),
        batch: "b".to_owned(),
        jobs: 2,
        enqueue: Some(9),
    };
    assert_eq!(
        shown(&run),
        json!({ "schedule": "nightly", "tick": "2027-01-15T08:00:00Z", "batch": "b", "jobs": 2, "enqueue": 9 })
    );
    assert_eq!(run.to_string(), "schedule nightly: enqueued 2 jobs as batch b (enqueue 9)");
}

#[test]
fn the_state_of_a_schedule_says_whether_it_runs() {
    let state = |row: ScheduleRow, last: Option<TickRow>| {
        let view = ScheduleView::all(&[row], &[], last.as_slice(), at(60)).remove(0);
        (view.state, view.trouble().unwrap_or_default())
    };
    assert_eq!(state(row(), None), ("ok", String::new()));
    let (word, said) = state(row(), Some(tick("failed", Some("no file"))));
    assert!(
        word == "failed" && said.contains("2027-01-15 02:00 +01:00 has failed") && said.contains("(no file)"),
        "{said}"
    );
    assert_eq!(state(row(), Some(tick("retrying", Some("no file")))).0, "waits");
    assert_eq!(state(row(), Some(tick("skipped", Some("paused")))).0, "ok");
    assert_eq!(state(ScheduleRow { enabled: false, ..row() }, None).0, "off");
    let gone = ScheduleRow { seen_at: at(-120), ..row() };
    assert_eq!(ScheduleView::all(std::slice::from_ref(&gone), &[], &[], at(60))[0].next_tick, None, "it never fires");
    assert_eq!(state(gone, None).0, "gone");
    let paused = ScheduleRow {
        paused_at: Some(at(1)),
        paused_by: Some("ops".to_owned()),
        pause_reason: Some("closed".to_owned()),
        ..row()
    };
    assert_eq!(state(paused, None), ("paused", "schedule nightly is paused by ops: closed".to_owned()));
    assert_eq!(state(ScheduleRow { timezone: "Mars/Base".to_owned(), ..row() }, None).0, "ok", "of a newer version");
}
