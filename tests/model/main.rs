//! The protocol by which jobs are claimed, called for, settled, rescued, cancelled and tried again, explored: every
//! interleaving of two workers, a provider and a database, with crashes, delays and lost replies, with a database that
//! refuses for a while or goes back to an earlier state, up to a bound.
//!
//! The model is `database.rs` (what each statement does), `worker.rs` (what a process holds), `world.rs` (what may
//! happen next) and `world/step.rs` (what that changes); `properties.rs` says what has to hold. Every trouble is
//! counted down and every claim takes a new fence, so no behaviour goes on for ever: that each one that stops has ended
//! every job is that every job ends.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#![allow(clippy::print_stderr, reason = "libtest shows it beside the test that failed")]

mod database;
mod properties;
mod worker;
mod world;

use database::Rules;
use properties::{
    ASKED_AGAIN_ONCE, BLAMELESS, BOUGHT_ONCE, BOUNDED, ENDS, EVERY_CALL_NAMED, FAILS_FOR_A_REASON, ITS_OWN, KEPT,
    ONE_ROW, ONE_SHADOW, RESULT_IS_ACCEPTED, USED,
};
use stateright::{Checker, HasDiscoveries, Model, Path};
use world::{Action, State, Trouble, World};

const CALM: World = World {
    workers: 2,
    jobs: 1,
    max_attempts: 2,
    max_crashes: 3,
    trouble: Trouble {
        crashes: 0,
        expiries: 0,
        delays: 0,
        refusals: 0,
        cuts: 0,
        rejections: 0,
        cancels: 0,
        retries: 0,
        drains: 0,
        give_ups: 0,
        refusing: 0,
        returns: 0,
        enqueues: 0,
        races: 0,
    },
    rules: Rules::ALL,
};

fn steps(path: Path<State, Action>) -> String {
    let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
    steps.join("\n    ")
}

/// Explores everything; fails with the shortest way to what must not be.
fn holds(name: &str, world: World) {
    let checker = world.checker().threads(2).spawn_bfs().join();
    eprintln!("{name}: {} states, at most {} steps deep", checker.unique_state_count(), checker.max_depth());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: it does not hold that {property}:\n    {}", steps(path));
    }
}

/// The same with one rule taken away: there is a way to what must not be.
fn breaks(without: &str, world: World, property: &'static str) {
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = world.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("without {without} nothing breaks ({} states): {property}", checker.unique_state_count());
    };
    eprintln!("without {without} it does not hold that {property}:\n    {}", steps(path));
}

// ------------------------------------------------------------------------------------------------ what holds

#[test]
fn with_crashes_and_lost_replies() {
    let trouble = Trouble { crashes: 2, delays: 1, ..CALM.trouble };
    holds("crashes", World { trouble, ..CALM });
    let trouble = Trouble { crashes: 1, delays: 1, refusals: 1, cuts: 1, ..CALM.trouble };
    holds("crashes and refusals", World { trouble, ..CALM });
}

#[test]
fn with_delayed_statements() {
    let trouble = Trouble { crashes: 1, delays: 2, ..CALM.trouble };
    holds("delays", World { trouble, ..CALM });
    let trouble = Trouble { delays: 2, refusals: 2, ..CALM.trouble };
    holds("delays and refusals", World { trouble, ..CALM });
}

#[test]
fn with_workers_that_are_taken_for_dead() {
    let trouble = Trouble { crashes: 1, expiries: 1, delays: 1, ..CALM.trouble };
    holds("expiries", World { trouble, ..CALM });
    let trouble = Trouble { expiries: 2, refusals: 1, cuts: 1, ..CALM.trouble };
    holds("expiries and refusals", World { trouble, ..CALM });
}

#[test]
fn with_cancelled_and_retried_jobs() {
    let trouble = Trouble { crashes: 1, expiries: 1, cancels: 1, retries: 1, ..CALM.trouble };
    holds("cancels", World { trouble, max_attempts: 1, ..CALM });
    let trouble = Trouble { delays: 1, refusals: 1, cancels: 2, retries: 2, ..CALM.trouble };
    holds("cancels and delays", World { trouble, max_attempts: 1, ..CALM });
}

