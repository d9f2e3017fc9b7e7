//! Outcomes of finished attempts: one set-based statement for many steps of a namespace, and a
//! transaction around it where some of them run again.

use std::collections::HashMap;
use std::sync::Arc;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{
    BatchId, Namespace, Queue, StepFailure, StepId, StepKind, TaskId, TemplateId, Verdict, WorkerId,
};
use tasker_workflow::Template;
use uuid::Uuid;

use crate::apply::{Landed, land};
use crate::counters::FinishedTask;
use crate::pool::{commit, retry_conflicts};
use crate::retries::{lock_steps, plan_retries, schedule_retries};
use crate::{KnownResults, ReadyStep, Store, StoreError};

/// An attempt that a worker has finished, judged and ready to be stored.
#[derive(Debug, Clone)]
pub struct FinishedAttempt {
    /// The step.
    pub step_id: StepId,
    /// The attempt that ran.
    pub attempt: u32,
    /// The message that brought it.
    pub dispatch_seq: u32,
    /// What the step is; a row of another kind is not touched.
    pub kind: StepKind,
    /// Whether the result is to be checked against a schema of the step, if it has one.
    pub has_schema: bool,
    /// Whether its end may publish domain events, so that it is to be looked up.
    pub has_events: bool,
    /// Who ran it.
    pub worker: WorkerId,
    /// How long the handler ran.
    pub execution_ms: u32,
    /// The result as JSON text, or why it failed.
    pub ending: Result<Box<str>, StepFailure>,
    /// Whether the worker would go on with a step that becomes ready by this one, without waiting
    /// for a message.
    pub takes_next: bool,
}

/// What is needed to judge a step's outcome.
#[derive(Debug, Clone)]
pub struct JudgedStep {
    /// The template of its task.
    pub template: Arc<Template>,
    /// The step in the template.
    pub name: String,
    /// Whether it stands for a batch without ranges.
    pub is_no_op: bool,
}

/// What a transaction of outcomes has changed and what is to be done now.
#[derive(Debug, Default)]
pub struct Applied {
    /// One per attempt, in order.
    pub verdicts: Vec<Verdict>,
    /// Children that have become ready.
    pub ready: Vec<ReadyStep>,
    /// Children that are leased to the worker that ended the parent named, to be handed to it.
    pub handed: Vec<(StepId, ReadyStep)>,
    /// Results of ended steps that are not members, by task and name: what their children read.
    pub results: KnownResults,
    /// Milliseconds until the first of the scheduled retries.
    pub next_retry_ms: Option<u64>,
    /// Ended steps that another transaction settles.
    pub unsettled: Vec<UnsettledStep>,
    /// Batches of which no member remains.
    pub emptied: Vec<(BatchId, TaskId)>,
    /// Batches that are stopped now, with members left.
    pub stopped: Vec<(BatchId, TaskId)>,
    /// Batches with a limit of parallelism of which members have ended, and how many remain.
    pub limited: Vec<(BatchId, u32)>,
    /// Ended steps by queue: so much room there is in the windows.
    pub finished_by_queue: HashMap<Queue, Finished>,
    /// Tasks that have ended.
    pub finished_tasks: Vec<FinishedTask>,
}

/// A member that takes no longer is quick, in milliseconds.
pub const QUICK_MEMBER_MS: u32 = 5;

/// Steps of one queue that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Finished {
    /// All of them.
    pub steps: u32,
    /// Those that are members of batches.
    pub members: u32,
    /// How many of these took longer than [`QUICK_MEMBER_MS`].
    pub slow_members: u32,
}

impl Finished {
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.members += other.members;
        self.slow_members += other.slow_members;
    }
}

/// An ended step that another transaction settles: a batchable one is expanded, any other is a
/// parent of a convergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsettledStep {
    /// The step.
    pub id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Whether its batch is to be expanded.
    pub expands: bool,
}

impl Applied {
    /// Adds what another set has done, except its verdicts.
    pub fn absorb(&mut self, other: Applied) {
        self.ready.extend(other.ready);
        self.handed.extend(other.handed);
        self.results.extend(other.results);
        self.unsettled.extend(other.unsettled);
        self.emptied.extend(other.emptied);
        self.stopped.extend(other.stopped);
        self.limited.extend(other.limited);
        self.finished_tasks.extend(other.finished_tasks);
        self.next_retry_ms = self.next_retry_ms.into_iter().chain(other.next_retry_ms).min();
        for (queue, n) in other.finished_by_queue {
            self.finished_by_queue.entry(queue).or_default().add(n);
        }
    }

