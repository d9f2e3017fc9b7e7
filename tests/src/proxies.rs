//! Proxies in front of the servers of a cluster.
//!
//! `tasker dev` chooses the ports of its servers and tells all nodes. The servers are made to listen
//! elsewhere, and to say in a file where they were expected: that is where the proxies listen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::servers::{Changed, changed, free_port};
use crate::{Protocol, Proxy, Rule, Scratch, no_rule};

/// What judges the messages of each server's connections.
pub struct Rules {
    /// Of Postgres.
    pub postgres: Rule,
    /// Of nats-server.
    pub nats: Rule,
}

impl Default for Rules {
    fn default() -> Self {
        Self { postgres: no_rule(), nats: no_rule() }
    }
}

/// One proxy for each server.
#[derive(Debug)]
pub struct Proxies {
    /// Before Postgres; the names of its clients are those of applications.
    pub postgres: Proxy,
    /// Before nats-server; the names of its clients are those of nodes.
    pub nats: Proxy,
}

/// Between two looks for a file.
const LOOK: Duration = Duration::from_millis(2);

impl Proxies {
    /// Proxies, and variables that have `tasker dev` start servers behind them.
    pub(crate) fn new(
        scratch: &Scratch,
        rules: Rules,
    ) -> anyhow::Result<(Self, Vec<(&'static str, String)>)> {
        let folder = scratch.path().join("ports");
        fs::create_dir(&folder)?;
        // Postgres does not run as root.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let (postgres_port, nats_port) = (free_port()?, free_port()?);
        let (postgres_file, nats_file) = (folder.join("postgres"), folder.join("nats"));
        let postgres = Changed {
            before: format!("echo \"$4\" > '{}'", postgres_file.display()),
            arguments: format!("-p {postgres_port}"),
        };
        let nats = Changed {
            before: format!("sed -n 's/^port: //p' \"$2\" > '{}'", nats_file.display()),
            arguments: format!("-p {nats_port}"),
        };
        let environment = changed(scratch, &postgres, &nats)?;
        let start = |protocol, port, rule, file| Proxy::start(protocol, port, rule, expected(file));
        let postgres = start(Protocol::Postgres, postgres_port, rules.postgres, postgres_file)?;
        let nats = start(Protocol::Nats, nats_port, rules.nats, nats_file)?;
        Ok((Self { postgres, nats }, environment))
    }
}

/// The port that a server was told, once it has been started.
async fn expected(file: PathBuf) -> u16 {
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some(port) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
            return port;
        }
        tokio::time::sleep(LOOK).await;
    }
}
