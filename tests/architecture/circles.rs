//! No circle of imports inside a room: what its files import of each other has an order, so that each can be read and
//! changed without all the others.

use super::{Source, sources};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// The rooms whose files have an order.
const ROOMS: [&str; 3] = ["provider", "simulate", "view"];

/// A module, by the names that lead to it from the crate: `simulate`, `dialect`, `openai`.
type Module = Vec<String>;

/// A name that a `use` brings into a module.
struct Import {
    path: Vec<String>,
    /// The name as the module knows it.
    name: String,
}

struct File {
    imports: Vec<Import>,
    /// Paths in the code, outside of a `use`.
    paths: Vec<Vec<String>>,
}

/// The module that a file below `src` is.
fn module_of(source: &Source) -> Module {
    let path = source.path.with_extension("");
    let names = path.components().map(|part| part.as_os_str().to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// What a tree such as `a::{self, b::C as D}` imports.
fn expand(tree: &str, before: &[String], into: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let head = tree[..open].split("::").map(str::trim).filter(|name| !name.is_empty());
        let before: Vec<String> = before.iter().cloned().chain(head.map(str::to_owned)).collect();
        let inner = &tree[open + 1..tree.rfind('}').unwrap()];
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in inner.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&inner[start..at], &before, into);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return expand(&inner[start..], &before, into);
    }
    if tree.is_empty() {
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let mut path: Vec<String> =
        before.iter().cloned().chain(path.split("::").map(|name| name.trim().to_owned())).collect();
    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
        path.pop();
    }
    let name = alias.map_or_else(|| path.last().unwrap().clone(), str::to_owned);
    into.push(Import { path, name });
}

fn read(code: &str) -> File {
    let statement = Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?use\s([^;]+);").unwrap();
    let mut imports = Vec::new();
    for found in statement.captures_iter(code) {
        expand(&found[1], &[], &mut imports);
    }
    // Who may see a thing (`pub(in crate::room)`) is no import.
    let visibility = Regex::new(r"pub\(in [\w:]+\)").unwrap();
    let rest = statement.replace_all(code, "");
    let rest = visibility.replace_all(&rest, "");
    let path = Regex::new(r"\b[a-z_]\w*(?:::\w+)+").unwrap();
    let paths = path.find_iter(&rest).map(|found| found.as_str().split("::").map(str::to_owned).collect()).collect();
    File { imports, paths }
}

/// The files of one room.
struct Room(BTreeMap<Module, File>);

impl Room {
    fn new<'a>(sources: impl Iterator<Item = &'a Source>) -> Self {
        Self(sources.map(|source| (module_of(source), read(&source.code))).collect())
    }

    /// The module in which what this path names is written: a name that a module passes on is looked for further down.
    fn target(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut at = match path[0].as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from[..from.len() - 1].to_vec(),
            name => {
                let child: Module = from.iter().cloned().chain([name.to_owned()]).collect();
                self.0.get(&child).map(|_| child)?
            }
        };
        for (index, name) in path.iter().enumerate().skip(1) {
            let below: Module = at.iter().cloned().chain([name.clone()]).collect();
            if name == "super" {
                at.pop();
            } else if self.0.contains_key(&below) || !self.0.contains_key(&at) {
                at = below;
            } else {
                let passed_on = self.0[&at].imports.iter().find(|import| import.name == *name && at != *from);
                return match passed_on.and_then(|import| self.target(&at, &import.path)) {
                    Some(target) if index + 1 == path.len() => Some(target),
                    Some(target) => {
                        let rest = ["self".to_owned()].into_iter().chain(path[index + 1..].iter().cloned());
                        self.target(&target, &rest.collect::<Vec<_>>())
                    }
                    None => Some(at),
                };
            }
        }
        self.0.contains_key(&at).then_some(at)
    }

    /// Which modules a module needs.
    fn needs(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |(module, file): (&Module, &File)| {
            let paths = file.imports.iter().map(|import| &import.path).chain(&file.paths);
            paths.filter_map(|path| self.target(module, path)).filter(|target| target != module).collect()
        };
        self.0.iter().map(|entry| (entry.0, of(entry))).collect()
    }

    /// The shortest circle through each module that is in one.
    fn circles(&self) -> BTreeSet<String> {
        let needs = self.needs();
        let circle = |start: &Module| {
            let mut ways = VecDeque::from([vec![start]]);
            let mut seen = BTreeSet::new();
            while let Some(way) = ways.pop_front() {
                for next in &needs[way[way.len() - 1]] {
                    if next == start {
                        let names = way.iter().copied().chain([start]).map(|module| module.join("::"));
                        return Some(names.collect::<Vec<_>>().join(" needs "));
                    }
                    if seen.insert(next) {
                        ways.push_back(way.iter().copied().chain([next]).collect());
                    }
                }
            }
            None
        };
        self.0.keys().filter_map(circle).collect()
    }
}

#[test]
fn the_files_of_a_room_import_each_other_in_one_direction() {
    let sources = sources();
    for name in ROOMS {
        let room = Room::new(sources.iter().filter(|source| source.room() == name));
        assert!(room.needs().values().map(BTreeSet::len).sum::<usize>() > room.0.len(), "{name}: imports are seen");
        let circles = room.circles();
        assert!(circles.is_empty(), "circles of imports in {name}: {circles:#?}");
    }
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let circles = |files: &[(&str, &str)]| {
        let source = |(path, code): &(&str, &str)| Source {
            path: PathBuf::from(path),
            text: String::new(),
            code: (*code).to_owned(),
        };
        Room::new(files.iter().map(source).collect::<Vec<_>>().iter()).circles().len()
    };
    let root = ("r/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use self::b::{B, C as D};");
    for (a, b, modules) in [
        ("use super::b::B;", "use std::fmt;", 0),
        ("use super::b::B;", "use super::a::A;", 2),
        ("use crate::r::b::{self, B};", "use super::{a};", 2),
        ("use super::b::{x::Y, B as Other};", "fn f() { super::a::g() }", 2),
        // By way of the items that the room passes on, under any name.
        ("use super::B;", "use crate::r::{A};", 2),
        ("use super::D;", "use super::A;", 2),
        ("use super::D::Variant;", "struct C;", 0),
        // A file above that needs the file below is no circle; a file below that looks up as well is one.
        ("use below::X;", "", 0),
        ("fn f() { below::g() }", "", 0),
    ] {
        let below = ("r/a/below.rs", "use crate::r::b::B;");
        let found = circles(&[root, ("r/a.rs", a), ("r/b.rs", b), below]);
        assert_eq!(found, modules, "{a} {b}");
    }
    let up = ("r/a/below.rs", "use super::A;");
    assert_eq!(circles(&[root, ("r/a.rs", "use below::X;"), ("r/b.rs", ""), up]), 2);
    assert_eq!(circles(&[("r/mod.rs", "mod a;\nuse a::A;"), ("r/a.rs", "use super::Root;")]), 2);
}
