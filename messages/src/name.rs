//! Names that become part of subjects and identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {}: must match {rule}", shown(.name))]
pub struct InvalidName {
    what: &'static str,
    name: String,
    rule: &'static str,
}

/// A hostile name may be long or hold control characters; an error shows a short, escaped form.
fn shown(name: &str) -> String {
    let head: String = name.chars().take(60).collect();
    let tail = if head.len() < name.len() { "…" } else { "" };
    format!("{head:?}{tail}")
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// Checks a name against its rule.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                if $valid(name) {
                    Ok(Self(name.into()))
                } else {
                    Err(InvalidName { what: $what, name: name.to_owned(), rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, Self::Error> {
                Self::new(&name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.into()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A namespace: one token of a subject, the unit of permissions and limits.
    Namespace, "namespace", "[a-z0-9][a-z0-9_-]{0,47}", is_subject_token
);
name!(
    /// A queue (handler group) inside a namespace: one token of a subject.
    Queue, "queue", "[a-z0-9][a-z0-9_-]{0,47}", is_subject_token
);
name!(
    /// The name of a step or a template.
    StepName, "name", "[A-Za-z0-9][A-Za-z0-9_-]{0,127}", is_step_name
);

name!(
    /// The name of a domain event: the last tokens of its subject.
    EventName, "event name", "[A-Za-z0-9][A-Za-z0-9_-]*, such words joined by dots, at most 128 bytes",
    is_event_name
);

impl Default for Queue {
    fn default() -> Self {
        Self("default".into())
    }
}

fn is_subject_token(name: &str) -> bool {
    let bytes = name.as_bytes();
    let tail = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=48).contains(&bytes.len())
        && matches!(bytes[0], b'a'..=b'z' | b'0'..=b'9')
        && bytes.iter().all(tail)
}

fn is_step_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let tail = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=128).contains(&bytes.len()) && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(tail)
}

fn is_event_name(name: &str) -> bool {
    let is_word = |word: &str| {
        let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && word.bytes().all(tail)
    };
    name.len() <= 128 && name.split('.').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names() {
        let long = "a".repeat(128);
        for good in ["a", "0", "order_charged", "Order-Charged", "order.charged.v2", &long] {
            assert!(EventName::new(good).is_ok(), "{good}");
        }
        let longer = "a".repeat(129);
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "*",
            "a.*",
            ">",
            "a.>",
            "a b",
            "a\tb",
            "a\r\nPUB x 0",
            "_a",
            "a.-b",
            "$SYS",
            "a.$b",
            "é",
            "a\0",
            &longer,
        ] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn subject_tokens() {
        let long = "a".repeat(48);
        for good in ["a", "0", "csv_processing", "a-b", long.as_str()] {
            assert!(Namespace::new(good).is_ok(), "{good}");
        }
        let longer = "a".repeat(49);
        for bad in ["", "_a", "-a", "A", "a.b", "a*", ">", "a b", "é", "$JS", "a\0", &longer] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        let error = Namespace::new(&"\u{1b}[2J".repeat(100)).expect_err("not a token").to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 700, "{error}");
    }
}
