//! A configuration file; what stands behind a NUL in it is a variable's value.

use sluice::config::{Config, Keys};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A configuration file; what stands behind a NUL in it is a variable's value.
pub fn run(data: &[u8]) {
    let (file, variable) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    let path = FOLDER.path().join("sluice.toml");
    std::fs::write(&path, file).unwrap();
    let mut environment = BTreeMap::new();
    if let Ok(text) = std::str::from_utf8(variable)
        && let Some((name, value)) = text.split_once('=')
    {
        environment.insert(format!("SLUICE__{name}"), value.to_owned());
    }
    match Config::load_with(Some(&path), environment, Keys::Ignored) {
        Ok(config) => {
            let _ = config.require_providers();
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}
