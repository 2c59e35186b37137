//! The `sluice` program.

use clap::Parser as _;
use sluice::cli::{self, Cli};
use sluice::exit_code::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Before a key is read.
    sluice::process::protect();
    // There is one crypto provider in this program; it has to be named before the first connection. An error means
    // that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::try_parse() {
        Ok(cli) => cli::run(cli).await,
        Err(error) => cli::failure::report_usage(&error),
    }
}
