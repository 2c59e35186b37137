//! Every item that other files may use is documented. Fields and variants are free: where a name says everything, a
//! sentence would only repeat it.

use super::{Source, sources};
use regex::Regex;
use std::sync::LazyLock;

/// The names of items that are `pub`, and of what a `pub` trait asks for, that no doc comment stands before. `new` says
/// enough: it makes what its type is. `has_head` tells whether the file of a module begins with its documentation.
fn undocumented(text: &str, has_head: impl Fn(&str) -> bool) -> Vec<String> {
    static ITEM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^\s*pub (?:(?:const|async) )*(fn|struct|enum|union|trait|const|static|type|mod) (\w+)").unwrap()
    });
    static OF_TRAIT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^    (?:(?:const|async) )*(fn|const|type) (\w+)").unwrap());
    let lines: Vec<&str> = text.lines().collect();
    let mut in_trait = false;
    let mut missing = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        in_trait = line.starts_with("pub trait ") || in_trait && *line != "}";
        let found = ITEM.captures(line).or_else(|| OF_TRAIT.captures(line).filter(|_| in_trait));
        let Some(found) = found.filter(|found| &found[2] != "new") else { continue };
        let mut before = lines[..at].iter().rev().map(|line| line.trim()).peekable();
        let is_attribute = |line: &&str| line.ends_with(']') && !line.starts_with("//");
        while let Some(line) = before.next_if(is_attribute) {
            if !line.starts_with("#[") {
                // Up to where it begins, some lines before.
                let _ = before.by_ref().find(|line| line.starts_with("#["));
            }
        }
        let is_documented = before.next().is_some_and(|line| line.starts_with("///"))
            || &found[1] == "mod" && line.ends_with(';') && has_head(&found[2]);
        if !is_documented {
            missing.push(found[2].to_owned());
        }
    }
    missing
}

#[test]
fn every_item_that_is_public_is_documented() {
    let sources = sources();
    let has_head = |source: &Source, name: &str| {
        let is_root = source.path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib");
        let folder = if is_root { source.path.parent().unwrap().to_owned() } else { source.path.with_extension("") };
        let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
        sources.iter().any(|file| places.contains(&file.path) && file.text.starts_with("//!"))
    };
    let missing: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let missing = undocumented(&source.text, |name| has_head(source, name));
            missing.into_iter().map(|name| format!("src/{}: {name}", source.path.display()))
        })
        .collect();
    assert!(missing.is_empty(), "no doc comment says what these are: {missing:#?}");
}

/// Nothing would run it: the manifest says that the library has no such code.
#[test]
fn no_documentation_has_code_that_is_to_be_run() {
    let mut fences = 0;
    for source in sources() {
        let mut is_open = false;
        for line in source.text.lines().map(str::trim_start) {
            let Some(kind) = line.strip_prefix("/// ```").or_else(|| line.strip_prefix("//! ```")) else { continue };
            is_open = !is_open;
            if is_open {
                assert_eq!(kind, "text", "src/{}: {line}", source.path.display());
                fences += 1;
            }
        }
    }
    assert!(fences > 0);
}

#[test]
fn what_is_looked_for_is_found() {
    let text = "\
pub mod told;
pub mod untold;
/// A thing, see [`Untold`]
#[derive(Debug)]
#[expect(
    dead_code,
    reason = \"[x]\"
)]
pub struct Told {
    pub free: u8,
}
#[derive(Debug)]
#[must_use]
pub struct Untold;

impl Told {
    /// A number.
    #[must_use]
    pub const fn told() {}
    pub async fn untold_too() {}
    pub fn new() {}
    fn private() {}
}

/// A trait.
pub trait Asks {
    /// It tells.
    fn tells(&self);
    fn keeps(&self);
}
fn alone() {}
    pub(super) fn near() {}
// No documentation.
pub const UNTOLD: u8 = 1;
";
    let missing = undocumented(text, |name| name == "told");
    assert_eq!(missing, ["untold", "Untold", "untold_too", "keeps", "UNTOLD"]);
}
