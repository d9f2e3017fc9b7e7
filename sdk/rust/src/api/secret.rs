use std::fmt;

use serde::Deserialize;

use crate::{StepError, code};

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A text that nothing prints: a token, a password, a key.
///
/// It has no `Display` and does not serialise; `Debug` shows that it is there.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret in a variable of the worker's environment. Templates and tasks are stored and
    /// shown: let them name the variable instead of holding what is in it.
    ///
    /// # Errors
    /// A retryable [`code::API_SECRET_MISSING`] if the worker has no such variable, or one that is
    /// empty or no text; another worker may have it.
    pub fn from_env(variable: &str) -> Result<Self, StepError> {
        match std::env::var(variable) {
            Ok(text) if !text.is_empty() => Ok(Self(text)),
            _ => {
                let message = format!("the worker's environment has no usable `{variable}`");
                Err(StepError::retryable(code::API_SECRET_MISSING, message))
            }
        }
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({HIDDEN})")
    }
}

/// Shorter texts keep nothing secret, and texts without them could not be read any more.
const SHORTEST_SECRET: usize = 4;

/// Takes the secrets of a client out of texts that others will read. A service may echo what it was
/// sent, so hiding our own headers is not enough.
#[derive(Clone, Default)]
pub(super) struct Scrubber {
    /// Longest first, so that a secret within another leaves nothing of that one.
    secrets: Vec<String>,
}

impl Scrubber {
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = Vec::new();
        for secret in secrets.into_iter().filter(|s| s.len() >= SHORTEST_SECRET) {
            // As it would stand within a JSON text, and within a URL.
            let quoted = serde_json::Value::from(secret.as_str()).to_string();
            let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            all.extend([quoted[1..quoted.len() - 1].to_owned(), encoded, secret]);
        }
        all.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self { secrets: all }
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }

    /// The same for the beginning of a text: what could be the first part of a secret at its end
    /// goes as well.
    pub(super) fn scrub_beginning(&self, text: &str) -> String {
        let mut text = self.scrub(text);
        let cut = |secret: &String| {
            let parts = secret.char_indices().skip(1).map(|(end, _)| &secret[..end]);
            parts.filter(|part| text.ends_with(part)).last().map_or(0, str::len)
        };
        let longest = self.secrets.iter().map(cut).max().unwrap_or(0);
        text.truncate(text.len() - longest);
        text
    }

    /// How many bytes the longest secret has: what must be read beyond a cut to find it whole.
    pub(super) fn reach(&self) -> usize {
        self.secrets.first().map_or(0, String::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let secret: Secret = serde_json::from_str("\"canary\"").expect("a text");
        assert_eq!((secret.expose(), format!("{secret:?}")), ("canary", "Secret(***)".to_owned()));
    }

    #[test]
    fn secrets_of_the_environment() {
        let path = Secret::from_env("PATH").expect("every process has one");
        assert_eq!(path.expose(), std::env::var("PATH").expect("as before"));
        let missing = Secret::from_env("TASKER_NO_SUCH_VARIABLE").expect_err("not there");
        assert_eq!((missing.code(), missing.is_retryable()), (code::API_SECRET_MISSING, true));
    }

    #[test]
    fn secrets_are_taken_out_of_texts() {
        let scrubber = Scrubber::new(["aa\"b", "aa\"b/c", "ing", ""].map(str::to_owned));
        let table = [
            ("x aa\"b y", "x *** y"),
            ("x aa\"b/c y", "x *** y"),
            ("{\"key\":\"aa\\\"b\"}", "{\"key\":\"***\"}"),
            ("?key=aa%22b%2Fc", "?key=***"),
            ("nothing", "nothing"),
        ];
        for (text, expect) in table {
            assert_eq!(scrubber.scrub(text), expect);
        }
        let scrubber = Scrubber::new(["canary".to_owned()]);
        for (text, expect) in
            [("x canar", "x "), ("x canary", "x ***"), ("can c", "can "), ("", "")]
        {
            assert_eq!(scrubber.scrub_beginning(text), expect);
        }
    }
}
