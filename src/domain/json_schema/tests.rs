use super::*;
use serde_json::json;

#[test]
fn a_schema_that_refers_to_itself_does_not_recurse_for_ever() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"if": {"$ref": "#"}}),
        json!({"$dynamicAnchor": "x", "$dynamicRef": "#x"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
    ] {
        let validator = Schema::compile(&schema).unwrap();
        let _ = validator.check(&json!({"a": [1]}));
    }
}

/// Definitions of which each names the next one twice, by `name`.
fn multiplying(levels: usize, name: impl Fn(usize) -> String) -> Value {
    let mut definitions = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({"$ref": name(level + 1)});
        definitions.insert(format!("d{level}"), json!({"$anchor": format!("a{level}"), "allOf": [next, next]}));
    }
    definitions.insert(format!("d{levels}"), json!({"$anchor": format!("a{levels}"), "type": "integer"}));
    json!({"$defs": definitions, "$ref": name(0)})
}

#[test]
fn references_that_multiply_are_refused() {
    let by_pointer = |level| format!("#/$defs/d{level}");
    let by_anchor = |level| format!("#a{level}");
    for schema in [multiplying(40, by_pointer), multiplying(40, by_anchor)] {
        let error = Schema::compile(&schema).unwrap_err();
        assert!(error.contains("when its references are written out"), "{error}");
    }
    // A schema may do a little of this, as many do.
    assert_eq!(Schema::compile(&multiplying(10, by_pointer)).unwrap().check(&json!(1)), Ok(()));
    assert!(Schema::compile(&multiplying(10, by_anchor)).unwrap().check(&json!("one")).is_err());
    // A tree names itself twice, for different places.
    let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "leaf": {"type": "integer"}}});
    assert_eq!(Schema::compile(&tree).unwrap().check(&json!({"left": {"leaf": 1}, "right": {"left": {}}})), Ok(()));
    assert!(Schema::compile(&tree).unwrap().check(&json!({"left": {"left": {"leaf": "x"}}})).is_err());
}

#[test]
fn a_long_chain_of_references_is_refused_before_the_stack_ends() {
    let chain = |length: usize| {
        let mut definitions = serde_json::Map::new();
        for link in 0..length {
            definitions.insert(format!("d{link}"), json!({"$ref": format!("#/$defs/d{}", link + 1)}));
        }
        definitions.insert(format!("d{length}"), json!({"type": "integer"}));
        json!({"$defs": definitions, "$ref": "#/$defs/d0"})
    };
    assert_eq!(Schema::compile(&chain(100)).unwrap().check(&json!(1)), Ok(()));
    assert!(Schema::compile(&chain(10_000)).unwrap_err().contains("is nested deeper"), "a chain of ten thousand");
}

#[test]
fn a_schema_nested_as_deeply_as_json_may_be_is_compiled() {
    let mut schema = json!({"type": "integer"});
    let mut answer = json!(1);
    for _ in 0..60 {
        schema = json!({"items": schema});
        answer = json!([answer]);
    }
    assert_eq!(Schema::compile(&schema).unwrap().check(&answer), Ok(()));
}

