//! Statements name the words of the domain by literals, because a literal lets the planner use an index. Each such word
//! is one that the domain knows.

use super::root;
use regex::Regex;
use sluice::domain::abandonment::Abandonment;
use sluice::domain::pause::{FixedWait, PauseKind};
use sluice::domain::{ErrorClass, SoftFailure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn files_with_statements(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with_statements(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            into.push(path);
        }
    }
}

#[test]
fn words_in_statements_are_words_of_the_domain() {
    let mut files = Vec::new();
    files_with_statements(&root().join("src/store"), &mut files);
    // The function that says what jobs wait for is a part of the schema.
    files.push(root().join("migrations/0021_why_nothing_moves.sql"));
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let abandonments = Abandonment::ALL.map(Abandonment::as_str).to_vec();
    let mut details = abandonments.clone();
    details.extend(SoftFailure::ALL.iter().map(|kind| kind.as_str()));
    let kinds = PauseKind::ALL.map(PauseKind::as_str).to_vec();
    let waits = FixedWait::ALL.map(FixedWait::as_str).to_vec();
    let classes: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
    for (pattern, known) in [
        (r"book_open_call\([^,()]+, '([a-z_]+)'\)", &abandonments),
        (r"\bdetail = '([a-z_]+)'", &details),
        (r"\bp\.kind = '([a-z_]+)'", &kinds),
        (r"'([a-z]+ paused)'", &waits),
        (r"\breason not in \('([a-z]+)', '[a-z]+'\)", &waits),
        (r"\breason not in \('[a-z]+', '([a-z]+)'\)", &waits),
        (r"\b(?:error_)?class = '([a-z_]+)'", &classes),
    ] {
        let pattern = Regex::new(pattern).unwrap();
        let words = texts.iter().flat_map(|text| pattern.captures_iter(text).map(|found| found[1].to_owned()));
        let found: BTreeSet<String> = words.collect();
        assert!(!found.is_empty(), "{pattern} finds nothing any more");
        let unknown: Vec<_> = found.iter().filter(|word| !known.contains(&word.as_str())).collect();
        assert!(unknown.is_empty(), "{pattern}: {unknown:?} are no words of the domain: {known:?}");
    }
}
