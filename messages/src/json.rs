//! Strict reading of JSON from outside: bounded, without duplicate keys, without values that cannot
//! be stored.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use crate::{Problem, code, misfit};

/// Bounds of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of the text in bytes.
    pub max_bytes: usize,
    /// Nesting of arrays and objects.
    pub max_depth: u32,
}

impl Limits {
    /// The nesting allowed in any document from outside. `serde_json` stops at 128, but values are
    /// also walked and dropped recursively.
    pub const MAX_DEPTH: u32 = 64;

    /// Limits for a document of this size.
    pub const fn bytes(max_bytes: usize) -> Self {
        Self { max_bytes, max_depth: Self::MAX_DEPTH }
    }
}

/// Reads a document, refusing everything that would be lost or refused later.
///
/// # Errors
/// A problem with a code of [`crate::code`] and, for syntax errors, the line.
pub fn parse(text: &[u8], limits: Limits) -> Result<Value, Problem> {
    if text.len() > limits.max_bytes {
        return Err(too_large(text.len(), limits.max_bytes));
    }
    let text = utf8(text)?;
    scan(text, limits.max_depth)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    value.map_err(|e| syntax_problem(&e))
}

/// Reads a document of a known type as strictly as [`parse`]; it must be an object.
///
/// # Errors
/// A problem with a code of [`crate::code`], the field and the line.
pub fn read<T: DeserializeOwned>(text: &[u8], limits: Limits) -> Result<T, Problem> {
    if text.len() > limits.max_bytes {
        return Err(too_large(text.len(), limits.max_bytes));
    }
    let text = utf8(text)?;
    scan(text, limits.max_depth)?;
    audit(text, Twins::Refused)?;
    fit(text)
}

/// Whether a text is JSON that a value can hold.
fn audit(text: &str, twins: Twins) -> Result<(), Problem> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let audited = Audit(twins).deserialize(&mut reader).and_then(|()| reader.end());
    audited.map_err(|e| syntax_problem(&e))
}

/// Reads a document of a known type that carries what others wrote: values that are stored as their text
/// are judged one by one where they are stored, so that one of them does not spoil the others.
///
/// # Errors
/// As [`read`].
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    fit(utf8(text)?)
}

fn fit<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    // A list would pass for the object whose fields it holds in their order.
    if text.trim_start().starts_with('[') {
        return Err(Problem::new(code::WRONG_TYPE, "must be an object, not a list"));
    }
    let told = |error: serde_json::Error| match error.classify() {
        Category::Data => misfit::problem(text, &error),
        Category::Eof => syntax_problem(&error),
        // What is no value of a type may be called wrong syntax, too.
        Category::Syntax | Category::Io => {
            audit(text, Twins::Kept).err().unwrap_or_else(|| misfit::problem(text, &error))
        }
    };
    serde_json::from_str(text).map_err(told)
}

fn utf8(text: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(text).map_err(|e| {
        Problem::new(code::INVALID_ENCODING, format!("not UTF-8 from byte {}", e.valid_up_to()))
    })
}

/// Checks text that is known to be JSON: size, nesting, NUL characters, and what no reader of it could
/// hold: numbers beyond any type, halves of characters. In one pass without building a value; only a text
/// that may have such a number or half is read a second time.
pub fn inspect(text: &str, limits: Limits) -> Result<(), Problem> {
    if text.len() > limits.max_bytes {
        return Err(too_large(text.len(), limits.max_bytes));
    }
    match scan(text, limits.max_depth)? {
        Suspicion::None => Ok(()),
        Suspicion::Some => audit(text, Twins::Kept),
    }
}

fn too_large(bytes: usize, most: usize) -> Problem {
    Problem::new(code::TOO_LARGE, format!("{bytes} bytes are more than the limit of {most}"))
}

/// Whether a text may hold something that only a parser can judge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    None,
    Some,
}

/// So many digits in a row may be more than any number has: the largest float has 309.
const MANY_DIGITS: usize = 300;

