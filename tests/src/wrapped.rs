use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::Scratch;

/// Variables for `tasker dev`, which starts its servers by these names: they go on to the real ones with
/// more arguments. Before Postgres, a line of the shell is run as its user, with its data folder as `$2`.
pub(crate) fn wrapped(
    scratch: &Scratch,
    before_postgres: &str,
    more_of_postgres: &str,
    more_of_nats: &str,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let given = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (nats, postgres) = (given("TASKER_NATS_SERVER")?, given("TASKER_POSTGRES_BIN")?);
    let folder = scratch.path().join("postgres");
    fs::create_dir(&folder)?;
    for program in fs::read_dir(&postgres)? {
        let program = program?;
        if program.file_name() != "postgres" {
            symlink(program.path(), folder.join(program.file_name()))?;
        }
    }
    let real = format!("{postgres}/postgres");
    script(&folder.join("postgres"), "-D", before_postgres, &real, more_of_postgres)?;
    let server = scratch.path().join("nats-server");
    script(&server, "-c", "", &nats, more_of_nats)?;
    let text = |path: PathBuf| path.display().to_string();
    Ok(vec![("TASKER_POSTGRES_BIN", text(folder)), ("TASKER_NATS_SERVER", text(server))])
}

/// A program that goes on to another one, with more arguments if the first is that of a server's start.
fn script(path: &Path, first: &str, before: &str, program: &str, more: &str) -> anyhow::Result<()> {
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in\n  {first})\n    {before}\n    exec '{program}' \"$@\" {more} ;;\n  \
         *) exec '{program}' \"$@\" ;;\nesac\n"
    );
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
