//! Every integration test is a module of this one binary, so that one Postgres cluster serves the whole run.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#![allow(clippy::print_stderr, reason = "libtest shows it beside the test that failed")]
#![allow(clippy::disallowed_types, reason = "tests look into the tables")]

mod answers;
mod architecture;
mod bad_input;
mod bills;
mod bounds;
mod buckets;
#[allow(clippy::disallowed_methods, reason = "keeps a schedule by the clock")]
mod chaos;
mod databases;
mod deploy;
mod doctor;
mod embedded;
mod end_to_end;
mod enqueue;
mod enqueue_command;
mod failover;
mod files;
mod first_steps;
mod given_up;
mod keys;
mod lanes;
mod late;
mod limits;
mod logs;
mod long_waits;
mod loops;
mod metrics;
mod money;
mod never_fits;
mod patience;
mod pause;
mod plans;
mod poison;
mod pooler;
mod port;
mod queue;
mod quota;
mod reasons;
mod refusals;
mod refused_jobs;
mod refusing;
mod reload;
mod reports;
mod results;
mod retention;
mod roles;
mod run;
mod same_again;
mod secrets;
mod sent;
mod settle;
mod signals;
mod simulate;
mod spending;
mod spool;
mod support;
mod terminal;
mod timeline;
mod unknown_commit;
mod unqueued;
mod untrusted;
mod upgrade;
mod worker;
