//! The code that a page of the documentation shows, so that a test can run it as it stands there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A page of the documentation.
pub struct Page(String);

/// A block of code, and the language that it says it is in.
pub struct Block<'a> {
    pub language: &'a str,
    pub text: &'a str,
}

impl Page {
    /// The page of this name in `docs/`.
    pub fn read(name: &str) -> Self {
        Self(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap())
    }

    /// The page at this path, from the root of the repository.
    pub fn at(path: &str) -> Self {
        Self(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap())
    }

    /// All pages that users read, by their paths: some are for those who change the code.
    pub fn all() -> Vec<String> {
        let docs = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
        let names = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
        let is_for_users = |path: &String| {
            Path::new(path).extension().is_some_and(|extension| extension == "md")
                && !["docs/decisions.md", "docs/architecture.md"].contains(&path.as_str())
        };
        let mut paths: Vec<String> = names.filter(is_for_users).chain(["README.md".to_owned()]).collect();
        paths.sort();
        paths
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// All blocks of code, in order.
    pub fn every_block(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut rest = self.0.as_str();
        while let Some((_, after)) = rest.split_once("\n```") {
            let (language, after) = after.split_once('\n').expect("a fence ends its line");
            let (text, after) =
                after.split_once("\n```\n").or_else(|| Some((after.strip_suffix("\n```")?, ""))).unwrap();
            blocks.push(Block { language, text });
            // So that a block may follow at once.
            rest = after;
        }
        blocks
    }

    /// The blocks of code in this language, in order.
    pub fn blocks(&self, language: &str) -> Vec<&str> {
        let opening = format!("```{language}\n");
        let parts = self.0.split(opening.as_str()).skip(1);
        parts.map(|part| part.split_once("```").expect("the block is closed").0).collect()
    }
}

/// A Python that has psycopg and pytest; `None` only when the tests are told to do without
/// (`SLUICE_WITHOUT_PYTHON=1`), which it says.
pub fn python() -> Option<PathBuf> {
    if std::env::var("SLUICE_WITHOUT_PYTHON").is_ok_and(|value| value == "1") {
        eprintln!("SLUICE_WITHOUT_PYTHON=1: the pytest of the documentation is not run");
        return None;
    }
    // A Python of a user's own in the path may lack what the system's packages bring.
    let has_both = |python: &&str| {
        Command::new(python).args(["-c", "import psycopg, pytest"]).output().is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].iter().find(|python| has_both(python));
    let found = found.expect(
        "there is no Python with psycopg and pytest: run scripts/programs python, or set SLUICE_WITHOUT_PYTHON=1 to do \
         without the pytest of the documentation",
    );
    Some(PathBuf::from(found))
}
