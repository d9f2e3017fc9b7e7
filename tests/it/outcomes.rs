//! Reports of outcomes as a worker sends them, and as no worker should: each step ends once.

use std::time::Duration;

use anyhow::Context;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tasker_bus::Bus;
use tasker_messages::subject::Request;
use tasker_messages::{
    AttemptFinished, AttemptOutcome, Namespace, OutcomeReport, OutcomeVerdicts, StepFailure,
    StepId, StepKind, Verdict, WorkerId,
};
use tasker_tests::{Cluster, assert_same, until_some};
use uuid::Uuid;

use crate::support::{SOON, balanced, books, ended_batch, without};

/// An outcome of one attempt of one member.
fn finished(step_id: StepId, attempt: u32, kind: StepKind, value: u64) -> AttemptFinished {
    let result = to_raw_value(&json!({"value": value})).expect("JSON");
    let outcome = AttemptOutcome::Succeeded(result);
    AttemptFinished {
        step_id,
        attempt,
        dispatch_seq: 1,
        kind,
        has_schema: false,
        has_events: false,
        execution_ms: 1,
        outcome,
    }
}

fn failed(step_id: StepId) -> AttemptFinished {
    let failure = StepFailure {
        code: "LATE".to_owned(),
        message: "too late".to_owned(),
        retryable: true,
        error_type: String::new(),
        retry_after_ms: None,
        context: Value::Null,
    };
    let outcome = AttemptOutcome::Failed(failure);
    AttemptFinished { outcome, ..finished(step_id, 1, StepKind::BatchWorker, 0) }
}

async fn report(
    bus: &Bus,
    namespace: &str,
    outcomes: Vec<AttemptFinished>,
) -> anyhow::Result<Vec<Verdict>> {
    let subject = Request::Outcome.subject(&Namespace::new(namespace)?);
    let report = OutcomeReport {
        worker: WorkerId::from_uuid(Uuid::now_v7()),
        outcomes,
        takes: 0,
        tells_schemas: false,
        tells_events: false,
    };
    let reply: OutcomeVerdicts = bus.request(subject, &report, Duration::from_secs(30)).await?;
    Ok(reply.verdicts)
}

/// Id and number of the members of a listing that are in a state.
fn members(steps: &[Value], state: &str) -> anyhow::Result<Vec<(StepId, u64)>> {
    let wanted = |step: &&Value| step["type"] == "batch_worker" && step["state"] == state;
    let member = |step: &Value| {
        let id = step["id"].as_str().context("an id")?.parse()?;
        Ok((id, step["inputs"]["cursor"]["start_cursor"].as_u64().context("a number")?))
    };
    steps.iter().filter(wanted).map(member).collect()
}

#[tokio::test]
async fn the_first_outcome_of_a_step_stays() -> anyhow::Result<()> {
    const N: u64 = 300;
    let cluster = Cluster::shared().await?;
    let (api, bus) = (cluster.api()?, cluster.bus().await?);
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 1_000})).await?;
    let steps = until_some("some members have ended", SOON, async || {
        let steps = api.all_steps(&id, 1_000).await?;
        Ok((members(&steps, "complete")?.len() >= 30).then_some(steps))
    })
    .await?;
    let member = StepKind::BatchWorker;

    // What has ended has ended, whatever is said of it, alone or twice in one report.
    let ended = members(&steps, "complete")?;
    let all_say = |value: u64| {
        let all = ended.iter().map(move |(id, _)| finished(*id, 1, member, value));
        all.collect::<Vec<_>>()
    };
    assert_eq!(report(&bus, "faulty", all_say(7)).await?, vec![Verdict::Duplicate; ended.len()]);
    let twice = [all_say(8), all_say(9)].concat();
    assert_eq!(report(&bus, "faulty", twice).await?, vec![Verdict::Duplicate; 2 * ended.len()]);
    let late: Vec<_> = ended.iter().map(|(id, _)| failed(*id)).collect();
    assert_eq!(report(&bus, "faulty", late).await?, vec![Verdict::Duplicate; ended.len()]);

    // The last of those that wait: nobody has begun them.
    let waiting = members(&steps, "enqueued")?;
    let [.., (third, third_number), (second, _), (first, first_number)] = waiting[..] else {
        panic!("nothing waits")
    };
    let unknown = StepId::from_uuid(Uuid::now_v7());
    let odd = vec![
        finished(first, 2, member, 0),
        finished(second, 9, member, 0),
        finished(third, 1, StepKind::Standard, 0),
        finished(unknown, 1, member, 0),
    ];
    let stale = Verdict::Stale { superseded: false };
    let expect = [stale, stale, Verdict::Unknown, Verdict::Unknown];
    assert_eq!(report(&bus, "faulty", odd).await?, expect);
    let foreign = vec![finished(first, 1, member, 0)];
    assert_eq!(report(&bus, "bench", foreign).await?, [Verdict::Unknown]);

    // A result of the current attempt ends the step; what its worker says later changes nothing.
    // Of two in one report the first counts, and each step counts once.
    let (one, two) = (first_number + 1_000_000, third_number + 2_000_000);
    let said_twice = vec![finished(first, 1, member, one), finished(first, 1, member, 5)];
    assert_eq!(report(&bus, "faulty", said_twice).await?, [Verdict::Applied; 2]);
    let two_attempts = vec![finished(third, 1, member, two), finished(third, 2, member, 5)];
    assert_eq!(report(&bus, "faulty", two_attempts).await?, [Verdict::Applied, Verdict::Duplicate]);
    let again = vec![finished(first, 1, member, 5), finished(third, 1, member, 5)];
    assert_eq!(report(&bus, "faulty", again).await?, [Verdict::Duplicate; 2]);

    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let sum = N * (N - 1) / 2 + 3_000_000;
    let expect = json!({"sum": sum, "succeeded": N, "failed": 0, "worker_count": N});
    assert_same(task.result("sum_slowly")?, &expect, &[]);
    let batch = ended_batch("split_slowly", "work_slowly", N, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    assert_same(&books(&cluster.database()?, &id).await?, &balanced(N), &[]);
    Ok(())
}
