//! The members of a job's metadata that routes look at.

use std::sync::Arc;

/// The most characters of a member that are looked at.
pub const MOST_CHARS: i32 = 1_000;

/// Some members of a job's metadata, as texts: a text without its quotes, anything else as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The members that were looked for.
    names: Arc<[String]>,
    /// What each of them is; `None`: the job has no such member, or it is null.
    values: Vec<Option<String>>,
}

impl Metadata {
    /// The members of these names.
    #[must_use]
    pub fn new(names: Arc<[String]>, values: Vec<Option<String>>) -> Self {
        Self { names, values }
    }

    /// What a member is, where the job has it and it was looked for.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = self.names.iter().position(|known| known == name)?;
        self.values.get(place)?.as_deref()
    }

    /// Whether all these members were looked for.
    #[must_use]
    pub fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_the_job_lacks_and_one_that_was_not_looked_for_are_told_apart() {
        let names: Arc<[String]> = ["lang", "tier"].map(str::to_owned).into();
        let metadata = Metadata::new(Arc::clone(&names), vec![Some("de".to_owned()), None]);
        assert_eq!((metadata.get("lang"), metadata.get("tier"), metadata.get("other")), (Some("de"), None, None));
        assert!(metadata.covers(&names) && metadata.covers(&[]));
        assert!(!metadata.covers(&["other".to_owned()]) && !Metadata::default().covers(&names));
    }
}
