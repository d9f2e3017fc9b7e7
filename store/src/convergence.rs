//! Convergence: the transaction that settles ended batches, parents and decisions, decides which
//! convergences may run and which branches exist, and creates their rows.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{BatchState, StepKind, TaskId, TemplateId};
use tasker_workflow::{BatchFact, Choice, Ending, StepFact, TaskFacts, stored_choice};
use uuid::Uuid;

use crate::counters::FinishedTask;
use crate::pool::{Tx, commit, retry_conflicts};
use crate::settling::Writes;
use crate::{ReadyStep, Store, StoreError};

/// Tasks in which something ended that has not been settled.
pub type ConvergeCandidates = Vec<TaskId>;

/// What a converging transaction has changed.
#[derive(Debug, Default)]
pub struct Converged {
    /// Convergences and branches that have become ready.
    pub ready: Vec<ReadyStep>,
    /// How many batches were settled.
    pub settled_batches: u32,
    /// Tasks that have ended.
    pub finished_tasks: Vec<FinishedTask>,
}

/// One task as the transaction found it, under locks.
#[derive(Default)]
pub(crate) struct TaskState {
    pub(crate) namespace: String,
    pub(crate) priority: i8,
    pub(crate) template_id: Option<TemplateId>,
    pub(crate) steps: Vec<StepRow>,
    pub(crate) batches: Vec<BatchRow>,
}

pub(crate) struct StepRow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) kind: StepKind,
    pub(crate) unsettled: bool,
    pub(crate) ended: Option<Ending>,
    /// What a decision that has ended well names.
    pub(crate) choice: Option<HashSet<String>>,
}

pub(crate) struct BatchRow {
    pub(crate) id: Uuid,
    pub(crate) worker_template: String,
    pub(crate) state: BatchState,
    pub(crate) settled: bool,
    pub(crate) fact: BatchFact,
    pub(crate) max_failed: u32,
}

impl StepRow {
    /// A batchable step whose batch is not sealed is expanding: for everybody else it has not ended.
    fn fact(&self) -> StepFact {
        let expanding = self.unsettled
            && self.kind == StepKind::Batchable
            && self.ended == Some(Ending::Succeeded);
        StepFact { ended: self.ended.filter(|_| !expanding) }
    }
}

impl StepRow {
    fn chosen(&self) -> Option<(String, Choice)> {
        let steps = self.choice.clone()?;
        Some((self.name.clone(), Choice { steps, settled: !self.unsettled }))
    }
}

impl BatchRow {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, BatchState::Sealed | BatchState::Failed)
            && self.fact.remaining == 0
            && !self.settled
    }
}

impl TaskState {
    /// What the rules look at.
    pub(crate) fn facts(&self) -> TaskFacts {
        let is_sealed = |batch: &&BatchRow| {
            matches!(batch.state, BatchState::Sealed | BatchState::Converged | BatchState::Failed)
        };
        let batches = self.batches.iter().filter(is_sealed);
        TaskFacts {
            steps: self.steps.iter().map(|s| (s.name.clone(), s.fact())).collect(),
            batches: batches.map(|b| (b.worker_template.clone(), b.fact)).collect(),
            choices: self.steps.iter().filter_map(StepRow::chosen).collect(),
        }
    }
}

impl TaskState {
    /// Its steps, without members of batches, by name.
    pub(crate) fn ids_of_steps(&self) -> impl Iterator<Item = (&str, Uuid)> {
        self.steps.iter().map(|step| (step.name.as_str(), step.id))
    }

    /// Its batches, by worker template.
    pub(crate) fn ids_of_batches(&self) -> impl Iterator<Item = (&str, Uuid)> {
        self.batches.iter().map(|batch| (batch.worker_template.as_str(), batch.id))
    }
}

impl Store {
    /// Settles what has ended in these tasks and makes convergences ready whose parents have all
    /// ended. Any number of nodes may do this at the same time, as often as they like.
    pub async fn converge_tasks(&self, tasks: &[TaskId]) -> Result<Converged, StoreError> {
        retry_conflicts(|| self.converge_once(tasks)).await
    }

    async fn converge_once(&self, tasks: &[TaskId]) -> Result<Converged, StoreError> {
        let ids: Vec<Uuid> = tasks.iter().map(|t| t.as_uuid()).collect();
        // Before it creates anything: until then nobody else can publish it.
        let mut writes = Writes::new(Instant::now());
        let mut tx = self.hot.begin().await?;
        let states = load_locked(&mut tx, &ids).await?;
        for (&task, state) in &states {
            let Some(template_id) = state.template_id else { continue };
            let template = self.template(template_id).await;
            match template.and_then(|template| writes.plan(task, state, &template)) {
                Ok(()) => {}
                // One template that this build cannot read must not hold up other tasks.
                Err(error) if !error.is_transient() => {
                    tracing::error!(%error, task.id = %task, "a task cannot be converged");
                }
                Err(error) => return Err(error),
            }
        }
        let converged = writes.apply(&mut tx).await?;
        pass(CrashPoint::ConvergeWritten);
        commit(tx).await?;
        pass(CrashPoint::ConvergeStored);
        Ok(converged)
    }

