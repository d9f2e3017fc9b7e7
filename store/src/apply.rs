//! The statements that store outcomes and all that follows from them, and what they answer.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use sqlx::PgConnection;
use tasker_messages::{BatchId, Namespace, Queue, StepId, StepKind, TaskId, Verdict};
use tasker_workflow::task_end;
use uuid::Uuid;

use crate::counters::FinishedTask;
use crate::dispatch::{namespace as stored_namespace, queue as stored_queue};
use crate::outcomes::QUICK_MEMBER_MS;
use crate::shared::MAX_DEPENDENCY_BYTES;
use crate::{
    Applied, Finished, FinishedAttempt, KnownResults, ReadyStep, StoreError, UnsettledStep,
};

/// What became of a set.
#[derive(Default)]
pub(crate) struct Landed {
    pub(crate) applied: Applied,
    /// Places of attempts that were passed over, because their steps got children meanwhile.
    pub(crate) outdated: Vec<usize>,
}

/// A row of the answer; `apply.sql` says what stands where.
#[cfg_attr(feature = "mutants", derive(sqlx::FromRow))]
pub(crate) struct Row {
    what: String,
    id: Uuid,
    task_id: Uuid,
    other: Option<Uuid>,
    kind: Option<String>,
    queue: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    attempt: i32,
    dispatch_seq: i32,
    number: i32,
    unsettled: bool,
    live: bool,
    edges_seen: bool,
    applied: bool,
    priority: i16,
    places: Option<Vec<i32>>,
}

/// A step as the statement found it, and whether it got its outcome.
struct Touched {
    task_id: TaskId,
    kind: StepKind,
    name: Option<String>,
    attempt: u32,
    dispatch_seq: u32,
    unsettled: bool,
    queue: Option<String>,
    live: bool,
    edges_seen: bool,
    applied: bool,
    ended_before: bool,
}

impl Touched {
    /// Whether this very attempt got the outcome: a set may hold several attempts of one step.
    fn applied_as(&self, attempt: &FinishedAttempt) -> bool {
        self.applied && self.attempt == attempt.attempt && self.kind == attempt.kind
    }

    /// Whether nothing but missing edges stood in the way.
    fn is_outdated(&self, attempt: &FinishedAttempt) -> bool {
        !self.edges_seen
            && self.live
            && !self.ended_before
            && self.attempt == attempt.attempt
            && self.kind == attempt.kind
    }
}

/// Stores a set of outcomes of one namespace, each of which ends its step.
pub(crate) async fn land(
    connection: &mut PgConnection,
    namespace: &Namespace,
    set: &[&FinishedAttempt],
    lease_ms: u64,
) -> Result<Landed, StoreError> {
    let mut landed = Landed::default();
    if set.is_empty() {
        return Ok(landed);
    }
    let known_since = Instant::now();
    let applied = &mut landed.applied;
    let mut touched: HashMap<Uuid, Touched> = HashMap::new();
    let mut is_ended_member = vec![false; set.len()];
    let slow = slow_members(set);
    for row in apply(connection, namespace, set, lease_ms).await? {
        match row.what.as_str() {
            "members" => mark(&mut is_ended_member, &row.places.unwrap_or_default()),
            "step" => {
                let (id, found) = (row.id, row.touched()?);
                let known = touched.entry(id).or_insert(found);
                known.applied |= row.applied;
            }
            "ready" => applied.ready.push(row.ready_step(known_since)?),
            "handed" => {
                let giver = StepId::from_uuid(row.other.unwrap_or_default());
                applied.handed.push((giver, row.ready_step(known_since)?));
            }
            "batch" => {
                let queue = stored_queue(row.queue.as_deref().unwrap_or_default())?;
                let batch = (BatchId::from_uuid(row.id), TaskId::from_uuid(row.task_id));
                let members = row.attempt as u32;
                let slow_members = slow.get(&batch.0.family()).copied().unwrap_or(0);
                applied.finished_by_queue.entry(queue).or_default().add(Finished {
                    steps: members,
                    members,
                    slow_members,
                });
                if row.live {
                    applied.limited.push((batch.0, row.number as u32));
                }
                if row.number == 0 {
                    applied.emptied.push(batch);
                } else if row.unsettled {
                    applied.stopped.push(batch);
                }
            }
            _ => applied.finished_tasks.push(row.finished_task()?),
        }
    }
    find_ended(connection, &mut touched).await?;
    for (place, attempt) in set.iter().enumerate() {
        // Nothing follows from the end of a single member.
        if is_ended_member[place] {
            applied.verdicts.push(Verdict::Applied);
            continue;
        }
        let row = touched.get(&attempt.step_id.as_uuid());
        applied.verdicts.push(verdict(attempt, row));
        match row {
            Some(row) if row.applied_as(attempt) => note_ended(applied, attempt, row),
            Some(row) if row.is_outdated(attempt) => landed.outdated.push(place),
            _ => {}
        }
    }
    applied.results = results_for_children(applied, set, &touched);
    Ok(landed)
}

