//! Comparison of whole JSON documents.

use serde_json::Value;

/// How far two floats may be apart, relative to the larger one.
const TOLERANCE: f64 = 1e-9;

/// Where two documents differ first; `None` if nowhere.
///
/// A number that is expected as an integer must be that integer, one that is expected as a float
/// may differ by 1e-9 of its value, unless it stands under one of the `exact` keys (money).
/// Everything else must be equal, the keys of objects included.
pub fn difference(got: &Value, expect: &Value, exact: &[&str]) -> Option<String> {
    differ("", got, expect, exact, false)
}

/// Asserts that [`difference`] finds none.
///
/// # Panics
/// If the documents differ.
#[track_caller]
pub fn assert_same(got: &Value, expect: &Value, exact: &[&str]) {
    if let Some(difference) = difference(got, expect, exact) {
        panic!("{difference}\n   got {got}\nexpect {expect}");
    }
}

fn differ(
    path: &str,
    got: &Value,
    expect: &Value,
    exact: &[&str],
    is_exact: bool,
) -> Option<String> {
    match (got, expect) {
        (Value::Object(got), Value::Object(expect)) => {
            let mut keys: Vec<&String> = got.keys().chain(expect.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            keys.into_iter().find_map(|key| match (got.get(key), expect.get(key)) {
                (Some(got), Some(expect)) => {
                    let is_exact = exact.contains(&key.as_str());
                    differ(&format!("{path}.{key}"), got, expect, exact, is_exact)
                }
                (Some(_), None) => Some(format!("{path}.{key} is not expected")),
                (None, _) => Some(format!("{path}.{key} is missing")),
            })
        }
        (Value::Array(got), Value::Array(expect)) if got.len() == expect.len() => {
            let pairs = got.iter().zip(expect).enumerate();
            pairs.into_iter().find_map(|(n, (got, expect))| {
                differ(&format!("{path}[{n}]"), got, expect, exact, is_exact)
            })
        }
        (Value::Number(a), Value::Number(b)) if b.is_f64() && !is_exact => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            let close = (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
            (!close).then(|| format!("{path} is {a}, not {b}"))
        }
        _ => (got != expect).then(|| format!("{path} is {got}, not {expect}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(got: &Value, expect: &Value, differ: Option<&str>) {
        assert_eq!(difference(got, expect, &["cents"]).as_deref(), differ, "{got} {expect}");
    }

    #[test]
    fn documents() {
        check(&json!({"a": [1, "x", null]}), &json!({"a": [1, "x", null]}), None);
        check(&json!({"a": 1}), &json!({"a": 1, "b": null}), Some(".b is missing"));
        check(&json!({"a": 1, "b": 2}), &json!({"a": 1}), Some(".b is not expected"));
        check(&json!([1.0]), &json!([1]), Some("[0] is 1.0, not 1"));
        check(&json!([1, 2]), &json!([1]), Some(" is [1,2], not [1]"));
        check(&json!([1.0 + 1e-12]), &json!([1.0]), None);
        check(&json!([1.0 + 1e-8]), &json!([1.0]), Some("[0] is 1.00000001, not 1"));
        check(&json!([1]), &json!([1.0]), None);
        check(&json!([0.00001]), &json!([0.0]), Some("[0] is 0.00001, not 0"));
        let (got, expect) = (json!({"cents": 0.1 + 0.2}), json!({"cents": 0.3}));
        check(&got, &expect, Some(".cents is 0.30000000000000004, not 0.3"));
    }
}
