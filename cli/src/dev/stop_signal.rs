use std::io::{self, Read};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Says when `dev` is to stop.
#[derive(Debug)]
pub(super) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hang_up: Signal,
    /// Ends when standard input does.
    input: Option<oneshot::Receiver<()>>,
}

impl StopSignal {
    pub(super) fn listen(also_input: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            input: also_input.then(end_of_input),
        })
    }

    /// Ends at the first reason to stop.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
            // The sender's message and its loss say the same.
            _ = async { self.input.as_mut()?.await.ok() }, if self.input.is_some() => {}
        }
    }
}

/// Reads in a thread of its own: the runtime would wait at its end for a read that never ends.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        let mut input = io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|n| n > 0) {}
        // Nobody listens if `dev` is stopping already.
        let _unheard = ended.send(());
    });
    receiver
}
