//! Why a rung was passed over or is waited for: as the ledger keeps it, and in a few words.

use crate::domain::Timestamp;
use crate::domain::decide::{Ineligible, Skip, Worth};
use crate::store::claim::datetime;
use serde_json::{Value, json};

/// What a job rests for: the target, why it cannot be called, and why the job does not go elsewhere.
///
/// Status counts jobs by these words, so there are few of them and no instants in them.
pub(super) fn what_is_waited_for(target: &str, why: &Skip, is_only: bool) -> String {
    match why {
        Skip::Shut { shut, worth } => {
            let because = match worth {
                // The only rung of its route: patience and `fallback_on` choose between nothing.
                _ if is_only => "nowhere else to go",
                Worth::Patience { until: Timestamp::MAX } => "patience without end",
                Worth::Patience { .. } => "within patience",
                Worth::NoFallback => "no fallback from that",
                // Not worth waiting for, but no other rung is to be had either.
                Worth::NoPatience | Worth::PatienceOver { .. } | Worth::DeadlineNear { .. } | Worth::Pointless => {
                    "nowhere else to go"
                }
            };
            format!("{target}: {} ({because})", shut.reason.as_str())
        }
        Skip::BackingOff { .. } | Skip::TooLate { .. } => format!("{target}: retry"),
        Skip::Failed(class) => format!("{target}: {class}"),
        Skip::Ineligible(_) => target.to_owned(),
    }
}

/// Why a rung was passed over, for the `decision` of the attempt that was made instead.
pub(super) fn explain_skip(why: &Skip) -> Value {
    let at = |at: Timestamp| json!(datetime(at));
    match why {
        Skip::Shut { shut, worth } => {
            let mut skip = json!({ "why": shut.reason.as_str(), "until": at(shut.until) });
            let (passed_over, ended) = match worth {
                // Waited for, and so never passed over.
                Worth::Patience { .. } | Worth::NoFallback => return skip,
                Worth::NoPatience => ("no_patience", None),
                Worth::PatienceOver { at } => ("patience_over", Some(*at)),
                Worth::DeadlineNear { at } => ("deadline_near", Some(*at)),
                Worth::Pointless => ("waiting_is_pointless", None),
            };
            skip["passed_over"] = json!(passed_over);
            if let Some(ended) = ended {
                skip["patience_until"] = at(ended);
            }
            skip
        }
        Skip::Ineligible(Ineligible::ContextWindow { needed, window }) => {
            json!({ "why": "context_window", "needed": needed, "window": window })
        }
        Skip::Ineligible(Ineligible::BucketTooSmall { unit, needed, size }) => {
            json!({ "why": "bucket_too_small", "unit": unit.as_str(), "needed": needed, "size": size })
        }
        Skip::Ineligible(Ineligible::Unsupported(what)) => json!({ "why": "unsupported", "what": what }),
        Skip::Failed(class) => json!({ "why": "failed", "class": class.as_str() }),
        Skip::BackingOff { until } => json!({ "why": "backing_off", "until": at(*until) }),
        Skip::TooLate { until, latest } => json!({ "why": "too_late", "until": at(*until), "latest": at(*latest) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Unit;
    use crate::domain::shut::{Reason, Shut};

    const UNTIL: Timestamp = Timestamp(1_800_000_000_000);
    const ENDED: Timestamp = Timestamp(1_799_999_940_000);

    fn closed(worth: Worth) -> Skip {
        Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: ENDED, until: UNTIL }, worth }
    }

    #[test]
    fn the_ledger_keeps_what_cut_the_wait_short_and_when() {
        for (worth, passed_over, until) in [
            (Worth::NoPatience, "no_patience", None),
            (Worth::PatienceOver { at: ENDED }, "patience_over", Some("2027-01-15T07:59:00Z")),
            (Worth::DeadlineNear { at: ENDED }, "deadline_near", Some("2027-01-15T07:59:00Z")),
            (Worth::Pointless, "waiting_is_pointless", None),
        ] {
            let skip = explain_skip(&closed(worth));
            assert_eq!((&skip["why"], &skip["until"]), (&json!("rate_limit"), &json!("2027-01-15T08:00:00Z")));
            assert_eq!(skip["passed_over"], json!(passed_over));
            assert_eq!(skip.get("patience_until"), until.map(Value::from).as_ref(), "{passed_over}");
        }
        let why = Ineligible::BucketTooSmall { unit: Unit::InputTokens, needed: 9, size: 8 };
        let expected = json!({ "why": "bucket_too_small", "unit": "input_tokens", "needed": 9, "size": 8 });
        assert_eq!(explain_skip(&Skip::Ineligible(why)), expected);
    }

    #[test]
    fn a_job_that_rests_says_why_it_does_not_go_elsewhere_in_few_words() {
        let words = |worth| what_is_waited_for("p/m", &closed(worth), false);
        assert_eq!(words(Worth::Patience { until: UNTIL }), "p/m: rate_limit (within patience)");
        assert_eq!(words(Worth::Patience { until: Timestamp::MAX }), "p/m: rate_limit (patience without end)");
        assert_eq!(words(Worth::NoFallback), "p/m: rate_limit (no fallback from that)");
        for worth in
            [Worth::NoPatience, Worth::Pointless, Worth::PatienceOver { at: ENDED }, Worth::DeadlineNear { at: ENDED }]
        {
            assert_eq!(words(worth), "p/m: rate_limit (nowhere else to go)");
        }
        for worth in [Worth::Patience { until: UNTIL }, Worth::NoFallback, Worth::NoPatience] {
            let alone = what_is_waited_for("p/m", &closed(worth), true);
            assert_eq!(alone, "p/m: rate_limit (nowhere else to go)");
        }
    }
}