    /// Adds what a second transaction did for the attempts at these places.
    fn add(&mut self, places: &[usize], mut other: Applied) {
        for (&place, verdict) in places.iter().zip(std::mem::take(&mut other.verdicts)) {
            self.verdicts[place] = verdict;
        }
        self.absorb(other);
    }
}

impl Store {
    /// Stores finished attempts of one namespace: outcomes where the attempt is current, retries
    /// where the budget allows. Steps that are handed to a worker are leased to it for so long.
    ///
    /// On error nobody knows what of it happened. Running the same set again does the rest, and
    /// answers `Duplicate` for what was done.
    pub async fn apply_outcomes(
        &self,
        namespace: &Namespace,
        set: &[FinishedAttempt],
        lease_ms: u64,
    ) -> Result<Applied, StoreError> {
        if set.iter().any(|attempt| attempt.ending.is_err()) {
            return retry_conflicts(|| self.apply_locked(namespace, set, lease_ms)).await;
        }
        let landed = retry_conflicts(|| self.apply_alone(namespace, set, lease_ms)).await?;
        let Landed { mut applied, outdated } = landed;
        if !outdated.is_empty() {
            let again: Vec<FinishedAttempt> = outdated.iter().map(|&n| set[n].clone()).collect();
            let rest = retry_conflicts(|| self.apply_locked(namespace, &again, lease_ms)).await?;
            applied.add(&outdated, rest);
        }
        Ok(applied)
    }

    /// The statement alone: a transaction of one round trip.
    async fn apply_alone(
        &self,
        namespace: &Namespace,
        set: &[FinishedAttempt],
        lease_ms: u64,
    ) -> Result<Landed, StoreError> {
        let all: Vec<&FinishedAttempt> = set.iter().collect();
        let mut connection = self.quick.lend().await?;
        pass(CrashPoint::OutcomesBegin);
        let landed = land(&mut connection, namespace, &all, lease_ms).await?;
        pass(CrashPoint::OutcomesStored);
        connection.give_back();
        Ok(landed)
    }

    /// Locks the steps first, so that whatever the later statements read is up to date.
    async fn apply_locked(
        &self,
        namespace: &Namespace,
        set: &[FinishedAttempt],
        lease_ms: u64,
    ) -> Result<Applied, StoreError> {
        let mut tx = self.hot.begin().await?;
        lock_steps(&mut tx, namespace, set).await?;
        let retries = plan_retries(self, &mut tx, namespace, set).await?;
        let (places, ending): (Vec<usize>, Vec<&FinishedAttempt>) =
            set.iter().enumerate().filter(|(_, a)| !retries.contains_key(&a.step_id)).unzip();
        let landed = land(&mut tx, namespace, &ending, lease_ms).await?.applied;
        let retried = schedule_retries(&mut tx, namespace, set, &retries).await?;
        pass(CrashPoint::OutcomesBegin);
        commit(tx).await?;
        pass(CrashPoint::OutcomesStored);
        let verdict = |attempt: &FinishedAttempt| match retried.contains_key(&attempt.step_id) {
            true => Verdict::Applied,
            false => Verdict::Unknown,
        };
        let mut applied = Applied {
            verdicts: set.iter().map(verdict).collect(),
            next_retry_ms: retried.values().min().copied(),
            ..Applied::default()
        };
        applied.add(&places, landed);
        Ok(applied)
    }
}

impl Store {
    /// What these steps are in their templates, where the attempt is the current one.
    pub async fn find_judged(
        &self,
        namespace: &Namespace,
        attempts: &[(StepId, u32)],
    ) -> Result<HashMap<StepId, JudgedStep>, StoreError> {
        let (ids, numbers): (Vec<Uuid>, Vec<i32>) =
            attempts.iter().map(|(id, attempt)| (id.as_uuid(), *attempt as i32)).unzip();
        let rows = sqlx::query!(
            r#"select s.id, coalesce(b.worker_template, s.name) as "template_step!",
                      coalesce(b.is_no_op, false) as "is_no_op!", t.template_id
               from unnest($1::uuid[], $2::int[]) as a(id, attempt)
               join tasker.steps s on s.id = a.id and s.attempt = a.attempt
               join tasker.tasks t on t.id = s.task_id
               left join tasker.batches b on b.id = s.batch_id
               where s.namespace = $3"#,
            &ids,
            &numbers,
            namespace.as_str(),
        )
        .fetch_all(&self.hot)
        .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in rows {
            let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
            let step = JudgedStep { template, name: row.template_step, is_no_op: row.is_no_op };
            found.insert(StepId::from_uuid(row.id), step);
        }
        Ok(found)
    }
}
