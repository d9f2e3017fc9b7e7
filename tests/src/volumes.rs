//! Disks that are small, can be full, and get room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sys::statvfs::statvfs;

use crate::Scratch;
use crate::servers::{Changed, changed};

/// A file system in memory. It needs root, and goes with this value.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

/// What a volume may hold when it is not full; memory is used only for what it does hold.
const ROOM: &str = "4g";

impl Volume {
    fn mount(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={ROOM},mode=0777"))
            .arg("tasker-tests")
            .arg(&path))
        .context("these tests mount file systems, and need root for it")?;
        Ok(Self { path })
    }

    /// Leaves no room for anything.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn fill(&self) -> anyhow::Result<()> {
        // It cannot be made smaller than what it holds, which may have grown since the look at it.
        (0..100).find_map(|_| self.shrink().ok()).context("it grows and grows")
    }

    fn shrink(&self) -> anyhow::Result<()> {
        let now = statvfs(&self.path)?;
        let used = (now.blocks() - now.blocks_free()) * now.fragment_size();
        self.resize(&used.to_string())
    }

    /// Gives it room again.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn make_room(&self) -> anyhow::Result<()> {
        self.resize(ROOM)
    }

    fn resize(&self, size: &str) -> anyhow::Result<()> {
        run(Command::new("mount").arg("-o").arg(format!("remount,size={size}")).arg(&self.path))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: somebody may be about to end in it.
        let _unmounted = run(Command::new("umount").arg("-l").arg(&self.path));
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// One volume for what each server stores. Logs and the rest of a cluster's data are elsewhere.
#[derive(Debug)]
pub struct Volumes {
    /// Tables and the write-ahead log of Postgres.
    pub postgres: Volume,
    /// The streams of nats-server.
    pub nats: Volume,
}

impl Volumes {
    /// Volumes, and variables that have `tasker dev` start servers that store on them.
    pub(crate) fn new(scratch: &Scratch) -> anyhow::Result<(Self, Vec<(&'static str, String)>)> {
        let postgres = Volume::mount(scratch.path().join("postgres-volume"))?;
        let nats = Volume::mount(scratch.path().join("nats-volume"))?;
        let before = |text: String| Changed { before: text, ..Changed::default() };
        let environment = changed(
            scratch,
            &before(moved(&["base", "pg_wal"], "$2", &postgres.path)),
            &before(moved(&["nats"], "$(dirname \"$2\")", &nats.path)),
        )?;
        Ok((Self { postgres, nats }, environment))
    }
}

/// Shell that moves folders of a data folder to a volume before the first start.
fn moved(names: &[&str], folder: &str, volume: &Path) -> String {
    let volume = volume.display();
    let move_one = |name: &&str| {
        format!(
            "[ -L \"{folder}/{name}\" ] || {{ mkdir -p -m 700 \"{folder}/{name}\"; \
             cp -a \"{folder}/{name}\" '{volume}/{name}'; rm -r \"{folder}/{name}\"; \
             ln -s '{volume}/{name}' \"{folder}/{name}\"; }}; "
        )
    };
    names.iter().map(move_one).collect()
}
