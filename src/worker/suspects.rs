//! Jobs that workers have died with: which of them this worker takes, and when.

use super::Shared;
use super::claimer::PATIENCE;
use crate::domain::suspicion::{self, Next};
use crate::store::claim::{Claim, Suspects, Take, Terms};
use crate::store::{StoreError, within};

/// The waiting suspects, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Suspects>);

/// The next step of the claim loop with regard to suspects.
pub(super) enum Due {
    /// Nothing to do: the loop goes on as if there were none.
    None,
    /// The loop takes no job until one has left this worker's hands.
    Wait,
    /// The loop starts these jobs.
    Start(Claim),
}

impl Waiting {
    /// Notes the suspects that a look has found.
    pub fn note(&mut self, found: Vec<Suspects>) {
        self.0 = found;
    }

    /// Takes the suspects that this worker may take now.
    pub async fn turn(&mut self, shared: &Shared, room: usize) -> Result<Due, StoreError> {
        let held = shared.hands.crashes();
        if self.0.is_empty() && held.iter().all(|crashes| *crashes == 0) {
            return Ok(Due::None);
        }
        let (plan, settings, now) = (shared.plan(), shared.settings(), shared.clock.now());
        let pauses = shared.pauses.load();
        let jobs = |suspects: &Suspects| {
            let batch = suspects.batch.as_deref();
            let stops = pauses.held_back(&suspects.route, &suspects.project, batch).is_some()
                || settings.only_batch.as_deref().is_some_and(|only| batch != Some(only));
            let ahead = plan.lane(&suspects.route, &suspects.project, batch).filter(|_| !stops);
            ahead.map_or(0, |ahead| ahead.startable(None, now).jobs())
        };
        let startable: Vec<(usize, usize)> =
            self.0.iter().enumerate().map(|(index, suspects)| (index, jobs(suspects))).collect();
        let crashes =
            |index: usize| self.0.get(index).map_or(0, |suspects| u16::try_from(suspects.crashes).unwrap_or(0));
        let waiting: Vec<u16> =
            startable.iter().filter(|(_, jobs)| *jobs > 0).map(|(index, _)| crashes(*index)).collect();
        let (level, most) = match suspicion::next(&held, &waiting, settings.max_crashes, settings.max_in_flight) {
            Next::Others => return Ok(Due::None),
            Next::Nothing => return Ok(Due::Wait),
            Next::Suspects { crashes, most } => (crashes, most),
        };
        // To the queue, jobs that have ended and are not written yet are still in this worker's hands.
        if suspicion::is_apart(level, settings.max_crashes) && held.is_empty() && shared.settler.unsettled() > 0 {
            return Ok(Due::Wait);
        }
        let mut left = most.min(shared.free_slots());
        let mut takes = Vec::new();
        for (index, jobs) in startable {
            let Some(suspects) = self.0.get(index).filter(|_| crashes(index) == level) else { continue };
            let count = left.min(jobs).min(usize::try_from(suspects.jobs).unwrap_or(0));
            if count > 0 {
                left -= count;
                takes.push(Take {
                    flow: suspects.flow,
                    prio: suspects.prio,
                    after: suspects.first.saturating_sub(1),
                    count: i32::try_from(count).unwrap_or(i32::MAX),
                });
            }
        }
        let level = i16::try_from(level).unwrap_or(i16::MAX);
        let terms = Terms { room, members: &plan.members, weigh: &|route, body| plan.weight(route, body) };
        let claim = shared.store.claim_of(shared.worker_id(), &takes, &[], Some(level), &terms);
        let claim = within(PATIENCE, "claiming jobs that workers died with", claim).await?;
        self.remember(&takes, level, &claim);
        Ok(Due::Start(claim))
    }

    /// Removes the jobs that were taken from those that wait. If fewer came than were there, other workers took them.
    fn remember(&mut self, takes: &[Take], level: i16, claim: &Claim) {
        for take in takes {
            let taken = || claim.jobs.iter().filter(|job| (job.flow, job.prio) == (take.flow, take.prio));
            let count = i32::try_from(taken().count()).unwrap_or(i32::MAX);
            let last = taken().map(|job| job.lease.job.0).max();
            let same = |suspects: &&mut Suspects| {
                (suspects.flow, suspects.prio, suspects.crashes) == (take.flow, take.prio, level)
            };
            if let Some(suspects) = self.0.iter_mut().find(same) {
                let is_gone = count < take.count && !claim.is_cut;
                suspects.jobs = if is_gone { 0 } else { suspects.jobs - i64::from(count) };
                suspects.first = last.map_or(suspects.first, |last| last.saturating_add(1));
            }
        }
        self.0.retain(|suspects| suspects.jobs > 0);
    }
}
