//! The shared part of steps: what all dispatches of one template step in one task have in common.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tasker_messages::{
    BatchId, BatchMetadata, BatchSummary, DependencyResult, GetResult, Namespace, SharedStep,
    SplitWishes, StepKind, StoredResult, TaskId, TaskRequest, TemplateId,
};
use tasker_workflow::{StepTemplate, Template};
use uuid::Uuid;

use crate::{Store, StoreError};

/// What a shared part is found under: task and step of the template.
pub(crate) type SharedKey = (TaskId, String);

/// A dependency result above this size is read on demand.
pub(crate) const MAX_DEPENDENCY_BYTES: usize = 262_144;

/// Results that are known without being read, by task and step.
pub type KnownResults = HashMap<(TaskId, String), Box<str>>;

/// What never changes of a task.
#[derive(Debug)]
struct TaskRow {
    context: Value,
    template: Arc<Template>,
}

/// Tasks whose steps were dispatched lately: each step of a chain needs the context again.
#[derive(Debug, Default)]
pub(crate) struct TaskCache(Mutex<HashMap<(TaskId, Namespace), Arc<TaskRow>>>);

/// Most tasks in memory, and the largest context that is kept; beyond that the cache begins anew.
const MAX_CACHED: usize = 1_024;
pub(crate) const MAX_CACHED_CONTEXT: usize = 16_384;

impl TaskCache {
    fn get(&self, key: &(TaskId, Namespace)) -> Option<Arc<TaskRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Remembers a task that was just stored: its first steps are about to be dispatched.
    pub(crate) fn note(&self, id: TaskId, request: &TaskRequest, template: &Arc<Template>) {
        let row = TaskRow { context: request.context.clone(), template: Arc::clone(template) };
        self.put((id, request.namespace.clone()), Arc::new(row));
    }

    fn put(&self, key: (TaskId, Namespace), row: Arc<TaskRow>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(key, row);
    }
}

struct Dependency {
    name: String,
    state: String,
    bytes: i32,
    result: Option<String>,
    error: Option<String>,
}

impl Store {
    /// Reads the shared parts of several template steps, set-based. Keys of unknown tasks or steps
    /// are left out. Results of dependencies that the caller knows are not read again.
    pub async fn load_shared(
        &self,
        namespace: &Namespace,
        keys: &[SharedKey],
        known: &KnownResults,
    ) -> Result<HashMap<SharedKey, SharedStep>, StoreError> {
        let tasks = self.load_task_rows(namespace, keys).await?;
        let mut wanted = Vec::new();
        let mut joined = Vec::new();
        for (task, name) in keys {
            let Some(row) = tasks.get(task) else { continue };
            let Some((_, step)) = row.template.step(name) else { continue };
            for dependency in &step.dependencies {
                match row.template.step(dependency.as_str()) {
                    Some((_, d)) if d.kind == StepKind::BatchWorker => joined.push(task.as_uuid()),
                    _ => wanted.push((task.as_uuid(), dependency.to_string())),
                }
            }
            if step.kind == StepKind::BatchWorker {
                joined.push(task.as_uuid());
            }
            // An aggregator also sees what the analyzers said.
            wanted.extend(analyzers(&row.template, step).map(|name| (task.as_uuid(), name)));
        }
        let dependencies = self.load_dependencies(wanted, known).await?;
        let batches = self.load_batches_of(&joined).await?;
        let mut shared = HashMap::with_capacity(keys.len());
        for key in keys {
            let Some(row) = tasks.get(&key.0) else { continue };
            let Some((_, step)) = row.template.step(&key.1) else { continue };
            let none = Vec::new();
            let all = dependencies.get(&key.0).unwrap_or(&none);
            let summaries = batches.get(&key.0).map_or(&[][..], Vec::as_slice);
            shared.insert(key.clone(), assemble(row, step, all, summaries)?);
        }
        Ok(shared)
    }

