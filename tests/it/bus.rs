//! What a program can do over NATS alone.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tasker_messages::subject::{self, Request};
use tasker_messages::{
    Accepted, GetTask, IDEMPOTENCY_HEADER, Namespace, PROTOCOL_HEADER, PROTOCOL_VERSION, TaskView,
    WaitTask, code,
};
use tasker_tests::{Cluster, Database, Wire, assert_same, until, until_some};
use uuid::Uuid;

use crate::support::SOON;

const VERSION: (&str, &str) = (PROTOCOL_HEADER, PROTOCOL_VERSION);
/// Header by which JetStream itself drops repetitions.
const MESSAGE_ID: &str = "Nats-Msg-Id";
const ANSWER: Duration = Duration::from_secs(40);

fn unique(name: &str) -> String {
    format!("{name}-{}", Uuid::now_v7().simple())
}

#[tokio::test]
async fn submit_get_and_wait() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let bus = cluster.bus().await?;
    let ns = Namespace::new("faulty")?;
    // Without a namespace in the document: the subject has it.
    let request = json!({"name": "sleep", "context": {"sleep_ms": 4_000}});
    let accepted: Accepted = bus.request(Request::Submit.subject(&ns), &request, ANSWER).await?;
    assert!(accepted.created);
    let get = GetTask { id: accepted.id };
    let seen: TaskView = bus.request(Request::TaskGet.subject(&ns), &get, ANSWER).await?;
    assert_eq!((seen.id, seen.name.as_str()), (accepted.id, "sleep"));
    assert!(!seen.state.is_terminal(), "{seen:?}");
    // A wait that is too short is answered with the task as it is.
    let short = WaitTask { id: accepted.id, timeout_ms: 50 };
    let seen: TaskView = bus.request(Request::TaskWait.subject(&ns), &short, ANSWER).await?;
    assert!(!seen.state.is_terminal(), "{seen:?}");
    let long = WaitTask { id: accepted.id, timeout_ms: 30_000 };
    let ended: TaskView = bus.request(Request::TaskWait.subject(&ns), &long, ANSWER).await?;
    let over_http = cluster.api()?.read(&format!("/v1/tasks/{}", accepted.id)).await?;
    assert_same(&serde_json::to_value(&ended)?, &over_http, &[]);
    assert_eq!(over_http["state"], "complete");
    assert_same(&over_http["context"], &json!({"sleep_ms": 4_000}), &[]);
    assert_same(&over_http["steps"][0]["results"]["result"], &json!({"slept_ms": 4_000}), &[]);
    Ok(())
}

#[tokio::test]
async fn a_namespace_sees_its_own_tasks_only() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut wire = cluster.wire().await?;
    let id = cluster.api()?.submit("bench", "chain", json!({"start": 1})).await?;
    let get = json!({"id": id}).to_string();
    let wait = json!({"id": id, "timeout_ms": 0}).to_string();
    for (subject, question, code) in [
        ("tasker.task.get.bench", &get, ""),
        ("tasker.task.wait.bench", &wait, ""),
        ("tasker.task.get.faulty", &get, code::TASK_NOT_FOUND),
        ("tasker.task.wait.faulty", &wait, code::TASK_NOT_FOUND),
    ] {
        let reply = wire.request(subject, &[VERSION], question.as_bytes()).await?;
        assert_eq!(reply.code(), code, "{subject}: {}", reply.body);
        assert_eq!(reply.body["ok"].is_null(), !code.is_empty(), "{subject}: {}", reply.body);
        let header = format!("{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n");
        assert!(reply.headers.contains(&header), "{subject}: {:?}", reply.headers);
    }
    Ok(())
}

