use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use nix::unistd::{Uid, User};
use tokio::process::Command;

use crate::exit::Exit;

/// Whom Postgres runs as when this process is root, which it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` if this process is not root and Postgres can run as the same user.
    pub(super) fn for_postgres() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            let user = User::from_name(name).with_context(|| format!("looking up user {name}"))?;
            if let Some(User { uid, gid, .. }) = user {
                return Ok(Some(Self { uid: uid.as_raw(), gid: gid.as_raw() }));
            }
        }
        let message = "Postgres does not run as root, and there is neither a user `postgres` nor \
                       `nobody`: run `tasker dev` as another user";
        Err(Exit::usage(message).into())
    }

    /// The owner of what exists.
    pub(super) fn owner_of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self { uid: metadata.uid(), gid: metadata.gid() })
    }

    pub(super) fn is_root(self) -> bool {
        Uid::from_raw(self.uid).is_root()
    }

    /// Whether it can use things in this folder: decided by doing it, because permissions of every
    /// folder above, mount options and security modules all have a say.
    pub(super) async fn can_enter(self, folder: &Path) -> anyhow::Result<bool> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd -- \"$0\""]).arg(folder).current_dir("/");
        command.uid(self.uid).gid(self.gid);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().await;
        let status = status.with_context(|| format!("starting a program as user {}", self.uid))?;
        Ok(status.success())
    }
}
