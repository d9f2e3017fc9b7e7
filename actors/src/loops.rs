//! Loops that run beside an actor: it looks after them, and they end with it.

use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, Message};
use tasker_bus::Connection;
use tasker_guards::{CAN_PANIC, panic_if_told};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Tells an actor of each new connection to the bus.
pub(crate) async fn tell_of_connections<M: Message>(
    mut connection: watch::Receiver<Connection>,
    actor: ActorRef<M>,
    message: impl Fn() -> M,
) {
    let mut epoch = connection.borrow_and_update().epoch;
    while connection.changed().await.is_ok() {
        let now = connection.borrow_and_update().epoch;
        if now != epoch && actor.cast(message()).is_err() {
            return;
        }
        epoch = now;
    }
}

/// The loops of one actor. Dropped, they end at once, at whatever they wait for.
#[derive(Default)]
pub(crate) struct Loops {
    tasks: JoinSet<()>,
}

impl Loops {
    /// Starts one. Its name is that of the actor and its own.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(until_told_to_panic(name, work));
    }

    /// Of loops that go on for as long as the actor lives, whether they do.
    ///
    /// # Errors
    /// If one of them has ended or died: the actor is to be started anew, and so are they.
    pub(crate) fn all_go_on(&mut self) -> Result<(), ActorProcessingErr> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(Ok(())) => Err("a loop has ended".into()),
            Some(Err(error)) => Err(died(&error)),
        }
    }

    /// Of loops that may come to their end, whether they did so in peace.
    ///
    /// # Errors
    /// If one of them has died.
    #[cfg(feature = "worker")]
    pub(crate) fn none_died(&mut self) -> Result<(), ActorProcessingErr> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.map_err(|error| died(&error))?;
        }
        Ok(())
    }

    /// Waits for the next one to end.
    #[cfg(feature = "orchestrator")]
    pub(crate) async fn next_end(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }

    /// Leaves them to themselves: they know when to end.
    #[cfg(feature = "worker")]
    pub(crate) fn leave(&mut self) {
        self.tasks.detach_all();
    }
}

fn died(error: &JoinError) -> ActorProcessingErr {
    format!("a loop has died: {error}").into()
}

/// In builds for the tests, how long a loop may be told to panic before it does.
const LOOK: Duration = Duration::from_millis(10);

/// Does the work. In builds for the tests it can be made to panic at whatever it waits for.
async fn until_told_to_panic(name: &'static str, work: impl Future<Output = ()>) {
    let told = async {
        while CAN_PANIC {
            panic_if_told(name);
            tokio::time::sleep(LOOK).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = work => {}
        () = told => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_ends_or_dies_is_noticed() {
        async fn ended(loops: &mut Loops) -> Result<(), String> {
            while !loops.tasks.is_empty() {
                tokio::task::yield_now().await;
                loops.all_go_on().map_err(|error| error.to_string())?;
            }
            Ok(())
        }
        let mut loops = Loops::default();
        loops.spawn("timers", std::future::pending());
        assert!(loops.all_go_on().is_ok());
        loops.spawn("timers", async {});
        assert_eq!(ended(&mut loops).await, Err("a loop has ended".to_owned()));
        loops.spawn("timers", async { panic!("on purpose") });
        let error = ended(&mut loops).await.expect_err("it has died");
        assert!(error.contains("a loop has died") && error.contains("on purpose"), "{error}");
    }

    #[tokio::test]
    async fn loops_end_with_their_owner() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut loops = Loops::default();
        loops.spawn("timers", async move {
            let _held = sender;
            std::future::pending().await
        });
        drop(loops);
        assert!(receiver.await.is_err());
    }
}
