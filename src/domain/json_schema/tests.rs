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
    // What many schemas do a little of is fine.
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
    assert!(
        Schema::compile(&chain(100_000)).unwrap_err().contains("is nested deeper"),
        "a chain of a hundred thousand"
    );
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
        json!({"anyOf": [{"type": "string"}, {"allOf": [{"items": {"$ref": "#"}, "type": "array"}, {"items": {"$ref": "#"}}]}]}),
        json!({"$id": "https://example.com/a.json", "items": {"allOf": [{"$ref": "a.json"}, {"$ref": "https://example.com/a.json#"}]}}),
        json!({"$defs": {"a b": {"items": {"allOf": [{"$ref": "#/$defs/a%20b"}, {"$ref": "#/$defs/a%20b"}]}}}, "$ref": "#/$defs/a%20b"}),
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
    assert!(matches!(compiled.check(&nested(5)), Err(Mismatch::At { .. })));
    assert_eq!(compiled.check(&nested(60)), Err(Mismatch::Somewhere));
    assert_eq!(compiled.check(&(0..60).fold(json!("text"), |inner, _| json!([inner]))), Ok(()));
}

#[test]
fn a_chain_that_is_gone_through_at_each_level_does_not_end_the_stack() {
    // What is taken has to be within what the stack of a worker's thread holds, which is that of this one.
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
                "properties": {"kind": {"const": "branch"}, "parts": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
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
    assert!(matches!(compiled.check(&wrong), Err(Mismatch::At { .. })));
}

#[test]
fn a_large_schema_for_many_places_is_given_up() {
    let names: Vec<String> = (0..50_000).map(|n| format!("name{n}")).collect();
    let schema = Schema::compile(&json!({"items": {"enum": names}})).unwrap();
    assert_eq!(schema.check(&json!(vec!["name49999"; 10])), Ok(()));
    assert_eq!(schema.check(&json!(vec!["name49999"; 1_000])), Err(Mismatch::TooCostly));
}
