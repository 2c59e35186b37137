//! The pages of the manual: one for each command, or one with all of them, from the tree that parses the command line.

use super::Cli;
use crate::config::{SERVICE_STATE, USUAL_FILES};
use crate::exit_code::ExitCode;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use roff::{Inline, Roff, bold, roman};
use std::io;

/// The section of the manual in which commands are.
const SECTION: &str = "1";

/// A page, in the format of man(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The name of its file: `sluice-batch-list.1`.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// Variables that Sluice reads without being told to by the configuration.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("SLUICE_CONFIG", "The configuration, where --config does not name one."),
    ("DATABASE_URL", "The Postgres to use: [database] url. Other users see arguments, and not this variable."),
    (
        "SLUICE__SECTION__KEY",
        "The value of a key, over that of the file: SLUICE__WORKER__MAX_IN_FLIGHT is [worker] max_in_flight. Variables \
         that hold API keys have the names that the configuration gives them (api_key_env).",
    ),
    ("SLUICE_PG_BIN", "The folder of PostgreSQL's programs (initdb, postgres) for the private Postgres."),
    ("STATE_DIRECTORY", "The folder of the private Postgres and of the spool. systemd sets it for a service."),
    ("XDG_STATE_HOME", "Where that folder is for users other than root and sluice; ~/.local/state without it."),
    ("CREDENTIALS_DIRECTORY", "The folder of credentials (credential = \"NAME\"). systemd sets it for a service."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Where a worker reports its state, and how often. systemd sets them."),
    ("NO_COLOR, CLICOLOR, CLICOLOR_FORCE", "Whether output has colours, where --color does not say so."),
];

/// A page for each command, the first for `sluice` itself.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    describe(&tree(), None, &mut pages)?;
    Ok(pages)
}

/// One page with all commands.
pub fn one_page() -> io::Result<String> {
    let command = tree();
    let mut text = head(&command)?;
    options(&command, &mut text)?;
    add_commands(&command, &mut text)?;
    add_what_holds_for_all(&mut text);
    Ok(without_repeated_preambles(&text))
}

/// The commands as pages describe them: with the options that the short help leaves out.
fn tree() -> Command {
    fn shown(command: Command) -> Command {
        command.mut_args(|argument| argument.hide_short_help(false)).mut_subcommands(shown)
    }
    let mut command = shown(Cli::command().disable_help_subcommand(true).subcommand_help_heading("COMMANDS"));
    command.build();
    command
}

/// The commands below one that are no secret.
fn below(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn describe(command: &Command, above: Option<&Command>, pages: &mut Vec<Page>) -> io::Result<()> {
    let mut text = head(command)?;
    options(command, &mut text)?;
    if below(command).next().is_some() {
        let heading = command.clone().subcommand_help_heading("COMMANDS");
        add(&mut text, |part| Man::new(heading).render_subcommands_section(part))?;
    }
    if let Some(above) = above {
        if let Some(notes) = command.get_after_help() {
            section(&mut text, "NOTES", |roff| {
                roff.text([roman(notes.to_string())]);
            });
        }
        section(&mut text, "EXIT STATUS", |roff| {
            roff.text([
                roman("0 on success. The other numbers, the files and the environment are those of "),
                bold("sluice"),
                roman("(1)."),
            ]);
        });
        section(&mut text, "SEE ALSO", |roff| {
            roff.text(references(above, command));
        });
    } else {
        add_what_holds_for_all(&mut text);
    }
    pages.push(Page { file: format!("{}.{SECTION}", page_name(command)), text: without_repeated_preambles(&text) });
    for sub in below(command) {
        describe(sub, Some(command), pages)?;
    }
    Ok(())
}

/// The pages above a command's and below it.
fn references(above: &Command, command: &Command) -> Vec<Inline> {
    let mut names = vec!["sluice"];
    if page_name(above) != "sluice" {
        names.push(page_name(above));
    }
    names.extend(below(command).map(page_name));
    let mut references = Vec::new();
    for (index, name) in names.iter().enumerate() {
        references.push(bold(*name));
        references.push(roman(if index + 1 == names.len() { "(1)" } else { "(1), " }));
    }
    references
}

/// The title, the name, how the command is written, and what it does.
fn head(command: &Command) -> io::Result<String> {
    let man = Man::new(with_usage(command))
        .title(page_name(command).to_uppercase())
        .section(SECTION)
        .source(format!("sluice {}", env!("CARGO_PKG_VERSION")))
        .manual("Sluice");
    let mut text = String::new();
    add(&mut text, |part| man.render_title(part))?;
    add(&mut text, |part| man.render_name_section(part))?;
    add(&mut text, |part| man.render_synopsis_section(part))?;
    add(&mut text, |part| man.render_description_section(part))?;
    Ok(text)
}

fn options(command: &Command, text: &mut String) -> io::Result<()> {
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        add(text, |part| Man::new(command.clone()).render_options_section(part))?;
    }
    Ok(())
}

/// The command with the line that `--help` shows: clap_mangen's own has each option that holds for every command.
fn with_usage(command: &Command) -> Command {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    command.clone().override_usage(usage)
}

