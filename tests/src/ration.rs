//! Processes that get little of the processor.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::Process;

/// A control group whose processes together may have no more than a share of one processor. It needs root,
/// and lets them go with this value.
#[derive(Debug)]
pub struct Ration {
    parent: PathBuf,
    group: PathBuf,
}

/// After so many microseconds each time the ration is given anew.
const PERIOD_US: u32 = 100_000;

/// Where the groups are that limit the processor: of the first version of the kernel's interface, or of
/// the second one.
const PARENTS: [(&str, &str); 3] = [
    ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"),
    ("/sys/fs/cgroup/cpu,cpuacct", "cpu.cfs_quota_us"),
    ("/sys/fs/cgroup", "cgroup.subtree_control"),
];

impl Ration {
    /// Leaves processes so much of one processor, whatever they would use.
    ///
    /// # Errors
    /// If the kernel has no control groups for it, or not for this user.
    pub fn of(processes: &[Process], percent: u32) -> anyhow::Result<Self> {
        let is_there = |(parent, file): &&(&str, &str)| Path::new(parent).join(file).exists();
        let (parent, _) = PARENTS.iter().find(is_there).context("no control groups here")?;
        let parent = PathBuf::from(parent);
        let group = parent.join(format!("tasker-tests-{}", Uuid::now_v7().simple()));
        fs::create_dir(&group).with_context(|| {
            format!("cannot make {}: these tests limit processes, and need root", group.display())
        })?;
        let ration = Self { parent, group };
        let quota_us = PERIOD_US / 100 * percent;
        if ration.group.join("cpu.cfs_quota_us").exists() {
            ration.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            ration.set("cpu.cfs_quota_us", &quota_us.to_string())?;
        } else {
            // It is there only if the parent hands it on.
            ration.set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        }
        for process in processes {
            ration.set("cgroup.procs", &process.pid().to_string())?;
        }
        Ok(ration)
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.group.join(file);
        fs::write(&path, value).with_context(|| format!("{}: {value}", path.display()))
    }

    /// How often they have used up their ration before the time was over.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn times_up(&self) -> anyhow::Result<u64> {
        let path = self.group.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let times = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        times.and_then(|n| n.parse().ok()).with_context(|| format!("no nr_throttled: {text}"))
    }
}

impl Drop for Ration {
    fn drop(&mut self) {
        let inside = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // It may have ended.
            let _gone = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        // What cannot be removed limits nobody.
        let _stays = fs::remove_dir(&self.group);
    }
}
