//! Sluice: a persistent job queue and worker daemon for batch AI requests, on Postgres.

#[allow(clippy::disallowed_methods, reason = "tells the time to people")]
pub mod cli;
pub mod config;
pub mod domain;
#[allow(clippy::disallowed_methods, reason = "starts a server and waits for it")]
pub mod embedded;
pub mod exit_code;
#[allow(clippy::disallowed_methods, reason = "has times and deadlines")]
pub mod http;
pub mod input;
pub mod journal;
pub mod part_file;
pub mod permissions;
pub mod printable;
pub mod process;
#[allow(clippy::disallowed_types, reason = "the only room that sends requests to providers")]
#[allow(clippy::disallowed_methods, reason = "has times and deadlines")]
pub mod provider;
pub mod shutdown;
#[allow(clippy::disallowed_methods, reason = "plays providers that take their time")]
pub mod simulate;
#[allow(clippy::disallowed_types, reason = "the one room that holds statements")]
#[allow(clippy::disallowed_methods, reason = "has times and deadlines")]
pub mod store;
#[allow(clippy::disallowed_methods, reason = "has times and deadlines")]
pub mod systemd;
#[allow(clippy::disallowed_methods, reason = "writes the time into logs")]
pub mod telemetry;
pub mod view;
#[allow(clippy::disallowed_methods, reason = "has the clock of the program")]
pub mod worker;
