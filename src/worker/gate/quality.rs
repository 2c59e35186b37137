//! How well a target answers the jobs of one route: what its calls are let go by, and what is learned from their
//! answers.

use super::target::TargetState;
use crate::domain::breaker::Passage;
use crate::domain::news::BreakerNews;
use crate::domain::quality::{Quality, QualitySettings, SeenAnswer, Weakness};
use crate::domain::statistics::{ShutStatistics, WeaknessStatistics};
use crate::domain::strategy::hash_of;
use crate::domain::{ErrorClass, Outcome, Target, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How well a target answers the jobs of one route.
#[derive(Debug)]
pub struct RouteQuality {
    route: String,
    target: Target,
    quality: Mutex<Quality>,
    /// What other processes know of it.
    pub(super) told: Mutex<Option<BreakerNews>>,
}

/// Leave to call a target that other rungs could stand in for. Its place is given back if no answer is reported.
#[derive(Debug)]
pub struct QualityLeave {
    of: Arc<RouteQuality>,
    /// `None`: the job has no better rung and goes all the same, so its answer counts for nothing.
    passage: Option<Passage>,
    at: Timestamp,
}

/// What a call has brought, as far as quality is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Brought<'a> {
    pub job: crate::domain::JobId,
    pub project: &'a str,
    pub outcome: &'a Outcome,
    /// How long the answer took; of a stream, until it began: what comes after that is watched by `idle`. `None`: that
    /// counts with another answer of the same call.
    pub took: Option<Duration>,
    pub output_tokens: i64,
}

impl RouteQuality {
    /// Why jobs of the route pass the target over while another rung may be called.
    #[must_use]
    pub fn weakness(&self, now: Timestamp) -> Option<Weakness> {
        self.quality.lock().weakness(now)
    }

    /// Lets a call go; `regardless`: the job has no better rung. `None`: a better rung is to be called first.
    #[must_use]
    pub fn admit(self: &Arc<Self>, regardless: bool, now: Timestamp) -> Option<QualityLeave> {
        let passage = self.quality.lock().admit(now).ok();
        (passage.is_some() || regardless).then(|| QualityLeave { of: Arc::clone(self), passage, at: now })
    }

    /// A person says that the target is well again: a job goes at once, to ask.
    pub(super) fn reopen(&self, now: Timestamp) {
        self.quality.lock().reopen(now);
    }

    /// What the target is passed over for, as status shows it.
    #[must_use]
    pub fn statistics(&self, now: Timestamp) -> Option<WeaknessStatistics> {
        let Weakness { shut, found } = self.quality.lock().standing(now)?;
        Some(WeaknessStatistics {
            route: Some(self.route.clone()),
            shut: Some(ShutStatistics::from(shut)),
            indicator: found.as_ref().map(|found| found.indicator.as_str().into()),
            found: found.as_ref().map(ToString::to_string),
        })
    }

    /// What other processes do not know yet.
    pub(super) fn news(&self) -> Option<(String, BreakerNews)> {
        let news = self.quality.lock().news()?.since(self.told.lock().as_ref())?;
        Some((self.route.clone(), news))
    }

    /// Takes in the news of another process; returns whether it changes anything.
    pub(super) fn hear(&self, news: BreakerNews, is_first: bool, now: Timestamp) -> bool {
        let mut quality = self.quality.lock();
        let is_news = quality.hear(&news, now);
        if is_first {
            quality.try_again(now);
        }
        // What it goes by is known to the others, and where it does not go by it there is nothing to tell.
        *self.told.lock() = Some(quality.news().unwrap_or(news));
        is_news
    }

    fn record(&self, passage: Passage, brought: &Brought<'_>, now: Timestamp) {
        let (job, project) = (brought.job, hash_of(brought.project));
        // Spare capacity is slow by agreement.
        let took = brought.took.filter(|_| !self.target.tier.is_some_and(|tier| tier.is_spare));
        let seen = |rejected| {
            let output_tokens = u64::try_from(brought.output_tokens).unwrap_or(0);
            SeenAnswer { job, project, rejected, took, output_tokens }
        };
        let mut quality = self.quality.lock();
        let has_changed = match brought.outcome {
            Outcome::Accepted => quality.record(passage, &seen(None), now),
            Outcome::Rejected(kind) => quality.record(passage, &seen(Some(*kind)), now),
            // The loser of a race may have lost because it is slow.
            Outcome::Failed(ErrorClass::Abandoned) => quality.record_given_up(passage, (job, project), took, now),
            // Whether calls fail is for the target's own breaker.
            Outcome::Failed(_) => {
                quality.give_back(passage, now);
                false
            }
        };
        if !has_changed {
            return;
        }
        if let Some(Weakness { found, .. }) = quality.standing(now) {
            tracing::warn!(
                target.name = %self.target,
                route = self.route,
                "{}: jobs of the route pass the target over while another rung may be called",
                found.map_or_else(|| "its answers are bad".to_owned(), |found| found.to_string())
            );
        } else {
            tracing::info!(
                target.name = %self.target,
                route = self.route,
                "the target answers well again: jobs of the route are sent there as before"
            );
        }
    }
}

impl QualityLeave {
    /// Learns from the outcome of the call.
    pub fn report(mut self, brought: &Brought<'_>, now: Timestamp) {
        self.at = now;
        if let Some(passage) = self.passage.take() {
            self.of.record(passage, brought, now);
        }
    }
}

impl Drop for QualityLeave {
    fn drop(&mut self) {
        if let Some(passage) = self.passage.take() {
            self.of.quality.lock().give_back(passage, self.at);
        }
    }
}

impl TargetState {
    /// How well it answers the jobs of this route, judged by these settings from now on.
    #[must_use]
    pub fn quality_on(&self, route: &str, settings: QualitySettings) -> Arc<RouteQuality> {
        let mut known = self.record.qualities.lock();
        if let Some(known) = known.get(route) {
            known.quality.lock().retune(settings);
            return Arc::clone(known);
        }
        let fresh = Arc::new(RouteQuality {
            route: route.to_owned(),
            target: self.target.clone(),
            quality: Mutex::new(Quality::new(settings)),
            told: Mutex::default(),
        });
        known.insert(route.to_owned(), Arc::clone(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests;
