//! Commands that are shown to users, in the form that a shell accepts, for any names in them.

use super::GlobalArgs;
pub(super) use crate::view::command::{about, quoted};
use std::path::Path;

/// The path of a file, written so that it cannot be taken for an option.
pub(super) fn path(file: &Path) -> String {
    let name = file.to_string_lossy();
    if name.starts_with('-') && name != "-" { quoted(&format!("./{name}")) } else { quoted(&name) }
}

/// `--name value`, or a single word where the value would be taken for an option.
pub(super) fn option(name: &str, value: &str) -> String {
    let between = if value.starts_with('-') { '=' } else { ' ' };
    format!("--{name}{between}{}", quoted(value))
}

/// The first words of a command that uses the same configuration and database as this one.
pub(super) fn beginning(global: &GlobalArgs) -> Vec<String> {
    let mut words = vec!["sluice".to_owned()];
    if let Some(config) = &global.config {
        words.extend(["--config".to_owned(), path(config)]);
    }
    if global.database_url.is_some() {
        // It may hold a password.
        words.push("--database-url …".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_begins_like_an_option_is_none() {
        for (file, expected) in [("-x", "./-x"), ("-a b", "'./-a b'"), ("-", "-"), ("x", "x")] {
            assert_eq!(path(Path::new(file)), expected);
        }
        for (batch, expected) in [("-x", "--batch=-x"), ("--all y", "--batch='--all y'"), ("x", "--batch x")] {
            assert_eq!(option("batch", batch), expected);
        }
        for (batch, rest, expected) in [
            ("x", "", "sluice results x"),
            ("a b", "-o y", "sluice results 'a b' -o y"),
            ("-x", "-o y", "sluice results -o y -- -x"),
            ("-x", "", "sluice results -- -x"),
        ] {
            assert_eq!(about("sluice results", batch, rest), expected);
        }
    }
}
