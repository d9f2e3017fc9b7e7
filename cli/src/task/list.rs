use clap::Args;
use tasker_messages::{Namespace, TaskId, TaskList, TaskState};

use crate::client::{Client, Document, TaskQuery};
use crate::output::{self, Format, OutputArgs};
use crate::table::Table;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks of this namespace
    #[arg(long)]
    namespace: Option<Namespace>,
    /// Only tasks in this state, for instance in_progress
    #[arg(long)]
    state: Option<TaskState>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on after this task
    #[arg(long, value_name = "ID")]
    after: Option<TaskId>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: ListArgs, client: &Client) -> anyhow::Result<()> {
    let query = TaskQuery {
        namespace: args.namespace,
        state: args.state,
        limit: Some(args.limit),
        after: args.after,
    };
    let page = client.tasks(&query).await?;
    let next = page.value.next;
    output::print(&render(page, args.output.format))?;
    if let Some(next) = next.filter(|_| args.output.format == Format::Table) {
        output::note(&format_args!("there are more: --after {next}"));
    }
    Ok(())
}

fn render(page: Document<TaskList>, format: Format) -> String {
    let tasks = &page.value.tasks;
    match format {
        Format::Table => {
            let mut table = Table::with_header(&["ID", "TEMPLATE", "STATE", "CREATED", "FINISHED"]);
            for task in tasks {
                table.row([
                    task.id.to_string(),
                    format!("{}/{}@{}", task.namespace, task.name, task.version),
                    task.state.to_string(),
                    task.created_at.clone(),
                    task.finished_at.clone().unwrap_or_default(),
                ]);
            }
            table.render()
        }
        Format::Json => page.text,
        Format::Ids => tasks.iter().map(|task| format!("{}\n", task.id)).collect(),
    }
}
