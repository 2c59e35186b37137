//! Lines as crontab has them: five fields of local time, or one of its nicknames.
//!
//! The `cron` crate finds the next time of a line, and nothing else: in its own notation seconds come first, days of
//! the week are counted from 1 for Sunday, and a day has to be right by both of its fields. So each field is read here,
//! with crontab's rules and with messages that name the field, and handed over as a list of numbers.

use chrono::{NaiveDateTime, TimeZone as _, Utc};
use std::fmt;
use std::str::FromStr as _;

/// What a line may be, in words.
pub const EXPECTED: &str = "five fields as in a crontab, such as \"0 2 * * *\" for each day at two: minute, hour, day \
                            of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly or @yearly";

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One of the fields: what it is called, its bounds, and the names that stand for numbers from `least` on.
struct Field {
    called: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const SECOND: Field = Field { called: "second", least: 0, most: 59, names: &[] };
const MINUTE: Field = Field { called: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { called: "hour", least: 0, most: 23, names: &[] };
const DAY: Field = Field { called: "day of the month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field { called: "month", least: 1, most: 12, names: &MONTHS };
/// 7 is Sunday, too.
const WEEKDAY: Field = Field { called: "day of the week", least: 0, most: 7, names: &DAYS };

/// A line, ready to be asked for times.
#[derive(Clone, Debug)]
pub struct CronLine {
    written: String,
    /// By the day of the month and the month, and by the day of the week: with two of them a day has to be right by one
    /// of the two.
    by: Vec<cron::Schedule>,
    /// It has a time in each hour.
    is_hourly: bool,
}

impl PartialEq for CronLine {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for CronLine {}

impl fmt::Display for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl CronLine {
    /// Reads a line. A sixth field, before the others, is for seconds.
    ///
    /// # Errors
    /// The fault of the line, and its field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = match written.strip_prefix('@') {
            Some(name) => of_nickname(&written, name)?,
            None => written.as_str(),
        };
        let fields: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
        let (second, [minute, hour, day, month, weekday]) = match fields.as_slice() {
            [minute, hour, day, month, weekday] => ("0", [*minute, *hour, *day, *month, *weekday]),
            [second, minute, hour, day, month, weekday] => (*second, [*minute, *hour, *day, *month, *weekday]),
            fields => return Err(format!("{text:?} has {} of 5 fields", fields.len())),
        };
        let hours = HOUR.read(hour)?;
        let head = [SECOND.read(second)?, MINUTE.read(minute)?, hours.clone()].map(|field| list(&field, 0)).join(" ");
        let (days, months) = (DAY.read(day)?, list(&MONTH.read(month)?, 0));
        let weekdays = WEEKDAY.read(weekday)?.into_iter();
        let mut weekdays: Vec<u32> = weekdays.map(|day| if day == 7 { 0 } else { day }).collect();
        weekdays.sort_unstable();
        weekdays.dedup();
        let all = |values: &[u32], count: usize| values.len() == count;
        let of_month = if all(&days, 31) { "*".to_owned() } else { list(&days, 0) };
        // The crate counts Sunday as 1.
        let of_week = if all(&weekdays, 7) { "*".to_owned() } else { list(&weekdays, 1) };
        // As crontab has it: a field that begins with a star restricts nothing by itself.
        let both = !day.starts_with('*') && !weekday.starts_with('*');
        let lines = if both {
            vec![format!("{head} {of_month} {months} *"), format!("{head} * {months} {of_week}")]
        } else {
            vec![format!("{head} {of_month} {months} {of_week}")]
        };
        let by = lines.iter().map(|line| cron::Schedule::from_str(line)).collect::<Result<_, _>>();
        let by = by.map_err(|error| format!("{text:?} is not understood ({error})"))?;
        let is_hourly = all(&hours, 24);
        let line = Self { written, by, is_hourly };
        if line.next(NaiveDateTime::default()).is_none() {
            return Err(format!("{text:?} never fires: there is no such day"));
        }
        Ok(line)
    }

    /// The first local time after this one, to the second; `None`: there is none until the year 2100.
    #[must_use]
    pub fn next(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        // The crate sees a time without zones, in which no hour is missing and none comes twice.
        let after = Utc.from_utc_datetime(&after);
        self.by.iter().filter_map(|schedule| schedule.after(&after).next()).min().map(|at| at.naive_utc())
    }

    /// Whether it has a time in each hour, so that a day of 25 hours has more times than others.
    #[must_use]
    pub fn is_hourly(&self) -> bool {
        self.is_hourly
    }
}

fn of_nickname(written: &str, name: &str) -> Result<&'static str, String> {
    let lower = written.to_ascii_lowercase();
    if let Some((_, line)) = NICKNAMES.iter().find(|(nickname, _)| *nickname == lower) {
        return Ok(line);
    }
    let name = name.split(' ').next().unwrap_or_default();
    Err(match name.to_ascii_lowercase().as_str() {
        "reboot" => "@reboot is no time: workers come and go".to_owned(),
        "every" => "@every is not one of crontab's: \"*/5 * * * *\" is every five minutes".to_owned(),
        _ => format!("there is no {written:?}"),
    })
}

fn list(values: &[u32], more: u32) -> String {
    values.iter().map(|value| value.saturating_add(more).to_string()).collect::<Vec<_>>().join(",")
}

impl Field {
    /// The values of a field, in order, each once.
    fn read(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => (range, Some(self.step(step, part)?)),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, if self.most == 7 { 6 } else { self.most }),
                Some((first, last)) => {
                    let (first, last) = (self.value(first)?, self.value(last)?);
                    // A week that ends with Sunday.
                    (first, if last == 0 && first > 0 && self.most == 7 { 7 } else { last })
                }
                None if step.is_some() => {
                    return Err(format!(
                        "{}: {part:?} has a step without a range, such as {range}-{}/{}",
                        self.called,
                        self.most,
                        step.unwrap_or(1)
                    ));
                }
                None => {
                    let value = self.value(range)?;
                    (value, value)
                }
            };
            if last < first {
                return Err(format!("{}: the range {range:?} ends before it begins; write it as two", self.called));
            }
            let step = usize::try_from(step.unwrap_or(1)).unwrap_or(1);
            values.extend((first..=last).step_by(step));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn step(&self, text: &str, part: &str) -> Result<u32, String> {
        let step = text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        step.filter(|step| *step > 0).ok_or_else(|| format!("{}: {part:?} has no step such as */5", self.called))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower).and_then(|place| u32::try_from(place).ok());
        let number = || text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value = named.map(|place| place.saturating_add(self.least)).or_else(number);
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            format!("{}: {text:?} is none of {} to {}{names}", self.called, self.least, self.most)
        })
    }
}

#[cfg(test)]
mod tests;
