//! Servers that a killed `dev` left behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::output;

/// A process that is certainly what it is taken for, although its pid comes from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leftover {
    pid: i32,
}

/// The process of this pid, if its program has this file name and `is_ours` is true of its folder in
/// `/proc`.
pub(super) fn find(
    pid: i32,
    program: &str,
    is_ours: impl FnOnce(&Path) -> bool,
) -> Option<Leftover> {
    let proc = process(pid);
    (runs(&proc, program) && is_ours(&proc)).then_some(Leftover { pid })
}

fn process(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn runs(proc: &Path, program: &str) -> bool {
    let Ok(exe) = std::fs::read_link(proc.join("exe")) else { return false };
    // The kernel marks a program whose file was replaced since.
    let name = exe.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(name) == program
}

/// Whether one argument of the process is exactly this path.
pub(super) fn has_argument(proc: &Path, argument: &Path) -> bool {
    let Ok(line) = std::fs::read(proc.join("cmdline")) else { return false };
    line.split(|&byte| byte == 0).any(|arg| arg == argument.as_os_str().as_encoded_bytes())
}

impl Leftover {
    /// Ends it with the first signal that works within its time.
    pub(super) async fn stop(self, name: &str, signals: &[(Signal, Duration)]) {
        output::note(&format_args!("stopping {name} (pid {}), left by an earlier run", self.pid));
        for &(signal, time) in signals {
            // It may end by itself at any moment.
            let _gone = kill(Pid::from_raw(self.pid), signal);
            let deadline = Instant::now() + time;
            while Instant::now() < deadline {
                // A process that only waits for its parent to notice has no program any more.
                if std::fs::read_link(process(self.pid).join("exe")).is_err() {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_by_its_program_and_arguments() {
        let marker = Path::new("86399.5");
        let mut child = std::process::Command::new("sleep").arg(marker).spawn().expect("sleep");
        let pid = child.id().cast_signed();
        let look =
            |program: &str, argument: &Path| find(pid, program, |p| has_argument(p, argument));
        // The child may not have become its program yet.
        while look("sleep", marker).is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(look("postgres", marker), None);
        assert_eq!(look("sleep", Path::new("86399")), None);
        let found = look("sleep", marker).expect("found");
        let signals = [(Signal::SIGTERM, Duration::from_secs(5))];
        let reaped = tokio::task::spawn_blocking(move || child.wait());
        found.stop("a test", &signals).await;
        assert!(reaped.await.expect("joined").is_ok());
        assert_eq!(look("sleep", marker), None);
    }
}
