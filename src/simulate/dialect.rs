//! The registry of dialects: which APIs the simulator speaks.
//!
//! Each dialect is a file in `dialect/` and a line in [`Dialect::ALL`]. They are the provider's side, written from the
//! providers' documentation and without a look at Sluice's own adapters, so that each side checks the other.

mod anthropic;
mod gemini;
mod openai;

use super::api::Api;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::sync::LazyLock;

/// An API that the simulator speaks: one of [`Dialect::ALL`].
#[derive(Clone, Copy)]
pub struct Dialect(&'static dyn Api);

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[Self(&openai::Openai), Self(&anthropic::Anthropic), Self(&gemini::Gemini)];

    /// The dialect with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.name() == name)
    }

    /// The name in scenarios and in the verdict.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// What follows the simulator's address and the provider's name in the `base_url` to configure.
    #[must_use]
    pub fn base_path(self) -> &'static str {
        self.0.base_path()
    }

    /// What the dialect does.
    pub(crate) fn api(self) -> &'static dyn Api {
        self.0
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Dialect {}

impl Serialize for Dialect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Dialect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static NAMES: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| Dialect::ALL.iter().map(|dialect| dialect.name()).collect());
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| de::Error::unknown_variant(&name, &NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{Answer, Call, Finish, Problem, Usage};
    use super::super::wait::Told;
    use super::*;
    use hyper::HeaderMap;
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn every_dialect_has_a_name_of_its_own_by_which_it_is_found() {
        let names: BTreeSet<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
        assert_eq!(names.len(), Dialect::ALL.len(), "{names:?}");
        for dialect in Dialect::ALL {
            let name = dialect.name();
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(Dialect::named(name), Some(*dialect));
            assert_eq!(serde_json::to_value(dialect).unwrap(), name);
            assert_eq!(serde_json::from_value::<Dialect>(name.into()).unwrap(), *dialect);
        }
        assert_eq!(Dialect::named("openia"), None);
    }

    #[test]
    fn every_dialect_keeps_what_the_rest_of_the_simulator_takes_for_granted() {
        for dialect in Dialect::ALL {
            let api = dialect.api();
            assert_ne!(api.request_id(1, 1), api.request_id(1, 2), "{dialect:?}");
            assert_ne!(api.request_id(1, 1), api.request_id(2, 1), "{dialect:?}");
            let call = Call { path: "/", query: None, headers: &HeaderMap::new(), body: b"{}" };
            assert_eq!(api.key(&call), None, "{dialect:?}: a call without a header shows no key");
            assert!(api.read(&call).is_err_and(|problem| problem.is_malformed()), "{dialect:?}");
            let id = api.request_id(7, 7);
            for finish in [Finish::Stop, Finish::Length, Finish::Filtered, Finish::Refused, Finish::Nothing] {
                let usage = Some(Usage { input: 1, output: 2 });
                let written = api.write(&Answer { id: &id, created: 1, model: "m", text: "a \"word\"", finish, usage });
                let body: serde_json::Value = serde_json::from_slice(&written).unwrap();
                assert!(body.is_object(), "{dialect:?}: a huge body is padded behind the first brace");
            }
            assert!(api.fail(&Problem::ServerError(502), &Told::default(), "m", &id).status == 502, "{dialect:?}");
            let wait = Duration::from_millis(1_500);
            assert!(api.tell(wait, UNIX_EPOCH).wait.is_some_and(|told| told >= wait), "{dialect:?}");
        }
    }
}
