//! The jobs that a batch has already, so that new lines of a file are told from those enqueued before.

use super::super::database::Transaction;
use super::super::{Doing, StoreError};
use super::LOOKING;
use futures_util::TryStreamExt as _;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The known state of a batch before anything is put into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchSoFar {
    /// The number of jobs that it ever had.
    pub jobs: i64,
    /// How many of them have ended.
    pub ended: i64,
    /// The routes of its jobs.
    pub routes: Vec<String>,
    /// The projects of its jobs.
    pub projects: Vec<String>,
    /// Some belong to other logins, and this one may not see them.
    pub of_others: bool,
    /// Retention has dropped jobs, perhaps some of these.
    dropped: bool,
}

impl BatchSoFar {
    pub(super) async fn read(transaction: &mut Transaction, batch: &str) -> Result<Self, StoreError> {
        sqlx::query_as!(
            Self,
            r#"select coalesce(jobs, 0) as "jobs!", coalesce(ended, 0) as "ended!", coalesce(routes, '{}') as "routes!",
                      coalesce(projects, '{}') as "projects!", coalesce(of_others, false) as "of_others!",
                      coalesce(dropped, false) as "dropped!"
                 from sluice.batch_standing($1)"#,
            batch
        )
        .fetch_one(transaction)
        .await
        .doing(LOOKING)
    }

    /// How many of its jobs are no longer kept, so that their lines cannot be recognised.
    pub(super) fn lost(&self, presence: &Presence) -> i64 {
        if self.dropped { (self.jobs - presence.jobs).max(0) } else { 0 }
    }
}

/// The relation of a line of a file to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The batch does not have the line.
    New,
    /// The batch has the line.
    Same,
    /// The batch has other content under this custom id.
    Changed,
}

/// The jobs of a batch, in the form in which the lines of a file are compared with them. Takes about 35 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Presence {
    jobs: i64,
    /// 128 bits of a hash of each custom id: the chance that two among ten million are confused is below 10⁻²⁴.
    named: HashSet<u128>,
    /// For jobs without a custom id: how many have the same digest and are not yet matched.
    unnamed: HashMap<Vec<u8>, u32>,
    /// The digests of some of the jobs with a custom id; of all of them where lines take the place of jobs.
    sample: HashMap<u128, Vec<u8>>,
    /// Whether a line with other content under a custom id that is there is a new line.
    replaces: bool,
}

impl Presence {
    pub(super) async fn read(transaction: &mut Transaction, batch: &str) -> Result<Self, StoreError> {
        let mut presence = Self::default();
        let mut rows = sqlx::query!("select custom_id, digest from sluice.batch_lines($1)", batch).fetch(transaction);
        while let Some(row) = rows.try_next().await.doing(LOOKING)? {
            presence.jobs += 1;
            if let Some(custom_id) = row.custom_id {
                let name = hash(&custom_id);
                presence.named.insert(name);
                if let Some(digest) = row.digest {
                    presence.sample.insert(name, digest);
                }
            } else if let Some(digest) = row.digest {
                *presence.unnamed.entry(digest).or_default() += 1;
            }
        }
        Ok(presence)
    }

    /// The jobs whose lines are not asked again although the file takes the place of the waiting jobs: those that were
    /// answered, have failed, or are in the hands of workers. Of several jobs of one custom id the last one counts.
    pub(super) async fn read_kept(transaction: &mut Transaction, batch: &str) -> Result<Self, StoreError> {
        let mut presence = Self { replaces: true, ..Self::default() };
        let mut rows = sqlx::query!(
            r#"select custom_id, digest as "digest!", is_kept as "is_kept!" from sluice.batch_lines_kept($1)"#,
            batch
        )
        .fetch(transaction);
        while let Some(row) = rows.try_next().await.doing(LOOKING)? {
            presence.jobs += 1;
            match row.custom_id {
                _ if !row.is_kept => {}
                Some(custom_id) => {
                    let name = hash(&custom_id);
                    presence.named.insert(name);
                    presence.sample.insert(name, row.digest);
                }
                None => *presence.unnamed.entry(row.digest).or_default() += 1,
            }
        }
        Ok(presence)
    }

    /// Whether the digest of a line is needed to compare it.
    pub(super) fn compares_content(&self, custom_id: Option<&str>) -> bool {
        match custom_id {
            Some(custom_id) => !self.sample.is_empty() && self.sample.contains_key(&hash(custom_id)),
            None => !self.unnamed.is_empty(),
        }
    }

    /// Compares a line with the batch. Without a name each job is matched with one line only: two equal lines are two
    /// jobs.
    pub(super) fn look_up(&mut self, custom_id: Option<&str>, digest: Option<&[u8]>) -> Match {
        let Some(custom_id) = custom_id else {
            let left = digest.and_then(|digest| self.unnamed.get_mut(digest)).filter(|left| **left > 0);
            return left.map_or(Match::New, |left| {
                *left -= 1;
                Match::Same
            });
        };
        let name = hash(custom_id);
        match (self.named.contains(&name), digest, self.sample.get(&name)) {
            (false, ..) => Match::New,
            (true, Some(digest), Some(known)) if digest != known.as_slice() => {
                if self.replaces {
                    Match::New
                } else {
                    Match::Changed
                }
            }
            (true, ..) => Match::Same,
        }
    }
}

fn hash(custom_id: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, custom_id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_equal_lines_are_matched_with_two_jobs_and_no_more() {
        let mut presence = Presence::default();
        presence.unnamed.insert(b"a".to_vec(), 2);
        let mut look_up = |digest: &[u8]| presence.look_up(None, Some(digest));
        assert_eq!(
            [b"a", b"a", b"a", b"b"].map(|digest| look_up(digest)),
            [Match::Same, Match::Same, Match::New, Match::New]
        );
    }

    #[test]
    fn a_name_is_known_whatever_its_line_says_now_and_a_change_is_told() {
        let mut presence = Presence { named: HashSet::from([hash("q-1"), hash("q-2")]), ..Presence::default() };
        presence.sample.insert(hash("q-1"), b"a".to_vec());
        for (custom_id, digest, expected) in [
            ("q-1", Some(&b"a"[..]), Match::Same),
            ("q-1", Some(b"b"), Match::Changed),
            ("q-2", None, Match::Same),
            ("q-3", None, Match::New),
        ] {
            assert_eq!(presence.compares_content(Some(custom_id)), digest.is_some(), "{custom_id}");
            assert_eq!(presence.look_up(Some(custom_id), digest), expected, "{custom_id}");
        }
        assert!(!presence.compares_content(None), "there is nothing to compare it with");
    }

    #[test]
    fn jobs_are_lost_only_where_retention_has_dropped_some() {
        let presence = Presence { jobs: 3, ..Presence::default() };
        let so_far = |jobs, dropped| BatchSoFar { jobs, dropped, ..BatchSoFar::default() };
        // A job that was inserted between the two looks is not lost.
        for (jobs, dropped, lost) in [(5, true, 2), (5, false, 0), (3, true, 0), (2, true, 0)] {
            assert_eq!(so_far(jobs, dropped).lost(&presence), lost);
        }
    }
}
