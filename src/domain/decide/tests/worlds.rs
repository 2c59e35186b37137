//! Whole lives of jobs in worlds that do their worst, and the guarantees that hold in all of them.

use super::super::ending::MOST_ATTEMPTS;
use super::*;
use proptest::prelude::*;
use proptest::strategy::Strategy as Values;

/// The weather of one rung.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    ineligible: bool,
    /// Closed for this long, then open for `open`, in seconds, over and over; no closure is for good.
    closed: u32,
    open: u32,
    reason: Reason,
}

impl Weather {
    fn health(&self, now: Timestamp) -> RungHealth {
        if self.ineligible {
            return RungHealth::Ineligible(Ineligible::Unsupported("this".into()));
        }
        let period = i64::from(self.closed + self.open) * 1_000;
        let since = now.0 - now.0.rem_euclid(period);
        let until = since + i64::from(self.closed) * 1_000;
        if until > now.0 {
            RungHealth::Shut(Shut { reason: self.reason, since: Timestamp(since), until: Timestamp(until) })
        } else {
            RungHealth::Open
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) job: Job,
    pub(super) route: Route,
    pub(super) order: Vec<usize>,
    pub(super) weather: Vec<Weather>,
    /// What each call meets: outcome, seconds it takes, seconds the provider asks to wait.
    pub(super) calls: Vec<(Outcome, u32, Option<u32>)>,
}

fn reasons() -> impl Values<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

fn outcomes() -> impl Values<Value = Outcome> {
    prop_oneof![
        1 => Just(Outcome::Accepted),
        12 => prop::sample::select(Class::ALL).prop_map(Outcome::Failed),
        6 => prop::sample::select(SoftFailure::ALL).prop_map(Outcome::Rejected),
    ]
}

fn routes(rungs: usize) -> impl Values<Value = Route> {
    let windows = prop::collection::vec(prop::option::of(1_000..4_000_i64), rungs);
    let patience = prop_oneof![
        Just(Patience::Forever),
        Just(Patience::For(Duration::ZERO)),
        (0..4_000_u64).prop_map(|seconds| Patience::For(Duration::from_secs(seconds))),
    ];
    let fallback = prop_oneof![Just(Class::ALL.to_vec()), prop::sample::subsequence(Class::ALL, 0..=Class::ALL.len()),];
    (windows, patience, fallback, 0..12_u16).prop_map(move |(windows, patience, fallback_on, max_attempts)| {
        let mut route = route(rungs);
        for (rung, window) in route.rungs.iter_mut().zip(windows) {
            rung.model.capabilities.context_window = window;
        }
        Route { patience, max_attempts, fallback_on: fallback_on.into_iter().collect(), ..route }
    })
}

fn jobs() -> impl Values<Value = Job> {
    (any::<i64>(), prop::option::of(1..20_000_u32), prop::option::of(0..8_u16), 0..1_000_u32).prop_map(
        |(id, deadline, max_attempts, age)| Job {
            id: JobId(id),
            ready_at: NOW - SECOND * age,
            deadline: deadline.map(|seconds| NOW + SECOND * seconds),
            max_attempts,
            ..job()
        },
    )
}

pub(super) fn worlds() -> impl Values<Value = World> {
    (1..5_usize).prop_flat_map(|rungs| {
        let weather = (prop::bool::weighted(0.1), 0..5_000_u32, 1..500_u32, reasons())
            .prop_map(|(ineligible, closed, open, reason)| Weather { ineligible, closed, open, reason });
        let calls = prop::collection::vec((outcomes(), 0..700_u32, prop::option::of(0..5_000_u32)), 3..40);
        let order = Just((0..rungs).collect::<Vec<_>>()).prop_shuffle();
        (jobs(), routes(rungs), order, prop::collection::vec(weather, rungs), calls)
            .prop_map(|(job, route, order, weather, calls)| World { job, route, order, weather, calls })
    })
}

impl World {
    pub(super) fn health(&self, now: Timestamp) -> Vec<RungHealth> {
        self.weather.iter().map(|weather| weather.health(now)).collect()
    }

