use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

/// A folder that others may enter (as root, Postgres runs as another user) and that goes with its
/// owner.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a folder.
    ///
    /// # Errors
    /// If the system's folder for temporary files is not writable.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tasker-tests-{}", Uuid::now_v7().simple()));
        let made = DirBuilder::new().mode(0o755).create(&path);
        made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file and returns its path as text.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<String> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on its removal.
        let _busy = fs::remove_dir_all(&self.path);
    }
}
