//! The keys of `lifecycle`.

use super::read_step::one_of;
use super::section::Section;
use crate::lifecycle::{Lifecycle, StalenessAction};

/// The longest limit of time: a year.
const MAX_LIMIT_MS: u64 = 366 * 24 * 3600 * 1000;

/// Limits of the task.
pub(super) fn task(mut section: Section<'_>) -> Lifecycle {
    let mut lifecycle = Lifecycle {
        max_duration_ms: minutes(&mut section, "max_duration_minutes"),
        max_waiting_for_dependencies_ms: minutes(
            &mut section,
            "max_waiting_for_dependencies_minutes",
        ),
        max_waiting_for_retry_ms: minutes(&mut section, "max_waiting_for_retry_minutes"),
        max_in_process_ms: minutes(&mut section, "max_steps_in_process_minutes"),
        ..Lifecycle::default()
    };
    if let Some(field) = section.take("staleness_action") {
        let names = StalenessAction::ALL.iter().map(|action| action.as_str());
        lifecycle.action = one_of(&section, &field, names).unwrap_or_default();
    }
    section.finish();
    lifecycle
}

/// A limit in minutes, fractions allowed.
pub(super) fn minutes(section: &mut Section<'_>, key: &'static str) -> Option<u64> {
    section.duration_ms(key, 60_000, MAX_LIMIT_MS, "minutes")
}
