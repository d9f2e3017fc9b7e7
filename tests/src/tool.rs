use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::repository;

/// The program `tasker`.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
}

/// How a run of it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Standard output as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:?}"))
    }
}

/// What would lead a command to another cluster than the one under test.
const FOREIGN: [&str; 7] = [
    "DATABASE_URL",
    "NATS_URL",
    "TASKER_URL",
    "TASKER_TOKEN",
    "TASKER_TOKEN_FILE",
    "TASKER__DATABASE__URL",
    "TASKER__NATS__URL",
];
/// Longest run of a command.
const LIMIT: Duration = Duration::from_secs(90);

impl Tool {
    /// Finds the program: `TASKER_BIN`, else beside the tests in the release folder.
    ///
    /// # Errors
    /// If it is not there.
    pub fn find() -> anyhow::Result<Self> {
        let program = match std::env::var_os("TASKER_BIN") {
            Some(path) => PathBuf::from(path),
            None => {
                let exe = std::env::current_exe()?;
                let target = exe.ancestors().nth(3).context("tests are in target/PROFILE/deps")?;
                target.join("release/tasker")
            }
        };
        Self::at(&program)
    }

    /// The program at this place.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(program: &Path) -> anyhow::Result<Self> {
        if !program.is_file() {
            bail!(
                "there is no program {}: build it with `cargo build --release -p tasker`, or set \
                 TASKER_BIN to it",
                program.display()
            );
        }
        Ok(Self { program: program.to_owned() })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command that knows of no other cluster.
    pub(crate) fn command(&self) -> Command {
        without_foreign(Command::new(&self.program))
    }

    /// The same, ended by the kernel if this process is killed, where there is `setpriv`.
    pub(crate) fn tied_command(&self) -> Command {
        let setpriv = Path::new("/usr/bin/setpriv");
        if !setpriv.is_file() {
            return self.command();
        }
        let mut command = without_foreign(Command::new(setpriv));
        command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
        command
    }

    /// Runs a command to its end in the root of the repository.
    ///
    /// # Errors
    /// If it cannot be started, is ended by a signal or takes longer than 90 s.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Ended> {
        self.run_within(LIMIT, arguments).await
    }

    /// The same of a command that may take so long.
    ///
    /// # Errors
    /// As [`Self::run`], with another limit.
    pub async fn run_within(&self, limit: Duration, arguments: &[&str]) -> anyhow::Result<Ended> {
        let mut command = tokio::process::Command::from(self.command());
        command.args(arguments).current_dir(repository()).kill_on_drop(true);
        command.stdin(Stdio::null());
        let output = tokio::time::timeout(limit, command.output());
        let output = output.await.with_context(|| format!("{arguments:?} takes too long"))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let code = output.status.code();
        let code = code.with_context(|| format!("{arguments:?} ended by a signal: {stderr}"))?;
        Ok(Ended { code, stdout, stderr })
    }
}

fn without_foreign(mut command: Command) -> Command {
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("TASKER_FAULTY_HANDLERS", "1");
    command
}
