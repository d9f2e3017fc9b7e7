//! Every route, with every role, in one's own namespace and in another.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tasker_messages::{Role, code};
use tasker_orchestrator_node::routes;
use tasker_tests::{Answer, Api, Cluster, template, until};

use super::objects::Objects;
use crate::support::SOON;

/// A route, who may use it, and how it answers. What is asked of it changes nothing, so that it can
/// be asked as often as there are tokens.
struct Entry {
    method: &'static str,
    path: &'static str,
    /// `None` is everybody.
    role: Option<Role>,
    /// The path and body of a request that names something of these.
    ask: fn(&Objects) -> (String, Value),
    /// How it is answered where it is one's own, and where it is not.
    own: (u16, &'static str),
    foreign: (u16, &'static str),
}

const OK: (u16, &str) = (200, "");
const FOREIGN: (u16, &str) = (403, code::FOREIGN_NAMESPACE);
const NO_TASK: (u16, &str) = (404, code::TASK_NOT_FOUND);
const NO_BATCH: (u16, &str) = (404, code::BATCH_NOT_FOUND);
const NO_LETTER: (u16, &str) = (404, code::DEAD_LETTER_NOT_FOUND);
const NO_WORKER: (u16, &str) = (404, code::WORKER_NOT_FOUND);

fn why() -> Value {
    json!({"reason": "a test"})
}

/// A body as it is sent: a text as it is, anything else as JSON.
fn body(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

fn bare(name: &str, namespace: &str) -> Value {
    let text = template("sleep").unwrap_or_default();
    let moved = |line: &str| match line.split_once(':').map_or("", |(key, _)| key) {
        "namespace_name" => format!("namespace_name: {namespace}\n"),
        "name" => format!("name: {name}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(moved).collect::<String>().into()
}

#[rustfmt::skip]
fn entries() -> Vec<Entry> {
    use Role::{Admin, Operator, Submitter, Viewer};
    let with = |role, method, path, own, foreign, ask| Entry { method, path, role, ask, own, foreign };
    let of = |role: Role, method, path, own, foreign, ask: fn(&Objects) -> (String, Value)| {
        with(Some(role), method, path, own, foreign, ask)
    };
    vec![
        of(Submitter, "POST", "/v1/tasks", OK, FOREIGN,
            |o| ("/v1/tasks".into(), json!({"namespace": o.namespace, "name": "returns",
                "context": {}, "idempotency_key": "roles"}))),
        of(Viewer, "GET", "/v1/tasks", OK, FOREIGN,
            |o| (format!("/v1/tasks?namespace={}", o.namespace), Value::Null)),
        of(Viewer, "GET", "/v1/tasks/{id}", OK, NO_TASK,
            |o| (format!("/v1/tasks/{}?wait=1", o.failed), Value::Null)),
        of(Operator, "DELETE", "/v1/tasks/{id}", (409, code::TASK_ENDED), NO_TASK,
            |o| (format!("/v1/tasks/{}", o.complete), Value::Null)),
        of(Viewer, "GET", "/v1/tasks/{id}/summary", OK, NO_TASK,
            |o| (format!("/v1/tasks/{}/summary", o.failed), Value::Null)),
        of(Viewer, "GET", "/v1/tasks/{id}/why", OK, NO_TASK,
            |o| (format!("/v1/tasks/{}/why", o.failed), Value::Null)),
        of(Viewer, "GET", "/v1/tasks/{id}/steps", OK, NO_TASK,
            |o| (format!("/v1/tasks/{}/steps", o.failed), Value::Null)),
        of(Viewer, "GET", "/v1/tasks/{id}/steps/{step}", OK, NO_TASK,
            |o| (format!("/v1/tasks/{}/steps/work_slowly_001", o.failed), Value::Null)),
        of(Operator, "PATCH", "/v1/tasks/{id}/steps/{step}", (409, code::STEP_NOT_FAILED), NO_TASK,
            |o| (format!("/v1/tasks/{}/steps/only", o.complete),
                 json!({"action": "reset_for_retry", "reason": "a test"}))),
        of(Operator, "POST", "/v1/tasks/{id}/batches/{batch}/retry", (404, code::BATCH_NOT_FOUND), NO_TASK,
            |o| (format!("/v1/tasks/{}/batches/{}/retry", o.complete, o.batch), why())),
        of(Operator, "POST", "/v1/tasks/{id}/retry", (409, code::NOTHING_TO_RETRY), NO_TASK,
            |o| (format!("/v1/tasks/{}/retry", o.complete), why())),
        of(Viewer, "GET", "/v1/batches/{id}", OK, NO_BATCH,
            |o| (format!("/v1/batches/{}", o.batch), Value::Null)),
        of(Viewer, "GET", "/v1/batches/{id}/audit", OK, NO_BATCH,
            |o| (format!("/v1/batches/{}/audit", o.batch), Value::Null)),
        of(Viewer, "GET", "/v1/dlq", OK, FOREIGN,
            |o| (format!("/v1/dlq?namespace={}", o.namespace), Value::Null)),
        of(Viewer, "GET", "/v1/dlq/groups", OK, FOREIGN,
            |o| (format!("/v1/dlq/groups?namespace={}", o.namespace), Value::Null)),
        of(Operator, "POST", "/v1/dlq/purge", OK, FOREIGN,
            |o| ("/v1/dlq/purge".into(), json!({"namespace": o.namespace, "fingerprint": "none",
                "reason": "a test"}))),
        of(Viewer, "GET", "/v1/dlq/{id}", OK, NO_LETTER,
            |o| (format!("/v1/dlq/{}", o.letter), Value::Null)),
        of(Operator, "POST", "/v1/dlq/{id}/redrive", (409, code::ALREADY_REDRIVEN), NO_LETTER,
            |o| (format!("/v1/dlq/{}/redrive", o.redriven), why())),
        // It names none, and shows what is one's own.
        of(Viewer, "GET", "/v1/namespaces", OK, OK, |_| ("/v1/namespaces".into(), Value::Null)),
        of(Admin, "PUT", "/v1/namespaces/{name}", OK, FOREIGN,
            |o| (format!("/v1/namespaces/{}", o.namespace), why())),
        of(Viewer, "GET", "/v1/workers", OK, FOREIGN,
            |o| (format!("/v1/workers?namespace={}", o.namespace), Value::Null)),
        of(Viewer, "GET", "/v1/workers/{id}", OK, NO_WORKER,
            |o| (format!("/v1/workers/{}", o.worker), Value::Null)),
        of(Operator, "POST", "/v1/workers/{id}/drain", (409, code::WORKER_SILENT), NO_WORKER,
            |o| (format!("/v1/workers/{}/drain", o.worker), why())),
        of(Admin, "POST", "/v1/templates", OK, FOREIGN,
            |o| ("/v1/templates".into(), bare("roles", o.namespace))),
        of(Viewer, "GET", "/v1/templates", OK, FOREIGN,
            |o| (format!("/v1/templates?namespace={}", o.namespace), Value::Null)),
        of(Admin, "POST", "/v1/templates/plan", OK, FOREIGN,
            |o| ("/v1/templates/plan".into(), json!({"template": bare("roles", o.namespace),
                "context": {}}))),
        of(Viewer, "GET", "/v1/templates/{namespace}/{name}", OK, FOREIGN,
            |o| (format!("/v1/templates/{}/returns", o.namespace), Value::Null)),
        with(None, "GET", "/health", OK, OK, |_| ("/health".into(), Value::Null)),
        with(None, "GET", "/ready", OK, OK, |_| ("/ready".into(), Value::Null)),
        with(None, "GET", "/metrics", OK, OK, |_| ("/metrics".into(), Value::Null)),
    ]
}

/// Whoever adds a route says here who may use it.
#[test]
fn every_route_is_in_the_table() {
    let table = entries();
    let expect: BTreeSet<_> = table.iter().map(|e| (e.path, e.method, e.role)).collect();
    let served = routes();
    let found: BTreeSet<_> = served.iter().map(|r| (r.path, r.method, r.role)).collect();
    assert_eq!(found, expect);
    assert_eq!((served.len(), table.len()), (found.len(), found.len()), "one of them comes twice");
}

/// A token, and what it is good for.
struct Holder {
    what: String,
    token: Option<String>,
    /// `None` if it is not accepted.
    role: Option<Role>,
    /// Whether it is good for the first namespace alone.
    scoped: bool,
}

async fn holders(cluster: &Cluster) -> anyhow::Result<Vec<Holder>> {
    let mut holders = Vec::new();
    for &role in Role::ALL {
        for (scoped, scope) in [(false, "--all-namespaces"), (true, "--namespace sec-one")] {
            let name = format!("{role}-{scoped}");
            let token = cluster.token(&format!("{name} --role {role} {scope}")).await?;
            let role = Some(role);
            holders.push(Holder { what: name, token: Some(token), role, scoped });
        }
    }
    let refused = |what: &str, token: Option<String>| Holder {
        what: what.to_owned(),
        token,
        role: None,
        scoped: false,
    };
    let admin = "--role admin --all-namespaces";
    let valid = holders[0].token.clone().unwrap_or_default();
    let expired = cluster.token(&format!("expired {admin}")).await?;
    let expire =
        "update tasker.api_tokens set expires_at = now() - interval '1 s' where name = 'expired'";
    cluster.database()?.run(expire).await?;
    let revoked = cluster.token(&format!("revoked {admin}")).await?;
    let data_dir = cluster.dev().data_dir().display().to_string();
    let revoke = ["--data-dir", &data_dir, "token", "revoke", "revoked"];
    assert_eq!(cluster.tool().run(&revoke).await?.code, 0);
    let (id, secret) = valid.split_at(valid.len() - 64);
    let (other_id, _) = revoked.split_at(revoked.len() - 64);
    holders.extend([
        refused("no token", None),
        refused("no such form", Some("x".into())),
        refused("another secret", Some(format!("{id}{}", "0".repeat(64)))),
        refused(
            "another id",
            Some(format!("{}{secret}", id.replace(|c: char| c.is_ascii_digit(), "7"))),
        ),
        refused("the secret of another token", Some(format!("{other_id}{secret}"))),
        refused("expired", Some(expired)),
        refused("revoked", Some(revoked)),
    ]);
    Ok(holders)
}

fn expected(entry: &Entry, holder: &Holder, foreign: bool) -> (u16, &'static str) {
    match (entry.role, holder.role) {
        (None, _) => entry.own,
        (Some(_), None) => (401, code::NOT_AUTHENTICATED),
        (Some(needed), Some(role)) if role < needed => (403, code::NOT_PERMITTED),
        _ if foreign && holder.scoped => entry.foreign,
        _ => entry.own,
    }
}

async fn ask(api: &Api, entry: &Entry, objects: &Objects) -> anyhow::Result<Answer> {
    let (path, document) = (entry.ask)(objects);
    api.send(entry.method, &path, &[], body(&document)).await
}

#[tokio::test]
async fn every_route_with_every_role_here_and_there() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let one = Objects::make(&cluster, "sec-one").await?;
    let two = Objects::make(&cluster, "sec-two").await?;
    let (api, entries) = (cluster.api()?, entries());
    for objects in [&one, &two] {
        // So that it is there, whoever asks first.
        for path in ["/v1/tasks", "/v1/templates"] {
            let made = entries.iter().find(|e| (e.method, e.path) == ("POST", path));
            let answer = ask(&api, made.expect("an entry"), objects).await?;
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
    }
    let holders = holders(&cluster).await?;
    let mut wrong = String::new();
    for holder in &holders {
        let api = api.with_token(holder.token.as_deref());
        for entry in &entries {
            for (objects, foreign) in [(&one, false), (&two, true)] {
                let answer = ask(&api, entry, objects).await?;
                let (got, expect) =
                    ((answer.status, answer.code()), expected(entry, holder, foreign));
                // Whoever may not see the other namespace sees nothing of it.
                let leaks = holder.scoped && answer.text.contains(&two.mark);
                if got != expect || leaks {
                    let Entry { method, path, .. } = entry;
                    let shown: String = answer.text.chars().take(300).collect();
                    wrong += &format!(
                        "{method} {path} by {} of {}: {got:?}, not {expect:?}; leaks: {leaks}; {shown}\n",
                        holder.what, objects.namespace
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    Ok(())
}

/// What is in another namespace is answered as what is nowhere.
#[tokio::test]
async fn what_is_foreign_looks_like_what_is_not_there() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let two = Objects::make(&cluster, "sec-there").await?;
    let token = cluster.token("here --role admin --namespace sec-here").await?;
    let api = cluster.api()?.with_token(Some(&token));
    let nobody = "0190a0a0-0000-7000-8000-000000000000";
    let nowhere = Objects {
        failed: nobody.into(),
        complete: nobody.into(),
        batch: nobody.into(),
        worker: nobody.into(),
        letter: i64::MAX,
        redriven: i64::MAX,
        namespace: "sec-none",
        ..Objects::make(&cluster, "sec-filler").await?
    };
    let known = [&two.failed, &two.complete, &two.batch, &two.worker];
    let without_ids = |text: &str| {
        let text = known.into_iter().fold(text.to_owned(), |text, id| text.replace(id, nobody));
        let text = text.replace("sec-there", "sec-none");
        let letters = [two.letter, two.redriven];
        letters.into_iter().fold(text, |text, id| {
            text.replace(&format!("letter {id}"), &format!("letter {}", i64::MAX))
        })
    };
    for entry in entries().iter().filter(|entry| entry.foreign.0 != 200) {
        let (there, nowhere) = (ask(&api, entry, &two).await?, ask(&api, entry, &nowhere).await?);
        let (method, path) = (entry.method, entry.path);
        assert_eq!(there.status, nowhere.status, "{method} {path}");
        assert_eq!(without_ids(&there.text), nowhere.text, "{method} {path}");
    }
    Ok(())
}

/// A token works at once, and not for longer than `api.token_refresh_ms` after it was revoked.
#[tokio::test]
async fn a_revoked_token_is_soon_refused() -> anyhow::Result<()> {
    let cluster = Cluster::with_tokens("token_refresh_ms = 600\n", &[]).await?;
    let api = cluster.api()?;
    assert_eq!(api.get("/v1/tasks").await?.status, 200);
    let token = cluster.token("short --role viewer --all-namespaces").await?;
    let short = api.with_token(Some(&token));
    // Two orchestrators share the address, and a connection stays with one of them.
    for _ in 0..20 {
        let fresh = cluster.api()?.with_token(Some(&token));
        assert_eq!(fresh.get("/v1/tasks").await?.status, 200);
    }
    let data_dir = cluster.dev().data_dir().display().to_string();
    let revoked =
        cluster.tool().run(&["--data-dir", &data_dir, "token", "revoke", "short"]).await?;
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let begun = std::time::Instant::now();
    until("the token is refused", SOON, async || Ok(short.get("/v1/tasks").await?.status == 401))
        .await?;
    assert!(begun.elapsed().as_secs_f64() < 3.0, "{:?}", begun.elapsed());
    Ok(())
}
