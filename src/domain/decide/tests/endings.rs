//! When a job is over, and the reason that is given.

use super::super::ending::MOST_ATTEMPTS;
use super::*;

#[test]
fn an_accepted_answer_anywhere_in_the_history_ends_the_job() {
    let accepted = Attempt { outcome: Outcome::Accepted, ..failed(0, Class::Network) };
    let done = Step::Finish(Ending::Succeeded);
    assert_eq!(after(&route(1), std::slice::from_ref(&accepted), NOW), done);
    let mut history = vec![failed(0, Class::InvalidRequest); 2_000];
    history.insert(77, accepted);
    let late = Job { deadline: Some(NOW), ..job() };
    assert_eq!(decide(&late, &route(1), &[0], &history, &[], NOW), done);
}

fn told(rung: usize, class: Class, words: &str) -> Attempt {
    Attempt { words: Some(words.into()), ..failed(rung, class) }
}

#[test]
fn a_refusal_that_may_be_one_targets_own_moves_the_job_on() {
    for class in [Class::InvalidRequest, Class::Refused, Class::NotFound, Class::Permission, Class::PayloadTooLarge] {
        assert_eq!(next_call(&route(2), &[told(0, class, "No.")]), Some(1), "{class}");
        assert_eq!(next_call(&without(route(2), &[class]), &[told(0, class, "No.")]), Some(1), "{class}, not listed");
    }
}

#[test]
fn a_fault_of_the_request_for_every_target_never_reaches_a_second_rung() {
    let broken = Attempt { bearing: Bearing::EveryTarget, ..told(0, Class::InvalidRequest, "Tool without a call.") };
    let reason = "p/0: invalid_request “Tool without a call.”; no rung would take this request";
    assert_eq!(failure(&after(&route(3), &[broken], NOW)), Some((Class::InvalidRequest, reason)));
}

#[test]
fn two_rungs_that_refuse_in_the_same_words_end_the_job_and_three_in_any() {
    let words =
        ["The roles must alternate: `a`, 3", "The roles must alternate: `b`, 17", "The roles are odd", "Bad Request"];
    let refused = |rung: usize, words: &str| told(rung, Class::InvalidRequest, words);
    let step = |history: &[Attempt]| after(&route(5), history, NOW);
    let same = [refused(0, words[0]), refused(1, words[1])];
    let reason = "2 rungs refused this request in the same way, the last: p/1: invalid_request “The roles must \
                  alternate: `b`, 17”";
    assert_eq!(failure(&step(&same)), Some((Class::InvalidRequest, reason)));
    let differently = [refused(0, words[0]), refused(1, words[2]), refused(2, words[3])];
    assert_eq!(called(&step(&differently[..2])), Some(2));
    let reason = "3 rungs refused this request, the last: p/2: invalid_request “Bad Request”";
    assert_eq!(failure(&step(&differently)), Some((Class::InvalidRequest, reason)));
    let bare = [refused(0, "Bad Request"), refused(1, "Bad Request")];
    assert_eq!(called(&step(&bare)), Some(2), "that says nothing");
    // Refusals without words are never alike, and one rung counts once.
    assert_eq!(called(&step(&[failed(0, Class::InvalidRequest), failed(1, Class::InvalidRequest)])), Some(2));
    assert_eq!(called(&step(&[refused(0, words[0]), refused(0, words[0])])), Some(1));
    // A parameter that two targets do not take is no fault of the request.
    let parameters = [0, 1, 2].map(|rung| told(rung, Class::Refused, words[0]));
    assert_eq!(called(&step(&parameters)), Some(3));
}

#[test]
fn a_refused_key_or_model_that_is_in_doubt_moves_this_job_on_and_is_its_own_matter_after_three_times() {
    for class in [Class::QuotaExhausted, Class::Auth, Class::Permission, Class::NotFound] {
        let doubtful = Attempt { bearing: Bearing::InDoubt, ..failed(0, class) };
        assert_eq!(next_call(&route(2), std::slice::from_ref(&doubtful)), Some(1), "{class}");
        // The only rung is asked again after a pause, but not for ever while the key is good for others.
        let step = after(&route(1), &vec![doubtful.clone(); 2], NOW);
        assert!(wait_until(&step).is_some(), "{class}: {step:?}");
        let one = Job { max_attempts: Some(1), ..job() };
        let step = decide(&one, &route(1), &[0], &vec![doubtful.clone(); 2], &[], NOW);
        assert!(wait_until(&step).is_some(), "{class}: it uses up no attempt");
        let step = after(&route(1), &vec![doubtful; 3], NOW);
        assert_eq!(failure(&step).map(|(class, _)| class), Some(class));
    }
}

