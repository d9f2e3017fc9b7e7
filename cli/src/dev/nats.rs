//! A private nats-server.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use tasker_config::Secret;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::board::Slot;
use super::child::Program;
use super::data_dir::DataDir;
use super::{binaries, leftover, ports};

/// A nats-server that is configured and not running.
#[derive(Debug)]
pub(super) struct Nats {
    program: PathBuf,
    config: PathBuf,
    port: u16,
    log: PathBuf,
    users: Option<Users>,
    /// Where it tells its counters.
    monitor: Option<u16>,
}

/// The users of a deployment, with passwords of this run.
#[derive(Debug, Clone)]
pub(super) struct Users {
    password: Secret,
}

impl Users {
    fn new() -> Self {
        Self {
            password: Secret::new(format!(
                "{}{}",
                Uuid::now_v7().simple(),
                Uuid::now_v7().simple()
            )),
        }
    }

    /// The environment of a node that is this user.
    pub(super) fn environment(&self, user: &str) -> [(&'static str, String); 2] {
        [
            ("TASKER__NATS__USER", user.to_owned()),
            ("TASKER__NATS__PASSWORD", self.password.expose().to_owned()),
        ]
    }

    /// A part of the configuration: who names no user is somebody on this machine, who may do everything
    /// as without users.
    fn configuration(&self) -> String {
        let users = tasker_bus::users(&[], &[]);
        let password = self.password.expose();
        let passwords: String = users
            .iter()
            .map(|user| format!("{}: \"{password}\"\n", user.password_variable))
            .collect();
        let nobody = format!("  users: [\n    {{ user: \"nobody\", password: \"{password}\" }}\n");
        let text = tasker_bus::server_users(&users).replacen("  users: [\n", &nobody, 1);
        format!("{passwords}no_auth_user: \"nobody\"\n{text}")
    }
}

impl Nats {
    pub(super) async fn prepare(
        data: &DataDir,
        with_users: bool,
        counted: bool,
    ) -> anyhow::Result<Self> {
        let program = binaries::nats_server()?;
        let config = data.path().join("nats.conf");
        let pid_file = data.path().join("nats.pid");
        stop_leftover(&config, &pid_file).await;
        let port = ports::free()?;
        let mut text = configuration(port, &data.path().join("nats"), &pid_file);
        let users = with_users.then(Users::new);
        text.extend(users.as_ref().map(Users::configuration));
        let monitor = counted.then(ports::free).transpose()?;
        text.extend(monitor.map(|port| format!("http: \"127.0.0.1:{port}\"\n")));
        write_private(&config, &text)
            .with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { program, config, port, log: data.log("nats-server"), users, monitor })
    }

    pub(super) fn users(&self) -> Option<&Users> {
        self.users.as_ref()
    }

    pub(super) fn counters(&self) -> Option<String> {
        self.monitor.map(|port| format!("http://127.0.0.1:{port}/varz"))
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(super) fn program(&self) -> Program {
        Program {
            slot: Slot::Nats,
            program: self.program.clone(),
            args: vec!["-c".into(), self.config.clone().into()],
            env: memory_target(std::env::var_os(MEMORY_TARGET.0).as_deref()),
            without_env: Vec::new(),
            dir: None,
            account: None,
            log: self.log.clone(),
            leash: binaries::setpriv().map(|setpriv| (setpriv, Signal::SIGTERM)),
            stop: vec![Signal::SIGTERM],
        }
    }

    /// Whether the server greets clients, which it does after JetStream has started.
    pub(super) async fn is_ready(&self) -> bool {
        let greeting = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let mut first = [0; 5];
            stream.read_exact(&mut first).await.ok()?;
            (&first == b"INFO ").then_some(())
        };
        timeout(Duration::from_secs(1), greeting).await.is_ok_and(|greeted| greeted.is_some())
    }
}

/// What the Go runtime of the server tries to stay below, which it does not by itself: it lets garbage grow
/// to as much as is in use. Whoever has said something else in the environment is asked first.
const MEMORY_TARGET: (&str, &str) = ("GOMEMLIMIT", "208MiB");

fn memory_target(said: Option<&OsStr>) -> Vec<(&'static str, String)> {
    let (name, target) = MEMORY_TARGET;
    if said.is_some() { Vec::new() } else { vec![(name, target.to_owned())] }
}

/// As `config/nats/nats.conf`, on loopback.
fn configuration(port: u16, store: &Path, pid_file: &Path) -> String {
    format!(
        "server_name: \"tasker-dev\"\n\
         host: \"127.0.0.1\"\n\
         port: {port}\n\
         pid_file: {}\n\
         max_payload: 8MB\n\
         jetstream {{\n  store_dir: {}\n  max_file_store: 20GB\n  max_memory_store: 1GB\n}}\n\
         feature_flags {{\n  js_ack_fc_v2: false\n}}\n",
        quoted(pid_file),
        quoted(store)
    )
}

/// Writes a file that may hold passwords: for its owner only.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// A path as a text of the configuration language, which escapes as JSON does.
fn quoted(path: &Path) -> String {
    Value::from(path.to_string_lossy()).to_string()
}

async fn stop_leftover(config: &Path, pid_file: &Path) {
    let Ok(text) = fs::read_to_string(pid_file) else { return };
    let Ok(pid) = text.trim().parse() else { return };
    let is_ours = |proc: &Path| leftover::has_argument(proc, config);
    if let Some(server) = leftover::find(pid, "nats-server", is_ours) {
        let signals =
            [(Signal::SIGTERM, Duration::from_secs(5)), (Signal::SIGKILL, Duration::from_secs(5))];
        server.stop("nats-server", &signals).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_passwords_of_one_run() {
        let users = Users::new();
        let text = users.configuration();
        let [_, (_, password)] = users.environment("worker");
        assert!(text.contains(&format!("TASKER_NATS_WORKER_PASSWORD: \"{password}\"")), "{text}");
        assert!(text.contains("{ user: \"nobody\""), "{text}");
        assert!(!format!("{users:?}").contains(&password));
        assert_ne!(Users::new().environment("worker")[1].1, password);
    }

    #[test]
    fn a_memory_target_is_kept_where_there_is_one() {
        assert_eq!(memory_target(Some(OsStr::new("1GiB"))), []);
        assert_eq!(memory_target(None), [("GOMEMLIMIT", "208MiB".to_owned())]);
    }

    #[test]
    fn paths_are_quoted() {
        let text = configuration(1, Path::new("/a \"b\"/c"), Path::new("/p"));
        assert!(text.contains(r#"store_dir: "/a \"b\"/c""#), "{text}");
        assert!(text.contains("pid_file: \"/p\""), "{text}");
    }
}
