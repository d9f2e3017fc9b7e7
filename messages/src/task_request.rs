//! Submission of a task.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{self, Limits};
use crate::suggest::nearest;
use crate::{Identity, Namespace, Problem, StepName, TaskId, code};

/// A request to run a template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskRequest {
    /// The template's name.
    pub name: StepName,
    /// The template's namespace.
    pub namespace: Namespace,
    /// The template's version; the newest if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the handlers see as input: a JSON object.
    pub context: Value,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// Which system asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_system: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// -100 to 100; higher runs earlier. 0 if not given.
    pub priority: i8,
    /// Ties together what belongs to one cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The cause of this cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_correlation_id: Option<String>,
    /// The same key in the same namespace never makes a second task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What makes another submission the same; `None`: the key, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// The answer to a submission, sent after COMMIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The task.
    pub id: TaskId,
    /// Whether this request made it; `false` if its identity found it.
    pub created: bool,
    /// What may keep it from going on, for people: steps that no live worker could run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Read a task, on `tasker.task.get.<namespace>`. Answered with a [`crate::TaskView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetTask {
    /// The task.
    pub id: TaskId,
}

/// Wait until a task is terminal, on `tasker.task.wait.<namespace>`. Answered with the
/// [`crate::TaskView`] as it is when the task ends or the time is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitTask {
    /// The task.
    pub id: TaskId,
    /// How long to wait, at most 30,000 ms.
    pub timeout_ms: u32,
}

const KEYS: [&str; 13] = [
    "name",
    "namespace",
    "version",
    "context",
    "initiator",
    "source_system",
    "reason",
    "tags",
    "priority",
    "correlation_id",
    "parent_correlation_id",
    "idempotency_key",
    "identity",
];

/// Longest free text of a request (reason, tags, keys) in bytes.
const MAX_TEXT: usize = 512;
/// Unknown keys that are reported: a hostile document could have a hundred thousand.
const MAX_UNKNOWN: usize = 200;
/// Most tags of a request.
const MAX_TAGS: usize = 64;

impl TaskRequest {
    /// The longest idempotency key in bytes, whichever way it comes.
    pub const MAX_KEY_BYTES: usize = MAX_TEXT;

    /// Most bytes of a task's context as JSON text.
    pub const MAX_CONTEXT_BYTES: usize = 1024 * 1024;

    /// Bounds of a request as a document: the context and room for the rest.
    pub const LIMITS: Limits = Limits::bytes(Self::MAX_CONTEXT_BYTES + 64 * 1024);

    /// Checks an idempotency key that comes beside the document, in a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_key(key: &str) -> Result<(), Problem> {
        let problem = |code, message: String| Problem::new(code, message).at("idempotency_key");
        if key.contains('\0') {
            let message = "holds a NUL character, which cannot be stored".to_owned();
            return Err(problem(code::NUL_CHARACTER, message));
        }
        if key.is_empty() || key.len() > Self::MAX_KEY_BYTES {
            let message =
                format!("must be 1 to {} bytes long, not {}", Self::MAX_KEY_BYTES, key.len());
            return Err(problem(code::INVALID_VALUE, message));
        }
        Ok(())
    }

    /// Reads a request. `namespace` is the one of the subject or credential; where there is none,
    /// the document must name it.
    ///
    /// # Errors
    /// Everything that is wrong with the document, each with its field.
    pub fn parse(text: &[u8], namespace: Option<&Namespace>) -> Result<Self, Vec<Problem>> {
        let document = match json::parse(text, Self::LIMITS).map_err(|p| vec![p])? {
            Value::Object(map) => map,
            other => return Err(vec![wrong_type("", "an object", &other)]),
        };
        let mut reader = Reader { document, problems: Vec::new() };
        let request = reader.request(namespace);
        match request {
            Some(request) if reader.problems.is_empty() => Ok(request),
            _ => Err(reader.problems),
        }
    }
}

