//! One supervised child process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::account::Account;
use super::board::{Board, Slot};
use crate::output;

/// How to start, and how to end, a child.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) slot: Slot,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) without_env: Vec<&'static str>,
    /// Where it runs; here if `None`.
    pub(super) dir: Option<PathBuf>,
    /// As whom it runs; as this user if `None`.
    pub(super) account: Option<Account>,
    pub(super) log: PathBuf,
    /// `setpriv`, and the signal that the kernel is to send when `dev` dies. Our own programs see to
    /// that themselves (`--parent-pid`).
    pub(super) leash: Option<(PathBuf, Signal)>,
    /// Tried one after the other, [`INSISTENCE`] apart; [`Signal::SIGKILL`] follows.
    pub(super) stop: Vec<Signal>,
}

/// Between two signals once the time to end is up.
const INSISTENCE: Duration = Duration::from_millis(700);

/// What each start of a child begins with in its log.
pub(super) const LOG_MARK: &str = "--- started by tasker dev";

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A child that lived this long has not failed at its start.
const GOOD_LIFE: Duration = Duration::from_secs(30);

impl Program {
    fn spawn(&self) -> io::Result<Child> {
        let mut log = self.open_log()?;
        writeln!(log, "{LOG_MARK} (pid {})", std::process::id())?;
        let mut command = self.leashed();
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        self.without_env.iter().for_each(|name| {
            command.env_remove(name);
        });
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C in a terminal signals a whole process group; children are stopped in order.
        command.process_group(0);
        command.spawn()
    }

    /// The program, run by `setpriv` where there is one. The kernel watches the thread that started
    /// the child; `dev` has only one, which lives as long as the process.
    fn leashed(&self) -> Command {
        let Some((setpriv, signal)) = &self.leash else { return Command::new(&self.program) };
        let name = signal.as_str();
        let mut command = Command::new(setpriv);
        command.arg("--pdeathsig").arg(name.strip_prefix("SIG").unwrap_or(name));
        command.arg("--").arg(&self.program);
        command
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log)
    }
}

/// Keeps a child running until `stop` says by when it is to have ended.
pub(super) async fn supervise(
    program: Program,
    board: Arc<Board>,
    mut stop: watch::Receiver<Option<Instant>>,
    longest_backoff: Duration,
) {
    let mut backoff = Backoff::new(longest_backoff);
    loop {
        let started = Instant::now();
        let end = match program.spawn() {
            Ok(mut child) => {
                if let Some(pid) = child.id() {
                    board.started(program.slot, pid.cast_signed());
                }
                tokio::select! {
                    biased;
                    deadline = told_to_stop(&mut stop) => {
                        return end(child, &program, deadline).await;
                    }
                    status = child.wait() => ended(status),
                }
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        board.died(program.slot);
        let wait = backoff.after(started.elapsed());
        output::note(&format_args!(
            "{} {end}; starting it again in {} ms (log: {})",
            program.slot,
            wait.as_millis(),
            program.log.display()
        ));
        tokio::select! {
            _ = told_to_stop(&mut stop) => return,
            () = sleep(wait) => {}
        }
    }
}

fn ended(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("cannot be waited for: {error}"),
    }
}

/// The deadline, once there is one. A supervisor that is gone means at once.
async fn told_to_stop(stop: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

async fn end(mut child: Child, program: &Program, deadline: Instant) {
    let mut deadline = deadline;
    for &signal in &program.stop {
        send(&child, signal);
        tokio::select! {
            _ = child.wait() => return,
            () = sleep_until(deadline) => {}
        }
        deadline = Instant::now() + INSISTENCE;
    }
    output::note(&format_args!("{} does not end; killing it", program.slot));
    if let Err(error) = child.kill().await {
        output::note(&format_args!("cannot kill {}: {error}", program.slot));
    }
}

fn send(child: &Child, signal: Signal) {
    // No id means that it was waited for: there is nothing to signal. The same is true if it has
    // just ended.
    if let Some(pid) = child.id() {
        let _gone = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// How long to wait before the next start.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    fn new(longest: Duration) -> Self {
        Self { next: FIRST_BACKOFF.min(longest), longest }
    }

    fn after(&mut self, life: Duration) -> Duration {
        if life >= GOOD_LIFE {
            self.next = FIRST_BACKOFF.min(self.longest);
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_until_one_lives() {
        let mut backoff = Backoff::new(LONGEST_BACKOFF);
        let mut after = |life: u64| backoff.after(Duration::from_secs(life)).as_millis();
        let waits: Vec<_> = (0..7).map(|_| after(1)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!((after(30), after(29)), (200, 400));
    }

    fn shell(script: &str) -> Program {
        let log = std::env::temp_dir().join(format!("tasker-child-{}.log", uuid::Uuid::now_v7()));
        Program {
            slot: Slot::Worker(1),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            without_env: Vec::new(),
            dir: None,
            account: None,
            log,
            leash: None,
            stop: vec![Signal::SIGTERM],
        }
    }

    async fn run_and_stop(program: Program, deaths: u32) -> Duration {
        let board = Arc::new(Board::new(std::env::temp_dir()));
        let (stop, stopped) = watch::channel(None);
        let log = program.log.clone();
        let task = tokio::spawn(supervise(program, Arc::clone(&board), stopped, LONGEST_BACKOFF));
        while board.pid(Slot::Worker(1)).is_none() || board.deaths(Slot::Worker(1)) < deaths {
            sleep(Duration::from_millis(5)).await;
        }
        let asked = Instant::now();
        stop.send(Some(asked + Duration::from_millis(300))).expect("it listens");
        task.await.expect("no panic");
        std::fs::remove_file(log).expect("a log was written");
        asked.elapsed()
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again() {
        run_and_stop(shell("exit 3"), 2).await;
    }

    #[tokio::test]
    async fn a_child_that_ignores_its_signal_is_killed() {
        let time = run_and_stop(shell("trap '' TERM; while :; do sleep 0.05; done"), 0).await;
        assert!(time >= Duration::from_millis(300) && time < Duration::from_secs(5), "{time:?}");
    }
}
