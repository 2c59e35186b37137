//! The calls of one job that are under way at the same time.
//!
//! Each runs in a task of its own, so it goes on while the job's journey decides, or waits for the database.

use super::call::{Call, Came, CameBack};
use crate::domain::decide::UnderWay;
use crate::domain::explanation::Explanation;
use crate::domain::{NanoUsd, Timestamp};
use crate::worker::hands::{InHand, PlaceBeside};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A call that was begun, as its journey remembers it.
pub(super) struct Begun {
    pub(super) number: i16,
    /// The place of its rung in the route as it is now; `None`: the route has no such rung any more.
    pub(super) rung: Option<usize>,
    since: Timestamp,
    /// The most that it may cost; `None`: its price is unknown.
    worst: Option<NanoUsd>,
    /// What it was decided by.
    pub(super) reasons: Explanation,
    no_longer_needed: CancellationToken,
}

/// The calls under way. Dropped, it drops them.
#[derive(Default)]
pub(super) struct Calls {
    begun: Vec<Begun>,
    /// `None`: the job's calls are made one at a time.
    tasks: Option<JoinSet<(i16, Came)>>,
    /// Calls that have ended and were not looked at yet.
    ended: VecDeque<(Begun, Came)>,
    came_back: CameBack,
    /// Those of them that were looked at since the last call began.
    looked_at: Vec<i16>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Begins a call, which has this place if another one is under way. `since`: when that was decided.
    pub(super) fn begin(
        &mut self,
        mut call: Call,
        place: Option<PlaceBeside>,
        reasons: Explanation,
        since: Timestamp,
        in_hand: &InHand,
    ) {
        let no_longer_needed = CancellationToken::new();
        call.no_longer_needed = Some(no_longer_needed.clone());
        call.came_back = Arc::clone(&self.came_back);
        // What they have brought was taken into account when this call was decided on.
        self.came_back.lock().retain(|number| !self.looked_at.contains(number));
        self.looked_at.clear();
        let (number, rung, in_hand) = (call.number, Some(call.index), in_hand.clone());
        let worst = call.worst(since);
        self.begun.push(Begun { number, rung, since, worst, reasons, no_longer_needed });
        self.tasks.get_or_insert_default().spawn(async move {
            let came = call.make(&in_hand).await;
            drop(place);
            (number, came)
        });
    }

    /// The calls as the decision sees them.
    pub(super) fn under_way(&self) -> Vec<UnderWay> {
        self.begun.iter().map(|call| UnderWay { rung: call.rung, since: call.since }).collect()
    }

    /// The most that each of them may cost, as it was begun.
    pub(super) fn worst_cases(&self) -> impl Iterator<Item = Option<NanoUsd>> {
        self.begun.iter().map(|call| call.worst)
    }

    /// Whether a call of this number is under way.
    pub(super) fn has(&self, number: i16) -> bool {
        self.begun.iter().any(|call| call.number == number)
    }

    /// Finds the places of the rungs in another route.
    pub(super) fn replace_rungs(&mut self, place: impl Fn(usize) -> Option<usize>) {
        for call in &mut self.begun {
            call.rung = call.rung.and_then(&place);
        }
    }

    /// Waits until a call has ended. Cancel safe. Never returns if none is under way.
    pub(super) async fn wait(&mut self) {
        let Some(tasks) = &mut self.tasks else { return std::future::pending().await };
        match tasks.join_next().await {
            Some(Ok((number, came))) => {
                if let Some(index) = self.begun.iter().position(|call| call.number == number) {
                    self.ended.push_back((self.begun.swap_remove(index), came));
                }
            }
            // A fault of ours, and the journey's as if it had made the call itself.
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// A call that has ended.
    pub(super) fn next_ended(&mut self) -> Option<(Begun, Came)> {
        let ended = self.ended.pop_front()?;
        self.looked_at.push(ended.0.number);
        Some(ended)
    }

    /// Drops all calls, because their answers are no longer needed, and waits until they have ended.
    pub(super) async fn drop_all(&mut self) {
        for call in &self.begun {
            call.no_longer_needed.cancel();
        }
        self.all_ended().await;
    }

    /// Waits until all calls have ended.
    pub(super) async fn all_ended(&mut self) {
        while !self.is_empty() {
            self.wait().await;
        }
    }
}
