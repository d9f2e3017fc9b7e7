use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use tasker_messages::{Accepted, Identity, TaskId};
use uuid::Uuid;

use super::{TimeLimit, context, wait, watch};
use crate::client::{Client, Document};
use crate::output::{self, Format, OutputArgs};
use crate::template_ref::TemplateRef;

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// What to run: NAMESPACE/NAME, newest version, or NAMESPACE/NAME@VERSION
    template: TemplateRef,
    /// The input, a JSON object: the text itself, @FILE, or - for standard input
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    context: String,
    /// Wait until the task has ended and print it
    #[arg(long, group = "until_end")]
    wait: bool,
    /// Show progress until the task has ended and print it
    #[arg(long, group = "until_end")]
    watch: bool,
    #[command(flatten)]
    limit: TimeLimit,
    /// The same key in the same namespace never makes a second task [default: a new one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// What makes two submissions the same: strict (all that is asked for), caller_provided (the
    /// key) or always_unique (nothing)
    #[arg(long)]
    identity: Option<Identity>,
    /// -100 to 100; higher runs earlier
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i8>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The body of a submission. The context stays the text that was given.
#[derive(Serialize)]
struct Submission<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    context: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

pub(super) async fn run(args: SubmitArgs, client: &Client) -> anyhow::Result<()> {
    let context = context::read("--context", &args.context)?;
    let body = serde_json::to_string(&Submission {
        namespace: args.template.namespace.as_str(),
        name: args.template.name.as_str(),
        version: args.template.version.as_deref(),
        context: &context,
        priority: args.priority,
        identity: args.identity,
    })?;
    let deadline = args.limit.deadline();
    // With a key of its own even a submission that is sent twice makes one task.
    let key = match args.identity {
        Some(Identity::Strict | Identity::CallerProvided) => args.idempotency_key,
        _ => args.idempotency_key.or_else(|| Some(Uuid::now_v7().to_string())),
    };
    let accepted = client.submit(body, key.as_deref()).await?;
    let id: TaskId = accepted.value.id;
    for warning in &accepted.value.warnings {
        output::note(warning);
    }
    let format = args.output.format;
    if args.wait {
        wait::conclude(wait::until_ended(client, id, deadline).await?, format)
    } else if args.watch {
        wait::conclude(watch::until_ended(client, id, deadline).await?, format)
    } else {
        Ok(output::print(&render(accepted, format))?)
    }
}

fn render(accepted: Document<Accepted>, format: Format) -> String {
    let Accepted { id, created, .. } = accepted.value;
    match format {
        Format::Table if created => format!("submitted {id}"),
        Format::Table => format!("already submitted as {id}"),
        Format::Json => accepted.text,
        Format::Ids => id.to_string(),
    }
}