    async fn load_task_rows(
        &self,
        namespace: &Namespace,
        keys: &[SharedKey],
    ) -> Result<HashMap<TaskId, Arc<TaskRow>>, StoreError> {
        let mut tasks = HashMap::new();
        let mut missing = Vec::new();
        for (task, _) in keys {
            if let Entry::Vacant(entry) = tasks.entry(*task) {
                match self.tasks.get(&(*task, namespace.clone())) {
                    Some(row) => drop(entry.insert(row)),
                    None => missing.push(task.as_uuid()),
                }
            }
        }
        if missing.is_empty() {
            return Ok(tasks);
        }
        missing.sort_unstable();
        missing.dedup();
        let rows = sqlx::query!(
            r#"select id, template_id, context::text as "context!" from tasker.tasks
               where id = any($1::uuid[]) and namespace = $2"#,
            &missing,
            namespace.as_str(),
        )
        .fetch_all(&self.hot)
        .await?;
        for row in rows {
            let id = TaskId::from_uuid(row.id);
            let template = match self.template(TemplateId::from_uuid(row.template_id)).await {
                Ok(template) => template,
                // One template that this build cannot read must not hold up other tasks.
                Err(error) if !error.is_transient() => {
                    tracing::error!(%error, task.id = %id, "steps of a task cannot be dispatched");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let context = serde_json::from_str(&row.context);
            let task = Arc::new(TaskRow {
                context: context.map_err(|e| StoreError::stored("context", e))?,
                template,
            });
            if row.context.len() <= MAX_CACHED_CONTEXT {
                self.tasks.put((id, namespace.clone()), Arc::clone(&task));
            }
            tasks.insert(id, task);
        }
        Ok(tasks)
    }

    async fn load_dependencies(
        &self,
        mut wanted: Vec<(Uuid, String)>,
        known: &KnownResults,
    ) -> Result<HashMap<TaskId, Vec<Dependency>>, StoreError> {
        let mut found: HashMap<TaskId, Vec<Dependency>> = HashMap::new();
        wanted.retain(|(task, name)| {
            let key = (TaskId::from_uuid(*task), name.clone());
            let Some(result) = known.get(&key) else { return true };
            found.entry(key.0).or_default().push(Dependency {
                name: key.1,
                state: "complete".to_owned(),
                bytes: result.len() as i32,
                result: Some(result.to_string()),
                error: None,
            });
            false
        });
        if wanted.is_empty() {
            return Ok(found);
        }
        let (tasks, names): (Vec<Uuid>, Vec<String>) = wanted.into_iter().unzip();
        let rows = sqlx::query_file!(
            "queries/dispatch/dependencies.sql",
            &tasks,
            &names,
            MAX_DEPENDENCY_BYTES as i32
        )
        .fetch_all(&self.hot)
        .await?;
        for row in rows {
            found.entry(TaskId::from_uuid(row.task_id)).or_default().push(Dependency {
                name: row.name,
                state: row.state,
                bytes: row.bytes,
                result: row.result,
                error: row.error,
            });
        }
        Ok(found)
    }

    async fn load_batches_of(
        &self,
        tasks: &[Uuid],
    ) -> Result<HashMap<TaskId, Vec<BatchSummary>>, StoreError> {
        let mut found: HashMap<TaskId, Vec<BatchSummary>> = HashMap::new();
        if tasks.is_empty() {
            return Ok(found);
        }
        let rows = sqlx::query!(
            r#"select b.id as "id!", b.task_id as "task_id!", s.name as "batchable_step!",
                      b.worker_template as "worker_template!", b.is_no_op as "is_no_op!",
                      b.expected as "expected!", b.succeeded as "succeeded!", b.failed as "failed!",
                      b.state::text as "state!"
               from (select distinct * from unnest($1::uuid[]) as t(id)) t
               cross join lateral (select * from tasker.batches where task_id = t.id offset 0) b
               cross join lateral (
                   select name from tasker.steps where id = b.batchable_step_id offset 0
               ) s
               order by b.id"#,
            tasks
        )
        .fetch_all(&self.hot)
        .await?;
        for row in rows {
            found.entry(TaskId::from_uuid(row.task_id)).or_default().push(BatchSummary {
                batch_id: BatchId::from_uuid(row.id),
                batchable_step: row.batchable_step,
                worker_template: row.worker_template,
                is_no_op: row.is_no_op,
                worker_count: row.expected as u32,
                succeeded: row.succeeded as u32,
                failed: row.failed as u32,
                state: row.state.parse().map_err(|e| StoreError::stored("batch state", e))?,
            });
        }
        Ok(found)
    }

    /// Reads the result of one ended step that is not a member of a batch.
    pub async fn load_result(
        &self,
        namespace: &Namespace,
        request: &GetResult,
    ) -> Result<Option<StoredResult>, StoreError> {
        let row = sqlx::query_scalar!(
            r#"select o.result::text from tasker.steps s
               left join tasker.outcomes o on o.step_id = s.id
               where s.task_id = $1 and s.name = $2 and s.namespace = $3 and s.batch_id is null"#,
            request.task_id.as_uuid(),
            request.name,
            namespace.as_str(),
        )
        .fetch_optional(&self.hot)
        .await?;
        let Some(result) = row else { return Ok(None) };
        let result = result.map(serde_json::value::RawValue::from_string).transpose();
        Ok(Some(StoredResult { result: result.map_err(|e| StoreError::stored("result", e))? }))
    }
}

/// The analyzers of the batches that a convergence joins.
fn analyzers<'a>(
    template: &'a Template,
    step: &'a StepTemplate,
) -> impl Iterator<Item = String> + 'a {
    step.dependencies
        .iter()
        .filter(|_| step.kind == StepKind::DeferredConvergence)
        .filter_map(|name| template.batchable_of(name.as_str()))
        .map(|batchable| batchable.name.to_string())
}

