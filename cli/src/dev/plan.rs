use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tasker_config::{Auth, Database};

use super::{DevArgs, child, ports};
use crate::exit::Exit;
use crate::run_node;
use crate::settings::SettingsArgs;

/// Longest drain of a worker, which takes some seconds more to end: `dev` stops everything within
/// 20 s.
const MAX_DRAIN_MS: u64 = 7_000;

/// What to run, checked and with absolute paths.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) orchestrators: u16,
    pub(super) workers: u16,
    pub(super) slots: Option<u32>,
    pub(super) http: ports::Reserved,
    /// The value of `--data-root` for each worker.
    pub(super) data_roots: Vec<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) database_url: Option<String>,
    database: Database,
    pub(super) nats_url: Option<String>,
    pub(super) nats_users: bool,
    pub(super) counted: bool,
    pub(super) drain_ms: u64,
    pub(super) auth: Auth,
    pub(super) ephemeral: bool,
    pub(super) longest_backoff: Duration,
}

impl Plan {
    pub(super) fn new(args: DevArgs) -> Result<Self, Exit> {
        // Loaded here to find a mistake now and not in the log of a child that cannot start.
        let settings = SettingsArgs {
            config: args.config.clone(),
            development: true,
            ..SettingsArgs::default()
        };
        let settings = settings.load([])?.settings;
        let roots =
            if args.data_root.is_empty() { vec![PathBuf::from(".")] } else { args.data_root };
        let data_roots = roots.iter().map(|root| folder(root)).collect::<Result<Vec<_>, _>>()?;
        run_node::data_roots(&data_roots)?;
        let given = |url: Option<String>| url.filter(|url| !url.is_empty());
        Ok(Self {
            orchestrators: args.orchestrators,
            workers: args.workers,
            slots: args.slots,
            http: reserve(args.http)?,
            data_roots,
            config: args.config.map(|path| std::path::absolute(&path).unwrap_or(path)),
            database_url: given(args.database_url),
            database: settings.database,
            nats_url: given(args.nats_url),
            nats_users: args.nats_users,
            counted: args.counted,
            drain_ms: settings.worker.drain_ms.min(MAX_DRAIN_MS),
            auth: settings.api.auth,
            ephemeral: args.ephemeral,
            longest_backoff: args.restart_ms.map_or(child::LONGEST_BACKOFF, Duration::from_millis),
        })
    }

    /// The settings of the database at this address.
    pub(super) fn database(&self, url: &str) -> Database {
        Database { url: url.to_owned(), ..self.database.clone() }
    }
}

fn folder(path: &Path) -> Result<PathBuf, Exit> {
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => Err(Exit::usage(format!("--data-root {}: is not a folder", path.display()))),
        Err(error) => Err(Exit::usage(format!("--data-root {}: {error}", path.display()))),
    }
}

fn reserve(http: Option<SocketAddr>) -> Result<ports::Reserved, Exit> {
    let address = match http {
        Some(address) if !address.ip().is_loopback() => {
            let message = "`tasker dev` is for this machine alone: its API is served on loopback";
            return Err(Exit::usage(format!("--http {address}: {message}")));
        }
        Some(address) if address.port() != 0 => address,
        Some(address) => SocketAddr::new(address.ip(), free_port()?),
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
    };
    ports::reserve(address).map_err(|e| Exit::usage(format!("--http {address}: {e}")))
}

fn free_port() -> Result<u16, Exit> {
    ports::free().map_err(|e| Exit::usage(format!("no free port: {e}")))
}
