//! The database of the model: what each statement does to the rows, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

/// Which rules are kept. A test takes one away and looks what breaks.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is taken away by itself")]
pub struct Rules {
    /// An ending or a park needs the fence of the claim.
    pub fence: bool,
    /// A call is written down before it is made.
    pub open_record: bool,
    /// A late answer counts only in the round in which it was asked for.
    pub round: bool,
    /// The same attempt sent twice is one row.
    pub idempotent: bool,
    /// Claims that their worker does not know of are given back.
    pub reconcile: bool,
    /// They are given back by their fence, not by "all but those that I know".
    pub reconcile_by_fence: bool,
    /// The outcomes that wait in the spool are known.
    pub spool_is_known: bool,
    /// An open call never makes way for an earlier one.
    pub open_forward: bool,
    /// What takes a job out of a worker's hands names the call that was open.
    pub name_when_taken: bool,
    /// The next call of a job waits until the outcome of the last one is in the database.
    pub settle_before_next: bool,
    /// Outcomes of one job are written in their order.
    pub in_order: bool,
    /// A worker that stops stays until its spool is written, unless it gives up waiting.
    pub stay_until_written: bool,
    /// An answer whose fence is gone is used where it can be.
    pub late_answers: bool,
    /// A worker that was declared dead claims nothing.
    pub claim_alive: bool,
    /// A database that refuses is away, and the rows that it refused wait: only a row that is surely at fault itself is
    /// given up.
    pub refused_is_away: bool,
    /// An entry of a journal goes when it is known to be committed, and not before.
    pub journal_until_committed: bool,
    /// A claim says which job it is for, beside the job's number.
    pub born: bool,
    /// Fences come from the process. A sequence goes back with its database.
    pub own_fences: bool,
    /// A call whose job is not there, or not there any more under its number, is booked for no job.
    pub strangers_apart: bool,
    /// After a later call with any outcome, a rejected answer is not named any more.
    pub any_call_ends_it: bool,
    /// A call that a race makes beside another one is written down too, and named by what takes the job away.
    pub beside_record: bool,
    /// The calls that a race has dropped are written together with the answer that won.
    pub lost_together: bool,
    /// The settlement that ends a job makes its shadow, under the job's number.
    pub shadow_of_job: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        fence: true,
        open_record: true,
        round: true,
        idempotent: true,
        reconcile: true,
        reconcile_by_fence: true,
        spool_is_known: true,
        open_forward: true,
        name_when_taken: true,
        settle_before_next: true,
        in_order: true,
        stay_until_written: true,
        late_answers: true,
        claim_alive: true,
        refused_is_away: true,
        journal_until_committed: true,
        born: true,
        own_fences: true,
        strangers_apart: true,
        any_call_ends_it: true,
        beside_record: true,
        lost_together: true,
        shadow_of_job: true,
    };
}

/// A call to a provider, and its row on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub job: u8,
    pub fence: u8,
    pub number: u8,
}

/// Where an open job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Ready,
    Parked,
    /// `beside`: the numbers of the calls that a race makes beside the open one, a bit for each.
    InFlight {
        fence: u8,
        worker: u8,
        open: Option<u8>,
        beside: u8,
    },
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    Succeeded(Call),
    Failed,
    Cancelled,
}

/// A row of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    pub how: How,
    pub fence: u8,
    pub round: u8,
}

/// A job's rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Which job it is. The number may have been another's, in a stretch of time that the database has lost.
    pub born: u8,
    pub place: Option<Place>,
    pub ending: Option<Ending>,
    pub crashes: u8,
    pub round: u8,
    /// With how many jobs in its hands the last worker died that held this one.
    pub died_with: u8,
    /// How many jobs there are that ask another target the same.
    pub shadows: u8,
}

/// What a row of the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// An answer that was used.
    Accepted,
    /// An answer that came too late to be used: its cost is waste.
    Late,
    /// An answer that breaks a rule: its cost is waste, and its fault may be named.
    Rejected,
    /// The provider said no, and took nothing.
    Refused,
    /// It broke off, or was given up: it may have been billed.
    Uncertain,
    /// Booked by another process because the worker may never tell.
    Placeholder,
}

impl Said {
    pub fn cost(self) -> u8 {
        u8::from(matches!(self, Self::Accepted | Self::Late | Self::Rejected))
    }

