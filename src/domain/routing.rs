//! The route that a job goes along, and its request as that route completes it.

use super::defaults;
use super::estimate;
use super::fork::{self, Needs, Taken, Traits};
use super::language::TextLanguage;
use super::metadata::Metadata;
use super::request::{ChatRequest, RequestError};
use super::route::Route;

/// A job before its request has been read.
#[derive(Clone, Copy, Debug)]
pub struct Unrouted<'a> {
    /// Its request, as it was written.
    pub body: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
    /// The members of its metadata that rules look at.
    pub metadata: &'a Metadata,
}

/// A job whose route is found.
#[derive(Clone, Debug)]
pub struct Routed<'r> {
    pub route: &'r Route,
    /// The rules that led there.
    pub taken: Vec<Taken>,
    /// Its request, with what that route adds.
    pub request: ChatRequest,
    /// Estimated tokens of its prompt.
    pub input_tokens: i64,
}

/// Finds the route of a job whose row names `named`. The rules of each route see the request as that route completes
/// it; where it has no template for the `vars` of a request, they see the values as the prompt. `find` knows the routes
/// by their names, of which there are at most `routes`.
///
/// # Errors
/// The fault of the request on the route that was found.
pub fn route<'r>(
    named: &'r Route,
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    asked: &Unrouted<'_>,
) -> Result<Routed<'r>, RequestError> {
    let mut read = (named, named.defaults.read(asked.body));
    let seen = |route: &'r Route| {
        if route.defaults != read.0.defaults {
            read = (route, route.defaults.read(asked.body));
        }
        match &read.1 {
            Ok(request) => Some(look(route, request)),
            Err(_) => defaults::sketch(asked.body)?.ok().as_ref().map(|request| look(route, request)),
        }
    };
    let (route, taken) = walk(named, find, routes, asked, seen);
    let (of, request) = read;
    let request = if of.defaults == route.defaults { request } else { route.defaults.read(asked.body) }?;
    let input_tokens = estimate::input_tokens(&request);
    Ok(Routed { route, taken, request, input_tokens })
}

/// The route of a job whose request has been read already, and the rules that lead there: see [`route`].
pub fn again<'r>(
    named: &'r Route,
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    asked: &Unrouted<'_>,
    request: &ChatRequest,
) -> (&'r Route, Vec<Taken>) {
    let seen = (estimate::input_tokens(request), Needs::of(request));
    walk(named, find, routes, asked, |route| {
        let (input_tokens, needs) = seen;
        Some(LookOfRequest { input_tokens, needs, language: language_for(route, request) })
    })
}

/// What rules see of a request.
#[derive(Clone, Copy)]
struct LookOfRequest {
    input_tokens: i64,
    needs: Needs,
    language: Option<TextLanguage>,
}

/// What the rules of a route see of a request.
fn look(route: &Route, request: &ChatRequest) -> LookOfRequest {
    LookOfRequest {
        input_tokens: estimate::input_tokens(request),
        needs: Needs::of(request),
        language: language_for(route, request),
    }
}

/// The language of a prompt, where a rule of the route looks at it: to find it out takes a while.
fn language_for(route: &Route, request: &ChatRequest) -> Option<TextLanguage> {
    let is_asked = route.forks.iter().any(|fork| !fork.when.language.is_empty());
    if is_asked { fork::language_of(request) } else { None }
}

/// Follows the rules from route to route. `seen` is what the rules of a route see of the request; `None`: nothing.
fn walk<'r>(
    named: &'r Route,
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    asked: &Unrouted<'_>,
    mut seen: impl FnMut(&'r Route) -> Option<LookOfRequest>,
) -> (&'r Route, Vec<Taken>) {
    let (mut route, mut taken) = (named, Vec::new());
    // Rules form no circle, so no chain of them is longer than there are routes.
    while !route.forks.is_empty() && taken.len() < routes {
        let Some(LookOfRequest { input_tokens, needs, language }) = seen(route) else { break };
        let Unrouted { project, batch, metadata, .. } = *asked;
        let traits = Traits { project, batch, metadata, input_tokens, needs, language };
        let Some((rule, fork)) = fork::first(&route.forks, &traits) else { break };
        let Some(other) = find(&fork.to) else { break };
        taken.push(Taken { route: route.name.clone(), rule, to: fork.to.clone(), budget: None });
        route = other;
    }
    (route, taken)
}