fn assemble(
    row: &TaskRow,
    step: &StepTemplate,
    all: &[Dependency],
    batches: &[BatchSummary],
) -> Result<SharedStep, StoreError> {
    let analyzers: Vec<String> = analyzers(&row.template, step).collect();
    let mut dependencies = BTreeMap::new();
    for dependency in all {
        let declared = step.dependencies.iter().any(|name| name.as_str() == dependency.name);
        if declared || analyzers.contains(&dependency.name) {
            dependencies.insert(dependency.name.clone(), result_of(dependency)?);
        }
    }
    Ok(shared_step(&row.template, step, row.context.clone(), dependencies, batches))
}

/// What all dispatches of a step have in common: what its template says of it, and what became of the
/// steps in front of it. `batches` are those of the task.
pub fn shared_step(
    template: &Template,
    step: &StepTemplate,
    context: Value,
    dependencies: BTreeMap<String, DependencyResult>,
    batches: &[BatchSummary],
) -> SharedStep {
    let batchable = template.batchable_of(step.name.as_str());
    let is_no_op = batches.iter().any(|b| b.worker_template == step.name.as_str() && b.is_no_op);
    SharedStep {
        kind: step.kind,
        callable: step.handler.callable.clone(),
        method: step.handler.method.clone(),
        resolver: step.handler.resolver.clone(),
        queue: step.handler.queue.clone(),
        config: step.handler.config.clone(),
        context,
        timeout_ms: step.timeout_ms,
        max_attempts: step.retry.max_attempts,
        // What stands for a batch without ranges is the library's result, not the handler's.
        has_schema: step.result_schema.is_some() && !is_no_op,
        has_events: !step.events.is_empty() && !is_no_op,
        dependencies,
        split: template.worker_of(step.name.as_str()).map(|worker| SplitWishes {
            worker_template: worker.name.to_string(),
            batch_size: step.batch.as_ref().and_then(|batch| batch.batch_size),
            max_workers: step.batch.as_ref().and_then(|batch| batch.max_workers),
        }),
        batch: batchable.map(|_| batch_metadata(template, step.name.as_str())),
        is_no_op,
        batches: batches
            .iter()
            .filter(|b| step.dependencies.iter().any(|name| name.as_str() == b.worker_template))
            .cloned()
            .collect(),
    }
}

/// What all members of a batch have in common, as the template says.
pub(crate) fn batch_metadata(template: &Template, worker: &str) -> BatchMetadata {
    let config = template.batchable_of(worker).and_then(|batchable| batchable.batch.as_ref());
    config.map_or_else(BatchMetadata::default, |config| BatchMetadata {
        checkpoint_interval: config.checkpoint_interval,
        cursor_field: config.cursor_field.clone(),
        failure_strategy: config.failure_strategy,
    })
}

fn result_of(dependency: &Dependency) -> Result<DependencyResult, StoreError> {
    let Some(result) = &dependency.result else {
        if dependency.state == "resolved_manually" {
            return Ok(DependencyResult::Result(Value::Null));
        }
        if dependency.state == "complete" {
            return Ok(DependencyResult::TooLarge { bytes: dependency.bytes as u64 });
        }
        let error = dependency.error.as_deref().unwrap_or("cancelled");
        return Ok(DependencyResult::Failed(error.to_owned()));
    };
    let value = serde_json::from_str(result).map_err(|e| StoreError::stored("result", e))?;
    Ok(DependencyResult::Result(value))
}
