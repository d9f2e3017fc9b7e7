//! Supervision: a dead actor is started again, within a budget.
//!
//! Owns the actors of one process. What is lost when the supervisor itself dies: the process; its
//! exhaustion is published, and the binary ends with an error so that whatever runs it starts it
//! anew. State is not lost with any actor: rows are the truth.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tasker_config::Supervision;
use tasker_guards::panic_if_told;
use tokio::sync::watch;

use crate::link::Link;

type Spawning = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;
type Spawn = Box<dyn Fn(ActorCell) -> Spawning + Send + Sync>;

/// How to start one actor.
pub(crate) struct Child {
    name: &'static str,
    spawn: Spawn,
    running: Option<ActorCell>,
    restarts: VecDeque<Instant>,
}

impl Child {
    /// An actor that is started with arguments made anew each time, and reached through a link.
    pub(crate) fn new<A>(
        name: &'static str,
        link: Link<A::Msg>,
        actor: impl Fn() -> A + Send + Sync + 'static,
        arguments: impl Fn() -> A::Arguments + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor,
    {
        let spawn: Spawn = Box::new(move |supervisor| {
            let (actor, arguments, link) = (actor(), arguments(), link.clone());
            Box::pin(async move {
                let child = Supervised { name, actor };
                let (reference, _ended) =
                    Actor::spawn_linked(None, child, arguments, supervisor).await?;
                link.set(reference.clone());
                Ok(reference.get_cell())
            })
        });
        Self { name, spawn, running: None, restarts: VecDeque::new() }
    }

    /// What it is called in logs and metrics.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Takes note of a restart; `false` if the budget is used up.
    fn charge(&mut self, settings: &Supervision, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|&at| now - at > settings.window()) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= settings.max_restarts as usize
    }
}

/// An actor as its supervisor starts it, which builds for the tests can make panic at any message.
struct Supervised<A> {
    name: &'static str,
    actor: A,
}

impl<A: Actor> Actor for Supervised<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<A::Msg>,
        arguments: A::Arguments,
    ) -> Result<A::State, ActorProcessingErr> {
        self.actor.pre_start(myself, arguments).await
    }

    async fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        panic_if_told(self.name);
        self.actor.handle(myself, message, state).await
    }
}

/// Starts actors again when they die.
pub(crate) struct SupervisorActor;

/// What a supervisor is started with.
pub(crate) struct SupervisorArguments {
    pub(crate) children: Vec<Child>,
    pub(crate) settings: Supervision,
    /// Becomes `true` when the budget is used up.
    pub(crate) exhausted: watch::Sender<bool>,
}

/// What a supervisor is told.
pub(crate) enum SupervisorMessage {
    /// Start this child again; its back-off is over.
    Restart(usize),
    /// The process is about to stop: let the children go.
    Stop,
}

/// What a supervisor keeps in mind.
pub(crate) struct SupervisorState {
    children: Vec<Child>,
    settings: Supervision,
    exhausted: watch::Sender<bool>,
    stopping: bool,
}

impl Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let mut children = arguments.children;
        for child in &mut children {
            child.running = Some((child.spawn)(myself.get_cell()).await?);
        }
        let SupervisorArguments { settings, exhausted, .. } =
            SupervisorArguments { children: Vec::new(), ..arguments };
        Ok(SupervisorState { children, settings, exhausted, stopping: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Restart(index) => restart(&myself, state, index).await,
            SupervisorMessage::Stop => stop(&myself, state),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, reason.unwrap_or_else(|| "stopped".to_owned()))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        let is_it =
            |child: &Child| child.running.as_ref().map(ActorCell::get_id) == Some(cell.get_id());
        if let Some(index) = state.children.iter().position(is_it).filter(|_| !state.stopping) {
            died(&myself, state, index, &reason);
        }
        Ok(())
    }
}

/// Plans the restart of a child, or gives up.
fn died(
    myself: &ActorRef<SupervisorMessage>,
    state: &mut SupervisorState,
    index: usize,
    reason: &str,
) {
    let child = &mut state.children[index];
    child.running = None;
    metrics::counter!("tasker_actors_restarts_total", "actor" => child.name).increment(1);
    tracing::error!(actor = child.name, reason, "actor died; it is started again");
    if child.charge(&state.settings, Instant::now()) {
        myself.send_after(state.settings.backoff(), move || SupervisorMessage::Restart(index));
    } else {
        tracing::error!(actor = child.name, "restart budget used up; the process gives up");
        state.exhausted.send_replace(true);
    }
}

async fn restart(myself: &ActorRef<SupervisorMessage>, state: &mut SupervisorState, index: usize) {
    if state.stopping {
        return;
    }
    let child = &mut state.children[index];
    match (child.spawn)(myself.get_cell()).await {
        Ok(cell) => {
            child.running = Some(cell);
            tracing::info!(actor = child.name, "actor runs again");
        }
        Err(error) => died(myself, state, index, &error.to_string()),
    }
}

fn stop(myself: &ActorRef<SupervisorMessage>, state: &mut SupervisorState) {
    state.stopping = true;
    // Stopped, never killed: a kill drops futures at any await, also inside a transaction.
    for child in state.children.iter().rev() {
        if let Some(cell) = &child.running {
            cell.stop(None);
        }
    }
    myself.stop(None);
}

/// A running supervisor.
pub(crate) struct Supervisor {
    actor: ActorRef<SupervisorMessage>,
    ended: tokio::task::JoinHandle<()>,
    exhausted: watch::Receiver<bool>,
}

impl Supervisor {
    /// Starts the children in order.
    pub(crate) async fn start(
        children: Vec<Child>,
        settings: Supervision,
    ) -> Result<Self, SpawnErr> {
        let (sender, exhausted) = watch::channel(false);
        let arguments = SupervisorArguments { children, settings, exhausted: sender };
        let (actor, ended) = Actor::spawn(None, SupervisorActor, arguments).await?;
        Ok(Self { actor, ended, exhausted })
    }

    /// Becomes `true` when a restart budget is used up.
    pub(crate) fn exhausted(&self) -> watch::Receiver<bool> {
        self.exhausted.clone()
    }

    /// Stops the children, the last one first, and waits for at most this long.
    pub(crate) async fn stop(self, within: Duration) {
        if self.actor.cast(SupervisorMessage::Stop).is_ok()
            && tokio::time::timeout(within, self.ended).await.is_err()
        {
            tracing::warn!("actors did not stop in time");
        }
    }
}
