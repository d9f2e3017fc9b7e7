//! Keys of outcomes that do not belong where they stand.

use serde_json::{Map, Value};
use tasker_messages::nearest;

/// What is wrong with the first key that is not among `own`: where it belongs if it is one of `others`,
/// else the nearest one that exists.
pub(crate) fn stray_key(
    keys: &Map<String, Value>,
    owner: &str,
    own: &[&str],
    others: &[&str],
) -> Option<String> {
    let key = keys.keys().find(|key| !own.contains(&key.as_str()))?;
    if others.contains(&key.as_str()) {
        return Some(format!("`{key}` does not belong to `{owner}`"));
    }
    let near = nearest(key, own.iter().copied())
        .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    let key: String = key.chars().take(60).collect();
    Some(format!("unknown key {key:?}{near}"))
}
