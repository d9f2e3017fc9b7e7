//! Acceptance of tasks: task, steps and edges in one transaction, many tasks at a time.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{StepId, TaskId, TaskRequest, TemplateId};
use tasker_workflow::{SubmissionPlan, Template};

use crate::pool::retry_conflicts;
use crate::shared::MAX_CACHED_CONTEXT;
use crate::step_rows::{NewStepRow, StepRows};
use crate::{ReadyStep, Store, StoreError};

/// A task that is to be stored.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Made by the caller.
    pub id: TaskId,
    /// What was asked for.
    pub request: TaskRequest,
    /// Tells whether two requests with one idempotency key are the same.
    pub request_hash: [u8; 32],
    /// The version it runs.
    pub template_id: TemplateId,
    /// Whether it is stored only if that is the newest version of its name.
    pub assumes_newest: bool,
    /// The version it runs, parsed.
    pub template: std::sync::Arc<Template>,
    /// The steps that exist from the beginning.
    pub plan: SubmissionPlan,
    /// Ids of the plan's steps, in its order, made by the caller.
    pub step_ids: Vec<StepId>,
}

impl NewTask {
    /// The steps that are ready from the beginning, as they are stored. `known_since` is a moment before
    /// that.
    pub fn ready_steps(&self, known_since: Instant) -> impl Iterator<Item = ReadyStep> {
        let steps = self.plan.steps.iter().zip(&self.step_ids);
        steps.filter(|(planned, _)| planned.ready).map(move |(planned, &id)| {
            let step = &self.template.steps[planned.step];
            ReadyStep {
                id,
                task_id: self.id,
                namespace: self.request.namespace.clone(),
                queue: step.handler.queue.clone(),
                priority: self.request.priority,
                name: step.name.to_string(),
                template_step: step.name.to_string(),
                attempt: 1,
                dispatch_seq: 1,
                tries: 0,
                claim_required: false,
                cursor: None,
                known_since,
            }
        })
    }
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitVerdict {
    /// A task was made.
    Created,
    /// The idempotency key found a task made by the same request.
    Existing(TaskId),
    /// The idempotency key found a task made by a different request.
    Conflict(TaskId),
    /// It was not stored, since there is a newer version than the one that was assumed to be the newest, or
    /// the task of its key is no more: to be submitted again, with the version that is looked up.
    Outdated,
}

impl Store {
    /// Stores a set of tasks: all of it or, on error, nothing, as far as anybody knows. One verdict per
    /// task, in order.
    pub async fn insert_tasks(&self, tasks: &[NewTask]) -> Result<Vec<SubmitVerdict>, StoreError> {
        let mut created = retry_conflicts(|| self.insert_new(tasks)).await?;
        let mut found = self.find_by_key(tasks, &created).await?;
        // Only a key can have stood in the way, or a newer version where that matters, and by now the key's
        // task may have been removed. What was created is there already, and not created again.
        let is_open = |task: &NewTask| {
            !created.contains(&task.id) && !found.contains_key(&key(task)) && !task.assumes_newest
        };
        if tasks.iter().any(is_open) {
            created.extend(retry_conflicts(|| self.insert_new(tasks)).await?);
            found = self.find_by_key(tasks, &created).await?;
        }
        let verdict = |task: &NewTask| match found.get(&key(task)) {
            _ if created.contains(&task.id) => SubmitVerdict::Created,
            Some((id, hash)) if hash[..] == task.request_hash => SubmitVerdict::Existing(*id),
            Some((id, _)) => SubmitVerdict::Conflict(*id),
            None if task.assumes_newest => SubmitVerdict::Outdated,
            None => SubmitVerdict::Conflict(task.id),
        };
        Ok(tasks.iter().map(verdict).collect())
    }
}

impl Store {
    /// Inserts the tasks that are new, with their steps and edges; returns their ids.
    async fn insert_new(&self, tasks: &[NewTask]) -> Result<HashSet<TaskId>, StoreError> {
        fn column<'a, T>(tasks: &'a [NewTask], get: impl Fn(&'a NewTask) -> T) -> Vec<T> {
            tasks.iter().map(get).collect()
        }
        let text = |get: fn(&TaskRequest) -> &Option<String>| -> Vec<Option<String>> {
            tasks.iter().map(|t| get(&t.request).clone()).collect()
        };
        let mut connection = self.quick.lend().await?;
        pass(CrashPoint::SubmitBegins);
        let contexts = column(tasks, |t| t.request.context.to_string());
        let edges = edges_of(tasks);
        let rows = step_rows(tasks, &edges);
        let created = sqlx::query_file_scalar!(
            "queries/submit/insert_tasks.sql",
            &column(tasks, |t| t.id.as_uuid()),
            &column(tasks, |t| t.request.namespace.to_string()),
            &column(tasks, |t| t.template_id.as_uuid()),
            &column(tasks, |t| i16::from(t.request.priority)),
            &contexts,
            &text(|r| &r.idempotency_key) as &[Option<String>],
            &column(tasks, |t| t.request_hash.to_vec()),
            &text(|r| &r.initiator) as &[Option<String>],
            &text(|r| &r.source_system) as &[Option<String>],
            &text(|r| &r.reason) as &[Option<String>],
            &column(tasks, |t| serde_json::Value::from(t.request.tags.clone()).to_string()),
            &text(|r| &r.correlation_id) as &[Option<String>],
            &text(|r| &r.parent_correlation_id) as &[Option<String>],
            &column(tasks, |t| t.plan.active as i32),
            &column(tasks, |t| t.plan.pending as i32),
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
            &edges.iter().map(|e| e.task.as_uuid()).collect::<Vec<_>>(),
            &edges.iter().map(|e| e.parent.as_uuid()).collect::<Vec<_>>(),
            &edges.iter().map(|e| e.child.as_uuid()).collect::<Vec<_>>(),
            &column(tasks, |t| t.template.first_review_ms().map(|ms| ms as f64))
                as &[Option<f64>],
            &column(tasks, |t| t.assumes_newest.then(|| t.template.name.to_string()))
                as &[Option<String>],
        )
        .fetch_all(&mut *connection)
        .await?;
        connection.give_back();
        pass(CrashPoint::SubmitStored);
        let created: HashSet<TaskId> = created.into_iter().map(TaskId::from_uuid).collect();
        for (task, context) in tasks.iter().zip(&contexts) {
            if created.contains(&task.id) && context.len() <= MAX_CACHED_CONTEXT {
                self.tasks.note(task.id, &task.request, &task.template);
            }
        }
        Ok(created)
    }
}

/// An edge of a new task.
struct NewEdge {
    task: TaskId,
    parent: StepId,
    child: StepId,
}

fn edges_of(tasks: &[NewTask]) -> Vec<NewEdge> {
    let mut edges = Vec::new();
    for task in tasks {
        let steps = || task.plan.steps.iter().zip(&task.step_ids);
        let ids: HashMap<&str, StepId> =
            steps().map(|(p, &id)| (task.template.steps[p.step].name.as_str(), id)).collect();
        for (planned, &child) in steps() {
            let parents = planned.parents.iter().filter_map(|p| ids.get(p.as_str()));
            edges.extend(parents.map(|&parent| NewEdge { task: task.id, parent, child }));
        }
    }
    edges
}

fn step_rows(tasks: &[NewTask], edges: &[NewEdge]) -> StepRows {
    let mut children: HashMap<StepId, u32> = HashMap::new();
    for edge in edges {
        *children.entry(edge.parent).or_default() += 1;
    }
    let mut rows = StepRows::default();
    for task in tasks {
        for (planned, &id) in task.plan.steps.iter().zip(&task.step_ids) {
            let step = &task.template.steps[planned.step];
            rows.push(NewStepRow {
                id,
                task_id: task.id,
                namespace: task.request.namespace.as_str(),
                name: step.name.as_str(),
                kind: step.kind.as_str(),
                ready: planned.ready,
                pending_parents: planned.pending_parents,
                children: children.get(&id).copied().unwrap_or(0),
                unsettled: planned.unsettled,
                queue: step.handler.queue.as_str(),
            });
        }
    }
    rows
}

type Key<'a> = (&'a str, Option<&'a str>);
type ByKey<'a> = HashMap<Key<'a>, (TaskId, Vec<u8>)>;

fn key(task: &NewTask) -> Key<'_> {
    (task.request.namespace.as_str(), task.request.idempotency_key.as_deref())
}

