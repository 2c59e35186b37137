//! The result of checking a configuration.

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
    },
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
