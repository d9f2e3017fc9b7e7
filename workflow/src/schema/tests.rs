use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

/// Values of one schema, each with `path: message` of what is wrong with it.
fn check(schema: Value, table: &[(Value, &[&str])]) {
    let compiled = compile(&schema);
    for (value, expect) in table {
        let found = compiled.check(value, "context");
        let found: Vec<String> =
            found.iter().map(|v| format!("{}: {}", v.path, v.message)).collect();
        assert_eq!(&found, expect, "{value} under {schema}");
    }
}

fn compile(schema: &Value) -> Schema {
    Schema::compile(schema.clone(), 256).unwrap_or_else(|problems| panic!("{problems:?}: {schema}"))
}

/// `code pointer` of each problem.
fn problems(schema: &Value) -> Vec<String> {
    let problems = Schema::compile(schema.clone(), 2).err().unwrap_or_default();
    problems.iter().map(|p| format!("{} {}", p.code, p.field)).collect()
}

#[test]
fn violations_name_their_path() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]+$"},
            "orders": {"type": "array", "items": {"$ref": "#/$defs/order"}},
            "at": {"format": "date-time"},
        },
        "$defs": {"order": {"type": "object", "properties": {"price": {"minimum": 0}}}},
    });
    check(
        schema,
        &[
            (json!({"name": "abc", "orders": [{"price": 0}], "at": "2026-01-01T00:00:00Z"}), &[]),
            (json!({}), &["context: missing properties 'name'"]),
            (
                json!({"name": "a\0b", "orders": [{}, {"price": -1}], "at": "soon"}),
                &[
                    "context.at: is not a valid date-time",
                    "context.name: does not match the pattern \"^[a-z]+$\"",
                    "context.orders[1].price: must be >=0, but got -1",
                ],
            ),
            (
                json!({"name": "a", "b\u{1b}": 1}),
                &["context: additionalProperties 'b\\u{1b}' not allowed"],
            ),
        ],
    );
}

#[test]
fn at_most_so_many_violations_and_no_secrets() {
    let schema = compile(&json!({"items": {"type": "integer"}}));
    let secret = "s3cret".repeat(1_000);
    let found = schema.check(&json!(vec![secret; 30]), "context");
    assert_eq!(found.len(), MAX_VIOLATIONS);
    assert!(found.iter().all(|v| !v.message.contains("s3cret") && v.message.len() < 1_000));
    let many = schema.check(&json!(vec!["x"; 200_000]), "context");
    assert_eq!(many.len(), 1, "{many:?}");
    assert!(many[0].message.contains("too large to say where"), "{many:?}");
}

#[test]
fn both_drafts() {
    let seven = "http://json-schema.org/draft-07/schema#";
    check(
        json!({"$schema": seven, "items": [{"type": "integer"}], "additionalItems": false}),
        &[(json!([1]), &[]), (json!(["x"]), &["context[0]: want integer, but got string"])],
    );
    check(
        json!({"prefixItems": [{"type": "integer"}], "unevaluatedItems": false}),
        &[(json!([1]), &[]), (json!(["x"]), &["context[0]: want integer, but got string"])],
    );
}

