//! Which cluster a command talks to.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::client::Client;
use crate::dev::{DevState, StateError};
use crate::exit::{Code, Exit};

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The folder of `tasker dev`: its data, and where a running one can be reached
    #[arg(long, global = true, value_name = "DIR", default_value = ".tasker")]
    pub(crate) data_dir: PathBuf,
    /// The HTTP API of a cluster; without it the `tasker dev` of the data folder is used
    #[arg(long, global = true, value_name = "URL", env = "TASKER_URL")]
    url: Option<String>,
}

impl ClusterArgs {
    /// A client of the cluster that the flags, the environment or the data folder name.
    pub(crate) fn client(&self) -> Result<Client, Exit> {
        let url = match self.url.as_deref() {
            Some(url) if !url.is_empty() => url.to_owned(),
            _ => url_of_dev(&self.data_dir)?,
        };
        Client::new(&url)
    }
}

fn url_of_dev(data_dir: &Path) -> Result<String, Exit> {
    match DevState::read(data_dir) {
        Ok(state) if state.is_alive() => Ok(state.url),
        Ok(_) => Err(none_running(data_dir, "the one that was there has died")),
        Err(StateError::Absent) => Err(none_running(data_dir, "there is no dev.json")),
        Err(error) => Err(Exit::new(Code::Failed, error.to_string())),
    }
}

fn none_running(data_dir: &Path, why: &str) -> Exit {
    let shown = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    Exit::usage(format!(
        "no `tasker dev` is ready in {} ({why}): start one, or name a cluster with --url, \
         TASKER_URL or --data-dir",
        shown.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_wins_over_the_data_folder() {
        let args = |url: Option<&str>| ClusterArgs {
            data_dir: PathBuf::from("/does/not/exist"),
            url: url.map(str::to_owned),
        };
        assert!(args(Some("http://127.0.0.1:1")).client().is_ok());
        for none in [None, Some("")] {
            let error = args(none).client().expect_err("no cluster").to_string();
            assert!(error.contains("/does/not/exist (there is no dev.json)"), "{error}");
        }
    }
}
