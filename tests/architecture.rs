//! The walls of the house: `docs/architecture.md` says which room imports what, and where each file is. Both are read
//! here.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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

/// A file of the program: where it is below `src`, and its code without comments and without tests.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    /// The room: the first part of the path.
    fn room(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str();
        Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
    }
}

fn sources() -> Vec<Source> {
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
            let code = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
            Source { path: path.strip_prefix(&src).unwrap().to_owned(), code: code.collect::<Vec<_>>().join("\n") }
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

/// What stands in code quotes.
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

#[test]
fn a_crate_is_named_in_its_room_only() {
    let rows = table(&page(), "crate");
    assert!(rows.len() > 3, "{rows:?}");
    let mut wrong = Vec::new();
    for row in rows {
        let name = quoted(&row[0]).pop_first().unwrap();
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

/// The rooms inside of which no file imports another that imports it back, by whatever way round.
const WITHOUT_CIRCLES: &[&str] = &["provider"];

/// Every path that a `use` tree stands for, without names that are given to them.
fn paths_of(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inside[start..at].trim();
                start = at + 1;
                let parts = if part.is_empty() { Vec::new() } else { paths_of(part) };
                paths.extend(parts.into_iter().map(|path| format!("{}{path}", prefix.trim())));
            }
            _ => {}
        }
    }
    paths
}

/// What a file of a room imports from the room: for each path, the file of the innermost module that it names.
fn imports_within(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let of_file = module_of(&source.path);
    let parent = |module: &str| module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
    let uses = Regex::new(r"(?s)\buse ([^;]+);").unwrap();
    let inline = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+").unwrap();
    let mut paths: Vec<String> =
        uses.captures_iter(&source.code).flat_map(|found| paths_of(&found[1].replace('\n', " "))).collect();
    // Not who may see it (`pub(in crate::room)`).
    let visibility = Regex::new(r"pub\(in [\w:]+\)").unwrap();
    let code = visibility.replace_all(&source.code, "");
    paths.extend(inline.find_iter(&uses.replace_all(&code, "")).map(|found| found.as_str().to_owned()));
    let mut imports = BTreeSet::new();
    for path in paths {
        let mut base = of_file.clone();
        let mut rest = path.as_str();
        if let Some(after) = rest.strip_prefix("crate::") {
            (base, rest) = (String::new(), after);
        } else {
            rest = rest.strip_prefix("self::").unwrap_or(rest);
            while let Some(after) = rest.strip_prefix("super::") {
                (base, rest) = (parent(&base), after);
            }
        }
        let mut module = base;
        for name in rest.split("::") {
            let inner = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
            if !modules.contains(&inner) {
                break;
            }
            module = inner;
        }
        if module != of_file && modules.contains(&module) {
            imports.insert(module);
        }
    }
    imports
}

/// `provider/openai/mod.rs` is `provider::openai`.
fn module_of(path: &Path) -> String {
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap().trim_end_matches(".rs")).collect();
    names.join("::").trim_end_matches("::mod").to_owned()
}

#[test]
fn no_file_of_these_rooms_imports_itself_by_way_of_others() {
    let sources = sources();
    for room in WITHOUT_CIRCLES {
        let in_room: Vec<&Source> = sources.iter().filter(|source| source.room() == *room).collect();
        assert!(!in_room.is_empty(), "there is no room {room}");
        let modules: BTreeSet<String> = in_room.iter().map(|source| module_of(&source.path)).collect();
        let mut left: BTreeMap<String, BTreeSet<String>> =
            in_room.iter().map(|source| (module_of(&source.path), imports_within(source, &modules))).collect();
        assert!(left.values().any(|imports| !imports.is_empty()), "nothing of {room} imports anything");
        // What imports nothing that is left is in no circle.
        loop {
            let free: Vec<String> =
                left.iter().filter(|(_, imports)| imports.is_empty()).map(|(module, _)| module.clone()).collect();
            if free.is_empty() {
                break;
            }
            left.retain(|module, _| !free.contains(module));
            for imports in left.values_mut() {
                imports.retain(|import| !free.contains(import));
            }
        }
        assert!(left.is_empty(), "these import each other in circles, or what does: {left:#?}");
    }
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let modules: BTreeSet<String> =
        ["room", "room::a", "room::a::b", "room::c"].into_iter().map(str::to_owned).collect();
    let of = |path: &str, code: &str| {
        let source = Source { path: PathBuf::from(path), code: code.to_owned() };
        imports_within(&source, &modules).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of("room/c.rs", "use super::a::{self, b::Thing as Other, X};"), ["room::a", "room::a::b"]);
    assert_eq!(of("room/c.rs", "use crate::room::{\n    a::Y,\n};"), ["room::a"]);
    assert_eq!(of("room/a.rs", "mod b;\nuse b::Thing;\nuse crate::other::c::Z;"), ["room::a::b"]);
    assert_eq!(of("room/a/b.rs", "fn f() { super::g(); crate::room::c::h(); }"), ["room::a", "room::c"]);
    assert_eq!(of("room/a/mod.rs", "pub(super) fn f() {}\nuse super::Thing;"), ["room"]);
    assert_eq!(of("room/a.rs", "use std::c::X;"), Vec::<String>::new());
}
