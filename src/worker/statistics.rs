//! The statistics that this worker publishes with every heartbeat.

use super::Shared;
use crate::domain::game_day::GameDay;
use crate::domain::statistics::{GameDayStatistics, Statistics, VERSION};
use std::sync::atomic::{AtomicU64, Ordering};

impl Shared {
    pub(super) fn statistics(&self) -> Statistics {
        let count = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed));
        let whole = |amount: usize| Some(amount as u64);
        let counters = self.settler.counters();
        let (plan, settings, now) = (self.plan(), self.settings(), self.clock.now());
        let patience = plan.routes.iter().filter_map(|(name, route)| Some((name.clone(), route.patience()?)));
        let waits = plan.routes.keys().filter_map(|name| Some((name.clone(), plan.hold_up(name, now)?)));
        Statistics {
            version: VERSION,
            life: Some(self.life.clone()),
            beats: Some(self.beats.load(Ordering::Acquire)),
            in_flight: whole(self.hands.jobs()),
            max_in_flight: whole(settings.max_in_flight),
            in_flight_bytes: whole(self.bytes_in_hand()),
            claimed: count(&self.claimed),
            succeeded: count(&counters.succeeded),
            failed: count(&counters.failed),
            attempts: count(&counters.attempts),
            given_back: count(&counters.parked),
            fenced_out: count(&counters.fenced_out),
            unsettled: Some(self.settler.unsettled()),
            spooled: self.settler.spool().map(|spool| spool.fill().outcomes),
            stopping: self.stop.is_cancelled(),
            uptime_seconds: Some(self.started.elapsed().as_secs()),
            only_batch: settings.only_batch.clone(),
            routes: Some(plan.routes.keys().cloned().collect()),
            waits: waits.collect(),
            patience: patience.collect(),
            game_days: settings.game_days.iter().filter(|day| day.is_on(now)).map(told).collect(),
            gate: plan.gate.snapshot(now),
            held_at_death: None,
        }
    }
}

fn told(day: &GameDay) -> GameDayStatistics {
    GameDayStatistics {
        name: day.name.clone(),
        targets: day.targets.clone(),
        faults: day.faults.iter().map(|fault| fault.as_str().to_owned()).collect(),
        share_millionths: day.share,
        until_ms: day.until.0,
    }
}