    pub fn uncertain(self) -> u8 {
        u8::from(matches!(self, Self::Uncertain | Self::Placeholder))
    }
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub said: Said,
    pub round: u8,
    /// How many there are with this key: more than one is a fault.
    pub copies: u8,
    /// The call named the fault of an answer. Not told by the row that stands for a worker's word.
    pub reask: bool,
}

/// Whether the next call of a job names the fault of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Again {
    /// There is no such answer.
    #[default]
    No,
    Due,
    /// One was due: there is no other in this round.
    Over,
}

impl Again {
    /// After one more call.
    pub fn after(self, rules: &Rules, said: Said, reask: bool) -> Self {
        match (self, said) {
            _ if reask => Self::Over,
            (Self::No, Said::Rejected) => Self::Due,
            (Self::Due, said) if rules.any_call_ends_it || said == Said::Rejected => Self::Over,
            _ => self,
        }
    }
}

/// The place of a number in a set of them.
fn bit(number: u8) -> u8 {
    1 << number
}

/// What a worker saw of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seen {
    Answer,
    Refusal,
    Cut,
    Rejected,
}

/// The next state of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Then {
    GoOn,
    Succeed,
    Fail,
    Park,
}

/// The outcome of a step: written together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome {
    pub call: Call,
    pub born: u8,
    pub round: u8,
    pub seen: Option<Seen>,
    pub then: Then,
    /// The call named the fault of an answer.
    pub reask: bool,
    /// The number of the call beside it that was dropped because of it.
    pub lost: Option<u8>,
}

impl Outcome {
    /// The calls that it tells of.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        let lost = self.lost.map(|number| Call { number, ..self.call });
        std::iter::once(self.call).chain(lost)
    }
}

/// The round of calls whose job is not there any more: no job has it.
pub const NO_JOB: u8 = u8::MAX;

/// A worker's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Live,
    Dead,
    Gone,
}

/// A statement that a worker has given up waiting for. The server may run it at any time, or never: a reply that was
/// lost is one that runs at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Statement {
    Claim { job: u8, worker: u8 },
    Open(Call),
    OpenBeside(Call),
    Settle(Outcome),
    GiveBack { job: u8, fence: u8 },
    GiveBackAllBut { worker: u8, known: BTreeSet<u8> },
}

/// Everything that is in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    pub jobs: Vec<Job>,
    pub ledger: BTreeMap<Call, Row>,
    pub workers: Vec<Life>,
    /// How many jobs a worker held when the first of them was rescued.
    pub held_at_death: BTreeMap<u8, u8>,
    pub recalls: BTreeSet<(u8, u8, u8)>,
    pub next_fence: u8,
    /// Which job the next one is. No two are the same, regardless of what the database has lost.
    pub next_born: u8,
}

impl Database {
    pub fn new(jobs: u8) -> Self {
        let mut database = Self {
            jobs: Vec::new(),
            ledger: BTreeMap::new(),
            workers: Vec::new(),
            held_at_death: BTreeMap::new(),
            recalls: BTreeSet::new(),
            next_fence: 1,
            next_born: 0,
        };
        for _ in 0..jobs {
            database.enqueue();
        }
        database
    }

    pub fn enqueue(&mut self) {
        self.jobs.push(Job {
            born: self.next_born,
            place: Some(Place::Ready),
            ending: None,
            crashes: 0,
            round: 0,
            died_with: 0,
            shadows: 0,
        });
        self.next_born += 1;
    }

    /// Goes back to an earlier state of its own.
    pub fn go_back(&mut self, rules: &Rules, earlier: Self) {
        let later = std::mem::replace(self, earlier);
        self.next_born = later.next_born;
        if rules.own_fences {
            self.next_fence = later.next_fence;
        }
        // Numbers of workers do come again: two processes may have the same one, and neither knows.
    }

    pub fn job(&self, job: u8) -> &Job {
        &self.jobs[usize::from(job)]
    }

    /// Where the job is for which this was bought. `None`: it is not there any more.
    fn place_of(&self, rules: &Rules, outcome: Outcome) -> Option<&Job> {
        self.jobs.get(usize::from(outcome.call.job)).filter(|job| job.born == outcome.born || !rules.born)
    }

    fn job_mut(&mut self, job: u8) -> &mut Job {
        &mut self.jobs[usize::from(job)]
    }

    pub fn is_live(&self, worker: u8) -> bool {
        self.workers.get(usize::from(worker)) == Some(&Life::Live)
    }

    pub fn register(&mut self) -> u8 {
        self.workers.push(Life::Live);
        u8::try_from(self.workers.len() - 1).unwrap()
    }