    /// Tasks in which something ended that has not been settled, on any node.
    pub async fn find_convergeable(&self, limit: u32) -> Result<ConvergeCandidates, StoreError> {
        let ids = sqlx::query_file_scalar!("queries/convergence/candidates.sql", i64::from(limit))
            .fetch_all(&self.hot)
            .await?;
        Ok(ids.into_iter().map(TaskId::from_uuid).collect())
    }
}

/// Locks steps and batches of the tasks, each in the order of their ids, and reads the steps in the
/// statement that follows: what was committed before the locks were had is seen. Batches come as they
/// are once they are locked; there cannot be more of them, since whoever makes one locks its analyzer. A
/// step that was created while the locks were waited for is locked as well, by starting over.
async fn load_locked(tx: &mut Tx, tasks: &[Uuid]) -> Result<BTreeMap<Uuid, TaskState>, StoreError> {
    loop {
        let locked = sqlx::query_scalar!(
            "select id from tasker.steps where task_id = any($1::uuid[]) and batch_id is null
             order by id for no key update",
            tasks
        )
        .fetch_all(&mut **tx)
        .await?;
        let batches =
            sqlx::query_file_as!(BatchData, "queries/convergence/lock_batches.sql", tasks)
                .fetch_all(&mut **tx)
                .await?;
        let locked: HashSet<Uuid> = locked.into_iter().collect();
        let mut states = read_steps(tx, tasks, false).await?;
        add_batches(&mut states, batches)?;
        if states.values().flat_map(|s| &s.steps).all(|step| locked.contains(&step.id)) {
            return Ok(states);
        }
    }
}

pub(crate) async fn read_states(
    tx: &mut Tx,
    tasks: &[Uuid],
    with_ended: bool,
) -> Result<BTreeMap<Uuid, TaskState>, StoreError> {
    let mut states = read_steps(tx, tasks, with_ended).await?;
    let batches = sqlx::query_file_as!(BatchData, "queries/convergence/batches.sql", tasks)
        .fetch_all(&mut **tx)
        .await?;
    add_batches(&mut states, batches)?;
    Ok(states)
}

async fn read_steps(
    tx: &mut Tx,
    tasks: &[Uuid],
    with_ended: bool,
) -> Result<BTreeMap<Uuid, TaskState>, StoreError> {
    let mut states: BTreeMap<Uuid, TaskState> = BTreeMap::new();
    let steps = sqlx::query_file!("queries/convergence/steps.sql", tasks, with_ended)
        .fetch_all(&mut **tx)
        .await?;
    for row in steps {
        let state = states.entry(row.task_id).or_default();
        state.namespace = row.namespace;
        state.priority = row.priority as i8;
        state.template_id = Some(TemplateId::from_uuid(row.template_id));
        let ended = row.outcome.map(|outcome| match outcome.as_str() {
            "complete" | "resolved_manually" => Ending::Succeeded,
            _ => Ending::Failed,
        });
        state.steps.push(StepRow {
            id: row.id,
            name: row.name,
            kind: row.kind.parse().map_err(|e| StoreError::stored("step kind", e))?,
            unsettled: row.unsettled,
            ended,
            choice: row.choice.map(|outcome| stored_choice(Some(&outcome))),
        });
    }
    Ok(states)
}

/// A batch as it is stored.
struct BatchData {
    id: Uuid,
    task_id: Uuid,
    worker_template: String,
    state: String,
    settled: bool,
    remaining: i32,
    succeeded: i32,
    failed: i32,
    max_failed: i32,
}

fn add_batches(
    states: &mut BTreeMap<Uuid, TaskState>,
    batches: Vec<BatchData>,
) -> Result<(), StoreError> {
    for row in batches {
        let Some(state) = states.get_mut(&row.task_id) else { continue };
        state.batches.push(BatchRow {
            id: row.id,
            worker_template: row.worker_template,
            state: row.state.parse().map_err(|e| StoreError::stored("batch state", e))?,
            settled: row.settled,
            fact: BatchFact {
                remaining: row.remaining as u32,
                succeeded: row.succeeded as u32,
                failed: row.failed as u32,
                stopped: row.failed > row.max_failed,
            },
            max_failed: row.max_failed as u32,
        });
    }
    Ok(())
}
