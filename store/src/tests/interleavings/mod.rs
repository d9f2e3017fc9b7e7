//! Interleavings of two real transactions, each pair in both orders.
//!
//! A race that is left to chance is won by the same side nearly always. Here the order is made: the
//! first transaction is held up by a row that it needs last and that the test has locked (the gate),
//! so it has done everything else and holds its own locks. The second one starts and must wait for the
//! first: it has begun before the first one commits, and what its statements have seen is out of date
//! by the time they go on. Then the gate is opened. What must come out of it is compared as a whole:
//! every step, the counters of task and batches, and how often a step was announced as ready.

mod alone;
mod cascades;
mod chunks;
mod decisions;
mod fences;
mod joins;
mod repairs;
mod stops;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tasker_messages::{BatchId, StepId, StepKind, TaskId, Verdict};
use tasker_workflow::RepairAction;
use uuid::Uuid;

use super::{World, failure};
use crate::{
    Applied, Cancelled, Converged, FinishedAttempt, NewBatch, NewMember, NewTask, RepairDone,
    RepairRequest, RepairTarget, Sealed,
};

/// What holds up the first of two transactions.
#[derive(Clone, Copy)]
enum Gate {
    /// Whatever counts the steps of a task needs its row last.
    Task(TaskId),
    /// Members' outcomes and the end of a stop need the row of their batch last.
    Batch(BatchId),
    /// For those that need nothing else: they queue for the step.
    Step(StepId),
}

/// Whatever tells which steps have become ready.
trait Announces {
    fn ready(&self) -> Vec<StepId>;
}

impl Announces for Applied {
    fn ready(&self) -> Vec<StepId> {
        let handed = self.handed.iter().map(|(_, step)| step);
        self.ready.iter().chain(handed).map(|step| step.id).collect()
    }
}

impl Announces for Converged {
    fn ready(&self) -> Vec<StepId> {
        self.ready_ids()
    }
}

impl Announces for Sealed {
    fn ready(&self) -> Vec<StepId> {
        self.ready.iter().map(|step| step.id).collect()
    }
}

impl Announces for RepairDone {
    fn ready(&self) -> Vec<StepId> {
        let settled = self.applied.ready.iter().map(|step| step.id);
        self.ready.iter().copied().chain(settled).collect()
    }
}

/// Whether the first of the two comes first, and whether the outcome is stored by the statement for sets although it is alone.
const ORDERS: [(bool, bool); 4] = [(true, false), (true, true), (false, false), (false, true)];

/// How often the step was announced as ready.
fn told(step: StepId, by: &[&dyn Announces]) -> usize {
    by.iter().flat_map(|announces| announces.ready()).filter(|id| *id == step).count()
}

fn failed(attempt: FinishedAttempt) -> FinishedAttempt {
    FinishedAttempt { ending: Err(failure(false)), ..attempt }
}