#[test]
fn with_workers_that_are_asked_to_stop() {
    let trouble = Trouble { delays: 1, refusals: 1, drains: 2, give_ups: 1, ..CALM.trouble };
    holds("drains", World { trouble, max_attempts: 1, ..CALM });
    let trouble = Trouble { crashes: 1, delays: 1, drains: 1, ..CALM.trouble };
    holds("drains and crashes", World { trouble, ..CALM });
}

#[test]
fn with_jobs_that_kill_their_workers() {
    let trouble = Trouble { crashes: 1, expiries: 1, retries: 1, ..CALM.trouble };
    holds("poison", World { trouble, max_crashes: 2, max_attempts: 1, ..CALM });
    let trouble = Trouble { crashes: 2, ..CALM.trouble };
    holds("poison beside another", World { trouble, jobs: 2, max_crashes: 1, max_attempts: 1, ..CALM });
}

#[test]
fn with_two_jobs() {
    let trouble = Trouble { crashes: 1, refusals: 1, ..CALM.trouble };
    holds("two jobs, crashes", World { trouble, jobs: 2, max_attempts: 1, ..CALM });
    let trouble = Trouble { delays: 1, refusals: 1, ..CALM.trouble };
    holds("two jobs, delays", World { trouble, jobs: 2, max_attempts: 1, ..CALM });
}

#[test]
fn with_answers_that_are_rejected() {
    let trouble = Trouble { rejections: 2, crashes: 1, delays: 1, ..CALM.trouble };
    holds("rejections and crashes", World { trouble, max_attempts: 3, ..CALM });
    let trouble = Trouble { rejections: 2, expiries: 1, cuts: 1, ..CALM.trouble };
    holds("rejections and expiries", World { trouble, max_attempts: 3, ..CALM });
    let trouble = Trouble { rejections: 2, cancels: 1, retries: 1, ..CALM.trouble };
    holds("rejections and another round", World { trouble, max_attempts: 2, ..CALM });
}

#[test]
fn with_a_database_that_refuses() {
    let trouble = Trouble { refusing: 2, refusals: 1, drains: 1, ..CALM.trouble };
    holds("refusing", World { trouble, ..CALM });
    let trouble = Trouble { refusing: 1, crashes: 1, delays: 1, ..CALM.trouble };
    holds("refusing, crashes and delays", World { trouble, ..CALM });
}

#[test]
fn with_a_database_that_goes_back() {
    let trouble = Trouble { returns: 1, refusals: 1, delays: 1, ..CALM.trouble };
    holds("going back and refusals", World { trouble, max_attempts: 2, ..CALM });
    let trouble = Trouble { returns: 1, expiries: 1, ..CALM.trouble };
    holds("going back and expiries", World { trouble, max_attempts: 1, ..CALM });
    let trouble = Trouble { returns: 1, refusals: 1, delays: 1, ..CALM.trouble };
    holds("going back", World { trouble, max_attempts: 1, ..CALM });
    let trouble = Trouble { returns: 1, crashes: 1, ..CALM.trouble };
    holds("going back and crashes", World { trouble, max_attempts: 1, ..CALM });
}

#[test]
fn with_numbers_that_come_again() {
    let trouble = Trouble { returns: 1, refusals: 1, delays: 1, enqueues: 2, ..CALM.trouble };
    holds("numbers that come again and delays", World { trouble, jobs: 0, max_attempts: 2, ..CALM });
    let trouble = Trouble { returns: 1, refusals: 1, enqueues: 2, ..CALM.trouble };
    holds("numbers that come again", World { trouble, jobs: 0, max_attempts: 1, ..CALM });
    let trouble = Trouble { returns: 1, crashes: 1, enqueues: 2, ..CALM.trouble };
    holds("numbers that come again and crashes", World { trouble, jobs: 0, max_attempts: 1, ..CALM });
}