#[tokio::test]
async fn other_protocol_versions_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut wire = cluster.wire().await?;
    let (id, marker) = (Uuid::now_v7(), unique("refused"));
    let questions = [
        (
            "tasker.submit.bench",
            json!({"name": "chain", "context": {"start": 1}, "reason": marker}),
        ),
        ("tasker.task.get.bench", json!({"id": id})),
        ("tasker.task.wait.bench", json!({"id": id, "timeout_ms": 1})),
    ];
    for (subject, question) in questions {
        for version in [None, Some("2"), Some("0"), Some("11"), Some("one")] {
            let headers: Vec<_> = version.map(|v| (PROTOCOL_HEADER, v)).into_iter().collect();
            let reply = wire.request(subject, &headers, question.to_string().as_bytes()).await?;
            assert_eq!(reply.code(), code::PROTOCOL_VERSION, "{subject} {version:?}");
            assert_eq!(reply.body["error"]["retryable"], false, "{subject} {version:?}");
        }
    }
    let query = format!("select count(*) as tasks from tasker.tasks where reason = '{marker}'");
    assert_eq!(cluster.database()?.row(&query).await?, json!({"tasks": 0}));
    Ok(())
}

#[tokio::test]
async fn broken_requests_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut wire = cluster.wire().await?;
    let deep = format!("{{\"name\":\"chain\",\"context\":{}", "{\"a\":".repeat(5_000));
    let large = json!({"name": "chain", "context": {"a": "x".repeat(1_200_000)}}).to_string();
    let context = json!({"name": "chain", "context": {"a": "x".repeat(1_048_600)}}).to_string();
    let table: [(&str, &[u8], &str); 20] = [
        ("tasker.submit.bench", b"", code::INVALID_SYNTAX),
        ("tasker.submit.bench", b"{\"name\":", code::INVALID_SYNTAX),
        ("tasker.submit.bench", b"\xff\xfe", code::INVALID_ENCODING),
        ("tasker.submit.bench", b"[1]", code::WRONG_TYPE),
        ("tasker.submit.bench", b"{\"name\":\"chain\"}", code::MISSING_KEY),
        ("tasker.submit.bench", b"{\"context\":{}}", code::MISSING_KEY),
        ("tasker.submit.bench", deep.as_bytes(), code::TOO_DEEP),
        ("tasker.submit.bench", large.as_bytes(), code::TOO_LARGE),
        ("tasker.submit.bench", context.as_bytes(), code::TOO_LARGE),
        (
            "tasker.submit.bench",
            b"{\"name\":\"chain\",\"namespace\":\"other\",\"context\":{}}",
            code::FOREIGN_NAMESPACE,
        ),
        (
            "tasker.submit.bench",
            b"{\"name\":\"chain\",\"context\":{\"a\":\"\\u0000\"}}",
            code::NUL_CHARACTER,
        ),
        ("tasker.submit.bench", b"{\"name\":\"none\",\"context\":{}}", code::TEMPLATE_NOT_FOUND),
        (
            "tasker.submit.nobody-has-this",
            b"{\"name\":\"chain\",\"context\":{}}",
            code::TEMPLATE_NOT_FOUND,
        ),
        ("tasker.submit.Bench", b"{\"name\":\"chain\",\"context\":{}}", code::INVALID_NAME),
        ("tasker.task.get.bench", b"{}", code::MISSING_KEY),
        ("tasker.task.get.bench", b"{\"id\":\"x\"}", code::INVALID_VALUE),
        ("tasker.task.get.$BENCH", b"{}", code::INVALID_NAME),
        ("tasker.task.wait.bench", b"{\"id\":1,\"timeout_ms\":1}", code::WRONG_TYPE),
        (
            "tasker.task.wait.bench",
            b"{\"id\":\"0190a0a0-0000-7000-8000-000000000000\",\"timeout_ms\":1,\"more\":1}",
            code::UNKNOWN_KEY,
        ),
        (
            "tasker.task.wait.bench",
            b"{\"id\":\"0190a0a0-0000-7000-8000-000000000000\",\"timeout_ms\":0}",
            code::TASK_NOT_FOUND,
        ),
    ];
    for (subject, question, code) in table {
        let reply = wire.request(subject, &[VERSION], question).await?;
        let shown = String::from_utf8_lossy(&question[..question.len().min(80)]).into_owned();
        assert_eq!(reply.code(), code, "{subject} {shown}: {}", reply.body);
        let message = reply.body["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.len() < 2_000, "{subject} {shown}: {message}");
    }
    Ok(())
}

