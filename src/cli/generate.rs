//! Shell completions and the manual page, from the tree that parses the command line; and descriptions of the
//! configuration, from the declarations by which it is read.

use super::output::{Output, OutputError};
use super::{Cli, GlobalArgs, manual};
use crate::config;
use crate::exit_code::ExitCode;
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::fs;
use std::path::PathBuf;

/// Which shell.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}

/// Arguments of `sluice man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder, which is made if need be
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Arguments of `sluice config`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ConfigArgs {
    /// What to print
    #[arg(value_enum, default_value = "sample")]
    pub what: ConfigText,
}

/// A text about the configuration.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ConfigText {
    /// A file with every key, its default or an example, that changes nothing
    Sample,
    /// The table of all keys, as Markdown
    Keys,
    /// A JSON schema
    Schema,
    /// The API of a worker (/api/v1), as an OpenAPI document
    Openapi,
}

/// Prints a description of the configuration's keys.
pub fn configuration(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let text = match args.what {
        ConfigText::Sample => config::sample(),
        ConfigText::Keys => config::reference(),
        ConfigText::Schema => config::schema(),
        ConfigText::Openapi => serde_json::to_string_pretty(&crate::http::openapi())? + "\n",
    };
    print(text.as_bytes())
}

/// Prints completions.
pub fn completions(args: CompletionArgs) -> anyhow::Result<ExitCode> {
    // The generator panics when it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sluice", &mut script);
    print(&script)
}

/// Prints one page with all commands, or writes a page for each of them into a folder.
pub fn manual(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let Some(folder) = &args.out else { return print(manual::one_page()?.as_bytes()) };
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for page in manual::pages()? {
        let path = folder.join(page.file);
        fs::write(&path, page.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::Success)
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut output = Output::new(&GlobalArgs::default());
    output.writer().write_all(text).map_err(OutputError)?;
    output.finish()?;
    Ok(ExitCode::Success)
}