#[test]
fn with_races() {
    let trouble = Trouble { races: 1, crashes: 1, delays: 1, ..CALM.trouble };
    holds("races, crashes and delays", World { trouble, ..CALM });
    let trouble = Trouble { races: 1, crashes: 1, refusals: 1, ..CALM.trouble };
    holds("races, crashes and refusals", World { trouble, max_attempts: 3, ..CALM });
    let trouble = Trouble { races: 1, crashes: 1, cancels: 1, ..CALM.trouble };
    holds("races, crashes and cancels", World { trouble, ..CALM });
    let trouble = Trouble { races: 1, expiries: 1, cuts: 1, ..CALM.trouble };
    holds("races, expiries and cuts", World { trouble, max_attempts: 3, ..CALM });
    let trouble = Trouble { races: 1, drains: 1, give_ups: 1, ..CALM.trouble };
    holds("races, drains and calls that are given up", World { trouble, ..CALM });
    let trouble = Trouble { races: 2, refusals: 2, crashes: 1, ..CALM.trouble };
    holds("two races and refusals", World { trouble, max_attempts: 4, workers: 1, ..CALM });
}

// ----------------------------------------------------------------------------- what every rule is there for

#[test]
fn without_the_fence_a_dead_workers_word_ends_a_job() {
    let rules = Rules { fence: false, ..Rules::ALL };
    let trouble = Trouble { expiries: 1, refusals: 1, cancels: 1, retries: 1, ..CALM.trouble };
    breaks("the fence", World { trouble, rules, max_attempts: 1, ..CALM }, FAILS_FOR_A_REASON);
}

