//! What a search has come by, and what was broken.

use std::collections::BTreeMap;

/// Counts the paths that were taken, and keeps the first rule that was broken.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) reached: BTreeMap<&'static str, u64>,
    pub(crate) broken: Option<String>,
}

impl Watch {
    pub(crate) fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    pub(crate) fn broken(&mut self, rule: impl Into<String>) {
        self.broken.get_or_insert(rule.into());
    }

    pub(crate) fn require(&mut self, holds: bool, rule: &str) {
        if !holds {
            self.broken(rule);
        }
    }
}