/// A typing error in a name costs no job: each waits until the model is there, however often it was told so.
#[test]
fn a_model_that_is_unknown_is_waited_for_where_there_is_no_other() {
    for class in [Class::Permission, Class::NotFound] {
        let history = vec![told(0, class, "The model `x` does not exist."); 30];
        let one = Job { max_attempts: Some(1), ..job() };
        let step = decide(&one, &route(1), &[0], &history, &[], NOW);
        assert!(wait_until(&step).is_some(), "{class}: {step:?}");
        let health = [shut(Reason::Model, HOUR)];
        let step = decide(&one, &route(1), &[0], &history, &health, NOW);
        assert_eq!(wait_until(&step), Some(NOW + HOUR), "{class}");
        // Another rung is taken at once, and when that can never take the request, the model is waited for.
        assert_eq!(next_call(&route(2), &history), Some(1), "{class}");
        let refused = [history.clone(), vec![told(1, Class::Refused, "No.")]].concat();
        assert!(wait_until(&after(&route(2), &refused, NOW)).is_some(), "{class}");
    }
}

#[test]
fn a_rung_whose_refusal_can_be_mended_is_asked_again_at_once() {
    for class in [Class::Refused, Class::NeverFits] {
        let mendable = Attempt { is_mendable: true, ..told(0, class, "Use 'max_completion_tokens' instead.") };
        assert_eq!(next_call(&route(2), std::slice::from_ref(&mendable)), Some(0), "{class}");
        let one = Job { max_attempts: Some(1), ..job() };
        let step = decide(&one, &route(2), &[0, 1], std::slice::from_ref(&mendable), &[], NOW);
        assert_eq!(called(&step), Some(0), "{class}: it uses up no attempt");
        assert_eq!(next_call(&route(2), &[mendable, told(0, class, "No.")]), Some(1), "{class}: and then no longer");
    }
}

#[test]
fn an_ending_quotes_the_provider_and_not_at_length() {
    let history = [told(0, Class::Refused, "No `tools` here."), told(1, Class::ContextLength, &"long ".repeat(90))];
    let step = after(&route(2), &history, NOW);
    let (class, reason) = failure(&step).expect("no rung is left");
    assert_eq!(class, Class::ContextLength);
    assert!(
        reason.starts_with("no rung is left: p/0: refused “No `tools` here.”; p/1: context_length “long "),
        "{reason}"
    );
    assert!(reason.ends_with("…”") && reason.chars().count() < 350, "{reason}");
    let used_up = vec![told(0, Class::ServerError, "Oh."); 6];
    let reason = "all 6 attempts used up, the last: server_error “Oh.”";
    assert_eq!(failure(&after(&route(1), &used_up, NOW)), Some((Class::ServerError, reason)));
}

#[test]
fn a_job_ends_when_its_attempts_are_used_up() {
    let history = vec![rejected(0, SoftFailure::Empty); 60];
    let reason = "all 6 attempts used up, the last: soft_failure (empty)";
    assert_eq!(failure(&after(&route(2), &history[..6], NOW)), Some((Class::SoftFailure, reason)));
    for (own, most) in [(Some(2), 2), (Some(6), 6), (Some(60), 6), (Some(u16::MAX), 6), (Some(0), 1), (None, 6)] {
        let job = Job { max_attempts: own, ..job() };
        let ends = |count: usize| {
            let step = decide(&job, &route(2), &[0, 1], &history[..count], &[], NOW);
            failure(&step).is_some()
        };
        assert!(ends(most) && !ends(most - 1), "{own:?}");
    }
    let once = Job { max_attempts: Some(1), ..job() };
    let reason = "the only attempt used up: soft_failure (empty)";
    let step = decide(&once, &route(2), &[0, 1], &history[..1], &[], NOW);
    assert_eq!(failure(&step), Some((Class::SoftFailure, reason)));
}

