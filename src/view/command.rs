//! Commands that people can paste, whatever names are in them.

use crate::domain::obstacle::Advice;
use crate::domain::pause::PauseKind;

/// The text as a single word to a shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
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
