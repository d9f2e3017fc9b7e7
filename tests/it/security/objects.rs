//! One of everything that a namespace can hold, made by somebody who may.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tasker_messages::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use tasker_tests::{Api, Cluster, until_some};
use uuid::Uuid;

use crate::support::SOON;

/// A namespace in which there is one of everything.
pub(super) struct Objects {
    pub(super) namespace: &'static str,
    /// What stands in every document of it, and so in nothing that others may see.
    pub(super) mark: String,
    /// Ended in error, with a batch of which one member failed.
    pub(super) failed: String,
    /// Its batch.
    pub(super) batch: String,
    /// The member that failed.
    pub(super) member: String,
    /// Complete.
    pub(super) complete: String,
    /// Its only step.
    pub(super) step: String,
    /// A task whose only step, a batchable one, is on the bus and pulled by nobody.
    pub(super) waiting: String,
    /// That step.
    pub(super) waiting_step: String,
    /// A dead letter that waits for somebody.
    pub(super) letter: i64,
    /// A dead letter that was redriven.
    pub(super) redriven: i64,
    /// A worker that serves this namespace alone, and is silent.
    pub(super) worker: String,
}

/// Templates of a namespace. All have the mark in their descriptions.
fn templates(namespace: &str, mark: &str) -> [String; 3] {
    let head = |name: &str| {
        format!(
            "name: {name}\nnamespace_name: {namespace}\nversion: 1.0.0\ndescription: {mark}\nsteps:\n"
        )
    };
    [
        head("returns") + "  - {name: only, handler: {callable: faulty.return_context}}\n",
        head("waits")
            + "  - {name: split, type: batchable, handler: {callable: faulty.slow_split, queue: nobody}}
  - {name: work_slowly, type: batch_worker, dependencies: [split], handler: {callable: faulty.slow_work}}
  - {name: sum, type: deferred_convergence, dependencies: [work_slowly], handler: {callable: faulty.slow_sum}}
",
        head("splits")
            + "  - name: split
    type: batchable
    handler: {callable: faulty.slow_split}
    batch_config: {failure_strategy: isolate}
  - {name: work_slowly, type: batch_worker, dependencies: [split], handler: {callable: faulty.slow_work}}
  - {name: sum, type: deferred_convergence, dependencies: [work_slowly], handler: {callable: faulty.slow_sum}}
",
    ]
}

impl Objects {
    pub(super) async fn make(cluster: &Cluster, namespace: &'static str) -> anyhow::Result<Self> {
        let api = cluster.api()?;
        let mark = format!("mark-of-{namespace}-{}", Uuid::now_v7().simple());
        for template in templates(namespace, &mark) {
            api.register(&template).await?;
        }
        let result = json!({"result": {"mark": mark}});
        let complete = api.run(namespace, "returns", result, SOON).await?;
        ensure!(complete.state() == "complete", "{}", complete.view);
        // All members fail, so that the aggregator does not run and everything can be repaired.
        let context = json!({"n": 2, "sleep_ms": 0, "fail": [0, 1], "mark": mark});
        let failed = api.run(namespace, "splits", context, SOON).await?;
        ensure!(failed.state() == "blocked_by_failures", "{}", failed.view);
        let waiting = api.submit(namespace, "waits", json!({"n": 2, "mark": mark})).await?;
        let waiting_view = api.read(&format!("/v1/tasks/{waiting}")).await?;
        let letter = refused(&api, cluster, namespace, &mark).await?;
        let redriven = redriven(&api, cluster, namespace, &mark).await?;
        let worker = silent_worker(cluster, namespace, &mark).await?;
        Ok(Self {
            namespace,
            complete: complete.id().to_owned(),
            step: text(&complete.step("only")?["id"])?,
            batch: text(&failed.batch()?["id"])?,
            member: text(&failed.step("work_slowly_001")?["id"])?,
            failed: failed.id().to_owned(),
            waiting_step: text(&waiting_view["steps"][0]["id"])?,
            waiting,
            letter,
            redriven,
            worker,
            mark,
        })
    }

    /// Every row of the namespace, to see whether anything was done to it. What happens by itself,
    /// while nothing is asked for, is left out.
    pub(super) async fn rows(&self, cluster: &Cluster) -> anyhow::Result<Value> {
        let namespace = self.namespace;
        let tables = [
            "templates",
            "tasks",
            "batches",
            "failed_attempts",
            "admin_actions",
            "dead_letters",
            "namespaces",
            "queue_limits",
            "cursor_pages",
            "checkpoints",
            "outcomes",
            "steps",
            "workers",
        ];
        let mut rows = json!({});
        for table in tables {
            let of_steps = matches!(table, "cursor_pages" | "checkpoints" | "outcomes");
            let which = match table {
                "namespaces" => format!("where t.name = '{namespace}'"),
                _ if of_steps => format!(
                    "where t.step_id in (select id from tasker.steps where namespace = '{namespace}')"
                ),
                // Live workers of the cluster come into it by themselves.
                "workers" => format!("where t.id = '{}'", self.worker),
                _ => format!("where t.namespace = '{namespace}'"),
            };
            let query = format!(
                "select coalesce(json_agg(to_jsonb(t) - 'sent_seq' - 'check_at' - 'shared_by'
                     - 'shared_until' - 'touched_at' order by to_jsonb(t)::text), '[]') as found
                 from tasker.{table} t {which}"
            );
            rows[table] = cluster.database()?.row(&query).await?["found"].take();
        }
        Ok(rows)
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("no text: {value}"))?.to_owned())
}

/// A message of the submit stream that is refused, and so becomes a dead letter.
async fn refused(api: &Api, cluster: &Cluster, namespace: &str, mark: &str) -> anyhow::Result<i64> {
    let document = json!({"name": format!("none-{mark}"), "context": {"mark": mark}});
    let subject = format!("tasker.enqueue.{namespace}");
    let headers = [(PROTOCOL_HEADER, PROTOCOL_VERSION)];
    let document = document.to_string();
    cluster.wire().await?.request(&subject, &headers, document.as_bytes()).await?;
    find_letter(api, namespace, "message", false).await
}

/// A letter that was submitted anew: of a task that lasted too long.
async fn redriven(
    api: &Api,
    cluster: &Cluster,
    namespace: &str,
    mark: &str,
) -> anyhow::Result<i64> {
    // As if it had; the clock need not be waited for.
    let insert = format!(
        "insert into tasker.dead_letters
             (namespace, subject, payload, error, place, redriven_at)
         values ('{namespace}', 'x', '{mark}', '{{\"code\": \"X\", \"message\": \"{mark}\"}}',
                 '{namespace}', now())"
    );
    cluster.database()?.run(&insert).await?;
    find_letter(api, namespace, "message", true).await
}

async fn find_letter(
    api: &Api,
    namespace: &str,
    kind: &str,
    redriven: bool,
) -> anyhow::Result<i64> {
    let path = format!("/v1/dlq?namespace={namespace}&kind={kind}&redriven={redriven}");
    until_some("a dead letter", SOON, async || {
        Ok(api.read(&path).await?["letters"][0]["id"].as_i64())
    })
    .await
}

async fn silent_worker(cluster: &Cluster, namespace: &str, mark: &str) -> anyhow::Result<String> {
    let worker = Uuid::now_v7().to_string();
    let insert = format!(
        "insert into tasker.workers (id, namespace, name, build, queues, callables, draining,
                                     last_beat_at)
         values ('{worker}', '{namespace}', '{mark}', 'x', '[]', '{{}}', false,
                 now() - interval '10 minutes')"
    );
    cluster.database()?.run(&insert).await?;
    Ok(worker)
}