    fn fence(&mut self) -> u8 {
        self.next_fence += 1;
        self.next_fence - 1
    }

    /// The fence, when the job was there to be taken.
    pub fn claim(&mut self, rules: &Rules, job: u8, worker: u8) -> Option<u8> {
        let is_ready = self.jobs.get(usize::from(job)).is_some_and(|job| job.place == Some(Place::Ready));
        if !is_ready || (rules.claim_alive && !self.is_live(worker)) {
            return None;
        }
        let fence = self.fence();
        self.job_mut(job).place = Some(Place::InFlight { fence, worker, open: None, beside: 0 });
        Some(fence)
    }

    /// Whether the call may be made.
    pub fn open(&mut self, rules: &Rules, call: Call) -> bool {
        match self.jobs.get_mut(usize::from(call.job)).map(|job| &mut job.place) {
            Some(Some(Place::InFlight { fence, open, .. })) if *fence == call.fence => {
                if rules.open_forward && open.is_some_and(|open| open > call.number) {
                    return false;
                }
                if rules.open_record {
                    *open = Some(call.number);
                }
                true
            }
            _ => false,
        }
    }

    /// Whether a call may be made beside another one of its claim.
    pub fn open_beside(&mut self, rules: &Rules, call: Call) -> bool {
        match self.jobs.get_mut(usize::from(call.job)).map(|job| &mut job.place) {
            Some(Some(Place::InFlight { fence, beside, .. })) if *fence == call.fence => {
                if rules.beside_record {
                    *beside |= bit(call.number);
                }
                true
            }
            _ => false,
        }
    }

    /// Rows that stand for a worker's word until it comes, if it does.
    fn book_placeholder(&mut self, job: u8) {
        if let Some(Place::InFlight { fence, open, beside, .. }) = self.job(job).place {
            let row = Row { said: Said::Placeholder, round: self.job(job).round, copies: 1, reask: false };
            for number in open.into_iter().chain((0..8).filter(|number| beside & bit(*number) != 0)) {
                self.ledger.entry(Call { job, fence, number }).or_insert(row);
            }
        }
    }

    /// Whether a call is on the ledger, or will be when its claim is taken back.
    pub fn names(&self, call: Call) -> bool {
        let is_open = |job: &Job| {
            let Some(Place::InFlight { fence, open, beside, .. }) = job.place else { return false };
            fence == call.fence && (open == Some(call.number) || beside & bit(call.number) != 0)
        };
        self.ledger.contains_key(&call) || self.jobs.get(usize::from(call.job)).is_some_and(is_open)
    }

    /// Takes a job out of another worker's hands.
    fn take_away(&mut self, rules: &Rules, job: u8) {
        if let Some(Place::InFlight { fence, worker, .. }) = self.job(job).place {
            if rules.name_when_taken {
                self.book_placeholder(job);
            }
            self.recalls.insert((worker, job, fence));
        }
    }

    pub fn settle(&mut self, rules: &Rules, outcome: Outcome) {
        let Call { job, fence, .. } = outcome.call;
        let row = self.place_of(rules, outcome);
        let is_stranger = row.is_none();
        let held = row.is_some_and(|row| match row.place {
            Some(Place::InFlight { fence: current, .. }) => current == fence || !rules.fence,
            Some(_) => !rules.fence,
            None => false,
        });
        let in_time = row.is_some_and(|row| row.place.is_some() && (row.round == outcome.round || !rules.round));
        // Sent before, and that commit went through after all. Another process wrote a failure under the same fence.
        let own_ending = row
            .and_then(|row| row.ending)
            .is_some_and(|ending| matches!(ending.how, How::Succeeded(of) if of == outcome.call));
        let mut used = false;
        match outcome.then {
            Then::Succeed if held || (in_time && rules.late_answers) => {
                used = true;
                if !held {
                    self.take_away(rules, job);
                }
                self.end(job, How::Succeeded(outcome.call), fence);
            }
            Then::Succeed => used = own_ending,
            Then::Fail if held => self.end(job, How::Failed, fence),
            Then::Park if held => self.job_mut(job).place = Some(Place::Parked),
            Then::Fail | Then::Park | Then::GoOn => {}
        }
        if used {
            let row = self.job_mut(job);
            row.shadows = if rules.shadow_of_job { 1 } else { row.shadows.saturating_add(1) };
        }
        let said = match outcome.seen {
            None => return,
            Some(Seen::Answer) if used => Said::Accepted,
            Some(Seen::Answer) => Said::Late,
            Some(Seen::Refusal) => Said::Refused,
            Some(Seen::Cut) => Said::Uncertain,
            Some(Seen::Rejected) => Said::Rejected,
        };
        let round = if is_stranger && rules.strangers_apart { NO_JOB } else { outcome.round };
        let lost = outcome.lost.map(|number| (Call { number, ..outcome.call }, Said::Uncertain, false));
        for (call, said, reask) in [(outcome.call, said, outcome.reask)].into_iter().chain(lost) {
            let fresh = Row { said, round, copies: 1, reask };
            self.ledger
                .entry(call)
                .and_modify(|row| {
                    if row.said == Said::Placeholder {
                        *row = fresh;
                    } else if !rules.idempotent {
                        row.copies += 1;
                    }
                })
                .or_insert(fresh);
            // A booked call is not under way any more.
            if let Some(Some(Place::InFlight { fence: current, beside, .. })) =
                self.jobs.get_mut(usize::from(job)).map(|job| &mut job.place)
                && *current == fence
            {
                *beside &= !bit(call.number);
            }
        }
    }

