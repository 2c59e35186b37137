//! Judges the vectors of an answer to a request for embeddings.

use super::Faults;
use crate::domain::request::Embed;
use crate::domain::{Answer, SoftFailure};

/// Judges the answer to `embed`. A route's rules about texts do not bind vectors.
pub(super) fn judge(answer: &Answer, embed: &Embed, faults: &mut Faults) {
    let asked = embed.inputs.count();
    let Some(vectors) = &answer.vectors else {
        faults.add(SoftFailure::VectorCount, &format_args!("no vectors at all for {asked} inputs"));
        return;
    };
    let list = vectors.list();
    if list.len() != asked {
        faults.add(SoftFailure::VectorCount, &format_args!("{} vectors for {asked} inputs", list.len()));
    } else if !vectors.is_in_order() {
        faults.add(SoftFailure::VectorCount, &"their places do not say which belongs to which input");
    }
    let wanted = match embed.dimensions {
        Some(dimensions) => usize::try_from(dimensions).unwrap_or(usize::MAX),
        None => vectors.dimension(),
    };
    if let Some((place, vector)) = find(list, |vector| vector.len() != wanted || vector.is_empty()) {
        let as_what = match embed.dimensions {
            Some(_) => "as asked for (a request without dimensions may help)",
            None => "as the first has",
        };
        let words = if wanted == 0 {
            format!("vector {place} has no numbers")
        } else {
            format!("vector {place} has {} numbers, not {wanted} {as_what}", vector.len())
        };
        faults.add(SoftFailure::VectorDimension, &words);
    }
    if let Some((place, _)) = find(list, |vector| vector.iter().any(|number| !number.is_finite())) {
        faults
            .add(SoftFailure::VectorNotFinite, &format_args!("vector {place} has a number that is none, or infinite"));
    }
    if let Some((place, _)) = find(list, |vector| !vector.is_empty() && vector.iter().all(|number| *number == 0.0)) {
        faults.add(SoftFailure::VectorZero, &format_args!("vector {place} is all zeros"));
    }
}

fn find(list: &[Vec<f32>], is_odd: impl Fn(&[f32]) -> bool) -> Option<(usize, &[f32])> {
    list.iter().map(Vec::as_slice).enumerate().find(|(_, vector)| is_odd(vector))
}

#[cfg(test)]
mod tests {
    use crate::domain::validation::Rules;
    use crate::domain::{Beside, ChatRequest, Finish, SoftFailure as Soft, Usage, Vectors, Verdict};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn answer(vectors: Option<Vectors>) -> crate::domain::Answer {
        crate::domain::Answer {
            text: None,
            refusal: None,
            reasoning: None,
            tool_calls: Vec::new(),
            finish: Finish::Complete,
            finish_raw: None,
            model: None,
            id: None,
            usage: Usage::default(),
            usage_raw: None,
            vectors,
            beside: Beside::default(),
        }
    }

    /// With every rule about texts switched on: none of them binds vectors.
    fn judged(body: &Value, vectors: Option<Vectors>) -> (Vec<Soft>, String) {
        let rules = Rules { non_empty: true, min_chars: Some(5), json: true, ..Rules::default() };
        match rules.judge(&answer(vectors), &ChatRequest::parse(body).unwrap(), None) {
            Verdict::Accepted => (Vec::new(), String::new()),
            Verdict::Rejected { failures, message } => (failures, message),
            Verdict::Repaired { .. } => panic!("nothing can be repaired"),
        }
    }

    #[test]
    fn vectors_are_as_many_and_as_long_as_asked_for_and_of_numbers() {
        let two = json!({"input": ["a", "b"]});
        let of_three = json!({"input": ["a", "b"], "dimensions": 3});
        let some = |list: &[&[f32]]| Some(Vectors::in_order(list.iter().map(|vector| vector.to_vec()).collect()));
        let doubled = Some(Vectors::placed(vec![(Some(0), vec![1.0]), (Some(0), vec![2.0])]));
        for (body, vectors, kinds, words) in [
            (&two, some(&[&[1.0, 0.0], &[0.0, 2.0]]), vec![], ""),
            (&of_three, some(&[&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]]), vec![], ""),
            (&two, None, vec![Soft::VectorCount], "no vectors at all for 2 inputs"),
            (&two, some(&[&[1.0]]), vec![Soft::VectorCount], "1 vectors for 2 inputs"),
            (&two, some(&[&[1.0], &[1.0], &[1.0]]), vec![Soft::VectorCount], "3 vectors for 2 inputs"),
            (&two, doubled, vec![Soft::VectorCount], "their places"),
            (&two, some(&[&[1.0], &[1.0, 2.0]]), vec![Soft::VectorDimension], "vector 1 has 2 numbers, not 1 as the"),
            (&two, some(&[&[], &[]]), vec![Soft::VectorDimension], "vector 0 has no numbers"),
            (
                &of_three,
                some(&[&[1.0], &[1.0]]),
                vec![Soft::VectorDimension],
                "has 1 numbers, not 3 as asked for (a request without dimensions may help)",
            ),
            (&two, some(&[&[1.0], &[f32::NAN]]), vec![Soft::VectorNotFinite], "vector 1 has a number that is none"),
            (&two, some(&[&[f32::INFINITY], &[1.0]]), vec![Soft::VectorNotFinite], "vector 0"),
            (&two, some(&[&[0.0, -0.0], &[1.0, 1.0]]), vec![Soft::VectorZero], "vector 0 is all zeros"),
            (
                &two,
                some(&[&[0.0], &[1.0, f32::NAN]]),
                vec![Soft::VectorDimension, Soft::VectorNotFinite, Soft::VectorZero],
                "",
            ),
        ] {
            let (found, message) = judged(body, vectors);
            assert_eq!(found, kinds, "{message}");
            assert!(message.contains(words), "{message}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_accepted_only_if_it_is_whole(
            list in prop::collection::vec(prop::collection::vec(any::<f32>(), 0..4), 0..4),
            asked in 1_usize..4,
        ) {
            let (faults, _) = judged(&json!({"input": vec!["a"; asked]}), Some(Vectors::in_order(list.clone())));
            let is_whole = list.len() == asked
                && list.iter().all(|vector| {
                    vector.len() == list[0].len()
                        && vector.iter().all(|number| number.is_finite())
                        && vector.iter().any(|number| *number != 0.0)
                });
            prop_assert_eq!(faults.is_empty(), is_whole, "{:?}", faults);
        }
    }
}
