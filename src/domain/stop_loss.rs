//! The stop-loss of a batch: the share of its jobs that may fail, and of its money that may be wasted, before it is
//! paused.

use super::NanoUsd;
use crate::domain::counted::counted;
use std::fmt;

/// A batch is judged by its ended jobs from so many failures on. A few failures among the first jobs say little of any
/// share.
const ENOUGH_FAILURES: i64 = 10;

/// The whole, in millionths.
const WHOLE: u32 = 1_000_000;

/// The losses that a batch may have before it is paused; `None`: any loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopLoss {
    /// The share of its jobs that may fail.
    pub max_failed: Option<MaxFailed>,
    /// The share of what its calls cost that may go to those whose answer is not accepted.
    pub max_wasted: Option<MaxFailed>,
}

impl StopLoss {
    /// Whether it bounds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This one, completed from another one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { max_failed: self.max_failed.or(other.max_failed), max_wasted: self.max_wasted.or(other.max_wasted) }
    }
}

/// The share of jobs that may fail, from 0 (none) to 1 (all: nothing is stopped). It is kept in millionths, so that
/// comparing it with two counts is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaxFailed(u32);

impl MaxFailed {
    /// The expected form, for messages.
    pub const EXPECTED: &str = "a share from 0 to 1 in at most six decimals, such as 0.05";

    /// A share in millionths; `None` above 1.
    #[must_use]
    pub const fn of_millionths(millionths: u32) -> Option<Self> {
        if millionths <= WHOLE { Some(Self(millionths)) } else { None }
    }

    /// The share in millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// A share as it is written: `0.05`.
    ///
    /// # Errors
    /// The fault of the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        if !is_number(whole) || !is_number(decimals) {
            return Err(match text.strip_prefix('-').map(str::parse::<f64>) {
                Some(Ok(_)) => format!("{text:?} is below 0"),
                _ => format!("{text:?} is not a share"),
            });
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > 6 {
            return Err(format!("{text:?} has more than six decimals"));
        }
        let too_much = || format!("{text:?} is above 1");
        let whole: u32 = whole.parse().map_err(|_| too_much())?;
        let part: u32 = format!("{decimals:0<6}").parse().map_err(|_| too_much())?;
        whole
            .checked_mul(WHOLE)
            .and_then(|whole| whole.checked_add(part))
            .and_then(Self::of_millionths)
            .ok_or_else(too_much)
    }

    /// A share as a number of a configuration.
    ///
    /// # Errors
    /// The fault of the number, in words.
    pub fn of_number(number: f64) -> Result<Self, String> {
        // The shortest text that stands for the number is the written one.
        Self::parse(&number.to_string())
    }

    /// The share in per cent, for sentences: `5 %`.
    #[must_use]
    pub fn percent(self) -> String {
        Percent(self).to_string()
    }

    /// Whether it is all jobs, so that no batch ever pauses.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 >= WHOLE
    }

    /// Whether `failed` are more than this share of `jobs`; amounts of money in place of both.
    fn is_exceeded(self, failed: i64, jobs: i64) -> bool {
        i128::from(failed) * i128::from(WHOLE) > i128::from(self.0) * i128::from(jobs)
    }
}

/// The digits of a count of hundred-thousandths and so on, without zeros at the end.
fn decimal(f: &mut fmt::Formatter<'_>, millionths: u32, unit: u32, width: usize) -> fmt::Result {
    write!(f, "{}", millionths / unit)?;
    let rest = format!("{:0width$}", millionths % unit);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { Ok(()) } else { write!(f, ".{rest}") }
}

impl fmt::Display for MaxFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, WHOLE, 6)
    }
}

/// A share in per cent, for sentences.
struct Percent(MaxFailed);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0.0, WHOLE / 100, 4)?;
        f.write_str(" %")
    }
}

/// The jobs of a batch, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// All that were enqueued and not cancelled.
    pub jobs: i64,
    /// Those that ended, the cancelled ones left out.
    pub ended: i64,
    /// Those of them that failed.
    pub failed: i64,
}