/// Publishes to the stream of submissions and returns what JetStream says.
async fn enqueue(
    wire: &mut Wire,
    namespace: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Value> {
    let subject = format!("tasker.enqueue.{namespace}");
    let ack = wire.request(&subject, headers, body.as_bytes()).await?.body;
    anyhow::ensure!(ack["stream"] == subject::SUBMIT_STREAM, "not carried: {ack}");
    Ok(ack)
}

/// Waits for tasks with an idempotency key and returns their ids.
async fn tasks_of_key(database: &Database, key: &str) -> anyhow::Result<Vec<String>> {
    let query = format!("select id from tasker.tasks where idempotency_key = '{key}'");
    let rows = until_some("the task is accepted", SOON, async || {
        let rows = database.rows(&query).await?;
        Ok((rows != json!([])).then_some(rows))
    });
    let rows = rows.await?;
    let id = |row: &Value| row["id"].as_str().map(str::to_owned).context("an id");
    rows.as_array().into_iter().flatten().map(id).collect()
}

#[tokio::test]
async fn an_enqueued_task_runs_once() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let mut wire = cluster.wire().await?;
    let body = json!({"name": "chain", "context": {"start": 7}}).to_string();

    // The message id is the key; JetStream drops the repetition.
    let key = unique("message");
    let first = enqueue(&mut wire, "bench", &[VERSION, (MESSAGE_ID, &key)], &body).await?;
    let again = enqueue(&mut wire, "bench", &[VERSION, (MESSAGE_ID, &key)], &body).await?;
    assert_eq!((&again["duplicate"], &again["seq"]), (&json!(true), &first["seq"]));
    let [id] = tasks_of_key(&database, &key).await?.try_into().expect("one task");
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.state(), "complete");
    assert_same(task.result("third")?, &json!({"value": 10}), &[]);
    // Whoever submits the same with this key finds it.
    let document = json!({"namespace": "bench", "name": "chain", "context": {"start": 7}});
    let found = api.post_task(&document, Some(&key)).await?;
    assert_eq!(found.body, json!({"id": id, "created": false}));

    // The header of Tasker wins over the message id: two messages, one task.
    let (key, other) = (unique("key"), unique("message"));
    for message_id in [&other, &unique("message")] {
        let headers = [VERSION, (IDEMPOTENCY_HEADER, &key), (MESSAGE_ID, message_id)];
        let ack = enqueue(&mut wire, "bench", &headers, &body).await?;
        assert_eq!(ack.get("duplicate"), None, "{ack}");
    }
    let [id] = tasks_of_key(&database, &key).await?.try_into().expect("one task");
    assert_eq!(api.wait(&id, SOON).await?.state(), "complete");
    wait_until_accepted(&database, &mut wire).await?;
    assert_eq!(tasks_of_key(&database, &key).await?, [id]);
    let query = format!("select count(*) from tasker.tasks where idempotency_key = '{other}'");
    assert_eq!(database.row(&query).await?, json!({"count": 0}));
    Ok(())
}

/// Enqueues one more task and waits for it: everything before it in the stream has been taken.
async fn wait_until_accepted(database: &Database, wire: &mut Wire) -> anyhow::Result<()> {
    let key = unique("last");
    let body = json!({"name": "chain", "context": {"start": 0}}).to_string();
    enqueue(wire, "bench", &[VERSION, (MESSAGE_ID, &key)], &body).await?;
    tasks_of_key(database, &key).await?;
    Ok(())
}

