//! The ledger beside a provider's invoice: day by day and model by model, what agrees and what neither side explains.

use super::counted::counted;
use super::served::is_same_model;
use std::collections::{BTreeMap, BTreeSet};

/// What one side says of a model on a day. Money in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaySum {
    /// `None`: the side says nothing of money.
    pub cost: Option<i128>,
    /// Tokens of input and output together; `None`: the side says nothing of tokens.
    pub tokens: Option<i128>,
    /// Calls; `None`: the side says nothing of them.
    pub calls: Option<i64>,
    /// Of the ledger: the amount that may have been spent besides, on calls whose end is not known.
    pub uncertain: i128,
    /// Of the ledger: calls whose cost is unknown.
    pub unpriced: i64,
    /// Of the ledger: calls whose tokens are estimated, since the provider has told none.
    pub estimated: i64,
    /// Of the ledger: what those are booked at.
    pub estimated_cost: i128,
    /// Of the ledger: the tokens of those.
    pub estimated_tokens: i128,
}

impl DaySum {
    /// Adds another line of the same side.
    pub fn add(&mut self, other: &Self) {
        let sum = |one: Option<i128>, other: Option<i128>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.cost = sum(self.cost, other.cost);
        self.tokens = sum(self.tokens, other.tokens);
        self.calls = match (self.calls, other.calls) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.uncertain = self.uncertain.saturating_add(other.uncertain);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.estimated = self.estimated.saturating_add(other.estimated);
        self.estimated_cost = self.estimated_cost.saturating_add(other.estimated_cost);
        self.estimated_tokens = self.estimated_tokens.saturating_add(other.estimated_tokens);
    }
}

/// What a side says, by day (`2026-08-05`, UTC) and model.
pub type Side = BTreeMap<(String, String), DaySum>;

/// The model of an invoice that has no models: all of the day together.
pub const ALL_MODELS: &str = "(all)";

/// The outcome of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    /// Both sides say the same, within the tolerance.
    Agrees,
    /// The invoice has nothing of it.
    OnlyLedger,
    /// The ledger has nothing of it.
    OnlyInvoice,
    /// They count other tokens.
    Tokens,
    /// They count the same tokens, and another cost: another price.
    Price,
    /// They say another cost, and the invoice has no tokens.
    Cost,
}

impl Discrepancy {
    /// The name in tables and for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::OnlyLedger => "only_in_ledger",
            Self::OnlyInvoice => "only_in_invoice",
            Self::Tokens => "other_tokens",
            Self::Price => "other_price",
            Self::Cost => "other_cost",
        }
    }
}

/// One day and model, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub day: String,
    pub model: String,
    pub ledger: DaySum,
    pub invoice: DaySum,
    pub finding: Discrepancy,
    /// The possible reasons for a difference, in words.
    pub perhaps: Vec<String>,
}

/// Compares two sides; `share` is how much of an amount they may differ by.
#[must_use]
pub fn compare(ledger: &Side, invoice: &Side, share: f64) -> Vec<Compared> {
    let ledger = renamed(ledger, invoice);
    let keys: BTreeSet<&(String, String)> = ledger.keys().chain(invoice.keys()).collect();
    let of = |side: &Side, key: &(String, String)| side.get(key).copied();
    keys.into_iter()
        .filter_map(|key| {
            let (ours, theirs) = (of(&ledger, key), of(invoice, key));
            let finding = find(ours, theirs, share)?;
            let (ledger, invoice) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
            let perhaps =
                if finding == Discrepancy::Agrees { Vec::new() } else { explained(finding, &ledger, &invoice, share) };
            Some(Compared { day: key.0.clone(), model: key.1.clone(), ledger, invoice, finding, perhaps })
        })
        .collect()
}

