//! Calls that only a few files may make. The rooms that have a clock are allowed the clock's calls as a whole
//! (`src/lib.rs`); here each of those calls has the files that need it.

use super::{files_below, root, sources};
use regex::Regex;
use std::collections::BTreeSet;

/// A call, why it is rare, and the files that may make it.
const RARE: [(&str, &str, &[&str]); 7] = [
    (
        r"\bio::std(?:out|err)\b",
        "printable makes hidden characters visible, the log has none",
        &["printable.rs", "printable/progress.rs"],
    ),
    (r"\b(?:e?print(?:ln)?|dbg)!", "printable makes hidden characters visible", &[]),
    (
        r"\bRandomState::new\b",
        "chance is a hash of ids, but for a process that tells itself from another one",
        &["store/claim.rs", "worker/start.rs"],
    ),
    (
        r"\b(?:SystemTime|Utc|Local)::now\b",
        "a queue goes by the clock of the database (`worker::clock`), which all machines share",
        &[
            // What a user says of times on this machine, and what files are called.
            "cli/enqueue.rs",
            "cli/trial.rs",
            "telemetry.rs",
            // Prices by the clock, where no database is asked.
            "cli/today.rs",
            // Against another machine's clock: dates of headers, the database's own, replicas that are behind.
            "provider/client.rs",
            "store/database/other_end.rs",
            "store/doctor.rs",
            // The provider that it plays is another machine.
            "simulate/call.rs",
            "simulate/core.rs",
        ],
    ),
    (r"\bthread::sleep\b", "a thread that sleeps drives nothing else", &[]),
    (r"\bprocess::exit\b", "it runs no destructor: only a second signal may do that", &["shutdown.rs"]),
    (r"\benv::set_var\b", "other threads read the environment", &[]),
];

#[test]
fn a_call_is_made_only_where_it_may_be() {
    let sources = sources();
    for (pattern, why, files) in RARE {
        let call = Regex::new(pattern).unwrap();
        let found: BTreeSet<&str> = sources
            .iter()
            .filter(|source| call.is_match(&source.code))
            .map(|source| source.path.to_str().unwrap())
            .collect();
        assert_eq!(found, files.iter().copied().collect(), "{pattern}: {why}");
    }
}

/// A test that sleeps on the real clock is slow where it passes, and fails on a busy machine.
#[test]
fn no_test_beside_the_code_sleeps_on_the_real_clock() {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    let sources = sources();
    let mut sleeping = 0;
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let below = path.strip_prefix(root().join("src")).unwrap();
        let program = sources.iter().find(|source| source.path == below).map_or(0, |source| source.text.len());
        let tests = &text[program..];
        if tests.contains("time::sleep(") {
            assert!(tests.contains("start_paused = true"), "{}: a test sleeps in real time", below.display());
            sleeping += 1;
        }
    }
    assert!(sleeping > 0, "tests are seen");
}
