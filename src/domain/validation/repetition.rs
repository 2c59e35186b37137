//! A model that has run into a loop and writes the same words until it is stopped.

/// So many bytes of the end of a text are looked at.
const WINDOW: usize = 32 << 10;

/// Shorter loops may be meant: a refrain, a list of equal answers.
const LEAST_BYTES: usize = 1_000;

/// Fewer rounds may be meant, too.
const LEAST_ROUNDS: usize = 20;

/// A loop in which there are fewer letters is a line of dashes, a table of zeros.
const LEAST_LETTERS: usize = 2;

/// The loop that a text ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    /// Characters of a round.
    pub round: usize,
    /// How many rounds there are, whole ones.
    pub rounds: usize,
}

/// Signs that are drawn with: a line of them is no loop.
const DRAWN: &str = "-=_*#~.·•—–|/\\+<>^ ";

/// The loop that a text ends in, if it does. In a text that its model ended by itself (`is_whole`), equal lines are a
/// list: labels, rows of a table, records.
pub(super) fn find(text: &str, is_whole: bool) -> Option<Loop> {
    let bytes = text.trim_end().as_bytes();
    let from = bytes.len().saturating_sub(WINDOW);
    let window = bytes.get(from..).unwrap_or_default();
    if window.len() < LEAST_BYTES || !may_loop(window) {
        return None;
    }
    // How long the beginning of the reversed text is that its first so many bytes end with again: the rest of them is
    // the length of a round.
    let back: Vec<u8> = window.iter().rev().copied().collect();
    let mut borders = vec![0_usize; back.len()];
    let mut longest: Option<(usize, usize)> = None;
    let mut border = 0;
    for place in 1..back.len() {
        let byte = back.get(place)?;
        while border > 0 && back.get(border) != Some(byte) {
            border = *borders.get(border - 1)?;
        }
        if back.get(border) == Some(byte) {
            border += 1;
        }
        *borders.get_mut(place)? = border;
        let (length, round) = (place + 1, place + 1 - border);
        if length >= LEAST_BYTES && length / round >= LEAST_ROUNDS {
            longest = Some((length, round));
        }
    }
    let (length, round) = longest?;
    let start = text.trim_end().len() - round;
    let start = (0..=3).find_map(|more| text.get(start.checked_add(more)?..))?;
    let round_text = start.trim();
    let letters = round_text.chars().filter(|c| c.is_alphabetic()).count();
    let characters = round_text.chars().count().max(1);
    let is_one_sign = characters == 1 && !round_text.chars().all(|c| c.is_whitespace() || DRAWN.contains(c));
    let is_list = is_whole && start.contains('\n');
    (!is_list && (letters >= LEAST_LETTERS || is_one_sign))
        .then_some(Loop { round: characters, rounds: length / round })
}

/// Whether there is a length of a round after which the last bytes come again. Nearly all texts are done with that: the
/// search for borders takes twenty times as long.
fn may_loop(window: &[u8]) -> bool {
    let end = window.len();
    (1..=end / LEAST_ROUNDS).any(|round| {
        // All rounds but one are equal to the one before; the last bytes of them will do.
        let compared = (round * (LEAST_ROUNDS - 1)).min(32);
        window.get(end - compared..) == window.get(end - round - compared..end - round)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_loop_is_found_and_what_may_be_meant_is_not() {
        let before = "An answer that began well, with several sentences of its own. ";
        for (round, rounds, is_found) in [
            ("I will check the file again. ", 60, true),
            ("The same\nlines\nonce more\n", 50, true),
            ("ja ", 500, true),
            ("测试一下", 100, true),
            (
                "This longer sentence of a hundred characters or so comes again and again, as loops of models do. ",
                21,
                true,
            ),
            ("I will check the file again. ", 19, false),
            ("ha ", 100, false),
            ("0, ", 2_000, false),
            ("!", 6_000, true),
            ("0", 6_000, true),
            ("=", 6_000, false),
            ("\n", 3_000, false),
            ("-", 5_000, false),
            ("| x ", 0, false),
        ] {
            let text = format!("{before}{}", round.repeat(rounds));
            assert_eq!(find(&text, false).is_some(), is_found, "{rounds} × {round}");
        }
        let text = format!("{before}{}I will check", "I will check the file again. ".repeat(60));
        let found = find(&text, true).unwrap();
        assert_eq!(found.rounds, 60);
        assert!((27..=29).contains(&found.round), "{found:?}");
    }

    #[test]
    fn equal_lines_are_a_list_where_the_model_ended_by_itself() {
        for line in ["negative", "{\"label\": \"spam\"}", "row, 0, 0, 0", "| zero | 0.00 |", "The same.\nOnce more."] {
            let text = format!("{line}\n").repeat(200);
            assert_eq!((find(&text, true), find(&text, false).is_some()), (None, true), "{line}");
        }
    }

    #[test]
    fn prose_tables_and_lists_are_no_loops() {
        let rows = (0..400).map(|row| format!("| {row} | yes | no | {} |", row * 7));
        let items = (0..400).map(|row| format!("{row}. positive"));
        let (table, list) = (rows.collect::<Vec<_>>().join("\n"), items.collect::<Vec<_>>().join("\n"));
        let prose = include_str!("../../../docs/decisions.md");
        for text in [&table, &list, prose, ""] {
            assert_eq!(find(text, false), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_and_only_loops_are_found(
            words in prop::collection::vec("[a-zß日]{1,8}", 0..400),
            again in 0_usize..60,
        ) {
            let text = words.join(" ");
            let distinct: std::collections::BTreeSet<&String> = words.iter().collect();
            if distinct.len() > words.len() / 2 && !words.is_empty() {
                prop_assert_eq!(find(&text, false), None);
            }
            let round = format!("{text} und ");
            let looped = round.repeat(again);
            if again > 20 && looped.len() >= 1_100 && looped.len() <= WINDOW {
                prop_assert!(find(&looped, true).is_some());
            }
        }
    }
}
