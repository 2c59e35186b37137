//! `[routes.NAME.shadow]`.

use super::section::Section;
use crate::domain::budget::amount;
use crate::domain::{MaxFailed, NanoUsd, Rung, Target, bounds, shadow};

const TARGET: &str = "\"provider/model\"";
const SHARE: &str = "a share above 0 and up to 1, such as 0.05";
const LIMIT: &str = "the dollars that it may cost in a day, as a text such as \"5.00\"";

/// A shadow as it is written, but for the model and its price.
pub(super) struct Written {
    pub target: Option<Target>,
    pub share: Option<MaxFailed>,
    pub limit: Option<NanoUsd>,
}

/// Reads what the section says. Faults that the target has as a rung are found by its reader.
pub(super) fn read(section: &mut Section<'_>) -> Written {
    for (key, expected) in [("target", TARGET), ("share", SHARE), ("limit", LIMIT)] {
        if !section.has(key) {
            section.fault(key, "is missing", expected);
        }
    }
    let target = section.parsed("target", TARGET, |text| {
        Target::parse(text).ok_or_else(|| format!("{text:?} has no provider or no model"))
    });
    let limit = section.parsed("limit", LIMIT, |text| amount(text).map_err(|problem| format!("{text:?} {problem}")));
    Written { target, share: section.fraction_of("share", SHARE), limit }
}

/// Finds what makes the shadow of a route with this name and these rungs useless.
pub(super) fn check(section: &Section<'_>, name: &str, rungs: &[Rung], shadow: &Rung) {
    if rungs.iter().any(|rung| rung.target == shadow.target) {
        let problem = format!("{} is a rung of this route: it would be a shadow of itself", shadow.target);
        section.fault("target", problem, "a target that the route does not ask");
    }
    if !shadow.is_priced() {
        let problem = format!("the price of {} is unknown, so that `limit` would not hold", shadow.target);
        let expected = format!("a price under [models.\"{}\"]", shadow.target.in_no_tier());
        section.fault("target", problem, expected);
    }
    if let Err(reason) = bounds::check("route", &shadow::route_name(name)) {
        section.fault("target", format!("the name of the route that its jobs need {reason}"), "a shorter name");
    }
}
