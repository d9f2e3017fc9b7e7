//! Outcomes of finished attempts: one set-based transaction for many steps of a namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tasker_messages::{
    BatchId, Namespace, Queue, StepFailure, StepId, StepKind, TaskId, TemplateId, Verdict, WorkerId,
};
use tasker_workflow::{NextAttempt, Template, next_attempt};
use uuid::Uuid;

use crate::counters::{FinishedTask, TaskDeltas};
use crate::pool::{Tx, commit, retry_conflicts};
use crate::release::release_children;
use crate::{ReadyStep, Store, StoreError};

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
    /// Who ran it.
    pub worker: WorkerId,
    /// How long the handler ran.
    pub execution_ms: u32,
    /// The result as JSON text, or why it failed.
    pub ending: Result<Box<str>, StepFailure>,
}

/// What a transaction of outcomes has changed and what is to be done now.
#[derive(Debug, Default)]
pub struct Applied {
    /// One per attempt, in order.
    pub verdicts: Vec<Verdict>,
    /// Children that have become ready.
    pub ready: Vec<ReadyStep>,
    /// Milliseconds until the first of the scheduled retries.
    pub next_retry_ms: Option<u64>,
    /// Ended steps that another transaction settles.
    pub unsettled: Vec<UnsettledStep>,
    /// Batches of which no member remains.
    pub emptied: Vec<(BatchId, TaskId)>,
    /// Ended steps by queue: so much room there is in the windows.
    pub finished_by_queue: HashMap<Queue, u32>,
    /// Tasks that have ended.
    pub finished_tasks: Vec<FinishedTask>,
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

/// A row as the transaction found it, and whether it got its outcome.
struct Touched {
    task_id: Uuid,
    batch_id: Option<Uuid>,
    kind: StepKind,
    attempt: u32,
    dispatch_seq: u32,
    unsettled: bool,
    queue: Option<String>,
    live: bool,
    applied: bool,
    ended_before: bool,
}

impl Touched {
    /// Whether this very attempt got the outcome: a set may hold several attempts of one step.
    fn applied_as(&self, attempt: &FinishedAttempt) -> bool {
        self.applied && self.attempt == attempt.attempt && self.kind == attempt.kind
    }
}

impl Store {
    /// Stores finished attempts of one namespace: outcomes where the attempt is current, retries
    /// where the budget allows. All of it happens or, on error, nothing.
    ///
    /// Running the same set again changes nothing and answers `Duplicate`.
    pub async fn apply_outcomes(
        &self,
        namespace: &Namespace,
        set: &[FinishedAttempt],
    ) -> Result<Applied, StoreError> {
        retry_conflicts(|| self.apply_outcomes_once(namespace, set)).await
    }

    async fn apply_outcomes_once(
        &self,
        namespace: &Namespace,
        set: &[FinishedAttempt],
    ) -> Result<Applied, StoreError> {
        let mut tx = self.hot.begin().await?;
        let retries = self.plan_retries(&mut tx, namespace, set).await?;
        let ending: Vec<&FinishedAttempt> =
            set.iter().filter(|a| !retries.contains_key(&a.step_id)).collect();
        let touched = insert_outcomes(&mut tx, namespace, &ending).await?;
        let retried = schedule_retries(&mut tx, namespace, set, &retries).await?;

        let mut applied =
            Applied { next_retry_ms: retried.values().min().copied(), ..Applied::default() };
        let mut deltas = TaskDeltas::default();
        let mut batches = BatchDeltas::default();
        let mut parents = Vec::new();
        for attempt in set {
            if retried.contains_key(&attempt.step_id) {
                applied.verdicts.push(Verdict::Applied);
                continue;
            }
            let row = touched.get(&attempt.step_id.as_uuid());
            applied.verdicts.push(verdict(attempt, row));
            let Some(row) = row.filter(|row| row.applied_as(attempt)) else { continue };
            let succeeded = attempt.ending.is_ok();
            if let Some(batch) = row.batch_id {
                batches.ended(batch, succeeded);
                continue;
            }
            count_ended(&mut applied, &mut deltas, attempt, row);
            // What depends on a batchable step or a decision is released when it is settled.
            if succeeded && !matches!(row.kind, StepKind::Batchable | StepKind::Decision) {
                parents.push(attempt.step_id.as_uuid());
            }
        }
        applied.ready = release_children(&mut tx, &parents, &mut deltas).await?;
        batches.apply(&mut tx, &mut applied).await?;
        applied.finished_tasks = deltas.apply(&mut tx).await?;
        commit(tx).await?;
        Ok(applied)
    }

