//! Analyzers that are run for plans: there is no step, so nothing is claimed, stored or reported.

use std::time::Duration;

use serde_json::{Value, json};
use tasker_bus::RequestError;
use tasker_messages::cursor::create_cursor_configs;
use tasker_messages::{AnalyzerRan, AttemptOutcome, RunAnalyzer, code, subject};
use tasker_sdk::{StepContext, StepError, StepResult};

use crate::fake::{Fake, part};
use crate::handlers::registry;
use crate::server::within;

/// Does what an analyzer may do, and returns what it sees of the plan.
async fn analyzes(ctx: StepContext) -> Result<StepResult, StepError> {
    ctx.save_checkpoint(1, 1, ()).await?;
    let appended = ctx.append_cursors(create_cursor_configs(10, 2)).await?;
    Ok(json!({"is_plan": ctx.is_plan(), "name": ctx.name(), "appended": appended}).into())
}

async fn yields(_: StepContext) -> Result<StepResult, StepError> {
    Ok(StepResult::yielded(tasker_messages::Checkpoint {
        cursor: json!(1),
        items_processed: 1,
        accumulated_results: Value::Null,
        timestamp: None,
    }))
}

async fn ask(
    fake: &Fake,
    callable: &str,
    timeouts: (Option<u64>, u64),
) -> Result<AnalyzerRan, RequestError> {
    let mut shared = part(callable, json!({}));
    shared.timeout_ms = timeouts.0;
    let request = RunAnalyzer { step: "split".to_owned(), time_limit_ms: timeouts.1, shared };
    let subject = subject::plan(&fake.namespace, &fake.queue);
    fake.bus.request(subject, &request, Duration::from_secs(5)).await
}

/// The result, the code of the error, or the code of the refusal and whether another worker may do.
fn shown(answer: Result<AnalyzerRan, RequestError>) -> Value {
    match answer {
        Ok(AnalyzerRan { outcome: AttemptOutcome::Succeeded(text), .. }) => {
            serde_json::from_str(text.get()).expect("JSON")
        }
        Ok(AnalyzerRan { outcome: AttemptOutcome::Failed(failure), .. }) => json!(failure.code),
        Err(RequestError::Refused(refusal)) => json!([refusal.code, refusal.retryable]),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_leaves_nothing_behind() {
    let fake = Fake::start().await;
    let handlers = registry().register("analyzes", analyzes).register("yields", yields);
    let worker = fake.worker(handlers).await;
    within("the worker listens", async {
        while let Err(RequestError::NoResponders { .. }) = ask(&fake, "echo", (None, 100)).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let table = [
        ("analyzes", (None, 5_000), json!({"is_plan": true, "name": "split", "appended": 2})),
        ("missing", (None, 5_000), json!([code::HANDLER_NOT_FOUND, true])),
        ("panics", (None, 5_000), json!(code::HANDLER_PANIC)),
        ("permanent", (None, 5_000), json!("MINE")),
        ("large", (None, 5_000), json!(code::RESULT_TOO_LARGE)),
        ("yields", (None, 5_000), json!(code::PLAN_NOT_POSSIBLE)),
        ("sleeps", (None, 100), json!(code::PLAN_TIMEOUT)),
        ("sleeps", (Some(100), 5_000), json!(code::HANDLER_TIMEOUT)),
        ("sleeps", (Some(5_000), 100), json!(code::PLAN_TIMEOUT)),
    ];
    for (callable, timeouts, expect) in table {
        assert_eq!(shown(ask(&fake, callable, timeouts).await), expect, "{callable} {timeouts:?}");
    }
    let ran = ask(&fake, "analyzes", (None, 5_000)).await.expect("an answer");
    assert_eq!(ran.cursors, create_cursor_configs(10, 2));
    // As many at a time as the worker runs beside its slots; the next one is for another worker.
    let long = || ask(&fake, "sleeps", (None, 1_500));
    let (one, two, three) = tokio::join!(long(), long(), long());
    let mut endings = [shown(one), shown(two), shown(three)].map(|ending| ending.to_string());
    endings.sort();
    let [timeout, busy] = [json!(code::PLAN_TIMEOUT), json!([code::UNAVAILABLE, true])];
    assert_eq!(endings, [&timeout, &timeout, &busy].map(Value::to_string));
    worker.stop().await;
    let seen = fake.seen();
    assert_eq!((seen.outcomes().count(), seen.claims.len(), seen.parts.len()), (0, 0, 0));
}
