use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that is not mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    /// In clock ticks since the start of the system.
    started: u64,
}

impl Process {
    /// A running process.
    ///
    /// # Errors
    /// If there is none.
    pub fn running(pid: i32) -> anyhow::Result<Self> {
        let (_, started) = stat(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self { pid, started })
    }

    /// Its number.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs; one that has ended and not been waited for does not.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z')
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone or belongs to somebody else.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// The most memory that it ever had resident, in MiB.
    ///
    /// # Errors
    /// If it is gone.
    pub fn peak_rss_mib(self) -> anyhow::Result<f64> {
        self.mib("VmHWM:")
    }

    /// The memory that it has resident now, in MiB.
    ///
    /// # Errors
    /// If it is gone.
    pub fn rss_mib(self) -> anyhow::Result<f64> {
        self.mib("VmRSS:")
    }

    fn mib(self, field: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse().ok());
        let kib: u32 = kib.with_context(|| format!("no {field} of process {}", self.pid))?;
        Ok(f64::from(kib) / 1024.0)
    }

    /// The folder of its program.
    ///
    /// # Errors
    /// If it is gone.
    pub fn program_folder(self) -> anyhow::Result<PathBuf> {
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid))?;
        exe.parent().map(PathBuf::from).context("a program is in a folder")
    }
}

/// State and start time, from proc(5): the name before them is in parentheses and may hold any
/// character.
fn stat(pid: i32) -> Option<(char, u64)> {
    const STATE: usize = 0;
    const START_TIME: usize = 19;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.get(STATE)?.chars().next()?, fields.get(START_TIME)?.parse().ok()?))
}
