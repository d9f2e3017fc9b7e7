//! Requests on the bus: the namespace is that of the subject, whatever the payload names.

use anyhow::Context;
use serde_json::{Value, json};
use tasker_messages::subject::Request;
use tasker_messages::{Namespace, PROTOCOL_HEADER, PROTOCOL_VERSION};
use tasker_tests::{Cluster, Wire, until};
use uuid::Uuid;

use super::objects::Objects;
use crate::support::SOON;

const HEADERS: [(&str, &str); 1] = [(PROTOCOL_HEADER, PROTOCOL_VERSION)];

/// What is asked about the objects of a namespace. The compiler wants an answer for every request
/// that there is.
fn payloads(request: Request, of: &Objects) -> Vec<Value> {
    let worker = Uuid::nil();
    let step = &of.waiting_step;
    let tasks = || [&of.complete, &of.failed, &of.waiting].into_iter();
    let failure = json!({"code": "X", "message": "x", "retryable": false, "error_type": ""});
    let finished = |kind: &str, outcome: Value| json!({"worker": worker, "outcomes": [{"s": step, "a": 1, "d": 1, "k": kind, "ms": 1, "o": outcome}]});
    match request {
        Request::Submit => {
            vec![json!({"namespace": of.namespace, "name": "returns", "context": {}})]
        }
        Request::TaskGet => tasks().map(|task| json!({"id": task})).collect(),
        Request::TaskWait => tasks().map(|task| json!({"id": task, "timeout_ms": 200})).collect(),
        Request::Outcome => vec![
            finished("batchable", json!({"err": failure})),
            finished("standard", json!({"err": failure})),
        ],
        Request::Claim => vec![
            json!({"worker": worker, "claims": [{"step_id": step, "dispatch_seq": 1, "redelivered": true}]}),
        ],
        Request::Shared => vec![
            json!({"task_id": of.waiting, "template_step": "split"}),
            json!({"task_id": of.complete, "template_step": "only"}),
            json!({"task_id": of.failed, "template_step": "work_slowly"}),
        ],
        Request::Result => vec![json!({"task_id": of.complete, "name": "only"})],
        Request::Members => vec![json!({"batch_id": of.batch, "from": 0, "limit": 10})],
        Request::AppendCursors => vec![
            page(step, 0, &format!("{}-2", short(&of.mark))),
            page(step, 1, &format!("{}-1", short(&of.mark))),
            page(step, 2, "zzz"),
        ],
        Request::Release => vec![json!({"worker": worker, "steps": [
            {"step_id": step, "attempt": 1, "dispatch_seq": 1, "unstarted": true}]})],
        Request::SaveCheckpoint => vec![json!({"step_id": step, "attempt": 1, "checkpoint":
            {"cursor": of.mark, "items_processed": 7, "accumulated_results": {"mark": of.mark}}})],
        Request::GetCheckpoint => vec![json!({"step_id": step})],
    }
}

/// The end of a mark, which fits into the name of a batch.
fn short(mark: &str) -> &str {
    &mark[mark.len() - 32..]
}

fn page(step: &str, page: u32, batch_id: &str) -> Value {
    json!({"step_id": step, "attempt": 1, "page": page, "cursors": [
        {"batch_id": batch_id, "start_cursor": 0, "end_cursor": 1, "batch_size": 1}]})
}

async fn ask(
    wire: &mut Wire,
    request: Request,
    namespace: &str,
    payload: &Value,
) -> anyhow::Result<Value> {
    let subject = request.subject(&Namespace::new(namespace)?);
    let reply = wire.request(&subject, &HEADERS, payload.to_string().as_bytes()).await;
    Ok(reply.with_context(|| format!("{subject} {payload}"))?.body)
}