#[test]
fn broken_schemas() {
    let many: serde_json::Map<String, Value> =
        (0..300).map(|n| (format!("p{n}"), json!({"$ref": "#"}))).collect();
    for (schema, expect) in [
        (json!({"type": "strnig"}), "INVALID_SCHEMA /type"),
        (json!({"minLenght": 3}), "UNKNOWN_KEY /minLenght"),
        (json!({"properties": {"a/b": {"tpye": 1}}}), "UNKNOWN_KEY /properties/a~1b/tpye"),
        (json!({"additionalItems": false}), "UNKNOWN_KEY /additionalItems"),
        (json!({"$dynamicRef": "#x"}), "UNKNOWN_KEY /$dynamicRef"),
        (json!({"$ref": "http://127.0.0.1:1/x"}), "INVALID_SCHEMA /$ref"),
        (json!({"$ref": "file:///etc/passwd"}), "INVALID_SCHEMA /$ref"),
        (json!({"$ref": "other.json#/x"}), "INVALID_SCHEMA /$ref"),
        (json!({"$ref": "#/$defs/none"}), "INVALID_SCHEMA /$ref"),
        (json!({"$ref": "#anchor"}), "INVALID_SCHEMA /$ref"),
        (json!({"$ref": "#"}), "INVALID_SCHEMA "),
        (
            json!({"properties": {"a": {"allOf": [{"$ref": "#/properties/a"}]}}}),
            "INVALID_SCHEMA /properties/a",
        ),
        (json!({"$schema": "https://example.com/mine"}), "INVALID_SCHEMA /$schema"),
        (json!({"items": {"$id": "http://example.com/x"}}), "INVALID_SCHEMA /items/$id"),
        (json!({"format": "regex"}), "INVALID_SCHEMA /format"),
        (json!({"then": {}}), "INVALID_SCHEMA /then"),
        (json!({"minContains": 1}), "INVALID_SCHEMA /minContains"),
        (json!({"pattern": "(?=x)"}), "INVALID_SCHEMA /pattern"),
        (json!({"pattern": "["}), "INVALID_SCHEMA /pattern"),
        (json!({"pattern": "(x{1000}){1000}"}), "TOO_LARGE /pattern"),
        (json!({"patternProperties": {"(": {}}}), "INVALID_SCHEMA "),
        (json!({"items": 3}), "INVALID_SCHEMA /items"),
        (json!({"properties": many}), "TOO_LARGE /properties/p"),
        (json!({"description": "x".repeat(70_000)}), "TOO_LARGE "),
        (json!({"patternProperties": {"a": {}, "b": {"pattern": "c"}}}), "TOO_LARGE "),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a",
                "minLength": 3, "definitions": {"a": {}}}),
            "INVALID_SCHEMA /$ref",
        ),
    ] {
        let found = problems(&schema);
        let first = found.first().map(String::as_str).unwrap_or_default();
        assert!(first.starts_with(expect), "{schema}: {found:?}, not {expect}");
    }
}

#[test]
fn an_identifier_is_not_fetched() {
    check(
        json!({"$id": "http://127.0.0.1:1/x", "items": {"$ref": "#/$defs/n"},
            "$defs": {"n": {"type": "integer"}}}),
        &[(json!([1]), &[]), (json!([null]), &["context[0]: want integer, but got null"])],
    );
}

/// Schemas that are small and ask for very much.
#[test]
fn hostile_schemas_end_in_time() {
    let mut chain = json!({"$ref": "#/$defs/d0", "$defs": {"d60": {"type": "integer"}}});
    for n in 0..60 {
        let next = format!("#/$defs/d{}", n + 1);
        chain["$defs"][format!("d{n}")] = json!({"allOf": [{"$ref": next}, {"$ref": next}]});
    }
    let twice = json!({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}});
    let mut unevaluated = json!({"type": "object"});
    for _ in 0..12 {
        unevaluated = json!({"allOf": [unevaluated], "unevaluatedProperties": false});
    }
    let mut deep = json!(1);
    (0..60).for_each(|_| deep = json!([deep.take()]));
    let too_much = "context: is too large or too deep to be checked against its schema";
    let started = Instant::now();
    check(chain, &[(json!(1), &[too_much])]);
    check(twice, &[(json!([[[1]]]), &[]), (deep.clone(), &[too_much])]);
    check(unevaluated, &[(json!({}), &[])]);
    check(json!({"items": {"$ref": "#"}}), &[(deep, &[])]);
    let long = json!("ab".repeat(500_000));
    check(
        json!({"pattern": "^(a|b)*a(a|b){300}c$"}),
        &[(long, &["context: does not match the pattern \"^(a|b)*a(a|b){300}c$\""])],
    );
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// References behind references, on the stack of a test.
#[test]
fn a_long_chain_of_references() {
    let chain = |length: usize| {
        let last = format!("d{length}");
        let mut chain = json!({"$ref": "#/$defs/d0", "$defs": {last: {"items": {"$ref": "#"}}}});
        for n in 0..length {
            let next = format!("#/$defs/d{}", n + 1);
            chain["$defs"][format!("d{n}")] = json!({"allOf": [{"$ref": next}]});
        }
        chain
    };
    let too_much = "context: is too large or too deep to be checked against its schema";
    check(chain(240), &[(json!([]), &[]), (json!([[[[]]]]), &[too_much])]);
    check(chain(250), &[(json!([]), &[too_much])]);
}
