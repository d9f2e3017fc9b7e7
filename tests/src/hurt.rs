//! Clusters that are meant to be hurt, and what the tests put around their processes.

use std::fs;

use anyhow::Context;

use crate::{Clock, Cluster, Dev, Installed, Proxies, Rules, Scratch, Tool, Volumes};

/// What the tests have put around the processes of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Around {
    proxies: Option<Proxies>,
    volumes: Option<Volumes>,
    clock: Option<Clock>,
    installed: Option<Installed>,
}

impl Cluster {
    /// A cluster that is meant to be hurt: two orchestrators and three workers, which write down in the
    /// folder `ledger` of [`Self::scratch`] what the handlers of `chaos` run, and are started again at
    /// once when they die.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn for_faults() -> anyhow::Result<Self> {
        to_be_hurt(Scratch::new()?, Vec::new(), Around::default())
    }

    /// The same with proxies between its nodes and its servers.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn behind_proxies(rules: Rules) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let (proxies, environment) = Proxies::new(&scratch, rules)?;
        let around = Around { proxies: Some(proxies), ..Around::default() };
        to_be_hurt(scratch, environment, around)
    }

    /// The same with servers that store on volumes of their own, which needs root.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn on_volumes() -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let (volumes, environment) = Volumes::new(&scratch)?;
        let around = Around { volumes: Some(volumes), ..Around::default() };
        to_be_hurt(scratch, environment, around)
    }

    /// The same with nodes whose clocks can be wrong, which needs libfaketime.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn with_clock() -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let (clock, environment) = Clock::new(&scratch)?;
        let around = Around { clock: Some(clock), ..Around::default() };
        to_be_hurt(scratch, environment, around)
    }

    /// The same of another build: nodes run what is installed when they are started. [`Self::tool`] is the
    /// build under test.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn of_build(build: &Tool) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let installed = Installed::new(scratch.path(), build)?;
        let around = Around { installed: Some(installed), ..Around::default() };
        to_be_hurt(scratch, Vec::new(), around)
    }

    /// What stands before its servers.
    ///
    /// # Errors
    /// If nothing does.
    pub fn proxies(&self) -> anyhow::Result<&Proxies> {
        self.around().proxies.as_ref().context("a cluster without proxies")
    }

    /// Where its servers store.
    ///
    /// # Errors
    /// If it is in the data folder.
    pub fn volumes(&self) -> anyhow::Result<&Volumes> {
        self.around().volumes.as_ref().context("a cluster without volumes")
    }

    /// What its nodes take for the time of day.
    ///
    /// # Errors
    /// If they go by the clock of this machine.
    pub fn clock(&self) -> anyhow::Result<&Clock> {
        self.around().clock.as_ref().context("a cluster without a clock of its own")
    }

    /// What its nodes run when they are started.
    ///
    /// # Errors
    /// If that is always the build under test.
    pub fn installed(&self) -> anyhow::Result<&Installed> {
        self.around().installed.as_ref().context("a cluster of one build")
    }
}

fn to_be_hurt(
    scratch: Scratch,
    mut environment: Vec<(&'static str, String)>,
    around: Around,
) -> anyhow::Result<Cluster> {
    let tool = Tool::find()?;
    let folder = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).map(|()| path.display().to_string())
    };
    let mut arguments = Cluster::arguments(2, 3, scratch.path());
    arguments.extend(["--restart-ms", "200"].map(str::to_owned));
    environment.push(("TASKER_CHAOS_LEDGER", folder("ledger")?));
    // These are for builds that have such points.
    environment.push(("TASKER_CRASH", scratch.path().join("crash").display().to_string()));
    environment.push(("TASKER_PANICS", folder("panics")?));
    let runs = around.installed.as_ref().map_or(&tool, Installed::tool);
    let dev = Dev::ephemeral(runs, &arguments, &environment, scratch.path())?;
    Ok(Cluster::of(dev, tool, scratch, around))
}
