//! `sluice project`: pausing and resuming projects.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::names::unknown;
use super::pause::{self, PauseCommand};
use crate::domain::pause::PauseKind;
use crate::exit_code::ExitCode;
use crate::store::names::Named;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: PauseCommand,
}

/// Runs the command. Projects are made by naming them on a job, so a project may be paused before its first job. It is
/// said, because the name may be a typing error.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let name = args.command.name();
    let is_paused = context.store.pauses().await?.has(PauseKind::Project, name);
    if !is_paused && let Some(said) = unknown(Named::Project, name, &context.store, &context.config).await? {
        match &args.command {
            PauseCommand::Resume { .. } => return Err(CommandFailure::not_found(said).into()),
            PauseCommand::Pause { .. } => context.output.warn(format_args!("{said}. A job of that name will wait")),
        }
    }
    let code = pause::run(PauseKind::Project, args.command, &mut context).await?;
    context.close().await?;
    Ok(code)
}