#[tokio::test]
async fn enqueued_tasks_without_a_key_are_all_different() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let mut wire = cluster.wire().await?;
    let marker = unique("marker");
    let body = json!({"name": "chain", "context": {"start": 1}, "reason": marker}).to_string();
    for _ in 0..3 {
        enqueue(&mut wire, "bench", &[VERSION], &body).await?;
    }
    let query = format!("select id from tasker.tasks where reason = '{marker}'");
    until("three tasks are accepted", SOON, async || {
        Ok(database.rows(&query).await?.as_array().is_some_and(|rows| rows.len() == 3))
    })
    .await?;
    wait_until_accepted(&database, &mut wire).await?;
    let rows = database.rows(&query).await?;
    let ids: Vec<&str> =
        rows.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids.len(), 3);
    for id in ids {
        assert_eq!(api.wait(id, SOON).await?.state(), "complete");
    }
    Ok(())
}

async fn dead_letters(database: &Database, condition: &str, count: usize) -> anyhow::Result<Value> {
    let query = format!(
        "select subject, encode(payload, 'escape') as payload, error ->> 'code' as code
         from tasker.dead_letters where {condition} order by id"
    );
    let limit = Duration::from_secs(20);
    until_some(&format!("{count} dead letters where {condition}"), limit, async || {
        let rows = database.rows(&query).await?;
        Ok(rows.as_array().is_some_and(|all| all.len() >= count).then_some(rows))
    })
    .await
}

/// Name of a namespace, body, headers, code of the dead letter.
type Refused<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn what_cannot_be_accepted_is_kept() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let mut wire = cluster.wire().await?;
    // Each in a namespace of its own, by which its dead letter is found.
    let key = unique("key");
    let taken = json!({"namespace": "bench", "name": "chain", "context": {"start": 1}});
    assert_eq!(api.post_task(&taken, Some(&key)).await?.status, 201);
    let unknown = json!({"name": "chain", "context": {}}).to_string();
    let foreign = json!({"name": "chain", "namespace": "bench", "context": {}}).to_string();
    let different = json!({"name": "chain", "context": {"start": 2}, "reason": key}).to_string();
    let run = Uuid::now_v7().simple().to_string();
    let forgot = json!({"name": "chain", "context": {"start": 3}, "identity": "caller_provided"})
        .to_string();
    let table: [Refused; 6] = [
        ("syntax", "{\"name\":", &[VERSION], code::INVALID_SYNTAX),
        ("empty", "", &[VERSION], code::INVALID_SYNTAX),
        ("unknown", &unknown, &[VERSION], code::TEMPLATE_NOT_FOUND),
        ("foreign", &foreign, &[VERSION], code::FOREIGN_NAMESPACE),
        ("bench", &different, &[VERSION, (IDEMPOTENCY_HEADER, &key)], code::IDEMPOTENCY_CONFLICT),
        ("bench", &forgot, &[VERSION], code::MISSING_KEY),
    ];
    for (name, body, headers, code) in table {
        let namespace = match name {
            "bench" => name.to_owned(),
            other => format!("{other}-{run}"),
        };
        enqueue(&mut wire, &namespace, headers, body).await?;
        let condition = format!("namespace = '{namespace}' and error ->> 'code' = '{code}'");
        let rows = dead_letters(&database, &condition, 1).await?;
        let subject = format!("tasker.enqueue.{namespace}");
        let expect = json!([{"subject": subject, "payload": body, "code": code}]);
        assert_same(&rows, &expect, &[]);
    }
    // Nothing of it stays behind to be delivered again and again.
    wait_until_accepted(&database, &mut wire).await
}

