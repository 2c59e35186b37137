//! The configuration: one TOML file, overridden by the environment, checked as a whole.
//!
//! Only this module reads the configuration's files and variables. Loading needs neither a network nor a database, and
//! reports every fault at once, each with the file (or variable), the key and the form expected there.

mod alerts;
mod answers;
mod api_keys;
mod aws;
mod budgets;
mod cascade;
mod catalogue;
mod defaults;
mod fault;
pub(crate) mod forks;
mod game_days;
mod http;
mod keys;
mod must_keep;
mod pack;
mod price_book;
mod prices;
mod prompt_cache;
mod provider;
mod quirks;
mod render;
mod reports;
pub(crate) mod route;
mod rules;
mod rungs;
mod scalar;
mod schedules;
mod secret_source;
mod section;
mod settings;
mod shadow;
mod source;
pub(crate) mod strategy;
mod traces;
mod words;

pub use alerts::Alerts;
pub use catalogue::{BUILT_IN, Block, Catalogue, Entry};
pub use fault::{ConfigErrors, Fault};
pub use http::Http;
pub use keys::restart_keys;
pub use price_book::PriceBook;
pub use provider::ProviderConfig;
pub use render::{reference, sample, schema};
pub use route::RouteConfig;
pub use settings::{Database, Log, Prices, SERVICE_STATE, Spool, Worker};
pub use source::{DATABASE_URL_OPTION, USUAL_FILES};
pub use traces::Traces;
pub use words::LogFormat;

use crate::domain::budget::{Budget, Coverage, Unpriced};
use crate::domain::decide::Ineligible;
use crate::domain::game_day::GameDay;
use crate::domain::retention::Retention;
use crate::domain::schedule::Schedule;
use crate::domain::{ChatRequest, Limits, Model, MustKeep, Rung, Target};
use section::Reading;
use source::ConfigSource;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The whole configuration, checked and compiled.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Whether that file lay in the current folder without being named by the user.
    pub is_found: bool,
    pub database: Database,
    pub worker: Worker,
    /// How long finished work is kept; `None`: for ever.
    pub retention: Option<Retention>,
    /// Accounts and servers, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Limits, by bucket. A provider without a bucket of its own has one of its name, perhaps without limits.
    pub buckets: BTreeMap<String, Limits>,
    /// The buckets of models whose limits are not their provider's.
    pub model_buckets: BTreeMap<Target, String>,
    /// Policies, by name.
    pub routes: BTreeMap<String, RouteConfig>,
    /// Every target that a route uses or that has an entry of its own.
    pub models: BTreeMap<Target, Model>,
    /// The budgets, by name.
    pub budgets: Vec<Budget>,
    /// Batches that are enqueued by the clock, by name.
    pub schedules: Vec<Schedule>,
    /// Times in which calls fail on purpose; those too that are over.
    pub game_days: Vec<GameDay>,
    /// What an operator is told of, and where.
    pub alerts: Alerts,
    /// The catalogue of prices, and when a price is doubted.
    pub prices: Prices,
    /// Where outcomes wait while the database is away.
    pub spool: Spool,
    /// The status endpoints.
    pub http: Http,
    pub log: Log,
    /// Where traces are sent; `None`: nowhere.
    pub traces: Option<Traces>,
    /// Settings that work but are probably not meant so, in words.
    pub warnings: Vec<String>,
}

/// Whether the providers' keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The keys are read, and one that cannot be read is a fault.
    Required,
    /// No key is read: for commands that make no calls, whose users may have no keys.
    Ignored,
    /// The addresses and secrets of the receivers of alerts are read, and no key of a provider.
    OfReceivers,
}

impl Config {
    /// Why the server of a rung can never take a request of which these members have to be kept; `None`: nothing known
    /// speaks against it.
    #[must_use]
    pub fn refusal(&self, rung: &Rung, request: &ChatRequest, must_keep: &MustKeep) -> Option<Ineligible> {
        let provider = self.providers.get(&rung.target.provider)?;
        provider.endpoint.refusal(request, &rung.target.model, &rung.model.capabilities, must_keep)
    }

