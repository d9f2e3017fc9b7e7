//! How a step is retried: `retry`, and its older spelling `lifecycle`.

use tasker_messages::code;

use super::read_lifecycle::minutes;
use super::read_step::one_of;
use super::section::Section;
use super::yaml::join;
use crate::retry::{Backoff, RetryPolicy};

/// Most runs that a template may ask for, the first included.
const MAX_ATTEMPTS: u64 = 100;
/// Longest pause between two attempts that a template may ask for.
const MAX_BACKOFF_MS: u64 = 7 * 24 * 3600 * 1000;
/// The largest factor between two pauses.
const MAX_MULTIPLIER: f64 = 100.0;

/// What a template says; what it does not say is left to something below, in the end the defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RetryKeys {
    retryable: Option<bool>,
    max_attempts: Option<u32>,
    backoff: Option<Backoff>,
    multiplier: Option<f64>,
    base_ms: Option<u64>,
    max_ms: Option<u64>,
    jitter: Option<bool>,
}

impl RetryKeys {
    /// The policy, with defaults where nothing was said.
    pub(super) fn policy(&self) -> RetryPolicy {
        let default = RetryPolicy::default();
        let base_ms = self.base_ms.unwrap_or(default.base_ms);
        RetryPolicy {
            retryable: self.retryable.unwrap_or(default.retryable),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            backoff: self.backoff.unwrap_or(default.backoff),
            multiplier: self.multiplier.unwrap_or(default.multiplier),
            base_ms,
            // A bound that was not written does not cut a base that was.
            max_ms: self.max_ms.unwrap_or(default.max_ms.max(base_ms)),
            jitter: self.jitter.unwrap_or(default.jitter),
        }
    }

    /// These keys, and where they say nothing those below.
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            retryable: self.retryable.or(below.retryable),
            max_attempts: self.max_attempts.or(below.max_attempts),
            backoff: self.backoff.or(below.backoff),
            // It belongs to the backoff with which it was written.
            multiplier: if self.backoff.is_some() { self.multiplier } else { below.multiplier },
            base_ms: self.base_ms.or(below.base_ms),
            max_ms: self.max_ms.or(below.max_ms),
            jitter: self.jitter.or(below.jitter),
        }
    }

    /// Whether they say something about the bounds of pauses.
    pub(super) fn says_bounds(&self) -> bool {
        self.base_ms.is_some() || self.max_ms.is_some()
    }
}

/// What is wrong with the two bounds together.
pub(super) fn bounds_problem(keys: &RetryKeys) -> Option<String> {
    let (base, max) = (keys.base_ms?, keys.max_ms?);
    (base > max).then(|| format!("`backoff_base_ms` {base} is above `max_backoff_ms` {max}"))
}

/// What a step says in either spelling, and how long an attempt of it may run before its task is stale.
pub(super) fn of_step(step: &mut Section<'_>) -> (RetryKeys, Option<u64>) {
    let mut keys = step.section("retry").map(retry_keys).unwrap_or_default();
    let section = step.section("lifecycle");
    let max_in_process_ms = section.and_then(|section| lifecycle(section, &mut keys));
    (keys, max_in_process_ms)
}

/// What `retry` says.
pub(super) fn retry_keys(mut section: Section<'_>) -> RetryKeys {
    let keys = keys(&mut section);
    if let Some(message) = bounds_problem(&keys) {
        let path = join(&section.path, "max_backoff_ms");
        section.report(code::INVALID_VALUE, &path, section.line, message);
    }
    section.finish();
    keys
}

fn keys(section: &mut Section<'_>) -> RetryKeys {
    RetryKeys {
        retryable: section.boolean("retryable"),
        max_attempts: section.integer("max_attempts", 1..=MAX_ATTEMPTS).map(|n| n as u32),
        backoff: section.take("backoff").and_then(|field| {
            one_of(section, &field, Backoff::ALL.iter().map(|backoff| backoff.as_str()))
        }),
        multiplier: None,
        base_ms: section.integer("backoff_base_ms", 0..=MAX_BACKOFF_MS),
        max_ms: section.integer("max_backoff_ms", 0..=MAX_BACKOFF_MS),
        jitter: section.boolean("jitter"),
    }
}

/// The older spelling counts retries where the newer one counts runs.
fn lifecycle(mut section: Section<'_>, keys: &mut RetryKeys) -> Option<u64> {
    let max_in_process_ms = minutes(&mut section, "max_steps_in_process_minutes");
    conflict(&section, "max_retries", "retry.max_attempts", keys.max_attempts.is_some());
    conflict(&section, "backoff_multiplier", "retry.backoff", keys.backoff.is_some());
    if let Some(retries) = section.integer("max_retries", 0..=MAX_ATTEMPTS - 1) {
        keys.max_attempts = Some(retries as u32 + 1);
    }
    if let Some(multiplier) = section.number("backoff_multiplier", 1.0..=MAX_MULTIPLIER) {
        keys.backoff = Some(Backoff::Exponential);
        keys.multiplier = Some(multiplier);
    }
    section.finish();
    max_in_process_ms
}

fn conflict(section: &Section<'_>, key: &str, other: &str, is_said: bool) {
    if let Some(line) = section.line_of(key).filter(|_| is_said) {
        let message = format!("`{other}` says the same; keep one of them");
        section.report(code::CONFLICTING_KEYS, &join(&section.path, key), line, message);
    }
}
