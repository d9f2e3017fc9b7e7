//! `tasker namespace …`.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::{Args, Subcommand};
use tasker_messages::{Namespace, NamespaceList, NamespaceView, Queue, SetNamespace, SetQueue};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs};
use crate::repair::Why;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// List namespaces with their limits and open tasks
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on after this one
        #[arg(long, value_name = "NAME")]
        after: Option<Namespace>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Set the limits of a namespace, which is made if it is not there; what is not named stays
    Set(SetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    name: Namespace,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How many of its tasks may be open at a time
    #[arg(long, value_name = "N|none")]
    max_open_tasks: Option<Wish>,
    /// How many steps workers may hold at a time, of all queues together; with a queue's name and `=`
    /// before it, of that queue. May be given more than once
    #[arg(long, value_name = "[QUEUE=]N|none")]
    max_running: Vec<RunningWish>,
    #[command(flatten)]
    why: Why,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish(Option<i64>);

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let limit = text.parse().ok().filter(|limit| (1..=SetNamespace::MOST).contains(limit));
        limit
            .map(|limit| Self(Some(limit)))
            .ok_or_else(|| format!("must be `none` or 1 to {}", SetNamespace::MOST))
    }
}

/// A limit of a queue, or of all of them together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RunningWish(Option<Queue>, Wish);

impl FromStr for RunningWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((queue, limit)) = text.split_once('=') else {
            return Ok(Self(None, text.parse()?));
        };
        Ok(Self(Some(Queue::new(queue).map_err(|e| e.to_string())?), limit.parse()?))
    }
}

pub(crate) async fn run(command: NamespaceCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let client = cluster.client()?;
    match command {
        NamespaceCommand::List { limit, after, output } => {
            let page = client.namespaces(after.as_ref(), limit).await?;
            let next = page.value.next.clone().filter(|_| output.format == Format::Table);
            output::print(&list(page, output.format))?;
            if let Some(next) = next {
                output::note(&format_args!("there may be more: --after {next}"));
            }
            Ok(())
        }
        NamespaceCommand::Set(args) => {
            let (name, format) = (args.name.clone(), args.why.output.format);
            let Document { text, value } = client.set_namespace(&name, &args.request()?).await?;
            let text = match format {
                Format::Json => text,
                Format::Ids => value.name.to_string(),
                Format::Table => table(&[value]),
            };
            Ok(output::print(&text)?)
        }
    }
}

impl SetArgs {
    fn request(self) -> Result<SetNamespace, Exit> {
        let (mut queues, mut all) = (BTreeMap::new(), None);
        for RunningWish(queue, Wish(limit)) in self.max_running {
            let wish = SetQueue { max_running: Some(limit) };
            let (twice, what) = match queue {
                None => (all.replace(limit).is_some(), "the namespace".to_owned()),
                Some(queue) => {
                    let what = format!("the queue `{queue}`");
                    (queues.insert(queue, wish).is_some(), what)
                }
            };
            if twice {
                return Err(Exit::usage(format!("--max-running limits {what} twice")));
            }
        }
        Ok(SetNamespace {
            description: self.description.map(Some),
            max_open_tasks: self.max_open_tasks.map(|Wish(limit)| limit),
            max_running: all,
            queues,
            reason: self.why.reason,
            by: self.why.by,
        })
    }
}

fn list(page: Document<NamespaceList>, format: Format) -> String {
    let namespaces = &page.value.namespaces;
    match format {
        Format::Json => page.text,
        Format::Ids => namespaces.iter().map(|namespace| format!("{}\n", namespace.name)).collect(),
        Format::Table => table(namespaces),
    }
}

fn table(namespaces: &[NamespaceView]) -> String {
    let mut table = Table::with_header(&["NAME", "OPEN TASKS", "MAX RUNNING", "DESCRIPTION"]);
    for namespace in namespaces {
        let queue = |(queue, limits): (&Queue, &tasker_messages::QueueLimits)| {
            format!("{queue}={}", limits.max_running)
        };
        let all = namespace.max_running.map(|limit| limit.to_string());
        let running: Vec<String> =
            all.into_iter().chain(namespace.queues.iter().map(queue)).collect();
        let open = match namespace.max_open_tasks {
            Some(most) => format!("{}/{most}", namespace.open_tasks),
            None => namespace.open_tasks.to_string(),
        };
        let described = namespace.description.clone().unwrap_or_default();
        table.row([namespace.name.to_string(), open, running.join(","), described]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: NamespaceCommand,
    }

    fn request(arguments: &[&str]) -> Result<Value, String> {
        let line = ["tasker", "set", "etl", "--reason", "r", "--by", "me"];
        let line = line.iter().chain(arguments);
        match Line::try_parse_from(line).map_err(|e| e.to_string())?.command {
            NamespaceCommand::Set(args) => {
                let request = args.request().map_err(|e| e.to_string())?;
                serde_json::to_value(request).map_err(|e| e.to_string())
            }
            NamespaceCommand::List { .. } => Err("another command".to_owned()),
        }
    }

    #[test]
    fn limits_on_the_command_line() {
        let with = |mut more: Value| {
            more["reason"] = "r".into();
            more["by"] = "me".into();
            more
        };
        let table: [(&[&str], Value); 7] = [
            (&[], json!({})),
            (&["--max-open-tasks", "7"], json!({"max_open_tasks": 7})),
            (&["--max-open-tasks", "none"], json!({"max_open_tasks": null})),
            (
                &["--max-running", "default=3", "--max-running", "gpu=none"],
                json!({"queues": {"default": {"max_running": 3}, "gpu": {"max_running": null}}}),
            ),
            (&["--max-running", "8"], json!({"max_running": 8})),
            (
                &["--max-running", "none", "--max-running", "3=2"],
                json!({"max_running": null, "queues": {"3": {"max_running": 2}}}),
            ),
            (&["--description", "nightly"], json!({"description": "nightly"})),
        ];
        for (arguments, expect) in table {
            assert_eq!(request(arguments), Ok(with(expect)), "{arguments:?}");
        }
        for wrong in [
            &["--max-open-tasks", "0"][..],
            &["--max-open-tasks", "-1"],
            &["--max-open-tasks", "2147483648"],
            &["--max-open-tasks", "None"],
            &["--max-running", "0"],
            &["--max-running", "default"],
            &["--max-running", "3", "--max-running", "none"],
            &["--max-running", "default="],
            &["--max-running", "=3"],
            &["--max-running", "GPU=3"],
            &["--max-running", "a=3", "--max-running", "a=4"],
        ] {
            request(wrong).expect_err(wrong[1]);
        }
    }

    #[test]
    fn namespaces_as_people_read_them() {
        let view = |value: Value| serde_json::from_value(value).expect("a namespace");
        let full = view(json!({"name": "etl", "description": "nightly", "max_open_tasks": 7,
            "open_tasks": 2, "max_running": 3, "queues": {"gpu": {"max_running": 1}, "default": {"max_running": 3}}}));
        let bare = view(json!({"name": "x", "open_tasks": 0, "queues": {}}));
        assert_eq!(
            table(&[full, bare]),
            "NAME  OPEN TASKS  MAX RUNNING        DESCRIPTION\n\
             etl   2/7         3,default=3,gpu=1  nightly\n\
             x     0\n"
        );
    }
}
