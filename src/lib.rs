//! Sluice: a persistent job queue and worker daemon for batch AI requests, on Postgres.

pub mod cli;
pub mod domain;
pub mod provider;
pub mod simulate;