/// The ledger under the names of the invoice, where those mean the same models.
fn renamed(ledger: &Side, invoice: &Side) -> Side {
    let mut renamed = Side::new();
    for ((day, model), said) in ledger {
        let named: Vec<&str> = invoice.keys().filter(|key| key.0 == *day).map(|key| key.1.as_str()).collect();
        let name = if named.contains(&ALL_MODELS) {
            ALL_MODELS
        } else {
            let plain = plain(model);
            let same = named.iter().find(|name| **name == model).or_else(|| {
                let alike = |name: &&&str| self::plain(name) == plain;
                named.iter().find(alike).or_else(|| named.iter().find(|name| is_same_model(&self::plain(name), &plain)))
            });
            same.copied().unwrap_or(model)
        };
        renamed.entry((day.clone(), name.to_owned())).or_default().add(said);
    }
    renamed
}

/// A name as machines write it: invoices say "Claude Haiku 4.5".
fn plain(name: &str) -> String {
    let last = name.trim().to_ascii_lowercase();
    let last = last.rsplit('/').next().unwrap_or_default().to_owned();
    if last.starts_with("claude") { last.replace([' ', '.'], "-") } else { last.replace(' ', "-") }
}

/// `None`: neither side says anything.
fn find(ledger: Option<DaySum>, invoice: Option<DaySum>, share: f64) -> Option<Discrepancy> {
    let is_nothing = |said: &DaySum| {
        said.cost.unwrap_or(0) == 0 && said.tokens.unwrap_or(0) == 0 && said.uncertain == 0 && said.unpriced == 0
    };
    let (ours, theirs) = match (ledger.filter(|said| !is_nothing(said)), invoice.filter(|said| !is_nothing(said))) {
        (None, None) => return None,
        (Some(ours), None) if ours.cost.unwrap_or(0) == 0 && ours.tokens.unwrap_or(0) == 0 && ours.unpriced == 0 => {
            // Money that may have been spent, and was not.
            return Some(Discrepancy::Agrees);
        }
        (Some(_), None) => return Some(Discrepancy::OnlyLedger),
        (None, Some(_)) => return Some(Discrepancy::OnlyInvoice),
        (Some(ours), Some(theirs)) => (ours, theirs),
    };
    let tokens = ours.tokens.zip(theirs.tokens).map(|(ours, theirs)| agree(ours, theirs, share, 0));
    let cost = ours.cost.zip(theirs.cost).map(|(ours, theirs)| agree(ours, theirs, share, ROUNDING));
    Some(match (tokens, cost) {
        (Some(false), _) => Discrepancy::Tokens,
        (Some(true), Some(false)) => Discrepancy::Price,
        (None, Some(false)) => Discrepancy::Cost,
        (_, None) if theirs.cost.is_some() && ours.unpriced > 0 => Discrepancy::Cost,
        _ => Discrepancy::Agrees,
    })
}

/// A difference that comes from rounding: a millionth of a dollar.
const ROUNDING: i128 = 1_000;

#[expect(clippy::cast_precision_loss, reason = "a tolerance needs no more than 15 digits")]
fn agree(ours: i128, theirs: i128, share: f64, least: i128) -> bool {
    let difference = ours.abs_diff(theirs);
    difference <= least.unsigned_abs() || difference as f64 <= theirs.unsigned_abs() as f64 * share
}

