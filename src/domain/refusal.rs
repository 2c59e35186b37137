//! What the words of a refusal say beyond its class: whom it concerns, and whether a change of the request would suit.

use serde::{Deserialize, Serialize};

/// Whom a failure concerns, as far as its words leave no doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearing {
    /// Those that its scope names.
    #[default]
    AsScoped,
    /// Every target: the request itself is at fault, wherever it is sent.
    EveryTarget,
    /// Perhaps only this request, although its status or class speaks of the key or the model. Vendors dress refusals
    /// of one request as 402, 403 and 404. Sluice believes it of other requests once a different one meets it as well.
    InDoubt,
}

/// A change that a refusal asks for in so many words. The request keeps its meaning: only optional parameters change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mend {
    /// The target wants a member under another name.
    Rename {
        /// The member as it was sent.
        from: &'static str,
        /// The member that the target takes.
        to: &'static str,
    },
    /// The target does not take an optional member.
    Drop {
        member: &'static str,
        /// Whether the model never takes the member; otherwise it refused this value, or this combination.
        lasting: bool,
    },
    /// The target does not take an output cap above this one.
    Cap {
        /// The cap, in tokens.
        tokens: u64,
        /// Whether the cap is a property of the model; otherwise it holds for this request and this moment only.
        lasting: bool,
    },
}

impl Mend {
    /// Whether later requests to the same target need this change too.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Rename { .. } => true,
            Self::Drop { lasting, .. } | Self::Cap { lasting, .. } => *lasting,
        }
    }
}

/// The words of a refusal without the parts that differ from target to target: names, numbers and quotations. Two
/// targets whose refusals have the same gist refuse a request in the same way. Empty where nothing is left.
#[must_use]
pub fn gist(words: &str) -> String {
    let mut gist = String::new();
    let mut quoted: Option<char> = None;
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if (2..60).contains(&word.len()) && word.chars().all(char::is_alphabetic) && gist.len() < 200 {
            if !gist.is_empty() {
                gist.push(' ');
            }
            gist.push_str(&word.to_lowercase());
        }
        word.clear();
    };
    for letter in words.chars() {
        match (quoted, letter) {
            (Some(open), letter) if letter == open => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quoted = Some(letter),
            // Not the apostrophe in "model's".
            (None, '\'') if word.is_empty() => quoted = Some(letter),
            (None, letter) if letter.is_whitespace() => end(&mut word),
            (None, '.' | ',' | ';' | ':' | '!' | '?' | '(' | ')' | '\'') if word.chars().all(char::is_alphabetic) => {
                end(&mut word);
            }
            (None, letter) => word.push(letter),
        }
    }
    end(&mut word);
    gist
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_gist_leaves_out_names_numbers_and_quotations() {
        for (words, expected) in [
            ("Invalid value: 'tool' at messages.3", "invalid value at messages"),
            ("Invalid value: \"assistant\" at messages.12!", "invalid value at messages"),
            ("The model `gpt-4o-mini` refuses 17 tokens", "the model refuses tokens"),
            ("This model's input is odd.", "this model input is odd"),
            ("  ", ""),
            ("42 {}", ""),
        ] {
            assert_eq!(gist(words), expected, "{words}");
        }
    }

    proptest! {
        #[test]
        fn a_gist_is_bounded_whatever_the_words(words in any::<String>(), times in 0..60_usize) {
            prop_assert!(gist(&words.repeat(times)).len() <= 400);
        }

        #[test]
        fn names_in_quotes_do_not_change_the_gist(name in "[a-z0-9-]{1,20}", other in "[a-z0-9-]{1,20}") {
            let words = |name: &str| format!("The value '{name}' is wrong: expected `{name}`");
            prop_assert_eq!(gist(&words(&name)), gist(&words(&other)));
        }
    }
}
