//! Compares rows with the bus and sends again what was lost, more rarely while nothing is outstanding. Runs on
//! every node; all of its work is compare-and-set. What is lost when it dies: one check, which comes again.

mod cut;
mod queues;
mod stalls;
mod still;
mod streams;

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::StreamEpoch;

use self::queues::Suspected;
use super::Links;
use super::calm::Calm;
use super::node::{Node, run_detached};
use crate::loops::{Loops, tell_of_connections};

/// Compares rows with the bus.
pub(crate) struct ReconcilerActor;

/// What the actor is told.
pub(crate) enum ReconcilerMessage {
    /// Compare now, unless a comparison is under way.
    Check,
    /// There is a new connection: compare now, or once more after the comparison that is under way.
    Connected,
    /// A comparison has ended.
    Checked(Box<Suspicions>),
}

/// What earlier checks suspected.
#[derive(Clone, Default)]
pub(crate) struct Suspicions {
    queues: Suspected,
    /// The stream of work items as last seen.
    stream: Option<StreamEpoch>,
    /// When workers were forgotten last.
    forgotten: Option<Instant>,
    /// Whether nothing is outstanding and nothing has gone wrong.
    idle: bool,
}

/// What the actor keeps in mind.
pub(crate) struct ReconcilerState {
    node: Node,
    links: Links,
    suspicions: Suspicions,
    checking: bool,
    check_again: bool,
    calm: Calm,
    /// Tells of connections, each of which is looked at at once.
    listener: Loops,
}

impl Actor for ReconcilerActor {
    type Msg = ReconcilerMessage;
    type State = ReconcilerState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        (node, links): (Node, Links),
    ) -> Result<ReconcilerState, ActorProcessingErr> {
        myself.send_interval(node.settings.reconciler.interval(), || ReconcilerMessage::Check);
        let mut listener = Loops::default();
        let told =
            tell_of_connections(node.bus.connection(), myself, || ReconcilerMessage::Connected);
        listener.spawn("reconciler.connection", told);
        let suspicions = Suspicions::default();
        let (checking, check_again, calm) = (false, false, Calm::default());
        Ok(ReconcilerState { node, links, suspicions, checking, check_again, calm, listener })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        message: ReconcilerMessage,
        state: &mut ReconcilerState,
    ) -> Result<(), ActorProcessingErr> {
        state.listener.all_go_on()?;
        match message {
            ReconcilerMessage::Check if !state.checking && state.calm.tick() => {
                state.checking = true;
                let (node, links) = (state.node.clone(), state.links.clone());
                let suspicions = std::mem::take(&mut state.suspicions);
                let work = async move {
                    let next = check(&node, &links, suspicions).await;
                    ReconcilerMessage::Checked(Box::new(next))
                };
                run_detached(&myself, work, || ReconcilerMessage::Checked(Box::default()));
            }
            ReconcilerMessage::Check => {}
            ReconcilerMessage::Connected => {
                state.check_again = state.checking;
                state.calm.disturb();
                myself.cast(ReconcilerMessage::Check)?;
            }
            ReconcilerMessage::Checked(suspicions) => {
                state.checking = false;
                state.suspicions = *suspicions;
                if !state.suspicions.idle {
                    state.calm.disturb();
                }
                if std::mem::take(&mut state.check_again) {
                    myself.cast(ReconcilerMessage::Check)?;
                }
            }
        }
        Ok(())
    }
}

/// Workers that have been silent for an hour are forgotten; how often that is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// One comparison. What it cannot find out now, the next one does.
async fn check(node: &Node, links: &Links, mut before: Suspicions) -> Suspicions {
    before.idle = false;
    if before.forgotten.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
        match node.store.forget_silent_workers().await {
            Ok(_) => before.forgotten = Some(Instant::now()),
            Err(error) => tracing::warn!(%error, "silent workers could not be forgotten"),
        }
    }
    let stream = match streams::check(node, links, before.stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(error, "the streams could not be checked");
            return before;
        }
    };
    let is_known = before.stream.is_some_and(|known| {
        known.created_unix_nanos == stream.created_unix_nanos
            && known.last_sequence <= stream.last_sequence
    });
    let mut after = Suspicions { stream: Some(stream), ..before };
    match queues::check(node, &mut after.queues).await {
        Ok(outstanding) => after.idle = is_known && outstanding == 0,
        Err(error) => tracing::warn!(%error, "rows could not be compared with the bus"),
    }
    after
}
