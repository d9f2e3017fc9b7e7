//! Which cluster a command talks to.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

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
    /// The token for the HTTP API. Others on this machine see what is given on a command line: a
    /// variable or a file is better
    #[arg(long, global = true, value_name = "TOKEN", env = "TASKER_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// A file with the token
    #[arg(long, global = true, value_name = "FILE", env = "TASKER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A token, which `Debug` does not show.
#[derive(Clone)]
struct Token(String);

impl FromStr for Token {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl ClusterArgs {
    /// A client of the cluster that the flags, the environment or the data folder name.
    pub(crate) fn client(&self) -> Result<Client, Exit> {
        let url = match self.url.as_deref() {
            Some(url) if !url.is_empty() => url.to_owned(),
            _ => url_of_dev(&self.data_dir)?,
        };
        Client::new(&url, self.token()?.as_deref())
    }

    /// The token that was given, or that of the file.
    fn token(&self) -> Result<Option<String>, Exit> {
        let given = self.token.as_ref().map(|token| token.0.clone()).filter(|t| !t.is_empty());
        let file = self.token_file.as_ref().filter(|path| !path.as_os_str().is_empty());
        match (given, file) {
            (Some(token), _) => Ok(Some(token)),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Exit::usage(format!("cannot read the token file {}: {error}", path.display()))
                })?;
                Ok(Some(text.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
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
    fn a_token_wins_over_a_file() {
        let path = std::env::temp_dir().join(format!("tasker-token-{}", std::process::id()));
        std::fs::write(&path, " of the file\n").expect("written");
        let args = |token: &str, token_file: &Path| ClusterArgs {
            data_dir: PathBuf::new(),
            url: None,
            token: token.parse().ok(),
            token_file: Some(token_file.to_owned()),
        };
        let token = |token, path: &Path| args(token, path).token();
        assert_eq!(token("given\n", &path), Ok(Some("given".to_owned())));
        assert_eq!(token("", &path), Ok(Some("of the file".to_owned())));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(token("", Path::new("")), Ok(None));
        token("", &path).expect_err("gone");
        let shown = format!("{:?}", args("secret-token", &path));
        assert!(!shown.contains("secret-token"), "{shown}");
    }

    #[test]
    fn a_url_wins_over_the_data_folder() {
        let args = |url: Option<&str>| ClusterArgs {
            data_dir: PathBuf::from("/does/not/exist"),
            url: url.map(str::to_owned),
            token: None,
            token_file: None,
        };
        assert!(args(Some("http://127.0.0.1:1")).client().is_ok());
        for none in [None, Some("")] {
            let error = args(none).client().expect_err("no cluster").to_string();
            assert!(error.contains("/does/not/exist (there is no dev.json)"), "{error}");
        }
    }
}