impl Standing {
    /// The jobs that are counted since an earlier state of the batch.
    fn since(self, before: &Before) -> Self {
        Self {
            jobs: (self.jobs - before.ended).max(0),
            ended: (self.ended - before.ended).max(0),
            failed: (self.failed - before.failed).max(0),
        }
    }
}

/// The jobs that had ended when the batch was resumed after its stop-loss had paused it: they are forgiven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Jobs that had ended.
    pub ended: i64,
    /// Jobs that had failed.
    pub failed: i64,
}

/// The stop-loss is exceeded: the reason of the pause, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    counted: Standing,
    max_failed: MaxFailed,
    was_resumed: bool,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { ended, failed, .. } = self.counted;
        let since = if self.was_resumed { " since it was resumed" } else { "" };
        write!(
            f,
            "stop-loss: {failed} of {} failed{since}, more than {}",
            counted(ended, "job", "jobs"),
            Percent(self.max_failed)
        )
    }
}

/// Whether a batch is to be paused: more than the share of its ended jobs failed, and either enough of them failed to
/// believe that share, or so many that the share of all its jobs is exceeded, however the others end. Where all have
/// ended there is nothing left to stop.
#[must_use]
pub fn exceeded(max_failed: MaxFailed, standing: Standing, before: &Before) -> Option<Exceeded> {
    let counted = standing.since(before);
    let Standing { jobs, ended, failed } = counted;
    let is_believed = failed >= ENOUGH_FAILURES || max_failed.is_exceeded(failed, jobs);
    (ended < jobs && is_believed && max_failed.is_exceeded(failed, ended)).then(|| Exceeded {
        counted,
        max_failed,
        was_resumed: *before != Before::default(),
    })
}

/// What the calls of a batch have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgo {
    /// All of it, as far as prices are known. The amount that may have been spent on calls whose end is not known is no
    /// part.
    pub cost: NanoUsd,
    /// The part of calls whose answer was not accepted.
    pub wasted: NanoUsd,
    /// About how many calls that were.
    pub wasted_calls: i64,
}

/// The share of money is exceeded: the reason of the pause, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wasted {
    counted: Outgo,
    at_most: MaxFailed,
    was_resumed: bool,
}

impl fmt::Display for Wasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outgo { cost, wasted, .. } = self.counted;
        let since = if self.was_resumed { " since it was resumed" } else { "" };
        write!(f, "stop-loss: {wasted} of {cost} brought no answer{since}, more than {}", Percent(self.at_most))
    }
}

