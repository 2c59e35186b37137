//! What each step changes.

use super::super::database::{Again, Call, Job, Life, Outcome, Place, Said, Seen, Statement, Then};
use super::super::worker::{Beside, Held, Made, Step, Unsettled, Worker};
use super::{Action, State, World};

impl World {
    pub(super) fn step(&self, state: &mut State, action: Action) {
        let rules = &self.rules;
        match action {
            Action::Start { worker } => {
                let id = state.database.register();
                state.workers[worker] = Worker { up: true, id, ..Worker::default() };
            }
            Action::Claim { worker, job, delayed } => {
                let id = state.workers[worker].id;
                if delayed {
                    state.delay(Statement::Claim { job, worker: id });
                } else if let Some(fence) = state.database.claim(rules, job, id) {
                    let &Job { born, round, .. } = state.database.job(job);
                    let tried = state.database.tried(job, round);
                    let call = Call { job, fence, number: 0 };
                    let again = state.database.again(rules, job, round);
                    let (step, doomed, highest, beside) = (Step::Idle, false, 0, None);
                    let held = Held { call, born, round, tried, step, doomed, again, highest, beside };
                    state.workers[worker].held.push(held);
                }
            }
            Action::Open { worker, held, delayed } => {
                let of = state.workers[worker].held[held];
                let call = Call { number: of.highest + 1, ..of.call };
                if delayed {
                    // Not known whether it was written down: the call is not made.
                    state.delay(Statement::Open(call));
                } else if state.database.open(rules, call) {
                    let held = &mut state.workers[worker].held[held];
                    (held.call, held.step, held.highest) = (call, Step::Opened, call.number);
                } else {
                    state.workers[worker].held.remove(held);
                }
            }
            Action::Send { worker, held } => {
                let held = &mut state.workers[worker].held[held];
                held.step = Step::Calling;
                let (held, call) = (*held, held.call);
                self.send(state, held, call);
            }
            Action::Answer { worker, held } => {
                let held = state.workers[worker].held.remove(held);
                self.answer(state, worker, held);
            }
            Action::OpenBeside { worker, held, delayed } => {
                let of = state.workers[worker].held[held];
                let call = Call { number: of.highest + 1, ..of.call };
                state.trouble.races -= 1;
                if delayed {
                    state.delay(Statement::OpenBeside(call));
                } else if state.database.open_beside(rules, call) {
                    let held = &mut state.workers[worker].held[held];
                    held.beside = Some(Beside { number: call.number, step: Step::Opened });
                    held.highest = call.number;
                } else {
                    // The claim is gone: the call under way may end, and no other is made.
                    state.workers[worker].held[held].doomed = true;
                }
            }
            Action::SendBeside { worker, held } => {
                let held = &mut state.workers[worker].held[held];
                let Some(beside) = &mut held.beside else { return };
                beside.step = Step::Calling;
                let call = Call { number: beside.number, ..held.call };
                let held = *held;
                self.send(state, held, call);
            }
            Action::AnswerBeside { worker, held } => {
                let held = state.workers[worker].held.remove(held);
                let Some(beside) = held.beside else { return };
                let call = Call { number: beside.number, ..held.call };
                // The two change places.
                let other = Some(Beside { number: held.call.number, step: held.step });
                self.answer(state, worker, Held { call, step: beside.step, beside: other, ..held });
            }
            Action::FailBeside { worker, held, seen } => {
                let mut held = state.workers[worker].held.remove(held);
                let Some(beside) = held.beside.take() else { return };
                let call = Call { number: beside.number, ..held.call };
                pay_for_failure(state, call, seen);
                held.tried += 1;
                remember(state, worker, Held { call, ..held }, Some(seen), Then::GoOn);
                state.workers[worker].held.push(held);
            }
            Action::Fail { worker, held, seen, park } => self.fail(state, worker, held, seen, park),
            Action::Conclude { worker, held } => {
                let held = state.workers[worker].held.remove(held);
                let then = if held.tried >= self.max_attempts { Then::Fail } else { Then::Park };
                remember(state, worker, held, None, then);
            }
            Action::Settle { worker, outcome, delayed } => {
                let unsettled = &mut state.workers[worker].memory[outcome];
                let settled = unsettled.outcome;
                if state.refuses && rules.refused_is_away {
                    unsettled.delayed = true;
                } else if state.refuses {
                    // Taken for a fault of the row: "an outcome could not be written".
                    state.workers[worker].memory.remove(outcome);
                } else if delayed {
                    unsettled.delayed = true;
                    state.delay(Statement::Settle(settled));
                } else {
                    state.workers[worker].memory.remove(outcome);
                    state.database.settle(rules, settled);
                }
            }
            Action::Spool { worker, outcome } => {
                let unsettled = state.workers[worker].memory.remove(outcome);
                state.workers[worker].spool.push(unsettled.outcome);
            }
            Action::Replay { worker, delayed } => {
                if delayed {
                    let outcome = state.workers[worker].spool[0];
                    state.delay(Statement::Settle(outcome));
                } else {
                    let outcome = state.workers[worker].spool.remove(0);
                    if !state.refuses {
                        state.database.settle(rules, outcome);
                    }
                }
            }
            Action::ReplayOrphan { orphan } => {
                let outcome = state.orphans[orphan].outcomes.remove(0);
                if !state.refuses {
                    state.database.settle(rules, outcome);
                }
            }
            Action::Bury { orphan } => {
                let owner = state.orphans.remove(orphan).owner;
                let life = state.database.workers.get_mut(usize::from(owner));
                if let Some(life) = life.filter(|life| **life == Life::Live) {
                    *life = Life::Dead;
                }
            }
            Action::Beat { worker } => beat(state, worker),
            Action::Reconcile { worker, job, delayed } => self.reconcile(state, worker, job, delayed),
            Action::RunAdrift { statement } => {
                let statement = state.adrift.remove(statement);
                state.database.run(rules, &statement);
            }
            Action::DropAdrift { statement } => {
                state.adrift.remove(statement);
            }
            Action::Refuse => {
                state.trouble.refusing -= 1;
                state.refuses = true;
            }
            Action::Serve => {
                state.refuses = false;
            }
            Action::Keep => {
                let mut earlier = state.database.clone();
                // These do not go back, so what they were does not matter.
                earlier.next_born = 0;
                if rules.own_fences {
                    earlier.next_fence = 0;
                }
                state.earlier = Some(Box::new(earlier));
            }
            Action::GoBack => state.go_back(rules),
            Action::Enqueue => {
                state.trouble.enqueues -= 1;
                state.database.enqueue();
            }
            Action::Crash { worker } => {
                state.trouble.crashes -= 1;
                for held in std::mem::take(&mut state.workers[worker].held) {
                    let alone = Some(held.call).filter(|_| held.step == Step::Calling);
                    let beside = held.asked_beside().map(|number| Call { number, ..held.call });
                    for call in alone.into_iter().chain(beside) {
                        state.lose_call(call);
                        if let Some(made) = state.calls.get_mut(&call) {
                            made.forgotten |= made.strayed;
                        }
                    }
                }
                for unsettled in std::mem::take(&mut state.workers[worker].memory) {
                    for call in unsettled.outcome.calls() {
                        if let Some(made) = state.calls.get_mut(&call) {
                            made.received = false;
                            made.forgotten |= made.strayed;
                        }
                    }
                }
                state.end_process(worker);
            }
            Action::Expire { id } => {
                if state.is_current(id) {
                    state.trouble.expiries -= 1;
                }
                state.database.workers[usize::from(id)] = Life::Dead;
            }
            Action::Rescue { job } => state.database.rescue(self.max_crashes, job),
            Action::Wake { job } => state.database.jobs[usize::from(job)].place = Some(Place::Ready),
            Action::Cancel { job } => {
                state.trouble.cancels -= 1;
                state.database.cancel(rules, job);
            }
            Action::Retry { job } => {
                state.trouble.retries -= 1;
                state.database.retry(job);
            }
            Action::Drain { worker } => {
                state.trouble.drains -= 1;
                state.workers[worker].draining = true;
            }
            Action::GiveUp { worker, held } => {
                state.trouble.give_ups -= 1;
                let held = state.workers[worker].held.remove(held);
                state.lose_call(held.call);
                lose_the_other(state, &held);
                let then = if held.doomed { Then::GoOn } else { Then::Park };
                remember(state, worker, held, Some(Seen::Cut), then);
            }
            Action::Leave { worker } => {
                let process = &state.workers[worker];
                let (id, spooled) = (usize::from(process.id), !process.spool.is_empty());
                if spooled && rules.stay_until_written {
                    // It does not wait for the database any longer.
                    state.trouble.give_ups -= 1;
                }
                // A call in the journal is not for others to buy again: only the lease tells them.
                if !spooled && state.database.workers.get(id) == Some(&Life::Live) {
                    state.database.workers[id] = Life::Gone;
                }
                state.end_process(worker);
            }
        }
    }

