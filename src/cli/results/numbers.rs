//! A set of job numbers, kept as stretches: the jobs of a batch lie mostly side by side.

use std::collections::BTreeMap;

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The first and the last number of each stretch. No two of them touch.
    stretches: BTreeMap<i64, i64>,
    count: u64,
}

impl Numbers {
    /// Takes a number in; returns whether it is new.
    pub(super) fn insert(&mut self, number: i64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.count += 1;
        let last = self.stretches.remove(&number.saturating_add(1)).unwrap_or(number);
        let before = self.stretches.range_mut(..number).next_back();
        match before {
            Some((_, end)) if *end == number - 1 => *end = last,
            _ => {
                self.stretches.insert(number, last);
            }
        }
        true
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, number: i64) {
        let Some((first, last)) = self.stretches.range(..=number).next_back().map(|(first, last)| (*first, *last))
        else {
            return;
        };
        if last < number {
            return;
        }
        self.count -= 1;
        self.stretches.remove(&first);
        if first < number {
            self.stretches.insert(first, number - 1);
        }
        if number < last {
            self.stretches.insert(number + 1, last);
        }
    }

    /// Whether it has the number.
    pub(super) fn contains(&self, number: i64) -> bool {
        self.last_of(number).is_some()
    }

    /// The last number of the stretch that this one is in.
    pub(super) fn last_of(&self, number: i64) -> Option<i64> {
        self.stretches.range(..=number).next_back().map(|(_, last)| *last).filter(|last| *last >= number)
    }

    /// How many numbers it has.
    pub(super) const fn len(&self) -> u64 {
        self.count
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.stretches.iter().flat_map(|(first, last)| *first..=*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec((1_i64..60, prop::bool::weighted(0.7)), 0..80)) {
            let mut set = Numbers::default();
            let mut model = BTreeSet::new();
            for (number, comes) in numbers {
                if comes {
                    prop_assert_eq!(set.insert(number), model.insert(number));
                } else {
                    set.remove(number);
                    model.remove(&number);
                }
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), u64::try_from(model.len()).unwrap());
            for number in 0..61 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
                let last = (number..61).take_while(|next| model.contains(next)).last();
                prop_assert_eq!(set.last_of(number), last);
            }
        }
    }
}
