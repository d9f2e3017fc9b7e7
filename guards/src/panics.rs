//! Places at which a part of a process of a test build can be made to panic: every actor, and every loop
//! that an actor looks after.

/// The actors, as their supervisors call them, and their loops, behind the name of the actor.
pub const PANIC_POINTS: [&str; 32] = [
    "finalizer",
    "dispatch",
    "timers",
    "convergence",
    "batch_processing",
    "checkpoints",
    "outcomes",
    "intake",
    "lifecycle",
    "heartbeats",
    "heartbeats.beats",
    "shares",
    "reconciler",
    "reconciler.connection",
    "gateway",
    "gateway.requests",
    "gateway.events",
    "gateway.queue_lists",
    "gateway.introductions",
    "gateway.commands",
    "gateway.submissions",
    "worker_outcomes",
    "worker_outcomes.gatherer",
    "worker_heartbeat",
    "worker_heartbeat.hints",
    "worker_heartbeat.connection",
    "worker_plans",
    "worker_plans.requests",
    "worker_intake",
    "worker_intake.news",
    "worker_intake.queue",
    // Last, since new pull loops claim what they find.
    "worker_claims",
];

/// Whether there are any: in no build but that for `make mutants`.
pub const CAN_PANIC: bool = cfg!(feature = "mutants");

/// A part of the process has come to the place of this name, and goes on.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn panic_if_told(_: &'static str) {}

/// Panics if the folder that `TASKER_PANICS` names has a file of this name. Of all that come by, the one
/// that removes the file does, so that each time it is written there is one panic.
///
/// # Panics
/// When told to, and if it is told of a place that is not in [`PANIC_POINTS`]: nobody would try it.
#[cfg(feature = "mutants")]
pub fn panic_if_told(point: &'static str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let read = || std::env::var_os("TASKER_PANICS").map(PathBuf::from);
    let Some(folder) = FOLDER.get_or_init(read) else { return };
    assert!(PANIC_POINTS.contains(&point), "`{point}` is not among the panic points");
    assert!(std::fs::remove_file(folder.join(point)).is_err(), "told to panic: {point}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_have_an_actor() {
        for point in PANIC_POINTS {
            let actor = point.split('.').next().unwrap_or_default();
            assert!(PANIC_POINTS.contains(&actor), "{point}");
        }
    }
}