#[test]
fn without_the_record_of_an_open_call_a_crash_hides_it() {
    let rules = Rules { open_record: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, ..CALM.trouble };
    breaks("the record of an open call", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn without_rounds_an_answer_to_the_cancelled_job_is_delivered() {
    let rules = Rules { round: false, ..Rules::ALL };
    let trouble = Trouble { cancels: 1, retries: 1, ..CALM.trouble };
    breaks("the round", World { trouble, rules, ..CALM }, RESULT_IS_ACCEPTED);
}

#[test]
fn without_idempotence_an_attempt_sent_twice_is_booked_twice() {
    let rules = Rules { idempotent: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, ..CALM.trouble };
    breaks("idempotence", World { trouble, rules, ..CALM }, ONE_ROW);
}

#[test]
fn without_looking_for_unknown_claims_a_job_never_ends() {
    let rules = Rules { reconcile: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, ..CALM.trouble };
    breaks("looking for unknown claims", World { trouble, rules, ..CALM }, ENDS);
}

#[test]
fn when_all_claims_but_the_known_are_given_back_a_call_is_lost() {
    let rules = Rules { reconcile_by_fence: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, delays: 1, ..CALM.trouble };
    breaks("fences for what is given back", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_the_spool_is_not_known_what_it_holds_is_bought_again() {
    let rules = Rules { spool_is_known: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, ..CALM.trouble };
    breaks("knowing the spool", World { trouble, rules, ..CALM }, BOUGHT_ONCE);
}

#[test]
fn when_an_open_call_makes_way_for_an_earlier_one_it_is_lost() {
    let rules = Rules { open_forward: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, delays: 1, refusals: 1, ..CALM.trouble };
    breaks("open calls that only go forward", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_a_job_is_cancelled_without_naming_its_call_a_crash_hides_it() {
    let rules = Rules { name_when_taken: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, cancels: 1, ..CALM.trouble };
    breaks("naming the call of a cancelled job", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_a_late_answer_takes_a_job_without_naming_its_call_a_crash_hides_it() {
    let rules = Rules { name_when_taken: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, expiries: 1, ..CALM.trouble };
    breaks("naming the call of a job that is taken", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_the_next_call_does_not_wait_for_the_last_ones_row_a_crash_hides_it() {
    let rules = Rules { settle_before_next: false, ..Rules::ALL };
    let trouble = Trouble { crashes: 1, refusals: 1, ..CALM.trouble };
    breaks("settling before the next call", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_outcomes_overtake_each_other_a_job_is_called_for_too_often() {
    let rules = Rules { in_order: false, ..Rules::ALL };
    let trouble = Trouble { drains: 1, refusals: 2, ..CALM.trouble };
    breaks("order", World { trouble, rules, ..CALM }, BOUNDED);
}

#[test]
fn when_a_worker_leaves_its_spool_behind_what_it_holds_is_bought_again() {
    let rules = Rules { stay_until_written: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, drains: 1, ..CALM.trouble };
    breaks("staying until all is written", World { trouble, rules, ..CALM }, BOUGHT_ONCE);
}

#[test]
fn without_the_rule_for_late_answers_one_is_thrown_away() {
    let rules = Rules { late_answers: false, ..Rules::ALL };
    let trouble = Trouble { expiries: 1, ..CALM.trouble };
    breaks("the rule for late answers", World { trouble, rules, ..CALM }, USED);
}

#[test]
fn when_the_dead_may_claim_a_job_is_blamed_for_it() {
    let rules = Rules { claim_alive: false, ..Rules::ALL };
    let trouble = Trouble { expiries: 1, ..CALM.trouble };
    breaks("claims for the living alone", World { trouble, rules, ..CALM }, BLAMELESS);
}

#[test]
fn when_what_is_refused_is_taken_for_a_rows_fault_a_paid_answer_is_lost() {
    let rules = Rules { refused_is_away: false, ..Rules::ALL };
    let trouble = Trouble { refusing: 1, ..CALM.trouble };
    breaks("knowing a database that refuses for one that is away", World { trouble, rules, ..CALM }, KEPT);
}

#[test]
fn when_a_journal_is_emptied_before_the_commit_a_paid_answer_is_lost() {
    let rules = Rules { journal_until_committed: false, ..Rules::ALL };
    let trouble = Trouble { refusing: 1, ..CALM.trouble };
    breaks("keeping the journal until the commit", World { trouble, rules, ..CALM }, KEPT);
}

#[test]
fn when_a_dead_workers_journal_is_emptied_before_the_commit_a_paid_answer_is_lost() {
    let rules = Rules { journal_until_committed: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, crashes: 1, refusing: 1, ..CALM.trouble };
    breaks("keeping a dead worker's journal until the commit", World { trouble, rules, ..CALM }, KEPT);
}

#[test]
fn when_a_claim_does_not_say_which_job_it_is_for_another_job_gets_its_answer() {
    let rules = Rules { born: false, ..Rules::ALL };
    let trouble = Trouble { returns: 1, enqueues: 2, ..CALM.trouble };
    breaks("the birth in a lease", World { trouble, rules, jobs: 0, ..CALM }, ITS_OWN);
}

#[test]
fn when_a_call_that_was_cut_off_leaves_the_fault_to_be_named_it_is_named_twice() {
    let rules = Rules { any_call_ends_it: false, ..Rules::ALL };
    let trouble = Trouble { rejections: 1, crashes: 1, ..CALM.trouble };
    breaks("ending it with any call", World { trouble, rules, max_attempts: 3, ..CALM }, ASKED_AGAIN_ONCE);
}

#[test]
fn when_fences_go_back_with_the_database_a_call_is_lost() {
    let rules = Rules { own_fences: false, ..Rules::ALL };
    let trouble = Trouble { returns: 1, ..CALM.trouble };
    breaks("fences of each process", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_a_call_whose_job_is_lost_keeps_its_round_the_next_job_of_the_number_is_blamed_for_it() {
    let rules = Rules { strangers_apart: false, ..Rules::ALL };
    let trouble = Trouble { returns: 1, refusals: 1, enqueues: 2, ..CALM.trouble };
    breaks("booking strangers apart", World { trouble, rules, jobs: 0, ..CALM }, ITS_OWN);
}

#[test]
fn without_the_record_of_a_call_beside_another_a_crash_hides_it() {
    let rules = Rules { beside_record: false, ..Rules::ALL };
    let trouble = Trouble { races: 1, crashes: 1, ..CALM.trouble };
    breaks("the record of a call beside another", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_the_calls_that_a_race_has_dropped_are_written_after_its_answer_a_crash_hides_them() {
    let rules = Rules { lost_together: false, ..Rules::ALL };
    let trouble = Trouble { races: 1, crashes: 1, ..CALM.trouble };
    breaks("writing them together", World { trouble, rules, ..CALM }, EVERY_CALL_NAMED);
}

#[test]
fn when_each_settlement_makes_a_shadow_one_that_is_sent_twice_makes_two() {
    let rules = Rules { shadow_of_job: false, ..Rules::ALL };
    let trouble = Trouble { delays: 1, ..CALM.trouble };
    breaks("the job's number under the shadow", World { trouble, rules, ..CALM }, ONE_SHADOW);
}
