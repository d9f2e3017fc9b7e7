//! What several tests have in common.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tasker_tests::Database;

/// Longest life of a task that takes a second or two on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// An object without these keys.
pub(crate) fn without(value: &Value, keys: &[&str]) -> Value {
    let entries = value.as_object().cloned().unwrap_or_default();
    let left: Map<_, _> =
        entries.into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect();
    Value::Object(left)
}

/// A batch that came to its end, as the API shows it without its id.
pub(crate) fn ended_batch(analyzer: &str, worker: &str, succeeded: u64, failed: u64) -> Value {
    let all = succeeded + failed;
    json!({
        "batchable_step": analyzer, "worker_template": worker,
        "state": if succeeded > 0 { "converged" } else { "failed" },
        "expected": all, "published": all, "succeeded": succeeded, "failed": failed,
        "remaining": 0, "is_no_op": false,
    })
}

/// The placeholder of an analyzer that found nothing to do.
pub(crate) fn no_op_batch(analyzer: &str, worker: &str) -> Value {
    let mut batch = ended_batch(analyzer, worker, 1, 0);
    batch["is_no_op"] = true.into();
    batch
}

/// What the placeholder worker of a batch without ranges returns.
pub(crate) fn no_op_result() -> Value {
    json!({"no_op": true, "batch_id": "000", "items_processed": 0, "items_succeeded": 0,
        "items_failed": 0, "items_skipped": 0})
}

/// What the rows say about a task with one batch, beside what the API says.
pub(crate) async fn books(database: &Database, task: &str) -> anyhow::Result<Value> {
    let query = format!(
        "select t.active_steps, t.pending_steps, b.expected, b.remaining, b.succeeded, b.failed,
                b.settled, count(s.id) as members,
                count(*) filter (where o.state = 'complete') as complete,
                count(*) filter (where o.state = 'error') as error,
                count(*) filter (where o.state = 'cancelled') as cancelled,
                count(s.id) filter (where o.step_id is null) as open,
                count(*) filter (where o.attempt <> s.attempt) as ended_by_another_attempt,
                count(f.step_id) as attempts_counted_twice
         from tasker.tasks t
         join tasker.batches b on b.task_id = t.id
         left join tasker.steps s on s.batch_id = b.id
         left join tasker.outcomes o on o.step_id = s.id
         left join tasker.failed_attempts f
           on f.step_id = s.id and f.attempt >= coalesce(o.attempt, s.attempt)
         where t.id = '{task}'
         group by t.id, b.id"
    );
    database.row(&query).await
}

/// The books of a task that is complete, all of its members having succeeded.
pub(crate) fn balanced(members: u64) -> Value {
    json!({
        "active_steps": 0, "pending_steps": 0, "expected": members, "remaining": 0,
        "succeeded": members, "failed": 0, "settled": true, "members": members,
        "complete": members, "error": 0, "cancelled": 0, "open": 0,
        "ended_by_another_attempt": 0, "attempts_counted_twice": 0,
    })
}

/// How many members of the task's only batch have ended; 0 before it is sealed.
pub(crate) fn ended_members(summary: &Value) -> u64 {
    let batch = &summary["batches"][0];
    batch["succeeded"].as_u64().unwrap_or(0) + batch["failed"].as_u64().unwrap_or(0)
}

/// The number under a key.
pub(crate) fn number(value: &Value, key: &str) -> anyhow::Result<u64> {
    value[key].as_u64().with_context(|| format!("no number {key} in {value}"))
}

/// A template like `slow_batch` with this much more in its `batch_config`, and this handler for its
/// members, which have two attempts.
pub(crate) fn slow_batch(name: &str, config: &str, member: &str) -> String {
    format!(
        "name: {name}
namespace_name: faulty
version: 1.0.0
steps:
  - name: split_slowly
    type: batchable
    handler: {{callable: faulty.slow_split}}
    batch_config: {{worker_template: work_slowly{config}}}
  - name: work_slowly
    type: batch_worker
    dependencies: [split_slowly]
    handler: {{callable: {member}}}
    retry: {{max_attempts: 2, backoff: none}}
  - name: sum_slowly
    type: deferred_convergence
    dependencies: [work_slowly]
    handler: {{callable: faulty.slow_sum}}
"
    )
}