/// Something to read: a checkpoint, and pages of cursors.
async fn store_progress(wire: &mut Wire, of: &Objects) -> anyhow::Result<()> {
    for request in [Request::SaveCheckpoint, Request::AppendCursors] {
        for payload in payloads(request, of).iter().take(1) {
            let stored = ask(wire, request, of.namespace, payload).await?;
            assert!(stored["ok"].is_object() || stored["ok"].is_string(), "{payload}: {stored}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn ids_of_another_namespace_are_of_no_use() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let mine = Objects::make(&cluster, "bus-mine").await?;
    let theirs = Objects::make(&cluster, "bus-theirs").await?;
    let mut wire = cluster.wire().await?;
    store_progress(&mut wire, &theirs).await?;
    let before = theirs.rows(&cluster).await?;
    let secrets = [theirs.mark.as_str(), short(&theirs.mark)];
    let mut wrong = String::new();
    for &request in Request::ALL {
        for payload in payloads(request, &theirs) {
            let answer = ask(&mut wire, request, mine.namespace, &payload).await?;
            let refused = match request {
                Request::Outcome => answer["ok"]["verdicts"] == json!(["unknown"]),
                Request::Claim => answer["ok"]["verdicts"] == json!([{"drop": "unknown"}]),
                Request::Release => answer["ok"]["released"] == 0,
                Request::SaveCheckpoint => answer["ok"] == "superseded",
                Request::GetCheckpoint => answer["ok"]["checkpoint"].is_null(),
                Request::AppendCursors if payload["page"] == 0 => answer["ok"]["current"] == false,
                _ => answer["error"]["code"].is_string(),
            };
            let shows = secrets.iter().any(|secret| answer.to_string().contains(secret));
            if !refused || shows {
                wrong += &format!("{request:?} {payload}: {answer}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert_eq!(theirs.rows(&cluster).await?, before, "something of theirs was changed");
    Ok(())
}

/// The same requests do something on the right subject: the test above would not see a typing error.
#[tokio::test]
async fn the_same_requests_on_their_own_subjects() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let own = Objects::make(&cluster, "bus-own").await?;
    let mut wire = cluster.wire().await?;
    store_progress(&mut wire, &own).await?;
    let reads = [
        Request::Submit,
        Request::TaskGet,
        Request::TaskWait,
        Request::Shared,
        Request::Result,
        Request::Members,
        Request::GetCheckpoint,
    ];
    for request in reads {
        for payload in payloads(request, &own) {
            let answer = ask(&mut wire, request, own.namespace, &payload).await?;
            assert!(answer["ok"].is_object(), "{request:?} {payload}: {answer}");
        }
    }
    let [stored, unordered, gap] = &payloads(Request::AppendCursors, &own)[..] else { panic!() };
    let stored = ask(&mut wire, Request::AppendCursors, own.namespace, stored).await?;
    assert_eq!(stored, json!({"ok": {"current": true}}), "the same page again changes nothing");
    // Who may see it is told which page the new one does not follow.
    let told = ask(&mut wire, Request::AppendCursors, own.namespace, unordered).await?;
    assert!(told.to_string().contains(short(&own.mark)), "{told}");
    let gap = ask(&mut wire, Request::AppendCursors, own.namespace, gap).await?;
    assert!(gap.to_string().contains("does not follow page 0"), "{gap}");
    let claim = &payloads(Request::Claim, &own)[0];
    let claimed = ask(&mut wire, Request::Claim, own.namespace, claim).await?;
    assert_eq!(claimed["ok"]["verdicts"][0]["run"]["attempt"], 2, "{claimed}");
    let mut ended = payloads(Request::Outcome, &own).remove(0);
    ended["outcomes"][0]["a"] = 2.into();
    let ended = ask(&mut wire, Request::Outcome, own.namespace, &ended).await?;
    assert_eq!(ended["ok"]["verdicts"], json!(["applied"]), "{ended}");
    Ok(())
}

/// What is carried without an answer is refused the same way, and kept with its sender's namespace.
#[tokio::test]
async fn messages_that_name_another_namespace() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let mine = Objects::make(&cluster, "carry-mine").await?;
    let theirs = Objects::make(&cluster, "carry-theirs").await?;
    let mut wire = cluster.wire().await?;
    let before = theirs.rows(&cluster).await?;
    let document = json!({"namespace": theirs.namespace, "name": "returns", "context": {}});
    wire.request("tasker.enqueue.carry-mine", &HEADERS, document.to_string().as_bytes()).await?;
    let query = "select count(*) as n from tasker.dead_letters where namespace = 'carry-mine'
         and error ->> 'code' = 'FOREIGN_NAMESPACE'";
    until("it is refused", SOON, async || Ok(cluster.database()?.row(query).await?["n"] == 1))
        .await?;

    // A worker of one namespace says that it runs a step of another, which would lease it.
    let beat = json!({"worker": Uuid::now_v7(), "name": "mallory", "build": "x", "callables": [],
        "queues": [], "draining": false,
        "running": [{"step_id": theirs.waiting_step, "attempt": 1}]});
    let bus = cluster.bus().await?;
    bus.publish("tasker.beat.carry-mine".to_owned(), &beat).await?;
    let query = "select count(*) as n from tasker.workers where namespace = 'carry-mine' and name = 'mallory'";
    until("it is heard", SOON, async || Ok(cluster.database()?.row(query).await?["n"] == 1))
        .await?;
    assert_eq!(theirs.rows(&cluster).await?, before, "something of theirs was changed");
    // On the right subject it has an effect.
    bus.publish("tasker.beat.carry-theirs".to_owned(), &beat).await?;
    let query =
        format!("select state::text from tasker.steps where id = '{}'", theirs.waiting_step);
    until("the step is leased", SOON, async || {
        Ok(cluster.database()?.row(&query).await?["state"] == "in_progress")
    })
    .await?;
    drop(mine);
    Ok(())
}