#[test]
fn a_job_that_asks_for_more_attempts_than_its_route_allows_is_told_so() {
    let job = Job { max_attempts: Some(i16::MAX.unsigned_abs()), ..job() };
    let history = vec![rejected(0, SoftFailure::Empty); 6];
    let step = decide(&job, &route(2), &[0, 1], &history, &[], NOW);
    let reason = format!(
        "all 6 attempts used up (route {} allows no more; the job asks for 32767), the last: soft_failure (empty)",
        route(2).name
    );
    assert_eq!(failure(&step), Some((Class::SoftFailure, reason.as_str())));
}

#[test]
fn a_job_ends_even_if_it_only_ever_waits() {
    let history = vec![failed(0, Class::RateLimit); MOST_ATTEMPTS];
    assert_eq!(next_call(&route(1), &history[1..]), Some(0));
    let reason = "1000 attempts of any kind made, the last: rate_limit";
    assert_eq!(failure(&after(&route(1), &history, NOW)), Some((Class::RateLimit, reason)));
}

#[test]
fn a_job_ends_at_its_deadline_and_waits_no_longer() {
    let job = Job { deadline: Some(NOW + SECOND), ..job() };
    let health = [shut(Reason::RateLimit, HOUR)];
    let step = |now| decide(&job, &route(1), &[0], &[], &health, now);
    assert_eq!(wait_until(&step(NOW)), Some(NOW + SECOND));
    let reason = "the deadline passed before an answer was accepted; no call was made since it came into the queue";
    assert_eq!(failure(&step(NOW + SECOND)), Some((Class::Deadline, reason)));
}

#[test]
fn a_job_that_no_rung_can_take_ends_with_every_reason() {
    let window = Ineligible::ContextWindow { needed: 5_000, window: 4_096 };
    let bucket = Ineligible::BucketTooSmall { unit: Unit::InputTokens, needed: 5_000, size: 1_000 };
    let tools = Ineligible::Unsupported("tools".into());
    for (why, class) in [
        (window.clone(), Class::ContextLength),
        (bucket.clone(), Class::NeverFits),
        (tools.clone(), Class::InvalidRequest),
    ] {
        assert_eq!(failure(&fresh(&route(1), &[RungHealth::Ineligible(why)])).map(|(class, _)| class), Some(class));
    }
    let step = fresh(&route(3), &[window, bucket, tools].map(RungHealth::Ineligible));
    let reason = "no rung is left: p/0: needs about 5000 tokens, its window has 4096; \
                  p/1: needs about 5000 input tokens, its limit allows 1000 at once; p/2: does not support tools";
    assert_eq!(failure(&step), Some((Class::ContextLength, reason)));
}

#[test]
fn a_request_that_the_provider_found_too_large_ends_with_the_numbers_where_they_are_known() {
    let why = Ineligible::BucketTooSmall { unit: Unit::Tokens, needed: 45_000, size: 30_000 };
    let health = [RungHealth::Ineligible(why)];
    let end = |route: &Route| {
        failure(&decide(&job(), route, &[0], &[failed(0, Class::NeverFits)], &health, NOW))
            .map(|(class, reason)| (class, reason.to_owned()))
    };
    let numbers = "needs about 45000 tokens, its limit allows 30000 at once";
    let reason = format!("no rung is left: p/0: {numbers} (the last: never_fits)");
    assert_eq!(end(&route(1)), Some((Class::NeverFits, reason)));
    let reason = format!("p/0: never_fits ({numbers}), which route r does not fall back on");
    assert_eq!(end(&Route { fallback_on: [].into(), ..route(1) }), Some((Class::NeverFits, reason)));
}

#[test]
fn a_job_that_every_rung_turned_away_ends_with_the_last_class() {
    let history = [failed(0, Class::Refused), failed(1, Class::ContentPolicy)];
    let reason = "no rung is left: p/0: refused; p/1: content_policy";
    assert_eq!(failure(&after(&route(2), &history, NOW)), Some((Class::ContentPolicy, reason)));
    // An answer that is not used has no words of a provider, and is named once all the same.
    for soft in [SoftFailure::ContentFiltered, SoftFailure::Refusal] {
        let step = after(&Route { max_attempts: 2, ..route(1) }, &[failed(0, Class::Timeout), rejected(0, soft)], NOW);
        let (_, reason) = failure(&step).unwrap();
        assert_eq!(reason.matches("soft_failure").count(), 1, "{reason}");
    }
}