/// A message that came before its template is submitted when the template is there, once.
#[tokio::test]
async fn a_refused_message_is_redriven() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let mut wire = cluster.wire().await?;
    let name = unique("comes_later").replace('-', "_");
    let body = json!({"name": name, "context": {"result": 7}}).to_string();
    let key = unique("order");
    let headers = [VERSION, (IDEMPOTENCY_HEADER, key.as_str())];
    enqueue(&mut wire, "faulty", &headers, &body).await?;
    let letter = until_some("the letter is kept", SOON, async || {
        let listed = api.read("/v1/dlq?namespace=faulty&kind=message&redriven=false").await?;
        let letters = listed["letters"].as_array().cloned().unwrap_or_default();
        let about =
            |l: &Value| l["message"].as_str().is_some_and(|m| m.contains(&format!("`{name}`")));
        Ok(letters.into_iter().find(about))
    })
    .await?;
    let number = &letter["id"];
    let view = api.read(&format!("/v1/dlq/{number}")).await?;
    assert_eq!(view["payload"], json!(body));
    let path = format!("/v1/dlq/{number}/redrive");
    let redrive = async || {
        api.send("POST", &path, &[], json!({"reason": "it is there"}).to_string().into_bytes())
            .await
    };
    let refused = redrive().await?;
    assert_eq!(
        (refused.status, refused.code()),
        (404, code::TEMPLATE_NOT_FOUND),
        "{}",
        refused.text
    );
    api.register(&format!(
        "name: {name}\nnamespace_name: faulty\nversion: 1.0.0\nsteps:\n  - {{name: a, handler: \
         {{callable: faulty.return_context}}}}\n"
    ))
    .await?;
    let redriven = redrive().await?;
    assert_eq!(redriven.status, 200, "{}", redriven.text);
    let id = redriven.body["task_id"].as_str().context("an id")?;
    let task = api.wait(id, SOON).await?;
    assert_eq!((task.state(), task.result("a")?), ("complete", &json!(7)));
    assert_eq!(redrive().await?.code(), code::ALREADY_REDRIVEN);
    // Under the key that it was carried with: the producer may send it again without harm.
    assert_eq!(tasks_of_key(&database, &key).await?, [id]);
    enqueue(&mut wire, "faulty", &headers, &body).await?;
    wait_until_accepted(&database, &mut wire).await?;
    assert_eq!(tasks_of_key(&database, &key).await?, [id]);
    Ok(())
}

#[tokio::test]
async fn an_enqueued_task_of_another_protocol_version_is_kept() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let database = cluster.database()?;
    let mut wire = cluster.wire().await?;
    let marker = unique("protocol");
    let body = json!({"name": "chain", "context": {"start": 1}, "reason": marker}).to_string();
    enqueue(&mut wire, "bench", &[(PROTOCOL_HEADER, "2")], &body).await?;
    enqueue(&mut wire, "bench", &[], &body).await?;
    wait_until_accepted(&database, &mut wire).await?;
    let query = format!("select count(*) as tasks from tasker.tasks where reason = '{marker}'");
    assert_eq!(database.row(&query).await?, json!({"tasks": 0}));
    let condition = format!("encode(payload, 'escape') like '%{marker}%'");
    let rows = dead_letters(&database, &condition, 2).await?;
    let letter =
        json!({"subject": "tasker.enqueue.bench", "payload": body, "code": code::PROTOCOL_VERSION});
    assert_same(&rows, &json!([letter, letter]), &[]);
    Ok(())
}

#[tokio::test]
async fn an_enqueued_task_without_a_valid_namespace_is_kept() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let database = cluster.database()?;
    let mut wire = cluster.wire().await?;
    let marker = unique("namespace");
    let body = json!({"name": "chain", "context": {"start": 1}, "reason": marker}).to_string();
    enqueue(&mut wire, "Bench", &[VERSION], &body).await?;
    wait_until_accepted(&database, &mut wire).await?;
    let condition = format!("encode(payload, 'escape') like '%{marker}%'");
    let rows = dead_letters(&database, &condition, 1).await?;
    let expect =
        json!([{"subject": "tasker.enqueue.Bench", "payload": body, "code": code::INVALID_NAME}]);
    assert_same(&rows, &expect, &[]);
    Ok(())
}
