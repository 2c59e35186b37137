//! A number and what it counts, in words.

use std::fmt::Display;

/// The number and its noun: `one` after exactly 1, `many` after every other number. The words may go on with a verb:
/// `counted(left, "job is left", "jobs are left")`.
#[must_use]
pub fn counted(number: impl Display, one: &str, many: &str) -> String {
    let mut words = number.to_string();
    let noun = if words == "1" { one } else { many };
    words.push(' ');
    words.push_str(noun);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        for (number, words) in [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (11, "11 jobs"), (101, "101 jobs")] {
            assert_eq!(counted(number, "job", "jobs"), words);
        }
        assert_eq!(counted("1,001", "job is", "jobs are"), "1,001 jobs are");
    }
}
