//! Submissions that are wrong in some way: each is refused with a status, a code and, where there
//! is one, the field; none makes a task.

use std::collections::HashSet;

use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::Cluster;
use uuid::Uuid;

const JSON: (&str, &[u8]) = ("content-type", b"application/json");

/// A submission as it is sent, and what is answered.
struct Case {
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// Of the first problem; empty for the document as a whole.
    field: &'static str,
}

fn raw(body: impl AsRef<[u8]>, code: &'static str, field: &'static str) -> Case {
    let status = match code {
        code::TOO_LARGE => 413,
        code::TEMPLATE_NOT_FOUND => 404,
        _ => 400,
    };
    let headers = vec![(JSON.0, JSON.1.to_vec())];
    Case { headers, body: body.as_ref().to_vec(), status, code, field }
}

/// A submission that would be accepted but for one key.
fn with(key: &'static str, value: Value, code: &'static str, field: &'static str) -> Case {
    let mut document = good();
    document[key] = value;
    raw(document.to_string(), code, field)
}

/// A submission that lacks one key.
fn lacking(key: &'static str) -> Case {
    let mut document = good();
    document.as_object_mut().expect("an object").remove(key);
    raw(document.to_string(), code::MISSING_KEY, key)
}

/// A good submission with another header.
fn header(name: &'static str, value: impl AsRef<[u8]>, code: &'static str) -> Case {
    let mut case = raw(good().to_string(), code, "Idempotency-Key");
    case.headers.push((name, value.as_ref().to_vec()));
    case
}

fn media_type(value: &str) -> Case {
    let mut case = raw(good().to_string(), code::INVALID_REQUEST, "");
    case.headers = vec![(JSON.0, value.as_bytes().to_vec())];
    case.status = 415;
    case
}

/// What all cases are a change of. The reason tells whether a task came of it after all.
fn good() -> Value {
    json!({"namespace": "bench", "name": "chain", "context": {"start": 1}, "reason": "refused"})
}

/// A good submission as text, with more in its context.
fn in_context(text: &str) -> String {
    format!(
        "{{\"namespace\":\"bench\",\"name\":\"chain\",\"context\":{{\"start\":1,\"a\":{text}}}}}"
    )
}

