//! Shares the limit of a namespace among its queues. Sent by its own timer; changes the durable
//! consumers of limited namespaces. What is lost when it dies: one look, which comes again; shares stay
//! as they are meanwhile, so that the limit holds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::{BusError, ConsumerLoad};
use tasker_messages::{Namespace, Queue};
use tasker_workflow::{QueueUse, next_shares, share_limit};

use super::Links;
use super::node::{Node, run_detached};

/// Shares the limit of a namespace among its queues.
pub(crate) struct SharesActor;

/// What the actor is told.
pub(crate) enum SharesMessage {
    /// See who needs what.
    Look,
    /// The same, planned while shares move.
    LookSoon,
    /// A look has ended; whether it changed anything.
    Looked(bool),
}

/// What the actor keeps in mind: nothing about shares, which are the consumers' own.
pub(crate) struct SharesState {
    node: Node,
    looking: bool,
    /// Whether the next look is on its way before its time.
    planned: bool,
    /// When something was changed last.
    changed: Option<Instant>,
}

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);
/// How soon it looks again while shares move: what one queue gives, another one waits for.
const MOVING: Duration = Duration::from_millis(25);
/// For how long after a change shares count as moving.
const MOVES_FOR: Duration = Duration::from_secs(1);
/// How long the limit of a namespace is one node's to share.
const LEASE: Duration = Duration::from_secs(4);
/// Nothing is changed later than this after the lease was taken: a change must not be on its way when
/// another node takes over.
const MOST_OF_LEASE: Duration = Duration::from_secs(2);
/// How long queues have a turn where there are more in need than the limit.
const TURN: Duration = Duration::from_secs(2);
/// Namespaces that are looked at side by side.
const SIDE_BY_SIDE: usize = 8;
/// Looks in a row while each gives something free.
const ROUNDS: u32 = 3;

impl Actor for SharesActor {
    type Msg = SharesMessage;
    type State = SharesState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<SharesMessage>,
        (node, _): (Node, Links),
    ) -> Result<SharesState, ActorProcessingErr> {
        myself.send_interval(LOOK, || SharesMessage::Look);
        Ok(SharesState { node, looking: false, planned: false, changed: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<SharesMessage>,
        message: SharesMessage,
        state: &mut SharesState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SharesMessage::LookSoon => {
                state.planned = false;
                myself.cast(SharesMessage::Look)?;
            }
            SharesMessage::Look if !state.looking && state.node.limits.any_namespace() => {
                state.looking = true;
                let node = state.node.clone();
                let work = async move { SharesMessage::Looked(look(&node).await) };
                run_detached(&myself, work, || SharesMessage::Looked(false));
            }
            SharesMessage::Look => {}
            SharesMessage::Looked(changed) => {
                state.looking = false;
                if changed {
                    state.changed = Some(Instant::now());
                }
                let moves = state.changed.is_some_and(|at| at.elapsed() < MOVES_FOR);
                if moves && !state.planned {
                    state.planned = true;
                    myself.send_after(MOVING, || SharesMessage::LookSoon);
                }
            }
        }
        Ok(())
    }
}

/// Looks at the namespaces whose limits are this node's to share. Returns whether anything was changed;
/// what cannot be done now, the next look does.
async fn look(node: &Node) -> bool {
    let until = Instant::now() + MOST_OF_LEASE;
    let limited = match node.store.claim_shares(node.id, LEASE).await {
        Ok(limited) if limited.is_empty() => return false,
        Ok(limited) => limited,
        Err(error) => {
            tracing::warn!(%error, "limits of namespaces are shared as they were");
            return false;
        }
    };
    let durables = match node.bus.work_durables().await {
        Ok(durables) => durables,
        Err(error) => {
            tracing::warn!(%error, "limits of namespaces are shared as they were");
            return false;
        }
    };
    let all = stream::iter(limited).map(|(namespace, limit)| {
        let own = durables.iter().filter(|(other, _)| *other == namespace);
        let queues: Vec<Queue> = own.map(|(_, queue)| queue.clone()).collect();
        async move {
            let shared = share(node, &namespace, limit, &queues, until).await;
            shared.unwrap_or_else(|error| {
                tracing::warn!(%error, %namespace, "the limit of a namespace is shared as it was");
                false
            })
        }
    });
    all.buffer_unordered(SIDE_BY_SIDE)
        .fold(false, |any, changed| async move { any | changed })
        .await
}

/// Brings the shares of one namespace on their way. What a queue gives may be free at once: then it is
/// seen again at once.
async fn share(
    node: &Node,
    namespace: &Namespace,
    limit: u32,
    queues: &[Queue],
    until: Instant,
) -> Result<bool, BusError> {
    let mut changed = false;
    for _ in 0..ROUNDS {
        let mut uses = Vec::with_capacity(queues.len());
        for queue in queues {
            // One that is gone has nothing, and is made anew without a share.
            if let Some(load) = node.bus.consumer_load(namespace, queue).await? {
                uses.push((queue, load, queue_use(node, namespace, queue, &load)));
            }
        }
        let (now, turn): (Vec<QueueUse>, u64) =
            (uses.iter().map(|(.., now)| *now).collect(), turn());
        let next = next_shares(limit, &now, &share_limit(limit, &now, turn));
        tracing::trace!(%namespace, limit, ?now, ?next, "sharing a limit");
        let mut gave = false;
        // Those that give come first: should the time be up, nobody has got it twice.
        let mut order: Vec<usize> = (0..next.len()).collect();
        order.sort_by_key(|&n| next[n] > now[n].share);
        for n in order {
            let (queue, load, now) = &uses[n];
            if !is_due(load, now.share, next[n]) {
                continue;
            }
            if Instant::now() >= until {
                return Ok(changed);
            }
            let settings = &node.settings.streams;
            node.bus.give_share(namespace, queue, next[n], settings).await?;
            changed |= next[n] != now.share;
            gave |= next[n] < now.share;
        }
        if !gave {
            break;
        }
    }
    Ok(changed)
}

fn queue_use(node: &Node, namespace: &Namespace, queue: &Queue, load: &ConsumerLoad) -> QueueUse {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let own = node.limits.max_running_of_queue(namespace, queue).unwrap_or(u32::MAX);
    QueueUse {
        share: if load.is_paused() { 0 } else { load.max_ack_pending },
        running: number(load.ack_pending),
        waiting: number(load.pending),
        most: own.min(node.settings.streams.max_ack_pending),
    }
}

/// Whether a consumer is to be told: of another share, or again that it has none before that ends by
/// itself.
fn is_due(load: &ConsumerLoad, now: u32, next: u32) -> bool {
    next != now || next == 0 && load.paused_for.is_none_or(|left| left < Duration::from_secs(20))
}

/// Whose turn it is. Nodes whose clocks differ only take turns at other times.
fn turn() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / TURN.as_secs()
}
