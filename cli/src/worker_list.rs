//! `tasker worker list`.

use clap::Args;
use tasker_messages::{Namespace, QueueLoad, WorkerList, WorkerView};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};
use crate::table::Table;

#[derive(Debug, Args)]
pub(crate) struct WorkerListArgs {
    /// Only workers that serve this namespace
    #[arg(long)]
    namespace: Option<Namespace>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: WorkerListArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let workers = cluster.client()?.workers(args.namespace.as_ref()).await?;
    Ok(output::print(&render(workers, args.output.format))?)
}

pub(crate) fn render(workers: Document<WorkerList>, format: Format) -> String {
    let list = &workers.value.workers;
    match format {
        Format::Json => workers.text,
        Format::Ids => list.iter().map(|worker| format!("{}\n", worker.id)).collect(),
        Format::Table => {
            let header = ["NAME", "NAMESPACE", "STATE", "BUSY", "QUEUES", "LAST BEAT", "ID"];
            let mut table = Table::with_header(&header);
            list.iter().for_each(|worker| table.row(row(worker)));
            table.render()
        }
    }
}

/// In one word.
pub(crate) fn state(worker: &WorkerView) -> &'static str {
    match worker {
        WorkerView { live: false, .. } => "silent",
        WorkerView { drained: true, .. } => "drained",
        WorkerView { draining: true, .. } => "draining",
        _ => "live",
    }
}

fn row(worker: &WorkerView) -> [String; 7] {
    let sum = |of: fn(&QueueLoad) -> u32| worker.queues.iter().map(of).sum::<u32>();
    let queues: Vec<&str> = worker.queues.iter().map(|load| load.queue.as_str()).collect();
    [
        worker.name.clone(),
        worker.namespace.to_string(),
        state(worker).to_owned(),
        format!("{}/{}", sum(|load| load.busy), sum(|load| load.slots)),
        queues.join(","),
        worker.last_beat_at.clone(),
        worker.id.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workers_as_people_read_them() {
        let worker = |live: bool, draining: bool, drained: bool| {
            json!({"id": "0190a0a0-0000-7000-8000-000000000002", "namespace": "n", "name": "w",
                "build": "1", "queues": [{"queue": "a", "slots": 4, "busy": 1},
                {"queue": "b", "slots": 2, "busy": 2}], "callables": [], "draining": draining, "drained": drained,
                "live": live, "last_beat_at": "now"})
        };
        let view = |value| serde_json::from_value(value).expect("a worker");
        let cases =
            [(true, false, false), (true, true, false), (true, true, true), (false, true, true)];
        let states = cases.map(|(live, draining, drained)| {
            row(&view(worker(live, draining, drained)))[2].clone()
        });
        assert_eq!(states, ["live", "draining", "drained", "silent"]);
        let id = "0190a0a0-0000-7000-8000-000000000002";
        assert_eq!(
            row(&view(worker(true, false, false))),
            ["w", "n", "live", "3/6", "a,b", "now", id]
        );
    }
}
