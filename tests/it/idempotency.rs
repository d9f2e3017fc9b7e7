//! One key, one task.

use futures::future::try_join_all;
use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::Cluster;
use uuid::Uuid;

fn chain(start: u64) -> Value {
    json!({"namespace": "bench", "name": "chain", "context": {"start": start, "more": [1, 2]}})
}

#[tokio::test]
async fn the_same_request_finds_its_task() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let key = Uuid::now_v7().to_string();
    let first = api.post_task(&chain(5), Some(&key)).await?;
    assert_eq!((first.status, &first.body["created"]), (201, &json!(true)), "{}", first.text);
    let id = first.body["id"].clone();
    let found = json!({"id": id, "created": false});
    // The key in the document, the order of keys and who asks do not make another request.
    let mut in_document = chain(5);
    in_document["idempotency_key"] = key.clone().into();
    let mut told = chain(5);
    told["initiator"] = "somebody".into();
    told["tags"] = json!(["a"]);
    let text = r#"{"context":{"more":[1,2],"start":5},"name":"chain","namespace":"bench"}"#;
    for (document, header) in [
        (chain(5), Some(key.as_str())),
        (in_document.clone(), None),
        (in_document, Some(key.as_str())),
        (told, Some(key.as_str())),
        (serde_json::from_str(text)?, Some(key.as_str())),
    ] {
        let again = api.post_task(&document, header).await?;
        assert_eq!((again.status, &again.body), (200, &found), "{document}");
    }
    // Another context, another version: the answer names the task that has the key.
    let mut versioned = chain(5);
    versioned["version"] = "1.0.0".into();
    let mut other_name = chain(5);
    other_name["name"] = "fan_out".into();
    for document in [chain(6), versioned, other_name] {
        let refused = api.post_task(&document, Some(&key)).await?;
        let code = (refused.status, refused.code());
        assert_eq!(code, (409, code::IDEMPOTENCY_CONFLICT), "{document}: {}", refused.text);
        let detail = refused.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(id.as_str().unwrap_or("an id")), "{detail}");
    }
    // A key belongs to a namespace.
    let elsewhere = json!({"namespace": "faulty", "name": "sleep", "context": {"sleep_ms": 0}});
    let other = api.post_task(&elsewhere, Some(&key)).await?;
    assert_eq!((other.status, &other.body["created"]), (201, &json!(true)), "{}", other.text);
    Ok(())
}

#[tokio::test]
async fn twenty_at_once_make_one_task() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let key = Uuid::now_v7().to_string();
    let submit = async |_: u32| {
        // A client each, so that both orchestrators are asked.
        let api = cluster.api()?;
        api.post_task(&chain(9), Some(&key)).await
    };
    let answers = try_join_all((0..20).map(submit)).await?;
    let mut ids: Vec<_> = answers.iter().map(|answer| answer.body["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 19], vec![201]].concat());
    let query =
        format!("select count(*) as tasks from tasker.tasks where idempotency_key = '{key}'");
    assert_eq!(cluster.database()?.row(&query).await?, json!({"tasks": 1}));
    Ok(())
}

#[tokio::test]
async fn identities() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // A context that no other test uses.
    let with = |identity: &str| {
        let mut document = chain(7_700_001);
        document["identity"] = identity.into();
        document
    };
    // Strict: the same request is the same task, whatever key came with it.
    let first = api.post_task(&with("strict"), Some("one key")).await?;
    assert_eq!(first.status, 201, "{}", first.text);
    for key in [Some("another key"), None] {
        let again = api.post_task(&with("strict"), key).await?;
        assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]), "{}", again.text);
    }
    // The newest version by its name.
    let mut named = with("strict");
    named["version"] = "1.0.0".into();
    let named = api.post_task(&named, None).await?;
    assert_eq!((named.status, &named.body["id"]), (200, &first.body["id"]), "{}", named.text);
    let mut other = with("strict");
    other["context"]["start"] = 7_700_002.into();
    assert_eq!(api.post_task(&other, None).await?.status, 201);
    // Unique: each makes a task, and a key makes it safe to send one of them again.
    let unique = with("always_unique");
    let (a, b) = (api.post_task(&unique, None).await?, api.post_task(&unique, None).await?);
    assert_eq!((a.status, b.status), (201, 201), "{} {}", a.text, b.text);
    assert_ne!(a.body["id"], b.body["id"]);
    let key = Uuid::now_v7().to_string();
    let (a, b) =
        (api.post_task(&unique, Some(&key)).await?, api.post_task(&unique, Some(&key)).await?);
    assert_eq!((a.status, b.status, &a.body["id"]), (201, 200, &b.body["id"]));
    // Provided by the caller: there must be one.
    let provided = with("caller_provided");
    let refused = api.post_task(&provided, None).await?;
    assert_eq!((refused.status, refused.code()), (400, code::MISSING_KEY), "{}", refused.text);
    let key = Uuid::now_v7().to_string();
    assert_eq!(api.post_task(&provided, Some(&key)).await?.status, 201);
    assert_eq!(api.post_task(&provided, Some(&key)).await?.status, 200);
    // A key that looks like one of ours takes no request's place.
    let taken = format!("strict:{}", "0".repeat(64));
    let refused = api.post_task(&chain(0), Some(&taken)).await?;
    assert_eq!((refused.status, refused.code()), (400, code::INVALID_VALUE), "{}", refused.text);
    Ok(())
}
