//! What an action does: requests, as orchestrators serve them.

use tasker_messages::{ClaimVerdict, DropReason, Verdict};
use tasker_workflow::ClaimDecision;

use crate::action::{Action, Way};
use crate::mutant::Mutant;
use crate::publishing::Sending;
use crate::rows::{Applied, Asked, Lease, Released, Report};
use crate::scenario::{Ending, Scenario};
use crate::watch::Watch;
use crate::world::{Answer, Hold, Late, Next, Outgoing, Phase, State};

impl State {
    pub(crate) fn hold(&mut self, worker: u8, place: u8) -> &mut Hold {
        &mut self.workers[usize::from(worker)].holds[usize::from(place)]
    }

    pub(crate) fn apply_request(&mut self, scenario: &Scenario, action: Action, watch: &mut Watch) {
        match action {
            Action::Begin { node, worker, hold } => {
                let slot = usize::from(self.hold(worker, hold).slot);
                let edges = if scenario.is(Mutant::CheckedBeforeCommit) {
                    self.ended()
                } else {
                    self.rows.edges_of(slot)
                };
                self.hold(worker, hold).answer = Answer::Begun { node, edges };
            }
            Action::Serve { worker, hold, way: Way::Undone, .. } => {
                self.undo(scenario, worker, hold, watch);
            }
            Action::Serve { node, worker, hold, way } => {
                self.serve(scenario, node, (worker, hold), way, watch);
            }
            Action::EndPoisoned { node, worker, hold } => {
                self.end_poisoned(scenario, node, (worker, hold), watch);
            }
            Action::ServeLate { node, late } => {
                let late = self.late.remove(late.into());
                self.serve_late(scenario, node, late, watch);
            }
            Action::GiveUpWaiting { worker, hold } => {
                // Nothing is granted to whom does not wait any more (`ClaimRequest::until_ms`).
                let served =
                    |late: &Late| !matches!(late, Late::Claim(_)) || scenario.is(Mutant::LateClaim);
                let late = self.request(worker, hold).filter(served);
                if late.is_none() {
                    watch.reach("late claim");
                }
                self.late.extend(late);
            }
            _ => self.apply_worker(scenario, action, watch),
        }
    }

    /// Which steps have ended, as a set.
    fn ended(&self) -> u32 {
        let ended = self.rows.existing().filter(|(_, step)| step.outcome.is_some());
        ended.fold(0, |set, (slot, _)| set | 1 << slot)
    }

    /// What a held step asks.
    pub(crate) fn request(&mut self, worker: u8, place: u8) -> Option<Late> {
        let hold = *self.hold(worker, place);
        let (slot, attempt, seq) = (usize::from(hold.slot), hold.attempt, hold.asked_seq);
        Some(match hold.phase {
            Phase::Claiming { redelivered } => {
                let begun = &self.workers[usize::from(worker)].begun;
                let begun = begun.iter().find(|(slot, _)| *slot == hold.slot).map(|b| b.1);
                let lease = self.rows.step(slot).map(|step| step.lease);
                let again = lease == Some(Lease::Of(worker));
                Late::Claim(Asked { slot, seq, attempt, redelivered, begun, worker, again })
            }
            Phase::Reporting(ending) => Late::Report(Report { slot, attempt, seq, worker, ending }),
            Phase::Releasing { unstarted } => {
                Late::Release(Released { slot, attempt, seq, unstarted, worker })
            }
            Phase::Waiting | Phase::Running => return None,
        })
    }

