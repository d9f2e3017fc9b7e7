//! A clock of the wall that is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::Scratch;
use crate::servers::{Changed, changed};

/// What the nodes of a cluster take for the time of day; the clocks of its servers stay right, and so
/// does that by which all processes measure how long something takes.
#[derive(Debug)]
pub struct Clock {
    /// Where the library reads what to add, once a second.
    file: PathBuf,
}

/// Where Debian puts the library, for programs with threads.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

impl Clock {
    /// A clock that is right, and variables that have `tasker dev` start nodes that go by it.
    pub(crate) fn new(scratch: &Scratch) -> anyhow::Result<(Self, Vec<(&'static str, String)>)> {
        let library = std::env::var("TASKER_FAKETIME").unwrap_or_else(|_| LIBRARY.to_owned());
        fs::metadata(&library).with_context(|| {
            format!("no {library}: install libfaketime, or set TASKER_FAKETIME to its library")
        })?;
        let clock = Self { file: scratch.path().join("clock") };
        clock.set(0)?;
        let without = || Changed { before: "unset LD_PRELOAD".to_owned(), ..Changed::default() };
        let mut environment = changed(scratch, &without(), &without())?;
        let is_on = || "1".to_owned();
        environment.extend([
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", is_on()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", is_on()),
            ("DONT_FAKE_MONOTONIC", is_on()),
            // Not all of them run as the same user.
            ("FAKETIME_DISABLE_SHM", is_on()),
        ]);
        Ok((clock, environment))
    }

    /// Has it show so many seconds more than the true time, within about a second.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        let new: &Path = &self.file.with_extension("new");
        fs::write(new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, &self.file)?)
    }
}
