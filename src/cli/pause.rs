//! Pausing and resuming, which is the same for providers, routes, projects and batches.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::output::Format;
use crate::domain::pause::PauseKind;
use crate::exit_code::ExitCode;
use crate::view::change::PauseChangeView;

/// The subcommands `pause` and `resume` of a route, project, batch or provider.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PauseCommand {
    /// Start no more of its calls; those under way go on
    Pause {
        /// Its name
        name: String,
        /// The reason, which `sluice status` shows
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Go on
    Resume {
        /// Its name
        name: String,
    },
}

impl PauseCommand {
    /// The given name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pause { name, .. } | Self::Resume { name } => name,
        }
    }
}

/// Pauses or resumes. The caller knows whether the thing exists.
pub async fn run(kind: PauseKind, command: PauseCommand, context: &mut Context) -> anyhow::Result<ExitCode> {
    let (name, paused, changed) = match command {
        PauseCommand::Pause { name, reason } => {
            let changed = context.store.pause(kind, &name, reason.as_deref()).await?;
            (name, true, changed)
        }
        PauseCommand::Resume { name } => {
            let changed = context.store.resume(kind, &name).await?;
            (name, false, changed)
        }
    };
    let pause = PauseChangeView { kind: kind.as_str(), name, paused, changed };
    let output = &mut context.output;
    if output.format() == Format::Json {
        output.json(&pause)?;
    } else {
        output.line(pause)?;
    }
    Ok(ExitCode::Success)
}

/// Pauses or resumes something that the configuration names. An unknown name is a typing error, which would be noticed
/// too late. But a pause in force can be ended under any name.
pub async fn run_configured(kind: PauseKind, command: PauseCommand, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let known: Vec<&str> = match kind {
        PauseKind::Route => context.config.route_names().collect(),
        PauseKind::Provider => context.config.providers.keys().map(String::as_str).collect(),
        PauseKind::Project | PauseKind::Batch => Vec::new(),
    };
    let name = command.name();
    let is_paused = context.store.pauses().await?.has(kind, name);
    if !is_paused && !known.contains(&name) {
        let known = known.join(", ");
        let known = if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {known}") };
        return Err(CommandFailure::not_found(format!("there is no {} {name:?}; {known}", kind.as_str())).into());
    }
    let code = run(kind, command, &mut context).await?;
    context.close().await?;
    Ok(code)
}