    fn decide(&self, history: &[Attempt], now: Timestamp) -> Step {
        decide(&self.job, &self.route, &self.order, history, &self.health(now), now)
    }

    /// Carries out the decisions until the job ends; hands each step to `look` beforehand.
    fn run(&self, mut look: impl FnMut(&[Attempt], Timestamp, &Step)) -> Vec<Attempt> {
        let (mut now, mut history) = (NOW, Vec::new());
        let mut calls = self.calls.iter().cycle();
        // The most attempts there can be, and a few waits before each.
        for _ in 0..MOST_ATTEMPTS * 20 {
            let step = self.decide(&history, now);
            look(&history, now, &step);
            match step {
                Step::Finish(_) => return history,
                Step::Wait { until, .. } => now = until,
                Step::Call { rung, .. } => {
                    let (outcome, took, asked) = calls.next().expect("cycles").clone();
                    now = now + SECOND * took;
                    let retry_at = asked.map(|seconds| now + SECOND * seconds);
                    history.push(Attempt { retry_at, ..Attempt::new(Some(rung), outcome, now) });
                }
            }
        }
        panic!("the job does not end")
    }
}

pub(super) fn counted(history: &[Attempt]) -> usize {
    history
        .iter()
        .filter_map(|attempt| attempt.outcome.class())
        .filter(|class| class.facts().uses_up_an_attempt)
        .count()
}

pub(super) fn most(world: &World) -> usize {
    let of_route = world.route.max_attempts;
    usize::from(world.job.max_attempts.unwrap_or(of_route).min(of_route).max(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_job_ends_in_every_world(world in worlds()) {
        let mut endings = 0;
        world.run(|_, _, step| endings += usize::from(matches!(step, Step::Finish(_))));
        prop_assert_eq!(endings, 1);
    }

    #[test]
    fn a_job_succeeds_exactly_if_an_answer_was_accepted_and_never_calls_again(world in worlds()) {
        let mut last = None;
        let history = world.run(|_, _, step| last = Some(step.clone()));
        let accepted = history.iter().filter(|attempt| attempt.outcome == Outcome::Accepted).count();
        prop_assert_eq!(accepted, usize::from(last == Some(Step::Finish(Ending::Succeeded))));
        prop_assert!(history.iter().rev().skip(1).all(|attempt| attempt.outcome != Outcome::Accepted));
    }

    #[test]
    fn a_closed_or_ineligible_rung_is_never_called(world in worlds()) {
        world.run(|_, now, step| {
            if let Step::Call { rung, skipped } = step {
                assert_eq!(world.health(now)[*rung], RungHealth::Open);
                assert!(skipped.iter().all(|(other, _)| other != rung));
            }
        });
    }

    #[test]
    fn a_rung_is_never_called_before_the_provider_wants_to_be_asked_again(world in worlds()) {
        world.run(|history, now, step| {
            if let Some(rung) = called(step) {
                let last = history.iter().rev().find(|attempt| attempt.rung == Some(rung));
                assert!(last.and_then(|last| last.retry_at).is_none_or(|asked| asked <= now));
            }
        });
    }

    #[test]
    fn a_rung_that_can_never_take_the_request_is_called_only_once(world in worlds()) {
        let history = world.run(|_, _, _| ());
        for (index, attempt) in history.iter().enumerate() {
            let remedy = attempt.outcome.remedy();
            let later = &history[index + 1..];
            match remedy {
                Some(Remedy::NextRung | Remedy::LargerWindow) => {
                    prop_assert!(later.iter().all(|other| other.rung != attempt.rung));
                }
                Some(Remedy::End) | None => prop_assert!(later.is_empty()),
                Some(Remedy::WaitForGate(_) | Remedy::RetrySame { .. } | Remedy::Mend | Remedy::Reask) => {}
            }
            if remedy == Some(Remedy::LargerWindow) {
                let window = |rung: Option<usize>| world.route.rungs[rung.unwrap()].model.capabilities.context_window;
                let too_small = |rung| window(rung).zip(window(attempt.rung)).is_some_and(|(one, this)| one <= this);
                prop_assert!(later.iter().all(|other| !too_small(other.rung)));
            }
        }
    }

    #[test]
    fn only_attempts_that_count_use_up_attempts(world in worlds()) {
        world.run(|history, _, step| {
            assert!(counted(history) <= most(&world));
            if let Some((_, reason)) = failure(step).filter(|(_, reason)| reason.starts_with("all ")) {
                assert_eq!(counted(history), most(&world), "{reason}");
            }
        });
    }

    #[test]
    fn a_wait_ends_later_than_now_and_no_later_than_the_deadline(world in worlds()) {
        world.run(|_, now, step| {
            if let Some(until) = wait_until(step) {
                assert!(until > now);
                assert!(world.job.deadline.is_none_or(|deadline| until <= deadline));
            }
        });
    }

    #[test]
    fn no_call_begins_at_or_after_the_deadline(world in worlds()) {
        world.run(|_, now, step| {
            assert!(called(step).is_none() || world.job.deadline.is_none_or(|deadline| now < deadline));
        });
    }

    #[test]
    fn nothing_opens_before_the_end_of_a_wait(world in worlds(), part in 0.0..1.0_f64) {
        world.run(|history, now, step| {
            if let Step::Wait { until, .. } = step {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than a day")]
                let between = now + Duration::from_millis((now.until(*until).as_secs_f64() * part * 1e3) as u64);
                let again = decide(&world.job, &world.route, &world.order, history, &world.health(now), between);
                assert!(between >= *until || wait_until(&again).is_some(),
                    "{again:?} at {between:?}, {step:?} at {now:?}");
            }
        });
    }

    #[test]
    fn without_patience_no_job_waits_while_another_rung_is_open(world in worlds()) {
        let route = Route {
            patience: Patience::For(Duration::ZERO),
            fallback_on: Class::ALL.iter().copied().collect(),
            ..world.route.clone()
        };
        let health = world.health(NOW);
        if health.contains(&RungHealth::Open) && world.job.deadline.is_none_or(|deadline| deadline > NOW) {
            let step = decide(&world.job, &route, &world.order, &[], &health, NOW);
            let first = world.order.iter().copied().find(|&rung| health[rung] == RungHealth::Open);
            prop_assert_eq!(called(&step), first);
        }
    }

    #[test]
    fn what_is_said_of_patience_is_what_decided(world in worlds()) {
        world.run(|_, now, step| {
            let (skips, waited): (Vec<&Skip>, bool) = match step {
                Step::Call { skipped, .. } => (skipped.iter().map(|(_, why)| why).collect(), false),
                Step::Wait { why, .. } => (vec![why], true),
                Step::Finish(_) => return,
            };
            for skip in skips {
                let Skip::Shut { shut, worth } = skip else { continue };
                // No job calls past a rung that is worth waiting for.
                assert!(waited || !worth.is_waited_for(), "{skip:?}");
                let (patience, until) = (world.route.patience, shut.until);
                let latest = world.job.deadline.map(|deadline| deadline - MINUTE);
                match *worth {
                    Worth::Patience { until: ends } => {
                        let in_time = |latest| ends <= latest || patience == Patience::Forever;
                        assert!(ends > now && latest.is_none_or(in_time));
                    }
                    Worth::NoFallback => assert!(!world.route.leaves(shut.reason)),
                    Worth::NoPatience => assert_eq!(patience, Patience::For(Duration::ZERO)),
                    Worth::PatienceOver { at } => {
                        let Patience::For(patience) = patience else { panic!("it does not end") };
                        assert!(until > at && at >= world.job.ready_at.min(now) + patience && at <= now + patience);
                        assert!(latest.is_none_or(|latest| at <= latest));
                    }
                    Worth::DeadlineNear { at } => {
                        assert!(until > at && Some(at) == latest && at < now + SECOND * 4_000);
                    }
                    Worth::Pointless => assert!(!shut.reason.passes()),
                }
            }
        });
    }

    #[test]
    fn the_nearer_the_deadline_the_less_patience(world in worlds(), nearer in 0..20_000_u32) {
        let Some(deadline) = world.job.deadline else { return Ok(()) };
        let health = world.health(NOW);
        let with = |deadline| {
            let job = Job { deadline: Some(deadline), ..world.job.clone() };
            decide(&job, &world.route, &world.order, &[], &health, NOW)
        };
        let position = |rung| world.order.iter().position(|&other| other == rung);
        if let Some(rung) = called(&with(deadline)) {
            let sooner = with((deadline - SECOND * nearer).max(NOW + SECOND));
            // A job that would not wait with more time does not wait with less, and does not begin to prefer the
            // cheaper rung.
            prop_assert_eq!(called(&sooner).and_then(position), position(rung));
        }
    }

    #[test]
    fn no_job_waits_beyond_its_last_chance_while_another_rung_is_open(world in worlds(), left in 1..2_000_u32) {
        let fallback_on = Class::ALL.iter().copied().collect();
        let patience = Patience::For(MINUTE * 20);
        let deadline = NOW + SECOND * left;
        let mut route = Route { patience, fallback_on, ..world.route.clone() };
        // No rung is out because another's window was too small.
        route.rungs.iter_mut().for_each(|rung| rung.model.capabilities.context_window = None);
        let world = World { job: Job { deadline: Some(deadline), ..world.job.clone() }, route, ..world };
        world.run(|history, now, step| {
            let Step::Wait { until, .. } = step else { return };
            let untried = |rung: &usize| history.iter().all(|attempt| attempt.rung != Some(*rung));
            let health = world.health(now);
            if world.order.iter().any(|rung| untried(rung) && health[*rung] == RungHealth::Open) {
                assert!(*until <= deadline - MINUTE, "{step:?} at {now:?}");
            }
        });
    }

    #[test]
    fn with_endless_patience_no_job_leaves_a_rung_that_will_open(world in worlds()) {
        let world = World { route: Route { patience: Patience::Forever, ..world.route.clone() }, ..world };
        world.run(|_, _, step| {
            if let Step::Call { skipped, .. } = step {
                for (_, why) in skipped {
                    assert!(!matches!(why, Skip::Shut { shut, .. } if shut.reason.passes()));
                }
            }
        });
    }

    #[test]
    fn the_same_input_gives_the_same_step_even_for_a_history_that_cannot_be(
        world in worlds(),
        history in prop::collection::vec(
            (prop::option::of(0..6_usize), outcomes(), any::<i64>(), prop::option::of(any::<i64>())), 0..20),
        order in prop::collection::vec(0..7_usize, 0..7),
        now in any::<i64>(),
    ) {
        let history: Vec<Attempt> = history
            .into_iter()
            .map(|(rung, outcome, ended_at, retry_at)| {
                Attempt { retry_at: retry_at.map(Timestamp), ..Attempt::new(rung, outcome, Timestamp(ended_at)) }
            })
            .collect();
        let (now, health) = (Timestamp(now), world.health(NOW));
        let step = decide(&world.job, &world.route, &order, &history, &health, now);
        prop_assert_eq!(&step, &decide(&world.job, &world.route, &order, &history, &health, now));
        if let Some(rung) = called(&step) {
            prop_assert!(rung < world.route.rungs.len() && order.contains(&rung));
        }
        prop_assert!(wait_until(&step).is_none_or(|until| until > now));
    }
}