    fn serve(
        &mut self,
        scenario: &Scenario,
        node: u8,
        (worker, place): (u8, u8),
        way: Way,
        watch: &mut Watch,
    ) {
        let hold = *self.hold(worker, place);
        let edges = match hold.answer {
            Answer::Begun { edges, .. } => Some(edges),
            _ => None,
        };
        self.hold(worker, place).answer = Answer::None;
        let answer = match self.request(worker, place) {
            Some(Late::Claim(asked)) => self.serve_claim(scenario, node, asked, watch),
            Some(Late::Report(report)) => {
                self.serve_report(scenario, node, report, edges, way, watch)
            }
            Some(Late::Release(released)) => {
                let taken_back = self.serve_release(scenario, node, released, way, watch);
                Answer::Released { taken_back }
            }
            None => return,
        };
        let hold = self.hold(worker, place);
        match way {
            Way::Answered => hold.answer = answer,
            Way::Unheard | Way::InDoubt | Way::Undone => {
                hold.in_doubt |= way == Way::InDoubt && matches!(hold.phase, Phase::Reporting(_));
                watch.reach(if way == Way::InDoubt { "commit in doubt" } else { "answer lost" });
            }
        }
    }

    fn serve_claim(
        &mut self,
        scenario: &Scenario,
        node: u8,
        asked: Asked,
        watch: &mut Watch,
    ) -> Answer {
        let Some(decision) = self.rows.claim(scenario, asked, watch) else {
            watch.reach("claim: dropped, unknown");
            return Answer::Drop;
        };
        note_claim(decision, watch);
        if let ClaimDecision::Poison { .. } = decision {
            let attempt = self.rows.at(asked.slot).attempt;
            return Answer::Poisoning { node, attempt };
        }
        match decision.verdict() {
            ClaimVerdict::Run { attempt, .. } => Answer::Run { attempt: attempt as u8 },
            ClaimVerdict::Held => Answer::Held,
            ClaimVerdict::Drop(_) => Answer::Drop,
        }
    }

    fn serve_report(
        &mut self,
        scenario: &Scenario,
        node: u8,
        report: Report,
        edges: Option<u32>,
        way: Way,
        watch: &mut Watch,
    ) -> Answer {
        let doubts = |hold: &Hold| hold.in_doubt && usize::from(hold.slot) == report.slot;
        let worker = self.workers.get(usize::from(report.worker));
        let doubted = worker.is_some_and(|worker| worker.holds.iter().any(doubts));
        let by_snapshot = scenario.is(Mutant::CheckedBeforeCommit);
        let seen = edges.filter(|_| !by_snapshot);
        let seen = seen.unwrap_or_else(|| self.rows.edges_of(report.slot));
        let Applied { verdict, mut ready, handed } =
            self.rows.store_outcome(scenario, report, seen, watch);
        match verdict {
            Verdict::Applied if doubted => watch.reach("in doubt: was not committed"),
            Verdict::Duplicate if doubted => watch.reach("in doubt: was committed"),
            _ => {}
        }
        if let (true, Some(ended)) = (by_snapshot && verdict == Verdict::Applied, edges) {
            ready.extend(self.converge_by_snapshot(scenario, report.slot, ended, watch));
        }
        if way != Way::InDoubt {
            self.remember(scenario, node, ready, false);
        }
        let next = handed.and_then(|slot| {
            let step = self.rows.step(slot)?;
            Some(Next { slot: slot as u8, attempt: step.attempt, seq: step.dispatch_seq })
        });
        Answer::Verdict { verdict, next }
    }

    /// The mutant's own check: whether everything else had ended when the statement began.
    fn converge_by_snapshot(
        &mut self,
        scenario: &Scenario,
        slot: usize,
        ended: u32,
        watch: &mut Watch,
    ) -> Vec<usize> {
        let rows = self.rows.existing().map(|(slot, _)| slot);
        let all = rows.fold(0, |set, slot| set | 1 << slot);
        if ended | 1 << slot != all {
            return Vec::new();
        }
        let read = self.rows.clone();
        self.rows.converge(scenario, &read, watch)
    }

    fn serve_release(
        &mut self,
        scenario: &Scenario,
        node: u8,
        released: Released,
        way: Way,
        watch: &mut Watch,
    ) -> bool {
        let taken_back = self.rows.release(scenario, released, watch);
        if taken_back && way != Way::InDoubt {
            self.remember(scenario, node, vec![released.slot], false);
        }
        taken_back
    }