impl World {
    /// Runs two transactions of which the first holds its locks when the second begins, and commits
    /// while the second waits for it.
    fn in_order<'a, A: 'a, B: 'a>(
        &'a self,
        gate: Gate,
        first: impl Future<Output = A> + 'a,
        second: impl Future<Output = B> + 'a,
    ) -> Pin<Box<dyn Future<Output = (A, B)> + 'a>> {
        // Boxed: the two are large, and there are many tests.
        Box::pin(async move {
            let mut holding = self.close(gate).await;
            let mut watching = self.connection().await;
            let mut watching_too = self.connection().await;
            let second = async {
                until(&mut watching, WAITING).await;
                second.await
            };
            let (a, b, ()) = tokio::join!(first, second, async {
                until(&mut watching_too, WAITING_BEHIND_A_WAITING_ONE).await;
                sqlx::query("rollback").execute(&mut holding).await.expect("opened");
            });
            (a, b)
        })
    }

    /// A connection beside the pool, which is small.
    async fn connection(&self) -> PgConnection {
        PgConnection::connect_with(&self.pool.connect_options()).await.expect("connected")
    }

    async fn close(&self, gate: Gate) -> PgConnection {
        let mut holding = self.connection().await;
        sqlx::query("begin").execute(&mut holding).await.expect("begun");
        let (sql, id) = match gate {
            Gate::Task(id) => {
                ("select id from tasker.tasks where id = $1 for no key update", id.as_uuid())
            }
            Gate::Batch(id) => {
                ("select id from tasker.batches where id = $1 for no key update", id.as_uuid())
            }
            Gate::Step(id) => {
                ("select id from tasker.steps where id = $1 for no key update", id.as_uuid())
            }
        };
        let locked = sqlx::query_scalar::<_, Uuid>(sql).bind(id).fetch_all(&mut holding).await;
        assert_eq!(locked.expect("locked").len(), 1, "the gate is a row");
        holding
    }

    /// Everything about a task: its state with its active, pending and failed steps; the steps that
    /// exist; the batches with their remaining, succeeded and failed members. The counters must be
    /// those of the rows.
    pub(super) async fn shown(&self, task: TaskId) -> String {
        self.assert_consistent().await;
        self.assert_counted(task).await;
        sqlx::query_scalar(SHOW).bind(task.as_uuid()).fetch_one(&self.pool).await.expect("a task")
    }

    /// The counters of a task equal its rows, unless it was cancelled: then they stay as they were.
    async fn assert_counted(&self, task: TaskId) {
        let counted: Option<(i32, i32, i32, i32)> = sqlx::query_as(COUNT)
            .bind(task.as_uuid())
            .fetch_optional(&self.pool)
            .await
            .expect("read");
        if let Some((active, active_rows, failed, failed_rows)) = counted {
            assert_eq!((active, failed), (active_rows, failed_rows), "active and failed steps");
        }
    }

    /// A step that the task has from the beginning.
    pub(super) fn id(&self, task: &NewTask, name: &str) -> StepId {
        let is_it = |n: &usize| self.template.steps[*n].name.as_str() == name;
        let position = task.plan.steps.iter().position(|p| is_it(&p.step));
        task.step_ids[position.expect(name)]
    }

    /// A step that came later.
    async fn found(&self, task: &NewTask, name: &str) -> StepId {
        self.store.find_step(task.id, name).await.expect("read").expect(name)
    }

    /// A success of the first attempt of a step.
    pub(super) async fn attempt(&self, task: &NewTask, name: &str) -> FinishedAttempt {
        let (_, step) = self.template.step(name).expect(name);
        self.finished(self.found(task, name).await, step.kind, 1)
    }

    /// A decision that names these steps; none is `no_branches`.
    async fn choice(&self, task: &NewTask, name: &str, steps: &[&str]) -> FinishedAttempt {
        let outcome = match steps {
            [] => serde_json::json!({"type": "no_branches"}),
            _ => serde_json::json!({"type": "create_steps", "step_names": steps}),
        };
        let result = serde_json::json!({"decision_point_outcome": outcome}).to_string();
        FinishedAttempt { ending: Ok(result.into()), ..self.attempt(task, name).await }
    }

    /// Ends these steps well, one after the other.
    async fn done(&self, task: &NewTask, names: &[&str]) {
        for name in names {
            let attempt = self.attempt(task, name).await;
            assert_eq!(self.apply(&[attempt]).await.verdicts, [Verdict::Applied], "{name}");
        }
    }

    async fn converge(&self, task: &NewTask) -> Converged {
        self.store.converge_tasks(&[task.id]).await.expect("converged")
    }

    /// A batch of an analyzer that is not written yet.
    async fn split(&self, task: &NewTask, analyzer: &str, members: u32) -> NewBatch {
        let worker = self.template.worker_of(analyzer).expect(analyzer).name.to_string();
        let batch = self.new_batch(task, members);
        let named = (1..).zip(&batch.members).map(|(n, member)| NewMember {
            name: format!("{worker}_{n:03}"),
            cursor_json: member.cursor_json.clone(),
        });
        let members = named.collect();
        let batchable_step = self.found(task, analyzer).await;
        NewBatch { batchable_step, worker_template: worker, members, ..batch }
    }

    async fn cancel(&self, task: &NewTask) -> Cancelled {
        self.store.cancel_task(task.id, "test", None).await.expect("decided")
    }

    async fn repair(&self, task: &NewTask, target: RepairTarget) -> Result<RepairDone, String> {
        self.repair_with(task, target, false).await
    }

    async fn repair_with(
        &self,
        task: &NewTask,
        target: RepairTarget,
        cascade: bool,
    ) -> Result<RepairDone, String> {
        let (principal, reason) = ("test".to_owned(), "test".to_owned());
        let request = RepairRequest { task: task.id, target, cascade, principal, reason };
        let answer = self.store.repair(&request).await.expect("decided");
        answer.map_err(|refusal| refusal.code)
    }

    async fn reset(&self, task: &NewTask, step: StepId) -> Result<RepairDone, String> {
        self.repair(task, RepairTarget::Step(step, RepairAction::Reset, None)).await
    }

    async fn seal(&self, batch: &NewBatch) -> Sealed {
        self.store.seal_new_batches(std::slice::from_ref(batch)).await.expect("sealed")
    }

    /// Ends the analyzer and seals its batch.
    async fn sealed(&self, task: &NewTask, analyzer: &str, members: u32) -> BatchId {
        self.done(task, &[analyzer]).await;
        let batch = self.split(task, analyzer, members).await;
        assert_eq!(self.seal(&batch).await.batches, [batch.id]);
        batch.id
    }

    /// Ends what is left of cancelled and stopped batches.
    async fn sweep(&self) {
        while self.store.cancel_members(2).await.expect("swept") {}
    }

    fn member(&self, batch: BatchId, ordinal: u32) -> FinishedAttempt {
        self.finished(batch.member(ordinal), StepKind::BatchWorker, 1)
    }
}

