//! What the calls of one job may cost together: `max_cost` of its route.
//!
//! A call may begin only if its worst case still fits beside what the job's calls have cost or may have cost, those
//! under way with their worst cases. So the bound holds whatever the calls turn out to cost, as long as providers bill
//! by their prices.

use super::NanoUsd;
use super::decide::Ineligible;

/// The money that one job may spend, and what it has spent of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostBound {
    /// The most that all its calls may cost together.
    pub limit: NanoUsd,
    /// What the calls that are over have cost or may have cost, and the worst cases of those under way; `None`: a price
    /// is unknown.
    pub spent: Option<NanoUsd>,
}

impl CostBound {
    /// Why a call that costs at most `worst` may not begin; `None`: it may. A `worst` of `None`: its price is unknown.
    #[must_use]
    pub fn refuses(&self, worst: Option<NanoUsd>) -> Option<Ineligible> {
        let fits = self.spent.zip(worst).is_some_and(|(spent, worst)| spent.0.saturating_add(worst.0) <= self.limit.0);
        (!fits).then_some(Ineligible::OverCost { spent: self.spent, worst, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuses(limit: i64, spent: Option<i64>, worst: Option<i64>) -> Option<String> {
        let bound = CostBound { limit: NanoUsd(limit), spent: spent.map(NanoUsd) };
        bound.refuses(worst.map(NanoUsd)).map(|why| why.to_string())
    }

    #[test]
    fn a_call_may_begin_whose_worst_case_still_fits() {
        let cent = 10_000_000;
        for (spent, worst) in [(0, cent), (cent, 0), (cent / 2, cent / 2), (0, 0)] {
            assert_eq!(refuses(cent, Some(spent), Some(worst)), None, "{spent} {worst}");
        }
        let why = "may cost $0.006, the calls before have cost up to $0.005, and max_cost is $0.01";
        assert_eq!(refuses(cent, Some(cent / 2), Some(cent * 6 / 10)).as_deref(), Some(why));
        let why = "may cost $0.02, and max_cost is $0.01: a smaller max_tokens lowers that (without one, or where the \
                   server is not sent it, the longest answer of the model counts), or raise max_cost";
        assert_eq!(refuses(cent, Some(0), Some(2 * cent)).as_deref(), Some(why));
    }

    #[test]
    fn what_is_unknown_fits_no_bound() {
        let why = "has no price, and max_cost of $0.01 takes only calls whose worst case is known";
        assert_eq!(refuses(10_000_000, Some(0), None).as_deref(), Some(why));
        let why = "a call before was answered by a model without a price, so it is not known what is left of max_cost \
                   of $0.01: give that model one (docs/prices.md)";
        assert_eq!(refuses(10_000_000, None, Some(1)).as_deref(), Some(why));
        assert!(refuses(i64::MAX, None, None).is_some());
    }

    proptest! {
        #[test]
        fn no_sequence_of_calls_costs_more(
            limit in 0..1_000_i64,
            worsts in prop::collection::vec((0..400_i64, 0..=100_i64), 0..20),
        ) {
            let mut spent = 0;
            for (worst, per_cent) in worsts {
                if refuses(limit, Some(spent), Some(worst)).is_none() {
                    spent += worst * per_cent / 100;
                }
                prop_assert!(spent <= limit);
            }
        }
    }
}
