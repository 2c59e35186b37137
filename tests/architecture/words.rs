//! One word for each concept, and one concept for each word: a name that `domain` gives to a type is given to no other
//! type of the program.

use super::sources;
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The types that are declared in this code, those inside functions and macros apart, and whether each is `pub`.
fn declared(code: &str) -> Vec<(String, bool)> {
    static ITEM: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^(pub(?:\([a-z]+\))? )?(?:struct|enum|union|trait|type) (\w+)").unwrap());
    ITEM.captures_iter(code)
        .map(|found| (found[2].to_owned(), found.get(1).is_some_and(|seen| seen.as_str() == "pub ")))
        .collect()
}

#[test]
fn a_word_of_the_domain_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut words = Vec::new();
    for source in sources() {
        // The simulator plays the other side, and shares no type with the worker.
        if source.room() == "simulate" {
            continue;
        }
        for (name, is_public) in declared(&source.code) {
            if source.room() == "domain" && is_public {
                words.push(name.clone());
            }
            places.entry(name).or_default().push(source.path.display().to_string());
        }
    }
    assert!(words.len() > 100, "{words:?}");
    let twice: BTreeMap<_, _> = words.iter().map(|word| (word, &places[word])).filter(|(_, at)| at.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn types_are_found_however_visible_they_are() {
    let code = "pub struct A;\nenum B {}\npub(super) type C<'a> = &'a A;\n    struct Inside;\npub trait D {}\n\
                fn struct_e() {}";
    let found = declared(code);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["A", "B", "C", "D"]);
    assert_eq!(found.iter().filter(|(_, is_public)| *is_public).count(), 2);
}