/// Takes fields out of a document and gathers what is wrong with them.
struct Reader {
    document: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Reader {
    fn request(&mut self, namespace: Option<&Namespace>) -> Option<TaskRequest> {
        self.refuse_unknown_keys();
        let name = self.required_name("name").and_then(|text| self.name("name", &text));
        let namespace = self.namespace(namespace);
        let request = TaskRequest {
            version: self.text("version"),
            context: self.context(),
            initiator: self.text("initiator"),
            source_system: self.text("source_system"),
            reason: self.text("reason"),
            tags: self.tags(),
            priority: self.priority(),
            correlation_id: self.text("correlation_id"),
            parent_correlation_id: self.text("parent_correlation_id"),
            identity: self.identity(),
            idempotency_key: self.text("idempotency_key"),
            name: name?,
            namespace: namespace?,
        };
        Some(request)
    }

    fn refuse_unknown_keys(&mut self) {
        let unknown = || self.document.keys().filter(|key| !KEYS.contains(&key.as_str()));
        let left_out = unknown().count().saturating_sub(MAX_UNKNOWN);
        for key in unknown().take(MAX_UNKNOWN) {
            let near =
                nearest(key, KEYS).map_or(String::new(), |k| format!("; did you mean `{k}`?"));
            let short: String = key.chars().take(60).collect();
            let message = format!("unknown key {short:?}{near}");
            let field = short.escape_debug().to_string();
            self.problems.push(Problem::new(code::UNKNOWN_KEY, message).at(field));
        }
        if let Some(last) = self.problems.last_mut().filter(|_| left_out > 0) {
            last.message.push_str(&format!(" (and {left_out} more that are not shown)"));
        }
    }

    fn namespace(&mut self, given: Option<&Namespace>) -> Option<Namespace> {
        let is_named = self.document.get("namespace").is_some_and(|named| !named.is_null());
        let named = match given {
            None => self.required_name("namespace")?,
            Some(given) if !is_named => return Some(given.clone()),
            Some(_) => self.any_text("namespace")?,
        };
        let named = match Namespace::new(&named) {
            Ok(named) => named,
            Err(error) => {
                self.problems
                    .push(Problem::new(code::INVALID_NAME, error.to_string()).at("namespace"));
                return None;
            }
        };
        if given.is_some_and(|given| *given != named) {
            let message = format!("`{named}` is not the namespace of this subject or credential");
            self.problems.push(Problem::new(code::FOREIGN_NAMESPACE, message).at("namespace"));
            return None;
        }
        Some(named)
    }

    fn name(&mut self, field: &str, text: &str) -> Option<StepName> {
        StepName::new(text)
            .map_err(|e| {
                self.problems.push(Problem::new(code::INVALID_NAME, e.to_string()).at(field))
            })
            .ok()
    }

    /// A text whose own rule says how long it may be.
    fn required_name(&mut self, field: &str) -> Option<String> {
        if matches!(self.document.get(field), None | Some(Value::Null)) {
            let message = format!("`{field}` is missing");
            self.problems.push(Problem::new(code::MISSING_KEY, message).at(field));
        }
        self.any_text(field)
    }

    fn text(&mut self, field: &str) -> Option<String> {
        self.any_text(field).and_then(|text| self.bounded(field, text))
    }

    fn any_text(&mut self, field: &str) -> Option<String> {
        match self.document.remove(field)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                self.problems.push(wrong_type(field, "a text", &other));
                None
            }
        }
    }

    fn bounded(&mut self, field: &str, text: String) -> Option<String> {
        if text.is_empty() || text.len() > MAX_TEXT {
            let message = format!("must be 1 to {MAX_TEXT} bytes long, not {}", text.len());
            self.problems.push(Problem::new(code::INVALID_VALUE, message).at(field));
            return None;
        }
        Some(text)
    }

    fn context(&mut self) -> Value {
        match self.document.remove("context") {
            None => {
                let message = "`context` is missing; give {} if the handlers need no input";
                self.problems.push(Problem::new(code::MISSING_KEY, message).at("context"));
                Value::Null
            }
            Some(context @ Value::Object(_)) => {
                let bytes = context.to_string().len();
                if bytes > TaskRequest::MAX_CONTEXT_BYTES {
                    let message = format!(
                        "{bytes} bytes are more than the limit of {}",
                        TaskRequest::MAX_CONTEXT_BYTES
                    );
                    self.problems.push(Problem::new(code::TOO_LARGE, message).at("context"));
                }
                context
            }
            Some(other) => {
                self.problems.push(wrong_type("context", "an object", &other));
                Value::Null
            }
        }
    }

    /// Read before the key, which must fit it.
    fn identity(&mut self) -> Option<Identity> {
        let text = self.text("identity")?;
        let Ok(identity) = text.parse::<Identity>() else {
            let names = Identity::ALL.iter().map(|identity| identity.as_str());
            let near = nearest(&text, names.clone())
                .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            let all = names.collect::<Vec<_>>().join(", ");
            let message = format!("must be one of {all}{near}");
            self.problems.push(Problem::new(code::INVALID_VALUE, message).at("identity"));
            return None;
        };
        let has_key = self.document.get("idempotency_key").is_some_and(|key| !key.is_null());
        if has_key && identity != Identity::CallerProvided {
            let message =
                format!("`{identity}` has no use for an idempotency_key; remove one of them");
            let problem = Problem::new(code::CONFLICTING_KEYS, message).at("idempotency_key");
            self.problems.push(problem);
        }
        Some(identity)
    }

    fn tags(&mut self) -> Vec<String> {
        let items = match self.document.remove("tags") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.problems.push(wrong_type("tags", "a list of texts", &other));
                return Vec::new();
            }
        };
        if items.len() > MAX_TAGS {
            let message = format!("{} tags are more than the limit of {MAX_TAGS}", items.len());
            self.problems.push(Problem::new(code::TOO_LARGE, message).at("tags"));
            return Vec::new();
        }
        let mut tags = Vec::with_capacity(items.len());
        for (n, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => tags.extend(self.bounded(&format!("tags[{n}]"), text)),
                other => self.problems.push(wrong_type(&format!("tags[{n}]"), "a text", &other)),
            }
        }
        tags
    }

    fn priority(&mut self) -> i8 {
        let value = match self.document.remove("priority") {
            None | Some(Value::Null) => return 0,
            Some(value) => value,
        };
        if let Some(n @ -100..=100) = value.as_i64() {
            return n as i8;
        }
        // An integer that is too long for one has become a float.
        let problem = match value.as_f64().filter(|number| number.abs() > 100.0) {
            Some(_) => {
                let message = format!("must be -100 to 100, not {value}");
                Problem::new(code::INVALID_VALUE, message).at("priority")
            }
            None => wrong_type("priority", "an integer", &value),
        };
        self.problems.push(problem);
        0
    }
}

