//! Guards of the protocol, each of which a build for the tests can switch off, so that it shows whether
//! some test would notice that it is missing. `make mutants` does that; `docs/faults.md` has the table.
//!
//! Without the feature `mutants` all of them are on and asking for one is a constant.
//!
//! The same build has places at which a process can be made to end ([`CrashPoint`]), and others at which
//! a part of it can be made to panic ([`PANIC_POINTS`]).

mod crash;
mod panics;

pub use crash::{CrashPoint, pass};
pub use panics::{CAN_PANIC, PANIC_POINTS, panic_if_told};

/// What keeps the protocol right. Where it stands is found by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// An outcome is stored only for the current attempt.
    AttemptFence,
    /// A second outcome of a step changes nothing.
    TerminalTest,
    /// A batch's counters fall by the outcomes that were stored, not by those that were reported.
    CountByChange,
    /// Who empties a batch is told by the row that it changed, and a sweep looks at all of them again.
    CheckAfterCommit,
    /// What is sent again has another message id.
    NewMessageId,
    /// What is delivered again is claimed before it runs.
    ClaimOnRedelivery,
    /// A work item is acknowledged only when its outcome is stored.
    AckAfterCommit,
    /// No member is sent before its batch is sealed.
    SealTest,
    /// A claim looks for an outcome after it has locked the step.
    TestBeforeClaim,
    /// An outcome waits until all edges of its step are seen.
    EdgesSeen,
    /// What somebody holds under a lease is not lost.
    LeaseOfLost,
    /// Steps that are ready and were not sent are looked for.
    Sweep,
    /// Rows are compared with the bus.
    Reconciler,
    /// What the bus stored after it may have forgotten an earlier copy is claimed before it runs.
    FreshUntil,
    /// Before members are read to be published, one looks whether another publishes their batch.
    OwnSpans,
    /// A message that brought several members is acknowledged when the last of them has ended.
    AckAfterLast,
    /// A second delivery is charged only if a worker may have vanished with the step.
    ChargeByEvidence,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::AttemptFence,
        Self::TerminalTest,
        Self::CountByChange,
        Self::CheckAfterCommit,
        Self::NewMessageId,
        Self::ClaimOnRedelivery,
        Self::AckAfterCommit,
        Self::SealTest,
        Self::TestBeforeClaim,
        Self::EdgesSeen,
        Self::LeaseOfLost,
        Self::Sweep,
        Self::Reconciler,
        Self::FreshUntil,
        Self::OwnSpans,
        Self::AckAfterLast,
        Self::ChargeByEvidence,
    ];

    /// Its name in `TASKER_MUTANT` and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttemptFence => "attempt_fence",
            Self::TerminalTest => "terminal_test",
            Self::CountByChange => "count_by_change",
            Self::CheckAfterCommit => "check_after_commit",
            Self::NewMessageId => "new_message_id",
            Self::ClaimOnRedelivery => "claim_on_redelivery",
            Self::AckAfterCommit => "ack_after_commit",
            Self::SealTest => "seal_test",
            Self::TestBeforeClaim => "test_before_claim",
            Self::EdgesSeen => "edges_seen",
            Self::LeaseOfLost => "lease_of_lost",
            Self::Sweep => "sweep",
            Self::Reconciler => "reconciler",
            Self::FreshUntil => "fresh_until",
            Self::OwnSpans => "own_spans",
            Self::AckAfterLast => "ack_after_last",
            Self::ChargeByEvidence => "charge_by_evidence",
        }
    }

    /// The guard of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.name() == name)
    }
}

/// Whether the guard is off: it never is.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn guard_is_off(_: Guard) -> bool {
    false
}

/// Whether `TASKER_MUTANT` names this guard.
///
/// # Panics
/// If it names none: a mutant that is misspelt would pass every test.
#[cfg(feature = "mutants")]
pub fn guard_is_off(guard: Guard) -> bool {
    static OFF: std::sync::OnceLock<Option<Guard>> = std::sync::OnceLock::new();
    let read = || {
        let name = std::env::var("TASKER_MUTANT").ok().filter(|name| !name.is_empty())?;
        let guard = Guard::named(&name);
        assert!(guard.is_some(), "TASKER_MUTANT is `{name}`, and no guard has that name");
        guard
    };
    *OFF.get_or_init(read) == Some(guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_guards() {
        for guard in Guard::ALL {
            assert_eq!(Guard::named(guard.name()), Some(guard));
        }
        assert_eq!(Guard::named("none"), None);
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn all_are_on() {
        const { assert!(!guard_is_off(Guard::AttemptFence)) };
    }
}
