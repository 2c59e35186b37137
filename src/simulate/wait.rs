//! The formats in which providers state how long to wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The format of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitFormat {
    /// `retry-after` in whole seconds, rounded up.
    RetryAfter,
    /// `retry-after` in seconds with a fraction, as Groq does.
    RetryAfterFraction,
    /// `retry-after` as an HTTP-date, rounded up to the next second.
    HttpDate,
    /// `retry-after-ms`.
    RetryAfterMs,
    /// `retry-after` in whole seconds together with `retry-after-ms: 0`, as Azure was seen to do.
    RetryAfterAndZeroMs,
    /// OpenAI's reset headers, durations as Go writes them: `1m0.5s`.
    GoDuration,
    /// Anthropic's reset headers, instants of RFC 3339, rounded up to the next second.
    Rfc3339,
    /// Gemini's `google.rpc.RetryInfo` in the body.
    RetryInfo,
    /// `x-ratelimit-reset` as the epoch in seconds, rounded up.
    Epoch,
    /// `x-ratelimit-reset` as the epoch in milliseconds, as OpenRouter does.
    EpochMs,
    /// Only in the words of the message.
    Message,
    /// Not at all.
    None,
}

/// A wait as it goes on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub headers: Vec<(&'static str, String)>,
    /// The words for the message: "Please try again in 2.5s."
    pub message: Option<String>,
    /// The duration for Gemini's `RetryInfo`.
    pub retry_info: Option<String>,
    /// The wait that a reader understands, after rounding; `None` when none was told.
    pub wait: Option<Duration>,
}

impl WaitFormat {
    /// Every format with its name in scenarios.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("retry_after", Self::RetryAfter),
        ("retry_after_fraction", Self::RetryAfterFraction),
        ("http_date", Self::HttpDate),
        ("retry_after_ms", Self::RetryAfterMs),
        ("retry_after_and_zero_ms", Self::RetryAfterAndZeroMs),
        ("go_duration", Self::GoDuration),
        ("rfc3339", Self::Rfc3339),
        ("retry_info", Self::RetryInfo),
        ("epoch", Self::Epoch),
        ("epoch_ms", Self::EpochMs),
        ("message", Self::Message),
        ("none", Self::None),
    ];

    /// The format with this name; hyphens count as underscores, so that headers may be written as they are.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Writes `wait` in this format; `wall` is the time of day.
    #[must_use]
    pub fn tell(self, wait: Duration, wall: SystemTime) -> Told {
        let header = |name: &'static str, value: String, told: Duration| Told {
            headers: vec![(name, value)],
            wait: Some(told),
            ..Told::default()
        };
        let until = |at: SystemTime| at.duration_since(wall).unwrap_or_default();
        match self {
            Self::RetryAfter => {
                let told = round_up(wait, Duration::from_secs(1));
                header("retry-after", told.as_secs().to_string(), told)
            }
            Self::RetryAfterFraction => {
                let told = round_up(wait, Duration::from_millis(10));
                header("retry-after", format!("{}.{:02}", told.as_secs(), told.subsec_millis() / 10), told)
            }
            Self::HttpDate => {
                let at = next_second(wall + wait);
                header("retry-after", httpdate::fmt_http_date(at), until(at))
            }
            Self::RetryAfterMs => {
                let told = round_up(wait, Duration::from_millis(1));
                header("retry-after-ms", told.as_millis().to_string(), told)
            }
            Self::RetryAfterAndZeroMs => {
                let mut told = Self::RetryAfter.tell(wait, wall);
                told.headers.push(("retry-after-ms", "0".to_owned()));
                told
            }
            Self::GoDuration => {
                let told = round_up(wait, Duration::from_millis(1));
                let text = go_duration(told);
                Told {
                    headers: vec![
                        ("x-ratelimit-limit-requests", "1000".to_owned()),
                        ("x-ratelimit-remaining-requests", "0".to_owned()),
                        ("x-ratelimit-reset-requests", text),
                    ],
                    wait: Some(told),
                    ..Told::default()
                }
            }
            Self::Rfc3339 => {
                let at = next_second(wall + wait);
                Told {
                    headers: vec![
                        ("anthropic-ratelimit-requests-limit", "1000".to_owned()),
                        ("anthropic-ratelimit-requests-remaining", "0".to_owned()),
                        ("anthropic-ratelimit-requests-reset", rfc3339(at)),
                    ],
                    wait: Some(until(at)),
                    ..Told::default()
                }
            }
            Self::RetryInfo => {
                let told = round_up(wait, Duration::from_millis(1));
                Told { retry_info: Some(protobuf_duration(told)), wait: Some(told), ..Told::default() }
            }
            Self::Epoch => {
                let at = next_second(wall + wait);
                header("x-ratelimit-reset", epoch(at).as_secs().to_string(), until(at))
            }
            Self::EpochMs => {
                let at = UNIX_EPOCH + round_up(epoch(wall + wait), Duration::from_millis(1));
                header("x-ratelimit-reset", epoch(at).as_millis().to_string(), until(at))
            }
            Self::Message => {
                let told = round_up(wait, Duration::from_millis(1));
                Told { message: Some(go_duration(told)), wait: Some(told), ..Told::default() }
            }
            Self::None => Told::default(),
        }
    }
}