impl Store {
    /// The tasks that stood in the way of those that were not created.
    async fn find_by_key<'a>(
        &self,
        tasks: &'a [NewTask],
        created: &HashSet<TaskId>,
    ) -> Result<ByKey<'a>, StoreError> {
        let missing: Vec<&NewTask> = tasks.iter().filter(|t| !created.contains(&t.id)).collect();
        if missing.is_empty() {
            return Ok(HashMap::new());
        }
        let namespaces: Vec<String> =
            missing.iter().map(|t| t.request.namespace.to_string()).collect();
        let keys: Vec<String> =
            missing.iter().map(|t| t.request.idempotency_key.clone().unwrap_or_default()).collect();
        let rows = sqlx::query!(
            r#"select k.n as "n!", t.id, t.request_hash
               from unnest($1::text[], $2::text[]) with ordinality as k(namespace, key, n)
               join tasker.tasks t on t.namespace = k.namespace and t.idempotency_key = k.key"#,
            &namespaces,
            &keys,
        )
        .fetch_all(&self.hot)
        .await?;
        let mut found = HashMap::new();
        for row in rows {
            let Some(task) = usize::try_from(row.n - 1).ok().and_then(|n| missing.get(n)) else {
                continue;
            };
            found.insert(key(task), (TaskId::from_uuid(row.id), row.request_hash));
        }
        Ok(found)
    }
}