    /// Ends a poisoned step as if its worker had reported it (`gateway.rs`), and only then answers.
    fn end_poisoned(
        &mut self,
        scenario: &Scenario,
        node: u8,
        (worker, place): (u8, u8),
        watch: &mut Watch,
    ) {
        let hold = *self.hold(worker, place);
        let Answer::Poisoning { attempt, .. } = hold.answer else { return };
        let slot = usize::from(hold.slot);
        let ended = self.poison(scenario, node, slot, attempt, worker, watch);
        // A step that moved on meanwhile is claimed again.
        let drops = ended || scenario.is(Mutant::AckUnpoisoned);
        self.hold(worker, place).answer = if drops { Answer::Drop } else { Answer::None };
    }

    fn poison(
        &mut self,
        scenario: &Scenario,
        node: u8,
        slot: usize,
        attempt: u8,
        worker: u8,
        watch: &mut Watch,
    ) -> bool {
        let report = Report { slot, attempt, seq: 0, worker, ending: Ending::Poison };
        let edges = self.rows.edges_of(slot);
        let applied = self.rows.store_outcome(scenario, report, edges, watch);
        watch.reach(match applied.verdict {
            Verdict::Applied => "poisoned",
            _ => "poisoned, but it had moved on",
        });
        self.remember(scenario, node, applied.ready, false);
        matches!(applied.verdict, Verdict::Applied | Verdict::Duplicate)
    }

    fn serve_late(&mut self, scenario: &Scenario, node: u8, late: Late, watch: &mut Watch) {
        watch.reach("late request");
        match late {
            Late::Claim(asked) => {
                let answer = self.serve_claim(scenario, node, asked, watch);
                if let Answer::Poisoning { attempt, .. } = answer {
                    self.poison(scenario, node, asked.slot, attempt, asked.worker, watch);
                }
            }
            Late::Report(report) => {
                self.serve_report(scenario, node, report, None, Way::Unheard, watch);
            }
            Late::Release(released) => {
                self.serve_release(scenario, node, released, Way::Unheard, watch);
            }
        }
    }

    /// A transaction that was rolled back, of which the orchestrator knows only that it failed.
    fn undo(&mut self, scenario: &Scenario, worker: u8, place: u8, watch: &mut Watch) {
        watch.reach("commit in doubt");
        if let (true, Some(Late::Report(report))) =
            (scenario.is(Mutant::PublishBeforeCommit), self.request(worker, place))
        {
            let mut rows = self.rows.clone();
            let seen = rows.edges_of(report.slot);
            for slot in rows.store_outcome(scenario, report, seen, watch).ready {
                let out = Outgoing {
                    slot: slot as u8,
                    seq: 1,
                    attempt: 1,
                    claim_required: false,
                    is_first: true,
                    repeated: false,
                };
                self.put_on_bus(scenario, out, Sending::Confirmed, watch);
            }
        }
        let hold = self.hold(worker, place);
        hold.answer = Answer::None;
        hold.in_doubt = true;
    }

    /// Leases of a worker that is gone are those of somebody else to whoever comes after it.
    pub(crate) fn orphan_leases(&mut self, worker: u8, heir: u8) {
        for step in self.rows.steps.iter_mut().flatten() {
            if step.lease == Lease::Of(worker) {
                step.lease = Lease::Of(heir);
            }
        }
    }
}

fn note_claim(decision: ClaimDecision, watch: &mut Watch) {
    watch.reach(match decision {
        ClaimDecision::Run { .. } => "claim: runs",
        ClaimDecision::Held => "claim: held",
        ClaimDecision::Drop(DropReason::Ended) => "claim: dropped, ended",
        ClaimDecision::Drop(DropReason::Superseded) => "claim: dropped, superseded",
        ClaimDecision::Drop(_) => "claim: dropped, unknown",
        ClaimDecision::Poison { .. } => "claim: poison",
    });
}
