//! Templates: what a task of a name and version consists of.

mod cycle;
mod draft;
mod environments;
mod problems;
mod read;
mod read_event;
mod read_lifecycle;
mod read_retry;
mod read_schema;
mod read_step;
mod scalar;
mod section;
mod structure;
mod version;
mod yaml;

use serde_json::Value;
use tasker_messages::{FailureStrategy, Namespace, Problem, Queue, StepKind, StepName};

pub use self::version::compare_versions;
use crate::batching::Tolerated;
use crate::event::EventTemplate;
use crate::graph::Graph;
use crate::lifecycle::Lifecycle;
use crate::retry::RetryPolicy;
use crate::schema::Schema;

/// One version of a template, checked: every rule about its steps holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: StepName,
    /// `MAJOR.MINOR.PATCH` with an optional pre-release.
    pub version: String,
    /// What it is for.
    pub description: Option<String>,
    /// Limits of time.
    pub lifecycle: Lifecycle,
    /// What the context of a task must fit.
    pub input_schema: Option<Schema>,
    /// The steps in the order of the document.
    pub steps: Vec<StepTemplate>,
    /// Also keeps others from making a template that was not checked.
    pub(crate) graph: Graph,
}

/// One step of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTemplate {
    /// The name, unique in the template.
    pub name: StepName,
    /// What it is.
    pub kind: StepKind,
    /// What it is for.
    pub description: Option<String>,
    /// The steps that it waits for. A batch worker stands for all of its instances.
    pub dependencies: Vec<StepName>,
    /// What runs it.
    pub handler: Handler,
    /// What happens when it fails.
    pub retry: RetryPolicy,
    /// How long an attempt may run; `None` is no limit.
    pub timeout_ms: Option<u64>,
    /// How long an attempt may be known to run before the task is stale; `None` leaves it to the
    /// task's limit.
    pub max_in_process_ms: Option<u64>,
    /// How a batchable step is split; always on the batchable step, wherever it was written.
    pub batch: Option<BatchConfig>,
    /// What its result must fit.
    pub result_schema: Option<Schema>,
    /// What is published when an attempt of it has ended; of a batch worker, of each member.
    pub events: Vec<EventTemplate>,
}

/// What runs a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    /// The name under which workers register the handler.
    pub callable: String,
    /// Which entry point of the handler.
    pub method: String,
    /// The resolver that is asked for the handler, and nothing else.
    pub resolver: Option<String>,
    /// The handler group whose workers pull the step.
    pub queue: Queue,
    /// `initialization` of the template, an object; `null` if there is none.
    pub config: Value,
}

/// How a batchable step is split.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchConfig {
    /// Items in one batch, as the template wishes; the analyzer decides.
    pub batch_size: Option<u32>,
    /// Most batches, as the template wishes; the analyzer decides.
    pub max_workers: Option<u32>,
    /// The name of the field that the cursors run over; may be empty.
    pub cursor_field: String,
    /// The step whose instances run the batches, where the template names it.
    pub worker_template: Option<StepName>,
    /// Most members that are outstanding at a time; `None` is no limit.
    pub parallelism: Option<u32>,
    /// Items between two checkpoints of a member, as its handler is told; 0 leaves it to the handler.
    pub checkpoint_interval: u32,
    /// What a failing member does to its batch.
    pub failure_strategy: FailureStrategy,
    /// How many members may fail; `None` leaves it to the strategy.
    pub tolerated: Option<Tolerated>,
}

impl Template {
    /// Most bytes of a template's source.
    pub const MAX_BYTES: usize = yaml::MAX_BYTES;

    /// Most steps of a template.
    pub const MAX_STEPS: usize = 10_000;

    /// Reads and checks a template in YAML, outside of any environment.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its code, field and line. Where YAML itself is
    /// broken, that alone.
    pub fn parse(source: &[u8]) -> Result<Template, Vec<Problem>> {
        Self::parse_in(source, None)
    }

    /// Reads and checks a template as it is in an environment. One that the template does not
    /// mention changes nothing.
    ///
    /// # Errors
    /// Those of [`Self::parse`], which do not depend on the environment: each is checked.
    pub fn parse_in(source: &[u8], environment: Option<&str>) -> Result<Template, Vec<Problem>> {
        let problems = problems::Problems::default();
        let template = yaml::read(source, &problems)
            .and_then(|root| read::template(root, environment, &problems));
        match template {
            Some(template) if problems.is_empty() => Ok(template),
            _ => Err(problems.into_sorted()),
        }
    }
}

#[cfg(test)]
mod tests;
