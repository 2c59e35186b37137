//! The rungs that a configuration has for one job: in which order it tries them, what each is expected to cost, and
//! which of them can never take its request. `explain` shows this beside the ledger, which tells of the rungs that were
//! asked or passed over.

use super::cost_bound::CostBound;
use super::decide::{Condition, Ineligible, RungHealth};
use super::request::Extras;
use super::routing::{self, Unrouted};
use super::strategy::{self, Conditions};
use super::{
    ChatRequest, ErrorClass, Job, JobId, MustKeep, NanoUsd, Route, Rung, Sizes, Strategy, StrategyKind, Target,
    Timestamp, eligibility, estimate,
};

/// The rungs of a route, as one job would try them.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The route on which the rules of the named route end.
    pub route: String,
    pub strategy: StrategyKind,
    /// Whether the order follows from the configuration and the job alone. Otherwise it also follows from what was free
    /// or fast at the moment of each call, and the listed order stands here.
    pub is_fixed: bool,
    pub rungs: Vec<CourseRung>,
    /// The failures after which its jobs go on to another rung.
    pub falls_back_on: Vec<ErrorClass>,
}

/// A rung of a course.
#[derive(Clone, Debug, PartialEq)]
pub struct CourseRung {
    pub target: Target,
    /// What a call is expected to cost; `None`: its price is unknown.
    pub expected: Option<NanoUsd>,
    /// Why the model can never take the request; `None`: nothing known speaks against it.
    pub ineligible: Option<Ineligible>,
}

/// Why the server of a rung can never take a request of which these members have to be kept; `None`: nothing known
/// speaks against it.
pub type Refuses<'a> = dyn Fn(&Rung, &ChatRequest, &MustKeep) -> Option<Ineligible> + 'a;

