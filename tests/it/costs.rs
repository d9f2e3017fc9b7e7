//! What a step costs the servers, in counts: they do not depend on how busy the machine is, and grow as
//! soon as something is done per step that was done per set.

use serde_json::json;
use tasker_tests::{Costs, Counted};

use crate::support::SOON;

/// Members of the batch that is counted.
const N: u64 = 10_000;

#[tokio::test]
async fn a_member_costs_no_statement_and_one_delivery() -> anyhow::Result<()> {
    let counted = Counted::start().await?;
    let api = counted.cluster().api()?;
    // The first task registers, plans and warms up.
    let run = async |n: u64| {
        let task = api.run("bench", "fan_out", json!({"n": n}), SOON).await?;
        anyhow::ensure!(task.state() == "complete", "{}", task.view);
        anyhow::Ok(())
    };
    run(10).await?;
    let before = counted.costs().await?;
    run(N).await?;
    let costs = counted.costs().await?.since(before);
    let Costs { statements, wal_bytes, sent, delivered, .. } = costs;
    // Sets are at the largest 256 outcomes of a worker; on a busy machine they are smaller.
    assert!(statements <= N / 10, "{costs:?}");
    // The work item and its acknowledgement are sent, the work item is delivered; what confirms it and
    // outcomes go in sets.
    assert!(sent <= N * 23 / 10 && delivered <= N * 13 / 10, "{costs:?}");
    assert!(wal_bytes <= N * 900, "{costs:?}");
    // They count at all. As soon as members are known to be quick, sixteen come in one message.
    assert!(statements > 20 && delivered > N / 16 && wal_bytes > 100 * N, "{costs:?}");
    assert!(sent > delivered, "{costs:?}");
    Ok(())
}
