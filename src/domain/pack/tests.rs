use super::*;
use crate::domain::{Scope, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parsed(body: &Value) -> ChatRequest {
    ChatRequest::parse(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn key(body: &Value) -> PackKey {
    PackKey::of(&parsed(body)).expect("a request for embeddings")
}

#[test]
fn only_requests_that_ask_for_the_same_share_a_call() {
    let one = key(&json!({"input": "a", "dimensions": 4, "input_type": "search_query", "user": "ann"}));
    for same in [
        json!({"user": "ann", "input_type": "search_query", "dimensions": 4, "input": ["b", "c"]}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_query", "user": "ann", "truncate": null}),
    ] {
        assert_eq!(key(&same), one, "{same}");
    }
    for other in [
        json!({"input": "a", "dimensions": 5, "input_type": "search_query", "user": "ann"}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_document", "user": "ann"}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_query", "user": "bob"}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_query"}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_query", "user": "ann", "model": "m"}),
        json!({"input": "a", "dimensions": 4, "input_type": "search_query", "user": "ann",
            "encoding_format": "base64"}),
        json!({"input": [1, 2], "dimensions": 4, "input_type": "search_query", "user": "ann"}),
    ] {
        assert_ne!(key(&other), one, "{other}");
    }
    assert_eq!(PackKey::of(&parsed(&json!({"prompt": "a"}))), None);
}

#[test]
fn a_merged_request_has_all_inputs_in_order_and_the_rest_as_it_was_written() {
    let requests = [
        parsed(&json!({"input": "a", "dimensions": 4, "odd": 1.50})),
        parsed(&json!({"odd": 1.50, "input": ["b", "\"c\""], "dimensions": 4})),
    ];
    let whole = merged(&requests).unwrap();
    let body: Value = serde_json::from_str(&whole.raw).unwrap();
    assert_eq!(body, json!({"input": ["a", "b", "\"c\""], "dimensions": 4, "odd": 1.5}));
    assert_eq!(parsed(&body).embed, whole.embed);
    assert_eq!((whole.unread.clone(), whole.max_tokens), (vec!["odd".to_owned()], Some(0)));
    let tokens = [parsed(&json!({"input": [1, 2]})), parsed(&json!({"input": [[3], [4, 5]]}))];
    let whole = merged(&tokens).unwrap();
    let numbers = json!([[1, 2], [3], [4, 5]]);
    assert_eq!(serde_json::from_str::<Value>(&whole.raw).unwrap()["input"], numbers);
    assert_eq!(merged([&requests[0], &tokens[0]]), None);
    assert_eq!(merged([]), None);
}

#[test]
fn vectors_are_dealt_in_the_order_of_the_requests_or_not_at_all() {
    let list = |numbers: &[f32]| Vectors::in_order(numbers.iter().map(|number| vec![*number]).collect());
    let dealt_out = dealt(list(&[1.0, 2.0, 3.0]), &[1, 2]);
    assert_eq!(dealt_out, Some(vec![list(&[1.0]), list(&[2.0, 3.0])]));
    for (vectors, counts) in [
        (list(&[1.0, 2.0]), vec![1, 2]),
        (list(&[1.0, 2.0, 3.0, 4.0]), vec![1, 2]),
        (Vectors::placed(vec![(Some(0), vec![1.0]), (Some(0), vec![2.0])]), vec![1, 1]),
    ] {
        assert_eq!(dealt(vectors, &counts), None);
    }
}

#[test]
fn bounds_hold_together() {
    let (route, vendor) = (PackBounds { inputs: 64, tokens: None }, PackBounds { inputs: 96, tokens: Some(1_000) });
    let both = route.and(vendor);
    assert_eq!(both, PackBounds { inputs: 64, tokens: Some(1_000) });
    assert!(both.allow(64, 1_000) && !both.allow(65, 1) && !both.allow(1, 1_001));
    assert!(PackBounds::of_inputs(2).allow(2, u64::MAX));
}

#[test]
fn a_refusal_that_may_be_one_requests_fault_parts_them_and_every_other_failure_is_shared() {
    use ErrorClass::{ContentPolicy, ContextLength, InvalidRequest, NeverFits, PayloadTooLarge, Refused};
    for &class in ErrorClass::ALL {
        let smaller = [ContentPolicy, ContextLength, InvalidRequest, NeverFits, PayloadTooLarge, Refused];
        let expected = if smaller.contains(&class) { Parting::Smaller } else { Parting::Together };
        let failure = Failure::new(class, Scope::Request, "no");
        let of = |failure: &Failure, is_mendable| Parting::of(&Outcome::Failed(class), Some(failure), is_mendable);
        assert_eq!(of(&failure, false), expected, "{class}");
        assert_eq!(of(&failure, true), Parting::Together, "{class}");
        let in_doubt = Failure { bearing: Bearing::InDoubt, ..failure };
        assert_eq!(of(&in_doubt, false), Parting::Alone, "{class}");
    }
    for (outcome, expected) in [
        (Outcome::Accepted, Parting::Together),
        (Outcome::Rejected(SoftFailure::VectorCount), Parting::Alone),
        (Outcome::Rejected(SoftFailure::VectorZero), Parting::Together),
    ] {
        assert_eq!(Parting::of(&outcome, None, false), expected, "{outcome:?}");
    }
}

#[test]
fn a_job_that_failed_twice_goes_alone_and_waiting_is_not_failing() {
    let attempt = |outcome: Outcome| Attempt::new(Some(0), outcome, Timestamp(0));
    let failed = |class| attempt(Outcome::Failed(class));
    let (server, limit) = (failed(ErrorClass::ServerError), failed(ErrorClass::RateLimit));
    let crowd = failed(ErrorClass::Overloaded);
    let zero = attempt(Outcome::Rejected(SoftFailure::VectorZero));
    for (history, expected) in [
        (vec![], Company::Any),
        (vec![server.clone(), limit.clone(), limit, crowd.clone(), crowd], Company::Any),
        (vec![server.clone(), server.clone()], Company::Alone),
        (vec![server, zero], Company::Alone),
    ] {
        assert_eq!(Company::Any.given(&history), expected, "{history:?}");
    }
    assert_eq!(Company::Alone.given(&[]), Company::Alone);
}

proptest! {
    #[test]
    fn parts_are_smaller_have_every_job_once_and_end_with_single_ones(jobs in 2_usize..3_000, pack in any::<u64>()) {
        let places = || 0..jobs;
        let mut known: Vec<(Company, usize)> = Vec::new();
        for place in places() {
            let company = Company::after(Parting::Smaller, pack, place, jobs).unwrap();
            match known.last_mut() {
                Some((last, count)) if *last == company && company != Company::Alone => *count += 1,
                _ => known.push((company, 1)),
            }
        }
        prop_assert!(known.len() <= 8);
        for (company, count) in known {
            // No job waits in a part for a job that is in another.
            prop_assert_eq!(company.complete_at(), Some(count));
            prop_assert!(count < jobs);
        }
        prop_assert!(places().all(|place| Company::after(Parting::Alone, pack, place, jobs) == Some(Company::Alone)));
        prop_assert_eq!(Company::after(Parting::Together, pack, 0, jobs), None);
    }

    #[test]
    fn what_is_merged_and_dealt_out_again_is_what_each_request_asked_for(
        counts in prop::collection::vec(1_usize..6, 1..20),
    ) {
        let mut number = 0.0_f32;
        let mut all = Vec::new();
        let mut expected = Vec::new();
        for &count in &counts {
            let own: Vec<Vec<f32>> = (0..count).map(|_| { number += 1.0; vec![number] }).collect();
            all.extend(own.clone());
            expected.push(Vectors::in_order(own));
        }
        prop_assert_eq!(dealt(Vectors::in_order(all), &counts), Some(expected));
    }
}
