//! The boundaries between rooms: `docs/architecture.md` says which room imports which, and where each file is. Both are
//! read here. And every public item is documented.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

mod calls;
mod circles;
mod documented;
mod files;
mod spellings;
mod tasks;
mod width;
mod words;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// A file of the program: where it is below `src`, its text without tests, and its code, which has no comments either.
struct Source {
    path: PathBuf,
    text: String,
    code: String,
}

impl Source {
    /// The room: the first part of the path.
    fn room(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str();
        Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
    }
}

/// All of them, read once.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files_below(&src, &mut paths);
    let test_module = Regex::new(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z]+\))? )?mod (\w+);").unwrap();
    let inline_tests = Regex::new(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z]+\))? )?mod \w+ \{").unwrap();
    let texts: Vec<(PathBuf, String)> =
        paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect();
    let mut tests = Vec::new();
    for (path, text) in &texts {
        let is_root = path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
        let folder = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        tests.extend(test_module.captures_iter(text).map(|found| folder.join(&found[1])));
    }
    let is_test = |path: &Path| tests.iter().any(|test| path.with_extension("").starts_with(test));
    texts
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| {
            let end = inline_tests.find(&text).map_or(text.len(), |found| found.start());
            let text = text[..end].to_owned();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            Source { path: path.strip_prefix(&src).unwrap().to_owned(), text, code }
        })
        .collect()
}

/// The rows of the table whose head begins with this cell.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let start = format!("| {head} |");
    page.lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// The words in code quotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    let quoted = Regex::new("`([^`]+)`").unwrap();
    quoted.captures_iter(cell).map(|found| found[1].to_owned()).collect()
}

#[test]
fn a_room_imports_what_the_table_says_and_nothing_else() {
    let rows = table(&page(), "room");
    let allowed: BTreeMap<String, BTreeSet<String>> =
        rows.iter().flat_map(|row| quoted(&row[0]).into_iter().map(|room| (room, quoted(&row[2])))).collect();
    let takes_all = |room: &str| rows.iter().any(|row| row[0].contains(room) && row[2] == "all of them");
    // A list after `crate::` would say less line by line, and is not written here.
    let import = Regex::new(r"\bcrate::(\w+|\{)").unwrap();
    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if room == "lib" || room == "main" {
            continue;
        }
        let may = allowed.get(&room).unwrap_or_else(|| panic!("{room} has no row in the table of rooms"));
        let names = import.captures_iter(&source.code).map(|found| found[1].to_owned());
        for name in names.filter(|name| *name != room) {
            assert!(allowed.contains_key(&name), "{}: what is crate::{name}?", source.path.display());
            if may.contains(&name) || takes_all(&room) {
                found.insert((room.clone(), name));
            } else {
                wrong.push(format!("{} imports {name}, which {room} may not", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The test sees what there is: every permission is used, so none is there for nothing.
    for (room, names) in &allowed {
        for name in names {
            assert!(found.contains(&(room.clone(), name.clone())), "{room} may import {name}, and does not");
        }
    }
}

/// Whether a path of this file reaches out of its room by `super`. The test above sees paths that begin with `crate`.
fn climbs_out(source: &Source) -> bool {
    static CLIMBING: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?:\bsuper::)+").unwrap());
    let names = source.path.with_extension("");
    let depth = names.components().filter(|part| part.as_os_str() != "mod").count();
    CLIMBING.find_iter(&source.code).any(|found| found.as_str().matches("super").count() >= depth)
}

#[test]
fn no_path_climbs_out_of_its_room() {
    let climbing: Vec<&Path> =
        sources().iter().filter(|source| climbs_out(source)).map(|source| source.path.as_path()).collect();
    assert!(climbing.is_empty(), "they reach another room by `super`: {climbing:#?}");
    for (path, code, climbs) in [
        ("store/job.rs", "use super::Store;", false),
        ("store/job.rs", "use super::super::provider::Wire;", true),
        ("store/mod.rs", "fn f() { super::provider::f() }", true),
        ("store/lanes/walk.rs", "use super::super::Store;", false),
        ("printable.rs", "use super::store::Store;", true),
    ] {
        let source = Source { path: PathBuf::from(path), text: String::new(), code: code.to_owned() };
        assert_eq!(climbs_out(&source), climbs, "{path}: {code}");
    }
}

/// Without its first line a script is run by the shell that happens to call it.
#[test]
fn every_program_that_is_no_binary_says_what_runs_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut programs = 0;
    for folder in ["scripts", "systemd", ".ci", "packaging/debian", "tests/package"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.metadata().unwrap().permissions().mode() & 0o111 == 0 {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("#!/") && first.split(' ').count() <= 2, "{}: {first}", path.display());
            programs += 1;
        }
    }
    assert!(programs > 4, "{programs}");
}

#[test]
fn a_crate_is_named_in_its_room_only() {
    let rows = table(&page(), "crate");
    assert!(rows.len() > 3, "{rows:?}");
    let mut wrong = Vec::new();
    for (name, row) in rows.iter().flat_map(|row| quoted(&row[0]).into_iter().map(move |name| (name, row))) {
        let rooms = quoted(&row[1]);
        let but = row[1].starts_with("everywhere but in");
        let used = Regex::new(&format!(r"\b{name}::|use {name}\b")).unwrap();
        let users: BTreeSet<String> =
            sources().iter().filter(|source| used.is_match(&source.code)).map(Source::room).collect();
        assert!(!users.is_empty(), "{name} is used nowhere");
        wrong.extend(
            users
                .iter()
                .filter(|room| *room != "main" && rooms.contains(*room) == but)
                .map(|room| format!("{room} names {name}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_code_map_names_every_file_and_no_other() {
    let page = page();
    let map = page.split("\n## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut by_room: BTreeMap<String, String> = BTreeMap::new();
    for part in map.split("\n`src/").skip(1) {
        let room = part.split('`').next().unwrap();
        by_room.insert(room.to_owned(), format!("`{part}"));
    }
    let mut unnamed = Vec::new();
    let named: BTreeMap<String, BTreeSet<String>> =
        by_room.iter().map(|(room, part)| (room.clone(), quoted(part))).collect();
    for source in sources() {
        let room = source.room();
        let below = source.path.strip_prefix(&room).unwrap_or(&source.path);
        let file = below.to_str().unwrap().to_owned();
        // A file, or one of the folders that it is in.
        let folders = below.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let names: Vec<String> = folders.map(|folder| format!("{}/", folder.display())).chain([file.clone()]).collect();
        let in_room = named.get(&room).is_some_and(|part| names.iter().any(|name| part.contains(name)));
        if !in_room && !map.contains(&format!("`src/{}`", source.path.display())) {
            unnamed.push(format!("src/{}", source.path.display()));
        }
    }
    assert!(unnamed.is_empty(), "not in the code map: {unnamed:#?}");
    let mut gone = Vec::new();
    for (room, names) in &named {
        let is_path = |name: &&String| {
            Path::new(name.as_str()).extension().is_some_and(|extension| extension == "rs") || name.ends_with('/')
        };
        for name in names.iter().filter(is_path).filter(|name| !name.starts_with("tests/")) {
            let places = [root().join("src").join(room).join(name), root().join("src").join(name), root().join(name)];
            if !places.iter().any(|place| place.exists()) {
                gone.push(format!("src/{room}: {name}"));
            }
        }
    }
    assert!(gone.is_empty(), "in the code map, and nowhere else: {gone:#?}");
}
