//! A real nats-server for tests. Also used by the tests of the worker node.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tasker_config::{Loader, Settings};

/// A nats-server of its own, with JetStream in a private folder; killed when dropped.
pub(crate) struct TestServer {
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
    /// What its configuration says beside port and store.
    more: String,
}

/// The binary: `$TASKER_NATS_SERVER`, else what `scripts/setup` installs.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TASKER_NATS_SERVER") {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join(".local/bin/nats-server");
    assert!(
        path.exists(),
        "no nats-server for the tests: run `make setup`, or name one in TASKER_NATS_SERVER"
    );
    path
}

/// A free port, which no other test of this process has had: until its server listens, the kernel would
/// give it to the next one as well.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("no panic").insert(port) {
            return port;
        }
    }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With more in its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("tasker-nats-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the store");
        let mut server = Self { child: None, port, folder, more: more.to_owned() };
        server.run();
        server
    }

    /// Starts the server again after [`Self::kill`], on the same port and store.
    pub(crate) fn run(&mut self) {
        let config = self.folder.join("nats.conf");
        let text = format!(
            "host: 127.0.0.1\nport: {}\nmax_payload: 8MB\njetstream {{ store_dir: {:?} }}\n\
             feature_flags {{ js_ack_fc_v2: false }}\n{}\n",
            self.port,
            self.folder.join("store"),
            self.more
        );
        std::fs::write(&config, text).expect("a configuration");
        let log = std::fs::File::create(self.folder.join("log")).expect("a log");
        let child = Command::new(binary())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(10);
        while !self.answers() {
            assert!(Instant::now() < until, "nats-server is not ready; see {:?}", self.folder);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether a client is greeted.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        let _unsupported = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).is_ok() && &greeting == b"INFO"
    }

    /// Ends the server by a signal: what is still in memory is written after `TERM` and lost after
    /// `KILL`.
    pub(crate) fn end(&mut self, signal: &str) {
        self.tell(signal);
        if let Some(mut child) = self.child.take() {
            let _status = child.wait();
        }
    }

    /// Sends the server a signal, if it runs. When it is told to stop, none of its threads does anything any
    /// more.
    pub(crate) fn tell(&self, signal: &str) {
        if let Some(child) = &self.child {
            let told = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
            assert!(told.is_ok_and(|status| status.success()), "nats-server is told {signal}");
            while signal == "STOP" && !is_stopped(child.id()) {
                std::thread::yield_now();
            }
        }
    }

    /// Forgets everything that JetStream stored.
    pub(crate) fn wipe(&self) {
        let _missing = std::fs::remove_dir_all(self.folder.join("store"));
    }

    /// The default settings, with this server's address.
    pub(crate) fn settings(&self) -> Settings {
        let url = format!("nats://127.0.0.1:{}", self.port);
        let loader = Loader::new().and_then(|l| l.flag("nats.url", &url, "test"));
        loader.and_then(Loader::load).expect("valid settings").settings
    }
}

/// Whether each thread of a process is stopped, or dead, by proc(5); the name before its state is in
/// parentheses.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.end("KILL");
        if !std::thread::panicking() {
            let _busy = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Waits for something, with a limit that is never reached unless something is broken.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out: {what}"),
    }
}
