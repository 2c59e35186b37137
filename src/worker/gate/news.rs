//! What this gate tells other processes of its targets, keys and places, and what it takes in from them.

#[cfg(test)]
mod tests;

use super::target::{TargetState, shut_until, still_shut};
use super::{Gate, RouteQuality};
use crate::domain::Timestamp;
use crate::domain::news::{ModelNews, TargetNews};
use crate::domain::shut::{Reason, Shut};
use crate::store::health::{Health, HealthNews};
use std::sync::Arc;

impl Gate {
    /// What other processes do not know yet. It counts as told once [`Gate::told`] hears of it.
    #[must_use]
    pub fn news(&self, now: Timestamp) -> Vec<HealthNews> {
        let of_targets = self.targets.values().filter_map(|state| {
            let news = Some(state.news(now)).filter(|news| !news.is_empty())?;
            let health = Health::Target { target: state.target.to_string(), news };
            Some(HealthNews { server: state.provider.server.clone(), health })
        });
        let of_keys = self.providers.values().flat_map(|provider| {
            provider.keys.news().into_iter().map(|(key, news)| HealthNews {
                server: provider.server.clone(),
                health: Health::Key { provider: provider.name.clone(), key, news },
            })
        });
        let of_answers = self.targets.values().flat_map(|state| {
            let qualities = state.record.qualities.lock();
            let news = qualities.values().filter_map(|quality| quality.news());
            let news = news.map(|(route, news)| HealthNews {
                server: state.provider.server.clone(),
                health: Health::Answers { route, target: state.target.to_string(), news },
            });
            news.collect::<Vec<_>>()
        });
        let of_places = self.buckets.values().filter_map(|bucket| {
            let health = Health::Places { bucket: bucket.name.clone(), news: bucket.places_news(now)? };
            Some(HealthNews { server: self.server_of(&bucket.name)?.to_owned(), health })
        });
        of_targets.chain(of_keys).chain(of_answers).chain(of_places).collect()
    }

    /// These news have reached the other processes.
    pub fn told(&self, news: Vec<HealthNews>) {
        for HealthNews { server, health } in news {
            match health {
                Health::Target { target, news } => {
                    if let Some(state) = self.target_of(&target, &server) {
                        state.record.told.lock().add(news);
                    }
                }
                Health::Key { provider, key, news } => {
                    if let Some(known) = self.providers.get(&provider).filter(|known| known.server == server) {
                        known.keys.told(&key, &news);
                    }
                }
                Health::Answers { route, target, news } => {
                    if let Some(quality) = self.quality_of(&target, &server, &route) {
                        *quality.told.lock() = Some(news);
                    }
                }
                Health::Places { bucket, news } => {
                    if let Some(bucket) = self.buckets.get(&bucket) {
                        bucket.places_told(news);
                    }
                }
            }
        }
    }

    /// Takes in the news of another process; `is_first`: of any process, also of earlier ones, when this one begins.
    ///
    /// A process that begins asks once more: breakers that were open let one call go at once, and a model that was
    /// refused is not taken for refused. Only a rest that the provider has asked for is kept to its end, and the number
    /// of calls at once that was found by trial is where it begins to try.
    pub fn hear(&self, news: HealthNews, is_first: bool, now: Timestamp) {
        let HealthNews { server, health } = news;
        let (name, is_news) = match health {
            Health::Target { target, news } => {
                let Some(state) = self.target_of(&target, &server) else { return };
                let is_news = state.hear(news, is_first, now);
                (target, is_news)
            }
            Health::Key { provider, key, news } => {
                let Some(known) = self.providers.get(&provider).filter(|known| known.server == server) else { return };
                let is_news = known.keys.hear(&key, &news, now);
                (format!("{provider}, key {key}"), is_news)
            }
            Health::Answers { route, target, news } => {
                let Some(quality) = self.quality_of(&target, &server, &route) else { return };
                let is_news = quality.hear(news, is_first, now);
                (format!("{target}, route {route}"), is_news)
            }
            Health::Places { bucket, news } => {
                // Where calls run already, they show better how many are well.
                let known = self.buckets.get(&bucket).filter(|_| is_first);
                let is_same = self.server_of(&bucket) == Some(server.as_str());
                let (Some(known), true) = (known, is_same) else { return };
                return known.resume_places(&news, now);
            }
        };
        if is_news {
            tracing::info!(target.name = name, "another worker has found something out, and this one goes by it");
            self.has_changed();
        }
    }

    fn quality_of(&self, target: &str, server: &str, route: &str) -> Option<Arc<RouteQuality>> {
        self.target_of(target, server)?.record.qualities.lock().get(route).cloned()
    }

    /// The mark of the server whose calls enter this bucket; of several, that of the first by its provider's name.
    fn server_of(&self, bucket: &str) -> Option<&str> {
        let enters = |state: &&Arc<TargetState>| state.buckets.iter().any(|entered| entered.name == bucket);
        let of = self.targets.values().filter(enters).map(|state| &state.provider);
        of.min_by_key(|provider| &provider.name).map(|provider| provider.server.as_str())
    }

    fn target_of(&self, name: &str, server: &str) -> Option<&TargetState> {
        let mut states = self.targets.values().map(AsRef::as_ref);
        states.find(|state: &&TargetState| state.provider.server == server && state.target.to_string() == name)
    }
}

/// A rest in the words of earlier versions, which had one reason for what a provider asks and what a breaker finds.
fn told(rest: Shut) -> Shut {
    let is_asked = rest.reason == Reason::AskedToWait;
    if is_asked { Shut { reason: Reason::Breaker, ..rest } } else { rest }
}

impl TargetState {
    /// All that could be told of it now, known or not.
    fn whole_news(&self, now: Timestamp) -> TargetNews {
        let said = self.said.lock().clone();
        TargetNews {
            breaker: self.record.breaker.lock().news(),
            model: self.shut.lock().rest(now).map(|shut| ModelNews { shut, said }),
            rest: still_shut(&self.record.resting, now).map(told),
        }
    }

    /// A rest that another process tells of. What a failing provider asked for counts for the longest rest of this
    /// breaker at most: the other process may have other settings.
    fn heard(&self, rest: Shut, now: Timestamp) -> Shut {
        match rest.reason {
            Reason::Breaker | Reason::AskedToWait => {
                let latest = now + self.record.breaker.lock().longest_rest();
                Shut { reason: Reason::AskedToWait, until: rest.until.min(latest), ..rest }
            }
            _ => rest,
        }
    }

    fn news(&self, now: Timestamp) -> TargetNews {
        self.whole_news(now).since(&self.record.told.lock(), now)
    }

    /// Takes in news of another process; returns whether they change anything.
    fn hear(&self, news: TargetNews, is_first: bool, now: Timestamp) -> bool {
        self.record.told.lock().add(news.clone());
        let TargetNews { breaker, model, rest } = news;
        let mut is_news = false;
        if let Some(breaker) = breaker {
            let mut own = self.record.breaker.lock();
            is_news |= own.hear(&breaker, now);
            if is_first {
                own.try_again(now);
            }
        }
        if let Some(ModelNews { shut, said }) = model.filter(|_| !is_first)
            && self.shut.lock().hear(shut, now)
        {
            *self.said.lock() = said;
            is_news = true;
        }
        if let Some(rest) = rest {
            is_news |= shut_until(&self.record.resting, self.heard(rest, now), now);
        }
        // What it goes by is known to the others, and where it does not go by it there is nothing to tell.
        let known = self.whole_news(now);
        self.record.told.lock().add(known);
        is_news
    }
}