    /// Reads the file at `path`, or else at `SLUICE_CONFIG`, `./sluice.toml`, `./config/sluice.toml` or
    /// `/etc/sluice/sluice.toml`, and puts `SLUICE__SECTION__KEY` variables and `DATABASE_URL` over it. Without any
    /// file the defaults hold.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::load_with(path, environment, Keys::Required)
    }

    /// [`load`](Self::load), with or without the providers' keys.
    pub fn load_with(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        keys: Keys,
    ) -> Result<Self, ConfigErrors> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        Self::read(source::find_file(path, &environment), environment, keys)
    }

    /// Reads the same file once more, under the rules of the first reading.
    pub fn load_again(&self, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let file = self.file.clone().map(|path| ConfigSource { path, is_found: self.is_found });
        Self::read(file, environment.into_iter().collect(), Keys::Required)
    }

    fn read(
        file: Option<ConfigSource>,
        environment: BTreeMap<String, String>,
        keys: Keys,
    ) -> Result<Self, ConfigErrors> {
        let text = file.as_ref().map(ConfigSource::read).transpose()?;
        let is_found = file.as_ref().is_some_and(|file| file.is_found);
        let file = file.map(|file| file.path);
        let tree = source::read(file.as_deref().zip(text.as_ref()), &environment)?;
        let text = text.unwrap_or_default();
        let reading = Reading::new(file.clone(), text.world_readable, environment);
        text.warnings.into_iter().for_each(|warning| reading.warn(warning));
        let config = Self::from_tree(&reading, tree, keys, is_found);
        reading.into_result().map(|warnings| Self { file, is_found, warnings, ..config })
    }

    /// Reads all sections, faulty or not, so that all faults are found.
    fn from_tree(reading: &Reading, tree: section::Table, keys: Keys, is_found: bool) -> Self {
        let mut root = section::Section::new(reading, String::new(), &keys::ROOT, tree);
        let database = Database::read(root.child("database"));
        let worker = Worker::read(root.child("worker"));
        let spool = Spool::read(root.child("spool"));
        let retention = settings::read_retention(root.child("retention"));
        let http = Http::read(root.child("http"), keys);
        let log = Log::read(root.child("log"));
        let traces = Traces::read(root.child("traces"), keys);
        let prices = Prices::read(root.child("prices"), is_found);
        let mut buckets = provider::read_buckets(root.children("buckets"));
        let providers = provider::read_all(root.children("providers"), &mut buckets, keys);
        let prices::ReadModels { mut models, buckets: model_buckets } =
            prices::read_models(root.table("models"), reading, &providers, &mut buckets, &prices.catalogue);
        let routes = route::read_all(root.children("routes"), &providers, &mut models, &prices.catalogue);
        let names: Vec<&str> = providers.keys().map(String::as_str).collect();
        let mut budgets = budgets::read_all(root.children("budgets"), &names, &routes);
        budgets.extend(routes.values().filter_map(|route| Some(route.route.shadow.as_ref()?.budget())));
        let game_days = game_days::read_all(root.children("game_days"), &providers);
        let alerts = Alerts::read(root.child("alerts"), keys);
        let schedules = schedules::read_all(root.children("schedules"), &routes, &alerts);
        root.finish();
        let providers: BTreeMap<_, _> = providers.into_iter().map(|(name, read)| (name, read.config)).collect();
        let config = Self {
            file: None,
            is_found: false,
            database,
            worker,
            retention,
            providers,
            buckets,
            model_buckets,
            routes,
            models,
            budgets,
            schedules,
            game_days,
            alerts,
            prices,
            spool,
            http,
            log,
            traces,
            warnings: Vec::new(),
        };
        config.warn(reading);
        config
    }

    /// Adds warnings about settings that work but are probably not meant so.
    fn warn(&self, reading: &Reading) {
        if let Some(listen) = self.http.listen.filter(|_| self.http.is_open()) {
            let pages = if self.http.token.is_some() {
                "the dashboard and the API ask for the token, which goes over the network unencrypted unless a proxy \
                 adds TLS"
            } else {
                "the dashboard and the API are closed there without a token (http.token_file)"
            };
            reading.warn(format!(
                "http.listen = \"{listen}\": everything that reaches this address reads the names of providers, routes \
                 and projects, the queue and what it costs at /metrics and /api/status, for which no password is \
                 asked; {pages}. Listen on 127.0.0.1, or let a firewall admit only what probes and scrapes"
            ));
        }
        for (name, route) in &self.routes {
            for rung in &route.route.rungs {
                if !rung.is_priced() {
                    let model = rung.target.in_no_tier();
                    let place = match rung.target.tier.filter(|_| rung.model.is_priced()) {
                        Some(_) => format!("to `tiers` in [models.\"{model}\"]"),
                        None => format!("under [models.\"{model}\"]"),
                    };
                    reading.warn(format!(
                        "the price of {} (route {name}) is unknown, so its costs are too: add it {place}",
                        rung.target
                    ));
                }
            }
        }
        self.warn_of_unpriced(reading);
        if !self.routes.is_empty() && !self.routes.contains_key("default") {
            reading.warn(
                "there is no [routes.default]: jobs that name no route stay queued until a worker has it".to_owned(),
            );
        }
        for name in self.providers.keys() {
            let is_used = |route: &RouteConfig| route.asked().any(|rung| rung.target.provider == *name);
            if !self.routes.values().any(is_used) {
                reading.warn(format!("no route uses the provider {name}"));
            }
        }
        for target in self.models.keys().filter(|target| self.providers.contains_key(&target.provider)) {
            let is_used = |route: &RouteConfig| route.asked().any(|rung| rung.target.in_no_tier() == *target);
            if !self.routes.values().any(is_used) {
                reading.warn(format!(
                    "no route uses the model {target}: its price holds only where a provider answers with it unasked"
                ));
            }
        }
        for day in &self.game_days {
            for name in &day.targets {
                let is_struck = |target: &Target| *name == target.provider || *name == target.to_string();
                if !self.routes.values().any(|it| it.route.rungs.iter().any(|rung| is_struck(&rung.target))) {
                    reading.warn(format!("game day {}: no route calls {name}, so none of its calls fails", day.name));
                }
            }
        }
        for name in self.buckets.keys() {
            let is_used = self.providers.values().any(|provider| provider.bucket == *name)
                || self.model_buckets.values().any(|bucket| bucket == name);
            if !is_used {
                reading.warn(format!("no provider uses the bucket {name}"));
            }
        }
        for (name, provider) in &self.providers {
            let endpoint = &provider.endpoint;
            if !endpoint.keys.is_empty() && endpoint.base_url.starts_with("http://") && !is_loopback(&endpoint.base_url)
            {
                let is_signed = endpoint.keys.iter().all(|key| key.access.is_some());
                let what = if is_signed { "each prompt for" } else { "the key of" };
                reading.warn(format!("{what} provider {name} is sent unencrypted to {}", endpoint.base_url));
            }
        }
    }

    /// A call without a price is not made where a budget covers it.
    fn warn_of_unpriced(&self, reading: &Reading) {
        for budget in self.budgets.iter().filter(|budget| budget.unpriced == Unpriced::Refuse) {
            let covers = |name: &str, provider: &str| match &budget.scope {
                Coverage::Route(route) => route == name,
                Coverage::Provider(covered) => covered == provider,
                _ => true,
            };
            let rungs =
                self.routes.iter().flat_map(|(name, route)| route.route.rungs.iter().map(move |rung| (name, rung)));
            let unpriced = rungs.filter(|(name, rung)| !rung.is_priced() && covers(name, &rung.target.provider));
            let mut targets: Vec<String> = unpriced.map(|(_, rung)| rung.target.to_string()).collect();
            targets.sort_unstable();
            targets.dedup();
            if !targets.is_empty() {
                reading.warn(format!(
                    "the budget {} covers {} without a price, which is not called for that: price it, or set \
                     unpriced = \"allow\"",
                    budget.name,
                    targets.join(", ")
                ));
            }
        }
    }

    /// The routes that workers with this configuration know: its own, and those of shadows.
    pub fn route_names(&self) -> impl Iterator<Item = &str> {
        self.routes.values().flat_map(|config| {
            let shadow = config.route.shadow.as_ref().map(|shadow| shadow.route.name.as_str());
            std::iter::once(config.route.name.as_str()).chain(shadow)
        })
    }

    /// Whether workers with this configuration know a route of this name.
    #[must_use]
    pub fn knows_route(&self, name: &str) -> bool {
        self.route_names().any(|known| known == name)
    }

    /// Without a provider and a route a worker has nothing to do: the fault says what to add.
    pub fn require_providers(&self) -> Result<(), ConfigErrors> {
        let missing = if self.providers.is_empty() {
            "providers"
        } else if self.routes.is_empty() {
            "routes"
        } else {
            return Ok(());
        };
        Err(ConfigErrors::of(Fault {
            place: self.file.as_ref().map_or_else(
                || format!("no configuration file (looked for {})", usual_files()),
                |file| file.display().to_string(),
            ),
            key: missing.to_owned(),
            problem: format!("there are no {missing}, so no job can be done"),
            expected: "at least\n\
                       \x20   [providers.openai]\n\
                       \x20   api_key_env = \"OPENAI_API_KEY\"\n\
                       \x20   [routes.default]\n\
                       \x20   rungs = [\"openai/gpt-4o-mini\"]\n\
                       \x20 (or try `sluice demo`, which needs no provider)"
                .to_owned(),
        }))
    }
}

/// The files that are tried when none is named, in words.
#[must_use]
pub fn usual_files() -> String {
    let [files @ .., last] = USUAL_FILES;
    format!("{} and {last}", files.join(", "))
}

fn is_loopback(url: &str) -> bool {
    crate::provider::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// The variables of this process, as far as they are text.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests;
