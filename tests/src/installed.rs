use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{Process, Tool};

/// Where `tasker` is installed, to be replaced while processes run it, as an upgrade does.
#[derive(Debug)]
pub struct Installed {
    path: PathBuf,
    tool: Tool,
}

impl Installed {
    /// Installs a build in a folder.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub(crate) fn new(folder: &Path, build: &Tool) -> anyhow::Result<Self> {
        let path = folder.join("tasker");
        fs::copy(build.program(), &path).with_context(|| path.display().to_string())?;
        Ok(Self { tool: Tool::at(&path)?, path })
    }

    /// The program, whichever build it is.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// Puts another build in its place. What runs goes on with the one before.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn replace(&self, build: &Tool) -> anyhow::Result<()> {
        let beside = self.path.with_extension("new");
        fs::copy(build.program(), &beside)
            .and_then(|_| fs::rename(&beside, &self.path))
            .with_context(|| self.path.display().to_string())
    }

    /// Whether a process runs the build that is installed now.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn is_run_by(&self, process: Process) -> anyhow::Result<bool> {
        let place = |path: PathBuf| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let runs = place(format!("/proc/{}/exe", process.pid()).into())?;
        Ok(runs == place(self.path.clone())?)
    }
}