const WAITING: &str = "select exists (select from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock')";

/// The second waits for the first, or is next to it in the queue for the gate.
const WAITING_BEHIND_A_WAITING_ONE: &str = "
    with waiting as materialized (
        select pid, pg_blocking_pids(pid) as blocked_by from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'
    )
    select exists (select from waiting one, waiting other where other.pid = any(one.blocked_by))";

async fn until(watching: &mut PgConnection, sql: &'static str) {
    let since = Instant::now();
    loop {
        let is_so: bool = sqlx::query_scalar(sql).fetch_one(&mut *watching).await.expect("read");
        if is_so {
            return;
        }
        let waited = since.elapsed();
        assert!(waited < Duration::from_secs(20), "nobody waits, so the order is not made");
        tokio::task::yield_now().await;
    }
}

const SHOW: &str = "
    select concat_ws(' | ',
        format('%s %s/%s/%s', t.state, t.active_steps, t.pending_steps, t.failed_steps),
        (select string_agg(s.name || '=' || case
             when o.state = 'complete' and s.unsettled and s.kind = 'batchable' then 'expanding'
             else coalesce(o.state::text, s.state::text) end, ' ' order by s.name collate \"C\")
         from tasker.steps s left join tasker.outcomes o on o.step_id = s.id
         where s.task_id = t.id),
        (select string_agg(format('%s %s %s/%s/%s', b.worker_template, b.state, b.remaining,
                                  b.succeeded, b.failed), ', ' order by b.worker_template)
         from tasker.batches b where b.task_id = t.id))
    from tasker.tasks t where t.id = $1";

/// Active steps are those that can run or wait for a retry, those whose end is not settled, and the
/// batches that are open.
const COUNT: &str = "
    select t.active_steps, s.active + b.active, t.failed_steps, s.failed + b.failed
    from tasker.tasks t
    cross join lateral (
        select (count(*) filter (where s.unsettled and o.state is not null
                                 or s.state <> 'pending' and o.state is null))::int as active,
               (count(*) filter (where o.state = 'error'))::int as failed
        from tasker.steps s left join tasker.outcomes o on o.step_id = s.id
        where s.task_id = t.id and s.batch_id is null) s
    cross join lateral (
        select (count(*) filter (where b.sealed_at is not null and not b.settled))::int as active,
               (count(*) filter (where b.settled and b.state = 'failed'))::int as failed
        from tasker.batches b where b.task_id = t.id) b
    where t.id = $1 and t.state <> 'cancelled'";
