//! How long tasks took: by the clock of whoever submitted them, and by that of the database.

use std::time::Duration;

use anyhow::Context;
use tasker_messages::TaskView;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One task, or all tasks of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    /// From the submit request until the end was known.
    pub(super) whole: Duration,
    /// From the first row until the last change, as the rows say.
    pub(super) server: Duration,
}

impl Timed {
    pub(super) fn of(whole: Duration, view: &TaskView) -> anyhow::Result<Self> {
        Self::of_all(whole, std::slice::from_ref(view))
    }

    pub(super) fn of_all(whole: Duration, views: &[TaskView]) -> anyhow::Result<Self> {
        let (mut first, mut last) = (i128::MAX, i128::MIN);
        for view in views {
            first = first.min(nanos(&view.created_at)?);
            let end = view.finished_at.as_deref().context("a task has not ended")?;
            last = last.max(nanos(end)?);
        }
        let server = u64::try_from(last.saturating_sub(first)).unwrap_or(0);
        Ok(Self { whole, server: Duration::from_nanos(server) })
    }
}

fn nanos(text: &str) -> anyhow::Result<i128> {
    let time = OffsetDateTime::parse(text, &Rfc3339);
    Ok(time.with_context(|| format!("not a time: {text}"))?.unix_timestamp_nanos())
}

pub(super) fn whole(times: &[Timed]) -> Vec<Duration> {
    times.iter().map(|time| time.whole).collect()
}

pub(super) fn server(times: &[Timed]) -> Vec<Duration> {
    times.iter().map(|time| time.server).collect()
}
