//! Sluice: a persistent job queue and worker daemon for batch AI requests, on Postgres.

pub mod cli;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod exit_code;
pub mod input;
pub mod provider;
pub mod simulate;
pub mod store;
pub mod telemetry;
