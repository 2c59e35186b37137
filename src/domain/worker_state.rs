//! The state of a worker, as users know it.

use serde::Serialize;
use std::fmt;

/// Whether a worker may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Its lease is in force.
    Live,
    /// Its lease has run out, whether or not another worker has noted it.
    Dead,
    /// It has ended in order.
    Gone,
}

impl WorkerState {
    /// The state of this word in the database. A word of a newer version is no licence to act.
    #[must_use]
    pub fn named(word: &str) -> Self {
        match word {
            "live" => Self::Live,
            "gone" => Self::Gone,
            _ => Self::Dead,
        }
    }

    /// The word in the database and for users.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_leads_back_to_its_state_and_others_to_no_live_one() {
        for state in [WorkerState::Live, WorkerState::Dead, WorkerState::Gone] {
            assert_eq!(WorkerState::named(state.as_str()), state);
        }
        assert_eq!(WorkerState::named("of tomorrow"), WorkerState::Dead);
    }
}
