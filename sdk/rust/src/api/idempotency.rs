use std::sync::atomic::Ordering;

use super::invalid_request;
use crate::{StepContext, StepError};

/// The key of a step while a request carries it. It is free again when the request fails, so that a
/// handler may try once more, and used up when [`Self::keep`] is called.
pub(super) struct KeyInUse {
    step: StepContext,
    is_kept: bool,
}

/// Takes the key of a step for one effect. Two effects under one key would be one to the service,
/// which would answer the second request with what the first one came to.
pub(super) fn take(step: &StepContext) -> Result<KeyInUse, StepError> {
    if step.idempotency_key_taken().swap(true, Ordering::Relaxed) {
        return Err(invalid_request(
            "the idempotency key of the step was already used in this attempt; tell the requests \
             apart with `idempotency_part`",
        ));
    }
    Ok(KeyInUse { step: step.clone(), is_kept: false })
}

impl KeyInUse {
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        if !self.is_kept {
            self.step.idempotency_key_taken().store(false, Ordering::Relaxed);
        }
    }
}
