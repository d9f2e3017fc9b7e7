//! The message that brought a step, and perhaps others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tasker_bus::AckHandle;
use tasker_guards::{Guard, guard_is_off};

/// A step's part in the message that brought it. One that brought several steps is acknowledged when each
/// of them has been; a part that is dropped without keeps it, so that all of it comes back and is claimed:
/// what has ended is told by its row.
#[derive(Debug)]
pub(crate) struct Message {
    handle: AckHandle,
    /// None if it brought one step alone.
    parts: Option<Arc<Parts>>,
}

#[derive(Debug)]
struct Parts {
    /// Those that have not been acknowledged.
    left: AtomicU32,
    /// Whether one of them is to come back at once.
    comes_back: AtomicBool,
    /// Whether one of them has been run, or is.
    runs: AtomicBool,
}

impl Message {
    /// The parts of a message that brought so many steps.
    pub(crate) fn split(handle: AckHandle, steps: usize) -> Vec<Self> {
        let left = AtomicU32::new(u32::try_from(steps).unwrap_or(u32::MAX));
        let parts = Arc::new(Parts {
            left,
            comes_back: AtomicBool::new(false),
            runs: AtomicBool::new(false),
        });
        let parts = (steps > 1).then_some(parts);
        (0..steps).map(|_| Self { handle: handle.clone(), parts: parts.clone() }).collect()
    }

    /// This part is done with.
    pub(crate) async fn ack(self) {
        match self.parts {
            None => self.handle.ack().await,
            Some(parts) => parts.end_one(&self.handle).await,
        }
    }

    /// This part is to come back: at once, or when the others have ended, which would be charged if another
    /// worker got them.
    pub(crate) async fn give_back(self) {
        match self.parts {
            None => self.handle.nak(std::time::Duration::ZERO).await,
            Some(parts) => {
                parts.comes_back.store(true, Ordering::Relaxed);
                parts.end_one(&self.handle).await;
            }
        }
    }

    /// Whether this is the first of the steps of this delivery of which that is asked.
    pub(crate) fn runs_first(&self) -> bool {
        self.parts.as_ref().is_none_or(|parts| !parts.runs.swap(true, Ordering::Relaxed))
    }

    /// The whole message, whatever becomes of the other parts.
    pub(crate) fn whole(&self) -> AckHandle {
        self.handle.clone()
    }

    /// Whether both are parts of deliveries of the same message.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.handle.is_same_message(&other.handle)
    }

    /// What is the same for all parts of one delivery; none if there is only one.
    pub(crate) fn bundle(&self) -> Option<usize> {
        self.parts.as_ref().map(|parts| Arc::as_ptr(parts) as usize)
    }
}

impl Parts {
    async fn end_one(&self, handle: &AckHandle) {
        let others_are_left = self.left.fetch_sub(1, Ordering::AcqRel) > 1;
        if others_are_left && !guard_is_off(Guard::AckAfterLast) {
            return;
        }
        match self.comes_back.load(Ordering::Relaxed) {
            true => handle.nak(std::time::Duration::ZERO).await,
            false => handle.ack().await,
        }
    }
}