/// The course of a job whose row names `named`, with the prices of the instant `at`. `find` knows the routes by their
/// names, of which there are at most `routes`. `None`: there is no such route, or the request
/// cannot be read.
#[must_use]
pub fn of<'r>(
    named: &str,
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    asked: &Unrouted<'_>,
    id: JobId,
    at: Timestamp,
    refuses: &Refuses<'_>,
) -> Option<Course> {
    let routed = routing::route(find(named)?, find, routes, asked).ok()?;
    let (route, whole) = (routed.route, &routed.request);
    // What the route holds back is sent to no rung, so it rules none out, unless it has to be kept.
    let lost = route.must_keep.held_back(whole, &route.pass);
    let left = whole.without_held_back(&route.pass).and_then(Result::ok);
    let request = left.as_ref().unwrap_or(whole);
    let job = Job {
        id,
        ready_at: at,
        deadline: None,
        max_attempts: None,
        input_tokens: routed.input_tokens,
        max_output_tokens: request.max_tokens,
        sticky: route.sticky(asked.project, asked.batch, asked.metadata),
        extras: Extras::of(request, &route.pass),
    };
    let sizes = Sizes { input: u64::try_from(job.input_tokens).unwrap_or(0), ..Sizes::default() };
    let untouched = route.max_cost.map(|limit| CostBound { limit, spent: Some(NanoUsd::ZERO) });
    let rung = |index: &usize| {
        let rung = route.rungs.get(*index)?;
        let price = rung.price_at(at);
        let cap = if request.embed.is_some() { Some(0) } else { job.max_output_tokens };
        Some(CourseRung {
            target: rung.target.clone(),
            expected: price.map(|price| estimate::expected_cost(&price, job.input_tokens, cap)),
            ineligible: eligibility::ineligible(&rung.model.capabilities, &sizes, request)
                .or_else(|| lost.clone())
                .or_else(|| refuses(rung, request, &route.must_keep))
                .or_else(|| untouched?.refuses(rung.worst_cost(&job, at))),
        })
    };
    let open: Vec<Condition> = route.rungs.iter().map(|_| RungHealth::Open.into()).collect();
    let mut order = Vec::new();
    strategy::order(route, &Conditions::of_job(&job, None, at, &open), &mut order);
    let is_fixed = !matches!(route.strategy, Strategy::Balanced | Strategy::Fastest);
    if !is_fixed {
        order.sort_unstable();
    }
    Some(Course {
        route: route.name.clone(),
        strategy: route.strategy.kind(),
        is_fixed,
        rungs: order.iter().filter_map(rung).collect(),
        falls_back_on: ErrorClass::ALL.iter().copied().filter(|class| route.falls_back_on(*class)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fork::{Fork, Names, When};
    use crate::domain::price::{Price, PriceTerms};
    use crate::domain::timeouts::Timeouts;
    use crate::domain::{Capabilities, Metadata, Model};
    use std::collections::BTreeSet;
    use std::time::Duration;

    const FREE_OF_TOOLS: Capabilities = Capabilities {
        context_window: None,
        max_output_tokens: None,
        json_schema: None,
        tools: Some(false),
        images: None,
        files: None,
        audio: None,
        temperature: None,
        ignores_cap: false,
        unsent_extras: BTreeSet::new(),
    };

    fn rung(model: &str, dollars: Option<i64>, capabilities: Capabilities) -> Rung {
        let price = dollars.map(|dollars| Price::plain(dollars * 1_000_000_000, dollars * 1_000_000_000).into());
        Rung {
            target: Target::new("p", model),
            model: Model { terms: PriceTerms { price, ..PriceTerms::default() }, capabilities, ..Model::default() },
            timeouts: Timeouts::of(Duration::from_mins(1)),
            stream: false,
        }
    }

    fn route(name: &str, strategy: Strategy, rungs: Vec<Rung>) -> Route {
        Route {
            strategy,
            max_attempts: 6,
            fallback_on: BTreeSet::from([ErrorClass::ServerError]),
            ..Route::plain(name, rungs)
        }
    }

    fn three(strategy: Strategy) -> Route {
        let any = Capabilities::default();
        let rungs =
            vec![rung("dear", Some(9), any.clone()), rung("unknown", None, any), rung("cheap", Some(1), FREE_OF_TOOLS)];
        route("r", strategy, rungs)
    }

    fn course(named: &Route, others: &[Route], body: &str) -> Option<Course> {
        let metadata = Metadata::default();
        let asked = Unrouted { body, project: "acme", batch: None, metadata: &metadata };
        let find = |name: &str| others.iter().chain([named]).find(|route| route.name == name);
        let refuses = |rung: &Rung, _: &ChatRequest, _: &MustKeep| {
            (rung.target.model == "unknown").then(|| Ineligible::Unsupported("what is asked".to_owned()))
        };
        of(&named.name, &find, others.len() + 1, &asked, JobId(7), Timestamp(1_800_000_000_000), &refuses)
    }

    fn names(course: &Course) -> Vec<&str> {
        course.rungs.iter().map(|rung| rung.target.model.as_str()).collect()
    }

    #[test]
    fn by_cost_the_cheapest_is_first_and_each_has_its_expected_cost_and_its_fault() {
        let body = r#"{"prompt":"Hi","max_tokens":100,"tools":[{"type":"function","function":{"name":"f"}}]}"#;
        let course = course(&three(Strategy::Cost), &[], body).unwrap();
        assert_eq!(names(&course), ["cheap", "dear", "unknown"]);
        assert!(course.is_fixed);
        let costs: Vec<Option<NanoUsd>> = course.rungs.iter().map(|rung| rung.expected).collect();
        let [Some(cheap), Some(dear), None] = costs.as_slice() else { panic!("{costs:?}") };
        assert_eq!((cheap.0 * 9, cheap.0 >= 100 * 1000), (dear.0, true));
        let faults: Vec<bool> = course.rungs.iter().map(|rung| rung.ineligible.is_some()).collect();
        assert_eq!(faults, [true, false, true]);
        assert!(course.falls_back_on.contains(&ErrorClass::ServerError));
        assert!(!course.falls_back_on.contains(&ErrorClass::ContentPolicy));
    }

    #[test]
    fn what_the_route_holds_back_or_cannot_pay_for_is_told_as_the_worker_would() {
        // A tier chooses what is paid for, so it is held back, and rules no rung out.
        let body = r#"{"prompt":"Hi","max_tokens":100,"service_tier":"flex"}"#;
        let named = three(Strategy::Priority);
        let refuses = |_: &Rung, request: &ChatRequest, _: &MustKeep| {
            request.raw.contains("service_tier").then(|| Ineligible::Unsupported("service_tier".to_owned()))
        };
        let told = |route: &Route| {
            let metadata = Metadata::default();
            let asked = Unrouted { body, project: "acme", batch: None, metadata: &metadata };
            let find = |name: &str| (name == "r").then_some(route);
            let course = of("r", &find, 1, &asked, JobId(7), Timestamp(1_800_000_000_000), &refuses).unwrap();
            course.rungs.into_iter().map(|rung| rung.ineligible.map(|why| why.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(told(&named), [None, None, None]);
        let bound = told(&Route { max_cost: Some(NanoUsd(500_000)), ..named });
        assert!(bound[0].as_ref().is_some_and(|why| why.contains("max_cost is $0.0005")), "{bound:?}");
        assert!(bound[1].as_ref().is_some_and(|why| why.contains("has no price")), "{bound:?}");
        assert_eq!(bound[2], None);
    }

    #[test]
    fn an_order_that_follows_from_the_moment_stands_as_listed() {
        for strategy in [Strategy::Balanced, Strategy::Fastest] {
            let course = course(&three(strategy), &[], r#"{"prompt":"Hi"}"#).unwrap();
            assert_eq!((names(&course), course.is_fixed), (vec!["dear", "unknown", "cheap"], false));
        }
        let listed = course(&three(Strategy::Priority), &[], r#"{"prompt":"Hi"}"#).unwrap();
        assert_eq!((names(&listed), listed.is_fixed), (vec!["dear", "unknown", "cheap"], true));
    }

    #[test]
    fn the_course_is_that_of_the_route_to_which_the_rules_lead() {
        let when = When { project: Some(Names(vec!["acme".to_owned()])), ..When::default() };
        let named = Route { forks: vec![Fork { when, to: "other".to_owned() }], ..three(Strategy::Cost) };
        let others = [route("other", Strategy::Cost, vec![rung("only", Some(1), Capabilities::default())])];
        let found = course(&named, &others, r#"{"prompt":"Hi"}"#).unwrap();
        assert_eq!((found.route.as_str(), names(&found)), ("other", vec!["only"]));
        assert_eq!(course(&named, &others, "{"), None);
    }
}
