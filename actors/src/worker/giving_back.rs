//! Steps that are being given back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tasker_messages::{ReleasedStep, StepId};

/// Steps that orchestrators were asked to take back, until they have answered, by dispatch. A worker that
/// claims one of them meanwhile may be granted the attempt that it gives back, since it seems to have asked
/// before, and another worker gets it as well.
#[derive(Default)]
pub(crate) struct GivingBack {
    steps: Mutex<HashMap<StepId, u32>>,
}

impl GivingBack {
    fn steps(&self) -> MutexGuard<'_, HashMap<StepId, u32>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, steps: impl Iterator<Item = (StepId, u32)>) {
        self.steps().extend(steps);
    }

    pub(crate) fn end(&self, steps: &[ReleasedStep]) {
        let mut known = self.steps();
        for step in steps {
            // The next dispatch of it may be given back already.
            if known.get(&step.step_id).is_some_and(|seq| *seq <= step.dispatch_seq) {
                known.remove(&step.step_id);
            }
        }
    }

    /// Whether a message brings what is being given back. What was dispatched later was taken back before.
    pub(crate) fn has(&self, step: StepId, dispatch_seq: u32) -> bool {
        self.steps().get(&step).is_some_and(|seq| dispatch_seq <= *seq)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_step_is_given_back_until_the_last_answer() {
        let giving_back = GivingBack::default();
        let [one, other] = [1, 2].map(|n| StepId::from_uuid(Uuid::from_u128(n)));
        let of = |dispatch_seq| {
            let released = ReleasedStep { step_id: one, attempt: 1, dispatch_seq, unstarted: true };
            [released]
        };
        giving_back.begin([(one, 3)].into_iter());
        assert!(giving_back.has(one, 3) && giving_back.has(one, 2), "what was superseded as well");
        assert!(!giving_back.has(one, 4) && !giving_back.has(other, 3));
        // It was taken back, has come here again, and is given back once more.
        giving_back.begin([(one, 4)].into_iter());
        giving_back.end(&of(3));
        assert!(giving_back.has(one, 4));
        giving_back.end(&of(4));
        assert!(!giving_back.has(one, 3) && giving_back.steps().is_empty());
    }
}
