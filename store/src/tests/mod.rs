//! Statements against a real Postgres; each test has a database of its own.

mod alone;
mod checkpoints;
mod decisions;
mod doctor;
mod failures;
mod flow;
mod guards;
mod handover;
mod interleavings;
mod lifecycle;
mod namespaces;
mod outcome_corpus;
mod plans;
mod races;
mod random;
mod retention;
mod schema;
mod states;
mod tokens;
mod verify;
mod views;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tasker_messages::{
    BatchId, Namespace, StepFailure, StepId, StepKind, TaskId, TaskRequest, TemplateId, Verdict,
    WorkerId,
};
use tasker_workflow::Template;
use uuid::Uuid;

use crate::{
    Applied, ClaimTerms, Converged, FinishedAttempt, NewBatch, NewMember, NewTask, ReadyStep,
    SentSpan, Store, SubmitVerdict, VerifyRequest,
};

/// Members that were sent one by one.
fn sent(batch: BatchId, from: u32, upto: u32) -> SentSpan {
    SentSpan { batch, from, upto, bundled: 1 }
}

const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - name: before
    handler: {callable: t.before}
  - name: analyze
    type: batchable
    dependencies: [before]
    handler: {callable: t.analyze}
    batch_config: {worker_template: work}
  - name: work
    type: batch_worker
    dependencies: [analyze]
    handler: {callable: t.work}
    retry: {max_attempts: 2, backoff: none, backoff_base_ms: 1, jitter: false}
  - name: join
    type: deferred_convergence
    dependencies: [work]
    handler: {callable: t.join}
  - name: after
    dependencies: [join]
    handler: {callable: t.after}
";

const LEASE_MS: u64 = 10_000;
const TERMS: ClaimTerms =
    ClaimTerms { lease_ms: 60_000, vanished: Duration::from_secs(8)..Duration::from_secs(300) };

fn ns() -> Namespace {
    Namespace::new("tests").expect("a valid name")
}

struct World {
    pool: PgPool,
    store: Store,
    template_id: TemplateId,
    template: Arc<Template>,
    worker: WorkerId,
    /// Whether an outcome is stored in a set although it is alone: by the other of two statements.
    in_sets: AtomicBool,
}

impl Converged {
    fn ready_ids(&self) -> Vec<StepId> {
        self.ready.iter().map(|step| step.id).collect()
    }
}

impl World {
    async fn new(pool: PgPool) -> Self {
        Self::of(pool, TEMPLATE).await
    }

    async fn of(pool: PgPool, source: &str) -> Self {
        let store = Store::from_pool(pool.clone());
        let template = Template::parse(source.as_bytes()).expect("a valid template");
        let template_id = TemplateId::from_uuid(Uuid::now_v7());
        let registered = store.register_template(template_id, &template, source).await;
        assert!(registered.expect("stored").created);
        let worker = WorkerId::from_uuid(Uuid::now_v7());
        let (template, in_sets) = (Arc::new(template), AtomicBool::default());
        Self { pool, store, template_id, template, worker, in_sets }
    }

    /// Somebody was last heard of a minute ago.
    async fn lose_a_worker(&self) {
        self.run(
            "insert into tasker.workers
                 (id, namespace, name, build, queues, callables, draining, last_beat_at)
             values (gen_random_uuid(), 'tests', 'gone', '', '[]', '{}', false,
                     now() - interval '1 minute')",
        )
        .await;
    }

    /// What a transaction says of steps that it made ready is what their rows say.
    async fn assert_as_read(&self, made: &[ReadyStep]) {
        let ids: Vec<StepId> = made.iter().map(|step| step.id).collect();
        let read = self.store.load_ready(&ids).await.expect("read");
        assert_eq!(read.len(), made.len());
        for read in read {
            let made = made.iter().find(|step| step.id == read.id).expect("it was asked for");
            let made = ReadyStep { known_since: read.known_since, ..made.clone() };
            assert_eq!(format!("{made:?}"), format!("{read:?}"));
        }
    }

    fn new_task(&self, key: Option<&str>, hash: u8) -> NewTask {
        let request = json!({"name": "numbers", "context": {"n": hash}});
        let mut request = TaskRequest::parse(request.to_string().as_bytes(), Some(&ns()))
            .expect("a valid request");
        request.idempotency_key = key.map(str::to_owned);
        let plan = self.template.submission();
        NewTask {
            id: TaskId::from_uuid(Uuid::now_v7()),
            request,
            request_hash: [hash; 32],
            template_id: self.template_id,
            assumes_newest: false,
            template: Arc::clone(&self.template),
            step_ids: plan.steps.iter().map(|_| StepId::from_uuid(Uuid::now_v7())).collect(),
            plan,
        }
    }

    /// A task whose steps are `before` (ready) and `analyze` (pending).
    async fn submit(&self) -> NewTask {
        let task = self.new_task(None, 1);
        let verdicts = self.store.insert_tasks(std::slice::from_ref(&task)).await.expect("stored");
        assert_eq!(verdicts, [SubmitVerdict::Created]);
        task
    }

