use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::{Process, Tool, repository};

/// What `dev.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevState {
    /// The HTTP API.
    pub url: String,
    /// Postgres.
    pub database_url: String,
    /// nats-server.
    pub nats_url: String,
    /// The processes.
    pub pids: Pids,
}

/// The processes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pids {
    /// `tasker dev` itself.
    pub dev: i32,
    /// Postgres; 0 if it was given.
    #[serde(deserialize_with = "or_zero")]
    pub postgres: i32,
    /// nats-server; 0 if it was given.
    #[serde(deserialize_with = "or_zero")]
    pub nats: i32,
    /// One or more.
    pub orchestrators: Vec<i32>,
    /// One or more.
    pub workers: Vec<i32>,
}

fn or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Pids {
    /// All of them.
    pub fn all(&self) -> Vec<i32> {
        let single = [self.dev, self.postgres, self.nats];
        single.into_iter().chain(self.nodes()).collect()
    }

    /// Those that run Tasker's own code, without `dev`.
    pub fn nodes(&self) -> impl Iterator<Item = i32> {
        self.orchestrators.iter().chain(&self.workers).copied()
    }
}

/// The line that a ready `dev -o json` prints.
#[derive(Deserialize)]
struct Ready {
    data_dir: PathBuf,
}

/// A running `tasker dev`.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    /// An ephemeral one ends when this is closed, also when this process is killed.
    stdin: Option<ChildStdin>,
    data_dir: PathBuf,
    log: PathBuf,
}

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a stop may take; `dev` promises 20 s.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Lines of a log that are shown.
const SHOWN_LINES: usize = 15;

impl Dev {
    /// Starts a cluster in a temporary data folder that goes with it, and returns when it is ready.
    ///
    /// # Errors
    /// If it does not become ready; what it said is part of the error.
    pub fn ephemeral(
        tool: &Tool,
        arguments: &[String],
        environment: &[(&str, String)],
        log_dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = tool.command();
        command.args(["dev", "--ephemeral"]).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::start(&mut command, log_dir)
    }

    /// Starts a cluster in a data folder that stays.
    ///
    /// # Errors
    /// If it does not become ready; what it said is part of the error.
    pub fn in_folder(
        tool: &Tool,
        data_dir: &Path,
        arguments: &[String],
        log_dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = tool.tied_command();
        command.arg("dev").arg("--data-dir").arg(data_dir).args(arguments);
        Self::start(&mut command, log_dir)
    }

    fn start(command: &mut Command, log_dir: &Path) -> anyhow::Result<Self> {
        let log = log_dir.join(format!("dev-{}.log", Uuid::now_v7().simple()));
        command.args(["-o", "json"]).current_dir(repository());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let mut dev = Self { child, stdin, data_dir: PathBuf::new(), log };
        let (ready, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Whoever gave up listens no more.
                let _gave_up = ready.send(line);
            }
        });
        match said.recv_timeout(START_LIMIT) {
            Ok(line) => {
                let ready: Ready = serde_json::from_str(&line)
                    .with_context(|| format!("the ready line of `tasker dev` is {line:?}"))?;
                dev.data_dir = ready.data_dir;
                Ok(dev)
            }
            Err(error) => {
                let why = match error {
                    mpsc::RecvTimeoutError::Timeout => format!("is not ready in {START_LIMIT:?}"),
                    mpsc::RecvTimeoutError::Disconnected => "ended before it was ready".to_owned(),
                };
                // Dropping it ends it.
                bail!("`tasker dev` {why}; it said:\n{}", tail(&dev.log))
            }
        }
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What `dev.json` says now.
    ///
    /// # Errors
    /// If it is not there or malformed.
    pub fn state(&self) -> anyhow::Result<DevState> {
        let path = self.data_dir.join("dev.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// The process itself.
    ///
    /// # Errors
    /// If it has ended.
    pub fn process(&self) -> anyhow::Result<Process> {
        Process::running(self.child.id().cast_signed())
    }

    /// The ends of the logs of all of its processes.
    pub fn log_tails(&self) -> String {
        let mut text = format!("== dev\n{}\n", tail(&self.log));
        for entry in fs::read_dir(self.data_dir.join("logs")).into_iter().flatten().flatten() {
            let path = entry.path();
            text.push_str(&format!("== {}\n{}\n", path.display(), tail(&path)));
        }
        text
    }

    /// Sends a signal to it and waits until it has ended, for at most 20 s.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        self.process()?.signal(signal)?;
        self.wait(STOP_LIMIT)
    }

    /// Closes its standard input, which ends an ephemeral one, and waits for at most 20 s.
    pub(crate) fn close(&mut self) -> anyhow::Result<ExitStatus> {
        self.stdin = None;
        self.wait(STOP_LIMIT)
    }

    fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("`tasker dev` does not end within {limit:?}; it said:\n{}", tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.stdin = None;
        if let Ok(None) = self.child.try_wait() {
            // It ends by one or the other; what is left after the limit is killed.
            let _gone = self.process().and_then(|process| process.signal(Signal::SIGTERM));
            let _killed = self.wait(STOP_LIMIT);
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
