//! Stores checkpoints of running steps, many at a time. Sent by the gateway; emits verdicts. What is
//! lost when it dies: checkpoints that were not answered; their workers send them again.

use std::collections::HashMap;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_messages::{CheckpointVerdict, Namespace, Refusal, SaveCheckpoint, StepId, code};
use tokio::sync::oneshot;

use super::Links;
use super::gather::Gather;
use super::node::{Node, run_detached};
use super::reads::refuse;

/// Stores checkpoints.
pub(crate) struct CheckpointsActor;

/// A checkpoint and whoever waits for its verdict.
pub(crate) struct Save {
    pub(crate) namespace: Namespace,
    pub(crate) request: SaveCheckpoint,
    pub(crate) answer: oneshot::Sender<Result<CheckpointVerdict, Refusal>>,
}

/// What the actor is told.
pub(crate) enum CheckpointsMessage {
    /// A running step has come so far.
    Save(Box<Save>),
    /// A set has been worked off.
    Done,
}

/// What the actor keeps in mind.
pub(crate) struct CheckpointsState {
    node: Node,
    gather: Gather<Save>,
}

/// Transactions at a time, checkpoints of one, and checkpoints that may wait: each may be a megabyte.
const IN_FLIGHT: u32 = 1;
const MAX_SET: u32 = 64;
const MAX_WAITING: u32 = 256;

impl Actor for CheckpointsActor {
    type Msg = CheckpointsMessage;
    type State = CheckpointsState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        _: ActorRef<CheckpointsMessage>,
        (node, _): (Node, Links),
    ) -> Result<CheckpointsState, ActorProcessingErr> {
        Ok(CheckpointsState { node, gather: Gather::new(IN_FLIGHT, MAX_SET, MAX_WAITING) })
    }

    async fn handle(
        &self,
        myself: ActorRef<CheckpointsMessage>,
        message: CheckpointsMessage,
        state: &mut CheckpointsState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CheckpointsMessage::Save(save) => {
                if let Err(refused) = state.gather.push(*save) {
                    let message = "too many checkpoints wait; send it again";
                    let refusal = Refusal::retry(code::UNAVAILABLE, message);
                    let _worker_gone = refused.answer.send(Err(refusal));
                }
            }
            CheckpointsMessage::Done => state.gather.done(),
        }
        while let Some(set) = state.gather.next_set() {
            let node = state.node.clone();
            let work = async move {
                store(&node, set).await;
                CheckpointsMessage::Done
            };
            run_detached(&myself, work, || CheckpointsMessage::Done);
        }
        Ok(())
    }
}

/// Stores a set, one namespace after the other, and answers each.
async fn store(node: &Node, set: Vec<Save>) {
    let max_bytes = node.settings.outcomes.max_result_bytes;
    let mut by_namespace: HashMap<Namespace, Vec<Save>> = HashMap::new();
    for save in set {
        match save.request.check(max_bytes) {
            Ok(()) => by_namespace.entry(save.namespace.clone()).or_default().push(save),
            Err(problem) => drop(save.answer.send(Err(refuse(problem)))),
        }
    }
    for (namespace, saves) in by_namespace {
        // An attempt sends one at a time; a second one of the same is the first one again.
        let key = |save: &Save| (save.request.step_id, save.request.attempt);
        let latest: HashMap<(StepId, u32), &SaveCheckpoint> =
            saves.iter().map(|save| (key(save), &save.request)).collect();
        let requests: Vec<SaveCheckpoint> = latest.into_values().cloned().collect();
        let stored = node.store.save_checkpoints(&namespace, &requests).await;
        if let Err(error) = &stored {
            tracing::error!(%error, checkpoints = requests.len(), "checkpoints could not be stored");
        }
        for save in saves {
            let verdict = stored.as_ref().ok().and_then(|v| v.get(&key(&save))).copied();
            let message = "the database did not confirm the checkpoint; send it again";
            let answer = verdict.ok_or_else(|| Refusal::retry(code::UNAVAILABLE, message));
            let _worker_gone = save.answer.send(answer);
        }
    }
}
