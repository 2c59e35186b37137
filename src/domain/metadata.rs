//! The members of a job's metadata that routes look at.

use super::raw_object::RawObject;
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

    /// The same of an object of JSON, as the database finds them in it.
    #[must_use]
    pub fn of_text(names: &Arc<[String]>, object: &str) -> Self {
        let object = RawObject::read(object).unwrap_or_default();
        let most = usize::try_from(MOST_CHARS).unwrap_or(usize::MAX);
        let value = |name: &String| {
            let written = object.given(name)?;
            let text = serde_json::from_str::<String>(written).unwrap_or_else(|_| written.to_owned());
            Some(text.chars().take(most).collect())
        };
        Self { values: names.iter().map(value).collect(), names: Arc::clone(names) }
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
        assert_eq!(Metadata::of_text(&names, r#"{"lang":"de","tier":null,"other":1}"#), metadata);
        assert_eq!(Metadata::of_text(&names, r#"{"tier":1.5}"#).get("tier"), Some("1.5"));
        assert!(Metadata::of_text(&names, "no object").covers(&names));
        assert!(!metadata.covers(&["other".to_owned()]) && !Metadata::default().covers(&names));
    }
}
