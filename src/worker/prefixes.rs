//! Which of several calls with the same beginning asks first: [`Warmth`] for all jobs in hand, and what wakes those
//! that wait.

use crate::domain::Timestamp;
use crate::domain::prefix::{PrefixKey, PrefixPlan};
use crate::domain::warmth::{Admittance, FirstCall, Warmth};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The beginnings at all targets, as this process knows them.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Arc<Mutex<PrefixState>>);

#[derive(Debug, Default)]
struct PrefixState {
    warmth: Warmth,
    /// Cancelled when the first call of this number has ended.
    ends: HashMap<u64, CancellationToken>,
}

/// Whether a call may be made now.
#[derive(Debug)]
pub(super) enum Entry {
    Goes(PrefixGuard),
    /// It waits until the first call has ended, and no longer than until this instant.
    Waits {
        ended: CancellationToken,
        until: Timestamp,
    },
}

/// A call with a beginning. Dropped without an answer, it makes the next call the first one, if it was that.
#[derive(Debug)]
pub(super) struct PrefixGuard {
    state: Arc<Mutex<PrefixState>>,
    key: PrefixKey,
    life: Duration,
    /// Its number, if others wait for it.
    first: Option<u64>,
}

impl Prefixes {
    /// Whether a call may be made whose beginning this is.
    pub(super) fn enter(&self, plan: &PrefixPlan, now: Timestamp) -> Entry {
        let mut state = self.0.lock();
        let first = match state.warmth.admit(plan.key, plan.wait, now) {
            Admittance::Waits(FirstCall { number, until }) => {
                let ended = state.ends.entry(number).or_default().clone();
                return Entry::Waits { ended, until };
            }
            Admittance::Goes(first) => first,
        };
        Entry::Goes(PrefixGuard { state: Arc::clone(&self.0), key: plan.key, life: plan.life, first })
    }
}

impl PrefixGuard {
    /// The call, which began at this instant, has brought an answer.
    pub(super) fn answered(&self, began_at: Timestamp) {
        self.state.lock().warmth.answered(self.key, began_at, self.life);
    }
}

impl Drop for PrefixGuard {
    fn drop(&mut self) {
        let Some(number) = self.first else { return };
        let mut state = self.state.lock();
        state.warmth.ended(self.key, number);
        if let Some(ended) = state.ends.remove(&number) {
            ended.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::prefix::{CacheForm, CacheLife};
    use crate::domain::{ChatRequest, Prefix, PromptCache, PromptCaching, Target};

    fn plan() -> PrefixPlan {
        let body = r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]}"#;
        let prefix = Prefix::of(&ChatRequest::read_text(body).unwrap()).unwrap();
        let caching = PromptCaching { life: CacheLife::FiveMinutes, min_tokens: Some(0), wait: Duration::from_mins(1) };
        let cache = PromptCache { form: CacheForm::ByItself, min_tokens: 0 };
        prefix.plan(&caching, &cache, &Target::new("p", "m")).unwrap()
    }

    #[tokio::test]
    async fn those_that_wait_are_woken_however_the_first_call_ends() {
        let (prefixes, now) = (Prefixes::default(), Timestamp(0));
        for is_answered in [false, true] {
            let Entry::Goes(first) = prefixes.enter(&plan(), now) else { panic!("no call was before it") };
            let Entry::Waits { ended, until } = prefixes.enter(&plan(), now) else { panic!("the first is under way") };
            assert_eq!(until, now + Duration::from_mins(1));
            if is_answered {
                first.answered(now);
            }
            assert!(!ended.is_cancelled());
            drop(first);
            ended.cancelled().await;
        }
        // Now it is warm: all go, and none of them is waited for.
        let Entry::Goes(_one) = prefixes.enter(&plan(), now) else { panic!("it is warm") };
        assert!(matches!(prefixes.enter(&plan(), now), Entry::Goes(_)));
        assert!(prefixes.0.lock().ends.is_empty());
    }
}
