//! Links: how one actor reaches another over that one's restarts.

use std::sync::{Arc, PoisonError, RwLock};

use ractor::{ActorRef, Message};

/// A reference to whichever incarnation of an actor lives now.
///
/// A message that is cast while the actor is being restarted is dropped and counted: every actor is
/// level-triggered, so what a lost message would have said is found again in the rows.
pub(crate) struct Link<M> {
    current: Arc<RwLock<Option<ActorRef<M>>>>,
}

impl<M> Clone for Link<M> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<M> Default for Link<M> {
    fn default() -> Self {
        Self { current: Arc::default() }
    }
}

impl<M: Message> Link<M> {
    /// Sends a message without waiting. Returns whether there was somebody to take it.
    pub(crate) fn cast(&self, message: M) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let sent = current.as_ref().is_some_and(|actor| actor.cast(message).is_ok());
        if !sent {
            metrics::counter!("tasker_actors_dropped_messages_total").increment(1);
        }
        sent
    }

    /// Points the link to a new incarnation.
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }
}