/// The possible reasons why the sides differ. Each reason is one for the direction in which they do.
fn explained(finding: Discrepancy, ledger: &DaySum, invoice: &DaySum, share: f64) -> Vec<String> {
    let missing = |ours: Option<i128>, theirs: Option<i128>, least: i128| {
        let (ours, theirs) = (ours.unwrap_or(0), theirs?);
        (!agree(ours, theirs, share, least)).then(|| theirs.saturating_sub(ours))
    };
    let (money, tokens) = (missing(ledger.cost, invoice.cost, ROUNDING), missing(ledger.tokens, invoice.tokens, 0));
    // By how much the invoice has more than the ledger; below 0: less.
    let difference = match finding {
        Discrepancy::OnlyLedger => -1,
        _ => money.or(tokens).unwrap_or(0),
    };
    let calls = ledger.calls.zip(invoice.calls).map_or(0, |(ours, theirs)| theirs.saturating_sub(ours));
    let mut perhaps = Vec::new();
    if difference > 0 {
        if ledger.unpriced > 0 && money.is_some() {
            let calls = counted(ledger.unpriced, "call has", "calls have");
            perhaps.push(format!("{calls} no price in the ledger: give them one, then sluice reprice"));
        }
        let covers = money
            .is_none_or(|missing| missing <= ledger.uncertain || agree(ledger.uncertain, missing, share, ROUNDING));
        if ledger.uncertain > 0 && covers {
            perhaps.push("calls whose end is not known".to_owned());
        }
        if calls > 0 {
            perhaps.push(format!("the invoice has {} more: made elsewhere", counted(calls, "call", "calls")));
        }
        if ledger.estimated > 0 {
            let calls = counted(ledger.estimated, "call", "calls");
            perhaps.push(format!("the tokens of {calls} are estimated, and may be too few"));
        }
    } else if difference < 0 {
        if calls < 0 {
            perhaps.push(format!("the invoice has {} fewer: not billed yet", counted(-calls, "call", "calls")));
        }
        // Estimates explain as much as they are booked at, and no more.
        let booked = money.map_or(ledger.estimated_tokens.saturating_add(tokens.unwrap_or(0)), |missing| {
            ledger.estimated_cost.saturating_add(missing)
        });
        if ledger.estimated > 0 && (booked >= 0 || finding == Discrepancy::OnlyLedger) {
            let calls = counted(ledger.estimated, "call", "calls");
            perhaps.push(format!("the tokens of {calls} are estimated, and may be too many or not billed"));
        }
        match finding {
            Discrepancy::OnlyLedger => perhaps.push("not billed yet, or under another name".to_owned()),
            Discrepancy::Price => perhaps.push("a discount or a credit; or a price that is too high".to_owned()),
            _ => {}
        }
    }
    perhaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(cost: i128, tokens: i128) -> DaySum {
        DaySum { cost: Some(cost), tokens: Some(tokens), ..DaySum::default() }
    }

    fn side(rows: &[(&str, &str, DaySum)]) -> Side {
        let mut side = Side::new();
        for (day, model, said) in rows {
            side.entry(((*day).to_owned(), (*model).to_owned())).or_default().add(said);
        }
        side
    }

    fn findings(
        ledger: &[(&str, &str, DaySum)],
        invoice: &[(&str, &str, DaySum)],
    ) -> Vec<(String, Discrepancy, Vec<String>)> {
        compare(&side(ledger), &side(invoice), 0.01)
            .into_iter()
            .map(|found| (format!("{} {}", found.day, found.model), found.finding, found.perhaps))
            .collect()
    }

    #[test]
    fn each_way_in_which_they_differ_has_its_name() {
        let uncertain = |uncertain| DaySum { uncertain, ..said(1_000_000, 100) };
        for (ours, theirs, finding) in [
            (Some(said(1_000_000, 100)), Some(said(1_000_000, 100)), Discrepancy::Agrees),
            (Some(said(1_000_000, 100)), Some(said(1_009_000, 100)), Discrepancy::Agrees),
            (Some(said(1_000_000, 100)), Some(said(1_020_000, 100)), Discrepancy::Price),
            (Some(said(1_000_000, 100)), Some(said(1_000_000, 120)), Discrepancy::Tokens),
            (Some(said(1_000_000, 100)), Some(DaySum { tokens: None, ..said(2_000_000, 0) }), Discrepancy::Cost),
            (Some(said(1_000_000, 100)), Some(DaySum { cost: None, ..said(0, 100) }), Discrepancy::Agrees),
            (Some(said(1_000_000, 100)), None, Discrepancy::OnlyLedger),
            (None, Some(said(1_000_000, 100)), Discrepancy::OnlyInvoice),
            (Some(uncertain(500)), Some(said(1_000_000, 100)), Discrepancy::Agrees),
            (Some(DaySum { uncertain: 9, ..said(0, 0) }), None, Discrepancy::Agrees),
            (Some(DaySum { cost: None, unpriced: 3, ..said(0, 100) }), Some(said(1, 100)), Discrepancy::Cost),
            // The invoice has nothing for the calls without a price.
            (Some(DaySum { unpriced: 3, ..said(1_000_000, 100) }), Some(said(1_000_000, 100)), Discrepancy::Agrees),
        ] {
            assert_eq!(find(ours, theirs, 0.01), Some(finding), "{ours:?} {theirs:?}");
        }
        assert_eq!(find(Some(said(0, 0)), None, 0.01), None);
    }

    #[test]
    fn names_that_mean_the_same_model_are_compared_with_each_other() {
        let found = findings(
            &[
                ("2026-08-05", "claude-haiku-4-5-20251001", said(1_000_000, 10)),
                ("2026-08-05", "gpt-4o-mini-2024-07-18", said(2_000_000, 20)),
                ("2026-08-06", "gpt-4o-mini", said(3_000_000, 30)),
            ],
            &[
                ("2026-08-05", "Claude Haiku 4.5", said(1_000_000, 10)),
                ("2026-08-05", "gpt-4o-mini-2024-07-18", said(2_000_000, 20)),
                ("2026-08-06", ALL_MODELS, said(3_000_000, 30)),
            ],
        );
        assert!(found.iter().all(|(_, finding, _)| *finding == Discrepancy::Agrees), "{found:?}");
        assert_eq!(found.len(), 3);
        let found = findings(&[("d", "gpt-4o", said(1, 1))], &[("d", "gpt-4o-mini", said(1, 1))]);
        let both: Vec<Discrepancy> = found.into_iter().map(|(_, finding, _)| finding).collect();
        assert_eq!(both, [Discrepancy::OnlyLedger, Discrepancy::OnlyInvoice]);
    }

    #[test]
    fn what_may_explain_a_difference_is_said() {
        let ours = DaySum { uncertain: 600_000, ..said(1_000_000, 100) };
        let perhaps = |theirs| findings(&[("d", "m", ours)], &[("d", "m", theirs)])[0].2.clone();
        assert_eq!(perhaps(said(1_500_000, 130)), ["calls whose end is not known"]);
        assert!(perhaps(said(2_500_000, 130)).is_empty(), "more than what is uncertain");
        assert!(perhaps(said(500_000, 130)).is_empty(), "less than what is certain");
    }

    #[test]
    fn each_direction_has_reasons_of_its_own() {
        let ours = DaySum {
            uncertain: 900_000,
            unpriced: 3,
            estimated: 2,
            estimated_cost: 400_000,
            estimated_tokens: 40,
            calls: Some(10),
            ..said(1_000_000, 100)
        };
        let theirs = |cost, tokens, calls| DaySum { calls: Some(calls), ..said(cost, tokens) };
        let more = [
            "3 calls have no price in the ledger: give them one, then sluice reprice",
            "calls whose end is not known",
            "the invoice has 1 call more: made elsewhere",
            "the tokens of 2 calls are estimated, and may be too few",
        ];
        let estimated = "the tokens of 2 calls are estimated, and may be too many or not billed";
        let discount = "a discount or a credit; or a price that is too high";
        for (theirs, expected) in [
            (Some(theirs(1_500_000, 130, 11)), more.to_vec()),
            (Some(theirs(700_000, 70, 9)), vec!["the invoice has 1 call fewer: not billed yet", estimated]),
            // More than the estimate.
            (Some(theirs(500_000, 50, 10)), vec![]),
            (Some(theirs(500_000, 100, 10)), vec![discount]),
            (Some(theirs(700_000, 100, 10)), vec![estimated, discount]),
            (None, vec![estimated, "not billed yet, or under another name"]),
        ] {
            let invoice: Vec<_> = theirs.into_iter().map(|said| ("d", "m", said)).collect();
            assert_eq!(findings(&[("d", "m", ours)], &invoice)[0].2, expected, "{theirs:?}");
        }
        // Tokens alone: no reason of money.
        let tokens = |tokens| DaySum { cost: None, ..said(0, tokens) };
        let found = findings(&[("d", "m", ours)], &[("d", "m", tokens(70))]);
        assert_eq!(found[0].2, [estimated]);
        let found = findings(&[("d", "m", ours)], &[("d", "m", tokens(130))]);
        assert_eq!(found[0].2, [more[1], more[3]]);
    }
}
