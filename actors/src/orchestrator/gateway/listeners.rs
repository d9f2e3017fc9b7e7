//! Subscriptions and what serves them, until the end of the process.

use std::sync::Arc;

use ractor::ActorProcessingErr;
use tasker_bus::{Bus, BusError, Incoming, Subscription};
use tasker_messages::subject::{self, Request};
use tasker_messages::{Refusal, code, json};
use tokio::sync::{Semaphore, watch};

use super::requests::route;
use crate::loops::Loops;
use crate::orchestrator::Links;
use crate::orchestrator::finalizer::FinalizerMessage;
use crate::orchestrator::node::Node;

/// Requests of one kind that are worked on at a time; more of them wait in the subscription.
const MAX_REQUESTS: u32 = 256;
/// Waiting requests are cheap, and many programs may wait.
const MAX_WAITING_REQUESTS: u32 = 10_000;

/// Bytes of what a worker says of itself; one that says more is heard when there is work.
const MAX_INTRODUCTION: usize = 262_144;

/// Everything that listens. Dropped, it ends at once.
pub(super) struct Listeners {
    loops: Loops,
    ending: watch::Sender<bool>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { loops: Loops::default(), ending: watch::Sender::new(false) }
    }

    /// Becomes `true` when nothing more is to be taken.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        listener: impl Future<Output = ()> + Send + 'static,
    ) {
        self.loops.spawn(name, listener);
    }

    /// An error if a listener has ended, though nobody asked for it.
    pub(super) fn all_go_on(&mut self) -> Result<(), ActorProcessingErr> {
        self.loops.all_go_on()
    }

    /// Takes nothing more, and returns when all that has arrived is answered, but for those who wait for
    /// the end of a task: they ask again.
    pub(super) async fn end(mut self) {
        self.ending.send_replace(true);
        while let Some(ended) = self.loops.next_end().await {
            if let Err(error) = ended {
                tracing::warn!(%error, "a listener has died");
            }
        }
    }

    /// Subscribes to one kind of request and answers each in a task of its own.
    pub(super) async fn requests(
        &mut self,
        (node, links): (&Node, &Links),
        kind: Request,
        subject: &str,
        group: Option<&str>,
    ) -> Result<(), BusError> {
        let mut requests = self.subscribe(&node.bus, subject, group).await?;
        let (node, links) = (node.clone(), links.clone());
        let waits = kind == Request::TaskWait;
        let most = if waits { MAX_WAITING_REQUESTS } else { MAX_REQUESTS };
        let permits = Arc::new(Semaphore::new(most as usize));
        self.loops.spawn("gateway.requests", async move {
            while let Some(incoming) = requests.next().await {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let (node, links) = (node.clone(), links.clone());
                tokio::spawn(async move {
                    route(&node, &links, kind, incoming).await;
                    drop(permit);
                });
            }
            if !waits {
                let _answered = permits.acquire_many(most).await;
            }
        });
        Ok(())
    }

    /// Wakes waiters when any node announces the end of a task.
    pub(super) async fn events(&mut self, node: &Node, links: &Links) -> Result<(), BusError> {
        let mut events = self.subscribe(&node.bus, subject::TASK_EVENTS, None).await?;
        let links = links.clone();
        self.loops.spawn("gateway.events", async move {
            while let Some(event) = events.next().await {
                if let Some(Ok(id)) = event.subject.rsplit('.').next().map(str::parse) {
                    links.finalizer.cast(FinalizerMessage::Announced(id));
                }
            }
        });
        Ok(())
    }

    /// Listens to what workers say of themselves when they ask for queues: every node does.
    pub(super) async fn introductions(&mut self, node: &Node) -> Result<(), BusError> {
        let mut requests = self.subscribe(&node.bus, subject::QUEUES_LIST, None).await?;
        let node = node.clone();
        self.loops.spawn("gateway.introductions", async move {
            while let Some(request) = requests.next().await {
                if request.payload.len() > MAX_INTRODUCTION {
                    continue;
                }
                // Workers that are heard, or of an earlier release, say nothing.
                if let Ok(Some(introduction)) = json::decode(&request.payload) {
                    node.offers.introduce(introduction);
                }
            }
        });
        Ok(())
    }

    /// Tells workers which queues exist.
    pub(super) async fn queue_lists(&mut self, bus: &Bus) -> Result<(), BusError> {
        let group = Some(subject::ORCHESTRATORS);
        let mut requests = self.subscribe(bus, subject::QUEUES_LIST, group).await?;
        let bus = bus.clone();
        self.loops.spawn("gateway.queue_lists", async move {
            while let Some(request) = requests.next().await {
                let queues = bus.work_durables().await.map(|queues| tasker_messages::QueueList {
                    queues: queues
                        .into_iter()
                        .map(|(namespace, queue)| tasker_messages::QueueRef { namespace, queue })
                        .collect(),
                });
                let answer = queues.map_err(|error| {
                    let message = format!("the bus did not list its queues: {error}");
                    Refusal::retry(code::UNAVAILABLE, message)
                });
                request.answer(answer).await;
            }
        });
        Ok(())
    }

    async fn subscribe(
        &self,
        bus: &Bus,
        subject: &str,
        group: Option<&str>,
    ) -> Result<Ending, BusError> {
        let subscription = bus.subscribe(subject, group).await?;
        Ok(Ending { subscription, ending: self.ending(), ended: false })
    }
}

/// A subscription up to the end: what has arrived by then still comes.
struct Ending {
    subscription: Subscription,
    ending: watch::Receiver<bool>,
    ended: bool,
}

impl Ending {
    async fn next(&mut self) -> Option<Incoming> {
        while !self.ended {
            tokio::select! {
                incoming = self.subscription.next() => return incoming,
                _ = self.ending.changed() => {}
            }
            // It changes once.
            self.ended = true;
            self.subscription.drain().await;
        }
        self.subscription.next().await
    }
}
