//! Sluice: a persistent job queue and worker daemon for batch AI requests, on Postgres.

pub mod cli;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod exit_code;
pub mod http;
pub mod input;
pub mod journal;
pub mod permissions;
pub mod printable;
pub mod process;
pub mod provider;
pub mod shutdown;
pub mod simulate;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod worker;
