//! Describes the SQL of the store for builds without a database.

use std::fs;
use std::process::Command;

use anyhow::Context;

use crate::{run, workspace};

/// Makes a fresh schema, then lets the macros describe every statement against it.
pub(crate) fn prepare() -> anyhow::Result<String> {
    let url =
        std::env::var("DATABASE_URL").context("DATABASE_URL is not set; use `make queries`")?;
    let store = workspace()?.join("store");
    let mut migrations: Vec<_> = fs::read_dir(store.join("migrations"))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    migrations.sort();
    let psql = |arguments: &[&str]| {
        let mut command = Command::new("psql");
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &url]).args(arguments);
        run(&mut command)
    };
    psql(&["-c", "drop schema if exists tasker cascade"])?;
    for migration in &migrations {
        psql(&["-f", &migration.to_string_lossy()])?;
    }
    let prepared = store.join(".sqlx");
    if prepared.exists() {
        fs::remove_dir_all(&prepared)?;
    }
    fs::create_dir_all(&prepared)?;
    // The macros run when the crate is compiled: make sure that it is.
    let library = store.join("src/lib.rs");
    fs::File::options().append(true).open(&library)?.set_modified(std::time::SystemTime::now())?;
    run(Command::new("cargo")
        .args(["check", "-p", "tasker-store"])
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &prepared)
        .env("DATABASE_URL", &url))?;
    let described = fs::read_dir(&prepared)?.count();
    Ok(format!("{described} statements described in store/.sqlx"))
}
