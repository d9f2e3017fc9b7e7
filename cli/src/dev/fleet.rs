//! Orchestrators and workers: this program again.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::board::Slot;
use super::child::Program;
use super::data_dir::DataDir;
use super::nats::Users;
use super::plan::Plan;

/// Makes programs of the nodes of one cluster.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    plan: &'a Plan,
    data: &'a DataDir,
    exe: PathBuf,
    database_url: String,
    nats_url: String,
    users: Option<Users>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        data: &'a DataDir,
        database_url: &str,
        nats_url: &str,
        users: Option<Users>,
    ) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("looking for this program")?;
        let (database_url, nats_url) = (database_url.to_owned(), nats_url.to_owned());
        Ok(Self { plan, data, exe, database_url, nats_url, users })
    }

    pub(super) fn orchestrator(&self, n: u16) -> Program {
        let mut program = self.node(Slot::Orchestrator(n), "server");
        let address = self.plan.http.address.to_string();
        program.args.extend(["--http".into(), address.into(), "--reuse-port".into()]);
        // Through the environment and not as flags, which everybody can list.
        program.env.push(("DATABASE_URL", self.database_url.clone()));
        program.env.extend(self.bus_user("orchestrator"));
        program
    }

    pub(super) fn worker(&self, n: u16) -> Program {
        let slot = Slot::Worker(n);
        let mut program = self.node(slot, "worker");
        program.args.extend(["--name".into(), slot.to_string().into()]);
        let drain = format!("worker.drain_ms={}", self.plan.drain_ms);
        program.args.extend(["--set".into(), drain.into()]);
        if let Some(slots) = self.plan.slots {
            program.args.extend(["--slots".into(), slots.to_string().into()]);
        }
        for root in &self.plan.data_roots {
            program.args.extend(["--data-root".into(), root.clone().into()]);
        }
        // A worker holds no password of the database.
        program.without_env.push("DATABASE_URL");
        program.env.extend(self.bus_user("worker"));
        program
    }

    fn bus_user(&self, name: &str) -> Vec<(&'static str, String)> {
        self.users.iter().flat_map(|users| users.environment(name)).collect()
    }

    fn node(&self, slot: Slot, noun: &str) -> Program {
        let mut args: Vec<OsString> =
            [noun, "run", "--development", "--parent-pid"].map(Into::into).into();
        args.push(std::process::id().to_string().into());
        if let Some(config) = &self.plan.config {
            args.extend(["--config".into(), config.clone().into()]);
        }
        // Other spellings of what is given here.
        let mut without_env = vec!["TASKER__DATABASE__URL", "TASKER__NATS__URL"];
        if self.users.is_some() {
            without_env.push("TASKER__NATS__PASSWORD_FILE");
        }
        Program {
            slot,
            program: self.exe.clone(),
            args,
            env: vec![("NATS_URL", self.nats_url.clone())],
            without_env,
            dir: None,
            account: None,
            log: self.data.log(&slot.to_string()),
            leash: None,
            stop: vec![Signal::SIGTERM],
        }
    }
}
