use clap::Args;
use tasker_messages::{StepId, StepPage, StepView, TaskId};

use super::show;
use crate::client::{Client, StepQuery};
use crate::output::{self, Format, OutputArgs};

/// The largest page that the API gives.
const LARGEST_PAGE: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct StepsArgs {
    id: TaskId,
    /// All pages
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    all: bool,
    /// At most so many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=LARGEST_PAGE as i64))]
    limit: Option<u32>,
    /// Go on after this step
    #[arg(long, value_name = "ID")]
    after: Option<StepId>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: StepsArgs, client: &Client) -> anyhow::Result<()> {
    let format = args.output.format;
    if args.all {
        return all(client, args.id, format).await;
    }
    let query = StepQuery { limit: args.limit, after: args.after };
    let page = client.steps(args.id, query).await?;
    let next = page.value.next;
    let text = match format {
        Format::Json => page.text,
        Format::Table => show::step_table(&page.value.steps),
        Format::Ids => ids(&page.value.steps),
    };
    output::print(&text)?;
    if let Some(next) = next.filter(|_| format == Format::Table) {
        output::note(&format_args!("there are more: --all, or --after {next}"));
    }
    Ok(())
}

/// Prints page by page, so that a million steps need no memory. As JSON it is one document, the
/// same as a single page of everything would be.
async fn all(client: &Client, id: TaskId, format: Format) -> anyhow::Result<()> {
    let mut query = StepQuery { limit: Some(LARGEST_PAGE), after: None };
    let mut first = true;
    loop {
        let StepPage { steps, next } = client.steps(id, query).await?.value;
        let last = next.is_none();
        let text = match format {
            Format::Table => show::step_table(&steps),
            Format::Ids => ids(&steps),
            Format::Json => json_part(&steps, first, last)?,
        };
        output::print(&text)?;
        if last {
            return Ok(());
        }
        query.after = next;
        first = false;
    }
}

fn ids(steps: &[StepView]) -> String {
    steps.iter().map(|step| format!("{}\n", step.id)).collect()
}

/// A page as part of one document, one step a line.
fn json_part(steps: &[StepView], first: bool, last: bool) -> serde_json::Result<String> {
    let steps: Vec<_> = steps.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let begin = if first { "{\"steps\":[\n" } else { "" };
    let end = match (last, steps.is_empty()) {
        (true, _) => "\n],\"next\":null}",
        (false, true) => "",
        (false, false) => ",",
    };
    Ok(format!("{begin}{}{end}", steps.join(",\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn step(name: &str) -> StepView {
        let id = "0190a0a0-0000-7000-8000-000000000000";
        let step = json!({"id": id, "name": name, "type": "standard", "state": "complete",
            "attempt": 1});
        serde_json::from_value(step).expect("a step")
    }

    #[test]
    fn pages_join_to_one_document() {
        let join = |pages: &[Vec<StepView>]| {
            let parts = pages.iter().enumerate().map(|(n, page)| {
                json_part(page, n == 0, n + 1 == pages.len()).expect("serializable") + "\n"
            });
            let text: String = parts.collect();
            serde_json::from_str::<Value>(&text).expect("one JSON document")
        };
        let document = join(&[vec![step("a"), step("b")], vec![step("c")]]);
        assert_eq!(document["steps"].as_array().map(Vec::len), Some(3));
        assert_eq!(join(&[vec![]]), json!({"steps": [], "next": null}));
    }
}
