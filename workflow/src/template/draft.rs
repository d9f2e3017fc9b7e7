use tasker_messages::{StepKind, StepName};

use super::read_retry::RetryKeys;
use super::{BatchConfig, Handler, StepTemplate};
use crate::event::EventTemplate;
use crate::schema::Schema;

/// A step as it was read: with lines, and with gaps where something was wrong.
pub(super) struct Draft {
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) name: Option<DraftName>,
    pub(super) kind: Option<StepKind>,
    pub(super) description: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
    /// Whether some of them could not be read, which was reported.
    pub(super) gaps: bool,
    /// Where the list of dependencies stands, or would stand.
    pub(super) dependencies_field: (String, u32),
    pub(super) handler: Option<Handler>,
    pub(super) retry: RetryKeys,
    pub(super) timeout_ms: Option<u64>,
    pub(super) max_in_process_ms: Option<u64>,
    pub(super) batch: Option<DraftBatch>,
    pub(super) result_schema: Option<Schema>,
    pub(super) events: Vec<EventTemplate>,
}

pub(super) struct DraftName {
    pub(super) text: String,
    pub(super) line: u32,
    /// `None` if it breaks the rule of names, which was reported.
    pub(super) valid: Option<StepName>,
}

pub(super) struct Dependency {
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) text: String,
}

pub(super) struct DraftBatch {
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) worker_line: u32,
    pub(super) config: BatchConfig,
}

impl Draft {
    pub(super) fn name_text(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.text.as_str())
    }

    /// The step, if nothing is missing. `None` implies that a problem was reported.
    pub(super) fn into_step(self) -> Option<StepTemplate> {
        let dependencies = self.dependencies.iter().map(|d| StepName::new(&d.text).ok());
        Some(StepTemplate {
            dependencies: dependencies.collect::<Option<Vec<_>>>()?,
            name: self.name?.valid?,
            kind: self.kind?,
            description: self.description,
            handler: self.handler?,
            retry: self.retry.policy(),
            timeout_ms: self.timeout_ms,
            max_in_process_ms: self.max_in_process_ms,
            batch: self.batch.map(|batch| batch.config),
            result_schema: self.result_schema,
            events: self.events,
        })
    }
}
