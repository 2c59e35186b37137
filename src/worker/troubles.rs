//! Repeated failures: reported when they begin, once a minute while they last, and when they are over.

use crate::store::StoreError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two lines about the same trouble.
const EVERY: Duration = Duration::from_mins(1);

/// The trouble that a task is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The database is away: the same trouble for all tasks.
    Away,
    /// A trouble of this task alone.
    Own(&'static str),
}

/// The tasks of one loop that fail.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    failing: BTreeMap<&'static str, Kind>,
    /// When each trouble was last reported.
    told: BTreeMap<Kind, Instant>,
}

/// The line to log, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Trouble,
    Over,
}

impl Troubles {
    /// Records how a task went, and logs what there is to say of it. Returns the task's value if it succeeded.
    pub fn note<T>(&mut self, task: &'static str, outcome: Result<T, StoreError>) -> Option<T> {
        let kind = outcome.as_ref().err().map(|error| if error.is_transient() { Kind::Away } else { Kind::Own(task) });
        let say = self.see(task, kind, Instant::now());
        match outcome {
            Ok(done) => {
                if say == Say::Over {
                    tracing::info!(task, "upkeep goes on");
                }
                Some(done)
            }
            Err(error) => {
                if say == Say::Trouble {
                    tracing::warn!(task, error = %error, "a task of upkeep has failed, and is tried again");
                } else {
                    tracing::debug!(task, error = %error, "a task of upkeep has failed, and is tried again");
                }
                None
            }
        }
    }

    fn see(&mut self, task: &'static str, kind: Option<Kind>, now: Instant) -> Say {
        let before = match kind {
            Some(kind) => self.failing.insert(task, kind),
            None => self.failing.remove(task),
        };
        if let Some(before) = before
            && !self.failing.values().any(|kind| *kind == before)
        {
            self.told.remove(&before);
            if kind.is_none() {
                return Say::Over;
            }
        }
        let Some(kind) = kind else { return Say::Nothing };
        if self.told.get(&kind).is_some_and(|told| now < *told + EVERY) {
            return Say::Nothing;
        }
        self.told.insert(kind, now);
        Say::Trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_once_a_minute_and_once_when_it_is_over_whatever_fails_in_it() {
        let start = Instant::now();
        let mut troubles = Troubles::default();
        let mut told = Vec::new();
        for second in 0..150 {
            for task in ["wake", "rescue", "fold"] {
                if troubles.see(task, Some(Kind::Away), start + Duration::from_secs(second)) == Say::Trouble {
                    told.push((second, task));
                }
            }
        }
        assert_eq!(told, [(0, "wake"), (60, "wake"), (120, "wake")]);
        let after = start + Duration::from_secs(150);
        let said = ["wake", "rescue", "fold", "wake"].map(|task| troubles.see(task, None, after));
        assert_eq!(said, [Say::Nothing, Say::Nothing, Say::Over, Say::Nothing]);
        assert_eq!(troubles.see("fold", Some(Kind::Away), after), Say::Trouble, "the next outage is another");
    }

    #[test]
    fn a_task_with_a_trouble_of_its_own_is_told_of_beside_an_outage_and_beside_others() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        assert_eq!(troubles.see("wake", Some(Kind::Away), now), Say::Trouble);
        assert_eq!(troubles.see("fold", Some(Kind::Own("fold")), now), Say::Trouble);
        assert_eq!(troubles.see("tidy", Some(Kind::Own("tidy")), now), Say::Trouble);
        assert_eq!(troubles.see("fold", Some(Kind::Own("fold")), now), Say::Nothing);
        assert_eq!(troubles.see("wake", None, now), Say::Over);
        // The trouble changes into the other kind, and back: that is not the end of it.
        assert_eq!(troubles.see("fold", Some(Kind::Away), now), Say::Trouble);
        assert_eq!(troubles.see("fold", None, now), Say::Over);
        assert_eq!(troubles.see("tidy", Some(Kind::Own("tidy")), now + EVERY), Say::Trouble);
    }
}
