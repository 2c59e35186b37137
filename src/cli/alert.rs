//! `sluice alert`: what fires, and whether receivers take messages.

use super::GlobalArgs;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::output::{Format, Output};
use crate::config::{Config, Keys};
use crate::domain::alert::{AlertMessage, HookFormat};
use crate::exit_code::ExitCode;
use crate::provider::hook::{Hook, test_message_id, wall_clock};
use crate::view::alert::{AlertTestView, AlertView, table};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: AlertCommand,
}

/// What to do with alerts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AlertCommand {
    /// List the alerts that fire, and those that were over within the last day
    List {
        /// All that are kept
        #[arg(long)]
        all: bool,
    },
    /// Send a test message to a receiver of the configuration, now and from here, and tell what it says
    ///
    /// It needs no database and no worker, and reads no key of a provider. The exit status is 1 if the receiver does
    /// not take the message.
    Test {
        /// The receiver: a section [alerts.receivers.NAME]
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        AlertCommand::List { all } => list(all, global).await,
        AlertCommand::Test { name } => test(&name, global).await,
    }
}

async fn list(all: bool, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let alerts: Vec<AlertView> = context.store.alerts(all).await?.into_iter().map(AlertView::from).collect();
    match context.output.format() {
        Format::Json => context.output.json(&alerts)?,
        Format::Table if alerts.is_empty() => {
            context.output.line(if all { "no alert has fired" } else { "no alert fires, and none did today" })?;
        }
        Format::Table | Format::Plain | Format::Csv => context.output.table(&table(&alerts))?,
    }
    if alerts.iter().any(|alert| alert.state == "firing") && context.store.live_workers().await? == 0 {
        context.output.finish()?;
        context.output.warn("no worker is running, so alerts stand as they were when the last one looked");
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

async fn test(name: &str, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load_with(global.config.as_deref(), environment(global), Keys::OfReceivers)?;
    let Some(receiver) = config.alerts.receivers.iter().find(|receiver| receiver.name == name) else {
        let known: Vec<&str> = config.alerts.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        let known = if known.is_empty() {
            "the configuration has none: add a section [alerts.receivers.NAME]".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        return Err(CommandFailure::not_found(format!("there is no receiver {name:?}; {known}")).into());
    };
    let mut output = Output::new(global);
    let hook = Hook::new(receiver.clone())?;
    let message = AlertMessage::of_test(name, config.alerts.settings.source.as_deref(), wall_clock());
    let message_id = test_message_id();
    let sent = hook.send(&message_id, &message).await;
    let view = AlertTestView {
        receiver: name.to_owned(),
        format: match receiver.format {
            HookFormat::Generic => "generic",
            HookFormat::Slack => "slack",
        },
        signed: receiver.secret.is_some(),
        taken: sent.outcome.is_taken(),
        status: sent.outcome.status,
        said: sent.words,
        message_id,
    };
    if output.format() == Format::Json {
        output.json(&view)?;
    } else {
        output.line(&view)?;
    }
    output.finish()?;
    Ok(if view.taken { ExitCode::Success } else { ExitCode::Failure })
}
