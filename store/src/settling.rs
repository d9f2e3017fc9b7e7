//! What a converging transaction writes: settled steps and batches, convergences and branches with their
//! edges, and the counters of their tasks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tasker_messages::{BatchState, Namespace, StepId, StepKind, TaskId};
use tasker_workflow::batching::{self, all_failed};
use tasker_workflow::{BatchFact, Ending, StepTemplate, Template, converge};
use uuid::Uuid;

use crate::convergence::{Converged, TaskState};
use crate::counters::TaskDeltas;
use crate::dispatch::namespace;
use crate::pool::Tx;
use crate::step_rows::{NewStepRow, StepRows};
use crate::{ReadyStep, StoreError};

/// What the transaction is going to change.
pub(crate) struct Writes {
    known_since: Instant,
    settle_steps: Vec<Uuid>,
    settle_batches: BTreeMap<Uuid, (Uuid, BatchState)>,
    rows: StepRows,
    /// Those of the rows that are ready.
    ready: HashMap<Uuid, ReadyStep>,
    edges: Vec<(Uuid, Uuid)>,
    deltas: TaskDeltas,
}

impl Writes {
    pub(crate) fn new(known_since: Instant) -> Self {
        Self {
            known_since,
            settle_steps: Vec::new(),
            settle_batches: BTreeMap::new(),
            rows: StepRows::default(),
            ready: HashMap::new(),
            edges: Vec::new(),
            deltas: TaskDeltas::default(),
        }
    }

    pub(crate) fn plan(
        &mut self,
        task: Uuid,
        state: &TaskState,
        template: &Arc<Template>,
    ) -> Result<(), StoreError> {
        // First: where this fails, nothing of the task is written.
        let namespace = namespace(&state.namespace)?;
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
        self.plan_rows((task, &namespace), state, template);
        Ok(())
    }

    fn plan_rows(
        &mut self,
        (task, namespace): (Uuid, &Namespace),
        state: &TaskState,
        template: &Template,
    ) {
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
            if planned.ready {
                let place = (task, namespace, state.priority);
                self.ready.insert(id, self.ready_step(id, place, step));
            }
            let parents = planned.parents.iter().filter_map(|p| ids.get(p.as_str()));
            self.edges.extend(parents.map(|&parent| (parent, id)));
            self.rows.push(NewStepRow {
                id: StepId::from_uuid(id),
                task_id: TaskId::from_uuid(task),
                namespace: namespace.as_str(),
                name: step.name.as_str(),
                kind: step.kind.as_str(),
                ready: planned.ready,
                pending_parents: planned.pending_parents,
                // Counted when all edges are known.
                children: 0,
                unsettled: planned.unsettled,
                queue: step.handler.queue.as_str(),
            });
        }
    }

    /// A step as its row will be.
    fn ready_step(
        &self,
        id: Uuid,
        (task, namespace, priority): (Uuid, &Namespace, i8),
        step: &StepTemplate,
    ) -> ReadyStep {
        ReadyStep {
            id: StepId::from_uuid(id),
            task_id: TaskId::from_uuid(task),
            namespace: namespace.clone(),
            queue: step.handler.queue.clone(),
            priority,
            name: step.name.to_string(),
            template_step: step.name.to_string(),
            attempt: 1,
            dispatch_seq: 1,
            tries: 0,
            claim_required: false,
            cursor: None,
            known_since: self.known_since,
        }
    }

    pub(crate) async fn apply(mut self, tx: &mut Tx) -> Result<Converged, StoreError> {
        let mut converged = Converged::default();
        // A statement of its own: a step that is settled may also get children, and no statement changes a row
        // twice.
        for task in settle_steps(tx, &self.settle_steps).await? {
            self.deltas.settled(task);
        }
        self.rows.count_children(&self.edges);
        let (settled, created) =
            write_rows(tx, &self.settle_batches, self.rows, self.edges).await?;
        converged.settled_batches = settled.len() as u32;
        for batch in settled {
            if let Some((task, state)) = self.settle_batches.get(&batch) {
                self.deltas.ended(*task, *state == BatchState::Converged);
            }
        }
        for step in created.iter().filter_map(|id| self.ready.remove(id)) {
            self.deltas.released(step.task_id.as_uuid());
            converged.ready.push(step);
        }
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

/// Settles batches and inserts steps whose name their task does not have yet, with edges from parents to
/// children. Returns the batches that were settled, and the steps that were inserted.
pub(crate) async fn write_rows(
    tx: &mut Tx,
    batches: &BTreeMap<Uuid, (Uuid, BatchState)>,
    rows: StepRows,
    edges: Vec<(Uuid, Uuid)>,
) -> Result<(Vec<Uuid>, Vec<Uuid>), StoreError> {
    let (mut settled, mut created) = (Vec::new(), Vec::new());
    if batches.is_empty() && rows.ids.is_empty() && edges.is_empty() {
        return Ok((settled, created));
    }
    let (parents, children): (Vec<Uuid>, Vec<Uuid>) = edges.into_iter().unzip();
    let written = sqlx::query_file!(
        "queries/convergence/write.sql",
        &batches.keys().copied().collect::<Vec<_>>(),
        &batches.values().map(|(_, state)| state.to_string()).collect::<Vec<_>>(),
        &rows.ids,
        &rows.task_ids,
        &rows.namespaces,
        &rows.names,
        &rows.kinds,
        &rows.ready,
        &rows.pending_parents,
        &rows.children,
        &rows.unsettled,
        &rows.queues,
        &parents,
        &children,
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in written {
        match row.what.as_str() {
            "batch" => settled.push(row.id),
            _ => created.push(row.id),
        }
    }
    Ok((settled, created))
}
