//! `sluice provider`: pausing and resuming providers.

use super::GlobalArgs;
use super::pause::{self, PauseCommand};
use crate::exit_code::ExitCode;
use crate::store::pause::PauseKind;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which command.
    #[command(subcommand)]
    pub command: PauseCommand,
}

/// Does it.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    pause::run_configured(PauseKind::Provider, args.command, global).await
}
