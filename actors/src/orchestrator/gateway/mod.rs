//! Takes requests from the bus and hands them on. Owns the subscriptions and the pulls of the
//! control and submit streams. What is lost when it dies: requests that were not answered; their
//! senders try again. Deliveries come back.

mod listeners;
mod requests;
mod streams;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::PullOptions;
use tasker_messages::subject::{self, Request};
use tokio::sync::oneshot;

use self::listeners::Listeners;
use self::streams::{pull, take_command, take_enqueued};
use super::Links;
use super::node::Node;

/// Takes requests from the bus.
pub(crate) struct GatewayActor;

/// What the gateway is told.
pub(crate) enum GatewayMessage {
    /// See whether the listeners still run.
    Check,
    /// Take nothing more, answer what has arrived, and say when that is done.
    End(oneshot::Sender<()>),
}

/// What the gateway keeps in mind: its listeners end with it.
pub(crate) struct GatewayState {
    listeners: Listeners,
}

impl Actor for GatewayActor {
    type Msg = GatewayMessage;
    type State = GatewayState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<GatewayMessage>,
        (node, links): (Node, Links),
    ) -> Result<GatewayState, ActorProcessingErr> {
        let mut listeners = Listeners::new();
        let group = Some(subject::ORCHESTRATORS);
        for &kind in Request::ALL {
            listeners.requests((&node, &links), kind, &kind.wildcard(), group).await?;
        }
        let mine = subject::outcome_at_wildcard(node.id);
        listeners.requests((&node, &links), Request::Outcome, &mine, None).await?;
        listeners.events(&node, &links).await?;
        listeners.queue_lists(&node.bus).await?;
        listeners.introductions(&node).await?;
        let (n, l) = (node.clone(), links.clone());
        let commands =
            node.bus.pull(subject::CONTROL_STREAM, subject::BATCH_DURABLE, PullOptions::default());
        let ending = listeners.ending();
        listeners.spawn(
            "gateway.commands",
            pull(commands, ending, move |delivery| take_command(&l, delivery)),
        );
        let submitted =
            node.bus.pull(subject::SUBMIT_STREAM, subject::SUBMIT_DURABLE, PullOptions::default());
        let ending = listeners.ending();
        listeners.spawn(
            "gateway.submissions",
            pull(submitted, ending, move |delivery| take_enqueued(&n, &links, delivery)),
        );
        myself.send_interval(Duration::from_secs(1), || GatewayMessage::Check);
        Ok(GatewayState { listeners })
    }

    async fn handle(
        &self,
        _: ActorRef<GatewayMessage>,
        message: GatewayMessage,
        state: &mut GatewayState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GatewayMessage::Check => state.listeners.all_go_on(),
            GatewayMessage::End(answered) => {
                let listeners = std::mem::replace(&mut state.listeners, Listeners::new());
                tokio::spawn(async move {
                    listeners.end().await;
                    // Whoever asked may have lost patience.
                    let _impatient = answered.send(());
                });
                Ok(())
            }
        }
    }
}
