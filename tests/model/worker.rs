//! A worker process of the model: what it holds in memory, and what it has on disk.

use super::database::{Again, Call, Outcome};

/// How far a job has come in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// No call is under way.
    Idle,
    /// The call was written down and may be made.
    Opened,
    /// The provider is at it.
    Calling,
}

/// A job in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// The job, the fence, and the number of its last call.
    pub call: Call,
    /// Which job it is, regardless of which job has its number now.
    pub born: u8,
    pub round: u8,
    /// Attempts of this round that are used up.
    pub tried: u8,
    pub step: Step,
    /// The claim is gone: the call may end, and no other is made.
    pub doomed: bool,
    /// Whether its call, or the next one, names the fault of an answer.
    pub again: Again,
    /// The highest number of a call under this claim.
    pub highest: u8,
    /// The call that a race makes beside its call.
    pub beside: Option<Beside>,
}

/// A call that a race makes beside another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Beside {
    pub number: u8,
    pub step: Step,
}

impl Held {
    /// The number of the call beside its call, if the provider is at that.
    pub fn asked_beside(&self) -> Option<u8> {
        self.beside.filter(|beside| beside.step == Step::Calling).map(|beside| beside.number)
    }

    /// The same job, whose call has ended: the call beside it, if there is one, is its only one.
    pub fn with_the_other(self) -> Self {
        let (number, step) = self.beside.map_or((self.highest, Step::Idle), |beside| (beside.number, beside.step));
        Self { call: Call { number, ..self.call }, step, beside: None, ..self }
    }
}

/// An outcome in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unsettled {
    pub outcome: Outcome,
    /// The database did not take it at once.
    pub delayed: bool,
}

/// A process, in the life that it has now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    pub up: bool,
    pub id: u8,
    pub draining: bool,
    pub held: Vec<Held>,
    pub memory: Vec<Unsettled>,
    /// Its journal: survives it.
    pub spool: Vec<Outcome>,
}

impl Worker {
    /// Whether an outcome of this job waits in memory before position `before`.
    pub fn waits_in_memory(&self, job: u8, before: usize) -> bool {
        self.memory.iter().take(before).any(|unsettled| unsettled.outcome.call.job == job)
    }

    pub fn waits_in_spool(&self, job: u8) -> bool {
        self.spool.iter().any(|outcome| outcome.call.job == job)
    }

    /// Whether a claim is one that this process knows of.
    pub fn knows(&self, fence: u8, spool_counts: bool) -> bool {
        self.held.iter().any(|held| held.call.fence == fence)
            || self.memory.iter().any(|unsettled| unsettled.outcome.call.fence == fence)
            || (spool_counts && self.spool.iter().any(|outcome| outcome.call.fence == fence))
    }
}

/// A journal that no process holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orphan {
    pub owner: u8,
    pub outcomes: Vec<Outcome>,
}

/// The provider's knowledge of a call, and the fate of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is true by itself")]
pub struct Made {
    /// For which job.
    pub born: u8,
    pub round: u8,
    /// How many calls have this name: more than one is a fault.
    pub times: u8,
    /// Whether money was taken for it. A call whose end no worker hears of counts as billed.
    pub charged: bool,
    /// Whether a process has the whole answer and has not lost it by crashing.
    pub received: bool,
    /// The database knew how it ended, alone, and has lost that with a stretch of time.
    pub lost: bool,
    /// The database has lost its name, with the claim that it was made under.
    pub strayed: bool,
    /// Nothing is left that could tell of it.
    pub forgotten: bool,
    /// It named the fault of an answer.
    pub reask: bool,
}