/// A section for each command, and one below it for each of its parts.
fn add_commands(command: &Command, page: &mut String) -> io::Result<()> {
    for sub in below(command) {
        let name = sub.get_bin_name().unwrap_or_default().to_uppercase();
        section(page, &name, |_| {});
        let man = Man::new(with_usage(sub).mut_args(|argument| {
            // They stand at the head of the page.
            let is_of_all = argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
            argument.hide(is_of_all)
        }));
        let mut part = String::new();
        add(&mut part, |part| man.render_description_section(part))?;
        add(&mut part, |part| man.render_synopsis_section(part))?;
        if sub.get_opts().any(|option| !option.is_global_set()) || sub.get_positionals().next().is_some() {
            add(&mut part, |part| man.render_options_section(part))?;
        }
        page.push_str(&part.replace(".SH ", ".SS "));
        add_commands(sub, page)?;
    }
    Ok(())
}

/// The sections that are the same for all commands.
fn add_what_holds_for_all(text: &mut String) {
    section(text, "EXIT STATUS", |roff| {
        for code in ExitCode::ALL {
            entry(roff, &(*code as u8).to_string(), &format!("{}.", code.meaning()));
        }
    });
    section(text, "ENVIRONMENT", |roff| {
        for (name, meaning) in ENVIRONMENT {
            entry(roff, name, meaning);
        }
    });
    section(text, "FILES", |roff| {
        entry(roff, &USUAL_FILES.join(", "), "The configuration: the first that exists.");
        entry(roff, &format!("{SERVICE_STATE}/postgres"), "The private Postgres, where no other is configured.");
        entry(roff, &format!("{SERVICE_STATE}/spool"), "Answers that wait for the database.");
        entry(roff, "~/.local/state/sluice", "Both, for users other than root and sluice.");
    });
    section(text, "SEE ALSO", |roff| {
        roff.text([bold("systemctl"), roman("(1), "), bold("psql"), roman("(1)")]);
    });
}

fn entry(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []).text([bold(name)]).text([roman(meaning)]);
}

fn section(text: &mut String, name: &str, fill: impl FnOnce(&mut Roff)) {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    fill(&mut roff);
    text.push_str(&roff.render());
}

/// Renders a part and appends it.
fn add(text: &mut String, render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let mut part = Vec::new();
    render(&mut part)?;
    text.push_str(&String::from_utf8_lossy(&part));
    Ok(())
}

/// Each part is rendered as a page of its own, which begins with two lines about apostrophes.
fn without_repeated_preambles(text: &str) -> String {
    let preamble = Roff::new().render();
    format!("{preamble}{}", text.replace(&preamble, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line is a request that the pages may have, or text in which every backslash begins a known escape.
    fn is_sound(line: &str) -> bool {
        if let Some(request) = line.strip_prefix('.') {
            let name = request.split(' ').next().unwrap_or_default();
            return ["TH", "SH", "SS", "TP", "PP", "IP", "RS", "RE", "br", "ie", "el"].contains(&name);
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('\\') {
            let known = ["-", "fB", "fR", "fI", "&", "\\", "e", "*(Aq", ".", "(bu"];
            let Some(escape) = known.iter().find(|escape| after.starts_with(**escape)) else { return false };
            rest = &after[escape.len()..];
        }
        true
    }

    #[test]
    fn every_command_has_a_page_and_every_page_can_be_read() {
        fn names(command: &Command, path: &str, found: &mut Vec<String>) {
            found.push(format!("{path}.1"));
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                names(sub, &format!("{path}-{}", sub.get_name()), found);
            }
        }
        let pages = pages().unwrap();
        let mut expected = Vec::new();
        names(&Cli::command(), "sluice", &mut expected);
        assert_eq!(pages.iter().map(|page| page.file.clone()).collect::<Vec<_>>(), expected);
        for Page { file, text } in &pages {
            let name = file.strip_suffix(".1").unwrap();
            assert_eq!(text.matches("\n.TH ").count(), 1, "{file}");
            let roff = name.replace('-', "\\-");
            assert!(text.contains(&format!(".SH NAME\n{roff} \\- ")), "{file}:\n{text}");
            let usage = name.split('-').next().unwrap();
            assert!(text.contains(&format!(".SH SYNOPSIS\n\\fB{usage}")), "{file}:\n{text}");
            for section in ["DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
                assert!(text.contains(section), "{file} has no {section}");
            }
            // An option without a word of what it does.
            assert!(!text.contains("\\fR\n.TP"), "{file}:\n{text}");
            for line in text.lines() {
                assert!(is_sound(line), "{file}: {line}");
            }
        }
    }

    #[test]
    fn the_page_of_the_program_says_what_all_commands_share() {
        let pages = pages().unwrap();
        let root = &pages[0].text;
        for code in ExitCode::ALL {
            assert!(root.contains(&format!("\\fB{}\\fR\n", *code as u8)), "{code:?}");
        }
        for word in ["ENVIRONMENT", "DATABASE_URL", "FILES", "/etc/sluice/sluice.toml", "sluice\\-batch(1)"] {
            assert!(root.contains(word), "{word} is not in\n{root}");
        }
        assert!(one_page().unwrap().lines().all(is_sound));
    }
}
