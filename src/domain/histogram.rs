//! Durations counted by class: sums of latencies that can be added to each other.
//!
//! Each class reaches to 1.1 times the one before it. The figure that stands for a class is in its middle, so a figure
//! read from a histogram is at most 4.9 % beside the truth. The database has the same classes (`sluice.latency_class`),
//! and its views read percentiles from them as is done here.

/// How far a class reaches, as a multiple of the one before.
const STEP: f64 = 1.1;

/// Where the class stands in a part; below it is how many durations there are.
const CLASS_SHIFT: u32 = 40;

/// Durations counted by class. It has one entry for each class that occurs, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(Vec<(u16, u32)>);

impl Histogram {
    /// Counts a duration in milliseconds.
    pub fn add(&mut self, millis: i64) {
        let class = class_of(millis);
        match self.0.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(place) => {
                if let Some((_, count)) = self.0.get_mut(place) {
                    *count = count.saturating_add(1);
                }
            }
            Err(place) => self.0.insert(place, (class, 1)),
        }
    }

    /// Whether it counts nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its parts as the database keeps them, in order: the class times 2^40, plus how many durations are in it.
    pub fn parts(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|(class, count)| (i64::from(*class) << CLASS_SHIFT) + i64::from(*count))
    }
}

/// The class of a duration in milliseconds. A duration shorter than a millisecond is in the first class.
#[must_use]
pub fn class_of(millis: i64) -> u16 {
    let millis = i32::try_from(millis).unwrap_or(if millis < 0 { 0 } else { i32::MAX });
    if millis <= 1 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 226")]
    let class = (f64::from(millis).ln() / STEP.ln()).ceil() as u16;
    class
}

/// How many milliseconds so many of a hundred of the durations took at most, by the parts of a histogram as the
/// database keeps them, in any order and each class once; `None`: there are none.
#[must_use]
pub fn percentiles<const N: usize>(parts: &[i64], percents: [i64; N]) -> [Option<i64>; N] {
    let mut counts: Vec<(i64, i64)> =
        parts.iter().map(|part| (part >> CLASS_SHIFT, part & ((1 << CLASS_SHIFT) - 1))).collect();
    counts.sort_unstable();
    let whole: i128 = counts.iter().map(|(_, count)| i128::from(*count)).sum();
    percents.map(|percent| {
        // That many durations, rounded up.
        let wanted = (whole * i128::from(percent) + 99) / 100;
        let mut up_to = 0;
        let class = counts.iter().find(|(_, count)| {
            up_to += i128::from(*count);
            up_to >= wanted
        });
        class.map(|(class, _)| millis_of(*class))
    })
}

/// The milliseconds that stand for a class.
fn millis_of(class: i64) -> i64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "classes go to 226")]
    if class <= 0 { 1 } else { STEP.powf(class as f64 - 0.5).round() as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_reaches_a_tenth_beyond_the_one_before() {
        assert_eq!([-5, 0, 1, 2, 3, 10, 11].map(class_of), [0, 0, 0, 8, 12, 25, 26]);
        assert_eq!((class_of(600_000), class_of(i64::MAX)), (140, 226));
        for millis in 2..100_000 {
            let (class, before) = (class_of(millis), class_of(millis - 1));
            assert!(class >= before, "{millis}");
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let truth = millis as f64;
            let shown = STEP.powf(f64::from(class) - 0.5);
            assert!((shown / truth - 1.0).abs() <= 0.0489, "{millis}: {shown}");
        }
    }

    #[test]
    fn a_percentile_is_the_class_that_reaches_so_many_durations() {
        let part = |class: i64, count: i64| (class << CLASS_SHIFT) + count;
        assert_eq!(percentiles(&[], [50, 99]), [None, None]);
        assert_eq!(percentiles(&[part(0, 1)], [1, 50, 100]), [Some(1); 3]);
        // A hundred durations, the classes in no order: 3 ms, 1.2 s, 600 s or so.
        let parts = [part(75, 45), part(12, 50), part(140, 5)];
        let [one, half, more, most, all] = percentiles(&parts, [1, 50, 51, 95, 96]);
        assert_eq!((one, half), (Some(3), Some(3)));
        assert_eq!((more, most, all), (Some(1_213), Some(1_213), Some(594_675)));
        // Half of three are two of them.
        assert_eq!(percentiles(&[part(12, 1), part(75, 2)], [33, 34, 50]), [Some(3), Some(1_213), Some(1_213)]);
    }

    #[test]
    fn durations_are_counted_by_class_in_order() {
        let mut histogram = Histogram::default();
        assert!(histogram.is_empty());
        for millis in [1200, 3, 1201, 3, 3] {
            histogram.add(millis);
        }
        let parts: Vec<(i64, i64)> = histogram.parts().map(|part| (part >> 40, part & ((1 << 40) - 1))).collect();
        assert_eq!(parts, [(12, 3), (75, 2)]);
    }
}