    fn fail(&self, state: &mut State, worker: usize, index: usize, seen: Seen, park: bool) {
        let mut held = state.workers[worker].held.remove(index);
        let said = pay_for_failure(state, held.call, seen);
        held.tried += 1;
        let (seen, reask) = (Some(seen), held.again == Again::Due);
        if held.beside.is_some() {
            // The other one goes on.
            remember(state, worker, Held { beside: None, ..held }, seen, Then::GoOn);
            state.workers[worker].held.push(held.with_the_other());
            return;
        }
        held.step = Step::Idle;
        if held.doomed {
            remember(state, worker, held, seen, Then::GoOn);
        } else if held.tried >= self.max_attempts {
            remember(state, worker, held, seen, Then::Fail);
        } else if park {
            remember(state, worker, held, seen, Then::Park);
        } else {
            remember(state, worker, held, seen, Then::GoOn);
            held.again = held.again.after(&self.rules, said, reask);
            state.workers[worker].held.push(held);
        }
    }

    fn send(&self, state: &mut State, held: Held, call: Call) {
        let Held { born, round, again, .. } = held;
        // Written down, and that is lost.
        let strayed = state.trouble.returns < self.trouble.returns && !state.database.names(call);
        let fresh = Made { born, round, strayed, reask: again == Again::Due, ..Made::default() };
        state.calls.entry(call).or_insert(fresh).times += 1;
    }

