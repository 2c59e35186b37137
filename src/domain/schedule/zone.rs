//! The instants at which a line of local time fires in a time zone, over days of 23, 24 and 25 hours.
//!
//! A local time that a clock change leaves out is made up for right after the gap, once. One that comes twice counts
//! once, the first time; but a line that fires in each hour fires in both, since otherwise it would rest for an hour.

use super::crontab::CronLine;
use crate::domain::Timestamp;
use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _};
use chrono_tz::{TZ_VARIANTS, Tz};
use std::fmt;

/// No clock was ever set by more than this at once: an island that changed the side of the date line left out a day.
const LONGEST_CHANGE: TimeDelta = TimeDelta::hours(26);

/// A time zone by its name in the IANA database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Tz);

impl Default for Zone {
    fn default() -> Self {
        Self(Tz::UTC)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Zone {
    /// The zone of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let lower = name.trim().to_lowercase();
        let zone = TZ_VARIANTS.iter().find(|zone| zone.name().to_lowercase() == lower);
        zone.copied().map(Self).ok_or_else(|| format!("there is no time zone {name:?}"))
    }

    /// The names of all zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TZ_VARIANTS.iter().map(|zone| zone.name())
    }

    /// The local time, as people write it: `2026-03-29 02:00:00 +02:00`.
    #[must_use]
    pub fn local(self, at: Timestamp) -> Option<DateTime<Tz>> {
        DateTime::from_timestamp_millis(at.0).map(|at| at.with_timezone(&self.0))
    }

    /// Whether the local time comes twice, and this is the second time.
    pub(super) fn is_second_time(self, at: &DateTime<Tz>) -> bool {
        matches!(self.0.from_local_datetime(&at.naive_local()), MappedLocalTime::Ambiguous(_, second) if second == *at)
    }

    /// The first instant after this one at which the line fires here; `None`: there is none until the year 2100.
    #[must_use]
    pub fn next(self, line: &CronLine, after: Timestamp) -> Option<Timestamp> {
        let after = self.local(after)?;
        let ahead = self.next_ahead(line, &after);
        let again = self.next_again(line, &after);
        let next = [ahead, again].into_iter().flatten().min()?;
        Some(Timestamp(next.timestamp_millis()))
    }

    /// By the local times that are later than this one.
    fn next_ahead(self, line: &CronLine, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let mut local = after.naive_local();
        loop {
            local = line.next(local)?;
            let at = match self.0.from_local_datetime(&local) {
                MappedLocalTime::Single(at) => at,
                MappedLocalTime::Ambiguous(first, second) => {
                    if line.is_hourly() && first <= *after {
                        second
                    } else {
                        first
                    }
                }
                MappedLocalTime::None => self.end_of_gap(local)?,
            };
            if at > *after {
                return Some(at);
            }
        }
    }

    /// By the local times that are over and come again, for a line that fires in each hour.
    fn next_again(self, line: &CronLine, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let local = after.naive_local();
        let MappedLocalTime::Ambiguous(first, second) = self.0.from_local_datetime(&local) else { return None };
        if !line.is_hourly() || *after >= second {
            return None;
        }
        let set_back = self.first_with(first, second, |at| at.offset().fix() == second.offset().fix())?;
        let mut local = set_back.naive_local().checked_sub_signed(TimeDelta::seconds(1))?;
        loop {
            local = line.next(local)?;
            match self.0.from_local_datetime(&local) {
                MappedLocalTime::Ambiguous(_, second) if second > *after => return Some(second),
                MappedLocalTime::Ambiguous(..) => {}
                // A tick after the repeated time is found by the search ahead.
                MappedLocalTime::Single(_) | MappedLocalTime::None => return None,
            }
        }
    }

    /// The instant at which the clock passes over this local time.
    fn end_of_gap(self, local: NaiveDateTime) -> Option<DateTime<Tz>> {
        let from = self.0.from_utc_datetime(&local.checked_sub_signed(LONGEST_CHANGE)?);
        let to = self.0.from_utc_datetime(&local.checked_add_signed(LONGEST_CHANGE)?);
        self.first_with(from, to, |at| at.naive_local() > local)
    }

    /// The first second in `(from, to]` of which this holds, where it holds of all later ones as well.
    fn first_with(
        self,
        from: DateTime<Tz>,
        to: DateTime<Tz>,
        holds: impl Fn(&DateTime<Tz>) -> bool,
    ) -> Option<DateTime<Tz>> {
        let (mut before, mut at) = (from.timestamp(), to.timestamp());
        while at.saturating_sub(before) > 1 {
            let middle = before.saturating_add(at.saturating_sub(before).checked_div(2)?);
            let instant = self.0.timestamp_opt(middle, 0).single()?;
            if holds(&instant) {
                at = middle;
            } else {
                before = middle;
            }
        }
        self.0.timestamp_opt(at, 0).single()
    }
}

#[cfg(test)]
mod tests;
