use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// `dev.json`: where a running `tasker dev` can be reached. It exists only while that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevState {
    /// The HTTP API; stays the same while `dev` runs.
    pub(crate) url: String,
    pub(crate) database_url: String,
    pub(crate) nats_url: String,
    /// Where nats-server tells its counters, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nats_counters: Option<String>,
    pub(crate) pids: Pids,
}

/// Processes, as they were last started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pids {
    pub(crate) dev: i32,
    /// `None` if a database was given.
    pub(crate) postgres: Option<i32>,
    /// `None` if a bus was given.
    pub(crate) nats: Option<i32>,
    pub(crate) orchestrators: Vec<i32>,
    pub(crate) workers: Vec<i32>,
}

/// Why there is no state to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("there is no dev.json")]
    Absent,
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not understood: {source}")]
    Malformed { path: PathBuf, source: serde_json::Error },
}

impl DevState {
    pub(crate) fn read(data_dir: &Path) -> Result<Self, StateError> {
        let path = file(data_dir);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| StateError::Malformed { path, source }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(StateError::Absent),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Whether the `dev` that wrote it still runs; one that was killed leaves its file.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(kill(Pid::from_raw(self.pids.dev), None), Err(Errno::ESRCH))
    }

    /// Writes the file in one step: a reader sees the old or the new content. It may hold the
    /// password of a given database, and is for its owner only.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let new = data_dir.join("dev.json.new");
        let mut file_options = fs::OpenOptions::new();
        let mut out =
            file_options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")?;
        fs::rename(new, file(data_dir))
    }

    /// Removes the file, if there is one.
    pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(file(data_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.json")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_state_is_written_read_and_removed() {
        let dir = std::env::temp_dir().join(format!("tasker-state-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&dir).expect("a temporary folder");
        assert!(matches!(DevState::read(&dir), Err(StateError::Absent)));
        let pids = Pids {
            dev: std::process::id() as i32,
            postgres: None,
            nats: Some(2),
            orchestrators: vec![3],
            workers: vec![4, 5],
        };
        let state = DevState {
            url: "http://127.0.0.1:1".into(),
            database_url: "postgres://x".into(),
            nats_url: "nats://y".into(),
            nats_counters: None,
            pids,
        };
        state.write(&dir).expect("written");
        state.write(&dir).expect("overwritten");
        let read = DevState::read(&dir).expect("read");
        assert_eq!(read, state);
        assert!(read.is_alive());
        let json: Value =
            serde_json::from_slice(&fs::read(file(&dir)).expect("there")).expect("JSON");
        let pids = json!({"dev": std::process::id(), "postgres": null, "nats": 2,
            "orchestrators": [3], "workers": [4, 5]});
        assert_eq!(json["pids"], pids);
        DevState::remove(&dir).expect("removed");
        DevState::remove(&dir).expect("nothing to remove");
        fs::write(file(&dir), "{").expect("written");
        assert!(matches!(DevState::read(&dir), Err(StateError::Malformed { .. })));
        fs::remove_dir_all(&dir).expect("its removal");
    }
}
