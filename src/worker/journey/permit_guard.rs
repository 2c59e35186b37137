//! The permit of one call, which gives itself back.

use crate::domain::Charge;
use crate::worker::clock::Clock;
use crate::worker::gate::{Gate, Permit, TargetState};

/// The gate's permit for one call. Dropped before the call is reported, it is given back: in full, or less what a call
/// that has begun may have taken of the limits.
pub(super) struct PermitGuard<'a> {
    gate: &'a Gate,
    target: &'a TargetState,
    clock: &'a Clock,
    permit: Option<Permit>,
    taken: Option<Charge>,
}

impl<'a> PermitGuard<'a> {
    pub(super) fn new(gate: &'a Gate, target: &'a TargetState, clock: &'a Clock, permit: Permit) -> Self {
        Self { gate, target, clock, permit: Some(permit), taken: None }
    }

    pub(super) fn permit(&self) -> &Permit {
        self.permit.as_ref().expect("only `report` takes it, and consumes the guard")
    }

    /// Records that the call begins, and takes this much unless its report says otherwise.
    pub(super) fn begin(&mut self, taken: Charge) {
        self.taken = Some(taken);
    }

    /// Gives the permit back: the call was not sent after all.
    pub(super) fn give_back(mut self) {
        self.taken = None;
    }

    /// Ends the call and lets the gate learn from it.
    pub(super) fn report<T>(mut self, report: impl FnOnce(&Gate, &TargetState, Permit) -> T) -> T {
        let permit = self.permit.take().expect("only `report` takes it, and consumes the guard");
        report(self.gate, self.target, permit)
    }
}

impl Drop for PermitGuard<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.gate.abandon(self.target, permit, self.taken, self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::doubt::Asker;
    use crate::domain::shut::Reason;
    use crate::domain::tempo::Took;
    use crate::domain::{BreakerSettings, Charging, ErrorClass, Limits, Outcome, Rate, Target, Timestamp, Unit};
    use crate::worker::bucket::tests::Others;
    use crate::worker::gate::{PACE, ProviderSetup};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp(1_795_176_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };

    /// A target with this limit, whose breaker opens at the second failure.
    fn stage(limits: Limits) -> (Gate, Arc<TargetState>) {
        let breaker = BreakerSettings { min_calls: 2, failure_rate: 0.5, window: SECOND * 60, open: SECOND * 30 };
        let setup = ProviderSetup {
            bucket: "p".to_owned(),
            charging: Charging::COMBINED,
            breaker,
            keys: vec!["A".to_owned()],
            recheck: SECOND * 600,
            probe: None,
            server: String::new(),
            targets: vec![Target::new("p", "m")],
            model_buckets: BTreeMap::new(),
        };
        let buckets = BTreeMap::from([("p".to_owned(), limits)]);
        let gate = Gate::new(&buckets, &BTreeMap::from([("p".to_owned(), setup)]));
        for bucket in gate.buckets() {
            Others::default().keep(1, bucket);
        }
        let target = gate.target(&Target::new("p", "m")).expect("it is set up");
        (gate, target)
    }

    async fn admit(gate: &Gate, target: &TargetState, now: Timestamp) -> Result<Permit, Reason> {
        gate.admit(target, CHARGE, PACE, now).await.map_err(|shut| shut.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_whose_call_is_dropped_leaves_its_place_to_the_next() {
        let (gate, target) = stage(Limits::default());
        for _ in 0..2 {
            let permit = admit(&gate, &target, NOW).await.expect("it is closed after two");
            let (outcome, took) = (Outcome::Failed(ErrorClass::ServerError), Took { time: SECOND, output_tokens: 0 });
            gate.report(&target, permit, &outcome, None, CHARGE, took, &[], Asker::another(1), NOW);
        }
        assert_eq!(admit(&gate, &target, NOW).await.err(), Some(Reason::Breaker));
        let later = NOW + SECOND * 31;
        let clock = Clock::new(later);
        for begins in [false, true] {
            let mut guard =
                PermitGuard::new(&gate, &target, &clock, admit(&gate, &target, later).await.expect("a probe"));
            if begins {
                guard.begin(CHARGE);
            }
            assert_eq!(admit(&gate, &target, later).await.err(), Some(Reason::Breaker), "one at a time");
            drop(guard);
        }
        assert!(admit(&gate, &target, later).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_not_sent_takes_nothing_of_a_limit_and_one_that_was_cut_keeps_what_it_took() {
        let one_an_hour = Rate { unit: Unit::Requests, amount: 1, per: Duration::from_hours(1), burst: 1 };
        let (gate, target) = stage(Limits { rates: vec![one_an_hour], concurrency: None });
        let clock = Clock::new(NOW);
        let guard =
            async || admit(&gate, &target, NOW).await.map(|permit| PermitGuard::new(&gate, &target, &clock, permit));
        drop(guard().await.expect("there is one"));
        let mut begun = guard().await.expect("it was given back");
        begun.begin(CHARGE);
        begun.give_back();
        let mut begun = guard().await.expect("it was not sent after all");
        begun.begin(CHARGE);
        drop(begun);
        assert_eq!(guard().await.err(), Some(Reason::RateLimit));
    }
}
