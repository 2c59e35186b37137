//! Hours of the week by the clock of UTC, such as those in which a vendor is dearer.

use super::Timestamp;
use std::fmt;
use std::time::Duration;

const MINUTES_OF_DAY: u32 = 24 * 60;
const MINUTES_OF_WEEK: u32 = 7 * MINUTES_OF_DAY;
/// The first day of all timestamps was a Thursday.
const FIRST_DAY: i64 = 3;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Hours of the week, as written: `mon-fri 01:00-04:00`. Without days they are those of every day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// As they were written.
    written: Vec<String>,
    /// Each from one minute of the week to another, which may lie in the next week; Monday begins at 0.
    spans: Vec<(u32, u32)>,
}

impl Hours {
    /// Reads hours as they are written.
    ///
    /// # Errors
    /// The fault of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (read_days(days)?, times),
            None => (vec![true; 7], text.trim()),
        };
        let (from, to) = times.split_once('-').ok_or_else(|| format!("{times:?} is no span of hours"))?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from == to || from == MINUTES_OF_DAY {
            return Err(format!("{times:?} has no hours"));
        }
        // What ends before it begins ends on the day after.
        let to = if to < from { to.saturating_add(MINUTES_OF_DAY) } else { to };
        let listed = (0_u32..).zip(days).filter(|(_, is_listed)| *is_listed);
        let midnights = listed.map(|(day, _)| day.saturating_mul(MINUTES_OF_DAY));
        let spans = midnights.map(|midnight| (midnight.saturating_add(from), midnight.saturating_add(to))).collect();
        Ok(Self { written: vec![text.trim().to_owned()], spans })
    }

    /// These hours and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.written.extend(others.written);
        self.spans.extend(others.spans);
        self
    }

    /// Whether the instant lies in one of these hours.
    #[must_use]
    pub fn contain(&self, at: Timestamp) -> bool {
        let minute = minute_of_week(at);
        let is_in = |minute: u32| self.spans.iter().any(|(from, to)| (*from..*to).contains(&minute));
        is_in(minute) || is_in(minute.saturating_add(MINUTES_OF_WEEK))
    }
}

impl Hours {
    /// The first instant from this one on that lies outside these hours; `None`: there is none.
    #[must_use]
    pub fn end_after(&self, at: Timestamp) -> Option<Timestamp> {
        let minute_of = |Timestamp(millis): Timestamp| Timestamp(millis.div_euclid(60_000).saturating_mul(60_000));
        let mut end = at;
        // Each step leaves one span at least, so a week is left after as many as there are, and one more round of it.
        for _ in 0..=self.spans.len().saturating_mul(2) {
            if !self.contain(end) {
                return Some(end);
            }
            end = minute_of(end) + Duration::from_mins(u64::from(self.minutes_left(end).max(1)));
        }
        None
    }

    /// The minutes until the last of the spans ends that the instant lies in.
    fn minutes_left(&self, at: Timestamp) -> u32 {
        let minute = minute_of_week(at);
        let left = |minute: u32| {
            let spans = self.spans.iter().filter(move |(from, to)| (*from..*to).contains(&minute));
            spans.map(move |(_, to)| to.saturating_sub(minute)).max().unwrap_or(0)
        };
        left(minute).max(left(minute.saturating_add(MINUTES_OF_WEEK)))
    }
}

fn minute_of_week(Timestamp(millis): Timestamp) -> u32 {
    let minutes = millis.div_euclid(60_000).saturating_add(FIRST_DAY * i64::from(MINUTES_OF_DAY));
    u32::try_from(minutes.rem_euclid(i64::from(MINUTES_OF_WEEK))).unwrap_or(0)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.written.is_empty() { f.write_str("no hours") } else { f.write_str(&self.written.join(", ")) }
    }
}

/// `mon-fri`, `sat,sun`: which days of the week are listed.
fn read_days(text: &str) -> Result<Vec<bool>, String> {
    let day = |name: &str| {
        let name = name.trim();
        DAYS.iter().position(|day| *day == name).ok_or_else(|| format!("{name:?} is no day; the days are mon to sun"))
    };
    let mut listed = vec![false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for (place, is_listed) in listed.iter_mut().enumerate() {
            // `sat-mon` goes over the end of the week.
            let is_in = if first <= last { (first..=last).contains(&place) } else { place >= first || place <= last };
            *is_listed |= is_in;
        }
    }
    Ok(listed)
}