fn epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn round_up(wait: Duration, step: Duration) -> Duration {
    let nanos = wait.as_nanos().div_ceil(step.as_nanos()) * step.as_nanos();
    // 584 years fit.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn next_second(at: SystemTime) -> SystemTime {
    let since = epoch(at);
    UNIX_EPOCH + Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0))
}

/// An instant as Anthropic writes it: `2026-05-04T12:34:56Z`, rounded up to the second.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    let at = chrono::DateTime::<chrono::Utc>::from(next_second(at));
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// A duration as Go prints it, to the millisecond: `0s`, `12ms`, `1.5s`, `6m0s`, `1h2m3s`.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = decimal_seconds(millis % 60_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A duration as protobuf's JSON writes it: `46s`, `3.5s`.
fn protobuf_duration(duration: Duration) -> String {
    format!("{}s", decimal_seconds(duration.as_millis()))
}

fn decimal_seconds(millis: u128) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (12, "12ms"),
            (1000, "1s"),
            (7660, "7.66s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
            (179_560, "2m59.56s"),
            (3_723_000, "1h2m3s"),
            (37_025_720, "10h17m5.72s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn each_format_writes_what_the_provider_writes() {
        // 2026-05-04T12:34:56.200Z
        let wall = UNIX_EPOCH + Duration::from_millis(1_777_898_096_200);
        let told = |format: WaitFormat| format.tell(Duration::from_millis(2_500), wall);
        let first = |format| told(format).headers.last().cloned().unwrap().1;
        assert_eq!(first(WaitFormat::RetryAfter), "3");
        assert_eq!(first(WaitFormat::RetryAfterFraction), "2.50");
        assert_eq!(first(WaitFormat::HttpDate), "Mon, 04 May 2026 12:34:59 GMT");
        assert_eq!(first(WaitFormat::RetryAfterMs), "2500");
        assert_eq!(told(WaitFormat::RetryAfterAndZeroMs).headers[0].1, "3");
        assert_eq!(first(WaitFormat::GoDuration), "2.5s");
        assert_eq!(first(WaitFormat::Rfc3339), "2026-05-04T12:34:59Z");
        assert_eq!(first(WaitFormat::Epoch), "1777898099");
        assert_eq!(first(WaitFormat::EpochMs), "1777898098700");
        assert_eq!(told(WaitFormat::RetryInfo).retry_info.unwrap(), "2.5s");
        assert_eq!(told(WaitFormat::Message).message.unwrap(), "2.5s");
        assert_eq!(told(WaitFormat::None), Told::default());
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_shorter_than_the_wait(millis in 0u64..100_000_000, wall in 0u64..4_000_000_000_000) {
            let (wait, wall) = (Duration::from_millis(millis), UNIX_EPOCH + Duration::from_millis(wall));
            for (name, format) in WaitFormat::ALL {
                if let Some(told) = format.tell(wait, wall).wait {
                    prop_assert!(told >= wait && told <= wait + Duration::from_secs(1), "{}: {:?}", name, told);
                }
            }
        }
    }
}
