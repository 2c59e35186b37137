//! `sluice project`: pausing and resuming projects.

use super::GlobalArgs;
use super::context::Context;
use super::pause::{self, PauseCommand};
use crate::domain::pause::PauseKind;
use crate::exit_code::ExitCode;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: PauseCommand,
}

/// Runs the command. Projects are made by naming them on a job, so any name will do: a project may be paused before its
/// first job.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let code = pause::run(PauseKind::Project, args.command, &mut context).await?;
    context.close().await?;
    Ok(code)
}
