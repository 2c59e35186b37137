//! Everything together, and every step that may come next.

use super::database::{Call, Database, How, Life, Outcome, Place, Rules, Said, Seen, Statement};
use super::worker::{Held, Made, Orphan, Step, Worker};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet};

mod step;

/// How often each thing may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// A process is killed.
    pub crashes: u8,
    /// A living worker is taken for dead.
    pub expiries: u8,
    /// A statement has no reply in time.
    pub delays: u8,
    /// A provider refuses.
    pub refusals: u8,
    /// An answer breaks off.
    pub cuts: u8,
    /// An answer breaks a rule of form.
    pub rejections: u8,
    /// A user cancels.
    pub cancels: u8,
    /// A user asks for another try.
    pub retries: u8,
    /// A process is asked to stop.
    pub drains: u8,
    /// One that is stopping gives up a call, or leaves something in its journal.
    pub give_ups: u8,
    /// The database refuses for a while: it was made read-only, or knows the login no more.
    pub refusing: u8,
    /// The database goes back to an earlier state: an asynchronous standby takes over, or a backup is restored.
    pub returns: u8,
    /// A job is enqueued where there is none.
    pub enqueues: u8,
    /// A call is made beside another one, because that is slow to answer.
    pub races: u8,
}

/// The limits of the exploration.
#[derive(Clone, Debug)]
pub struct World {
    pub workers: usize,
    pub jobs: u8,
    pub max_attempts: u8,
    pub max_crashes: u8,
    pub trouble: Trouble,
    pub rules: Rules,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub database: Database,
    pub workers: Vec<Worker>,
    pub orphans: Vec<Orphan>,
    /// Statements whose reply no worker waits for any more.
    pub adrift: Vec<Statement>,
    pub calls: BTreeMap<Call, Made>,
    pub trouble: Trouble,
    /// Every statement is refused: nothing of it is committed.
    pub refuses: bool,
    /// What the standby has got, or the backup: where the database may go back to.
    pub earlier: Option<Box<Database>>,
}

/// One step. Numbers are positions; `delayed` means that no reply comes in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start {
        worker: usize,
    },
    Claim {
        worker: usize,
        job: u8,
        delayed: bool,
    },
    Open {
        worker: usize,
        held: usize,
        delayed: bool,
    },
    Send {
        worker: usize,
        held: usize,
    },
    Answer {
        worker: usize,
        held: usize,
    },
    Fail {
        worker: usize,
        held: usize,
        seen: Seen,
        park: bool,
    },
    OpenBeside {
        worker: usize,
        held: usize,
        delayed: bool,
    },
    SendBeside {
        worker: usize,
        held: usize,
    },
    AnswerBeside {
        worker: usize,
        held: usize,
    },
    FailBeside {
        worker: usize,
        held: usize,
        seen: Seen,
    },
    /// A job whose attempts are used up, or that its worker may not go on with.
    Conclude {
        worker: usize,
        held: usize,
    },
    Settle {
        worker: usize,
        outcome: usize,
        delayed: bool,
    },
    Spool {
        worker: usize,
        outcome: usize,
    },
    Replay {
        worker: usize,
        delayed: bool,
    },
    ReplayOrphan {
        orphan: usize,
    },
    Bury {
        orphan: usize,
    },
    Beat {
        worker: usize,
    },
    Reconcile {
        worker: usize,
        job: u8,
        delayed: bool,
    },
    RunAdrift {
        statement: usize,
    },
    DropAdrift {
        statement: usize,
    },
    Crash {
        worker: usize,
    },
    Expire {
        id: u8,
    },
    Rescue {
        job: u8,
    },
    Wake {
        job: u8,
    },
    Cancel {
        job: u8,
    },
    Retry {
        job: u8,
    },
    Drain {
        worker: usize,
    },
    GiveUp {
        worker: usize,
        held: usize,
    },
    Leave {
        worker: usize,
    },
    /// The database begins to refuse.
    Refuse,
    /// And is as it was.
    Serve,
    /// A backup is made; or nothing more arrives at the standby.
    Keep,
    GoBack,
    Enqueue,
}

impl State {
    /// Nothing is left to do: what faults are still allowed does not count.
    pub fn is_done(&self) -> bool {
        self.database.jobs.iter().all(|job| job.place.is_none())
            && self
                .workers
                .iter()
                .all(|worker| worker.held.is_empty() && worker.memory.is_empty() && worker.spool.is_empty())
            && self.orphans.iter().all(|orphan| orphan.outcomes.is_empty())
            && self.adrift.is_empty()
            && !self.refuses
    }