    fn end(&mut self, job: u8, how: How, fence: u8) {
        let row = self.job_mut(job);
        row.place = None;
        row.ending = Some(Ending { how, fence, round: row.round });
    }

    /// Whether there was something to do.
    pub fn give_back(&mut self, job: u8, fence: u8) -> bool {
        let held = |job: &Job| matches!(job.place, Some(Place::InFlight { fence: current, .. }) if current == fence);
        let held = self.jobs.get(usize::from(job)).is_some_and(held);
        if held {
            self.job_mut(job).place = Some(Place::Ready);
        }
        held
    }

    pub fn run(&mut self, rules: &Rules, statement: &Statement) {
        match statement {
            Statement::Claim { job, worker } => {
                self.claim(rules, *job, *worker);
            }
            Statement::Open(call) => {
                self.open(rules, *call);
            }
            Statement::OpenBeside(call) => {
                self.open_beside(rules, *call);
            }
            Statement::Settle(outcome) => self.settle(rules, *outcome),
            Statement::GiveBack { job, fence } => {
                self.give_back(*job, *fence);
            }
            Statement::GiveBackAllBut { worker, known } => {
                for job in &mut self.jobs {
                    if let Some(Place::InFlight { fence, worker: holder, .. }) = job.place
                        && holder == *worker
                        && !known.contains(&fence)
                    {
                        job.place = Some(Place::Ready);
                    }
                }
            }
        }
    }

    /// Gives back a job whose worker is not alive, or ends it when too many have died with it, the last with no other.
    pub fn rescue(&mut self, max_crashes: u8, job: u8) {
        self.book_placeholder(job);
        let Some(Place::InFlight { fence, worker, .. }) = self.job(job).place else { return };
        let is_its = |job: &&Job| matches!(job.place, Some(Place::InFlight { worker: holder, .. }) if holder == worker);
        let held = u8::try_from(self.jobs.iter().filter(is_its).count()).unwrap();
        let held = *self.held_at_death.entry(worker).or_insert(held);
        let row = self.job_mut(job);
        row.crashes += 1;
        row.died_with = held;
        if row.crashes < max_crashes || held > 1 {
            row.place = Some(Place::Ready);
        } else {
            self.end(job, How::Failed, fence);
        }
    }

    pub fn cancel(&mut self, rules: &Rules, job: u8) {
        self.take_away(rules, job);
        let fence = self.fence();
        self.end(job, How::Cancelled, fence);
    }

    pub fn retry(&mut self, job: u8) {
        let row = self.job_mut(job);
        if let Some(ending) = row.ending.take() {
            row.round = ending.round + 1;
            row.crashes = 0;
            row.place = Some(Place::Ready);
        }
    }

    /// Calls of a round that use up an attempt.
    pub fn tried(&self, job: u8, round: u8) -> u8 {
        let counts = |(call, row): &(&Call, &Row)| {
            call.job == job
                && row.round == round
                && matches!(row.said, Said::Refused | Said::Uncertain | Said::Rejected)
        };
        u8::try_from(self.ledger.iter().filter(counts).count()).unwrap()
    }

    /// Whether the next call of this round names the fault of an answer, as the ledger has it.
    pub fn again(&self, rules: &Rules, job: u8, round: u8) -> Again {
        let rows = self.ledger.iter().filter(|(call, row)| call.job == job && row.round == round);
        rows.fold(Again::No, |again, (_, row)| again.after(rules, row.said, row.reask))
    }
}
