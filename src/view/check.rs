//! The result of checking a configuration.

use super::dollars::Dollars;
use serde::Serialize;
use std::collections::BTreeMap;

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum CheckView<'a> {
    /// It cannot be read.
    Faulty {
        /// Always false.
        ok: bool,
        /// Everything that is wrong with it.
        faults: Vec<FaultView<'a>>,
    },
    /// It can be read.
    Read {
        /// Whether a worker would start with it.
        ok: bool,
        /// The file; `None`: the configuration is in variables alone.
        file: Option<String>,
        /// The names of its providers.
        providers: Vec<&'a str>,
        /// Its routes by name.
        routes: BTreeMap<&'a str, RungsView>,
        /// Settings that are probably not meant so.
        warnings: &'a [String],
        /// Settings that a worker lacks to start.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        faults: Vec<FaultView<'a>>,
        /// The outcomes of one call with every key and model, if they were made.
        #[serde(skip_serializing_if = "Option::is_none")]
        online: Option<&'a [TriedView]>,
    },
}

/// The outcome of one call that tried a key and a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedView {
    /// `provider/model`.
    pub target: String,
    /// The name of the key, as its variable, file or credential has it; `None`: the provider has no key.
    pub key: Option<String>,
    /// The class of the failure; `None`: it was answered.
    pub class: Option<String>,
    /// Whether the failure lies in the configuration: in the key, in the model, in what the account may do.
    pub is_refused: bool,
    /// HTTP status, if an answer came.
    pub http_status: Option<u16>,
    /// The provider's own words, or ours when it was not reached.
    pub message: Option<String>,
    /// What to do about the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// Milliseconds from the start of the call to its end.
    pub total_ms: i64,
    /// Dollars; `None`: unknown.
    pub cost: Option<Dollars>,
}

impl TriedView {
    /// Whether the call was answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.class.is_none()
    }
}

/// What the probes of one provider have shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProviderProbeView {
    /// The name of the provider.
    pub provider: String,
    /// Whether everything that was asked was answered well.
    pub ok: bool,
    /// The page that workers ask, where one is configured.
    pub page: Option<ProbedPageView>,
    /// One call with each key and model.
    pub calls: Vec<TriedView>,
    /// What live workers hold back all the same; `None`: it is not known, because no database was reached.
    pub held_back: Option<Vec<HeldBackView>>,
}

/// The answer of a health page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbedPageView {
    /// Its path.
    pub path: String,
    /// Whether its status was one from 200 to 299.
    pub ok: bool,
    /// HTTP status, if an answer came.
    pub http_status: Option<u16>,
    /// What the server said, or why there was no answer.
    pub message: Option<String>,
    /// Milliseconds from the start of the question to its end.
    pub total_ms: i64,
}

/// A target or a key that live workers do not call for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBackView {
    /// `provider/model`; `None`: a key.
    pub target: Option<String>,
    /// The name of the key; `None`: a target.
    pub key: Option<String>,
    /// Why, as [`Reason`](crate::domain::Reason) spells it.
    pub reason: String,
    /// The same in words.
    pub words: String,
    /// What ends it.
    pub advice: Option<String>,
}

/// The targets of a route, as they are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RungsView {
    /// `provider/model`.
    pub rungs: Vec<String>,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FaultView<'a> {
    /// The file, or the environment.
    pub place: &'a str,
    /// The full path of the key; empty when the whole file is meant.
    pub key: &'a str,
    /// The fault, in words.
    pub problem: &'a str,
    /// The expected value; may be empty.
    pub expected: &'a str,
}
