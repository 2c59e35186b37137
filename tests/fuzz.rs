//! The fuzzer's targets, fed its seeds: so they compile and run wherever the tests do. `make fuzz` goes on from here.

use std::collections::BTreeSet;
use std::path::Path;

#[allow(clippy::disallowed_methods, reason = "a crate of its own, which has no such rules")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// What a target does with bytes: it panics if something is wrong.
type Target = fn(&[u8]);

/// The targets by their names.
const TARGETS: [(&str, Target); 8] = [
    ("answer", targets::answer::run),
    ("config", targets::config::run),
    ("decode", targets::decode::run),
    ("headers", targets::headers::run),
    ("input", targets::input::run),
    ("request", targets::request::run),
    ("spool", targets::spool::run),
    ("tables", targets::tables::run),
];

/// The names of the entries of a folder of `fuzz`.
fn names(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn every_target_is_here_and_takes_its_seeds() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files: BTreeSet<String> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!((names("seeds"), names("fuzz_targets")), (known, files));
    for (name, target) in TARGETS {
        let seeds = names(&format!("seeds/{name}"));
        assert!(!seeds.is_empty(), "{name}");
        for seed in seeds {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name).join(&seed);
            let bytes = std::fs::read(path).unwrap();
            // As they are, cut short, and with a byte that is wrong.
            let last = bytes.len().saturating_sub(1);
            for at in [last, last / 2, last / 3] {
                let mut changed = bytes.clone();
                changed.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x20);
                target(&bytes[..at]);
                target(&changed);
            }
            target(&bytes);
        }
    }
}
