//! Many names in one line.

/// The most names that are written out.
const NAMES: usize = 5;
/// The most characters of each name.
const CHARACTERS: usize = 60;

/// The first few of these names, each cut to a length that fits a line, and how many others there are.
pub fn roll<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut said: Vec<String> = names.by_ref().take(NAMES).map(shortened).collect();
    match names.count() {
        0 => {}
        others => said.push(format!("and {others} more")),
    }
    said.join(", ")
}

/// The name as it fits a line: its beginning, without characters that would move the cursor of a terminal.
#[must_use]
pub fn shortened(name: &str) -> String {
    let mut short: String =
        name.chars().take(CHARACTERS).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if name.chars().nth(CHARACTERS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_and_long_the_names_are_the_line_is_short() {
        assert_eq!(roll([]), "");
        assert_eq!(roll(["a", "b"]), "a, b");
        assert_eq!(roll(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(roll(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e, and 2 more");
        let long = "ö".repeat(100_000_000);
        assert_eq!(roll([long.as_str()]), format!("{}…", "ö".repeat(60)));
        assert_eq!(roll(["a\x1b[2J\nb"]), "a\u{fffd}[2J\u{fffd}b");
    }
}
