//! A node that `tasker dev` started leaves with it, even if `dev` was killed.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

/// How soon a dead parent is noticed.
const LOOK: Duration = Duration::from_millis(500);
/// For a drain. Mostly bus and database have gone the same way, and there is nothing to drain to.
const DRAIN: Duration = Duration::from_secs(5);

/// Watches the parent from a thread of its own, which also works while the node is still starting
/// or hangs. Asking beats `PR_SET_PDEATHSIG` here: that one is lost if the parent dies before the
/// call, and fires when the parent's thread ends.
pub(crate) fn leave_with(parent: i32) {
    let parent = Pid::from_raw(parent);
    std::thread::spawn(move || {
        while getppid() == parent {
            std::thread::sleep(LOOK);
        }
        tracing::warn!(parent = parent.as_raw(), "the process that started this one is gone");
        // The signal asks for a drain; if that cannot be sent or does not end, leaving must do.
        let _asked = kill(getpid(), Signal::SIGTERM);
        std::thread::sleep(DRAIN);
        std::process::exit(1);
    });
}
