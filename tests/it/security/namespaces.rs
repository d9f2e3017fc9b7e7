//! An administrator of one namespace tries everything on another, over HTTP.

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster};

use super::objects::Objects;

/// A request: its method, path and document.
type Attack = (&'static str, String, Value);

fn why() -> Value {
    json!({"reason": "mine now", "by": "somebody"})
}

fn attacks(mine: &Objects, theirs: &Objects) -> Vec<Attack> {
    [attacks_on_tasks(mine, theirs), attacks_on_the_rest(theirs)].concat()
}

/// What can be done to tasks, steps and batches, which are named by ids.
fn attacks_on_tasks(mine: &Objects, theirs: &Objects) -> Vec<Attack> {
    let mut all = Vec::new();
    let mut add = |method, path: String, document| all.push((method, path, document));
    let repairs = || {
        let repair = |action: &str, more: Value| {
            let mut document = json!({"action": action, "reason": "mine now", "cascade": true});
            if !more.is_null() {
                document["result"] = more;
            }
            document
        };
        [
            repair("reset_for_retry", Value::Null),
            repair("resolve_manually", Value::Null),
            repair("complete_manually", json!({"a": 1})),
        ]
    };
    for task in [&theirs.failed, &theirs.complete, &theirs.waiting] {
        for rest in ["", "?wait=1", "/summary", "/why", "/steps", "/steps?limit=1"] {
            add("GET", format!("/v1/tasks/{task}{rest}"), Value::Null);
        }
        add("DELETE", format!("/v1/tasks/{task}"), Value::Null);
        add("POST", format!("/v1/tasks/{task}/retry"), why());
        add("POST", format!("/v1/tasks/{task}/batches/{}/retry", theirs.batch), why());
        add("POST", format!("/v1/tasks/{task}/batches/{}/retry", mine.batch), why());
    }
    // Their steps and batches by way of one's own task, one's own by way of theirs.
    for (task, step) in [
        (&theirs.failed, "split"),
        (&theirs.failed, "work_slowly_001"),
        (&theirs.failed, theirs.member.as_str()),
        (&mine.failed, theirs.member.as_str()),
        (&mine.failed, theirs.waiting_step.as_str()),
        (&mine.failed, theirs.step.as_str()),
        (&theirs.failed, mine.member.as_str()),
    ] {
        add("GET", format!("/v1/tasks/{task}/steps/{step}"), Value::Null);
        for repair in repairs() {
            add("PATCH", format!("/v1/tasks/{task}/steps/{step}"), repair);
        }
    }
    add("POST", format!("/v1/tasks/{}/batches/{}/retry", mine.failed, theirs.batch), why());
    add("GET", format!("/v1/tasks/{}/steps?after={}", mine.failed, theirs.member), Value::Null);
    for rest in ["", "/audit"] {
        add("GET", format!("/v1/batches/{}{rest}", theirs.batch), Value::Null);
    }
    all
}

/// What can be done to everything else, by id, by name, or by naming nothing.
fn attacks_on_the_rest(theirs: &Objects) -> Vec<Attack> {
    let mut all = Vec::new();
    let mut add = |method, path: String, document| all.push((method, path, document));
    for letter in [theirs.letter, theirs.redriven] {
        add("GET", format!("/v1/dlq/{letter}"), Value::Null);
        add("POST", format!("/v1/dlq/{letter}/redrive"), why());
    }
    let ids = json!([theirs.letter, theirs.redriven]);
    add("POST", "/v1/dlq/purge".into(), json!({"ids": ids, "reason": "r"}));
    add(
        "POST",
        "/v1/dlq/purge".into(),
        json!({"older_than_days": 0, "redriven": true, "reason": "r"}),
    );
    add("POST", "/v1/dlq/purge".into(), json!({"namespace": theirs.namespace, "reason": "r"}));
    add("GET", format!("/v1/workers/{}", theirs.worker), Value::Null);
    add("POST", format!("/v1/workers/{}/drain", theirs.worker), why());
    for list in ["tasks", "dlq", "dlq/groups", "workers", "templates", "namespaces"] {
        add("GET", format!("/v1/{list}"), Value::Null);
    }
    for list in ["tasks", "dlq", "dlq/groups", "workers", "templates"] {
        add("GET", format!("/v1/{list}?namespace={}", theirs.namespace), Value::Null);
    }
    for list in ["tasks", "dlq", "workers", "namespaces"] {
        add("GET", format!("/v1/{list}?limit=1000"), Value::Null);
    }
    let after = [
        ("tasks", theirs.waiting.clone()),
        ("namespaces", "a".into()),
        ("dlq", i64::MAX.to_string()),
    ];
    for (list, after) in after {
        add("GET", format!("/v1/{list}?after={after}"), Value::Null);
    }
    let template = |namespace: &str| {
        format!(
            "name: new\nnamespace_name: {namespace}\nversion: 1.0.0\nsteps:\n  - {{name: a, handler: {{callable: x}}}}\n"
        )
    };
    add("POST", "/v1/templates".into(), template(theirs.namespace).into());
    add(
        "POST",
        "/v1/templates/plan".into(),
        json!({"template": template(theirs.namespace), "context": {}}),
    );
    for name in ["returns", "none", "returns?version=1.0.0"] {
        add("GET", format!("/v1/templates/{}/{name}", theirs.namespace), Value::Null);
    }
    add(
        "PUT",
        format!("/v1/namespaces/{}", theirs.namespace),
        json!({"max_open_tasks": 1, "reason": "r"}),
    );
    add("PUT", "/v1/namespaces/sec-new".into(), json!({"reason": "r"}));
    for namespace in [theirs.namespace, "sec-new"] {
        let document = json!({"namespace": namespace, "name": "returns", "context": {}});
        add("POST", "/v1/tasks".into(), document);
    }
    all
}

async fn send(
    api: &Api,
    (method, path, document): &(&str, String, Value),
) -> anyhow::Result<(u16, String)> {
    let body = match document {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let answer = api.send(method, path, &[], body).await?;
    Ok((answer.status, answer.text))
}

#[tokio::test]
async fn nothing_foreign_can_be_seen_or_changed() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let mine = Objects::make(&cluster, "sec-mine").await?;
    let theirs = Objects::make(&cluster, "sec-theirs").await?;
    let token = cluster.token("mallory --role admin --namespace sec-mine").await?;
    let api = cluster.api()?.with_token(Some(&token));
    let before = theirs.rows(&cluster).await?;
    let attacks = attacks(&mine, &theirs);
    assert!(attacks.len() > 80, "only {}", attacks.len());
    let foreign = [&theirs.mark, &theirs.failed, &theirs.waiting, &theirs.batch, &theirs.member];
    let mut wrong = String::new();
    for attack in &attacks {
        let (status, text) = send(&api, attack).await?;
        let (method, path, _) = attack;
        // What was asked for is said again where it is refused, and nothing else.
        let seen = foreign.iter().find(|id| text.contains(**id) && !path.contains(**id));
        let is_list = method == &"GET" && !path.contains(theirs.namespace) && status == 200;
        let is_own =
            path.contains(&mine.failed) && path.ends_with(&format!("?after={}", theirs.member));
        let is_purge = path.ends_with("/purge");
        let refused = matches!(status, 403 | 404);
        if seen.is_some()
            || !(refused || (is_list && !path.contains(&theirs.failed)) || is_own || is_purge)
        {
            wrong += &format!("{method} {path}: {status} {text:.300} shows {seen:?}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert_eq!(theirs.rows(&cluster).await?, before, "something of theirs was changed");
    // What was purged are one's own letters, and it is said of which namespace.
    let audited = "select count(*) as n from tasker.admin_actions where namespace = 'sec-mine'
         and action = 'purge_dead_letters' and principal = 'token:mallory'";
    assert_eq!(cluster.database()?.row(audited).await?["n"], 2);
    Ok(())
}

/// The same requests do something where they may: the test above would not see a typing error.
#[tokio::test]
async fn the_same_is_possible_for_who_may() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let theirs = Objects::make(&cluster, "sec-own").await?;
    let token = cluster.token("owner --role admin --namespace sec-own").await?;
    let api = cluster.api()?.with_token(Some(&token));
    let before = theirs.rows(&cluster).await?;
    let mut statuses = Vec::new();
    for attack in attacks(&theirs, &theirs) {
        let (status, text) = send(&api, &attack).await?;
        let is_foreign = attack.1.contains("sec-new") || attack.2["namespace"] == "sec-new";
        assert_eq!(status == 403, is_foreign, "{attack:?}: {text}");
        statuses.push(status);
    }
    let done = statuses.iter().filter(|status| matches!(status, 200..=202)).count();
    assert!(done > statuses.len() / 2, "{statuses:?}");
    assert_ne!(theirs.rows(&cluster).await?, before);
    Ok(())
}

/// Who did something by hand is who had the token, whatever they say of themselves.
#[tokio::test]
async fn the_audit_trail_names_the_token() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let mine = Objects::make(&cluster, "sec-audit").await?;
    let token = cluster.token("ops --role admin --namespace sec-audit").await?;
    let api = cluster.api()?.with_token(Some(&token));
    let said = |by: &str| json!({"reason": "r", "by": by}).to_string().into_bytes();
    let retry = format!("/v1/tasks/{}/retry", mine.failed);
    assert_eq!(api.send("POST", &retry, &[], said("token:root")).await?.status, 200);
    let cancel = format!("/v1/tasks/{}", mine.waiting);
    assert_eq!(api.send("DELETE", &cancel, &[], Vec::new()).await?.status, 202);
    let set = json!({"reason": "r"}).to_string().into_bytes();
    assert_eq!(api.send("PUT", "/v1/namespaces/sec-audit", &[], set).await?.status, 200);
    let query = "select action, principal from tasker.admin_actions where namespace = 'sec-audit'
         order by action, principal";
    let expect = json!([
        {"action": "cancel_task", "principal": "token:ops"},
        {"action": "retry_task", "principal": "token:ops (token:root)"},
        {"action": "set_namespace", "principal": "token:ops"},
    ]);
    let rows = cluster
        .database()?
        .rows(&format!("select distinct action, principal from ({query}) a order by 1, 2"))
        .await?;
    assert_eq!(rows, expect);
    Ok(())
}
