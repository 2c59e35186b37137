//! A number that stands for a text, to tell it from others quickly. It is no secret and outlives no process: someone
//! who wants two texts to have the same number can make them so.

/// The number of several texts, one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fingerprint(u64);

/// Two numbers without a pattern.
const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

/// The number of one text.
#[must_use]
pub fn fingerprint(text: &str) -> u64 {
    let mut fingerprint = Fingerprint::default();
    fingerprint.take(text);
    fingerprint.number()
}

impl Fingerprint {
    /// Adds a text. Its length counts too, so that texts cannot flow into each other.
    pub fn take(&mut self, text: &str) {
        let (words, rest) = text.as_bytes().as_chunks::<16>();
        for word in words {
            self.mix(u128::from_le_bytes(*word));
        }
        let mut last = [0; 16];
        last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        self.mix(u128::from_le_bytes(last));
        self.mix(text.len() as u128);
    }

    /// The number so far.
    #[must_use]
    pub fn number(self) -> u64 {
        let mut last = self;
        last.mix(0);
        last.0
    }

    /// The product of two halves, with both of its own halves folded into one: each bit of the word reaches all others.
    fn mix(&mut self, word: u128) {
        let (low, high) = halves(word);
        let (low, high) =
            halves(u128::from(low ^ self.0 ^ KEYS[0]) * u128::from(high ^ self.0.rotate_left(32) ^ KEYS[1]));
        self.0 = (low ^ high).wrapping_add(KEYS[0]);
    }
}

fn halves(word: u128) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let low = word as u64;
    #[expect(clippy::cast_possible_truncation, reason = "the upper half")]
    let high = (word >> 64) as u64;
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_that_differ_anywhere_have_different_numbers() {
        let text = "The quick brown fox jumps over the lazy dog, again and again and again.";
        let mut seen = HashSet::from([fingerprint(text)]);
        for at in 0..text.len() {
            for other in ["x", "y", ""] {
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, other);
                assert!(changed == text || seen.insert(fingerprint(&changed)) || changed.len() < text.len(), "{at}");
            }
            seen.insert(fingerprint(&text[..at]));
        }
        assert!(seen.len() > 200, "{}", seen.len());
        assert_eq!(fingerprint(text), fingerprint(&text.to_owned()));
    }

    #[test]
    fn texts_do_not_flow_into_each_other() {
        let of = |texts: &[&str]| {
            let mut all = Fingerprint::default();
            texts.iter().for_each(|text| all.take(text));
            all.number()
        };
        let all = [of(&[]), of(&[""]), of(&["", ""]), of(&["ab"]), of(&["a", "b"]), of(&["b", "a"]), of(&["ab", ""])];
        assert_eq!(HashSet::from(all).len(), all.len());
    }

    #[test]
    fn many_short_texts_have_a_number_each() {
        let all: HashSet<u64> = (0..100_000).map(|number: u32| fingerprint(&number.to_string())).collect();
        assert_eq!(all.len(), 100_000);
    }
}
