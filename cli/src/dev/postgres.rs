//! A private Postgres.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::account::Account;
use super::board::Slot;
use super::child::Program;
use super::data_dir::{self, DataDir, make_folder};
use super::{binaries, leftover, ports};

/// Where Postgres lives if it cannot live in the data folder.
const OUTSIDE: &str = "/var/lib/tasker-dev";
/// In the data folder: where Postgres lives instead.
const RECORD: &str = "postgres.path";
const DATABASE: &str = "tasker";

/// Given on the command line and not in a file: as root we write nothing into a folder that belongs
/// to another user. Durability is that of a production server; the rest suits one machine.
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=100",
    "shared_buffers=256MB",
    "fsync=on",
    "synchronous_commit=on",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "autovacuum=on",
    "jit=off",
    "logging_collector=off",
];

/// A database cluster that is initialised and not running.
#[derive(Debug)]
pub(super) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    account: Option<Account>,
    port: u16,
    log: PathBuf,
    counted: bool,
}

impl Postgres {
    pub(super) async fn prepare(
        data: &DataDir,
        ephemeral: bool,
        counted: bool,
    ) -> anyhow::Result<Self> {
        let mut account = Account::for_postgres()?;
        let dir = place(data.path(), account).await?;
        stop_leftover(&dir).await;
        let major = existing_version(&dir)?;
        let bin = binaries::postgres(major)?;
        if major.is_none() {
            initialise(&bin, &dir, account, ephemeral).await?;
        } else if account.is_some() {
            account = Some(Account::owner_of(&dir)?).filter(|owner| !owner.is_root()).or(account);
        }
        Ok(Self { bin, dir, account, port: ports::free()?, log: data.log("postgres"), counted })
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{DATABASE}", self.port)
    }

    pub(super) fn program(&self) -> Program {
        let mut args = vec![OsString::from("-D"), self.dir.clone().into()];
        args.extend(["-p".into(), self.port.to_string().into()]);
        let counting = self.counted.then_some("shared_preload_libraries=pg_stat_statements");
        for setting in SETTINGS.into_iter().chain(counting) {
            args.extend(["-c".into(), setting.into()]);
        }
        Program {
            slot: Slot::Postgres,
            program: self.bin.join("postgres"),
            args,
            env: Vec::new(),
            without_env: vec!["PGDATA", "PGPORT"],
            // The account may not be allowed to be where we are.
            dir: Some(PathBuf::from("/")),
            account: self.account,
            log: self.log.clone(),
            leash: binaries::setpriv().map(|setpriv| (setpriv, Signal::SIGINT)),
            // Fast shutdown, then immediate shutdown.
            stop: vec![Signal::SIGINT, Signal::SIGQUIT],
        }
    }

    /// Whether the server of this pid takes connections; what `pg_ctl --wait` looks at.
    pub(super) fn is_ready(&self, pid: i32) -> bool {
        let Ok(text) = fs::read_to_string(self.dir.join("postmaster.pid")) else { return false };
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }
}

/// Removes what was put outside of a data folder.
pub(super) fn remove_outside(data_dir: &Path) {
    // Mostly there is nothing, and then nothing needs to be done.
    let place = outside(data_dir);
    let _absent = data_dir::remove(&place.with_extension("new"));
    let _absent = data_dir::remove(&place);
}

/// A folder of its own for each data folder.
fn outside(data_dir: &Path) -> PathBuf {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Path::new(OUTSIDE).join(name)
}

async fn place(data_dir: &Path, account: Option<Account>) -> anyhow::Result<PathBuf> {
    let record = data_dir.join(RECORD);
    if let Ok(place) = fs::read_to_string(&record) {
        return Ok(PathBuf::from(place.trim_end_matches('\n')));
    }
    let inside = data_dir.join("postgres");
    let Some(account) = account else { return Ok(inside) };
    if inside.exists() || account.can_enter(data_dir).await? {
        return Ok(inside);
    }
    let place = outside(data_dir);
    make_folder(Path::new(OUTSIDE), 0o755)
        .and_then(|()| fs::write(&record, format!("{}\n", place.display())))
        .with_context(|| format!("cannot prepare {} for Postgres", place.display()))?;
    Ok(place)
}

/// The major version of the data, if there are any.
fn existing_version(dir: &Path) -> anyhow::Result<Option<u32>> {
    let path = dir.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => bail!("{} does not hold a version", path.display()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes the database cluster beside its place and moves it there when it is complete, so that a
/// kill in the middle leaves nothing that looks finished.
async fn initialise(
    bin: &Path,
    dir: &Path,
    account: Option<Account>,
    ephemeral: bool,
) -> anyhow::Result<()> {
    let failed = || format!("cannot make a database in {}", dir.display());
    let new = dir.with_extension("new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(failed);
        }
        _ => {}
    }
    make_folder(&new, 0o700).with_context(failed)?;
    if let Some(Account { uid, gid }) = account {
        chown(&new, Some(uid), Some(gid)).with_context(failed)?;
    }
    let mut initdb = command(bin, "initdb", account);
    initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-D"]).arg(&new);
    if ephemeral {
        initdb.arg("--no-sync");
    }
    run(initdb, "").await.with_context(failed)?;
    // The single-user server is always there; `createdb` belongs to another package.
    let mut single = command(bin, "postgres", account);
    single.arg("--single").arg("-D").arg(&new).arg("postgres");
    let said = run(single, &format!("CREATE DATABASE {DATABASE};\n")).await.with_context(failed)?;
    if said.contains("ERROR") {
        bail!("{}: {said}", failed());
    }
    fs::rename(&new, dir).with_context(failed)
}

fn command(bin: &Path, program: &str, account: Option<Account>) -> Command {
    let mut command = Command::new(bin.join(program));
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C").process_group(0);
    command
}

/// Runs a program to its end and returns what it said.
async fn run(mut command: Command, input: &str) -> anyhow::Result<String> {
    let program = command.as_std().get_program().display().to_string();
    let failed = || format!("running {program}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(failed)?;
    let guard = Group(child.id());
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.with_context(failed)?;
    }
    let output = child.wait_with_output().await.with_context(failed)?;
    guard.ended();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(said)
}

/// A process group that dies when this is dropped: `initdb` starts processes of its own, and `dev`
/// may be told to stop while they are at work.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // All of it may have ended by itself.
            let _gone = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

async fn stop_leftover(dir: &Path) {
    let Ok(text) = fs::read_to_string(dir.join("postmaster.pid")) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
    // The postmaster works in its data folder; a backend does too, but is in no pid file.
    let is_ours = |proc: &Path| fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == dir);
    if let Some(server) = leftover::find(pid, "postgres", is_ours) {
        let signals = [
            (Signal::SIGINT, Duration::from_secs(10)),
            (Signal::SIGQUIT, Duration::from_secs(5)),
            (Signal::SIGKILL, Duration::from_secs(5)),
        ];
        server.stop("Postgres", &signals).await;
    }
}