/// Walks over the tokens that open, close or quote; everything else is left to the parser.
fn scan(text: &str, max_depth: u32) -> Result<Suspicion, Problem> {
    let bytes = text.as_bytes();
    let mut depth = 0_u32;
    let mut in_string = false;
    let mut at = 0;
    let mut digits = 0;
    let mut suspicion = Suspicion::None;
    while at < bytes.len() {
        match (in_string, bytes[at]) {
            (true, b'\\') => {
                if bytes[at..].starts_with(b"\\u0000") {
                    return Err(Problem::new(
                        code::NUL_CHARACTER,
                        "a text holds a NUL character (\\u0000), which cannot be stored",
                    ));
                }
                if let [_, b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..] =
                    bytes[at..]
                {
                    suspicion = Suspicion::Some;
                }
                at += 1;
            }
            (_, b'"') => in_string = !in_string,
            (false, b'0'..=b'9') => {
                digits += 1;
                if digits >= MANY_DIGITS {
                    suspicion = Suspicion::Some;
                }
            }
            (false, b'e' | b'E') if digits > 0 => suspicion = Suspicion::Some,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > max_depth {
                    let message = format!("nested deeper than the limit of {max_depth}");
                    return Err(Problem::new(code::TOO_DEEP, message));
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        // A point or a sign ends a run of digits, and so does whatever is no number.
        if in_string || !bytes.get(at).is_some_and(u8::is_ascii_digit) {
            digits = 0;
        }
        at += 1;
    }
    Ok(suspicion)
}

fn syntax_problem(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    // A line that ends within a text is over when it is refused.
    let line = error.line() - usize::from(error.line() > 1 && error.column() == 0);
    let line = u32::try_from(line).ok().filter(|&line| line > 0);
    let what = text.split(" at line ").next().unwrap_or(&text);
    let code = if what.starts_with(DUPLICATE) {
        code::DUPLICATE_KEY
    } else if what.starts_with("number out of range") {
        code::NUMBER_OUT_OF_RANGE
    } else if what.starts_with("recursion limit") {
        code::TOO_DEEP
    } else {
        code::INVALID_SYNTAX
    };
    Problem::new(code, format!("{what} (column {})", error.column())).on_line(line)
}

const DUPLICATE: &str = "duplicate key";

/// Builds a [`Value`] like `serde_json` does, but refuses duplicate keys.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("{DUPLICATE} {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// What becomes of two keys with one name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twins {
    Refused,
    Kept,
}

/// Walks over a document like [`Strict`] does, without keeping it.
#[derive(Clone, Copy)]
struct Audit(Twins);

impl<'de> DeserializeSeed<'de> for Audit {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Audit {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(self)?;
            if self.0 == Twins::Kept {
                continue;
            }
            if let Some(key) = seen.replace(key) {
                return Err(de::Error::custom(format!("{DUPLICATE} {key:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: impl AsRef<[u8]>, expect: Result<Value, &str>) {
        let text = text.as_ref();
        let got = parse(text, Limits { max_bytes: 400, max_depth: 3 });
        let got = got.as_ref().map_err(|p| p.code.as_str());
        assert_eq!(got, expect.as_ref().map_err(|&c| c), "{}", String::from_utf8_lossy(text));
    }

    #[test]
    fn strict_documents() {
        check(
            "{\"a\": [1, -2, 0.5, \"x\", null, true]}",
            Ok(serde_json::json!({"a": [1, -2, 0.5, "x", null, true]})),
        );
        check("[[[]]]", Ok(serde_json::json!([[[]]])));
        check("[[[[]]]]", Err(code::TOO_DEEP));
        check("\"[[[[[[\"", Ok(serde_json::json!("[[[[[[")));
        check("{\"a\":1,\"a\":2}", Err(code::DUPLICATE_KEY));
        check("{\"a\":1,\"\\u0061\":2}", Err(code::DUPLICATE_KEY));
        check("[1e400]", Err(code::NUMBER_OUT_OF_RANGE));
        check("\"a\\u0000b\"", Err(code::NUL_CHARACTER));
        check("\"a\\\\u0000b\"", Ok(serde_json::json!("a\\u0000b")));
        check("{\"a\":}", Err(code::INVALID_SYNTAX));
        check("{} {}", Err(code::INVALID_SYNTAX));
        check("", Err(code::INVALID_SYNTAX));
        check(b"\"\xff\"", Err(code::INVALID_ENCODING));
        check("1".repeat(401), Err(code::TOO_LARGE));
        check("[\"\\\"[[[[\"]", Ok(serde_json::json!(["\"[[[["])));
    }

    #[test]
    fn what_no_value_can_hold_is_not_stored() {
        let table = [
            (
                "{\"a\":1,\"a\":[1e5,-2.5E-7,\"\\ud83d\\ude00\",\"1e400\",\"\\\\ud800\"]}"
                    .to_owned(),
                None,
            ),
            ("9".repeat(309), Some(code::NUMBER_OUT_OF_RANGE)),
            (format!("[0.{}]", "9".repeat(1_000)), None),
            ("{\"a\":1e400}".to_owned(), Some(code::NUMBER_OUT_OF_RANGE)),
            ("[-1E+999]".to_owned(), Some(code::NUMBER_OUT_OF_RANGE)),
            ("\"\\ud800\"".to_owned(), Some(code::INVALID_SYNTAX)),
            ("\"\\uDC00x\"".to_owned(), Some(code::INVALID_SYNTAX)),
            ("{\"\\udfff\":1}".to_owned(), Some(code::INVALID_SYNTAX)),
        ];
        for (text, expect) in table {
            let got = inspect(&text, Limits::bytes(10_000)).err().map(|problem| problem.code);
            assert_eq!(got.as_deref(), expect, "{text}");
            // What passes can be read.
            assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), expect.is_none(), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let problem = parse(b"{\n\"a\": 1,\n}", Limits::bytes(100)).expect_err("a trailing comma");
        assert_eq!(problem.line, Some(3));
    }
}
