//! The loop by which workers tell each other what they find out about targets and keys.

use super::Shared;
use crate::domain::Timestamp;
use crate::store::health::HealthNews;
use crate::store::{StoreError, within};
use std::sync::Arc;
use std::time::Duration;

/// How often this worker tells and listens. Other workers learn of an open breaker within about two of these.
const EVERY: Duration = Duration::from_secs(1);
/// Statements of other workers that began this long before a look may become visible after it.
const OVERLAP: Duration = Duration::from_secs(10);
/// A statement that takes longer is given up: what it would tell is told later.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this worker has heard.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// The database's clock at the last look.
    at: Option<Timestamp>,
    /// What it heard within the overlap: it is not heard twice.
    lately: Vec<(HealthNews, Timestamp)>,
}

impl Hearsay {
    /// Listens once. The first look finds what earlier workers have left.
    pub async fn listen(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let since = self.at.map_or(Timestamp::MIN, |at| at - OVERLAP);
        let looked = shared.store.hear_health(shared.worker_id(), since);
        let (found, now) = within(PATIENCE, "hearing of targets and keys", looked).await?;
        let is_first = self.at.is_none();
        let plan = shared.plan();
        for heard in &found {
            if !self.lately.contains(heard) {
                plan.gate.hear(heard.0.clone(), is_first, now);
            }
        }
        (self.at, self.lately) = (Some(now), found);
        Ok(())
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, mut heard: Hearsay) {
    let mut is_away = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let told = async {
            tell(&shared).await?;
            heard.listen(&shared).await
        };
        match told.await {
            Ok(()) => is_away = false,
            Err(error) => {
                if !is_away {
                    tracing::debug!(error = %error, "cannot share what is known of targets and keys");
                }
                is_away = true;
            }
        }
    }
}

/// Tells the other workers what they do not know yet.
async fn tell(shared: &Shared) -> Result<(), StoreError> {
    let plan = shared.plan();
    let news = plan.gate.news(shared.clock.now());
    if !news.is_empty() {
        let telling = shared.store.tell_health(shared.worker_id(), &news);
        within(PATIENCE, "telling of targets and keys", telling).await?;
        plan.gate.told(news);
    }
    Ok(())
}

/// Sends the remaining news, when the worker stops.
pub(super) async fn close(shared: &Shared) {
    if let Err(error) = tell(shared).await {
        tracing::debug!(error = %error, "could not share what is known of targets and keys");
    }
}