/// `01:30` as minutes of the day; `24:00` is its end.
fn minute(text: &str) -> Result<u32, String> {
    let is_plain = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = text.split_once(':').filter(|(hours, minutes)| is_plain(hours) && is_plain(minutes));
    let read = read.and_then(|(hours, minutes)| Some((hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?)));
    match read {
        Some((hours @ 0..24, minutes @ 0..60)) => Ok(hours.saturating_mul(60).saturating_add(minutes)),
        Some((24, 0)) => Ok(MINUTES_OF_DAY),
        _ => Err(format!("{text:?} is no time of day such as 06:00")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    /// Monday, 2026-11-23, 00:00 UTC.
    const MONDAY: i64 = 1_795_392_000_000;

    fn hours(texts: &[&str]) -> Hours {
        texts.iter().map(|text| Hours::parse(text).unwrap()).fold(Hours::default(), Hours::and)
    }

    #[test]
    fn an_instant_is_in_the_hours_from_their_beginning_until_before_their_end() {
        let peak = hours(&["mon-fri 01:00-04:00", "mon-fri 06:00-10:00"]);
        for (day, millis, is_in) in [
            (0, HOUR - 1, false),
            (0, HOUR, true),
            (0, 4 * HOUR - 1, true),
            (0, 4 * HOUR, false),
            (0, 6 * HOUR, true),
            (0, 10 * HOUR, false),
            (4, 9 * HOUR, true),
            (5, 9 * HOUR, false),
            (6, 2 * HOUR, false),
            (7, 2 * HOUR, true),
            (-3, 2 * HOUR, true),
            (-1, 2 * HOUR, false),
        ] {
            assert_eq!(peak.contain(Timestamp(MONDAY + day * 24 * HOUR + millis)), is_in, "day {day}, {millis}");
        }
        assert_eq!(peak.to_string(), "mon-fri 01:00-04:00, mon-fri 06:00-10:00");
        assert!(!Hours::default().contain(Timestamp(MONDAY)));
        for extreme in [Timestamp::MIN, Timestamp::MAX] {
            assert!(hours(&["00:00-24:00"]).contain(extreme));
        }
    }

    #[test]
    fn a_night_goes_over_midnight_and_a_week_over_its_end() {
        let night = hours(&["sun 22:00-02:00"]);
        for (millis, is_in) in [(-3, false), (-2, true), (1, true), (2, false), (22, false)] {
            assert_eq!(night.contain(Timestamp(MONDAY + millis * HOUR)), is_in, "{millis}");
        }
        let days = hours(&["sat-mon,wed 12:00-13:00"]);
        let on: Vec<i64> = (0..7).filter(|day| days.contain(Timestamp(MONDAY + day * 24 * HOUR + 12 * HOUR))).collect();
        assert_eq!(on, [0, 2, 5, 6]);
    }

    #[test]
    fn the_end_of_the_hours_is_the_first_instant_outside() {
        let end = |texts: &[&str], millis: i64| {
            hours(texts).end_after(Timestamp(MONDAY + millis)).map(|Timestamp(end)| end - MONDAY)
        };
        assert_eq!(end(&["01:00-04:00"], 2 * HOUR + 17), Some(4 * HOUR));
        assert_eq!(end(&["01:00-04:00"], 5 * HOUR + 17), Some(5 * HOUR + 17), "it is outside already");
        assert_eq!(end(&["01:00-04:00", "03:00-05:00", "05:00-06:00"], 2 * HOUR), Some(6 * HOUR));
        assert_eq!(end(&["sun 22:00-02:00"], -HOUR), Some(2 * HOUR), "over the end of the week");
        assert_eq!(end(&["fri 00:00-24:00", "sat-sun 00:00-24:00"], -HOUR), Some(0));
        assert_eq!(end(&["00:00-24:00"], HOUR), None);
    }

    #[test]
    fn what_is_no_span_of_hours_is_named() {
        for (text, problem) in [
            ("", "no span"),
            ("06:00", "no span"),
            ("06:00-6:30", "\"6:30\" is no time of day"),
            ("06:00-25:00", "\"25:00\" is no time of day"),
            ("06:60-07:00", "no time of day"),
            ("24:00-06:00", "has no hours"),
            ("06:00-06:00", "has no hours"),
            ("monday 06:00-07:00", "\"monday\" is no day"),
        ] {
            let found = Hours::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
