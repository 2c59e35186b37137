//! The list of the files in folders of rooms, in docs/architecture.md: what each of them says of itself in its first
//! sentence. `make config` writes it.

use super::{Source, root, sources};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Between these lines of the page the list stands.
const ENDS: [&str; 2] = ["<!-- The list of files, by make config -->\n", "<!-- The end of the list of files -->\n"];

/// The first sentence of a file's documentation.
fn first_sentence(text: &str) -> String {
    let said = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = said.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    // A full stop before a small letter is part of an abbreviation or of a name.
    let ends = paragraph.match_indices(". ").map(|(at, _)| at);
    let end = ends.into_iter().find(|at| !paragraph[at + 2..].starts_with(|next: char| next.is_ascii_lowercase()));
    end.map_or(paragraph.as_str(), |end| &paragraph[..end]).trim_end_matches('.').replace('|', "\\|")
}

/// The list, as the files have it.
fn list(sources: &[Source]) -> String {
    let mut folders: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.components().count() > 2) {
        let folder = source.path.parent().unwrap().to_str().unwrap().to_owned();
        let name = source.path.file_name().unwrap().to_str().unwrap().to_owned();
        folders.entry(folder).or_default().insert(name, first_sentence(&source.text));
    }
    let mut list = String::new();
    for (folder, files) in &folders {
        writeln!(list, "\n`src/{folder}/`\n\n| file | what |\n|---|---|").unwrap();
        for (name, what) in files {
            writeln!(list, "| `{name}` | {what} |").unwrap();
        }
    }
    list.push('\n');
    list
}

#[test]
fn the_files_in_folders_are_listed_with_what_they_say_of_themselves() {
    let sources = sources();
    let silent: Vec<_> = sources.iter().filter(|source| first_sentence(&source.text).is_empty()).collect();
    assert!(silent.is_empty(), "without a first sentence: {:?}", silent.iter().map(|s| &s.path).collect::<Vec<_>>());
    let path = root().join("docs/architecture.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(ENDS[0]).expect("the page has the list");
    let (listed, after) = rest.split_once(ENDS[1]).expect("the list has an end");
    let list = list(sources);
    if std::env::var_os("SLUICE_WRITE_LIST_OF_FILES").is_some() {
        std::fs::write(&path, [before, ENDS[0], &list, ENDS[1], after].concat()).unwrap();
    } else {
        assert!(listed == list, "docs/architecture.md lists other files, or says other things of them: make config");
    }
}

#[test]
fn the_first_sentence_is_found() {
    for (text, sentence) in [
        ("//! One. Two.\nuse x;", "One"),
        ("//! Of a line\n//! and the next: `a.b`. Two.\n//!\n//! Three.", "Of a line and the next: `a.b`"),
        ("//! From e.g. this. That", "From e.g. this"),
        ("use x;\n//! No", ""),
    ] {
        assert_eq!(first_sentence(text), sentence);
    }
}
