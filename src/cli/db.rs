//! `sluice db`: the whole queue into a file, and from a file into another database.

use super::GlobalArgs;
use super::client::Place;
use super::context::Context;
use super::failure::CommandFailure;
use super::out_file::{OutFile, is_stdout};
use super::output::Format;
use crate::domain::counted::counted;
use crate::exit_code::ExitCode;
use crate::store::import::InTheWay;
use crate::view::change::{ExportedView, ImportedView};
use anyhow::Context as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// Export the whole queue into a file, or import such a file into another database
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: DbCommand,
}

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DbCommand {
    /// Write everything (jobs, answers, the ledger, pauses) into a file
    ///
    /// It is a dump of pg_dump in its custom format, of one instant, taken while workers go on. Do not work on both the
    /// original and an import of it: stop the workers first when the queue is to move.
    Export {
        /// The file; it appears when it is complete. - is standard output
        file: PathBuf,
        /// Replace a file that exists
        #[arg(long)]
        force: bool,
    },
    /// Bring an export into a database that has no schema sluice yet
    ///
    /// All or nothing. Afterwards the schema is brought up to this version, and the numbers of jobs go on far above
    /// those of the export, so that no number is given twice.
    Import {
        /// A file of `sluice db export`, from a source that you trust
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// Those of the database and of Postgres's programs; [`CommandFailure`] when the database is not free or the file is no
/// export.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        DbCommand::Export { file, force } => export(&file, force, global).await,
        DbCommand::Import { file } => import(&file, global).await,
    }
}

async fn export(file: &Path, force: bool, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    if let Some(owner) = context.store.other_owner().await? {
        let words = format!("an export holds everything, so it needs {owner}, the owner of the schema sluice");
        return Err(CommandFailure::usage(words).into());
    }
    let place = Place::of(&context)?;
    let program = place.program("pg_dump").await?;
    let mut out = OutFile::create(file, force)?;
    let live = context.store.status().await?.workers.iter().filter(|worker| worker.is_alive()).count();
    let mut command = place.command(&program);
    command.args(["--format=custom", "--schema=sluice", "--no-owner", "--no-password"]);
    let bytes = write_out(command, &program, &mut out).await?;
    out.finish()?;
    if live > 0 {
        context.output.warn(format_args!(
            "{} at work, so this is a backup of an instant: do not work on an import of it as well",
            counted(i64::try_from(live).unwrap_or(i64::MAX), "worker is", "workers are")
        ));
    }
    if !is_stdout(file) {
        let view = ExportedView { file: file.display().to_string(), bytes };
        if context.output.format() == Format::Json {
            context.output.json(&view)?;
        } else {
            context.output.line(view)?;
        }
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

/// Writes what a program prints into the file, and returns how many bytes that were.
async fn write_out(mut command: Command, program: &Path, out: &mut OutFile) -> anyhow::Result<u64> {
    let running = || format!("running {}", program.display());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(running)?;
    let (mut dump, mut words) =
        (child.stdout.take().with_context(running)?, child.stderr.take().with_context(running)?);
    let mut said = Vec::new();
    let copying = async {
        let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            let read = dump.read(&mut buffer).await?;
            if read == 0 {
                return anyhow::Ok(bytes);
            }
            out.write_all(buffer.get(..read).unwrap_or_default())?;
            bytes += read as u64;
        }
    };
    let (copied, heard) = tokio::join!(copying, words.read_to_end(&mut said));
    let status = child.wait().await.with_context(running)?;
    heard.with_context(running)?;
    if !status.success() {
        anyhow::bail!("{}", in_its_words(program, &said));
    }
    copied
}

/// What a program says when it fails, as one message.
fn in_its_words(program: &Path, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    // The statements that it ran tell a user nothing.
    let is_statement = |line: &&str| line.contains("Command was:") || line.contains("Query was:");
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take_while(|line| !is_statement(line)).take(5).collect();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let said = lines.join("; ");
    if said.starts_with(&*name) { said } else { format!("{name}: {said}") }
}

async fn import(file: &Path, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let reading = || format!("reading {}", file.display());
    if !std::fs::metadata(file).with_context(reading)?.is_file() {
        return Err(CommandFailure::usage(format!("{} is no plain file", file.display())).into());
    }
    let mut context = Context::open_any_schema(global).await?;
    let place = Place::of(&context)?;
    let program = place.program("pg_restore").await?;
    require_export(&program, file).await?;
    if let Some(in_the_way) = context.store.make_room_for_import().await? {
        return Err(refusal(&in_the_way).into());
    }
    let mut command = place.command(&program);
    command.args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-password"]).arg(file);
    let output =
        command.stdin(Stdio::null()).output().await.with_context(|| format!("running {}", program.display()))?;
    if !output.status.success() {
        anyhow::bail!("nothing was imported: {}", in_its_words(&program, &output.stderr));
    }
    let version = context.store.migrate().await?;
    let view = ImportedView {
        jobs: context.store.settle_in().await?,
        from: version.found,
        to: version.found.max(version.known),
    };
    if context.output.format() == Format::Json {
        context.output.json(&view)?;
    } else {
        context.output.line(view)?;
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

/// Looks into the file, so that another one is refused before anything is done.
async fn require_export(program: &Path, file: &Path) -> anyhow::Result<()> {
    let listed = Command::new(program).arg("--list").arg(file).stdin(Stdio::null()).output().await;
    let listed = listed.with_context(|| format!("running {}", program.display()))?;
    let list = String::from_utf8_lossy(&listed.stdout);
    let fault = if !listed.status.success() {
        in_its_words(program, &listed.stderr)
    } else if !list.contains(" TABLE DATA sluice migration ") {
        "it is a dump of something else".to_owned()
    } else {
        return Ok(());
    };
    Err(CommandFailure::input(format!("{} is no file of `sluice db export`: {fault}", file.display())).into())
}

fn refusal(in_the_way: &InTheWay) -> CommandFailure {
    CommandFailure::usage(match in_the_way {
        InTheWay::Schema => "the database has a schema sluice already, and an import would mix two queues: choose a \
                             database without one; nothing was changed"
            .to_owned(),
        InTheWay::Roles(missing) => {
            let statements: Vec<String> = missing.iter().map(|role| format!("create role {role} nologin;")).collect();
            format!(
                "the rights in an export are those of roles that are missing here; nothing was changed. Let an \
                 administrator run: {}",
                statements.join(" ")
            )
        }
        InTheWay::Rights(login, database) => format!(
            "{login} may not make a schema in the database {database}; nothing was changed. Let an administrator run: \
             grant create on database {database} to {login};"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_fails_in_its_words_without_the_statements_that_it_ran() {
        let program = Path::new("/usr/bin/pg_restore");
        for (said, told) in [
            (
                "pg_restore: error: query failed: ERROR:  out of memory\nCommand was: CREATE TABLE a\n",
                "pg_restore: error: query failed: ERROR:  out of memory",
            ),
            ("\nno space left\nreally none\n", "pg_restore: no space left; really none"),
            ("", "pg_restore: "),
        ] {
            assert_eq!(in_its_words(program, said.as_bytes()), told);
        }
    }
}
