//! What failures call for: another try, a wait, the next rung, the next lap.

use super::*;
use crate::domain::error_class::Fallback;

#[test]
fn each_failure_is_tried_again_and_passed_on_as_its_remedy_says() {
    for &class in Class::ALL {
        let tries_here = (1..5).find(|&times| next_call(&route(2), &vec![failed(0, class); times]) != Some(0));
        let then = next_call(&route(2), &vec![failed(0, class); tries_here.unwrap_or(4)]);
        let expected = match class.facts().remedy {
            Remedy::NextRung | Remedy::LargerWindow | Remedy::WaitForGate(Reason::Model) => (Some(1), Some(1)),
            Remedy::WaitForGate(_) => (None, Some(0)),
            Remedy::RetrySame { tries } => (Some(usize::try_from(tries).unwrap() + 1), Some(1)),
            Remedy::End | Remedy::Mend | Remedy::Reask => (Some(1), None),
        };
        assert_eq!((tries_here, then), expected, "{class}");
    }
}

#[test]
fn a_route_that_does_not_fall_back_stays_or_ends() {
    for &class in Class::ALL {
        let route = without(route(2), &[class]);
        let step = next_call(&route, &[failed(0, class)]);
        match class.facts().remedy {
            Remedy::WaitForGate(reason) => {
                assert_eq!(step, Some(usize::from(reason == Reason::Model)), "{class}");
            }
            Remedy::RetrySame { .. } => {
                assert_eq!(next_call(&route, &vec![failed(0, class); 5]), Some(0), "{class}");
            }
            // A failure that says that the target cannot take the request at all moves the job on, unless the route
            // never falls back.
            _ if class.facts().fallback == Fallback::Always => assert_eq!(step, Some(1), "{class}"),
            Remedy::NextRung | Remedy::LargerWindow | Remedy::End | Remedy::Mend | Remedy::Reask => {
                assert_eq!(step, None, "{class}");
            }
        }
        let pinned = Route { fallback_on: [].into(), ..route };
        assert_ne!(next_call(&pinned, &[failed(0, class)]), Some(1), "{class}");
    }
}

#[test]
fn each_unusable_answer_is_tried_again_or_passed_on_as_its_remedy_says() {
    for &kind in SoftFailure::ALL {
        let again = next_call(&route(2), &[rejected(0, kind)]) == Some(0);
        assert_eq!(again, kind.facts().remedy == Remedy::RetrySame { tries: 1 }, "{kind}");
        assert_eq!(next_call(&route(2), &[rejected(0, kind), rejected(0, kind)]), Some(1), "{kind}");
        let stays = without(route(2), &[Class::SoftFailure]);
        let next = (kind.facts().remedy != Remedy::NextRung).then_some(0);
        assert_eq!(next_call(&stays, &vec![rejected(0, kind); 5]), next, "{kind}");
    }
}

#[test]
fn an_answer_that_its_cap_cut_is_bought_once_from_each_rung_and_no_more() {
    let history = [rejected(0, SoftFailure::Truncated), rejected(1, SoftFailure::Truncated)];
    assert_eq!(next_call(&route(2), &history[..1]), Some(1));
    let step = after(&route(2), &history, NOW);
    let (class, reason) = failure(&step).expect("both rungs have cut it");
    assert_eq!(class, Class::SoftFailure);
    assert!(reason.contains("max_tokens"), "{reason}");
}

#[test]
fn the_providers_last_word_goes_before_the_remedy() {
    let history = [Attempt { is_final: true, ..failed(0, Class::ServerError) }];
    assert_eq!(next_call(&route(2), &history), Some(1));
    // With nowhere else to go the job tries again after its pause, within its attempts.
    assert_eq!(next_call(&route(1), &history), Some(0));
}

#[test]
fn failures_of_different_classes_add_up_on_a_rung() {
    let history = [failed(0, Class::ServerError), failed(0, Class::Network), failed(0, Class::Timeout)];
    assert_eq!(next_call(&route(2), &history[..2]), Some(0));
    assert_eq!(next_call(&route(2), &history), Some(1));
}

#[test]
fn a_retry_waits_for_its_backoff_and_the_dearer_rung_waits_too() {
    let step = after(&route(2), &[failed(0, Class::ServerError)], NOW);
    let until = NOW + crate::domain::backoff::delay(job().id, 1);
    assert_eq!(step, Step::Wait { until, rung: 0, why: Skip::BackingOff { until } });
    assert_eq!(called(&after(&route(2), &[failed(0, Class::ServerError)], until)), Some(0));
}