#[cfg(test)]
mod tests {
    use super::super::defaults::Defaults;
    use super::super::fork::{Fork, Names, When};
    use super::super::template::{RequestTemplate, Template};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    fn named(name: &str, prompt: Option<&str>, forks: Vec<(When, &str)>) -> Route {
        let request = prompt.map(|prompt| RequestTemplate::of_prompt(Template::parse(prompt).unwrap(), None));
        Route {
            fallback_on: BTreeSet::new(),
            defaults: Arc::new(Defaults { request, ..Defaults::default() }),
            forks: forks.into_iter().map(|(when, to)| Fork { when, to: to.to_owned() }).collect(),
            ..Route::plain(name, Vec::new())
        }
    }

    /// The route that a request goes along, and what it asks.
    fn found(routes: &[Route], body: &str, project: &str) -> Result<(String, String, usize), String> {
        let known: BTreeMap<&str, &Route> = routes.iter().map(|route| (route.name.as_str(), route)).collect();
        let asked = Unrouted { body, project, batch: None, metadata: &Metadata::default() };
        let find = |name: &str| known.get(name).copied();
        let routed = route(known["root"], &find, known.len(), &asked).map_err(|fault| fault.to_string())?;
        let (same, taken) = again(known["root"], &find, known.len(), &asked, &routed.request);
        assert_eq!((same.name.as_str(), &taken), (routed.route.name.as_str(), &routed.taken), "{body}");
        Ok((routed.route.name.clone(), routed.request.messages[0].text(), routed.taken.len()))
    }

    #[test]
    fn each_route_on_the_way_sees_the_request_as_it_completes_it_and_the_last_one_asks() {
        let long = || When { min_input_tokens: Some(100), ..When::default() };
        let of = |project: &str| When { project: Some(Names(vec![project.to_owned()])), ..When::default() };
        let routes = [
            named("root", None, vec![(long(), "long"), (of("acme"), "short"), (of("lost"), "nowhere")]),
            named("long", Some("Long: {text}"), vec![(of("acme"), "longest")]),
            named("longest", Some("Longest: {text} {more}"), vec![]),
            named("short", Some("Short: {text}"), vec![]),
        ];
        let ok = |route: &str, asked: &str, rules: usize| Ok((route.to_owned(), asked.to_owned(), rules));
        let words = "word ".repeat(200);
        let body = format!(r#"{{"vars":{{"text":"{words}"}}}}"#);
        assert_eq!(found(&routes, &body, "p"), ok("long", &format!("Long: {words}"), 1));
        let missing = "vars.more: is missing, and the template of the route names it";
        assert_eq!(found(&routes, &body, "acme"), Err(missing.to_owned()));
        let few = r#"{"vars":{"text":"few","more":1}}"#;
        assert_eq!(found(&routes, few, "acme"), ok("short", "Short: few", 1));
        // The route that is left has no template, and so has one that there is not.
        assert!(found(&routes, few, "p").unwrap_err().starts_with("vars: nothing uses them"));
        assert!(found(&routes, few, "lost").unwrap_err().starts_with("vars: nothing uses them"));
        assert_eq!(found(&routes, r#"{"prompt":"Hi"}"#, "p"), ok("root", "Hi", 0));
        assert_eq!(found(&routes, r#"{"prompt":"Hi"}"#, "acme"), ok("short", "Hi", 1));
        assert!(found(&routes, "{", "acme").unwrap_err().starts_with("request: cannot be read"));
    }
}
