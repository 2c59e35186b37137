//! What an accepted answer has cost: all the money that was spent, over the answers that were accepted.
//!
//! Answers that were rejected, asked for again or abandoned are in the money and not among the answers. So a cheap
//! target whose answers are often rejected shows what it really costs. `sluice.cost_per_answer` is the same in SQL.

use super::money::NanoUsd;

/// The money spent on something (a target, a route, a batch) and what it bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Known cost of attempts of every outcome.
    pub cost: NanoUsd,
    /// The amount that may have been spent on top of it.
    pub uncertain: NanoUsd,
    /// Attempts whose price is unknown.
    pub unpriced: i64,
    /// Answers that were accepted.
    pub accepted: i64,
}

/// Money per accepted answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerAnswer {
    /// No answer was accepted.
    NoAnswer,
    /// The price of an attempt is unknown, so any amount would be too low.
    Unknown,
    /// This much, rounded to the nearest billionth of a dollar.
    Exactly(NanoUsd),
    /// This much, and more if any of the uncertain money was spent.
    AtLeast(NanoUsd),
}

/// The known part of a cost; `None`: no call of so many has a price, so that nothing is known of it.
#[must_use]
pub const fn known_cost(cost: NanoUsd, unpriced: i64, calls: i64) -> Option<NanoUsd> {
    if unpriced <= 0 || unpriced < calls { Some(cost) } else { None }
}

impl Spent {
    /// The money per accepted answer.
    #[must_use]
    pub fn per_answer(self) -> PerAnswer {
        let half = i128::from(self.accepted) / 2 * i128::from(self.cost.0.signum());
        let quotient = (i128::from(self.cost.0) + half).checked_div(i128::from(self.accepted.max(0)));
        match quotient.map(|nanos| NanoUsd(i64::try_from(nanos).unwrap_or(i64::MAX))) {
            None => PerAnswer::NoAnswer,
            Some(_) if self.unpriced > 0 => PerAnswer::Unknown,
            Some(each) if self.uncertain > NanoUsd::ZERO => PerAnswer::AtLeast(each),
            Some(each) => PerAnswer::Exactly(each),
        }
    }
}

impl PerAnswer {
    /// The known amount.
    #[must_use]
    pub const fn amount(self) -> Option<NanoUsd> {
        match self {
            Self::NoAnswer | Self::Unknown => None,
            Self::Exactly(each) | Self::AtLeast(each) => Some(each),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    const SPENT: Spent = Spent { cost: NanoUsd(1_000), uncertain: NanoUsd::ZERO, unpriced: 0, accepted: 3 };

    #[test]
    fn all_the_money_is_shared_by_the_answers_that_were_accepted() {
        for (spent, each) in [
            (SPENT, PerAnswer::Exactly(NanoUsd(333))),
            (Spent { accepted: 7, ..SPENT }, PerAnswer::Exactly(NanoUsd(143))),
            (Spent { cost: NanoUsd(5), accepted: 2, ..SPENT }, PerAnswer::Exactly(NanoUsd(3))),
            (Spent { cost: NanoUsd::ZERO, ..SPENT }, PerAnswer::Exactly(NanoUsd::ZERO)),
            (Spent { uncertain: NanoUsd(1), ..SPENT }, PerAnswer::AtLeast(NanoUsd(333))),
            (Spent { unpriced: 1, ..SPENT }, PerAnswer::Unknown),
            (Spent { unpriced: 1, uncertain: NanoUsd(1), ..SPENT }, PerAnswer::Unknown),
            (Spent { accepted: 0, ..SPENT }, PerAnswer::NoAnswer),
            (Spent { accepted: 0, unpriced: 1, ..SPENT }, PerAnswer::NoAnswer),
            // Sums of a time in which more jobs were put back than succeeded.
            (Spent { accepted: -1, ..SPENT }, PerAnswer::NoAnswer),
        ] {
            assert_eq!(spent.per_answer(), each, "{spent:?}");
        }
    }

    proptest! {
        #[test]
        fn the_figure_is_never_too_low_by_more_than_half_a_unit(cost in 0..=i64::MAX, accepted in 1..=i64::MAX) {
            let spent = Spent { cost: NanoUsd(cost), accepted, ..Spent::default() };
            let PerAnswer::Exactly(each) = spent.per_answer() else { panic!("{spent:?}") };
            let all = i128::from(each.0) * i128::from(accepted);
            prop_assert!((all - i128::from(cost)).abs() * 2 <= i128::from(accepted));
        }

        #[test]
        fn any_sums_have_an_answer(cost: i64, uncertain: i64, unpriced: i64, accepted: i64) {
            let spent = Spent { cost: NanoUsd(cost), uncertain: NanoUsd(uncertain), unpriced, accepted };
            prop_assert_eq!(spent.per_answer().amount().is_some(), accepted > 0 && unpriced <= 0);
        }
    }
}
