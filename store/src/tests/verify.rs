//! Each invariant of `tasker verify` with the damage that it finds: one that no damage breaks proves
//! nothing.

mod damages;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use sqlx::PgPool;
use tasker_messages::{BatchId, StepId, StepKind, TaskId, Verification};
use uuid::Uuid;

use self::damages::{DAMAGES, WITHOUT_CONSTRAINTS};
use super::random::script::decided;
use super::{World, failure};
use crate::{FinishedAttempt, MemberSource, NewTask, RepairRequest, RepairTarget, VerifyRequest};

const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: before, handler: {callable: t}}
  - name: analyze
    type: batchable
    dependencies: [before]
    handler: {callable: t}
    batch_config: {worker_template: work}
  - name: work
    type: batch_worker
    dependencies: [analyze]
    handler: {callable: t}
    retry: {max_attempts: 2, backoff: none, backoff_base_ms: 1, jitter: false}
  - {name: route, type: decision, dependencies: [before], handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
  - {name: right, dependencies: [route], handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [work, left], handler: {callable: t}}
  - {name: after, dependencies: [join], handler: {callable: t}}
";

/// Tasks in every stage, and the ids of what is in them, as `task step`.
struct Stages {
    world: World,
    ids: HashMap<String, Uuid>,
}

impl Stages {
    async fn new(pool: PgPool) -> Self {
        let mut stages = Self { world: World::of(pool, TEMPLATE).await, ids: HashMap::new() };
        stages.done().await;
        stages.open().await;
        stages.writing().await;
        stages.mended().await;
        stages.stopped().await;
        stages
    }

    /// Both parents of the batch have ended, the decision has chosen.
    async fn begun(&self) -> NewTask {
        let task = self.world.submit().await;
        let id = |name| self.world.id(&task, name);
        self.world.succeed(id("before"), StepKind::Standard).await;
        self.world.succeed(id("analyze"), StepKind::Batchable).await;
        let left = HashSet::from(["left".to_owned()]);
        let decision = FinishedAttempt {
            ending: Ok(decided(&left).into()),
            ..self.world.finished(id("route"), StepKind::Decision, 1)
        };
        self.world.apply(&[decision]).await;
        self.world.store.converge_tasks(&[task.id]).await.expect("converged");
        task
    }

    async fn sealed(&self, task: &NewTask) -> BatchId {
        let batch = self.world.new_batch(task, 3);
        let sealed = self.world.store.seal_new_batches(std::slice::from_ref(&batch)).await;
        sealed.expect("sealed").batches[0]
    }

    async fn done(&mut self) {
        let task = self.begun().await;
        let batch = self.sealed(&task).await;
        self.world.apply(&self.world.members(batch, 3)).await;
        let left = self.row(task.id, "left").await;
        self.world.succeed(left, StepKind::Standard).await;
        let converged = self.world.store.converge_tasks(&[task.id]).await.expect("converged");
        self.world.succeed(converged.ready[0].id, StepKind::DeferredConvergence).await;
        let after = self.row(task.id, "after").await;
        self.world.succeed(after, StepKind::Standard).await;
        assert_eq!(self.world.state(task.id).await, "complete");
        self.note("done", &task, Some(batch)).await;
    }

    /// One member has ended, one waits for its retry, one may run.
    async fn open(&mut self) {
        let task = self.begun().await;
        let batch = self.sealed(&task).await;
        let mut two = self.world.members(batch, 2);
        two[1].ending = Err(failure(true));
        self.world.apply(&two).await;
        self.note("open", &task, Some(batch)).await;
    }

    /// Two of three members are written.
    async fn writing(&mut self) {
        let task = self.begun().await;
        let batch = self.world.new_batch(&task, 3);
        let begun = self.world.store.begin_expansion(&batch).await.expect("begun").expect("open");
        let source = MemberSource::Given(batch.members[..2].to_vec());
        let chunk = self.world.store.write_chunk(&batch, begun.id, 0, &source, true).await;
        chunk.expect("written").expect("expanding").commit().await.expect("committed");
        self.note("writing", &task, Some(begun.id)).await;
    }

    /// The first step failed for good and was made to run again.
    async fn mended(&mut self) {
        let task = self.world.submit().await;
        let before = self.world.id(&task, "before");
        let failed = FinishedAttempt {
            ending: Err(failure(false)),
            ..self.world.finished(before, StepKind::Standard, 1)
        };
        self.world.apply(&[failed]).await;
        let request = RepairRequest {
            task: task.id,
            target: RepairTarget::Task,
            cascade: false,
            principal: "test".into(),
            reason: "test".into(),
        };
        self.world.store.repair(&request).await.expect("decided").expect("repaired");
        self.note("mended", &task, None).await;
    }

    async fn stopped(&mut self) {
        let task = self.begun().await;
        let batch = self.sealed(&task).await;
        self.world.store.cancel_task(task.id, "test", None).await.expect("cancelled");
        while self.world.store.cancel_members(2).await.expect("chunk") {}
        self.note("stopped", &task, Some(batch)).await;
    }

    async fn row(&self, task: TaskId, name: &str) -> StepId {
        let id = sqlx::query_scalar("select id from tasker.steps where task_id = $1 and name = $2")
            .bind(task.as_uuid())
            .bind(name)
            .fetch_one(&self.world.pool)
            .await;
        StepId::from_uuid(id.expect("a step"))
    }

    async fn note(&mut self, stage: &str, task: &NewTask, batch: Option<BatchId>) {
        let steps: Vec<(String, Uuid)> =
            sqlx::query_as("select name, id from tasker.steps where task_id = $1")
                .bind(task.id.as_uuid())
                .fetch_all(&self.world.pool)
                .await
                .expect("read");
        let all = [("task".to_owned(), task.id.as_uuid())].into_iter();
        let all = all.chain(batch.map(|batch| ("batch".to_owned(), batch.as_uuid()))).chain(steps);
        self.ids.extend(all.map(|(name, id)| (format!("{stage} {name}"), id)));
    }

    async fn verify(&self, request: &VerifyRequest) -> Verification {
        self.world.store.verify(request).await.expect("read")
    }
}

fn broken(found: &Verification) -> Vec<&str> {
    found.invariants.iter().filter(|i| !i.ok).map(|i| i.id.as_str()).collect()
}

#[sqlx::test]
async fn each_invariant_finds_its_damage(pool: PgPool) {
    let stages = Stages::new(pool.clone()).await;
    let sound = stages.verify(&VerifyRequest::default()).await;
    assert!(sound.ok && (sound.tasks, sound.invariants.len()) == (5, 9), "{sound:#?}");

    let (mut found_by, mut wrong) = (HashSet::new(), String::new());
    for (breaks, says, target, damage) in DAMAGES {
        let id = stages.ids.get(target).unwrap_or_else(|| panic!("no {target}: {:?}", stages.ids));
        let mut tx = pool.begin().await.expect("begun");
        sqlx::raw_sql(WITHOUT_CONSTRAINTS).execute(&mut *tx).await.expect("dropped");
        let done = sqlx::query(damage).bind(id).execute(&mut *tx).await.expect(damage);
        assert!(done.rows_affected() > 0, "no row is damaged by {damage}");
        let request = VerifyRequest::default();
        let found = stages.world.store.verify_in(&mut tx, &request).await.expect("read");
        tx.rollback().await.expect("undone");
        let offenders: Vec<String> = found
            .invariants
            .iter()
            .flat_map(|i| i.offenders.iter().map(|o| format!("{}: {}", i.id, o.what)))
            .collect();
        let says_it = offenders.iter().any(|what| what.contains(says));
        if broken(&found).join(" ") != breaks || !says_it {
            let _ = writeln!(wrong, "{damage}\n  should break {breaks}: {says}\n  {offenders:#?}");
        }
        found_by.extend(found.invariants.into_iter().filter(|i| !i.ok).map(|i| i.id));
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(found_by.len(), sound.invariants.len(), "damage was found by {found_by:?}");
}

#[sqlx::test]
async fn what_is_at_rest_has_nothing_open(pool: PgPool) {
    let stages = Stages::new(pool.clone()).await;
    let request = VerifyRequest { at_rest: true, ..VerifyRequest::default() };
    let found = stages.verify(&request).await;
    assert_eq!(broken(&found), ["I8"], "{found:#?}");
    let ended = &found.invariants[7];
    // Three tasks, two batches; the analyzer of the third task waits for its batch.
    let ids: HashSet<Uuid> = ended.offenders.iter().map(|offender| offender.id).collect();
    let open = ["open task", "writing task", "mended task", "open batch", "writing batch"];
    let mut expect: HashSet<Uuid> = open.iter().map(|name| stages.ids[*name]).collect();
    expect.insert(stages.ids["writing analyze"]);
    assert_eq!((ids, ended.violations), (expect, 6), "{ended:#?}");

    sqlx::query("insert into tasker.bus_epochs (stream_created_ns, state) values (7, 'open')")
        .execute(&pool)
        .await
        .expect("written");
    let found = stages.verify(&request).await;
    let what = &found.invariants[7].offenders[0].what;
    assert!(what.contains("the stream made at 7 ns"), "{found:#?}");
}

#[sqlx::test]
async fn what_was_accepted_must_be_there(pool: PgPool) {
    let stages = Stages::new(pool).await;
    let stranger = TaskId::from_uuid(Uuid::now_v7());
    let known = TaskId::from_uuid(stages.ids["done task"]);
    let accepted = vec![known, stranger, known];
    let found = stages.verify(&VerifyRequest { accepted, ..VerifyRequest::default() }).await;
    assert_eq!(broken(&found), ["I7"], "{found:#?}");
    let offenders = &found.invariants[6].offenders;
    assert_eq!(offenders.len(), 1, "{offenders:?}");
    assert_eq!(offenders[0].id, stranger.as_uuid());
}

/// More offenders than are named are counted all the same.
#[sqlx::test]
async fn all_offenders_are_counted(pool: PgPool) {
    let stages = Stages::new(pool.clone()).await;
    sqlx::query(
        "insert into tasker.outcomes (step_id, state, attempt, result)
         select gen_random_uuid(), 'complete', 1, '{}' from generate_series(1, 50)",
    )
    .execute(&pool)
    .await
    .expect("damaged");
    let found = stages.verify(&VerifyRequest::default()).await;
    let first = &found.invariants[0];
    assert_eq!((first.violations, first.offenders.len()), (50, 20));
}
