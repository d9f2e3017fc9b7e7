//! Wakes steps whose retry is due. Sent by the outcomes actor; emits ready steps to dispatch. What
//! is lost when it dies: nothing; the times are in the rows.

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_guards::{CrashPoint, pass};
use tasker_messages::StepId;

use super::Links;
use super::dispatch::DispatchMessage;
use super::node::{Node, run_detached};

/// Wakes steps whose retry is due.
pub(crate) struct TimersActor;

/// What the actor is told.
pub(crate) enum TimersMessage {
    /// A retry is due in so many milliseconds.
    RetryIn(u64),
    /// A timer has run out.
    Due,
    /// These steps were woken; the next retry is due in so many milliseconds.
    Woken(Vec<StepId>, Option<u64>),
}

/// What the actor keeps in mind.
pub(crate) struct TimersState {
    node: Node,
    links: Links,
    /// When the next timer runs out.
    next: Option<Instant>,
    waking: bool,
}

/// Steps that are woken by one statement.
const MAX_WOKEN: u32 = 1_024;
/// Retries that other nodes scheduled are noticed within this.
const LONGEST: Duration = Duration::from_secs(2);

impl Actor for TimersActor {
    type Msg = TimersMessage;
    type State = TimersState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<TimersMessage>,
        (node, links): (Node, Links),
    ) -> Result<TimersState, ActorProcessingErr> {
        let mut state = TimersState { node, links, next: None, waking: false };
        state.set(&myself, Duration::ZERO);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<TimersMessage>,
        message: TimersMessage,
        state: &mut TimersState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TimersMessage::RetryIn(ms) => state.set(&myself, Duration::from_millis(ms)),
            TimersMessage::Due => state.wake(&myself),
            TimersMessage::Woken(steps, next_ms) => {
                state.waking = false;
                if !steps.is_empty() {
                    state.links.dispatch.cast(DispatchMessage::Ready(steps));
                }
                state.set(&myself, next_ms.map_or(LONGEST, Duration::from_millis));
            }
        }
        Ok(())
    }
}

impl TimersState {
    /// Sets a timer unless an earlier one is set.
    fn set(&mut self, myself: &ActorRef<TimersMessage>, wait: Duration) {
        let wait = wait.min(LONGEST);
        let at = Instant::now() + wait;
        if self.next.is_none_or(|next| at < next) {
            self.next = Some(at);
            myself.send_after(wait, || TimersMessage::Due);
        }
    }

    fn wake(&mut self, myself: &ActorRef<TimersMessage>) {
        if self.next.is_none_or(|next| next > Instant::now()) {
            return;
        }
        // Run out, whatever happens now: the end of a wake-up sets the next timer.
        self.next = None;
        if self.waking {
            return;
        }
        self.waking = true;
        let node = self.node.clone();
        let work = async move {
            let woken = async {
                let steps = node.store.wake_retries(MAX_WOKEN).await?;
                if !steps.is_empty() {
                    pass(CrashPoint::RetriesWoken);
                }
                Ok::<_, tasker_store::StoreError>((steps, node.store.next_retry_ms().await?))
            };
            match woken.await {
                Ok((steps, next)) => TimersMessage::Woken(steps, next),
                Err(error) => {
                    tracing::warn!(%error, "due retries could not be woken");
                    TimersMessage::Woken(Vec::new(), None)
                }
            }
        };
        run_detached(myself, work, || TimersMessage::Woken(Vec::new(), None));
    }
}
