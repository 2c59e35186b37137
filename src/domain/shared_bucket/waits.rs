//! Waits that hold for all processes: what shuts a bucket, which process may ask again, and what opens it before its
//! time.

use super::{LEASE, Report, Share, SharedBucket, Slope, Wait};
use crate::domain::Timestamp;
use crate::domain::long_wait::{self, BELIEVED, RECHECK};
use crate::domain::shut::Shut;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The wait that is on for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedWait {
    /// Why, since when and until when. For a wait that is too long to be believed, `until` is when one call asks again.
    #[serde(flatten)]
    pub shut: Shut,
    /// The wait as asked for, where that is too long to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// A wait that is too long to be believed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The time until which the provider wants to be left alone.
    pub until: Timestamp,
    /// How often one call asks again, in milliseconds.
    pub recheck_ms: u64,
    /// The process that may have one call ask again, until it has reported the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
}

impl SharedWait {
    /// Whether the wait is not over yet.
    pub(super) fn is_on(&self, now: Timestamp) -> bool {
        self.shut.until > now || self.asked.is_some_and(|asked| asked.until > now)
    }
}

impl SharedBucket {
    /// Opens the bucket before its wait is over, by hand or because a call was answered. Returns whether a wait was on.
    pub fn reopen(&mut self, now: Timestamp) -> bool {
        self.reopened = Some(now);
        self.slope = self.slope.filter(|slope| slope.since <= now);
        for meter in &mut self.meters {
            meter.wait_until_at_most(now);
        }
        self.wait.take().is_some_and(|wait| wait.is_on(now))
    }

    /// Whether this process may have one call ask again although a long wait is on; all others then wait for the next
    /// time. A wait that is over no longer counts.
    pub(super) fn ask_again(&mut self, worker: i64, report: &Report, now: Timestamp) -> bool {
        self.wait = self.wait.filter(|wait| wait.is_on(now));
        let Some(SharedWait { shut: Shut { until, .. }, asked: Some(asked) }) = &mut self.wait else { return false };
        if *until > now || report.wait.is_some() {
            return false;
        }
        let probe = report.may_begin;
        // A process that begins no calls looks again a moment later.
        let pause = if probe { Duration::from_millis(asked.recheck_ms) } else { LEASE };
        *until = now + pause;
        asked.by = probe.then_some(worker);
        probe
    }

    /// Bounds every wait to the longest that is believed, whichever process wrote it: an earlier version, or another
    /// clock.
    pub(super) fn bound_waits(&mut self, now: Timestamp) {
        let latest = now + BELIEVED;
        if let Some(wait) = self.wait.as_mut().filter(|wait| wait.shut.until > latest) {
            let recheck_ms = u64::try_from(RECHECK.as_millis()).unwrap_or(u64::MAX);
            wait.asked = wait.asked.or(Some(Asked { until: wait.shut.until, recheck_ms, by: None }));
            wait.shut.until = now + RECHECK;
        }
        self.slope = self.slope.filter(|slope| slope.since <= latest);
        let least = self.wait.map_or(now, |wait| wait.shut.until.min(latest));
        for meter in &mut self.meters {
            meter.bound_wait(latest, least);
        }
    }

    /// Shuts the bucket for all, and drains the limits that are used up. A wait that is on already is never shortened.
    pub(super) fn shut(&mut self, wait: &Wait, own: &mut Share, now: Timestamp) {
        let until = now + long_wait::rest(wait.remaining, wait.recheck);
        let since = self.wait.map_or(now, |wait| wait.shut.since);
        let recheck = wait.recheck.min(BELIEVED);
        let long = long_wait::is_long(wait.remaining).then(|| Asked {
            until: now + wait.remaining,
            recheck_ms: u64::try_from(recheck.as_millis()).unwrap_or(u64::MAX),
            by: None,
        });
        let before = self.wait.and_then(|wait| wait.asked).map(|asked| Asked { by: None, ..asked });
        let asked = [before, long].into_iter().flatten().max_by_key(|asked| asked.until);
        let until = self.wait.map_or(until, |wait| wait.shut.until.max(until));
        self.wait = Some(SharedWait { shut: Shut { reason: wait.reason, since, until }, asked });
        if wait.too_steep {
            self.slope = Some(Slope { since: until });
        }
        for (dimension, units) in &wait.drained {
            let Some(index) = self.meters.iter().position(|meter| meter.dimension == *dimension) else { continue };
            // Every process may spend its holding until it hears of the wait.
            let holding = own.holdings.entry(*dimension).or_default();
            holding.void = true;
            let held = i64::try_from(holding.held).unwrap_or(i64::MAX);
            let outstanding = self.outstanding(index).saturating_add(held);
            let Some(meter) = self.meters.get_mut(index) else { continue };
            meter.drain(until, *units, outstanding);
        }
    }
}
