//! A process that stands still for most of the time.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Process;

/// Stops a process and lets it go on, again and again, for as long as this value lives.
#[derive(Debug)]
pub struct Stutter {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Stutter {
    /// Has it stand still for the first of these times and go on for the second one, in turn.
    pub fn of(process: Process, still: Duration, going: Duration) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let goes_on_for = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            let mut times = 0;
            while process.signal(Signal::SIGSTOP).is_ok() {
                times += 1;
                let goes_on = goes_on_for(still);
                if process.signal(Signal::SIGCONT).is_err() || !goes_on || !goes_on_for(going) {
                    break;
                }
            }
            times
        });
        Self { end: Some(end), thread: Some(thread) }
    }

    /// Lets it go on for good, and says how often it has stood still.
    pub fn end(mut self) -> u64 {
        self.finish()
    }

    fn finish(&mut self) -> u64 {
        drop(self.end.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Stutter {
    fn drop(&mut self) {
        self.finish();
    }
}
