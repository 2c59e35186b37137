//! Commands that people can paste, for any names in them.

use crate::domain::obstacle::Advice;
use crate::domain::pause::PauseKind;
use std::fmt::Write as _;

/// The text as a single word to a shell. It is on one line, and nothing in it is hidden: a word with characters that
/// cannot be seen is written with their codes, as the usual shells read them (`$'a\nb'`).
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.chars().any(is_unseen) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for letter in word.chars() {
        match letter {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\\' | '\'' => quoted.extend(['\\', letter]),
            letter if is_unseen(letter) => {
                // Eight digits, so that the next character is not taken for a part of the number.
                let _ = write!(quoted, "\\U{:08x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('\'');
    quoted
}

/// Whether a character is one that a reader does not see as itself.
fn is_unseen(letter: char) -> bool {
    !matches!(letter, '\'' | '"' | '\\') && letter.escape_debug().len() > 1
}

/// A command about something with a name: `sluice batch retry NAME`, and its further arguments.
#[must_use]
pub fn about(command: &str, name: &str, rest: &str) -> String {
    let rest = if rest.is_empty() { String::new() } else { format!(" {rest}") };
    if name.starts_with('-') {
        // Arguments after `--` are not options.
        return format!("{command}{rest} -- {}", quoted(name));
    }
    format!("{command} {}{rest}", quoted(name))
}

/// What to do about an obstacle: a command, or words.
#[must_use]
pub fn advice(advice: &Advice) -> String {
    match advice {
        Advice::Resume(kind, name) => about(
            match kind {
                PauseKind::Batch => "sluice batch resume",
                PauseKind::Route => "sluice route resume",
                PauseKind::Project => "sluice project resume",
                PauseKind::Provider => "sluice provider resume",
            },
            name,
            "",
        ),
        Advice::Mend { what, provider } => {
            format!("{what}; then `{}` tries again at once", about("sluice provider reopen", provider, ""))
        }
        Advice::AddRoute(name) => {
            let cancel = about("sluice route cancel", name, "");
            format!("add the route to the workers' configuration and reload them, or `{cancel}`")
        }
        Advice::RaiseBudget(name) => about("sluice budget raise", name, "AMOUNT"),
        Advice::ResumeJob(job) => format!("sluice job resume {job}"),
        Advice::Words(words) => (*words).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_in_a_shell() {
        for (word, expected) in [
            ("a-b_c.9/x", "a-b_c.9/x"),
            ("-", "-"),
            ("-x", "-x"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
            ("grün", "grün"),
            ("a'b", r"'a'\''b'"),
            ("a\nb 'c'\\", r"$'a\nb \'c\'\\'"),
            ("a\u{1b}[2J\u{9b}\u{202e}", r"$'a\U0000001b[2J\U0000009b\U0000202e'"),
            ("a\tb\r", r"$'a\tb\r'"),
            ("🎉 x", "'🎉 x'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn what_is_paused_is_resumed_by_its_name() {
        let resume = |kind, name: &str| advice(&Advice::Resume(kind, name.to_owned()));
        assert_eq!(resume(PauseKind::Batch, "a b"), "sluice batch resume 'a b'");
        assert_eq!(resume(PauseKind::Provider, "-x"), "sluice provider resume -- -x");
        assert_eq!(advice(&Advice::ResumeJob(5)), "sluice job resume 5");
    }
}