    /// Its call is answered, and the call beside that is dropped.
    fn answer(&self, state: &mut State, worker: usize, held: Held) {
        if let Some(made) = state.calls.get_mut(&held.call) {
            (made.charged, made.received) = (true, true);
        }
        lose_the_other(state, &held);
        if self.rules.lost_together {
            remember(state, worker, held, Some(Seen::Answer), Then::Succeed);
            return;
        }
        remember(state, worker, Held { beside: None, ..held }, Some(Seen::Answer), Then::Succeed);
        if let Some(number) = held.asked_beside() {
            let lost = Held { call: Call { number, ..held.call }, beside: None, ..held };
            remember(state, worker, lost, Some(Seen::Cut), Then::GoOn);
        }
    }

    fn reconcile(&self, state: &mut State, worker: usize, job: u8, delayed: bool) {
        let id = state.workers[worker].id;
        let statement = if self.rules.reconcile_by_fence {
            let Some(Place::InFlight { fence, .. }) = state.database.job(job).place else { return };
            Statement::GiveBack { job, fence }
        } else {
            Statement::GiveBackAllBut { worker: id, known: Self::known(state, worker) }
        };
        if delayed {
            state.delay(statement);
        } else {
            state.database.run(&self.rules, &statement);
        }
    }
}

/// The call fails like this, and costs what that costs.
fn pay_for_failure(state: &mut State, call: Call, seen: Seen) -> Said {
    let (left, said) = match seen {
        Seen::Cut => (&mut state.trouble.cuts, Said::Uncertain),
        Seen::Rejected => (&mut state.trouble.rejections, Said::Rejected),
        Seen::Refusal | Seen::Answer => (&mut state.trouble.refusals, Said::Refused),
    };
    *left -= 1;
    // The worse case of a call that broke off is that it is billed.
    if let Some(made) = state.calls.get_mut(&call) {
        (made.charged, made.received) = (seen != Seen::Refusal, seen == Seen::Rejected);
    }
    said
}

fn remember(state: &mut State, worker: usize, held: Held, seen: Option<Seen>, then: Then) {
    let reask = seen.is_some() && held.again == Again::Due;
    let lost = held.asked_beside();
    let outcome = Outcome { call: held.call, born: held.born, round: held.round, seen, then, reask, lost };
    state.workers[worker].memory.push(Unsettled { outcome, delayed: false });
}

/// The call beside its call is dropped, and no worker hears of its end.
fn lose_the_other(state: &mut State, held: &Held) {
    if let Some(number) = held.asked_beside() {
        state.lose_call(Call { number, ..held.call });
    }
}

/// Hears of cancelled jobs and of its own death.
fn beat(state: &mut State, worker: usize) {
    let id = state.workers[worker].id;
    let recalled = |held: &Held, state: &State| state.database.recalls.contains(&(id, held.call.job, held.call.fence));
    for held in std::mem::take(&mut state.workers[worker].held) {
        if !recalled(&held, state) {
            state.workers[worker].held.push(held);
        } else if held.step == Step::Calling {
            state.lose_call(held.call);
            lose_the_other(state, &held);
            remember(state, worker, held, Some(Seen::Cut), Then::GoOn);
        }
    }
    state.database.recalls.retain(|(of, ..)| *of != id);
    if !state.database.is_live(id) {
        let fresh = state.database.register();
        let process = &mut state.workers[worker];
        process.id = fresh;
        process.held.retain(|held| held.step == Step::Calling);
        for held in &mut process.held {
            held.doomed = true;
            held.beside = held.beside.filter(|beside| beside.step == Step::Calling);
        }
    }
}
