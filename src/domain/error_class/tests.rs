//! The table agrees with itself and with the handbook.

use super::*;
use std::fmt::Write as _;

#[test]
fn the_handbook_has_this_very_table() {
    let handbook = include_str!("../../../docs/operations.md");
    let (title, rule) =
        ("| class | meaning | reaction | counts as an attempt | lets a job move on |", "|---|---|---|---|---|");
    let mut expected = format!("{title}\n{rule}\n");
    for class in ErrorClass::ALL {
        let facts = class.facts();
        let counts = match (facts.remedy, facts.uses_up_an_attempt) {
            // No attempt ends so.
            (Remedy::End, _) => "",
            (_, true) => "yes",
            (_, false) => "no",
        };
        let moves_on = match facts.fallback {
            _ if facts.remedy == Remedy::End => String::new(),
            Fallback::Always => "always".to_owned(),
            Fallback::ByDefault => "by default".to_owned(),
            Fallback::As(other) => format!("as `{other}`"),
            Fallback::IfListed => "if listed".to_owned(),
        };
        writeln!(expected, "| `{class}` | {} | {} | {counts} | {moves_on} |", facts.meaning, facts.reaction).unwrap();
    }
    let found = handbook.find(title).map(|begin| &handbook[begin..]).expect("the table of error classes");
    let found = &found[..found.find("\n\n").map_or(found.len(), |end| end + 1)];
    let expected = expected.replace("|  |", "| |").replace("|  |", "| |");
    assert!(found == expected, "docs/operations.md is to have this table of error classes:\n\n{expected}");
}

#[test]
fn the_words_for_the_operator_say_what_the_remedy_is() {
    for class in ErrorClass::ALL {
        let facts = class.facts();
        let begins = |words: &[&str]| words.iter().any(|begin| facts.reaction.starts_with(begin));
        let agrees = match facts.remedy {
            Remedy::WaitForGate(_) => {
                begins(&["the bucket is shut", "as `rate_limit`", "the next key", "the rung rests", "the target rests"])
            }
            Remedy::RetrySame { tries: 2 } => begins(&["two more tries"]),
            Remedy::RetrySame { tries: 1 } => begins(&["one more try"]),
            Remedy::RetrySame { tries: 0 } => begins(&["form"]),
            Remedy::NextRung => begins(&["never this rung again for the job", "where the refusal names a change"]),
            Remedy::LargerWindow => begins(&["never this rung again, nor one with a window that is no larger"]),
            Remedy::End => begins(&["the job fails"]),
            Remedy::RetrySame { .. } | Remedy::Mend | Remedy::Reask => false,
        };
        assert!(agrees, "{class}: {:?}, and the handbook says {:?}", facts.remedy, facts.reaction);
    }
}

#[test]
fn a_class_has_one_name_in_rows_in_the_configuration_and_in_print() {
    let mut names = BTreeSet::new();
    for &class in ErrorClass::ALL {
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        assert_eq!(class.as_str().parse(), Ok(class));
        assert!(names.insert(class.as_str()), "{class} is there twice");
        assert!(class.as_str().chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{class}");
    }
    assert_eq!("of_tomorrow".parse::<ErrorClass>(), Err(()));
}

#[test]
fn what_waits_for_a_gate_never_uses_up_an_attempt() {
    for class in ErrorClass::ALL {
        if matches!(class.facts().remedy, Remedy::WaitForGate(_)) {
            assert!(!class.facts().uses_up_an_attempt, "{class}");
        }
    }
}

#[test]
fn what_waits_for_a_key_blames_it_and_what_waits_for_a_model_rests_its_target() {
    for class in ErrorClass::ALL {
        let waits = match class.facts().remedy {
            Remedy::WaitForGate(reason) if !reason.is_a_limit() && reason != Reason::NoCapacity => Some(reason),
            _ => None,
        };
        let model = (class.facts().effect == Effect::NoModel).then_some(Reason::Model);
        assert_eq!(waits, class.facts().key.map(KeyFault::reason).or(model), "{class}");
    }
}

#[test]
fn what_shuts_a_bucket_waits_for_it_and_is_no_illness() {
    for class in ErrorClass::ALL {
        let facts = class.facts();
        let shuts = matches!(facts.effect, Effect::Limit(_));
        assert_eq!(shuts, facts.remedy == Remedy::WaitForGate(Reason::RateLimit), "{class}");
        assert_eq!(shuts, facts.hints == Hints::WordsAndLimits, "{class}");
        assert!(!(shuts && facts.breaker == Sign::Bad), "{class}");
    }
}

#[test]
fn a_target_that_can_never_take_a_request_is_not_asked_again() {
    for class in ErrorClass::ALL {
        if class.facts().fallback == Fallback::Always {
            let is_for_good = matches!(class.facts().remedy, Remedy::NextRung | Remedy::LargerWindow);
            assert!(is_for_good || class.facts().effect == Effect::NoModel, "{class}");
        }
    }
}

#[test]
fn a_class_that_goes_along_with_another_is_in_every_list_that_has_it() {
    let listed = |classes: &[ErrorClass]| ErrorClass::with_those_that_go_along(classes.iter().copied().collect());
    assert_eq!(listed(&[ErrorClass::Network]), [ErrorClass::Network, ErrorClass::Unreachable].into());
    assert_eq!(listed(&[ErrorClass::Unreachable]), [ErrorClass::Unreachable].into());
    assert_eq!(listed(&[ErrorClass::Timeout]), [ErrorClass::Timeout].into());
    let default = ErrorClass::fallen_back_on_by_default();
    let not: Vec<_> = ErrorClass::ALL.iter().filter(|class| !default.contains(class)).collect();
    assert_eq!(not, [&ErrorClass::ContentPolicy, &ErrorClass::Abandoned, &ErrorClass::Deadline]);
}