#[test]
fn a_retry_waits_as_long_as_the_provider_asked() {
    let asked = |wait| [Attempt { retry_at: Some(NOW + wait), ..failed(0, Class::Overloaded) }];
    assert_eq!(wait_until(&after(&route(2), &asked(MINUTE * 5), NOW)), Some(NOW + MINUTE * 5));
    // Longer than there is patience for: it is passed as if it had failed often enough.
    assert_eq!(called(&after(&route(2), &asked(MINUTE * 11), NOW)), Some(1));
    let patient = Route { patience: Patience::Forever, ..route(2) };
    assert_eq!(wait_until(&after(&patient, &asked(MINUTE * 11), NOW)), Some(NOW + MINUTE * 11));
}

#[test]
fn a_retry_that_is_due_later_than_the_rung_opens_is_what_patience_is_asked_for() {
    let route = Route { patience: Patience::For(SECOND * 30), ..route(2) };
    let history = [Attempt { retry_at: Some(NOW + SECOND * 50), ..failed(0, Class::Overloaded) }];
    let health = [shut(Reason::Breaker, SECOND * 10), RungHealth::Open];
    assert_eq!(called(&decide(&job(), &route, &[0, 1], &history, &health, NOW)), Some(1));
}

#[test]
fn a_prompt_that_is_too_long_moves_only_to_a_larger_window() {
    let mut route = route(5);
    for (rung, window) in route.rungs.iter_mut().zip([Some(8_000), Some(4_000), Some(8_000), None, Some(128_000)]) {
        rung.model.capabilities.context_window = window;
    }
    let step = after(&route, &[failed(0, Class::ContextLength)], NOW);
    let skip = |rung| (rung, Skip::Failed(Class::ContextLength));
    assert_eq!(step, Step::Call { rung: 3, skipped: vec![skip(0), skip(1), skip(2)] });
    // An unknown window says nothing about the others.
    let step = after(&route, &[failed(3, Class::ContextLength)], NOW);
    assert_eq!(called(&step), Some(0));
}

#[test]
fn the_attempt_of_a_target_that_left_the_route_only_counts() {
    let gone = |class| Attempt { rung: None, ..failed(0, class) };
    assert_eq!(called(&after(&route(1), &[gone(Class::NotFound), gone(Class::ServerError)], NOW)), Some(0));
    assert!(failure(&after(&route(1), &vec![gone(Class::ServerError); 6], NOW)).is_some());
    let beyond = Attempt { rung: Some(99), ..failed(0, Class::ContextLength) };
    assert_eq!(called(&after(&without(route(1), Class::ALL), &[beyond], NOW)), Some(0));
}

#[test]
fn a_wait_never_uses_up_an_attempt() {
    for class in [Class::RateLimit, Class::RateLimitDaily, Class::RampLimit, Class::QuotaExhausted, Class::Auth] {
        let mut history = vec![failed(0, class); 900];
        assert_eq!(next_call(&route(1), &history), Some(0), "{class}");
        history.extend(vec![failed(0, Class::ServerError); 5]);
        assert_eq!(next_call(&route(1), &history), Some(0), "{class}");
        history.push(failed(0, Class::ServerError));
        assert_eq!(next_call(&route(1), &history), None, "{class}");
    }
}

#[test]
fn an_abandoned_attempt_never_uses_up_an_attempt() {
    assert_eq!(next_call(&route(1), &vec![failed(0, Class::Abandoned); 50]), Some(0));
}

#[test]
fn a_wait_that_the_provider_asked_for_is_kept_although_the_gate_says_open() {
    let history = [Attempt { retry_at: Some(NOW + MINUTE), ..failed(0, Class::RateLimit) }];
    assert_eq!(wait_until(&after(&route(2), &history, NOW)), Some(NOW + MINUTE));
    assert_eq!(called(&after(&route(2), &history, NOW + MINUTE)), Some(0));
    let long = [Attempt { retry_at: Some(NOW + HOUR), ..failed(0, Class::RateLimitDaily) }];
    assert_eq!(called(&after(&route(2), &long, NOW)), Some(1));
}

#[test]
fn patience_counts_from_the_first_of_several_waits() {
    let wait = |minutes: u32| {
        let ended_at = NOW + MINUTE * minutes;
        Attempt { ended_at, retry_at: Some(ended_at + MINUTE * 2), ..failed(0, Class::RateLimit) }
    };
    let history = [wait(0), wait(2), wait(4), wait(6), wait(8), wait(9)];
    assert_eq!(called(&after(&route(2), &history[..5], NOW + MINUTE * 8)), None);
    assert_eq!(called(&after(&route(2), &history, NOW + MINUTE * 9)), Some(1));
}

#[test]
fn a_failure_between_two_waits_begins_the_patience_anew() {
    let at = |minutes: u32, class, asked: Option<u32>| {
        let ended_at = NOW + MINUTE * minutes;
        Attempt { ended_at, retry_at: asked.map(|asked| ended_at + MINUTE * asked), ..failed(0, class) }
    };
    let waits = [at(0, Class::RateLimit, Some(1)), at(9, Class::RateLimit, Some(3))];
    assert_eq!(called(&after(&route(2), &waits, NOW + MINUTE * 9)), Some(1));
    let [first, last] = waits;
    let history = [first, at(2, Class::Network, None), last];
    assert_eq!(wait_until(&after(&route(2), &history, NOW + MINUTE * 9)), Some(NOW + MINUTE * 12));
}

