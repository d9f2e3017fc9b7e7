//! Convergence: the transaction that settles ended batches, parents and decisions, decides which
//! convergences may run and which branches exist, and creates their rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{BatchState, StepId, StepKind, TaskId, TemplateId};
use tasker_workflow::batching::{self, all_failed};
use tasker_workflow::{
    BatchFact, Choice, Ending, StepFact, TaskFacts, Template, converge, stored_choice,
};
use uuid::Uuid;

use crate::counters::{FinishedTask, TaskDeltas};
use crate::pool::{Tx, commit, retry_conflicts};
use crate::submit::{NewStepRow, StepRows, insert_edges};
use crate::{Store, StoreError};

/// Tasks in which something ended that has not been settled.
pub type ConvergeCandidates = Vec<TaskId>;

/// What a converging transaction has changed.
#[derive(Debug, Default)]
pub struct Converged {
    /// Convergences and branches that have become ready.
    pub ready: Vec<StepId>,
    /// How many batches were settled.
    pub settled_batches: u32,
    /// Tasks that have ended.
    pub finished_tasks: Vec<FinishedTask>,
}

/// One task as the transaction found it, under locks.
#[derive(Default)]
pub(crate) struct TaskState {
    namespace: String,
    template_id: Option<TemplateId>,
    steps: Vec<StepRow>,
    batches: Vec<BatchRow>,
}

struct StepRow {
    id: Uuid,
    name: String,
    kind: StepKind,
    unsettled: bool,
    ended: Option<Ending>,
    /// What a decision that has ended well names.
    choice: Option<HashSet<String>>,
}

struct BatchRow {
    id: Uuid,
    worker_template: String,
    state: BatchState,
    settled: bool,
    fact: BatchFact,
    max_failed: u32,
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
    fn is_done(&self) -> bool {
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
        let mut tx = self.hot.begin().await?;
        let states = load_locked(&mut tx, &ids).await?;
        let mut writes = Writes::default();
        for (&task, state) in &states {
            let Some(template_id) = state.template_id else { continue };
            match self.template(template_id).await {
                Ok(template) => writes.plan(task, state, &template),
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

/// What the transaction is going to change.
#[derive(Default)]
struct Writes {
    settle_steps: Vec<Uuid>,
    settle_batches: BTreeMap<Uuid, (Uuid, BatchState)>,
    rows: StepRows,
    new: HashMap<Uuid, (Uuid, bool)>,
    edges: Vec<(StepId, StepId)>,
    deltas: TaskDeltas,
}

impl Writes {
    fn plan(&mut self, task: Uuid, state: &TaskState, template: &Arc<Template>) {
        for step in state.steps.iter().filter(|s| s.unsettled) {
            let expands = step.kind == StepKind::Batchable && step.ended == Some(Ending::Succeeded);
            if step.ended.is_some() && !expands {
                self.settle_steps.push(step.id);
            }
        }
        for batch in state.batches.iter().filter(|b| b.is_done()) {
            let BatchFact { succeeded, failed, stopped, .. } = batch.fact;
            let end = match (stopped, succeeded) {
                (true, _) => {
                    let why = batching::stopped(&batch.worker_template, failed, batch.max_failed);
                    self.deltas.explain(task, why);
                    BatchState::Failed
                }
                (false, 0) => {
                    self.deltas.explain(task, all_failed(&batch.worker_template, failed));
                    BatchState::Failed
                }
                (false, _) => BatchState::Converged,
            };
            self.settle_batches.insert(batch.id, (task, end));
        }
        self.plan_rows(task, state, template);
    }

    fn plan_rows(&mut self, task: Uuid, state: &TaskState, template: &Arc<Template>) {
        let facts = state.facts();
        let mut ids: HashMap<&str, Uuid> =
            state.steps.iter().map(|s| (s.name.as_str(), s.id)).collect();
        let plan = converge(template, &facts);
        self.deltas.never(task, plan.never.len());
        // A parent may stand behind its child in the document, so ids come before edges.
        for planned in &plan.create {
            ids.insert(template.steps[planned.step].name.as_str(), Uuid::now_v7());
        }
        for planned in plan.create {
            let step = &template.steps[planned.step];
            let Some(&id) = ids.get(step.name.as_str()) else { continue };
            self.new.insert(id, (task, planned.ready));
            let parents = planned.parents.iter().filter_map(|p| ids.get(p.as_str()));
            self.edges.extend(parents.map(|&p| (StepId::from_uuid(p), StepId::from_uuid(id))));
            self.rows.push(NewStepRow {
                id: StepId::from_uuid(id),
                task_id: TaskId::from_uuid(task),
                namespace: &state.namespace,
                name: step.name.as_str(),
                kind: step.kind.as_str(),
                ready: planned.ready,
                pending_parents: planned.pending_parents,
                // Edges are inserted later.
                children: 0,
                unsettled: planned.unsettled,
                queue: step.handler.queue.as_str(),
            });
        }
    }

    async fn apply(mut self, tx: &mut Tx) -> Result<Converged, StoreError> {
        let mut converged = Converged::default();
        for task in settle_steps(tx, &self.settle_steps).await? {
            self.deltas.settled(task);
        }
        let settled = settle_batches(tx, &self.settle_batches).await?;
        converged.settled_batches = settled.len() as u32;
        for batch in settled {
            if let Some((task, state)) = self.settle_batches.get(&batch) {
                self.deltas.ended(*task, *state == BatchState::Converged);
            }
        }
        for id in self.rows.insert(tx).await? {
            if let Some((task, true)) = self.new.get(&id.as_uuid()) {
                self.deltas.released(*task);
                converged.ready.push(id);
            }
        }
        insert_edges(tx, &self.edges).await?;
        converged.finished_tasks = self.deltas.apply(tx).await?;
        Ok(converged)
    }
}

async fn settle_steps(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let tasks = sqlx::query_scalar!(
        "update tasker.steps set unsettled = false
         where id = any($1::uuid[]) and unsettled returning task_id",
        ids
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(tasks)
}

async fn settle_batches(
    tx: &mut Tx,
    batches: &BTreeMap<Uuid, (Uuid, BatchState)>,
) -> Result<Vec<Uuid>, StoreError> {
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let settled = sqlx::query_scalar!(
        "update tasker.batches b
         set state = d.state::tasker.batch_state, settled = true, converged_at = clock_timestamp()
         from unnest($1::uuid[], $2::text[]) as d(id, state)
         where b.id = d.id and b.state in ('sealed', 'failed') and b.remaining = 0 and not b.settled
         returning b.id",
        &batches.keys().copied().collect::<Vec<_>>(),
        &batches.values().map(|(_, state)| state.to_string()).collect::<Vec<_>>(),
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(settled)
}
