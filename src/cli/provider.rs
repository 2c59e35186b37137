//! `sluice provider`: pausing, resuming, reopening and probing providers.

mod probe;

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::output::Format;
use super::pause::{self, PauseCommand};
use super::worker::blueprint;
use crate::config::Config;
use crate::domain::pause::PauseKind;
use crate::exit_code::ExitCode;
use crate::view::change::ReopenedView;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: ProviderCommand,
}

/// What to do with a provider.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ProviderCommand {
    /// Pausing and resuming.
    #[command(flatten)]
    Pause(PauseCommand),
    /// End a wait that it asked for: all workers call it again within seconds
    #[command(after_help = "A wait is honoured as the provider asks for it, up to a day; of a longer one a single \
                            call asks again every `recheck`. This ends any of them, and has keys that were refused \
                            tried again at once. Providers that share its limits are opened with it.")]
    Reopen {
        /// Its name
        name: String,
    },
    /// Probe it now: one cheap call with every key and model, and its health page
    #[command(after_help = "Every key is tried with every model that a route names, by one call of some ten tokens, \
                            all of them at once. What that costs is shown, and is in no ledger. The exit status is 0 \
                            when all calls were answered, 3 when a key or a model was refused, and 1 when the \
                            provider was not reached or was busy, or its health page failed.")]
    Probe(probe::Args),
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ProviderCommand::Pause(command) => pause::run_configured(PauseKind::Provider, command, global).await,
        ProviderCommand::Reopen { name } => reopen(&name, global).await,
        ProviderCommand::Probe(args) => probe::run(args, global).await,
    }
}

/// There is no provider of this name.
fn unknown(name: &str, config: &Config) -> CommandFailure {
    let known = config.providers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {known}") };
    CommandFailure::not_found(format!("there is no provider {name:?}; {known}"))
}

async fn reopen(name: &str, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let blueprint = blueprint(&context.config);
    let Some(provider) = blueprint.providers.get(name) else {
        return Err(unknown(name, &context.config).into());
    };
    let models = blueprint.routes.iter().flat_map(|route| &route.rungs).map(|rung| &rung.target);
    let models = models.filter(|target| target.provider == name);
    let buckets_of = |target| provider.setup.buckets_of(target, &blueprint.buckets);
    let mut buckets: Vec<String> = models.flat_map(buckets_of).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let mut opened = Vec::new();
    for bucket in buckets {
        if context.store.reopen_bucket(&bucket).await? {
            opened.push(bucket);
        }
    }
    let jobs = context.store.wake_waiting_for(name).await?;
    let reopened = ReopenedView { kind: PauseKind::Provider.as_str(), name: name.to_owned(), opened, woken: jobs };
    let output = &mut context.output;
    if output.format() == Format::Json {
        output.json(&reopened)?;
    } else {
        output.line(reopened)?;
    }
    context.close().await?;
    Ok(ExitCode::Success)
}