#[test]
fn a_rejected_key_leaves_the_rung_to_the_next_key() {
    // The gate says open because the provider has another key: that key is tried at once, and before any dearer rung.
    for class in [Class::Auth, Class::QuotaExhausted] {
        assert_eq!(called(&after(&route(2), &[failed(0, class)], NOW)), Some(0), "{class}");
        assert_eq!(called(&after(&route(2), &vec![failed(0, class); 30], NOW)), Some(0), "{class}");
        let beyond_belief = after(&route(2), &vec![failed(0, class); 31], NOW);
        assert!(wait_until(&beyond_belief).is_some(), "{class}: {beyond_belief:?}");
    }
    let health = [shut(Reason::Auth, HOUR), RungHealth::Open];
    let step = decide(&job(), &route(2), &[0, 1], &[failed(0, Class::Auth)], &health, NOW);
    assert_eq!(called(&step), Some(1));
}

#[test]
fn when_all_rungs_are_passed_the_next_lap_begins_after_a_pause() {
    let history = [rejected(0, SoftFailure::Empty), rejected(1, SoftFailure::Empty)];
    let until = NOW + crate::domain::backoff::delay(job().id, 2);
    assert_eq!(wait_until(&after(&route(2), &history, NOW)), Some(until));
    assert_eq!(after(&route(2), &history, until), Step::Call { rung: 0, skipped: vec![] });
    // In the new lap the first rung may fail and be passed again.
    let more = [&history[..], &history[..1]].concat();
    assert_eq!(next_call(&route(2), &more), Some(1));
}

#[test]
fn in_a_new_lap_each_rung_has_all_its_tries_again() {
    let route = Route { max_attempts: 100, ..route(2) };
    let lap = [vec![failed(0, Class::ServerError); 3], vec![failed(1, Class::ServerError); 3]].concat();
    let then = |failures: usize| [&lap[..], &lap[..failures]].concat();
    assert_eq!(next_call(&route, &then(2)), Some(0));
    assert_eq!(next_call(&route, &then(3)), Some(1));
}

#[test]
fn a_passed_rung_that_is_tried_again_pauses_for_all_attempts_so_far() {
    let history = [rejected(0, SoftFailure::Empty), failed(1, Class::ServerError), failed(1, Class::ServerError)];
    let health = [RungHealth::Open, shut(Reason::Auth, HOUR)];
    let step = decide(&job(), &route(2), &[0, 1], &history, &health, NOW);
    assert_eq!(wait_until(&step), Some(NOW + crate::domain::backoff::delay(job().id, 3)));
}

#[test]
fn a_passed_rung_is_tried_again_when_the_others_are_not_worth_waiting_for() {
    let history = vec![failed(0, Class::ServerError); 3];
    for reason in [Reason::Auth, Reason::RateLimit] {
        let health = [RungHealth::Open, shut(reason, HOUR)];
        let step = |now| decide(&job(), &route(2), &[0, 1], &history, &health, now);
        let until = wait_until(&step(NOW)).unwrap();
        assert!(until <= NOW + MINUTE, "{reason}: {until:?}");
        assert_eq!(step(until), Step::Call { rung: 0, skipped: vec![] });
    }
    // A rung that is worth waiting for has its turn first.
    let health = [RungHealth::Open, shut(Reason::Breaker, MINUTE * 5)];
    let step = decide(&job(), &route(2), &[0, 1], &history, &health, NOW);
    assert_eq!(wait_until(&step), Some(NOW + MINUTE * 5));
}

#[test]
fn a_call_lists_the_rungs_before_it_and_why_each_was_not_taken() {
    let history = [failed(1, Class::Refused), rejected(2, SoftFailure::Refusal)];
    let why = Ineligible::Unsupported("tools".into());
    let health = [
        RungHealth::Ineligible(why.clone()),
        RungHealth::Open,
        RungHealth::Open,
        shut(Reason::QuotaExhausted, HOUR),
        RungHealth::Open,
    ];
    let step = decide(&job(), &route(5), &[0, 1, 2, 3, 4], &history, &health, NOW);
    let shut = Shut { reason: Reason::QuotaExhausted, since: NOW, until: NOW + HOUR };
    let skipped = vec![
        (0, Skip::Ineligible(why)),
        (1, Skip::Failed(Class::Refused)),
        (2, Skip::Failed(Class::SoftFailure)),
        (3, Skip::Shut { shut, worth: Worth::Pointless }),
    ];
    assert_eq!(step, Step::Call { rung: 4, skipped });
}
