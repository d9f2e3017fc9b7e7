//! Documents from outside, read as the nodes read them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_messages::json::{self, Limits};
use tasker_messages::{
    DrainWorker, Namespace, PlanTemplate, Problem, Purge, RepairStep, Retry, SetNamespace,
    TaskRequest, check_reason,
};

/// What is wrong with a document, one problem or several.
pub type Problems = Vec<Problem>;

/// The limit that `http.max_body_bytes` has if nobody says otherwise.
const MAX_BODY: usize = 1_200_000;

/// Reads the body of a request to the HTTP API, or a submission over NATS (`task@<namespace>`).
/// Answers with what was understood, written again.
///
/// # Errors
/// What is wrong with it.
///
/// # Panics
/// If there are no such bodies.
pub fn read_body(kind: &str, body: &[u8]) -> Result<String, Problems> {
    let limits = Limits::bytes(MAX_BODY);
    match kind {
        "repair" => typed(body, limits, |r: &RepairStep| check_reason(&r.reason, r.by.as_deref())),
        "retry" => typed(body, limits, |r: &Retry| check_reason(&r.reason, r.by.as_deref())),
        "drain" => typed(body, limits, |r: &DrainWorker| check_reason(&r.reason, r.by.as_deref())),
        "purge" => typed(body, limits, |r: &Purge| {
            check_reason(&r.reason, r.by.as_deref()).and_then(|()| r.check())
        }),
        "namespace" => typed(body, limits, |r: &SetNamespace| {
            check_reason(&r.reason, r.by.as_deref()).and_then(|()| r.check())
        }),
        "plan" => typed(body, Limits::bytes(PlanTemplate::MAX_BYTES), |_: &PlanTemplate| Ok(())),
        task => {
            let namespace = match task.split_once('@') {
                Some(("task", namespace)) => namespace.parse::<Namespace>().ok(),
                _ if task == "task" => None,
                _ => panic!("no body of the kind `{task}`"),
            };
            TaskRequest::parse(body, namespace.as_ref()).map(|request| written(&request))
        }
    }
}

fn typed<T: DeserializeOwned + Serialize>(
    body: &[u8],
    limits: Limits,
    check: impl Fn(&T) -> Result<(), Problem>,
) -> Result<String, Problems> {
    let read = json::read::<T>(body, limits).and_then(|document| {
        check(&document)?;
        Ok(written(&document))
    });
    read.map_err(|problem| vec![problem])
}

/// A message as it is sent.
///
/// # Panics
/// If it cannot be written, which is a fault of its type.
pub(crate) fn written<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap_or_else(|error| panic!("not written: {error}"))
}
