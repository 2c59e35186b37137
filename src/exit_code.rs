//! The meanings of the exit status of `sluice`. Scripts rely on the numbers: they never change.

use std::process::Termination;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// Failed for a reason that has no number of its own; it is on standard error.
    Failure = 1,
    /// The command line is wrong (the number that `clap` uses).
    Usage = 2,
    /// The configuration is wrong; all its faults are on standard error.
    Configuration = 3,
    /// The database cannot be reached, or its schema is not the one this version needs.
    Database = 4,
    /// All work is finished, and some jobs failed or were cancelled.
    JobsFailed = 5,
    /// There is no such job, batch, route or provider.
    NotFound = 6,
    /// The input is wrong (a file to enqueue, for example); nothing was done with it.
    Input = 7,
    /// The simulator ended, and the client that it saw did not behave.
    NotClean = 8,
    /// The doctor found something that hurts the queue.
    Unwell = 9,
    /// Work on a batch cannot go on before a person does something: no target of its route has a key in service and
    /// knows the model, or its budget is spent. Its jobs stay queued.
    Stuck = 10,
    /// The ledger and the invoice beside it do not agree.
    Disagrees = 11,
    /// A signal ended it before it was done (the number that shells use for Ctrl-C).
    Interrupted = 130,
}

impl ExitCode {
    /// Every code, for the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Configuration,
        Self::Database,
        Self::JobsFailed,
        Self::NotFound,
        Self::Input,
        Self::NotClean,
        Self::Unwell,
        Self::Stuck,
        Self::Disagrees,
        Self::Interrupted,
    ];

    /// The meaning, in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Failure => "failed",
            Self::Usage => "wrong command line",
            Self::Configuration => "faulty configuration",
            Self::Database => "database unreachable, or its schema does not fit",
            Self::JobsFailed => "all work is finished, and some jobs failed",
            Self::NotFound => "no such job, batch, route or provider",
            Self::Input => "faulty input; nothing was done with it",
            Self::NotClean => "the simulator's verdict is not clean",
            Self::Unwell => "the doctor found something bad",
            Self::Stuck => "work cannot go on: no key in service, no such model, no server reached, or a budget spent",
            Self::Disagrees => "the ledger and the invoice do not agree",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Termination for ExitCode {
    fn report(self) -> std::process::ExitCode {
        (self as u8).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_a_contract() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| *code as u8).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 130]);
        assert_eq!(ExitCode::JobsFailed as u8, 5);
    }
}
