//! Notices that the database has gone back in time, and repairs the loss.

use super::Shared;
use crate::domain::Timestamp;
use crate::store::lease::Beat;
use crate::store::timeline::Loss;
use crate::store::{Store, StoreError, within};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A look that takes longer is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

/// The last heartbeat that was confirmed: its ordinal, and the database's clock.
pub(super) type Confirmed = Option<(i64, Timestamp)>;

/// The loss that a heartbeat reveals, given the last one that was confirmed.
pub(super) fn loss(confirmed: Confirmed, beat: &Beat) -> Option<Loss> {
    let (ordinal, to) = confirmed?;
    if !beat.known {
        return Some(Loss { from: None, to });
    }
    let (there, at) = beat.before?;
    (there < ordinal).then_some(Loss { from: Some(at), to })
}

/// Looks once at the start, before anything is written: outcomes in spools may belong to another history.
pub(super) async fn look_first(store: &Store) -> Result<(), StoreError> {
    store.look_at_timeline(None, true).await.map(|_| ())
}

/// This worker's knowledge of the database's history.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The number of the history at the last look.
    number: Option<i32>,
    /// Number of connections made up to then.
    connections: u64,
}

/// Looks again. If a connection was made since the last look, it first waits for a heartbeat: the connection may lead
/// to a server that lacks the last commits, and the heartbeat shows whether it does. When the history is another one
/// than at the last look, or commits are known to be lost, this worker's recent outcomes are written again: existing
/// rows stay as they are, and lost ones return. Returns whether all is known; `false`: no heartbeat has come through
/// yet.
pub(super) async fn look(shared: &Arc<Shared>) -> Result<bool, StoreError> {
    // One look at a time: a second one would report the same loss again.
    let mut known = shared.history.lock().await;
    let (connections, noticed) = (shared.store.connections_made(), Instant::now());
    if connections != known.connections && !shared.heartbeats.after(noticed).await {
        return Ok(false);
    }
    let loss = *shared.loss.lock();
    let looking = shared.store.look_at_timeline(loss, true);
    let number = within(PATIENCE, "looking at the database's timeline", looking).await?.number;
    let is_another = known.number.is_some() && number.is_some() && known.number != number;
    if is_another || loss.is_some() {
        let written = shared.settler.write_again().await?;
        tracing::info!(
            outcomes = written,
            "wrote the last settled outcomes again, because the database may have lost them"
        );
    }
    known.number = number.or(known.number);
    known.connections = connections;
    let mut left = shared.loss.lock();
    if *left == loss {
        *left = None;
    }
    Ok(true)
}

/// Whether no connection was made since the last look.
pub(super) async fn is_known(shared: &Shared) -> bool {
    shared.history.lock().await.connections == shared.store.connections_made()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(known: bool, before: Option<(i64, i64)>) -> Beat {
        let before = before.map(|(ordinal, at)| (ordinal, Timestamp(at)));
        Beat { alive: true, now: Timestamp(9_000), recalled: Vec::new(), known, before }
    }

    #[test]
    fn a_beat_that_was_confirmed_and_is_gone_is_a_loss_and_nothing_else_is() {
        let confirmed = Some((7, Timestamp(7_000)));
        let lost = |from: Option<i64>| Some(Loss { from: from.map(Timestamp), to: Timestamp(7_000) });
        for (confirmed, beat, expected) in [
            (None, beat(true, None), None),
            (None, beat(false, Some((1, 1_000))), None),
            (confirmed, beat(true, Some((7, 7_000))), None),
            // A heartbeat that was not confirmed has arrived all the same.
            (confirmed, beat(true, Some((8, 8_000))), None),
            // Its row is forgotten, as that of a worker that was silent for an hour.
            (confirmed, beat(true, None), None),
            (confirmed, beat(true, Some((6, 6_000))), lost(Some(6_000))),
            // Its number was not given out yet, or is another's.
            (confirmed, beat(false, None), lost(None)),
        ] {
            assert_eq!(loss(confirmed, &beat), expected, "{confirmed:?} {beat:?}");
        }
    }
}