#[test]
fn a_fault_is_told_in_few_words() {
    let names: Vec<String> = (0..1_000).map(|n| format!("name{n}")).collect();
    assert!(Schema::compile(&json!({"type": names})).unwrap_err().chars().count() <= MESSAGE_LENGTH + 1);
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn a_schema_that_names_itself_twice_for_one_place_is_given_up() {
    for schema in [
        json!({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}),
        json!({"items": {"$ref": "#"}, "if": {"items": {"$ref": "#"}}}),
        json!({"anyOf": [{"type": "string"},
            {"allOf": [{"items": {"$ref": "#"}, "type": "array"}, {"items": {"$ref": "#"}}]}]}),
        json!({"$id": "https://example.com/a.json",
            "items": {"allOf": [{"$ref": "a.json"}, {"$ref": "https://example.com/a.json#"}]}}),
        json!({"$defs": {"a b": {"items": {"allOf": [{"$ref": "#/$defs/a%20b"}, {"$ref": "#/$defs/a%20b"}]}}},
            "$ref": "#/$defs/a%20b"}),
        json!({"$anchor": "x", "prefixItems": [{"$ref": "#x"}], "contains": {"$dynamicRef": "#x"}}),
        json!({"properties": {"a": {"$ref": "#"}}, "unevaluatedItems": {"$ref": "#"}, "contains": {"$ref": "#"}}),
    ] {
        let compiled = Schema::compile(&schema).unwrap();
        let few = compiled.check(&nested(6));
        assert!(!matches!(few, Err(Mismatch::TooCostly)), "{schema}: {few:?}");
        assert_eq!(compiled.check(&nested(100)), Err(Mismatch::TooCostly), "{schema}");
    }
}

#[test]
fn a_place_that_would_take_too_long_to_find_is_not_looked_for() {
    let schema = json!({"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}, "type": "array"}]});
    let compiled = Schema::compile(&schema).unwrap();
    assert!(matches!(compiled.check(&nested(5)), Err(Mismatch::At(_))));
    assert_eq!(compiled.check(&nested(60)), Err(Mismatch::Somewhere));
    assert_eq!(compiled.check(&(0..60).fold(json!("text"), |inner, _| json!([inner]))), Ok(()));
}

#[test]
fn a_chain_that_is_gone_through_at_each_level_does_not_end_the_stack() {
    // An accepted schema has to fit the stack of a worker's thread, which is that of this one.
    for length in [1, 2, 5, 10, 30, 60, 90, 120, 300] {
        for wrap in [
            |to: String| json!({"allOf": [{"$ref": to}, {"minItems": 1}]}),
            |to: String| json!({"anyOf": [{"type": "string"}, {"$ref": to}]}),
            |to: String| json!({"if": {"type": "array"}, "then": {"$ref": to}, "unevaluatedProperties": false}),
            |to: String| json!({"not": {"not": {"$ref": to}}}),
        ] {
            let mut definitions = serde_json::Map::new();
            for link in 0..length {
                definitions.insert(format!("d{link}"), wrap(format!("#/$defs/d{}", link + 1)));
            }
            definitions.insert(format!("d{length}"), json!({"items": {"$ref": "#/$defs/d0"}}));
            let schema = json!({"$defs": definitions, "$ref": "#/$defs/d0"});
            let Ok(compiled) = Schema::compile(&schema) else { continue };
            for depth in [1, 3, 10, 30, 100, 126] {
                let _ = compiled.check(&nested(depth));
            }
        }
    }
}

#[test]
fn trees_of_unions_as_deep_as_json_may_be_are_checked() {
    let schema = json!({
        "$defs": {
            "leaf": {"type": "object", "properties": {"kind": {"const": "leaf"}}, "required": ["kind"]},
            "branch": {
                "type": "object",
                "properties": {"kind": {"const": "branch"},
                    "parts": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                "required": ["kind", "parts"],
                "additionalProperties": false,
            },
            "node": {"oneOf": [{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/branch"}]},
        },
        "$ref": "#/$defs/node",
    });
    let compiled = Schema::compile(&schema).unwrap();
    let tree =
        (0..60).fold(json!({"kind": "leaf"}), |inner, _| json!({"kind": "branch", "parts": [inner, {"kind": "leaf"}]}));
    assert_eq!(compiled.check(&tree), Ok(()));
    let wide = json!({"kind": "branch", "parts": vec![json!({"kind": "leaf"}); 20_000]});
    assert_eq!(compiled.check(&wide), Ok(()));
    let wrong = json!({"kind": "branch", "parts": [{"kind": "leaf"}, {"kind": "nut"}]});
    assert!(matches!(compiled.check(&wrong), Err(Mismatch::At(_))));
}

#[test]
fn a_large_schema_for_many_places_is_given_up() {
    let names: Vec<String> = (0..40_000).map(|n| format!("name{n}")).collect();
    let schema = Schema::compile(&json!({"items": {"enum": names}})).unwrap();
    assert_eq!(schema.check(&json!(vec!["name39999"; 10])), Ok(()));
    assert_eq!(schema.check(&json!(vec!["name39999"; 1_000])), Err(Mismatch::TooCostly));
}

#[test]
fn what_cannot_be_checked_is_left_unchecked_and_the_rest_is_checked() {
    let ahead = "^(?=.*[0-9]).{4,}$";
    let past_count = |code: Value| {
        json!({"type": "object", "properties": {"n": {"type": "integer"}, "code": code},
            "required": ["n"]})
    };
    for (schema, unchecked, good, bad) in [
        (
            past_count(json!({"type": "string", "pattern": ahead})),
            "/properties/code/pattern",
            json!({"n": 1, "code": "ab1c"}),
            json!({"n": 1, "code": 5}),
        ),
        (
            past_count(json!({"pattern": r"^(a+)\1$"})),
            "/properties/code/pattern",
            json!({"n": 1, "code": "aa"}),
            json!({"n": "x"}),
        ),
        (
            past_count(json!({"pattern": "((a{1000}){1000}){1000}"})),
            "/properties/code/pattern",
            json!({"n": 1, "code": "a"}),
            json!({}),
        ),
        (
            past_count(json!({"pattern": r"\Aab\Z"})),
            "/properties/code/pattern",
            json!({"n": 1, "code": "ab"}),
            json!({}),
        ),
        // Drafts whose meta-schemas look into patterns.
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "pattern": r"\Aab\Z", "minLength": 2}),
            "/pattern",
            json!("ab"),
            json!("a"),
        ),
        // A loosened schema under a negation would forbid all other values.
        (
            past_count(json!({"not": {"pattern": ahead}, "type": "string"})),
            "/properties/code/not",
            json!({"n": 1, "code": "abc"}),
            json!({"n": 1, "code": 1}),
        ),
        (
            json!({"not": {"anyOf": [{"not": {"pattern": ahead}}, {"type": "integer"}]}, "minLength": 2}),
            "/not",
            json!("abc"),
            json!("a"),
        ),
        (json!({"oneOf": [{"pattern": ahead}, {"pattern": "^b"}], "type": "string"}), "/oneOf", json!("bbb"), json!(1)),
        (
            json!({"oneOf": [{"pattern": ahead, "type": "string"}, {"type": "integer"}],
                "anyOf": [{"type": "string"}, {"minimum": 3}]}),
            "/oneOf",
            json!("a123"),
            json!(1.5),
        ),
        (
            json!({"if": {"pattern": ahead}, "then": {"maxLength": 1}, "else": {"maxLength": 5}, "type": "string"}),
            "/if",
            json!("abc"),
            json!(2),
        ),
        (
            json!({"contains": {"pattern": ahead}, "maxContains": 1, "type": "array"}),
            "/maxContains",
            json!(["a", "b"]),
            json!([]),
        ),
        // By way of a reference.
        (
            json!({"$defs": {"p": {"pattern": ahead}}, "not": {"$ref": "#/$defs/p"}, "type": "string"}),
            "/not",
            json!("abc"),
            json!(1),
        ),
        // Names that a pattern would have allowed.
        (
            json!({"patternProperties": {ahead: {}, "^n": {"type": "integer"}}, "additionalProperties": false}),
            "/additionalProperties",
            json!({"abc1": 1, "n": 1}),
            json!({"n": "x"}),
        ),
        (
            json!({"allOf": [{"patternProperties": {ahead: {}}}], "unevaluatedProperties": false, "required": ["a"]}),
            "/unevaluatedProperties",
            json!({"abc1": 1, "a": 1}),
            json!({}),
        ),
        (
            json!({"propertyNames": {"pattern": ahead}, "minProperties": 1}),
            "/propertyNames/pattern",
            json!({"a": 1}),
            json!({}),
        ),
        // Data is not a schema, and the name of a member is not a keyword.
        (
            json!({"properties": {"pattern": {"const": {"pattern": ahead}}, "a": {"pattern": ahead}}}),
            "/properties/a/pattern",
            json!({"pattern": {"pattern": ahead}}),
            json!({"pattern": {}}),
        ),
        // Meta-schemas of which nothing is known.
        (
            json!({"$schema": "http://json-schema.org/draft-05/schema#", "type": "integer"}),
            "/$schema",
            json!(1),
            json!("x"),
        ),
        (
            json!({"$schema": "https://example.com/ours", "minimum": 1, "exclusiveMinimum": true}),
            "/$schema",
            json!(2),
            json!(1),
        ),
        (
            json!({"$schema": "https://example.com/ours", "pattern": ahead, "minLength": 2}),
            "/pattern",
            json!("ab"),
            json!("a"),
        ),
        // Older forms without a word of the draft.
        (
            json!({"items": [{"type": "integer"}], "additionalItems": false}),
            "what draft 2019-09 does not know",
            json!([1]),
            json!([1, 2]),
        ),
        (json!({"minimum": 1, "exclusiveMinimum": true}), "what draft 4 does not know", json!(2), json!(1)),
    ] {
        let compiled = Schema::compile(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        assert!(compiled.unchecked().iter().any(|place| place == unchecked), "{schema}: {:?}", compiled.unchecked());
        assert_eq!(compiled.check(&good), Ok(()), "{schema}: {:?}", compiled.written);
        assert!(compiled.check(&bad).is_err(), "{schema}: {bad} passes");
    }
}

#[test]
fn a_schema_of_which_nothing_can_be_checked_takes_every_answer() {
    for (schema, why) in [
        (
            json!({"$schema": "http://json-schema.org/draft-03/schema#", "properties": {"a": {"required": true}}}),
            "meta-schema",
        ),
        (json!({"$ref": "https://example.com/schema.json"}), "elsewhere"),
        (json!({"oneOf": [{"pattern": "(?=a)"}], "items": {"$ref": "#/oneOf/0"}}), "elsewhere"),
    ] {
        let compiled = Schema::compile(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        assert!(matches!(compiled.unchecked(), [all] if all.contains(why)), "{schema}: {:?}", compiled.unchecked());
        assert_eq!(compiled.check(&json!({"a": 1})), Ok(()));
    }
    // A schema that can be checked as a whole names nothing.
    assert_eq!(
        Schema::compile(&json!({"pattern": "^a", "oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {}}}))
            .unwrap()
            .unchecked(),
        [""; 0]
    );
}

#[test]
fn the_places_that_are_not_checked_are_few_and_short() {
    let patterns: serde_json::Map<String, Value> =
        (0..100).map(|n| (format!("{n}{}", "x".repeat(500)), json!({"pattern": "(?=a)"}))).collect();
    let compiled = Schema::compile(&json!({"properties": patterns})).unwrap();
    assert_eq!(compiled.unchecked().len(), 11);
    assert!(compiled.unchecked().iter().all(|place| place.chars().count() <= 100));
}

/// A property for each of these patterns.
fn with_patterns(patterns: impl Iterator<Item = String>) -> Value {
    let properties = patterns.enumerate().map(|(index, pattern)| (format!("p{index}"), json!({"pattern": pattern})));
    json!({"type": "object", "properties": properties.collect::<serde_json::Map<_, _>>()})
}

#[test]
fn a_schema_that_would_take_minutes_or_gigabytes_is_refused_and_one_of_use_is_not() {
    let heavy = |count| with_patterns((0..count).map(|index| format!("^\\p{{L}}{{1,16}}{index}$")));
    let too_heavy = |count| with_patterns((0..count).map(|index| format!("^\\p{{L}}{{1,100}}{index}$")));
    let names = |count| with_patterns((0..count).map(|index| format!("^[A-Z]{{2}}-\\d{{4}}-{index}$")));
    let by_name = |count| {
        let names = (0..count).map(|index| (format!("^\\p{{L}}{{1,16}}{index}$"), json!(true)));
        json!({"patternProperties": names.collect::<serde_json::Map<_, _>>()})
    };
    let in_all_of: Vec<Value> = (0..100).map(|index| json!({"pattern": format!("\\p{{L}}{{16}}{index}")})).collect();
    for (what, schema, reason) in [
        ("a thousand patterns", names(1_000), "different patterns"),
        ("heavy ones", heavy(200), "MB when they are compiled"),
        ("too heavy ones", too_heavy(200), "MB when they are compiled"),
        ("for names", by_name(200), "MB when they are compiled"),
        ("in branches", json!({"allOf": in_all_of}), "MB when they are compiled"),
        ("a large enum", json!({"enum": (0..400_000).collect::<Vec<u32>>()}), "members and elements"),
        ("a large const", json!({"const": vec![1; 60_000]}), "members and elements"),
        ("in what is never looked at", json!({"$defs": {"a": {"enum": vec![1; 60_000]}}}), "members and elements"),
        ("a long text", json!({"const": "x".repeat(2 << 20)}), "bytes of names and texts"),
        ("a long name", json!({"properties": {"x".repeat(2 << 20): {}}}), "bytes of names and texts"),
    ] {
        let error = Schema::compile(&schema).map(|_| ()).unwrap_err();
        assert!(error.contains(reason), "{what}: {error}");
    }
    for (what, schema) in [
        ("patterns", names(300)),
        ("a few heavy ones", heavy(20)),
        ("one pattern in many places", with_patterns(vec!["^\\p{L}{1,16}$".to_owned(); 2_000].into_iter())),
        ("codes", json!({"enum": (0..40_000).map(|code| format!("C{code:05}")).collect::<Vec<_>>()})),
    ] {
        let compiled = Schema::compile(&schema).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(compiled.unchecked().is_empty(), "{what}");
        assert!((1_000..64 << 20).contains(&compiled.weight()), "{what}: {}", compiled.weight());
        assert!(compiled.weight() <= Schema::most_bytes(&schema).unwrap(), "{what}");
    }
    // A pattern that is too large alone is left unchecked, as it is no fault of the request.
    let compiled = Schema::compile(&too_heavy(2)).unwrap();
    assert_eq!(compiled.unchecked().len(), 2);
    assert_eq!(compiled.check(&json!({"p0": "?"})), Ok(()));
}

#[test]
fn a_long_text_is_not_matched_against_a_heavy_pattern() {
    let heavy = Schema::compile(&json!({"pattern": "^(\\p{L}{1,16} ?)+$"})).unwrap();
    assert_eq!(heavy.check(&json!("word ".repeat(100))), Ok(()));
    assert_eq!(heavy.check(&json!("word ".repeat(100_000))), Err(Mismatch::TooCostly));
    let heavy = Schema::compile(&json!({"patternProperties": {"^\\p{L}{1,16}$": true}})).unwrap();
    assert_eq!(heavy.check(&json!({"x".repeat(1 << 20): 1})), Err(Mismatch::TooCostly));
    let light = Schema::compile(&json!({"pattern": "^[a-z ]+$"})).unwrap();
    assert_eq!(light.check(&json!("word ".repeat(100_000))), Ok(()));
}
