//! Shell completions and the manual page, from the tree that parses the command line; and descriptions of the
//! configuration, from the declarations by which it is read.

use super::output::{Output, OutputError};
use super::{Cli, GlobalArgs};
use crate::config;
use crate::exit_code::ExitCode;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Which shell.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
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

/// Prints one page with all commands, in the format of man(7).
pub fn manual() -> anyhow::Result<ExitCode> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    describe_commands(&command, &mut page)?;
    print(&page)
}

/// clap_mangen lists only the names of commands; a page for each would mean thirty files to install.
fn describe_commands(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone().disable_help_flag(true));
        page.extend_from_slice(
            format!(".SH \"{}\"\n", sub.get_bin_name().unwrap_or_default().to_uppercase()).as_bytes(),
        );
        let mut part = Vec::new();
        man.render_description_section(&mut part)?;
        man.render_synopsis_section(&mut part)?;
        if sub.get_opts().any(|option| !option.is_global_set()) || sub.get_positionals().next().is_some() {
            man.render_options_section(&mut part)?;
        }
        // Sections of a command become subsections of its section.
        page.extend_from_slice(String::from_utf8_lossy(&part).replace(".SH ", ".SS ").as_bytes());
        describe_commands(sub, page)?;
    }
    Ok(())
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut output = Output::new(&GlobalArgs::default());
    output.writer().write_all(text).map_err(OutputError)?;
    output.finish()?;
    Ok(ExitCode::Success)
}