    /// Decides which of the failed attempts run again. Their rows are locked first and tested in
    /// the next statement, since whoever raises `attempt` must not pass an outcome that is being
    /// inserted.
    async fn plan_retries(
        &self,
        tx: &mut Tx,
        namespace: &Namespace,
        set: &[FinishedAttempt],
    ) -> Result<HashMap<StepId, u64>, StoreError> {
        let mut retries = HashMap::new();
        if set.iter().all(|a| a.ending.is_ok()) {
            return Ok(retries);
        }
        // All of the set, not only the failed: two transactions that share steps must lock them in
        // one order.
        let all: Vec<Uuid> = set.iter().map(|a| a.step_id.as_uuid()).collect();
        sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &all, namespace.as_str())
            .fetch_all(&mut **tx)
            .await?;
        let failed: HashMap<Uuid, &FinishedAttempt> =
            set.iter().filter(|a| a.ending.is_err()).map(|a| (a.step_id.as_uuid(), a)).collect();
        let ids: Vec<Uuid> = failed.keys().copied().collect();
        let rows = sqlx::query_file!("queries/outcomes/failed_steps.sql", &ids, namespace.as_str())
            .fetch_all(&mut **tx)
            .await?;
        for row in rows {
            let Some(attempt) = failed.get(&row.id) else { continue };
            let Err(failure) = &attempt.ending else { continue };
            if row.attempt != attempt.attempt as i32 || row.kind != attempt.kind.as_str() {
                continue;
            }
            let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
            let Some((_, step)) = template.step(&row.template_step) else { continue };
            let seed = attempt.step_id.as_uuid().as_u64_pair().1 ^ u64::from(attempt.attempt);
            match next_attempt(&step.retry, failure, row.tries as u32, seed) {
                NextAttempt::Retry { delay_ms } => {
                    retries.insert(attempt.step_id, delay_ms);
                }
                NextAttempt::Exhausted => {}
            }
        }
        Ok(retries)
    }
}

/// The verdict on an attempt whose step was found in this state.
fn verdict(attempt: &FinishedAttempt, row: Option<&Touched>) -> Verdict {
    match row {
        None => Verdict::Unknown,
        Some(row) if row.applied_as(attempt) => Verdict::Applied,
        Some(row) if row.ended_before || row.applied => Verdict::Duplicate,
        Some(row) if row.kind != attempt.kind || !row.live => not_running(attempt, row),
        // The attempt is current and yet was not inserted: another transaction did it meanwhile.
        Some(row) if row.attempt == attempt.attempt => Verdict::Duplicate,
        Some(row) => Verdict::Stale { superseded: row.dispatch_seq > attempt.dispatch_seq },
    }
}

/// A report on a step that cannot be running as the report says: another kind of step, one that
/// waits for its parents, or one whose retry was scheduled meanwhile.
fn not_running(attempt: &FinishedAttempt, row: &Touched) -> Verdict {
    if row.kind == attempt.kind && row.attempt > attempt.attempt {
        return Verdict::Stale { superseded: row.dispatch_seq > attempt.dispatch_seq };
    }
    Verdict::Unknown
}

