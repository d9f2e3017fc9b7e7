//! How many members of a batch are outstanding at a time.

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster};

use crate::support::{SOON, number, slow_batch};

/// How many members ran when each of the members began.
async fn running(api: &Api, name: &str, config: &str, context: Value) -> anyhow::Result<Vec<u64>> {
    api.register(&slow_batch(name, config, "faulty.gauge")).await?;
    let n = number(&context, "n")?;
    let task = api.run("faulty", name, context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.result("sum_slowly")?["sum"], n * (n - 1) / 2, "{}", task.view["batches"]);
    let steps = api.all_steps(task.id(), 1_000).await?;
    let members = steps.iter().filter(|step| step["type"] == "batch_worker");
    members.map(|step| number(&step["results"]["result"], "running")).collect()
}

#[tokio::test]
async fn eight_members_are_kept_busy() -> anyhow::Result<()> {
    // One worker with more slots than that, so that its gauge sees all of them.
    let cluster = Cluster::start(1, 1).await?;
    let api = cluster.api()?;
    let fail_once: Vec<u64> = (0..96).step_by(12).collect();
    let context = json!({"n": 96, "sleep_ms": 150, "fail_once": fail_once});
    let limited = running(&api, "eight_at_a_time", ", parallelism: 8", context.clone()).await?;
    assert_eq!(limited.iter().max(), Some(&8), "{limited:?}");
    // A place that is free is taken at once: not in waves, where each begins with one.
    let full = limited.iter().filter(|&&running| running >= 7).count();
    assert!(full >= limited.len() / 2, "{limited:?}");

    let free = running(&api, "as_many_as_there_are", "", context).await?;
    assert!(free.iter().max() > Some(&8), "the limit made no difference: {free:?}");
    let alone = json!({"n": 12, "sleep_ms": 5});
    let one = running(&api, "one_at_a_time", ", parallelism: 1", alone).await?;
    assert_eq!(one, [1; 12]);
    Ok(())
}