/// How many members of each family took long.
fn slow_members(set: &[&FinishedAttempt]) -> HashMap<u128, u32> {
    let mut slow: HashMap<u128, u32> = HashMap::new();
    let members = set.iter().filter(|attempt| attempt.kind == StepKind::BatchWorker);
    for attempt in members.filter(|attempt| attempt.execution_ms > QUICK_MEMBER_MS) {
        *slow.entry(attempt.step_id.family()).or_default() += 1;
    }
    slow
}

/// Marks places, which are counted from 1.
fn mark(marks: &mut [bool], places: &[i32]) {
    for &place in places {
        let mark = usize::try_from(place - 1).ok().and_then(|place| marks.get_mut(place));
        mark.into_iter().for_each(|mark| *mark = true);
    }
}

pub(crate) fn column<T>(set: &[&FinishedAttempt], get: impl Fn(&FinishedAttempt) -> T) -> Vec<T> {
    set.iter().map(|a| get(a)).collect()
}

pub(crate) fn result(attempt: &FinishedAttempt) -> Option<String> {
    attempt.ending.as_ref().ok().map(|text| text.to_string())
}

async fn apply(
    connection: &mut PgConnection,
    namespace: &Namespace,
    set: &[&FinishedAttempt],
    lease_ms: u64,
) -> Result<Vec<Row>, StoreError> {
    if let [attempt] = set
        && let (true, Ok(result)) = (attempt.kind != StepKind::BatchWorker, &attempt.ending)
    {
        return apply_one(connection, namespace, attempt, result, lease_ms).await;
    }
    let mut errors = Vec::with_capacity(set.len());
    for attempt in set {
        let error = attempt.ending.as_ref().err().map(serde_json::to_string).transpose();
        errors.push(error.map_err(|e| StoreError::stored("error", e))?);
    }
    #[cfg(feature = "mutants")]
    if let Some(sql) = crate::mutants::APPLY.mutated() {
        return crate::mutants::apply(connection, namespace, set, lease_ms, sql, &errors).await;
    }
    let rows = sqlx::query_file_as!(
        Row,
        "queries/outcomes/apply.sql",
        namespace.as_str(),
        &column(set, |a| a.step_id.as_uuid()),
        &column(set, |a| a.attempt as i32),
        &column(set, |a| a.kind.as_str().to_owned()),
        &column(set, result) as &[Option<String>],
        &errors as &[Option<String>],
        &column(set, |a| a.worker.as_uuid()),
        &column(set, |a| i32::try_from(a.execution_ms).unwrap_or(i32::MAX)),
        &column(set, |a| a.takes_next),
        lease_ms as f64 / 1000.0,
        &task_ends(),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// A step that succeeded, alone, and is no member: what the next step of a chain waits for.
async fn apply_one(
    connection: &mut PgConnection,
    namespace: &Namespace,
    attempt: &FinishedAttempt,
    result: &str,
    lease_ms: u64,
) -> Result<Vec<Row>, StoreError> {
    #[cfg(feature = "mutants")]
    if let Some(sql) = crate::mutants::APPLY_ONE.mutated() {
        return crate::mutants::apply_one(connection, namespace, attempt, lease_ms, sql).await;
    }
    let rows = sqlx::query_file_as!(
        Row,
        "queries/outcomes/apply_one.sql",
        namespace.as_str(),
        attempt.step_id.as_uuid(),
        attempt.attempt as i32,
        attempt.kind.as_str(),
        result,
        attempt.worker.as_uuid(),
        i32::try_from(attempt.execution_ms).unwrap_or(i32::MAX),
        attempt.takes_next,
        lease_ms as f64 / 1000.0,
        &task_ends(),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// How a task without active steps ends: nothing failed or pending, something failed, something
/// pending, both.
pub(crate) fn task_ends() -> Vec<String> {
    let cases = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let end = |(pending, failed)| task_end(0, pending, failed).map(|state| state.to_string());
    cases.into_iter().filter_map(end).collect()
}

impl Row {
    fn touched(&self) -> Result<Touched, StoreError> {
        let kind = self.kind.as_deref().unwrap_or_default();
        Ok(Touched {
            task_id: TaskId::from_uuid(self.task_id),
            kind: kind.parse().map_err(|e| StoreError::stored("step kind", e))?,
            name: self.name.clone(),
            attempt: self.attempt as u32,
            dispatch_seq: self.dispatch_seq as u32,
            unsettled: self.unsettled,
            queue: self.queue.clone(),
            live: self.live,
            edges_seen: self.edges_seen,
            applied: self.applied,
            ended_before: false,
        })
    }

    fn ready_step(self, known_since: Instant) -> Result<ReadyStep, StoreError> {
        let name = self.name.unwrap_or_default();
        Ok(ReadyStep {
            id: StepId::from_uuid(self.id),
            task_id: TaskId::from_uuid(self.task_id),
            namespace: stored_namespace(self.namespace.as_deref().unwrap_or_default())?,
            queue: stored_queue(self.queue.as_deref().unwrap_or_default())?,
            priority: self.priority as i8,
            template_step: name.clone(),
            name,
            attempt: self.attempt as u32,
            dispatch_seq: self.dispatch_seq as u32,
            tries: self.number as u32,
            claim_required: self.unsettled,
            cursor: None,
            known_since,
        })
    }

    fn finished_task(&self) -> Result<FinishedTask, StoreError> {
        let state = self.kind.as_deref().unwrap_or_default();
        Ok(FinishedTask {
            id: TaskId::from_uuid(self.id),
            namespace: stored_namespace(self.namespace.as_deref().unwrap_or_default())?,
            state: state.parse().map_err(|e| StoreError::stored("task state", e))?,
        })
    }
}

/// Looks which of the steps that got no outcome now had one before.
async fn find_ended(
    connection: &mut PgConnection,
    touched: &mut HashMap<Uuid, Touched>,
) -> Result<(), StoreError> {
    let refused: Vec<Uuid> =
        touched.iter().filter(|(_, row)| !row.applied).map(|(id, _)| *id).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let ended = sqlx::query_scalar!(
        "select step_id from tasker.outcomes where step_id = any($1::uuid[])",
        &refused
    )
    .fetch_all(connection)
    .await?;
    for id in ended {
        if let Some(row) = touched.get_mut(&id) {
            row.ended_before = true;
        }
    }
    Ok(())
}

/// The verdict on an attempt whose step was found in this state.
fn verdict(attempt: &FinishedAttempt, row: Option<&Touched>) -> Verdict {
    match row {
        None => Verdict::Unknown,
        Some(row) if row.applied_as(attempt) => Verdict::Applied,
        Some(row) if row.ended_before || row.applied => Verdict::Duplicate,
        Some(row) if row.kind != attempt.kind || !row.live => not_running(attempt, row),
        // Not to be acknowledged: it is stored by the next try, or runs again.
        Some(row) if row.is_outdated(attempt) => Verdict::Stale { superseded: false },
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

/// Notes what follows from an ended step that is not a member of a batch.
fn note_ended(applied: &mut Applied, attempt: &FinishedAttempt, row: &Touched) {
    if row.unsettled {
        applied.unsettled.push(UnsettledStep {
            id: attempt.step_id,
            task_id: row.task_id,
            expands: attempt.ending.is_ok() && row.kind == StepKind::Batchable,
        });
    }
    if let Some(queue) = row.queue.as_deref().and_then(|q| Queue::new(q).ok()) {
        applied.finished_by_queue.entry(queue).or_default().steps += 1;
    }
}

/// What children that have become ready read of the parents in this set, but for results so large
/// that they are read on demand.
fn results_for_children(
    applied: &Applied,
    set: &[&FinishedAttempt],
    touched: &HashMap<Uuid, Touched>,
) -> KnownResults {
    let ready = applied.ready.iter().chain(applied.handed.iter().map(|(_, step)| step));
    let tasks: HashSet<TaskId> = ready.map(|step| step.task_id).collect();
    if tasks.is_empty() {
        return KnownResults::new();
    }
    let known = set.iter().filter_map(|attempt| {
        let row = touched.get(&attempt.step_id.as_uuid())?;
        let result = attempt.ending.as_ref().ok()?;
        let needed = row.applied_as(attempt)
            && tasks.contains(&row.task_id)
            && result.len() <= MAX_DEPENDENCY_BYTES;
        let key = (row.task_id, row.name.clone()?);
        needed.then(|| (key, result.clone()))
    });
    known.collect()
}
