//! The begin and the end of game days: logged once each, and at the end nothing is held back any more.

use super::Shared;
use crate::domain::Timestamp;
use crate::domain::game_day::GameDay;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often it looks. The clock may be set, and another configuration may come, at any time.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut on: BTreeMap<String, GameDay> = BTreeMap::new();
    loop {
        let (settings, now) = (shared.settings(), shared.clock.now());
        if turn(&mut on, &settings.game_days, now) {
            shared.plan().gate.keep_rehearsals(&settings.game_days, now);
            shared.hands.freed.notify_one();
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Notes and logs which game days are on now; returns whether one has ended, or is another one than before.
fn turn(on: &mut BTreeMap<String, GameDay>, days: &[GameDay], now: Timestamp) -> bool {
    let now_on: BTreeMap<String, GameDay> =
        days.iter().filter(|day| day.is_on(now)).map(|day| (day.name.clone(), day.clone())).collect();
    let mut has_changed = false;
    for (name, day) in on.iter() {
        let same = now_on.get(name);
        has_changed |= same != Some(day);
        if same.is_none() {
            tracing::info!(game_day = name, "a game day is over: no call fails on purpose for it any more");
        }
    }
    for (name, day) in now_on.iter().filter(|(name, _)| !on.contains_key(*name)) {
        tracing::warn!(
            game_day = name,
            targets = day.targets.join(", "),
            share_millionths = day.share,
            ends_in_seconds = now.until(day.until).as_secs(),
            "a game day is on: calls fail on purpose"
        );
    }
    *on = now_on;
    has_changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::game_day::GameFault;

    #[test]
    fn a_game_day_is_noticed_once_when_it_begins_and_once_when_it_ends() {
        let day = GameDay {
            name: "friday".to_owned(),
            targets: vec!["openai".to_owned()],
            faults: vec![GameFault::ServerError],
            share: 1,
            from: Timestamp(10),
            until: Timestamp(20),
        };
        let days = [day.clone()];
        let mut on = BTreeMap::new();
        for (at, is_on, has_changed) in
            [(9, false, false), (10, true, false), (11, true, false), (20, false, true), (21, false, false)]
        {
            assert_eq!(turn(&mut on, &days, Timestamp(at)), has_changed, "{at}");
            assert_eq!(on.len(), usize::from(is_on), "{at}");
        }
        assert!(!turn(&mut on, &days, Timestamp(12)));
        let shorter = [GameDay { until: Timestamp(15), ..day }];
        assert!(turn(&mut on, &shorter, Timestamp(13)));
        assert!(turn(&mut on, &[], Timestamp(14)), "taken out");
    }
}
