//! Namespaces and their limits, as people see and set them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::repair::{MAX_PROSE_BYTES, is_prose};
use crate::{Namespace, Problem, Queue, code};

/// A page of namespaces, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceList {
    /// The namespaces.
    pub namespaces: Vec<NamespaceView>,
    /// Where the next page begins after; nothing if this is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Namespace>,
}

/// A namespace with its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceView {
    /// Its name.
    pub name: Namespace,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// How many of its tasks may be open at a time; nothing if there is no such limit.
    #[serde(default)]
    pub max_open_tasks: Option<u32>,
    /// How many of its steps workers may hold at a time, of all queues together; nothing if there is no
    /// such limit.
    #[serde(default)]
    pub max_running: Option<u32>,
    /// How many of its tasks are open now.
    pub open_tasks: u64,
    /// Its queues that have a limit.
    pub queues: BTreeMap<Queue, QueueLimits>,
}

/// The limits of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLimits {
    /// How many of its steps workers may hold at a time.
    pub max_running: u32,
}

/// What is to change about a namespace: the body of `PUT /v1/namespaces/{name}`. What is left out
/// stays as it is, null removes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNamespace {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub description: Option<Option<String>>,
    /// How many of its tasks may be open at a time, from 1 to [`SetNamespace::MOST`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_open_tasks: Option<Option<i64>>,
    /// How many of its steps workers may hold at a time, from 1 to [`SetNamespace::MOST`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_running: Option<Option<i64>>,
    /// Queues whose limits change, at most [`SetNamespace::MOST_QUEUES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queues: BTreeMap<Queue, SetQueue>,
    /// Why; kept in the audit trail.
    pub reason: String,
    /// Who asks; kept in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is to change about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetQueue {
    /// How many of its steps workers may hold at a time, from 1 to [`SetNamespace::MOST`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_running: Option<Option<i64>>,
}

impl SetNamespace {
    /// The highest limit.
    pub const MOST: i64 = i32::MAX as i64;
    /// Queues that can be named at a time.
    pub const MOST_QUEUES: usize = 1_000;

    /// Checks everything but the reason.
    ///
    /// # Errors
    /// The first value that is outside of its bounds.
    pub fn check(&self) -> Result<(), Problem> {
        let invalid =
            |field: &str, message: String| Problem::new(code::INVALID_VALUE, message).at(field);
        let described = self.description.as_ref().and_then(Option::as_deref);
        if described.is_some_and(|text| !is_prose(text)) {
            let message = format!("must be 1 to {MAX_PROSE_BYTES} bytes of text");
            return Err(invalid("description", message));
        }
        if self.queues.len() > Self::MOST_QUEUES {
            return Err(invalid("queues", format!("must be at most {}", Self::MOST_QUEUES)));
        }
        let open = ("max_open_tasks".to_owned(), self.max_open_tasks.flatten());
        let all = ("max_running".to_owned(), self.max_running.flatten());
        let running = self.queues.iter().map(|(queue, wish)| {
            (format!("queues.{queue}.max_running"), wish.max_running.flatten())
        });
        for (field, limit) in [open, all].into_iter().chain(running) {
            if limit.is_some_and(|limit| !(1..=Self::MOST).contains(&limit)) {
                let message = format!("must be null, for none, or 1 to {}", Self::MOST);
                return Err(invalid(&field, message));
            }
        }
        Ok(())
    }
}

/// A key that is there, be it with null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_left_out_is_not_null() {
        let queue = Queue::new("gpu").expect("a queue");
        let set = |max_open_tasks, queues: &[(&Queue, Option<Option<i64>>)]| SetNamespace {
            max_open_tasks,
            queues: queues
                .iter()
                .map(|&(queue, max_running)| (queue.clone(), SetQueue { max_running }))
                .collect(),
            reason: "r".to_owned(),
            ..SetNamespace::default()
        };
        let table = [
            (json!({"reason": "r"}), set(None, &[])),
            (json!({"reason": "r", "max_open_tasks": null}), set(Some(None), &[])),
            (json!({"reason": "r", "max_open_tasks": 7}), set(Some(Some(7)), &[])),
            (
                json!({"reason": "r", "queues": {"gpu": {"max_running": null}}}),
                set(None, &[(&queue, Some(None))]),
            ),
            (
                json!({"reason": "r", "queues": {"gpu": {"max_running": 3}}}),
                set(None, &[(&queue, Some(Some(3)))]),
            ),
        ];
        for (document, expect) in table {
            let read: SetNamespace = serde_json::from_value(document.clone()).expect("read");
            assert_eq!(read, expect, "{document}");
            assert_eq!(serde_json::to_value(&read).expect("written"), document);
        }
        let refused: [Value; 4] = [
            json!({}),
            json!({"reason": "r", "max_tasks": 1}),
            json!({"reason": "r", "queues": {"gpu": {"running": 1}}}),
            json!({"reason": "r", "queues": {"G P U": {"max_running": 1}}}),
        ];
        for document in refused {
            serde_json::from_value::<SetNamespace>(document.clone()).expect_err("is refused");
        }
    }
}
