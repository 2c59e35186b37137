//! How the places for calls are shared out.

use super::{Report, Share, SharedBucket};

impl SharedBucket {
    /// Lends places for calls: an equal part to each process, and parts that one does not want to the others. A process
    /// with more calls running than its part is told its part, and counts with its running calls until they have ended.
    pub(super) fn lend_slots(&self, limit: u32, worker: i64, share: &mut Share, report: &Report) -> u32 {
        let mut wanted: Vec<(i64, u32)> =
            self.shares.iter().map(|(other, share)| (*other, share.slots_wanted)).collect();
        wanted.push((worker, report.slots_wanted));
        let fair = fair_part(limit, worker, wanted);
        let others = self.shares.values().fold(0_u32, |sum, share| sum.saturating_add(share.slots));
        share.slots_wanted = report.slots_wanted;
        // Running calls cannot be taken back, so a process with more than its part gives the excess up as they end.
        share.slots = if share.slots > fair || report.running > fair {
            report.running.max(fair).min(share.slots.max(report.running))
        } else {
            fair.min(limit.saturating_sub(others)).max(report.running)
        };
        // If it were told the number of its running calls, it would begin a call for each that ends, and never have
        // less.
        if report.running > fair { fair } else { share.slots }
    }
}

/// The process's part of `limit` when each gets the same, and unwanted parts go to the others.
fn fair_part(limit: u32, worker: i64, mut wanted: Vec<(i64, u32)>) -> u32 {
    wanted.sort_by_key(|(who, wants)| (*wants, *who));
    let mut left = limit;
    let mut sharers = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    for (who, wants) in wanted {
        // Rounded up, so that a small limit goes to some processes rather than to none.
        let part = left.div_ceil(sharers.max(1)).min(wants);
        if who == worker {
            return part;
        }
        left = left.saturating_sub(part);
        sharers = sharers.saturating_sub(1);
    }
    0
}
