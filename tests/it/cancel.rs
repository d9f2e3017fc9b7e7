//! Cancelling: nothing new starts, nothing is left without an end.

use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Api, Cluster, Database, assert_same, until, until_some};

use crate::support::{SOON, books, ended_members, number};

async fn cancel(api: &Api, id: &str) -> anyhow::Result<()> {
    let path = format!("/v1/tasks/{id}");
    let answer = api.send("DELETE", &path, &[], Vec::new()).await?;
    assert_eq!((answer.status, &answer.body), (202, &json!({"id": id, "state": "cancelled"})));
    let again = api.send("DELETE", &path, &[], Vec::new()).await?;
    assert_eq!((again.status, again.code()), (409, code::TASK_ENDED), "{}", again.text);
    let task = api.wait(id, SOON).await?;
    assert_eq!(task.state(), "cancelled", "{}", task.view);
    assert!(task.view["finished_at"].is_string(), "{}", task.view);
    Ok(())
}

/// The books of a task's batch, once all of it is settled.
async fn settled(database: &Database, id: &str) -> anyhow::Result<Value> {
    until_some("the batch is settled", SOON, async || {
        let books = books(database, id).await?;
        Ok((books["settled"] == true).then_some(books))
    })
    .await
}

#[tokio::test]
async fn a_running_batch_stops() -> anyhow::Result<()> {
    const N: u64 = 2_000;
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 300})).await?;
    until("some members have ended", SOON, async || {
        Ok(ended_members(&api.summary(&id).await?) >= 50)
    })
    .await?;
    cancel(&api, &id).await?;
    let books = settled(&database, &id).await?;
    let count = |key: &str| number(&books, key);
    assert!(count("complete")? >= 50 && count("cancelled")? > 0, "{books}");
    assert_eq!(count("complete")? + count("cancelled")?, N, "{books}");
    assert_eq!((count("members")?, count("open")?, count("remaining")?), (N, 0, 0), "{books}");
    assert_eq!((count("complete")?, count("error")?), (count("succeeded")?, 0), "{books}");
    // The rest of the window comes in late and changes nothing.
    let summary = api.summary(&id).await?;
    assert_eq!(summary["batches"][0]["state"], "cancelled", "{summary}");
    let steps = api.all_steps(&id, 1_000).await?;
    let not_ended = |step: &&Value| {
        let state = step["state"].as_str().unwrap_or_default();
        !matches!(state, "complete" | "cancelled")
    };
    let open: Vec<&Value> = steps.iter().filter(not_ended).collect();
    assert!(open.is_empty(), "{open:?}");
    assert!(steps.iter().all(|step| step["name"] != "sum_slowly"));
    // The next task is not held up by what was cancelled.
    let next = api.run("faulty", "slow_batch", json!({"n": 10}), SOON).await?;
    assert_eq!(next.result("sum_slowly")?["sum"], 45);
    assert_same(&self::books(&database, &id).await?, &books, &[]);
    Ok(())
}

#[tokio::test]
async fn an_expansion_stops() -> anyhow::Result<()> {
    const N: u64 = 300_000;
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let id = api.submit("bench", "fan_out", json!({"n": N})).await?;
    let query = format!("select state from tasker.batches where task_id = '{id}'");
    until("the batch expands", SOON, async || {
        Ok(database.rows(&query).await? == json!([{"state": "expanding"}]))
    })
    .await?;
    cancel(&api, &id).await?;
    // Members of a batch that never was sealed are taken back.
    let books = settled(&database, &id).await?;
    for key in ["members", "succeeded", "failed", "complete", "cancelled"] {
        assert_eq!(number(&books, key)?, 0, "{key}: {books}");
    }
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.step_names(), ["make_ranges"]);
    assert_eq!(api.all_steps(&id, 1_000).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn steps_that_wait_are_cancelled() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let yaml = "name: waits\nnamespace_name: faulty\nversion: 1.0.0\nsteps:\n  - name: slow\n    \
                handler: {callable: faulty.sleep}\n  - name: behind\n    dependencies: [slow]\n    \
                handler: {callable: faulty.sleep}\n";
    api.register(yaml).await?;
    let id = api.submit("faulty", "waits", json!({"sleep_ms": 2_000})).await?;
    cancel(&api, &id).await?;
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.step_names(), ["behind", "slow"]);
    for step in task.steps() {
        assert_eq!(step["state"], "cancelled", "{step}");
        assert_eq!(step["results"]["success"], false, "{step}");
    }
    Ok(())
}
