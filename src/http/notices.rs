//! What the metrics say of pauses, schedules and alerts, which all workers share.

use super::families::{Families, Labels};
use crate::domain::Timestamp;
use crate::domain::alert::AlertSeverity;
use crate::domain::pause::PauseKind;
use crate::worker::Notices;
use std::fmt;

#[expect(clippy::cast_precision_loss, reason = "metrics are floats by nature; up to 2^53 they are exact")]
fn float(count: i64) -> f64 {
    count as f64
}

fn by_schedule(name: &str) -> Labels<'_, 1> {
    [("schedule", name)]
}

pub(super) fn write(notices: &Notices, page: &mut Families<'_>) -> fmt::Result {
    page.gauges(
        "paused",
        "What operators and stop-losses have paused, single jobs left out.",
        PauseKind::ALL.map(|kind| {
            let paused = notices.pauses.iter().filter(|of| **of == kind).count();
            ([("kind", kind.as_str())], float(i64::try_from(paused).unwrap_or(i64::MAX)))
        }),
    )?;
    let seconds = |at: Timestamp| float(at.0) / 1e3;
    let flag = |is_so: bool| if is_so { 1.0 } else { 0.0 };
    let schedules = || notices.schedules.iter().map(|of| (by_schedule(&of.name), of));
    page.gauges(
        "schedule_enabled",
        "0 while a schedule is paused or switched off.",
        schedules().map(|(labels, of)| (labels, flag(of.is_enabled))),
    )?;
    page.gauges(
        "schedule_next_tick_timestamp_seconds",
        "When a schedule enqueues next.",
        schedules().filter_map(|(labels, of)| Some((labels, seconds(of.next_tick?)))),
    )?;
    page.gauges(
        "schedule_last_tick_timestamp_seconds",
        "Its last tick, whatever came of it.",
        schedules().filter_map(|(labels, of)| Some((labels, seconds(of.last_tick?)))),
    )?;
    page.gauges(
        "schedule_last_tick_failed",
        "1 when its last tick has failed, or is tried again.",
        schedules().map(|(labels, of)| (labels, flag(of.has_failed))),
    )?;
    page.gauges(
        "alerts_firing",
        "Alerts that fire, by their severity.",
        AlertSeverity::ALL.map(|severity| {
            let firing = notices.firing.get(severity.as_str()).copied().unwrap_or(0);
            ([("severity", severity.as_str())], float(firing))
        }),
    )?;
    let undelivered = || notices.undelivered.iter().map(|(receiver, of)| ([("receiver", receiver.as_str())], *of));
    page.gauges(
        "alert_messages_waiting",
        "Messages that a receiver has not taken yet.",
        undelivered().map(|(labels, (waiting, _))| (labels, float(waiting))),
    )?;
    page.gauges(
        "alert_messages_refused",
        "Those of them that it has failed to take at least once.",
        undelivered().map(|(labels, (_, refused))| (labels, float(refused))),
    )
}
