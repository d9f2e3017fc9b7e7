use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, ensure};
use tasker_bus::Bus;
use tasker_config::Loader;
use tokio::sync::Mutex;

use crate::hurt::Around;
use crate::{Api, Database, Dev, DevState, Process, Scratch, Tool, Wire, data_file};

/// A running cluster in processes of its own. It ends with this value, at the latest with this
/// process.
#[derive(Debug)]
pub struct Cluster {
    dev: Dev,
    tool: Tool,
    /// What is there for its servers is here after `dev`, which ends before it.
    around: Around,
    scratch: Scratch,
    /// Of the cluster that is shared: those that have to live until the end.
    nodes: Vec<Process>,
    /// Of an administrator, where tokens are needed.
    token: Option<String>,
}

/// The cluster of the tests that leave it as they found it, while there is such a test.
static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());
/// The same of those that need tokens.
static SHARED_WITH_TOKENS: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());

/// Steps that each worker runs at a time.
const SLOTS: u32 = 32;

/// Templates that every test may use.
const TEMPLATES: [&str; 12] = [
    "abort",
    "always_fail",
    "any_outcome",
    "fail_permanently",
    "fail_twice_then_succeed",
    "large_result",
    "missing_handler",
    "nul_result",
    "panic",
    "sleep",
    "slow_batch",
    "timeout",
];

impl Cluster {
    /// Starts a cluster and returns when tasks can be submitted.
    ///
    /// # Errors
    /// If it does not become ready; the ends of its logs are part of the error.
    pub async fn start(orchestrators: u32, workers: u32) -> anyhow::Result<Self> {
        Self::with_settings(orchestrators, workers, "").await
    }

    /// The same with a file of settings.
    ///
    /// # Errors
    /// If it does not become ready; the ends of its logs are part of the error.
    pub async fn with_settings(
        orchestrators: u32,
        workers: u32,
        settings: &str,
    ) -> anyhow::Result<Self> {
        Self::with_servers(orchestrators, workers, settings, |_| Ok(Vec::new())).await
    }

    /// A cluster that answers nobody without a token, with more settings of the section `api` and of
    /// others behind it. [`Self::api`] has a token of an administrator.
    ///
    /// # Errors
    /// If it does not become ready; the ends of its logs are part of the error.
    pub async fn with_tokens(
        settings: &str,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let (tool, scratch) = (Tool::find()?, Scratch::new()?);
        let mut arguments = Self::arguments(2, 2, scratch.path());
        if environment.iter().any(|(name, _)| *name == "NATS_URL") {
            // That server has users of its own, or none.
            arguments.retain(|argument| argument != "--nats-users");
        }
        let settings = format!("[api]\nauth = \"tokens\"\n{settings}");
        arguments.extend(["--config".to_owned(), scratch.write("tasker.toml", settings)?]);
        let dev = Dev::ephemeral(&tool, &arguments, environment, scratch.path())?;
        let mut cluster = Self::of(dev, tool, scratch, Around::default());
        let token = cluster.token("tests --role admin --all-namespaces").await?;
        cluster.token = Some(token);
        cluster.register_templates().await?;
        Ok(cluster)
    }

    /// The cluster with tokens that is shared by all tests that break nothing.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn shared_with_tokens() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED_WITH_TOKENS.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let cluster = Arc::new(Self::with_tokens("", &[]).await?);
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    pub(crate) fn of(dev: Dev, tool: Tool, scratch: Scratch, around: Around) -> Self {
        Self { dev, tool, around, scratch, nodes: Vec::new(), token: None }
    }

    pub(crate) fn around(&self) -> &Around {
        &self.around
    }

    /// Makes a token as a user does: `tasker token create` with these arguments.
    ///
    /// # Errors
    /// If it is not made.
    pub async fn token(&self, arguments: &str) -> anyhow::Result<String> {
        let data_dir = self.dev.data_dir().display().to_string();
        let create = ["--data-dir", &data_dir, "token", "create", "-o", "ids"];
        let create: Vec<&str> = create.into_iter().chain(arguments.split_whitespace()).collect();
        let made = self.tool.run(&create).await?;
        ensure!(made.code == 0, "{made:?}");
        Ok(made.stdout.trim_end().to_owned())
    }

