//! What a request takes from a token bucket. Every provider has its own rule, and each rule is data.
//!
//! A bucket that is charged by the wrong rule either runs dry unused or runs into refusals. So a request is charged as
//! its provider charges it: [`Charging::reserve`] before the call, by estimate, and [`Charging::settle`] after it, by
//! the provider's report.

use super::{ErrorClass, Failure, Outcome, Unit, Usage, UsageSource};

/// The charge of one call to a bucket, in tokens and inputs; and it counts as one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// From a limit of input tokens.
    pub input: u64,
    /// From a limit of output tokens.
    pub output: u64,
    /// From a limit of all tokens. This is not the sum of the other two: by some rules output does not count there, by
    /// others it counts several times, by others the cap counts instead of it.
    pub total: u64,
    /// From a limit of inputs for embeddings.
    pub inputs: u64,
}

impl Charge {
    /// The larger value of each limit.
    fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            total: self.total.max(other.total),
            inputs: self.inputs.max(other.inputs),
        }
    }

    /// The amount taken from a limit of this unit. A request counts as one request, large or small.
    #[must_use]
    pub const fn units(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.total,
            Unit::InputTokens => self.input,
            Unit::OutputTokens => self.output,
            Unit::Inputs => self.inputs,
        }
    }
}

/// The size of a request as it is known before the call, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Input, as expected.
    pub input: u64,
    /// The most that the input turns out to be but for a few requests: the amount to hold back.
    pub input_at_most: u64,
    /// The output cap that the request sets.
    pub cap: Option<u64>,
    /// Output as such requests usually come out.
    pub expected_output: u64,
    /// How many inputs it has for embeddings; 0: it is another request.
    pub inputs: u64,
}

impl Sizes {
    /// The expected output, and no more than the cap.
    const fn output(&self) -> u64 {
        match self.cap {
            Some(cap) if cap < self.expected_output => cap,
            _ => self.expected_output,
        }
    }

    /// The size without the margin that is held back to be safe.
    const fn expected(&self) -> Self {
        Self { input_at_most: self.input, ..*self }
    }

    /// The least that the size may be: the estimate of the input is taken to be right within a quarter, a cap is exact,
    /// and an output that is only expected may be none.
    const fn least(&self) -> Self {
        let input = self.input - self.input / 4;
        Self { input, input_at_most: input, cap: self.cap, expected_output: 0, inputs: self.inputs }
    }
}

/// The charges for which a request asks a bucket before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Taken in advance and corrected afterwards.
    pub reserved: Charge,
    /// The probable amount.
    pub expected: Charge,
    /// The least that it can turn out to be. If even this is more than a bucket ever holds, the request never fits
    /// there. Guesses are left out, so that a wrong guess costs one refused call and not a job.
    pub least: Charge,
}

/// How the output of a request counts against a limit of all tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputShare {
    /// Not at all: the limit is one of input.
    None,
    /// The larger of the input and the output cap counts; without a cap the input.
    LargerCap,
    /// The output cap counts beside the input; without a cap, the expected output.
    Cap,
    /// The expected output counts beside the input; once it is known, the actual output.
    Expected,
}

/// The rule by which a provider counts tokens. The rules of vendors are data: see `provider::charging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charging {
    /// How output counts against a limit of all tokens.
    pub output: OutputShare,
    /// Whether the output reserved from the limit of all tokens is corrected to the actual output. Where it is not, a
    /// generous cap is lost however short the answer.
    pub is_reconciled: bool,
    /// Whether input that was read from the provider's cache counts.
    pub cached_input_counts: bool,
    /// Models, by parts of their names, for which cached input counts although it does not for others.
    pub cached_input_counts_for: &'static [&'static str],
    /// How many tokens of the limit of all tokens one token of output takes.
    pub output_burndown: u32,
    /// Models, by parts of their names, for which that number is another.
    pub burndowns: &'static [(&'static str, u32)],
    /// Whether a request that was let in and failed keeps the tokens that it took.
    pub failures_count: bool,
}

/// How a call ended, as far as a provider's bucket is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The provider let it in and worked on it, as far as is known: an answer, usable or not, or none that came in
    /// time.
    LetIn,
    /// The provider answered that it failed at the request or does not want it.
    Failed,
    /// It never got as far as the bucket, or was refused because of one.
    TurnedAway,
}

