//! What a value without quotes means: the core schema of YAML 1.2 (section 10.3.2).

use super::yaml::{Content, Node};

/// The meaning of a node, with lists and mappings left closed.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning<'a> {
    Null,
    Boolean(bool),
    Integer(i128),
    Decimal(f64),
    /// A number that no type holds: too long, infinite, not a number.
    Unrepresentable,
    Text(&'a str),
    List,
    Mapping,
}

impl Meaning<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Meaning::Null => "nothing",
            Meaning::Boolean(_) => "a boolean",
            Meaning::Integer(_) | Meaning::Decimal(_) | Meaning::Unrepresentable => "a number",
            Meaning::Text(_) => "a text",
            Meaning::List => "a list",
            Meaning::Mapping => "a mapping",
        }
    }
}

pub(super) fn meaning(node: &Node) -> Meaning<'_> {
    match &node.content {
        Content::List(_) => Meaning::List,
        Content::Mapping(_) => Meaning::Mapping,
        Content::Scalar { text, plain: false } => Meaning::Text(text),
        Content::Scalar { text, plain: true } => plain(text),
    }
}

fn plain(text: &str) -> Meaning<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Boolean(true),
        "false" | "False" | "FALSE" => return Meaning::Boolean(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Meaning::Unrepresentable;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            let number = i128::from_str_radix(digits, radix);
            return number.map_or(Meaning::Unrepresentable, Meaning::Integer);
        }
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(Meaning::Unrepresentable, Meaning::Integer);
    }
    decimal(text, unsigned).unwrap_or(Meaning::Text(text))
}

/// Rust reads every decimal of YAML, and a few words that are not: those are kept out first.
fn decimal<'a>(text: &str, unsigned: &str) -> Option<Meaning<'a>> {
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.parse().ok().filter(|_| starts)?;
    Some(if number.is_finite() { Meaning::Decimal(number) } else { Meaning::Unrepresentable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        for (text, expect) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("True", Meaning::Boolean(true)),
            ("yes", Meaning::Text("yes")),
            ("on", Meaning::Text("on")),
            ("-12", Meaning::Integer(-12)),
            ("+7", Meaning::Integer(7)),
            ("0x1F", Meaning::Integer(31)),
            ("0o17", Meaning::Integer(15)),
            ("0x", Meaning::Text("0x")),
            ("1_000", Meaning::Text("1_000")),
            ("1.0", Meaning::Decimal(1.0)),
            (".5", Meaning::Decimal(0.5)),
            ("1e3", Meaning::Decimal(1000.0)),
            ("1.0.0", Meaning::Text("1.0.0")),
            ("inf", Meaning::Text("inf")),
            ("nan", Meaning::Text("nan")),
            ("-.inf", Meaning::Unrepresentable),
            (".nan", Meaning::Unrepresentable),
            ("1e999", Meaning::Unrepresentable),
            ("-", Meaning::Text("-")),
            (".", Meaning::Text(".")),
            ("2026-01-01", Meaning::Text("2026-01-01")),
        ] {
            assert_eq!(plain(text), expect, "{text}");
        }
        assert_eq!(plain(&"9".repeat(60)), Meaning::Unrepresentable);
    }
}
