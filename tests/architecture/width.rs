//! No line is longer than 120 characters, but for lines that would lose something if they were broken: each kind of
//! them is named here, with what it would lose.

use super::root;
use regex::Regex;
use std::collections::BTreeSet;
use std::path::Path;

const WIDTH: usize = 120;

/// The places that are read, below the root.
const PLACES: [&str; 21] = [
    "src",
    "tests",
    "docs",
    "migrations",
    "benches",
    "config",
    "systemd",
    "fuzz/fuzz_targets",
    "fuzz/src",
    "fuzz/Cargo.toml",
    "scripts",
    "packaging",
    "Containerfile",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
    "Cargo.toml",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];

/// The last migration that is released: it and those before it never change.
const RELEASED: u32 = 42;

/// Why a line may be long. The seeds of the fuzzer are bytes, and are not read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exempt {
    /// A migration that is released: its checksum is in databases.
    Released,
    /// A file that the program writes (`make config`).
    Generated,
    /// A provider's answer as it was recorded, in a literal: broken in two it is no longer what the provider wrote. The
    /// text around the literal has to fit.
    Recorded,
    /// A row of a table in Markdown, which has no other way to be written.
    Row,
    /// Text that is typed, read or printed, shown on a page as it is: a fenced block that names no language.
    Shown,
    /// What a command prints, kept as it was printed (`insta`).
    Printed,
    /// An entry of a catalogue in TOML: an inline table goes over no second line.
    Entry,
    /// A line of a table of fixtures (`a | b | c`): each line is one fact.
    Fact,
}

const ALL: [Exempt; 8] = [
    Exempt::Released,
    Exempt::Generated,
    Exempt::Recorded,
    Exempt::Row,
    Exempt::Shown,
    Exempt::Printed,
    Exempt::Entry,
    Exempt::Fact,
];

/// How literals of recorded answers are found.
struct Literals {
    /// A raw literal with a body, or with an event that has a body.
    raw: Regex,
    /// Any other literal. What providers say, without its envelope, is kept in these in the folder of fixtures.
    plain: Regex,
}