impl Fate {
    /// The fate of a call whose attempt had this outcome.
    #[must_use]
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted | Outcome::Rejected(_) => Self::LetIn,
            Outcome::Failed(class) => class.facts().fate,
        }
    }
}

impl Charging {
    /// Input and output together: the rule where no other is known.
    pub const COMBINED: Self = Self {
        output: OutputShare::Expected,
        is_reconciled: true,
        cached_input_counts: true,
        cached_input_counts_for: &[],
        output_burndown: 1,
        burndowns: &[],
        failures_count: true,
    };

    /// The rule for one model: `burndown` where it is configured, otherwise the number known for the model.
    #[must_use]
    pub fn for_model(self, model: &str, burndown: Option<u32>) -> Self {
        let known = self.burndowns.iter().find(|(part, _)| model.contains(part)).map(|(_, burndown)| *burndown);
        let counts = self.cached_input_counts_for.iter().any(|part| model.contains(part));
        Self {
            output_burndown: burndown.or(known).unwrap_or(self.output_burndown),
            cached_input_counts: self.cached_input_counts || counts,
            ..self
        }
    }

    /// The charge that is taken for a request before it is sent.
    #[must_use]
    pub const fn reserve(&self, sizes: &Sizes) -> Charge {
        let input = if sizes.input_at_most > sizes.input { sizes.input_at_most } else { sizes.input };
        let total = self.total(input, self.reserved_output(sizes));
        Charge { input, output: sizes.output(), total, inputs: sizes.inputs }
    }

    /// The same, with the probable charge and the least possible one.
    #[must_use]
    pub const fn ask(&self, sizes: &Sizes) -> Ask {
        let (expected, least) = (self.reserve(&sizes.expected()), self.reserve(&sizes.least()));
        Ask { reserved: self.reserve(sizes), expected, least }
    }

    /// The charge that a call has really taken, by the provider's report. Without a report it is the reserved charge,
    /// or nothing where a failed request takes none. An estimate of our own gives back nothing of the reserved charge.
    #[must_use]
    pub fn settle(&self, sizes: &Sizes, usage: Option<&Usage>, fate: Fate) -> Charge {
        let Some(usage) = usage else {
            return match fate {
                Fate::LetIn => self.reserve(sizes),
                Fate::Failed if self.failures_count => self.reserve(sizes),
                Fate::Failed | Fate::TurnedAway => Charge::default(),
            };
        };
        let tokens = |count: i64| u64::try_from(count).unwrap_or(0);
        let cached = if self.cached_input_counts { 0 } else { tokens(usage.cache_read) };
        let input = tokens(usage.total_input()).saturating_sub(cached);
        let output = tokens(usage.output);
        let counted = if self.is_reconciled { output } else { self.reserved_output(sizes) };
        let used = Charge { input, output, total: self.total(input, counted), inputs: sizes.inputs };
        if usage.source == UsageSource::Estimated { used.max(self.reserve(sizes)) } else { used }
    }

    const fn reserved_output(self, sizes: &Sizes) -> u64 {
        match (self.output, sizes.cap) {
            (OutputShare::None, _) | (OutputShare::LargerCap, None) => 0,
            (OutputShare::LargerCap | OutputShare::Cap, Some(cap)) => cap,
            (OutputShare::Cap, None) | (OutputShare::Expected, _) => sizes.output(),
        }
    }

    const fn total(self, input: u64, output: u64) -> u64 {
        match self.output {
            OutputShare::None => input,
            OutputShare::LargerCap => {
                if input > output {
                    input
                } else {
                    output
                }
            }
            OutputShare::Cap | OutputShare::Expected => {
                // A widening that `From` offers, but not in a constant function.
                input.saturating_add(output.saturating_mul(self.output_burndown as u64))
            }
        }
    }
}

