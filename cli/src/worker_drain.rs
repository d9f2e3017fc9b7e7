//! `tasker worker drain`.

use std::time::Duration;

use clap::Args;
use tasker_messages::{DrainWorker, WorkerId, WorkerList};
use tokio::time::{sleep, timeout};

use crate::client::{Client, ClientError, Document};
use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output;
use crate::repair::Why;
use crate::task::seconds;
use crate::worker_list::{render, state};

#[derive(Debug, Args)]
pub(crate) struct WorkerDrainArgs {
    /// The worker's id, as `worker list` shows it
    worker: WorkerId,
    /// Wait until it holds nothing any more
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this time (exit code 5); the worker goes on draining
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    why: Why,
}

/// How often the worker is looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) async fn run(args: WorkerDrainArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let WorkerDrainArgs { worker, wait, timeout: limit, why } = args;
    let client = cluster.client()?;
    let request = DrainWorker { reason: why.reason, by: why.by };
    let mut found = client.drain_worker(worker, &request).await?;
    if wait {
        let ended = until_drained(&client, worker, found);
        found = match limit {
            None => ended.await?,
            Some(limit) => timeout(limit, ended).await.map_err(|_| {
                let message = format!("worker {worker} has not drained within --timeout");
                Exit::new(Code::TimedOut, message)
            })??,
        };
        if progress(&found.value) == Progress::Silent {
            let message = format!("worker {worker} has fallen silent before it had drained");
            return Err(Exit::new(Code::Failed, message).into());
        }
    }
    Ok(output::print(&render(found, why.output.format))?)
}

async fn until_drained(
    client: &Client,
    worker: WorkerId,
    mut found: Document<WorkerList>,
) -> Result<Document<WorkerList>, ClientError> {
    while progress(&found.value) == Progress::Draining {
        sleep(LOOK).await;
        found = client.worker(worker).await?;
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Draining,
    Drained,
    Silent,
}

/// How far a worker is. Of a namespace that it serves no longer an old heartbeat is left, which says
/// nothing while there are newer ones.
fn progress(list: &WorkerList) -> Progress {
    let mut live = list.workers.iter().filter(|view| view.live).peekable();
    if live.peek().is_none() {
        // One whose process ends with its work says so last.
        let drained = list.workers.iter().any(|view| view.drained);
        return if drained { Progress::Drained } else { Progress::Silent };
    }
    if live.all(|view| state(view) == "drained") { Progress::Drained } else { Progress::Draining }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_far_a_worker_is() {
        let list = |states: &[(bool, bool)]| {
            let views = states.iter().map(|(live, drained)| {
                json!({"id": "0190a0a0-0000-7000-8000-000000000002", "namespace": "n", "name": "w",
                    "build": "1", "queues": [], "callables": [], "draining": true,
                    "drained": drained, "live": live, "last_beat_at": "now"})
            });
            serde_json::from_value(json!({"workers": views.collect::<Vec<_>>()})).expect("a list")
        };
        for (states, expect) in [
            (&[(true, false)][..], Progress::Draining),
            (&[(true, true), (true, false)], Progress::Draining),
            (&[(true, true), (false, false)], Progress::Drained),
            (&[(false, true)], Progress::Drained),
            (&[(false, false)], Progress::Silent),
        ] {
            assert_eq!(progress(&list(states)), expect, "{states:?}");
        }
    }
}
