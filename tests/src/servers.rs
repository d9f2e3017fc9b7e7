//! Programs that `tasker dev` starts instead of its servers, and that go on to those with more
//! arguments.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::Scratch;

/// One server: what is to be done in the shell before its start, and its further arguments.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) before: String,
    pub(crate) arguments: String,
}

/// Variables that lead `tasker dev` to changed servers, whose programs are put into the folder.
pub(crate) fn changed(
    scratch: &Scratch,
    postgres: &Changed,
    nats: &Changed,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let given = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (nats_program, bin) = (given("TASKER_NATS_SERVER")?, given("TASKER_POSTGRES_BIN")?);
    let folder = scratch.path().join("postgres");
    fs::create_dir(&folder)?;
    for program in fs::read_dir(&bin)? {
        let program = program?;
        if program.file_name() != "postgres" {
            symlink(program.path(), folder.join(program.file_name()))?;
        }
    }
    script(&folder.join("postgres"), "-D", &format!("{bin}/postgres"), postgres)?;
    let nats_server = scratch.path().join("nats-server");
    script(&nats_server, "-c", &nats_program, nats)?;
    let text = |path: PathBuf| path.display().to_string();
    Ok(vec![("TASKER_POSTGRES_BIN", text(folder)), ("TASKER_NATS_SERVER", text(nats_server))])
}

/// A program that goes on to another one, changed if the first argument is that of a server's start.
fn script(path: &Path, first: &str, program: &str, changed: &Changed) -> anyhow::Result<()> {
    let Changed { before, arguments } = changed;
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in\n  {first}) {before}\n    exec '{program}' \"$@\" {arguments} ;;\n  \
         *) exec '{program}' \"$@\" ;;\nesac\n"
    );
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A free port of loopback that the kernel gives to no outgoing connection: one that tries to reach a
/// server which is being restarted would sooner or later reach itself.
///
/// # Errors
/// If there is none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    const LOWEST: u128 = 10_000;
    const SPAN: u128 = 22_000;
    // The low bits of a UUIDv7 are random.
    let mut ports = (0..100).map(|_| (LOWEST + Uuid::now_v7().as_u128() % SPAN) as u16);
    let free = ports.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    free.context("no free port")
}
