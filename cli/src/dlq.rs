//! `tasker dlq …`.

use clap::{Args, Subcommand};
use tasker_messages::{
    DeadLetter, DeadLetterGroups, DeadLetterKind, DeadLetterList, DeadLetterView, Namespace, Purge,
};

use crate::client::{DeadLetterQuery, Document};
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};
use crate::repair::{Repair, Why};
use crate::table::{Table, printable};

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, newest first
    List(ListArgs),
    /// Count open dead letters by their errors' fingerprint
    Groups {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<Namespace>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a dead letter with its error, and its member or task as it is now
    Show {
        id: i64,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run the member of a letter again, or submit its message or task anew
    Redrive {
        id: i64,
        #[command(flatten)]
        repair: Repair,
    },
    /// Remove dead letters
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this namespace
    #[arg(long)]
    namespace: Option<Namespace>,
    /// Only those of this kind: message, member or task
    #[arg(long)]
    kind: Option<DeadLetterKind>,
    /// Only those with this fingerprint
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// Also those that were redriven
    #[arg(long)]
    all: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on after this letter
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
pub(crate) struct PurgeArgs {
    /// These letters
    #[arg(group = "which")]
    ids: Vec<i64>,
    /// Those of this namespace
    #[arg(long, group = "which")]
    namespace: Option<Namespace>,
    /// Those with this fingerprint
    #[arg(long, value_name = "HEX", group = "which")]
    fingerprint: Option<String>,
    /// Those that are older
    #[arg(long, value_name = "DAYS", group = "which")]
    older_than_days: Option<u32>,
    /// Those that were redriven
    #[arg(long, group = "which")]
    redriven: bool,
    #[command(flatten)]
    why: Why,
}

pub(crate) async fn run(command: DlqCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let text = match command {
        DlqCommand::List(args) => {
            let query = DeadLetterQuery {
                namespace: args.namespace,
                kind: args.kind,
                fingerprint: args.fingerprint,
                redriven: (!args.all).then_some(false),
                after: args.after,
                limit: args.limit,
            };
            let page = client.dead_letters(&query).await?;
            let next = page.value.next.filter(|_| args.output.format == Format::Table);
            output::print(&list(page, args.output.format))?;
            if let Some(next) = next {
                output::note(&format_args!("there are more: --after {next}"));
            }
            return Ok(());
        }
        DlqCommand::Groups { namespace, output } => {
            groups(client.dead_letter_groups(namespace.as_ref()).await?, output.format)
        }
        DlqCommand::Show { id, output } => show(client.dead_letter(id).await?, output.format)?,
        DlqCommand::Redrive { id, repair } => {
            let (request, format) = repair.request();
            let Document { text, value } = client.redrive(id, &request).await?;
            match format {
                Format::Json => text,
                Format::Ids => value.task_id.to_string(),
                Format::Table => format!("letter {} runs as task {}", value.id, value.task_id),
            }
        }
        DlqCommand::Purge(args) => {
            let format = args.why.output.format;
            let Document { text, value } = client.purge(&args.request()).await?;
            match format {
                Format::Json => text,
                Format::Ids => String::new(),
                Format::Table => format!("{} letters removed", value.letters),
            }
        }
    };
    Ok(output::print(&text)?)
}

impl PurgeArgs {
    fn request(self) -> Purge {
        Purge {
            ids: (!self.ids.is_empty()).then_some(self.ids),
            namespace: self.namespace,
            fingerprint: self.fingerprint,
            older_than_days: self.older_than_days,
            redriven: self.redriven.then_some(true),
            reason: self.why.reason,
            by: self.why.by,
        }
    }
}

fn list(page: Document<DeadLetterList>, format: Format) -> String {
    let letters = &page.value.letters;
    match format {
        Format::Json => page.text,
        Format::Ids => letters.iter().map(|letter| format!("{}\n", letter.id)).collect(),
        Format::Table => {
            let header = ["ID", "KIND", "NAMESPACE", "AT", "FINGERPRINT", "ERROR", "OF"];
            let mut table = Table::with_header(&header);
            letters.iter().for_each(|letter| table.row(row(letter)));
            table.render()
        }
    }
}

fn row(letter: &DeadLetter) -> [String; 7] {
    let of = match (letter.task_id, &letter.subject) {
        (Some(task), _) => task.to_string(),
        (None, subject) => subject.clone().unwrap_or_default(),
    };
    [
        letter.id.to_string(),
        letter.kind.to_string(),
        letter.namespace.clone(),
        letter.created_at.clone(),
        letter.fingerprint.clone(),
        error(letter),
        of,
    ]
}

fn error(letter: &DeadLetter) -> String {
    const LONGEST: usize = 100;
    let message = printable(&letter.message);
    let mut shown: String = message.chars().take(LONGEST).collect();
    if shown.len() < message.len() {
        shown.push('…');
    }
    format!("{shown} [{}]", letter.code)
}

fn groups(groups: Document<DeadLetterGroups>, format: Format) -> String {
    let list = &groups.value.groups;
    match format {
        Format::Json => groups.text,
        Format::Ids => list.iter().map(|group| format!("{}\n", group.fingerprint)).collect(),
        Format::Table => {
            let header = ["FINGERPRINT", "COUNT", "KIND", "FIRST", "NEWEST", "ERROR"];
            let mut table = Table::with_header(&header);
            for group in list {
                table.row([
                    group.fingerprint.clone(),
                    group.count.to_string(),
                    group.newest.kind.to_string(),
                    group.first_at.clone(),
                    group.newest.created_at.clone(),
                    error(&group.newest),
                ]);
            }
            table.render()
        }
    }
}

fn show(view: Document<DeadLetterView>, format: Format) -> serde_json::Result<String> {
    match format {
        Format::Json => Ok(view.text),
        Format::Ids => Ok(view.value.letter.id.to_string()),
        // A letter is looked at for its particulars, whose shapes differ: the whole of it.
        Format::Table => serde_json::to_string_pretty(&view.value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn letters_as_people_read_them() {
        let letter = |kind: &str| {
            json!({"id": 7, "kind": kind, "namespace": "n", "code": "NO", "message": "a\nb",
                "fingerprint": "abc", "created_at": "now"})
        };
        let mut message = letter("message");
        message["subject"] = "tasker.enqueue.n".into();
        let shown = |value| row(&serde_json::from_value(value).expect("a letter"));
        assert_eq!(
            shown(message),
            ["7", "message", "n", "now", "abc", "a\\nb [NO]", "tasker.enqueue.n"]
        );
        let mut task = letter("task");
        task["task_id"] = "0190a0a0-0000-7000-8000-000000000002".into();
        task["message"] = "é".repeat(200).into();
        let shown = shown(task);
        assert_eq!(shown[6], "0190a0a0-0000-7000-8000-000000000002");
        assert_eq!(shown[5], format!("{}… [NO]", "é".repeat(100)));
    }
}