fn documents() -> Vec<Case> {
    let deep = |n: usize| in_context(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
    vec![
        raw("", code::INVALID_SYNTAX, ""),
        raw("null", code::WRONG_TYPE, ""),
        raw("[]", code::WRONG_TYPE, ""),
        raw("\"chain\"", code::WRONG_TYPE, ""),
        raw("{", code::INVALID_SYNTAX, ""),
        raw("{}{}", code::INVALID_SYNTAX, ""),
        raw("{'name': 'chain'}", code::INVALID_SYNTAX, ""),
        raw("{\"name\": \"chain\",}", code::INVALID_SYNTAX, ""),
        raw(b"{\"name\":\"\xff\"}", code::INVALID_ENCODING, ""),
        raw(b"\xef\xbb\xbf{}", code::INVALID_SYNTAX, ""),
        raw(deep(63), code::TOO_DEEP, ""),
        raw(deep(100_000), code::TOO_DEEP, ""),
        raw("[".repeat(500_000), code::TOO_DEEP, ""),
        raw(in_context("1e400"), code::NUMBER_OUT_OF_RANGE, ""),
        raw(in_context("-1e999"), code::NUMBER_OUT_OF_RANGE, ""),
        raw(in_context("NaN"), code::INVALID_SYNTAX, ""),
        raw(in_context("01"), code::INVALID_SYNTAX, ""),
        raw(in_context("\"\\u0000\""), code::NUL_CHARACTER, ""),
        raw(in_context("{\"\\u0000\":1}"), code::NUL_CHARACTER, ""),
        raw(in_context("\"\\ud800\""), code::INVALID_SYNTAX, ""),
        raw(in_context("\"\u{1}\""), code::INVALID_SYNTAX, ""),
        raw(in_context("1,\"a\":2"), code::DUPLICATE_KEY, ""),
        raw(in_context("{\"b\":1,\"\\u0062\":2}"), code::DUPLICATE_KEY, ""),
        raw("{\"name\":\"chain\",\"name\":\"chain\"}", code::DUPLICATE_KEY, ""),
        raw(in_context(&json!("x".repeat(1_048_577)).to_string()), code::TOO_LARGE, "context"),
        raw(in_context(&json!("x".repeat(1_120_000)).to_string()), code::TOO_LARGE, ""),
        raw("x".repeat(2_000_000), code::TOO_LARGE, ""),
    ]
}

fn keys() -> Vec<Case> {
    let long = || json!("x".repeat(513));
    vec![
        lacking("name"),
        lacking("namespace"),
        lacking("context"),
        with("name", json!(5), code::WRONG_TYPE, "name"),
        with("name", json!(null), code::MISSING_KEY, "name"),
        with("name", json!(""), code::INVALID_NAME, "name"),
        with("name", json!("two words"), code::INVALID_NAME, "name"),
        with("name", json!("chain\u{1b}[2J"), code::INVALID_NAME, "name"),
        with("name", json!("x".repeat(129)), code::INVALID_NAME, "name"),
        with("name", json!("no_such_template"), code::TEMPLATE_NOT_FOUND, "name"),
        with("namespace", json!(null), code::MISSING_KEY, "namespace"),
        with("namespace", json!("Bench"), code::INVALID_NAME, "namespace"),
        with("namespace", json!("a.b"), code::INVALID_NAME, "namespace"),
        with("namespace", json!(">"), code::INVALID_NAME, "namespace"),
        with("namespace", json!("*"), code::INVALID_NAME, "namespace"),
        with("namespace", json!("x".repeat(49)), code::INVALID_NAME, "namespace"),
        with("namespace", json!(["bench"]), code::WRONG_TYPE, "namespace"),
        with("namespace", json!("nobody_has_this"), code::TEMPLATE_NOT_FOUND, "name"),
        with("version", json!("9.9.9"), code::TEMPLATE_NOT_FOUND, "name"),
        with("version", json!("not a version"), code::TEMPLATE_NOT_FOUND, "name"),
        with("version", json!(1), code::WRONG_TYPE, "version"),
        with("version", json!(""), code::INVALID_VALUE, "version"),
        with("context", json!([1]), code::WRONG_TYPE, "context"),
        with("context", json!("{}"), code::WRONG_TYPE, "context"),
        with("context", json!(null), code::WRONG_TYPE, "context"),
        with("prioritty", json!(1), code::UNKNOWN_KEY, "prioritty"),
        with("Name", json!("chain"), code::UNKNOWN_KEY, "Name"),
        with("priority", json!(101), code::INVALID_VALUE, "priority"),
        with("priority", json!(-101), code::INVALID_VALUE, "priority"),
        with("priority", json!(u64::MAX), code::INVALID_VALUE, "priority"),
        with("priority", json!(1.5), code::WRONG_TYPE, "priority"),
        with("priority", json!("high"), code::WRONG_TYPE, "priority"),
        with("tags", json!("a"), code::WRONG_TYPE, "tags"),
        with("tags", json!(["a", 1]), code::WRONG_TYPE, "tags[1]"),
        with("tags", json!([""]), code::INVALID_VALUE, "tags[0]"),
        with("tags", json!(vec!["a"; 65]), code::TOO_LARGE, "tags"),
        with("tags", json!([long()]), code::INVALID_VALUE, "tags[0]"),
        with("reason", long(), code::INVALID_VALUE, "reason"),
        with("initiator", json!({}), code::WRONG_TYPE, "initiator"),
        with("source_system", json!(true), code::WRONG_TYPE, "source_system"),
        with("correlation_id", json!(1), code::WRONG_TYPE, "correlation_id"),
        with("parent_correlation_id", json!([]), code::WRONG_TYPE, "parent_correlation_id"),
        with("idempotency_key", json!(7), code::WRONG_TYPE, "idempotency_key"),
        with("idempotency_key", json!(""), code::INVALID_VALUE, "idempotency_key"),
        with("idempotency_key", long(), code::INVALID_VALUE, "idempotency_key"),
        with("identity", json!("strickt"), code::INVALID_VALUE, "identity"),
        with("identity", json!(1), code::WRONG_TYPE, "identity"),
    ]
}

fn headers() -> Vec<Case> {
    let mut twice = header("idempotency-key", "a", code::INVALID_REQUEST);
    twice.headers.push(("idempotency-key", b"a".to_vec()));
    let mut two_keys = header("idempotency-key", "a", code::CONFLICTING_KEYS);
    let mut document = good();
    document["idempotency_key"] = json!("b");
    two_keys.body = document.to_string().into_bytes();
    two_keys.field = "idempotency_key";
    vec![
        header("idempotency-key", "", code::INVALID_REQUEST),
        header("idempotency-key", "x".repeat(513), code::INVALID_REQUEST),
        header("idempotency-key", b"caf\xe9", code::INVALID_REQUEST),
        twice,
        two_keys,
        media_type("text/plain"),
        media_type("application/x-www-form-urlencoded"),
        media_type("application/jsonx"),
        media_type("application/yaml; charset=utf-8"),
    ]
}

#[tokio::test]
async fn broken_submissions() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let cases: Vec<Case> = documents().into_iter().chain(keys()).chain(headers()).collect();
    assert!(cases.len() >= 80, "only {}", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let headers: Vec<(&str, &[u8])> =
            case.headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let answer = api.send("POST", "/v1/tasks", &headers, case.body.clone()).await?;
        let problem = &answer.body["problems"][0];
        let field = problem["field"].as_str().unwrap_or_default();
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        let got = (answer.status, answer.code(), field, answer.content_type.as_str());
        let expect = (case.status, case.code, case.field, "application/problem+json");
        let is_clear = !detail.is_empty()
            && detail.len() < 1_000
            && !detail.contains(char::is_control)
            && answer.body["status"] == case.status;
        if got != expect || !is_clear {
            let shown: String = String::from_utf8_lossy(&case.body).chars().take(160).collect();
            wrong += &format!("{shown}\n got    {got:?} {detail:.300}\n expect {expect:?}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let query = "select count(*) as tasks from tasker.tasks where reason = 'refused'";
    assert_eq!(cluster.database()?.row(query).await?, json!({"tasks": 0}));
    Ok(())
}

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let document = json!({"name": "a b", "namespace": "N", "context": [], "priority": 500,
        "tags": [1], "colour": "red"});
    let answer = cluster.api()?.post_task(&document, None).await?;
    assert_eq!((answer.status, answer.code()), (400, code::UNKNOWN_KEY), "{}", answer.text);
    let problems = answer.body["problems"].as_array().cloned().unwrap_or_default();
    let mut fields: Vec<&str> = problems.iter().filter_map(|p| p["field"].as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["colour", "context", "name", "namespace", "priority", "tags[0]"]);
    Ok(())
}

#[tokio::test]
async fn everything_a_submission_may_hold() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let key = Uuid::now_v7().to_string();
    // As deep, as long and as odd as it may be.
    let depth = 62;
    let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let context = json!({"start": 1, "deep": serde_json::from_str::<Value>(&deep)?,
        "text": "naïve façade; 東京 \u{1f600} \\u0000 \u{7f}", "float": 1.5e300,
        "large": u64::MAX, "small": i64::MIN, "null": null, "": "no name"});
    let document = json!({
        "namespace": "bench", "name": "chain", "version": "1.0.0", "context": context,
        "initiator": "i", "source_system": "s", "reason": "r".repeat(512), "tags": vec!["t"; 64],
        "priority": -100, "correlation_id": "c", "parent_correlation_id": "p",
        "idempotency_key": key,
    });
    let answer = api.post_task(&document, None).await?;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
    let task = api.wait(&id, crate::support::SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.view["context"], context);
    assert_eq!((&task.view["priority"], &task.view["version"]), (&json!(-100), &json!("1.0.0")));
    Ok(())
}

/// Orchestrators remember which version is the newest; one that was registered at another one counts at once,
/// and so does what it asks of a context.
#[tokio::test]
async fn the_newest_version_counts_at_every_orchestrator() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let name = format!("newest_{}", Uuid::now_v7().simple());
    let version = |version: &str, wants: &str| {
        format!(
            "name: {name}\nnamespace_name: bench\nversion: {version}\n\
             input_schema: {{type: object, required: [{wants}]}}\n\
             steps:\n  - {{name: first, handler: {{callable: bench.chain_first}}}}\n"
        )
    };
    let document = |context: Value| json!({"namespace": "bench", "name": name, "context": context});
    let mut strict = HashSet::new();
    for (number, wants, former) in [("1.0.0", "a", "b"), ("1.0.1", "b", "a"), ("1.1.0", "a", "b")] {
        cluster.api()?.register(&version(number, wants)).await?;
        for n in 0..12 {
            // Each connection may lead to another orchestrator.
            let api = cluster.api()?;
            // What the former version takes, and both.
            if number == "1.0.1" || n > 5 {
                let refused = api.post_task(&document(json!({former: n})), None).await?;
                assert_eq!(refused.code(), code::CONTEXT_SCHEMA_VIOLATION, "{}", refused.text);
            }
            let id = api.submit("bench", &name, json!({"start": n, "a": n, "b": n})).await?;
            assert_eq!(api.read(&format!("/v1/tasks/{id}")).await?["version"], number);
            let mut same = document(json!({"start": 0, "a": 0, "b": 0}));
            same["identity"] = json!("strict");
            let answer = api.post_task(&same, None).await?;
            assert_eq!(answer.body["created"], n == 0, "{number}: {}", answer.text);
            strict.insert(answer.body["id"].to_string());
        }
    }
    assert_eq!(strict.len(), 3, "each version is another request");
    Ok(())
}
