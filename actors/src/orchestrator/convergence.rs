//! Decides convergences. Sent by the outcomes actor (tasks in which something ended) and by its own
//! sweep over all open ones; emits ready aggregators to dispatch. What is lost when it dies:
//! nothing; the sweep re-checks everything that is not settled.

use std::collections::HashSet;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::TaskId;
use tasker_store::{Converged, KnownResults};

use super::Links;
use super::calm::Calm;
use super::dispatch::DispatchMessage;
use super::finalizer::FinalizerMessage;
use super::gather::Gather;
use super::node::{Node, run_detached};

/// Decides convergences.
pub(crate) struct ConvergenceActor;

/// What the actor is told.
pub(crate) enum ConvergenceMessage {
    /// Something ended in these tasks that only a convergence settles.
    Check(Vec<TaskId>),
    /// A set has been worked off.
    Done(Box<Converged>),
    /// Look for everything that is not settled.
    Sweep,
}

/// What the actor keeps in mind.
pub(crate) struct ConvergenceState {
    node: Node,
    links: Links,
    gather: Gather<TaskId>,
    /// Tasks that wait, each once.
    waiting: HashSet<TaskId>,
    calm: Calm,
}

/// Tasks of one transaction, transactions at a time, and tasks that may wait; the sweep finds what
/// does not fit.
const MAX_SET: u32 = 128;
const MAX_IN_FLIGHT: u32 = 2;
/// While a transaction is under way, so many tasks must wait for a second one: one costs six statements,
/// however few they are.
const WORTHWHILE: u32 = 32;
const MAX_WAITING: u32 = 16_384;

impl Actor for ConvergenceActor {
    type Msg = ConvergenceMessage;
    type State = ConvergenceState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<ConvergenceMessage>,
        (node, links): (Node, Links),
    ) -> Result<ConvergenceState, ActorProcessingErr> {
        myself.send_interval(Duration::from_secs(1), || ConvergenceMessage::Sweep);
        let gather = Gather::new(MAX_IN_FLIGHT, MAX_SET, MAX_WAITING).worthwhile(WORTHWHILE);
        Ok(ConvergenceState { node, links, gather, waiting: HashSet::new(), calm: Calm::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ConvergenceMessage>,
        message: ConvergenceMessage,
        state: &mut ConvergenceState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConvergenceMessage::Check(tasks) => {
                if !tasks.is_empty() {
                    state.calm.disturb();
                }
                for task in tasks {
                    if state.waiting.insert(task) && state.gather.push(task).is_err() {
                        state.waiting.remove(&task);
                    }
                }
            }
            ConvergenceMessage::Done(converged) => {
                state.gather.done();
                pass_on(&state.links, *converged);
            }
            ConvergenceMessage::Sweep if guard_is_off(Guard::CheckAfterCommit) => {}
            ConvergenceMessage::Sweep => {
                if state.calm.tick() {
                    sweep(&myself, &state.node);
                }
            }
        }
        while let Some(set) = state.gather.next_set() {
            // A task may be checked again while it is being checked: what ends meanwhile counts.
            set.iter().for_each(|task| {
                state.waiting.remove(task);
            });
            let node = state.node.clone();
            let work =
                async move { ConvergenceMessage::Done(Box::new(converge(&node, &set).await)) };
            run_detached(&myself, work, || ConvergenceMessage::Done(Box::default()));
        }
        Ok(())
    }
}

async fn converge(node: &Node, tasks: &[TaskId]) -> Converged {
    match node.store.converge_tasks(tasks).await {
        Ok(converged) => {
            let n = u64::from(converged.settled_batches);
            metrics::counter!("tasker_convergence_batches_total").increment(n);
            converged
        }
        Err(error) => {
            tracing::error!(%error, tasks = tasks.len(), "convergences could not be decided; the sweep tries again");
            Converged::default()
        }
    }
}

fn pass_on(links: &Links, converged: Converged) {
    if !converged.ready.is_empty() {
        links.dispatch.cast(DispatchMessage::Released(converged.ready, KnownResults::new()));
    }
    if !converged.finished_tasks.is_empty() {
        links.finalizer.cast(FinalizerMessage::Finished(converged.finished_tasks));
    }
}

fn sweep(myself: &ActorRef<ConvergenceMessage>, node: &Node) {
    let node = node.clone();
    let work = async move {
        match node.store.find_convergeable(MAX_WAITING / 4).await {
            Ok(tasks) => ConvergenceMessage::Check(tasks),
            Err(error) => {
                tracing::warn!(%error, "open convergences could not be looked for");
                ConvergenceMessage::Check(Vec::new())
            }
        }
    };
    run_detached(myself, work, || ConvergenceMessage::Check(Vec::new()));
}
