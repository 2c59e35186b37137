//! `sluice psql`: Postgres's own shell on the queue's database.

use super::GlobalArgs;
use super::client::Place;
use super::context::{self, Context};
use super::failure::CommandFailure;
use super::output::Output;
use super::words::quoted;
use crate::config::{Config, Keys};
use crate::embedded::EmbeddedPostgres;
use crate::exit_code::ExitCode;
use crate::shutdown::Signals;
use anyhow::Context as _;
use std::path::Path;

/// Open Postgres's shell on the database, the private one included
///
/// It is the psql of the installation that runs the private Postgres, which stays up until the shell ends; for another
/// database it is the newest that is found. A password goes by the environment and is never an argument.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print the line to type, without a password, and run nothing
    #[arg(long)]
    pub print: bool,
    /// Arguments for psql, after --, such as -- -c 'select * from sluice.batches'
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<std::ffi::OsString>,
}

/// Checks that -c was not meant for psql, as it is its most usual option.
fn require_separate(global: &GlobalArgs) -> Result<(), CommandFailure> {
    let statement = global.config.as_deref().filter(|file| !file.exists()).map(|file| file.to_string_lossy());
    match statement.filter(|words| words.contains(' ')) {
        None => Ok(()),
        Some(words) => Err(CommandFailure::usage(format!(
            "-c names the configuration here; what psql gets comes after --: sluice psql -- -c {}",
            quoted(&words)
        ))),
    }
}

/// The exit status with which psql says that the connection was lost or not made.
const NO_CONNECTION: i32 = 2;

/// Runs the command.
///
/// # Errors
/// There is no psql, or no database.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    require_separate(global)?;
    let config = Config::load_with(global.config.as_deref(), context::environment(global), Keys::Ignored)?;
    if args.print {
        return print(&config, global).await;
    }
    // The private server has to outlive a Ctrl-C, which is for psql.
    let _signals = Signals::listen()?;
    let (place, context) = if let Some(place) = Place::configured(&config)? {
        (place, None)
    } else {
        let context = Context::open(global).await?;
        (Place::of(&context)?, Some(context))
    };
    let program = place.program("psql").await?;
    let status = place.command(&program).args(&args.arguments).status().await;
    let status = status.with_context(|| format!("running {}", program.display()))?;
    if let Some(context) = context {
        context.close().await?;
    }
    Ok(match status.code() {
        Some(0) => ExitCode::Success,
        Some(NO_CONNECTION) => ExitCode::Database,
        _ => ExitCode::Failure,
    })
}

async fn print(config: &Config, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut output = Output::new(global);
    let (place, remark) = match Place::configured(config)? {
        Some(place) if place.has_password() => {
            (place, "psql asks for the password, or takes it from PGPASSWORD or ~/.pgpass")
        }
        Some(place) => (place, ""),
        None => {
            let dir = &config.database.data_dir;
            let Some(url) = EmbeddedPostgres::url_in(dir, "sluice").await? else {
                return Err(CommandFailure::not_found(format!(
                    "there is no private Postgres in {} yet: the first command that needs one makes it",
                    dir.display()
                ))
                .into());
            };
            let remark = "the private Postgres runs while a worker or another command of Sluice does; `sluice psql` \
                          starts it by itself";
            (Place::private(url, dir), remark)
        }
    };
    let program = place.program("psql").await?;
    output.line(line(&program, &place.url))?;
    output.finish()?;
    if !remark.is_empty() {
        output.note(remark);
    }
    Ok(ExitCode::Success)
}

fn line(program: &Path, url: &str) -> String {
    format!("{} {}", quoted(&program.display().to_string()), quoted(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_behind_c_is_not_taken_for_a_file() {
        let with = |config: &str| GlobalArgs { config: Some(config.into()), ..GlobalArgs::default() };
        let told = require_separate(&with("select 1")).unwrap_err().to_string();
        assert!(told.ends_with("what psql gets comes after --: sluice psql -- -c 'select 1'"), "{told}");
        require_separate(&with("sluice.toml")).unwrap();
        require_separate(&GlobalArgs::default()).unwrap();
    }
}
