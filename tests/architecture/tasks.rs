//! No task is started out of sight: docs/architecture.md lists the files that start tasks of their own, and what
//! follows when one of these ends.

use super::{page, quoted, sources, table};
use regex::Regex;
use std::collections::BTreeSet;

#[test]
fn the_files_that_start_tasks_are_listed_with_what_follows_when_one_ends() {
    let rows = table(&page(), "starts tasks");
    assert!(rows.iter().all(|row| row.len() == 3 && !row[2].is_empty()), "{rows:?}");
    let listed: BTreeSet<String> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let starts =
        Regex::new(r"tokio::spawn\(|thread::spawn\(|thread::Builder|\bJoinSet\b|\b(?:tasks|runtime|handle)\.spawn\(")
            .unwrap();
    let found: BTreeSet<String> = sources()
        .iter()
        .filter(|source| starts.is_match(&source.code))
        .map(|source| source.path.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, listed);
}