    fn is_current(&self, id: u8) -> bool {
        self.workers.iter().any(|worker| worker.up && worker.id == id)
    }

    fn delay(&mut self, statement: Statement) {
        self.trouble.delays -= 1;
        self.adrift.push(statement);
        self.adrift.sort();
    }

    /// Whether a worker's row still means something.
    fn is_referred_to(&self, id: u8) -> bool {
        let holds = |place| matches!(place, Some(Place::InFlight { worker, .. }) if worker == id);
        let may_hold = |statement: &Statement| match statement {
            Statement::Claim { worker, .. } | Statement::GiveBackAllBut { worker, .. } => *worker == id,
            _ => false,
        };
        let earlier = self.earlier.iter().flat_map(|earlier| &earlier.jobs);
        self.is_current(id)
            || self.database.jobs.iter().chain(earlier).any(|job| holds(job.place))
            || self.adrift.iter().any(may_hold)
    }

    /// States that differ in nothing that matters become one.
    fn tidy(&mut self) {
        for worker in &mut self.workers {
            worker.held.sort();
        }
        // Which process is which does not matter.
        self.workers.sort();
        let mut recalls = std::mem::take(&mut self.database.recalls);
        recalls.retain(|(worker, ..)| self.is_current(*worker));
        self.database.recalls = recalls;
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|orphan| !orphan.outcomes.is_empty() || self.is_referred_to(orphan.owner));
        self.orphans = orphans;
        for id in 0..self.database.workers.len() {
            if !self.is_referred_to(u8::try_from(id).unwrap()) {
                self.database.workers[id] = Life::Gone;
                if let Some(life) = self.earlier.as_mut().and_then(|earlier| earlier.workers.get_mut(id)) {
                    *life = Life::Gone;
                }
            }
        }
        // The number of the last worker may be given again when nothing refers to it any more.
        while let Some(last) = self.database.workers.len().checked_sub(1).map(|last| u8::try_from(last).unwrap()) {
            if self.is_referred_to(last) || self.orphans.iter().any(|orphan| orphan.owner == last) {
                break;
            }
            self.database.workers.pop();
        }
        if let Some(earlier) = &mut self.earlier {
            earlier.workers.truncate(self.database.workers.len());
        }
        // Where there is no going back, nothing is kept for it.
        if self.trouble.returns == 0 {
            self.earlier = None;
        }
    }

    /// The end of a process, by its own will or not.
    fn end_process(&mut self, worker: usize) {
        let process = &mut self.workers[worker];
        let orphan = Orphan { owner: process.id, outcomes: std::mem::take(&mut process.spool) };
        *process = Worker::default();
        self.orphans.push(orphan);
        self.orphans.sort();
    }

    /// The database is what it was, and goes on from there. What workers have in memory and on disk is as it is.
    fn go_back(&mut self, rules: &Rules) {
        let Some(earlier) = self.earlier.take() else { return };
        self.trouble.returns -= 1;
        self.database.go_back(rules, *earlier);
        // Statements that no caller waits for any more were sent to the server as it was.
        self.adrift.clear();
        let on_their_way = self.on_their_way();
        for (call, made) in &mut self.calls {
            let known = self.database.ledger.get(call).is_some_and(|row| row.said != Said::Placeholder);
            made.lost |= !known && !on_their_way.contains(call);
            made.strayed |= !self.database.names(*call);
            made.forgotten |= made.lost;
        }
    }

    /// Calls that a process, or what it left behind, has yet to tell of.
    fn on_their_way(&self) -> BTreeSet<Call> {
        let held = |worker: &Worker| {
            let calling = worker.held.iter().filter(|held| held.step == Step::Calling).map(|held| held.call);
            let beside = |held: &Held| Some(Call { number: held.asked_beside()?, ..held.call });
            let beside = worker.held.iter().filter_map(beside);
            let memory = worker.memory.iter().flat_map(|unsettled| unsettled.outcome.calls());
            let spool = worker.spool.iter().flat_map(Outcome::calls);
            calling.chain(beside).chain(memory).chain(spool).collect::<Vec<_>>()
        };
        let left = self.orphans.iter().flat_map(|orphan| orphan.outcomes.iter().flat_map(Outcome::calls));
        self.workers.iter().flat_map(held).chain(left).collect()
    }

    /// A call whose end no worker hears of.
    fn lose_call(&mut self, call: Call) {
        if let Some(made) = self.calls.get_mut(&call) {
            made.charged = true;
        }
    }
}

