//! Keeps a namespace within the tasks that it may have open. Asked by the intake, about a set that is
//! about to be stored; reads nothing unless a namespace of the set has a quota.

use std::collections::{HashMap, HashSet};

use tasker_messages::{Namespace, Refusal, TaskId, code};
use tasker_store::{NewTask, StoreError};
use tasker_workflow::{Applicant, admit};

use super::node::Node;

/// Which tasks of a set do not fit into their namespaces. What an idempotency key finds is never
/// among them. Sets that are stored at the same time do not see each other: together they may pass a
/// quota by what is in them.
///
/// # Errors
/// If the open tasks cannot be counted now.
pub(crate) async fn beyond_quota(
    node: &Node,
    tasks: &[NewTask],
) -> Result<HashMap<TaskId, Refusal>, StoreError> {
    let mut limited: HashMap<Namespace, (u32, Vec<&NewTask>)> = HashMap::new();
    for task in tasks {
        let namespace = &task.request.namespace;
        if let Some(quota) = node.limits.max_open_tasks(namespace) {
            limited.entry(namespace.clone()).or_insert((quota, Vec::new())).1.push(task);
        }
    }
    if limited.is_empty() {
        return Ok(HashMap::new());
    }
    let up_to = limited.iter().map(|(namespace, (quota, _))| (namespace.clone(), *quota));
    let open = node.store.count_open_tasks(&up_to.collect()).await?;
    let room = |namespace: &Namespace, quota: u32| {
        quota.saturating_sub(open.get(namespace).copied().unwrap_or(0))
    };
    limited.retain(|namespace, (quota, tasks)| room(namespace, *quota) < tasks.len() as u32);
    // Keys are looked up where somebody would be refused.
    let asked: Vec<&NewTask> = limited.values().flat_map(|(_, tasks)| tasks).copied().collect();
    let known = node.store.find_known_tasks(&asked).await?;
    let mut refused = HashMap::new();
    for (namespace, (quota, tasks)) in &limited {
        let set: Vec<Applicant<'_>> = tasks.iter().map(|task| applicant(task, &known)).collect();
        let fates = admit(room(namespace, *quota), &set);
        for (task, _) in tasks.iter().zip(fates).filter(|(_, fits)| !fits) {
            refused.insert(task.id, full(namespace, *quota));
        }
    }
    metrics::counter!("tasker_submit_tasks_total", "outcome" => "namespace_full")
        .increment(refused.len() as u64);
    Ok(refused)
}

/// What a submission would be refused with if the namespace has as many open tasks as it may have.
///
/// # Errors
/// If the open tasks cannot be counted now.
pub(crate) async fn find_full(
    node: &Node,
    namespace: &Namespace,
) -> Result<Option<Refusal>, StoreError> {
    let Some(quota) = node.limits.max_open_tasks(namespace) else { return Ok(None) };
    let open = node.store.count_open_tasks(&[(namespace.clone(), quota)].into()).await?;
    let open = open.get(namespace).copied().unwrap_or(0);
    Ok((open >= quota).then(|| full(namespace, quota)))
}

fn applicant<'a>(task: &'a NewTask, known: &HashSet<TaskId>) -> Applicant<'a> {
    Applicant { key: task.request.idempotency_key.as_deref(), is_known: known.contains(&task.id) }
}

fn full(namespace: &Namespace, quota: u32) -> Refusal {
    let message = format!(
        "the namespace `{namespace}` has {quota} open tasks, as many as it may have; try again when \
         one has ended"
    );
    Refusal::retry(code::NAMESPACE_FULL, message)
}
