//! Where the command line meets the crates that do the work.

use anyhow::Context;
use tasker_config::{Database, Settings};
use tasker_messages::Problem;
use tasker_orchestrator_node::Options;
use tasker_store::Migrated;
use tasker_worker_node::WorkerNode;
use tasker_workflow::Template;

/// Set by the integration tests: workers also offer handlers that do everything wrong.
const FAULTY_HANDLERS: &str = "TASKER_FAULTY_HANDLERS";

/// Runs an orchestrator until SIGINT or SIGTERM, then drains it.
pub(crate) async fn run_orchestrator(settings: Settings, reuse_port: bool) -> anyhow::Result<()> {
    tasker_orchestrator_node::run(settings, Options { reuse_port }).await?;
    Ok(())
}

/// Runs a worker with the example handlers until `stop` ends, then drains it.
pub(crate) async fn run_worker(
    settings: Settings,
    name: String,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut handlers = tasker_examples::registry();
    if std::env::var_os(FAULTY_HANDLERS).is_some() {
        handlers = handlers.merge(tasker_examples::faulty_handlers());
    }
    let exits = settings.worker.exit_when_drained;
    let worker = WorkerNode::start(settings, handlers, &name).await?;
    let ended = tokio::select! {
        error = worker.wait() => Err(error.into()),
        () = worker.drained(), if exits => Ok(()),
        () = stop => Ok(()),
    };
    worker.stop().await;
    ended
}

/// Brings a database to this version's schema; with contract steps only if it is asked for them.
pub(crate) async fn migrate(database: &Database, contract: bool) -> anyhow::Result<Migrated> {
    tasker_store::migrate(database, contract).await.context("migrating the database")
}

/// The templates of the examples: file name and YAML.
pub(crate) fn example_templates() -> &'static [(&'static str, &'static str)] {
    tasker_examples::TEMPLATES
}

/// Reads a template as the server does. Gives its `NAMESPACE/NAME@VERSION`.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn lint(yaml: &[u8]) -> Result<String, Vec<Problem>> {
    let template = Template::parse(yaml)?;
    Ok(format!("{}/{}@{}", template.namespace, template.name, template.version))
}
