//! What routes add to the requests of a file, by the routes that its jobs may go along.

use super::requests::Completion;
use crate::domain::routing::{self, Unrouted};
use crate::domain::{Metadata, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finds a route by its name.
pub type RouteByName<'a> = dyn Fn(&str) -> Option<Arc<Route>> + 'a;

/// The jobs that a file is read for.
#[derive(Clone, Copy)]
pub struct Along<'a> {
    /// All routes by their names; `None`: this machine does not know them.
    pub find: Option<&'a RouteByName<'a>>,
    /// The route that the jobs name.
    pub route: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
}

impl Along<'_> {
    fn route_of(&self, name: &str) -> Option<Arc<Route>> {
        self.find?(name)
    }

    /// The routes that the jobs may go along.
    fn routes(&self) -> Vec<Arc<Route>> {
        let (mut found, mut seen, mut left) = (Vec::new(), BTreeSet::new(), vec![self.route.to_owned()]);
        while let Some(name) = left.pop() {
            if let Some(route) = self.route_of(&name).filter(|_| seen.insert(name)) {
                left.extend(route.forks.iter().map(|fork| fork.to.clone()));
                found.push(route);
            }
        }
        found
    }

    /// The names in the template of the route, if some route has one that rows may be put into.
    #[must_use]
    pub fn names_of_route(&self) -> Option<Vec<String>> {
        let own = self.route_of(self.route);
        let own = own.as_ref().and_then(|route| route.defaults.request.as_ref());
        let names = own.map(|request| request.names().into_iter().map(str::to_owned).collect());
        let has_template = self.routes().iter().any(|route| route.defaults.request.is_some());
        names.or_else(|| has_template.then(Vec::new))
    }

    /// What these routes add.
    #[must_use]
    pub fn completion(&self) -> Completion {
        if self.find.is_none() {
            return Completion::Unknown;
        }
        let routes = self.routes();
        let Some(named) = self.route_of(self.route) else { return Completion::Nothing };
        if routes.iter().all(|route| route.defaults.is_empty()) {
            return Completion::Nothing;
        }
        let members: BTreeSet<&str> = routes.iter().flat_map(|route| route.looks_at()).collect();
        let members: Arc<[String]> = members.into_iter().map(str::to_owned).collect();
        let routes: BTreeMap<String, Arc<Route>> =
            routes.into_iter().map(|route| (route.name.clone(), route)).collect();
        let (project, batch) = (self.project.to_owned(), self.batch.map(str::to_owned));
        Completion::By(Arc::new(move |body, metadata| {
            let metadata = Metadata::of_text(&members, metadata.unwrap_or_default());
            let asked = Unrouted { body, project: &project, batch: batch.as_deref(), metadata: &metadata };
            let find = |name: &str| routes.get(name).map(|route| &**route);
            routing::route(&named, &find, routes.len(), &asked).map(|routed| routed.request)
        }))
    }
}
