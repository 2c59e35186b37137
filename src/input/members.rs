//! Members of a line's request that no known provider takes, reported once for all lines that have them.

use crate::domain::request::{is_known_member, is_known_of_embeddings, near_known_member};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A note for the author of a member. It is no fault: vendors have members of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberNote {
    /// A request has the member, and no provider is known to take it: it is sent as it is.
    Unknown(String),
    /// A line with `prompt` has the member, and it looks like a slip: it went into the job's metadata.
    Slip(String),
    /// A line with `prompt` has the member beside a metadata of the same name, which stays as it is.
    Doubled(String),
    /// A row of a table has nothing in a column that its template names.
    Empty(String),
}

/// Names longer than this are cut.
const LONGEST_NAME: usize = 60;

fn shortened(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

impl MemberNote {
    /// The member's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown(name) | Self::Slip(name) | Self::Doubled(name) | Self::Empty(name) => name,
        }
    }

    /// The note on a column that its row leaves empty.
    pub(super) fn empty(name: &str) -> Self {
        Self::Empty(shortened(name))
    }

    /// The notes on a body that is sent.
    pub(super) fn of_body(body: &Map<String, Value>) -> Vec<Self> {
        let is_embeddings = body.contains_key("input") && !body.contains_key("messages");
        let is_known = |name: &str, value: &Value| {
            if is_embeddings { is_known_of_embeddings(name) } else { is_known_member(name, value) }
        };
        let unknown = body.iter().filter(|(name, value)| !is_known(name, value));
        unknown.map(|(name, _)| Self::Unknown(shortened(name))).collect()
    }

    /// The note on a member that became metadata, if there is one.
    pub(super) fn of_metadata(name: &str, is_doubled: bool) -> Option<Self> {
        if is_doubled {
            return Some(Self::Doubled(shortened(name)));
        }
        near_known_member(name).map(|_| Self::Slip(shortened(name)))
    }
}

/// The end of a sentence that begins with how many lines have the member.
impl fmt::Display for MemberNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = match near_known_member(self.name()) {
            Some(near) => format!(" (perhaps `{near}` is meant)"),
            None => String::new(),
        };
        match self {
            Self::Unknown(name) => {
                write!(
                    f,
                    "`{name}`, which no provider is known to take{near}: it is sent unchanged. Members of your "
                )?;
                f.write_str("own belong into `metadata`")
            }
            Self::Slip(name) => write!(f, "`{name}`, which is no parameter{near}: it went into the job's metadata"),
            Self::Empty(name) => write!(f, "nothing in the column `{name}`, which the template names"),
            Self::Doubled(name) => {
                write!(f, "`{name}` twice, beside `prompt` and in `metadata`: the one in `metadata` was kept")
            }
        }
    }
}

/// The notes on all lines of a file.
#[derive(Debug, Default)]
pub struct MemberNotes {
    /// For each note: how many lines it applies to, and the first of them.
    told: BTreeMap<MemberNote, (u64, u64)>,
    /// Kinds of notes beyond the bound.
    more: u64,
}

impl MemberNotes {
    /// How many kinds are told apart: a file whose lines all have names of their own must not be kept in memory.
    const MOST: usize = 20;

    /// Adds the notes on a line.
    pub fn add(&mut self, line: u64, notes: &[MemberNote]) {
        for note in notes {
            if let Some((lines, _)) = self.told.get_mut(note) {
                *lines = lines.saturating_add(1);
            } else if self.told.len() < Self::MOST {
                self.told.insert(note.clone(), (1, line));
            } else {
                self.more = self.more.saturating_add(1);
            }
        }
    }

    /// A sentence for each note.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<String> = self
            .told
            .iter()
            .map(|(note, (lines, first))| match lines {
                1 => format!("line {first} has {note}"),
                _ => format!("{lines} lines, the first of them {first}, have {note}"),
            })
            .collect();
        if self.more > 0 {
            sentences.push(format!("{} more members like these are not told one by one", self.more));
        }
        sentences
    }

    /// The members that are sent although no provider is known to take them, and how many lines have each.
    #[must_use]
    pub fn unknown(&self) -> BTreeMap<&str, u64> {
        let unknown = self.told.iter().filter_map(|(note, (lines, _))| match note {
            MemberNote::Unknown(name) => Some((name.as_str(), *lines)),
            MemberNote::Slip(_) | MemberNote::Doubled(_) | MemberNote::Empty(_) => None,
        });
        unknown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_told_once_with_the_number_of_its_lines() {
        let unknown = |name: &str| MemberNote::Unknown(name.to_owned());
        let mut notes = MemberNotes::default();
        notes.add(3, &[unknown("review_id"), unknown("temprature")]);
        notes.add(5, &[unknown("review_id"), MemberNote::Slip("max_token".to_owned())]);
        assert_eq!(
            notes.sentences(),
            [
                "2 lines, the first of them 3, have `review_id`, which no provider is known to take: it is sent \
                 unchanged. Members of your own belong into `metadata`",
                "line 3 has `temprature`, which no provider is known to take (perhaps `temperature` is meant): it is \
                 sent unchanged. Members of your own belong into `metadata`",
                "line 5 has `max_token`, which is no parameter (perhaps `max_tokens` is meant): it went into the job's \
                 metadata",
            ]
        );
        assert_eq!(notes.unknown(), BTreeMap::from([("review_id", 2), ("temprature", 1)]));
    }

    #[test]
    fn a_file_of_ever_new_names_does_not_grow_the_list() {
        let mut notes = MemberNotes::default();
        for line in 1..=1_000 {
            notes.add(line, &[MemberNote::Unknown(format!("column_{line}"))]);
        }
        assert_eq!(notes.sentences().len(), MemberNotes::MOST + 1);
        assert!(notes.sentences()[MemberNotes::MOST].starts_with("980 more"));
    }
}
