//! Durations counted by class: sums of latencies that can be added to each other.
//!
//! Each class reaches to 1.1 times the one before it. What stands for a class is in its middle, so what is read from a
//! histogram is at most 4.9 % beside the truth. The database has the same classes (`sluice.latency_class`), and reads
//! percentiles from them.

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

/// The class of a duration in milliseconds. What is shorter than a millisecond is in the first.
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