    fn finished(&self, step: StepId, kind: StepKind, attempt: u32) -> FinishedAttempt {
        FinishedAttempt {
            has_schema: false,
            has_events: false,
            step_id: step,
            attempt,
            dispatch_seq: 1,
            kind,
            worker: self.worker,
            execution_ms: 3,
            ending: Ok("{\"value\": 1}".into()),
            takes_next: false,
        }
    }

    async fn apply(&self, set: &[FinishedAttempt]) -> Applied {
        let mut set = set.to_vec();
        let in_a_set = self.in_sets.load(Ordering::Relaxed);
        if in_a_set {
            // Of a step that is none.
            set.push(self.finished(StepId::from_uuid(Uuid::nil()), StepKind::Standard, 1));
        }
        let mut applied = self.store.apply_outcomes(&ns(), &set, LEASE_MS).await.expect("applied");
        if in_a_set {
            assert_eq!(applied.verdicts.pop(), Some(Verdict::Unknown));
        }
        applied
    }

    /// Stores outcomes by the statement for sets from now on, or each that comes alone by its own.
    fn store_in_sets(&self, in_sets: bool) {
        self.in_sets.store(in_sets, Ordering::Relaxed);
    }

    async fn succeed(&self, step: StepId, kind: StepKind) -> Applied {
        let applied = self.apply(&[self.finished(step, kind, 1)]).await;
        assert_eq!(applied.verdicts, [Verdict::Applied]);
        applied
    }

    /// A batch of so many members under `analyze`, both parents done.
    async fn expand(&self, members: u32) -> (NewTask, BatchId) {
        let task = self.submit().await;
        self.succeed(task.step_ids[0], StepKind::Standard).await;
        self.succeed(task.step_ids[1], StepKind::Batchable).await;
        let batch = self.new_batch(&task, members);
        let sealed = self.store.seal_new_batches(std::slice::from_ref(&batch)).await;
        assert_eq!(sealed.expect("sealed").batches, [batch.id]);
        (task, batch.id)
    }

    fn new_batch(&self, task: &NewTask, members: u32) -> NewBatch {
        NewBatch {
            id: BatchId::from_uuid(Uuid::now_v7()),
            task_id: task.id,
            namespace: ns(),
            batchable_step: task.step_ids[1],
            worker_template: "work".into(),
            queue: "default".into(),
            priority: 0,
            is_no_op: false,
            expected: members,
            max_failed: members,
            isolates: false,
            parallelism: None,
            members: (0..members)
                .map(|n| NewMember {
                    name: format!("work_{:03}", n + 1),
                    cursor_json: format!(
                        r#"{{"batch_id":"{:03}","start_cursor":{n},"end_cursor":{},"batch_size":1}}"#,
                        n + 1,
                        n + 1
                    ),
                })
                .collect(),
        }
    }

    fn members(&self, batch: BatchId, n: u32) -> Vec<FinishedAttempt> {
        (0..n).map(|o| self.finished(batch.member(o), StepKind::BatchWorker, 1)).collect()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a count")
    }

    async fn state(&self, task: TaskId) -> String {
        let view = self.store.view_task(task, None).await.expect("read").expect("there");
        view.state.to_string()
    }

    /// What `tasker verify` checks.
    async fn assert_consistent(&self) {
        let found = self.store.verify(&VerifyRequest::default()).await.expect("read");
        assert!(found.ok, "{found:#?}");
    }

    /// Counters equal rows, of one task: the random tests ask it after each of thousands, and what all tasks
    /// before had is not to be counted again each time.
    async fn assert_counters(&self, task: TaskId) {
        let wrong: i64 = sqlx::query_scalar(
            "select count(*) from tasker.batches b
             cross join lateral (
                 select count(*) filter (where o.state in ('complete', 'resolved_manually')) as ok,
                        count(*) filter (where o.state = 'error') as failed,
                        count(*) filter (where o.state is null) as open
                 from tasker.steps s left join tasker.outcomes o on o.step_id = s.id
                 -- By the primary key: ids of members lie behind the id of their batch.
                 where s.id between (left(b.id::text, 28) || '00000000')::uuid
                                and (left(b.id::text, 28) || 'ffffffff')::uuid
                   and s.batch_id = b.id) c
             where b.sealed_at is not null and b.task_id = $1
               and (b.succeeded, b.failed, b.remaining) <> (c.ok, c.failed, c.open)",
        )
        .bind(task.as_uuid())
        .fetch_one(&self.pool)
        .await
        .expect("a count");
        assert_eq!(wrong, 0, "batches whose counters differ from their rows");
    }
}

fn failure(retryable: bool) -> StepFailure {
    StepFailure {
        code: "BOOM".into(),
        message: "it broke".into(),
        retryable,
        error_type: String::new(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    }
}