    /// The same with other servers: what `environment` has put into the folder of the tests, and told
    /// by variables.
    pub(crate) async fn with_servers(
        orchestrators: u32,
        workers: u32,
        settings: &str,
        environment: impl FnOnce(&Scratch) -> anyhow::Result<Vec<(&'static str, String)>>,
    ) -> anyhow::Result<Self> {
        let (tool, scratch) = (Tool::find()?, Scratch::new()?);
        let environment = environment(&scratch)?;
        let mut arguments = Self::arguments(orchestrators, workers, scratch.path());
        if !settings.is_empty() {
            arguments.extend(["--config".to_owned(), scratch.write("tasker.toml", settings)?]);
        }
        let dev = Dev::ephemeral(&tool, &arguments, &environment, scratch.path())?;
        let cluster = Self::of(dev, tool, scratch, Around::default());
        cluster.register_templates().await?;
        Ok(cluster)
    }

    /// What follows `tasker dev`: files are read below the examples' data and one more folder.
    pub fn arguments(orchestrators: u32, workers: u32, data_root: &Path) -> Vec<String> {
        let pairs = [
            ("--orchestrators", orchestrators.to_string()),
            ("--workers", workers.to_string()),
            ("--slots", SLOTS.to_string()),
            ("--data-root", data_file("").display().to_string()),
            ("--data-root", data_root.display().to_string()),
        ];
        let pairs = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        // What a deployment forbids its nodes must not be what a test needs.
        pairs.chain(["--nats-users".to_owned()]).collect()
    }

    /// The cluster that is shared by all tests that break nothing: two orchestrators and three
    /// workers. It ends after the last of them; none of its nodes may die meanwhile.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn shared() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let mut cluster = Self::start(2, 3).await?;
        let pids = cluster.state()?.pids;
        cluster.nodes = pids.nodes().map(Process::running).collect::<Result<_, _>>()?;
        let cluster = Arc::new(cluster);
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    async fn register_templates(&self) -> anyhow::Result<()> {
        let api = self.api()?;
        for name in TEMPLATES {
            api.register(&crate::template(name)?)
                .await
                .with_context(|| format!("template {name}"))?;
        }
        Ok(())
    }

    /// `tasker dev`.
    pub fn dev(&self) -> &Dev {
        &self.dev
    }

    /// The program `tasker`.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// A folder whose files handlers may read.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// What `dev.json` says now.
    ///
    /// # Errors
    /// If it is not there.
    pub fn state(&self) -> anyhow::Result<DevState> {
        self.dev.state()
    }

    /// A client of the HTTP API for one test.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn api(&self) -> anyhow::Result<Api> {
        Ok(Api::new(&self.state()?.url)?.with_token(self.token.as_deref()))
    }

    /// The rows behind it.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn database(&self) -> anyhow::Result<Database> {
        Database::of(&self.state()?)
    }

    /// A connection to its bus, as Tasker's own programs have it.
    ///
    /// # Errors
    /// If it is not connected soon.
    pub async fn bus(&self) -> anyhow::Result<Bus> {
        let url = self.state()?.nats_url;
        let settings = Loader::new()?.flag("nats.url", &url, "tests")?.load()?.settings;
        let bus = Bus::connect(&settings.nats, "tasker-tests").await?;
        bus.wait_connected(Duration::from_secs(10)).await?;
        Ok(bus)
    }

    /// A connection to its bus, as a foreign program has it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn wire(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.state()?.nats_url).await
    }

    fn check_nodes(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            ensure!(node.is_alive(), "process {} of the shared cluster died", node.pid());
        }
        Ok(())
    }

    /// Keeps the logs where `TASKER_TEST_LOGS` says, if it says so.
    fn keep_logs(&self) {
        let Some(folder) = std::env::var_os("TASKER_TEST_LOGS") else { return };
        let name = self.dev.data_dir().file_name().unwrap_or_default();
        let folder = Path::new(&folder).join(name);
        let logs = fs::read_dir(self.dev.data_dir().join("logs")).into_iter().flatten().flatten();
        if fs::create_dir_all(&folder).is_ok() {
            for log in logs {
                // It is a help for people; no test depends on it.
                let _unwritable = fs::copy(log.path(), folder.join(log.file_name()));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keep_logs();
        if std::thread::panicking() {
            // Shown with the test that failed.
            #[expect(clippy::print_stderr, reason = "libtest shows it with the failed test")]
            {
                eprintln!("{}", self.dev.log_tails());
            }
            return;
        }
        let nodes = self.check_nodes();
        let logs = if nodes.is_err() { self.dev.log_tails() } else { String::new() };
        let closed = self.dev.close();
        if let Err(error) = nodes {
            panic!("{error}\n{logs}");
        }
        match closed {
            Ok(status) => assert!(status.success(), "`tasker dev` ended with {status}"),
            Err(error) => panic!("{error:#}"),
        }
    }
}