/// Whether a batch is to be paused for wasted money: more than the share of what its calls have cost went to calls
/// whose answer was not accepted, and those are enough to believe that share. `before` is forgiven. Where all jobs have
/// ended there is nothing left to stop.
#[must_use]
pub fn wasted(max_wasted: MaxFailed, standing: Standing, outgo: Outgo, before: &Outgo) -> Option<Wasted> {
    let less = |now: NanoUsd, before: NanoUsd| NanoUsd((now - before).0.max(0));
    let counted = Outgo {
        cost: less(outgo.cost, before.cost),
        wasted: less(outgo.wasted, before.wasted),
        wasted_calls: outgo.wasted_calls - before.wasted_calls,
    };
    let is_believed = counted.wasted_calls >= ENOUGH_FAILURES;
    let is_exceeded = max_wasted.is_exceeded(counted.wasted.0, counted.cost.0);
    (standing.ended < standing.jobs && is_believed && is_exceeded).then(|| Wasted {
        counted,
        at_most: max_wasted,
        was_resumed: *before != Outgo::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(text: &str) -> MaxFailed {
        MaxFailed::parse(text).unwrap()
    }

    fn reason(share_of: &str, (jobs, ended, failed): (i64, i64, i64), before: (i64, i64)) -> Option<String> {
        let before = Before { ended: before.0, failed: before.1 };
        exceeded(share(share_of), Standing { jobs, ended, failed }, &before).map(|exceeded| exceeded.to_string())
    }

    #[test]
    fn a_batch_is_stopped_when_more_than_the_share_failed() {
        for (share, standing, stops) in [
            // Exactly the share is not more than it.
            ("0.05", (1000, 200, 10), false),
            ("0.05", (1000, 199, 10), true),
            ("0.07", (1000, 100, 7), false),
            ("0.29", (1000, 100, 29), false),
            // Few failures say little of a large batch …
            ("0.05", (1000, 9, 9), false),
            ("0.05", (1000, 10, 10), true),
            ("0.5", (1000, 19, 9), false),
            ("0.001", (1_000_000, 20, 9), false),
            ("0.001", (1_000_000, 9_999, 10), true),
            ("0.001", (1_000_000, 10_000, 10), false),
            // … and all of a small one, when its whole share is used up.
            ("0.05", (100, 5, 5), false),
            ("0.05", (100, 6, 6), true),
            ("0.05", (10, 1, 1), true),
            ("0.2", (10, 2, 2), false),
            ("0.2", (10, 3, 3), true),
            ("0.2", (10, 9, 2), false),
            // Nothing is left to stop.
            ("0.2", (10, 10, 10), false),
            ("0", (1, 1, 1), false),
            ("0", (2, 1, 1), true),
            // None may fail: the first failure. All may fail: never.
            ("0", (1_000_000, 500_000, 0), false),
            ("0", (1_000_000, 500_000, 1), true),
            ("1", (10, 10, 10), false),
            ("1.0", (1_000_000, 500_000, 500_000), false),
            ("0.999999", (1_000_000, 999_999, 999_999), true),
            ("0.05", (0, 0, 0), false),
        ] {
            assert_eq!(reason(share, standing, (0, 0)).is_some(), stops, "{share} {standing:?}");
        }
    }

    #[test]
    fn what_failed_before_it_was_resumed_is_forgiven() {
        for (share, standing, before, stops) in [
            ("0.05", (1000, 100, 20), (100, 20), false),
            ("0.05", (1000, 109, 29), (100, 20), false),
            ("0.05", (1000, 110, 30), (100, 20), true),
            ("0.05", (1000, 300, 30), (100, 20), false),
            // Of those that are left, the share of all is used up.
            ("0.05", (100, 10, 6), (6, 6), false),
            ("0.05", (100, 12, 11), (6, 6), true),
            ("0", (100, 7, 6), (6, 6), false),
            ("0", (100, 8, 7), (6, 6), true),
            // Its failed jobs were retried.
            ("0.05", (100, 0, 0), (6, 6), false),
        ] {
            assert_eq!(reason(share, standing, before).is_some(), stops, "{share} {standing:?} {before:?}");
        }
    }

    #[test]
    fn the_reason_has_the_counts_and_the_share() {
        for (share, standing, before, expected) in [
            ("0.05", (101, 100, 7), (0, 0), "stop-loss: 7 of 100 jobs failed, more than 5 %"),
            ("0.0125", (100, 50, 7), (0, 0), "stop-loss: 7 of 50 jobs failed, more than 1.25 %"),
            ("0", (9, 1, 1), (0, 0), "stop-loss: 1 of 1 job failed, more than 0 %"),
            ("0.000001", (9, 2, 1), (0, 0), "stop-loss: 1 of 2 jobs failed, more than 0.0001 %"),
            ("0.05", (100, 20, 15), (8, 5), "stop-loss: 10 of 12 jobs failed since it was resumed, more than 5 %"),
        ] {
            assert_eq!(reason(share, standing, before).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_share_is_read_exactly_and_written_as_it_was() {
        for (text, millionths, written) in [
            ("0.05", 50_000, "0.05"),
            ("0", 0, "0"),
            ("1", WHOLE, "1"),
            ("1.000", WHOLE, "1"),
            ("0.000001", 1, "0.000001"),
            ("00.5", 500_000, "0.5"),
            ("0.1000000000", 100_000, "0.1"),
        ] {
            assert_eq!((share(text).millionths(), share(text).to_string().as_str()), (millionths, written));
        }
        for (number, millionths) in [(0.05, 50_000), (0.07, 70_000), (1.0, WHOLE), (0.0, 0), (0.29, 290_000)] {
            assert_eq!(MaxFailed::of_number(number), Ok(MaxFailed(millionths)));
        }
    }

    #[test]
    fn what_is_no_share_is_refused_with_the_reason() {
        for (text, problem) in [
            ("-0.1", "\"-0.1\" is below 0"),
            ("-5", "\"-5\" is below 0"),
            ("1.01", "\"1.01\" is above 1"),
            ("5", "\"5\" is above 1"),
            ("99999999999999999999", "\"99999999999999999999\" is above 1"),
            ("5%", "\"5%\" is not a share"),
            ("a few", "\"a few\" is not a share"),
            ("", "\"\" is not a share"),
            (".5", "\".5\" is not a share"),
            ("1e-2", "\"1e-2\" is not a share"),
            ("NaN", "\"NaN\" is not a share"),
            ("+0.5", "\"+0.5\" is not a share"),
            ("0.0000001", "\"0.0000001\" has more than six decimals"),
        ] {
            assert_eq!(MaxFailed::parse(text).unwrap_err(), problem);
        }
        for number in [f64::NAN, f64::INFINITY, -0.5, 1.5, 1e-9] {
            assert!(MaxFailed::of_number(number).is_err(), "{number}");
        }
    }

    #[test]
    fn a_batch_is_stopped_when_more_than_the_share_of_its_money_brought_no_answer() {
        let outgo = |cost, wasted, wasted_calls| Outgo { cost: NanoUsd(cost), wasted: NanoUsd(wasted), wasted_calls };
        let some_left = Standing { jobs: 100, ended: 50, failed: 0 };
        for (share_of, standing, now, before, reason) in [
            ("0.3", some_left, outgo(1_000_000_000, 300_000_000, 50), outgo(0, 0, 0), None),
            (
                "0.3",
                some_left,
                outgo(1_000_000_000, 310_000_000, 50),
                outgo(0, 0, 0),
                Some("stop-loss: $0.31 of $1.00 brought no answer, more than 30 %"),
            ),
            // A few dear calls say little of a share.
            ("0.3", some_left, outgo(1_000_000_000, 900_000_000, 9), outgo(0, 0, 0), None),
            // The money wasted before the batch was resumed is forgiven, and so is the rest of that money.
            ("0.3", some_left, outgo(2_000_000_000, 1_000_000_000, 59), outgo(1_000_000_000, 900_000_000, 50), None),
            (
                "0.05",
                some_left,
                outgo(2_000_000_000, 1_000_000_000, 60),
                outgo(1_000_000_000, 900_000_000, 50),
                Some("stop-loss: $0.10 of $1.00 brought no answer since it was resumed, more than 5 %"),
            ),
            // Nothing is left to stop; nothing was spent.
            ("0.3", Standing { ended: 100, ..some_left }, outgo(10, 10, 50), outgo(0, 0, 0), None),
            ("0", some_left, outgo(0, 0, 50), outgo(0, 0, 0), None),
            ("1", some_left, outgo(10, 10, 50), outgo(0, 0, 0), None),
        ] {
            let found = wasted(share(share_of), standing, now, &before).map(|wasted| wasted.to_string());
            assert_eq!(found.as_deref(), reason, "{share_of} {now:?} {before:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_stopped_within_its_share_and_one_more_failure_never_lets_it_go_on(
            millionths in 0..=WHOLE, jobs in 0..10_000_i64, ended in 0..10_000_i64, failed in 0..10_000_i64,
        ) {
            let max_failed = MaxFailed::of_millionths(millionths).unwrap();
            let ended = ended.min(jobs);
            let failed = failed.min(ended);
            let stops = |standing| exceeded(max_failed, standing, &Before::default()).is_some();
            let standing = Standing { jobs, ended, failed };
            if i128::from(failed) * 1_000_000 <= i128::from(ended) * i128::from(millionths) {
                prop_assert!(!stops(standing));
            }
            if stops(standing) && ended + 1 < jobs {
                let one_more = Standing { jobs, ended: ended + 1, failed: failed + 1 };
                prop_assert!(stops(one_more));
            }
            let all = Standing { ended: jobs, ..standing };
            prop_assert!(!stops(all), "nothing is left to stop");
            // Where the last job cannot bring it back under its share, the batch does not get to it.
            let last = Standing { jobs: jobs + 1, ended: jobs, failed };
            if i128::from(failed) * 1_000_000 > (i128::from(jobs) + 1) * i128::from(millionths) {
                prop_assert!(stops(last));
            }
        }
    }
}