impl Literals {
    fn new() -> Self {
        Self {
            raw: Regex::new(r##"r#"(?:data: )?[\[{<].*?"#"##).unwrap(),
            plain: Regex::new(r#""(?:[^"\\]|\\.)*""#).unwrap(),
        }
    }

    fn without_recorded(&self, file: &str, line: &str) -> String {
        let line = self.raw.replace_all(line, "");
        if file.starts_with("src/provider/fixtures/") {
            return self.plain.replace_all(&line, "").into_owned();
        }
        line.into_owned()
    }
}

/// The lines of a file that are too long: their numbers, and why they may be.
fn long_lines(file: &str, text: &str, literals: &Literals) -> Vec<(usize, Option<Exempt>)> {
    let is_released = file
        .strip_prefix("migrations/")
        .and_then(|name| name.split('_').next()?.parse::<u32>().ok())
        .is_some_and(|number| number <= RELEASED);
    let is_page = Path::new(file).extension().is_some_and(|extension| extension == "md");
    let is_catalogue = file.starts_with("config/") && Path::new(file).extension().is_some_and(|it| it == "toml");
    let records = file.starts_with("src/provider/") || file.starts_with("tests/");
    let is_table = records && Path::new(file).extension().is_some_and(|extension| extension == "txt");
    let is_drawing = Path::new(file).extension().is_some_and(|extension| extension == "svg");
    let fits = |line: &str| line.chars().count() <= WIDTH;
    let mut shown = None;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```").filter(|_| is_page) {
            shown = if shown.is_some() { None } else { Some(language.is_empty()) };
        }
        if fits(line) {
            continue;
        }
        let exempt = if is_released {
            Some(Exempt::Released)
        } else if ["config/sluice.schema.json", "docs/openapi.json"].contains(&file) || is_drawing {
            Some(Exempt::Generated)
        } else if is_page && line.starts_with('|') && shown.is_none() {
            Some(Exempt::Row)
        } else if shown == Some(true) {
            Some(Exempt::Shown)
        } else if Path::new(file).extension().is_some_and(|extension| extension == "snap") {
            Some(Exempt::Printed)
        } else if is_catalogue && line.starts_with('"') && line.ends_with('}') {
            Some(Exempt::Entry)
        } else if is_table && !line.starts_with('#') && line.contains(" | ") {
            Some(Exempt::Fact)
        } else if records && fits(&literals.without_recorded(file, line)) {
            Some(Exempt::Recorded)
        } else {
            None
        };
        found.push((at + 1, exempt));
    }
    found
}

fn read(path: &Path, into: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            read(&entry.unwrap().path(), into);
        }
    } else if path.extension().is_some_and(|extension| extension == "new") {
        // A snapshot that a failed test has left beside the one that is kept; git ignores it.
    } else if path.extension().is_some_and(|extension| extension == "png") {
        // A picture has no lines.
    } else {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        into.push((name, std::fs::read_to_string(path).unwrap()));
    }
}

#[test]
fn no_line_is_longer_than_120_characters() {
    let mut files = Vec::new();
    for place in PLACES {
        read(&root().join(place), &mut files);
    }
    let literals = Literals::new();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (file, text) in &files {
        for (line, exempt) in long_lines(file, text, &literals) {
            match exempt {
                Some(exempt) => _ = used.insert(exempt),
                None => wrong.push(format!("{file}:{line}")),
            }
        }
    }
    assert!(wrong.is_empty(), "longer than {WIDTH} characters: {wrong:#?}");
    // No exemption is there for nothing.
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ALL);
}

#[test]
fn long_lines_are_found_and_only_the_kinds_that_are_named_are_let_be() {
    let literals = Literals::new();
    let long = "é".repeat(121);
    let body = format!(r##"r#"{{"error":"{long}"}}"#"##);
    for (file, text, expected) in [
        ("src/domain/a.rs", "é".repeat(120), vec![]),
        ("src/domain/a.rs", format!("short\n{long}\n"), vec![(2, None)]),
        ("migrations/0020_x.sql", long.clone(), vec![(1, Some(Exempt::Released))]),
        ("migrations/0099_x.sql", long.clone(), vec![(1, None)]),
        ("config/sluice.schema.json", long.clone(), vec![(1, Some(Exempt::Generated))]),
        (
            "config/prices.toml",
            format!("# {long}\n\"m\" = {{ a = \"{long}\" }}"),
            vec![(1, None), (2, Some(Exempt::Entry))],
        ),
        ("docs/a.md", format!("| {long} |\n{long}"), vec![(1, Some(Exempt::Row)), (2, None)]),
        (
            "docs/a.md",
            format!("```\n{long}\n```\n{long}\n```sql\n{long}\n| {long}\n```\n"),
            vec![(2, Some(Exempt::Shown)), (4, None), (6, None), (7, None)],
        ),
        ("src/provider/a/tests.rs", format!("case({body}, A)"), vec![(1, Some(Exempt::Recorded))]),
        ("tests/a.rs", format!("const A: &str = {body};"), vec![(1, Some(Exempt::Recorded))]),
        // Around a body there is room for the width of a line, and not for more.
        ("src/provider/a/tests.rs", format!("{}{body}", "x".repeat(120)), vec![(1, Some(Exempt::Recorded))]),
        ("src/provider/a/tests.rs", format!("{}{body}", "x".repeat(121)), vec![(1, None)]),
        // Words are no body, except where only recordings are kept; elsewhere nothing is a body.
        ("src/provider/a/tests.rs", format!("case(\"{long}\", A)"), vec![(1, None)]),
        ("src/provider/fixtures/a.rs", format!("case(\"{long}\", A)"), vec![(1, Some(Exempt::Recorded))]),
        ("src/provider/fixtures/a.rs", format!("// {long}"), vec![(1, None)]),
        ("src/store/a.rs", body.clone(), vec![(1, None)]),
        (
            "src/provider/fixtures/a.txt",
            format!("a | {long}\n# a | {long}\n{long}"),
            vec![(1, Some(Exempt::Fact)), (2, None), (3, None)],
        ),
        ("tests/snapshots/a.snap", long.clone(), vec![(1, Some(Exempt::Printed))]),
    ] {
        assert_eq!(long_lines(file, &text, &literals), expected, "{file}: {text}");
    }
}
