//! Sends the messages of alerts. Each receiver gets one at a time from this worker, and one that hangs keeps nothing
//! else waiting.

use super::Alerting;
use crate::domain::alert::next_try;
use crate::provider::hook::{Hook, Posted};
use crate::store::alert::LeasedMessage;
use crate::store::{StoreError, within};
use crate::worker::Shared;
use crate::worker::troubles::Troubles;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often this worker asks for messages that are due.
const EVERY: Duration = Duration::from_secs(1);

/// A statement that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lease of a message is longer than its receiver's timeout by this.
const LEASE_BEYOND: Duration = Duration::from_secs(15);

/// The receivers as they are configured now.
#[derive(Default)]
struct Hooks(BTreeMap<String, Arc<Hook>>);

impl Hooks {
    /// Sets up receivers that are new or have changed, and leaves those that are gone.
    fn follow(&mut self, alerting: &Alerting) {
        self.0.retain(|_, hook| alerting.receivers.iter().any(|receiver| hook.receiver().is_same(receiver)));
        for receiver in &alerting.receivers {
            if self.0.contains_key(&receiver.name) {
                continue;
            }
            match Hook::new(receiver.clone()) {
                Ok(hook) => {
                    self.0.insert(receiver.name.clone(), Arc::new(hook));
                }
                // The configuration was checked: this is the machine's fault, and is tried again.
                Err(error) => tracing::error!(error = %error, "a receiver of alerts cannot be used"),
            }
        }
    }

    fn lease(&self) -> Duration {
        let longest = self.0.values().map(|hook| hook.receiver().timeout).max();
        longest.unwrap_or_default() + LEASE_BEYOND
    }
}

/// Runs until it is aborted.
pub(in crate::worker) async fn run(shared: Arc<Shared>) {
    let mut hooks = Hooks::default();
    let mut troubles = Troubles::default();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        match shared.settings().alerts.as_ref() {
            Some(alerting) => hooks.follow(alerting),
            None => hooks.0.clear(),
        }
        let free: Vec<String> = hooks.0.keys().filter(|name| !busy.contains(*name)).cloned().collect();
        if !free.is_empty() {
            let leased = shared.store.lease_messages(shared.worker_id(), &free, hooks.lease());
            let leased = within(PATIENCE, "looking for messages to send", leased).await;
            for message in troubles.note("looking for messages to send", leased).unwrap_or_default() {
                let Some(hook) = hooks.0.get(&message.receiver).cloned() else { continue };
                busy.insert(message.receiver.clone());
                under_way.push(deliver(&shared, hook, message));
            }
        }
        let mut wake = pin!(tokio::time::sleep(EVERY));
        loop {
            tokio::select! {
                Some((receiver, noted)) = under_way.next(), if !under_way.is_empty() => {
                    busy.remove(&receiver);
                    let was_taken = troubles.note("noting messages that were sent", noted) == Some(true);
                    if was_taken {
                        // There may be another one for it.
                        break;
                    }
                }
                () = shared.letters_wanted.notified() => break,
                () = &mut wake => break,
            }
        }
    }
}

/// Sends the messages that are due now, for a worker that stops, until none is left.
pub(super) async fn send_all(shared: &Shared) -> Result<(), StoreError> {
    let mut hooks = Hooks::default();
    let Some(alerting) = shared.settings().alerts.clone() else { return Ok(()) };
    hooks.follow(&alerting);
    let names: Vec<String> = hooks.0.keys().cloned().collect();
    loop {
        let leased = shared.store.lease_messages(shared.worker_id(), &names, hooks.lease()).await?;
        if leased.is_empty() {
            return Ok(());
        }
        let sent = leased.into_iter().filter_map(|message| {
            let hook = hooks.0.get(&message.receiver).cloned()?;
            Some(deliver(shared, hook, message))
        });
        let sent: Vec<_> = sent.collect();
        futures_util::future::join_all(sent).await;
    }
}

/// Sends one message and notes its outcome. Returns its receiver, and whether that has taken it.
async fn deliver(shared: &Shared, hook: Arc<Hook>, message: LeasedMessage) -> (String, Result<bool, StoreError>) {
    let began = Instant::now();
    let sent = hook.send(&message.message_id, &message.message).await;
    let age = message.age + began.elapsed();
    let noting = within(PATIENCE, "noting a message", note(shared, &message, &sent, age));
    let noted = noting.await.map(|()| sent.outcome.is_taken());
    (message.receiver, noted)
}

async fn note(shared: &Shared, message: &LeasedMessage, sent: &Posted, age: Duration) -> Result<(), StoreError> {
    let (worker, outcome) = (shared.worker_id(), sent.outcome);
    let (receiver, tries) = (message.receiver.as_str(), message.tries);
    if outcome.is_taken() {
        if !shared.store.message_sent(worker, message, outcome.status).await? {
            tracing::warn!(
                receiver,
                "a message of an alert was sent, and another worker has it too: it may come twice"
            );
        }
        tracing::debug!(receiver, tries, "a message of an alert was taken");
        return Ok(());
    }
    let seed = message.id.cast_unsigned();
    let pause = next_try(outcome, u32::try_from(tries).unwrap_or(1), age, seed);
    match pause {
        Some(pause) if tries == 1 => {
            tracing::warn!(receiver, said = sent.words, "a receiver did not take a message; again in {pause:?}");
        }
        Some(pause) => tracing::debug!(receiver, tries, said = sent.words, "not taken again; again in {pause:?}"),
        None => tracing::error!(receiver, tries, said = sent.words, "a message of an alert is given up"),
    }
    let with_others = outcome.is_of_receiver();
    shared.store.message_failed(worker, message, outcome.status, &sent.words, pause, with_others).await
}