/// Whether a provider that refused a call because of a limit will refuse it for ever: returns the amount that the call
/// needs, and the limit that it exceeds.
///
/// Some providers say so themselves ([`ErrorClass::NeverFits`]), with or without numbers. Others give the answer that
/// they give to every client that comes too fast, and only the limit that they name tells the two apart: the request is
/// larger than that limit. Where they ask to wait all the same, an estimate alone is no reason to doubt it.
#[must_use]
pub fn never_fits(failure: &Failure, charging: &Charging, sizes: &Sizes) -> Option<Oversize> {
    let named = failure.limit?;
    let expected = charging.reserve(&Sizes { expected_output: 0, ..sizes.expected() }).units(named.unit);
    let needed = match failure.class {
        ErrorClass::NeverFits => Some(named.requested.unwrap_or(expected)),
        class if class.may_name_a_limit() && named.unit != Unit::Requests => {
            let surely = if failure.wait.is_some() { charging.ask(sizes).least.units(named.unit) } else { expected };
            // The provider's own figure needs no guess.
            let (surely, needed) = named.requested.map_or((surely, expected), |requested| (requested, requested));
            (surely > named.size).then_some(needed)
        }
        _ => None,
    }?;
    Some(Oversize { unit: named.unit, needed, size: named.size })
}

/// A request that is larger than a limit ever allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    pub unit: Unit,
    /// The amount that the request takes.
    pub needed: u64,
    /// The most that the limit allows at once.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NamedLimit, Scope};
    use std::time::Duration;

    fn sizes(input: u64, cap: Option<u64>, expected_output: u64) -> Sizes {
        Sizes { input, input_at_most: input, cap, expected_output, inputs: 0 }
    }

    fn refusal(class: ErrorClass, unit: Unit, size: u64, requested: Option<u64>) -> Failure {
        let limit = Some(NamedLimit { unit, size, requested });
        Failure { limit, ..Failure::new(class, Scope::Model, "no") }
    }

    #[test]
    fn inputs_are_taken_as_many_as_there_are_unless_the_call_was_turned_away() {
        let (rule, sizes) = (Charging::COMBINED, Sizes { inputs: 61, ..sizes(8, Some(0), 0) });
        let ask = rule.ask(&sizes);
        assert_eq!([ask.reserved, ask.expected, ask.least].map(|charge| charge.units(Unit::Inputs)), [61; 3]);
        let usage = Usage { input: 9, source: UsageSource::Provider, ..Usage::default() };
        for (usage, fate, taken) in [
            (Some(&usage), Fate::LetIn, 61),
            (None, Fate::LetIn, 61),
            (None, Fate::Failed, 61),
            (None, Fate::TurnedAway, 0),
        ] {
            assert_eq!(rule.settle(&sizes, usage, fate).units(Unit::Inputs), taken, "{fate:?}");
        }
        assert_eq!(rule.reserve(&Sizes { inputs: 0, ..sizes }).units(Unit::Inputs), 0);
    }

    #[test]
    fn a_request_larger_than_the_limit_that_refused_it_is_told_from_one_that_came_too_fast() {
        let (rule, sizes) = (Charging { cached_input_counts: false, ..Charging::COMBINED }, sizes(1_200, None, 300));
        let needed = |failure: &Failure| never_fits(failure, &rule, &sizes).map(|oversize| oversize.needed);
        // The provider says so itself, with its own numbers or without.
        let said = refusal(ErrorClass::NeverFits, Unit::Tokens, 1_000, Some(1_777));
        assert_eq!(needed(&said), Some(1_777));
        assert_eq!(needed(&Failure { limit: None, ..said }), None);
        // The provider only names the limit.
        let named = |unit, size| refusal(ErrorClass::RateLimit, unit, size, None);
        assert_eq!(needed(&named(Unit::InputTokens, 1_000)), Some(1_200));
        assert_eq!(needed(&named(Unit::InputTokens, 1_300)), None);
        assert_eq!(needed(&named(Unit::Requests, 0)), None);
        // An output that is only expected is no reason to refuse a request.
        assert_eq!(needed(&named(Unit::Tokens, 1_300)), None);
        assert_eq!(needed(&named(Unit::OutputTokens, 10)), None);
        assert_eq!(needed(&refusal(ErrorClass::RateLimit, Unit::InputTokens, 1_000, Some(1_000))), None);
        assert_eq!(needed(&refusal(ErrorClass::Overloaded, Unit::InputTokens, 1, None)), None);
        // The provider asks to wait: believed while the estimate may be a quarter too high.
        let waits = |size| Failure { wait: Some(Duration::from_secs(9)), ..named(Unit::InputTokens, size) };
        assert_eq!(needed(&waits(1_000)), None);
        assert_eq!(needed(&waits(899)), Some(1_200));
    }
}