impl World {
    fn worker_actions(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let process = &state.workers[worker];
        // A refused statement has a reply.
        let delays: &[bool] = if state.trouble.delays > 0 && !state.refuses { &[false, true] } else { &[false] };
        let rules = &self.rules;
        for (job, row) in (0_u8..).zip(&state.database.jobs) {
            match row.place {
                _ if state.refuses => {}
                Some(Place::Ready)
                    if !process.draining && (state.database.is_live(process.id) || !rules.claim_alive) =>
                {
                    actions.extend(delays.iter().map(|&delayed| Action::Claim { worker, job, delayed }));
                }
                Some(Place::InFlight { fence, worker: id, .. })
                    if rules.reconcile && id == process.id && !process.knows(fence, rules.spool_is_known) =>
                {
                    actions.extend(delays.iter().map(|&delayed| Action::Reconcile { worker, job, delayed }));
                }
                _ => {}
            }
        }
        if !rules.reconcile_by_fence && state.trouble.delays > 0 && !state.refuses {
            // The list is made when nothing is wrong yet, and used when it is out of date.
            actions.push(Action::Reconcile { worker, job: 0, delayed: true });
        }
        for (index, held) in process.held.iter().enumerate() {
            match held.step {
                Step::Idle if process.draining || held.tried >= self.max_attempts => {
                    actions.push(Action::Conclude { worker, held: index });
                }
                // Nothing is sent that could not be written down.
                Step::Idle if state.refuses => {}
                Step::Idle => {
                    let settled =
                        !process.waits_in_memory(held.call.job, usize::MAX) && !process.waits_in_spool(held.call.job);
                    if settled || !rules.settle_before_next {
                        actions.extend(delays.iter().map(|&delayed| Action::Open { worker, held: index, delayed }));
                    }
                }
                Step::Opened => actions.push(Action::Send { worker, held: index }),
                Step::Calling => {
                    actions.push(Action::Answer { worker, held: index });
                    // Whether it is tried again here or parked matters only while there are attempts left.
                    let parks: &[bool] =
                        if held.doomed || held.tried + 1 >= self.max_attempts { &[false] } else { &[false, true] };
                    let Trouble { refusals, cuts, rejections, .. } = state.trouble;
                    for (seen, left) in [(Seen::Refusal, refusals), (Seen::Cut, cuts), (Seen::Rejected, rejections)] {
                        if left > 0 {
                            actions.extend(parks.iter().map(|&park| Action::Fail { worker, held: index, seen, park }));
                        }
                    }
                    if process.draining && state.trouble.give_ups > 0 {
                        actions.push(Action::GiveUp { worker, held: index });
                    }
                    self.race_actions(state, (worker, index), delays, actions);
                }
            }
        }
        for (index, unsettled) in process.memory.iter().enumerate() {
            let job = unsettled.outcome.call.job;
            if rules.in_order && process.waits_in_memory(job, index) {
                continue;
            }
            let behind = rules.in_order && process.waits_in_spool(job);
            // Refused once, it is not sent again before there is a change.
            let is_refused = state.refuses && unsettled.delayed;
            if !behind && !is_refused {
                actions.extend(delays.iter().map(|&delayed| Action::Settle { worker, outcome: index, delayed }));
            }
            if unsettled.delayed || behind {
                actions.push(Action::Spool { worker, outcome: index });
            }
        }
        let keeps = state.refuses && rules.journal_until_committed;
        if !process.spool.is_empty() && !keeps {
            actions.extend(delays.iter().map(|&delayed| Action::Replay { worker, delayed }));
        }
        let recalled = |held: &Held| state.database.recalls.contains(&(process.id, held.call.job, held.call.fence));
        if !state.refuses && (!state.database.is_live(process.id) || process.held.iter().any(recalled)) {
            actions.push(Action::Beat { worker });
        }
        if state.trouble.crashes > 0 {
            actions.push(Action::Crash { worker });
        }
        if state.trouble.drains > 0 && !process.draining {
            actions.push(Action::Drain { worker });
        }
        let may_leave = process.spool.is_empty() || state.trouble.give_ups > 0 || !rules.stay_until_written;
        if process.draining && process.held.is_empty() && process.memory.is_empty() && may_leave {
            actions.push(Action::Leave { worker });
        }
    }

