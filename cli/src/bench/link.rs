//! How a benchmark talks to the cluster: over NATS, as a program would.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tasker_bus::{Bus, RequestError};
use tasker_config::Settings;
use tasker_messages::subject::Request;
use tasker_messages::{Accepted, GetTask, Namespace, TaskId, TaskState, TaskView, WaitTask};
use tasker_store::Store;

use crate::dev::DevState;

/// Connections of one benchmark.
pub(super) struct Link {
    pub(super) bus: Bus,
    pub(super) store: Store,
    pub(super) settings: Settings,
    pub(super) namespace: Namespace,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// One wait of the server; it is asked again until the task has ended.
const WAIT_MS: u32 = 20_000;

impl Link {
    pub(super) async fn connect(state: &DevState) -> anyhow::Result<Self> {
        let mut settings = tasker_config::Loader::new()?.load()?.settings;
        settings.nats.url.clone_from(&state.nats_url);
        settings.database.url.clone_from(&state.database_url);
        let bus = Bus::connect(&settings.nats, "tasker-bench").await?;
        let store = Store::connect(&settings.database).await?;
        Ok(Self { bus, store, settings, namespace: Namespace::new("bench")? })
    }

    /// The same cluster, another namespace.
    pub(super) fn in_namespace(&self, namespace: Namespace) -> Self {
        let Self { bus, store, settings, .. } = self;
        Self { bus: bus.clone(), store: store.clone(), settings: settings.clone(), namespace }
    }

    pub(super) async fn submit(&self, name: &str, context: Value) -> anyhow::Result<TaskId> {
        let request = json!({ "name": name, "context": context });
        let subject = Request::Submit.subject(&self.namespace);
        let accepted: Accepted = self.bus.request(subject, &request, ANSWER_WITHIN).await?;
        Ok(accepted.id)
    }

    /// Waits for the end of a task, however long it takes.
    pub(super) async fn wait(&self, id: TaskId) -> anyhow::Result<TaskView> {
        loop {
            let subject = Request::TaskWait.subject(&self.namespace);
            let question = WaitTask { id, timeout_ms: WAIT_MS };
            match self.bus.request(subject, &question, ANSWER_WITHIN).await {
                Ok(view) => {
                    let view: TaskView = view;
                    if view.state.is_terminal() {
                        return completed(view);
                    }
                }
                Err(RequestError::TimedOut { .. } | RequestError::NoResponders { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) async fn get(&self, id: TaskId) -> anyhow::Result<TaskView> {
        let subject = Request::TaskGet.subject(&self.namespace);
        Ok(self.bus.request(subject, &GetTask { id }, ANSWER_WITHIN).await?)
    }
}

pub(super) fn completed(view: TaskView) -> anyhow::Result<TaskView> {
    if view.state != TaskState::Complete {
        let why = view.error.map(|e| format!(": {} [{}]", e.message, e.code)).unwrap_or_default();
        bail!("task {} ended {}{why}", view.id, view.state);
    }
    Ok(view)
}

/// The result of one step of an ended task.
pub(super) fn result_of(view: &TaskView, step: &str) -> anyhow::Result<Value> {
    let found = view.steps.iter().find(|s| s.name == step);
    let result = found.and_then(|s| s.results.as_ref()).and_then(|r| r.result.as_ref());
    let result = result.with_context(|| format!("task {} has no result of `{step}`", view.id))?;
    Ok(serde_json::from_str(result.get())?)
}
