//! The cache of a route: an earlier answer in place of a call, or another job whose answer is worth waiting for.

use super::Journey;
use crate::domain::CacheKey;
use crate::store::cache::FromCache;
use crate::store::within;
use crate::worker::settler::Then;
use std::time::Duration;

/// A database that takes longer than this to say whether there is an answer is not waited for: the job asks itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a job waits for another one's answer before it looks again by itself: as long as it has waited already,
/// between these. The end of the other job wakes it.
const LOOKS_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl Journey {
    /// Answers the job from the cache of its route, or lets it wait for another job with the same request. False: it
    /// asks for itself.
    pub(super) async fn is_served_by_cache(&mut self) -> bool {
        let Some(cache) = self.errand.plan.route.cache else { return false };
        let key = CacheKey::of(&self.errand.plan.route, &self.whole);
        self.held.cache = Some(key);
        // A job that has begun is the one that the others wait for.
        if !self.history.is_empty() {
            return false;
        }
        let (shared, job) = (&self.errand.shared, &self.errand.job);
        let now = shared.clock.now();
        let found = within(PATIENCE, "looking for an earlier answer", {
            shared.store.ask_cache(job.id, key, now - cache.max_age)
        });
        match found.await {
            Ok(FromCache::Answered(earlier)) => {
                let row = self.held.answered_again(*earlier, key);
                self.settle(Then::End(Box::new(row))).await;
                true
            }
            Ok(FromCache::Follow(leader)) => {
                let (least, most) = LOOKS_AGAIN;
                let rest = job.ready_at.until(now).clamp(least, most);
                let reason = format!("the answer of job {leader}, which has the same request");
                self.park(Some(now + rest), reason).await;
                true
            }
            Ok(FromCache::Lead) => false,
            Err(error) => {
                tracing::debug!(job.id = job.id.0, error = %error, "the cache was not asked");
                false
            }
        }
    }
}