    /// The next steps of the call that runs, or may run, beside another one.
    fn race_actions(&self, state: &State, (worker, held): (usize, usize), delays: &[bool], actions: &mut Vec<Action>) {
        let process = &state.workers[worker];
        let job = &process.held[held];
        let Trouble { races, refusals, cuts, .. } = state.trouble;
        match job.beside.map(|beside| beside.step) {
            None => {
                let may = races > 0 && !job.doomed && !process.draining && !state.refuses;
                // Both may fail.
                let both = job.tried + 2 <= self.max_attempts;
                let id = job.call.job;
                let settled = !process.waits_in_memory(id, usize::MAX) && !process.waits_in_spool(id);
                if may && both && (settled || !self.rules.settle_before_next) {
                    actions.extend(delays.iter().map(|&delayed| Action::OpenBeside { worker, held, delayed }));
                }
            }
            Some(Step::Calling) => {
                actions.push(Action::AnswerBeside { worker, held });
                for (seen, left) in [(Seen::Refusal, refusals), (Seen::Cut, cuts)] {
                    if left > 0 {
                        actions.push(Action::FailBeside { worker, held, seen });
                    }
                }
            }
            Some(Step::Opened | Step::Idle) => actions.push(Action::SendBeside { worker, held }),
        }
    }

    fn known(state: &State, worker: usize) -> BTreeSet<u8> {
        let process = &state.workers[worker];
        (0..state.database.next_fence).filter(|&fence| process.knows(fence, true)).collect()
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut database = Database::new(self.jobs);
        let workers =
            (0..self.workers).map(|_| Worker { up: true, id: database.register(), ..Worker::default() }).collect();
        let (orphans, adrift, calls) = (Vec::new(), Vec::new(), BTreeMap::new());
        let trouble = self.trouble;
        vec![State { database, workers, orphans, adrift, calls, trouble, refuses: false, earlier: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (worker, process) in state.workers.iter().enumerate() {
            if process.up {
                self.worker_actions(state, worker, actions);
            } else if !state.refuses {
                actions.push(Action::Start { worker });
            }
        }
        for (orphan, journal) in state.orphans.iter().enumerate() {
            // Its worker is declared dead when it has been read to the end.
            let empty = journal.outcomes.is_empty();
            if state.refuses && (empty || self.rules.journal_until_committed) {
                continue;
            }
            actions.push(if empty { Action::Bury { orphan } } else { Action::ReplayOrphan { orphan } });
        }
        for statement in 0..state.adrift.len() {
            if !state.refuses {
                actions.push(Action::RunAdrift { statement });
            }
            actions.push(Action::DropAdrift { statement });
        }
        if state.refuses {
            actions.push(Action::Serve);
            return;
        }
        if state.trouble.refusing > 0 {
            actions.push(Action::Refuse);
        }
        if state.trouble.returns > 0 {
            actions.push(if state.earlier.is_none() { Action::Keep } else { Action::GoBack });
        }
        // One job at a time: the model looks for the next one that has its number.
        if state.trouble.enqueues > 0 && state.database.jobs.is_empty() {
            actions.push(Action::Enqueue);
        }
        for (id, life) in (0_u8..).zip(&state.database.workers) {
            // (One that nothing refers to is `Gone`: see `State::tidy`.)
            if *life == Life::Live && (!state.is_current(id) || state.trouble.expiries > 0) {
                actions.push(Action::Expire { id });
            }
        }
        for (job, row) in (0_u8..).zip(&state.database.jobs) {
            match row.place {
                Some(Place::InFlight { worker, .. }) if !state.database.is_live(worker) => {
                    actions.push(Action::Rescue { job });
                }
                Some(Place::Parked) => actions.push(Action::Wake { job }),
                _ => {}
            }
            if row.place.is_some() && state.trouble.cancels > 0 {
                actions.push(Action::Cancel { job });
            }
            let may_be_retried = row.ending.is_some_and(|ending| !matches!(ending.how, How::Succeeded(_)));
            if may_be_retried && state.trouble.retries > 0 {
                actions.push(Action::Retry { job });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        self.step(&mut next, action);
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::all()
    }
}