fn wrong_type(field: &str, expected: &str, got: &Value) -> Problem {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Problem::new(code::WRONG_TYPE, format!("must be {expected}, not {got}")).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &str)]) {
        let problems = TaskRequest::parse(text.as_bytes(), None).err().unwrap_or_default();
        let got: Vec<_> = problems.iter().map(|p| (p.code.as_str(), p.field.as_str())).collect();
        assert_eq!(got, expect, "{text}: {problems:?}");
    }

    #[test]
    fn requests() {
        check(r#"{"name":"a","namespace":"n","context":{}}"#, &[]);
        check(r#"{"name":"a","namespace":"n","context":{},"priority":-100,"tags":["x"]}"#, &[]);
        check(r#"{"name":"a","context":{}}"#, &[(code::MISSING_KEY, "namespace")]);
        check(r#"{"name":null,"namespace":"n","context":{}}"#, &[(code::MISSING_KEY, "name")]);
        check(
            r#"{"name":"a b","namespace":"N","context":[]}"#,
            &[
                (code::INVALID_NAME, "name"),
                (code::INVALID_NAME, "namespace"),
                (code::WRONG_TYPE, "context"),
            ],
        );
        check(
            r#"{"name":"a","namespace":"n","context":{},"prioritty":1}"#,
            &[(code::UNKNOWN_KEY, "prioritty")],
        );
        check(
            r#"{"name":"a","namespace":"n","context":{},"priority":101}"#,
            &[(code::INVALID_VALUE, "priority")],
        );
        check(
            r#"{"name":"a","namespace":"n","context":{},"priority":1.5}"#,
            &[(code::WRONG_TYPE, "priority")],
        );
        check(r#"{"name":"a","namespace":"n","context":{},"identity":"strict"}"#, &[]);
        check(
            r#"{"name":"a","namespace":"n","context":{},"identity":"strickt"}"#,
            &[(code::INVALID_VALUE, "identity")],
        );
        for identity in ["strict", "always_unique"] {
            check(
                &format!(
                    r#"{{"name":"a","namespace":"n","context":{{}},"identity":"{identity}",
                        "idempotency_key":"k"}}"#
                ),
                &[(code::CONFLICTING_KEYS, "idempotency_key")],
            );
        }
        check("[]", &[(code::WRONG_TYPE, "")]);
    }

    #[test]
    fn the_subject_decides_the_namespace() {
        let ns: Namespace = "mine".parse().expect("a token");
        let parse = |text: &str| TaskRequest::parse(text.as_bytes(), Some(&ns));
        for document in
            [r#"{"name":"a","context":{}}"#, r#"{"name":"a","namespace":null,"context":{}}"#]
        {
            assert_eq!(parse(document).expect("valid").namespace, ns);
        }
        let problems =
            parse(r#"{"name":"a","namespace":"other","context":{}}"#).expect_err("foreign");
        assert_eq!(problems[0].code, code::FOREIGN_NAMESPACE);
    }
}
