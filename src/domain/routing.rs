//! The route that a job goes along, and its request as that route completes it.

use super::defaults;
use super::estimate;
use super::fork::{self, Needs, Taken, Traits};
use super::metadata::Metadata;
use super::request::{ChatRequest, RequestError};
use super::route::Route;

/// A job before its request has been read.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
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
    asked: &Asked<'_>,
) -> Result<Routed<'r>, RequestError> {
    let mut read = (named, named.defaults.read(asked.body));
    let seen = |route: &'r Route| {
        if route.defaults != read.0.defaults {
            read = (route, route.defaults.read(asked.body));
        }
        match &read.1 {
            Ok(request) => Some(look(request)),
            Err(_) => defaults::sketch(asked.body)?.ok().as_ref().map(look),
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
    asked: &Asked<'_>,
    request: &ChatRequest,
) -> (&'r Route, Vec<Taken>) {
    let seen = look(request);
    walk(named, find, routes, asked, |_| Some(seen))
}

/// What rules see of a request: its tokens, and what it asks for.
fn look(request: &ChatRequest) -> (i64, Needs) {
    (estimate::input_tokens(request), Needs::of(request))
}

/// Follows the rules from route to route. `seen` is what the rules of a route see of the request; `None`: nothing.
fn walk<'r>(
    named: &'r Route,
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    asked: &Asked<'_>,
    mut seen: impl FnMut(&'r Route) -> Option<(i64, Needs)>,
) -> (&'r Route, Vec<Taken>) {
    let (mut route, mut taken) = (named, Vec::new());
    // Rules form no circle, so no chain of them is longer than there are routes.
    while !route.forks.is_empty() && taken.len() < routes {
        let Some((input_tokens, needs)) = seen(route) else { break };
        let Asked { project, batch, metadata, .. } = *asked;
        let traits = Traits { project, batch, metadata, input_tokens, needs };
        let Some((rule, fork)) = fork::first(&route.forks, &traits) else { break };
        let Some(other) = find(&fork.to) else { break };
        taken.push(Taken { route: route.name.clone(), rule, to: fork.to.clone() });
        route = other;
    }
    (route, taken)
}
