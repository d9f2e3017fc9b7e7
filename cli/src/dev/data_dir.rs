use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use uuid::Uuid;

use super::postgres;
use crate::exit::Exit;
use crate::output;

/// The folder of one cluster, locked for this process.
///
/// It holds `dev.json`, `dev.lock`, `logs/`, `postgres/` (or `postgres.path`, where Postgres cannot
/// live here), `nats.conf`, `nats.pid` and `nats/`.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    ephemeral: bool,
    /// Released by the kernel, however this process ends.
    _lock: File,
}

impl DataDir {
    /// Opens or makes a folder.
    ///
    /// # Errors
    /// [`crate::exit::Code::Usage`] if another `dev` runs on it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::locked(path, false)
    }

    /// Makes a folder that [`Self::close`] removes. Others may enter it: as root, Postgres runs as
    /// another user.
    pub(super) fn ephemeral() -> anyhow::Result<Self> {
        let name = format!("tasker-dev-{}", Uuid::now_v7().simple());
        Self::locked(&std::env::temp_dir().join(name), true)
    }

    fn locked(path: &Path, ephemeral: bool) -> anyhow::Result<Self> {
        let failed = || format!("cannot use the data folder {}", path.display());
        make_folder(path, 0o755).with_context(failed)?;
        let path = path.canonicalize().with_context(failed)?;
        make_folder(&path.join("logs"), 0o755).with_context(failed)?;
        let lock = lock(&path)?;
        Ok(Self { path, ephemeral, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Removes what is not to stay.
    pub(super) fn close(self) {
        if self.ephemeral {
            postgres::remove_outside(&self.path);
            if let Err(error) = remove(&self.path) {
                output::note(&format_args!("cannot remove {}: {error}", self.path.display()));
            }
        }
    }
}

/// Removes a folder, also while a process that was killed a moment ago makes its last file in it.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    for _ in 0..40 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(Duration::from_millis(50));
            }
            end => return end,
        }
    }
    fs::remove_dir_all(path)
}

/// Makes a folder, with exactly this mode whatever the umask; one that exists stays as it is.
pub(super) fn make_folder(path: &Path, mode: u32) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("dev.lock");
    let failed = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without a readable number the message is still true.
            let _unreadable = file.read_to_string(&mut pid);
            let message = format!(
                "another `tasker dev` (pid {}) runs on {}: stop it, or choose another --data-dir",
                pid.trim(),
                dir.display()
            );
            return Err(Exit::usage(message).into());
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    file.set_len(0).with_context(failed)?;
    write!(file, "{}", std::process::id()).with_context(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner() {
        let first = DataDir::ephemeral().expect("a folder");
        let path = first.path().to_owned();
        let second = DataDir::open(&path).expect_err("locked").to_string();
        assert!(second.contains(&format!("pid {}", std::process::id())), "{second}");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o755);
        first.close();
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_ends_with_its_owner() {
        let path = std::env::temp_dir().join(format!("tasker-lock-{}", Uuid::now_v7()));
        drop(DataDir::open(&path).expect("a new folder"));
        drop(DataDir::open(&path).expect("a free folder"));
        fs::remove_dir_all(&path).expect("its removal");
    }
}