/// Counts an ended step that is not a member of a batch.
fn count_ended(
    applied: &mut Applied,
    deltas: &mut TaskDeltas,
    attempt: &FinishedAttempt,
    row: &Touched,
) {
    let succeeded = attempt.ending.is_ok();
    if row.unsettled {
        if succeeded {
            deltas.touched(row.task_id);
        } else {
            deltas.failed(row.task_id);
        }
        applied.unsettled.push(UnsettledStep {
            id: attempt.step_id,
            task_id: TaskId::from_uuid(row.task_id),
            expands: succeeded && row.kind == StepKind::Batchable,
        });
    } else {
        deltas.ended(row.task_id, succeeded);
    }
    if let Some(queue) = row.queue.as_deref().and_then(|q| Queue::new(q).ok()) {
        *applied.finished_by_queue.entry(queue).or_default() += 1;
    }
}

async fn insert_outcomes(
    tx: &mut Tx,
    namespace: &Namespace,
    ending: &[&FinishedAttempt],
) -> Result<HashMap<Uuid, Touched>, StoreError> {
    fn column<T>(set: &[&FinishedAttempt], get: impl Fn(&FinishedAttempt) -> T) -> Vec<T> {
        set.iter().map(|a| get(a)).collect()
    }
    if ending.is_empty() {
        return Ok(HashMap::new());
    }
    let result = |a: &FinishedAttempt| a.ending.as_ref().ok().map(|text| text.to_string());
    let mut errors = Vec::with_capacity(ending.len());
    for attempt in ending {
        let error = attempt.ending.as_ref().err().map(serde_json::to_string).transpose();
        errors.push(error.map_err(|e| StoreError::stored("error", e))?);
    }
    let rows = sqlx::query_file!(
        "queries/outcomes/insert_outcomes.sql",
        namespace.as_str(),
        &column(ending, |a| a.step_id.as_uuid()),
        &column(ending, |a| a.attempt as i32),
        &column(ending, |a| a.kind.as_str().to_owned()),
        &column(ending, result) as &[Option<String>],
        &errors as &[Option<String>],
        &column(ending, |a| a.worker.as_uuid()),
        &column(ending, |a| i32::try_from(a.execution_ms).unwrap_or(i32::MAX)),
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut touched = HashMap::with_capacity(ending.len());
    let mut applied = Vec::with_capacity(ending.len());
    for row in rows {
        let (Some(task_id), Some(kind)) = (row.task_id, row.kind) else {
            applied.push(row.id);
            continue;
        };
        let found = Touched {
            task_id,
            batch_id: row.batch_id,
            kind: kind.parse().map_err(|e| StoreError::stored("step kind", e))?,
            attempt: row.attempt.unwrap_or(0) as u32,
            dispatch_seq: row.dispatch_seq.unwrap_or(0) as u32,
            unsettled: row.unsettled.unwrap_or(false),
            queue: row.queue,
            live: row.live.unwrap_or(false),
            applied: false,
            ended_before: false,
        };
        touched.insert(row.id, found);
    }
    for id in &applied {
        if let Some(row) = touched.get_mut(id) {
            row.applied = true;
        }
    }
    find_ended(tx, &mut touched).await?;
    Ok(touched)
}

/// Looks which of the steps that got no outcome now had one before.
async fn find_ended(tx: &mut Tx, touched: &mut HashMap<Uuid, Touched>) -> Result<(), StoreError> {
    let refused: Vec<Uuid> =
        touched.iter().filter(|(_, row)| !row.applied).map(|(id, _)| *id).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let ended = sqlx::query_scalar!(
        "select step_id from tasker.outcomes where step_id = any($1::uuid[])",
        &refused
    )
    .fetch_all(&mut **tx)
    .await?;
    for id in ended {
        if let Some(row) = touched.get_mut(&id) {
            row.ended_before = true;
        }
    }
    Ok(())
}

/// Moves failed steps to `waiting_for_retry` and keeps their attempts; returns the delays of those
/// really moved.
async fn schedule_retries(
    tx: &mut Tx,
    namespace: &Namespace,
    set: &[FinishedAttempt],
    retries: &HashMap<StepId, u64>,
) -> Result<HashMap<StepId, u64>, StoreError> {
    if retries.is_empty() {
        return Ok(HashMap::new());
    }
    let again: Vec<(&FinishedAttempt, &StepFailure, u64)> = set
        .iter()
        .filter_map(|a| Some((a, a.ending.as_ref().err()?, *retries.get(&a.step_id)?)))
        .collect();
    let mut errors = Vec::with_capacity(again.len());
    for (_, failure, _) in &again {
        errors.push(serde_json::to_string(failure).map_err(|e| StoreError::stored("error", e))?);
    }
    let moved = sqlx::query_file_scalar!(
        "queries/outcomes/schedule_retries.sql",
        namespace.as_str(),
        &again.iter().map(|(a, ..)| a.step_id.as_uuid()).collect::<Vec<_>>(),
        &again.iter().map(|(a, ..)| a.attempt as i32).collect::<Vec<_>>(),
        &again.iter().map(|(.., delay)| *delay as f64 / 1000.0).collect::<Vec<f64>>(),
        &errors,
        &again.iter().map(|(a, ..)| a.worker.as_uuid()).collect::<Vec<_>>(),
        &again.iter().map(|(a, ..)| a.execution_ms as i32).collect::<Vec<_>>(),
    )
    .fetch_all(&mut **tx)
    .await?;
    let delay = |id: Uuid| {
        let id = StepId::from_uuid(id);
        retries.get(&id).map(|&delay| (id, delay))
    };
    Ok(moved.into_iter().filter_map(delay).collect())
}

/// What a transaction changes in the counters of batches.
#[derive(Default)]
pub(crate) struct BatchDeltas(BTreeMap<Uuid, (i32, i32)>);

impl BatchDeltas {
    pub(crate) fn ended(&mut self, batch: Uuid, succeeded: bool) {
        let (ok, failed) = self.0.entry(batch).or_default();
        *if succeeded { ok } else { failed } += 1;
    }

    /// Counts the ended members, as one of the last statements: the rows are hot.
    async fn apply(self, tx: &mut Tx, applied: &mut Applied) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query_file!(
            "queries/outcomes/count_batches.sql",
            &self.0.keys().copied().collect::<Vec<_>>(),
            &self.0.values().map(|d| d.0).collect::<Vec<_>>(),
            &self.0.values().map(|d| d.1).collect::<Vec<_>>(),
        )
        .fetch_all(&mut **tx)
        .await?;
        for row in rows {
            let queue = Queue::new(&row.queue).map_err(|e| StoreError::stored("queue", e))?;
            let ended = self.0.get(&row.id).map_or(0, |(ok, failed)| ok + failed);
            *applied.finished_by_queue.entry(queue).or_default() += ended as u32;
            if row.remaining == 0 {
                applied.emptied.push((BatchId::from_uuid(row.id), TaskId::from_uuid(row.task_id)));
            }
        }
        Ok(())
    }
}

impl Store {
    /// Template and step name of these batchable steps and decisions, where the attempt is the
    /// current one.
    pub async fn find_judged(
        &self,
        namespace: &Namespace,
        attempts: &[(StepId, u32)],
    ) -> Result<HashMap<StepId, (Arc<Template>, String)>, StoreError> {
        let (ids, numbers): (Vec<Uuid>, Vec<i32>) =
            attempts.iter().map(|(id, attempt)| (id.as_uuid(), *attempt as i32)).unzip();
        let rows = sqlx::query!(
            "select s.id, s.name, t.template_id
             from unnest($1::uuid[], $2::int[]) as a(id, attempt)
             join tasker.steps s on s.id = a.id and s.attempt = a.attempt
              and s.kind in ('batchable', 'decision')
             join tasker.tasks t on t.id = s.task_id
             where s.namespace = $3",
            &ids,
            &numbers,
            namespace.as_str(),
        )
        .fetch_all(&self.hot)
        .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in rows {
            let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
            found.insert(StepId::from_uuid(row.id), (template, row.name));
        }
        Ok(found)
    }
}
