//! The line on which each `custom_id` was found.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Keeps 96 bits of a hash and the line for each `custom_id`, regardless of its length: 16 bytes, and about 35 with the
/// table's free room and its growth. Among ten million names the chance that two different ones are taken for the same
/// is below 10⁻¹⁴.
#[derive(Debug, Default)]
pub(super) struct CustomIds {
    lines: HashMap<[u32; 3], u32>,
}

impl CustomIds {
    /// Notes that `custom_id` is on `line`; returns the line that had it before.
    pub(super) fn note(&mut self, custom_id: &str, line: u64) -> Option<u64> {
        // Beyond four billion lines the number in a message is wrong; the finding is not.
        let number = u32::try_from(line).unwrap_or(u32::MAX);
        match self.lines.entry(key(custom_id)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(u64::from(*first.get())),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(number);
                None
            }
        }
    }
}

fn key(custom_id: &str) -> [u32; 3] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, custom_id).hash(&mut hasher);
        hasher.finish()
    };
    let (first, second) = (half(0), half(1));
    #[expect(clippy::cast_possible_truncation, reason = "each takes 32 bits of a hash")]
    [first as u32, (first >> 32) as u32, second as u32]
}
