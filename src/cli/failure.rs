//! How a command reports that it failed: one message on standard error, and an exit status.

use super::colour;
use super::output::OutputError;
use super::table::wrapped;
use crate::config::ConfigErrors;
use crate::embedded::EmbeddedError;
use crate::exit_code::ExitCode;
use crate::printable::{self, is_hidden, on_one_line};
use crate::store::StoreError;
use crate::view::tone::Tone;
use clap::error::ContextValue;
use std::fmt;
use std::io::{ErrorKind, Write as _};

/// A failure whose exit status the command itself knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    code: ExitCode,
    message: String,
}

impl CommandFailure {
    /// There is no such job, batch, route or provider.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: ExitCode::NotFound, message: message.into() }
    }

    /// The arguments do not go together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Usage, message: message.into() }
    }

    /// The input is wrong; nothing was done with it.
    pub fn input(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Input, message: message.into() }
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandFailure {}

/// The exit status that fits an error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<CommandFailure>() {
            return failure.code;
        }
        if cause.is::<ConfigErrors>() {
            return ExitCode::Configuration;
        }
        if cause.is::<EmbeddedError>() {
            return ExitCode::Database;
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return match error {
                StoreError::Connect { .. }
                | StoreError::Pooler { .. }
                | StoreError::Migrating
                | StoreError::Timeout { .. }
                | StoreError::Locked { .. }
                | StoreError::NotMigrated
                | StoreError::Encoding { .. }
                | StoreError::NotOurs { .. }
                | StoreError::Outdated { .. }
                | StoreError::TooNew { .. } => ExitCode::Database,
                StoreError::Sql { .. } if error.is_transient() => ExitCode::Database,
                StoreError::Refused { .. } => ExitCode::Input,
                StoreError::Migrate(_) | StoreError::Sql { .. } => ExitCode::Failure,
            };
        }
    }
    ExitCode::Failure
}

/// Prints an error and returns the exit status; `needs` names the role that the attempted action requires. A user who
/// stops reading our output (`sluice … | head`) does so deliberately: that is not a failure.
#[must_use]
pub fn report(error: &anyhow::Error, needs: &str) -> ExitCode {
    if is_closed(error) {
        return ExitCode::Success;
    }
    // When standard error is gone too, only the exit status can tell.
    let _ = colour::headed(Tone::Bad, &format!("error: {}", in_words(error, needs)));
    exit_code(error)
}

/// Prints the fault of a command line, or the help that was asked for.
#[must_use]
pub fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help that was asked for, and the version, are data: a reader must not take a part of it for the whole.
        return match error.print() {
            Ok(()) => ExitCode::Success,
            Err(fault) if fault.kind() == ErrorKind::BrokenPipe => ExitCode::Success,
            Err(fault) => {
                let _ = writeln!(printable::stderr(), "error: cannot write the output: {fault}");
                ExitCode::Failure
            }
        };
    }
    let mut words = error.render().to_string();
    let given = error.context().filter_map(|(_, value)| match value {
        ContextValue::String(text) => Some(text),
        _ => None,
    });
    let many_lines: Vec<&String> = given.filter(|text| text.contains('\n')).collect();
    for text in &many_lines {
        // Its second line would pass for one of the message.
        words = words.replace(text.as_str(), &on_one_line(text));
    }
    if !many_lines.is_empty() || words.chars().any(|c| is_hidden(c) && c != '\n' && c != '\t') {
        // The message quotes unknown arguments. When standard error is gone too, only the exit status can tell.
        let _ = write!(printable::stderr(), "{words}");
    } else if let Some(screen) = printable::stderr_width().filter(|screen| is_wider(&words, *screen)) {
        for line in words.lines() {
            let _ = writeln!(printable::stderr(), "{}", wrapped(line, screen).join("\n"));
        }
    } else {
        // With its colours.
        let _ = error.print();
    }
    ExitCode::Usage
}

fn is_wider(text: &str, screen: usize) -> bool {
    text.lines().any(|line| printable::columns(line) > screen)
}

/// Whether the error is that our output is no longer read.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    let is_closed = |cause: &OutputError| cause.0.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<OutputError>().is_some_and(is_closed))
}

/// The chain of causes, without those that the preceding message quotes already.
fn in_words(error: &anyhow::Error, needs: &str) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if words.is_empty() {
            words = said;
        } else if !words.contains(&said) {
            words.push_str(": ");
            words.push_str(&said);
        }
        if cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_denied) {
            // The server names a table, which says nothing to a user.
            if let Some(at) = words.rfind(": this login has no right to the ") {
                words.truncate(at);
                words.push_str(": this login may not do that");
            }
            words.push_str("; this needs ");
            words.push_str(needs);
        }
        // These errors say everything, and better than the driver behind them.
        if cause.is::<StoreError>() || cause.is::<EmbeddedError>() {
            break;
        }
    }
    without_numbers(words)
}

/// The words without the numbers that the system has for its errors: `(os error 2)` says nothing to a user.
pub(super) fn without_numbers(mut words: String) -> String {
    const BEGIN: &str = " (os error ";
    while let Some(at) = words.find(BEGIN) {
        let Some(end) = words.get(at..).and_then(|rest| rest.find(')')) else { break };
        words.replace_range(at..=at + end, "");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_system_s_error_is_told_without_its_number() {
        let error = anyhow::Error::from(std::io::Error::from_raw_os_error(2)).context("reading a");
        assert_eq!(in_words(&error, ""), "reading a: No such file or directory");
        assert_eq!(without_numbers("a (os error 2), b (os error 111) (os error".to_owned()), "a, b (os error");
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_status() {
        let code = |error: anyhow::Error| exit_code(&error);
        assert_eq!(code(CommandFailure::not_found("no").into()), ExitCode::NotFound);
        assert_eq!(code(StoreError::NotMigrated.into()), ExitCode::Database);
        assert_eq!(code(anyhow::Error::from(StoreError::NotMigrated).context("opening")), ExitCode::Database);
        assert_eq!(code(anyhow::anyhow!("whatever")), ExitCode::Failure);
        let refused = StoreError::Sql { doing: "claiming jobs", source: sqlx::Error::RowNotFound };
        assert_eq!(code(refused.into()), ExitCode::Failure);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let closed = OutputError(ErrorKind::BrokenPipe.into());
        assert_eq!(report(&anyhow::Error::from(closed), ""), ExitCode::Success);
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let source = sqlx::Error::PoolTimedOut;
        let error = anyhow::Error::from(StoreError::Sql { doing: "claiming jobs", source });
        assert_eq!(in_words(&error, ""), "claiming jobs: no connection was free in time");
        let io: Result<(), _> = Err(std::io::Error::other("disk full"));
        assert_eq!(in_words(&io.context("writing").unwrap_err(), ""), "writing: disk full");
    }
}
