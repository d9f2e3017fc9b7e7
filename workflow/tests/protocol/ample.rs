//! Fewer orders: what commutes with everything else need not be tried in every place.
//!
//! Each of these is independent of all that can happen before it (nothing disables it, and it disables
//! nothing), happens once, and only leads towards the end. So the states behind it are enough, for what
//! must hold and for what must stay reachable alike (Peled's ample sets, with one action each).

use crate::action::{Action, Priced};
use crate::scenario::Scenario;
use crate::world::{Answer, State};

impl State {
    /// One action that is enough, if there is one.
    pub(crate) fn ample(&self) -> Option<Priced> {
        let ended = |slot: usize| self.rows.step(slot).is_some_and(|step| step.outcome.is_some());
        let unsent =
            (0..self.rows.steps.len()).find(|&slot| ended(slot) && self.rows.is_unsent(slot));
        if let Some(slot) = unsent {
            return Some((Action::RecordEnded { slot: slot as u8 }, None));
        }
        if self.budget.goes_on() {
            return None;
        }
        let marks = self.nodes.iter().position(|node| !node.mark.is_empty());
        if let (Some(node), false) = (marks, self.rows.epoch_open) {
            return Some((Action::Mark { node: node as u8 }, None));
        }
        self.last_answer(ended)
    }

    /// The answer to the last that is held or on the bus of a step that has ended.
    fn last_answer(&self, ended: impl Fn(usize) -> bool) -> Option<Priced> {
        for (worker, w) in self.workers.iter().enumerate() {
            for (hold, h) in w.holds.iter().enumerate() {
                let acknowledges = match h.answer {
                    Answer::Verdict { verdict, next: None } => verdict.acknowledges(),
                    Answer::Drop | Answer::Released { taken_back: true } => true,
                    _ => false,
                };
                let final_answer = acknowledges && h.seq == h.asked_seq;
                let others =
                    self.bus.messages.iter().filter(|m| m.brings(h.slot) && Some(m.key()) != h.ack);
                let alone = others.count() == 0 && !self.nodes.iter().any(|node| node.has(h.slot));
                if final_answer && alone && ended(h.slot.into()) {
                    let (worker, hold) = (worker as u8, hold as u8);
                    return Some((Action::Answered { worker, hold, ack_lost: false }, None));
                }
            }
        }
        None
    }

    /// What a search tries in this state.
    pub(crate) fn ample_actions(&self, scenario: &Scenario) -> Vec<Priced> {
        match self.ample() {
            Some(action) if !scenario.every_order => vec![action],
            _ => self.actions(scenario),
        }
    }
}
