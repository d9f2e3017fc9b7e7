//! The whole: rows, bus, orchestrators, workers and what is on the way between them.

use std::hash::{Hash, Hasher};

use tasker_messages::Verdict;

use crate::bus::{Bus, Key};
use crate::fingerprint::Fingerprint;
use crate::rows::{Asked, Lease, Released, Report, Rows};
use crate::scenario::{Budget, Ending, Scenario};
use crate::watch::Watch;

/// How far a held step is (`worker/held.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Claiming { redelivered: bool },
    Waiting,
    Running,
    Reporting(Ending),
    Releasing { unstarted: bool },
}

/// Where the request of a held step is: on its way, at an orchestrator, or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    None,
    /// An orchestrator's statement has begun and saw these edges.
    Begun {
        node: u8,
        edges: u32,
    },
    /// An orchestrator is about to end a poisoned step.
    Poisoning {
        node: u8,
        attempt: u8,
    },
    Run {
        attempt: u8,
    },
    Held,
    Drop,
    Verdict {
        verdict: Verdict,
        next: Option<Next>,
    },
    Released {
        taken_back: bool,
    },
}

/// A step that comes with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Next {
    pub(crate) slot: u8,
    pub(crate) attempt: u8,
    pub(crate) seq: u8,
}

/// A step that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) slot: u8,
    pub(crate) attempt: u8,
    pub(crate) seq: u8,
    /// The `dispatch_seq` that its request names.
    pub(crate) asked_seq: u8,
    pub(crate) ack: Option<Key>,
    pub(crate) phase: Phase,
    pub(crate) answer: Answer,
    /// An orchestrator does not know what became of its report.
    pub(crate) in_doubt: bool,
}

impl Hold {
    pub(crate) fn new(slot: u8, attempt: u8, seq: u8, ack: Option<Key>, phase: Phase) -> Self {
        Self {
            slot,
            attempt,
            seq,
            asked_seq: seq,
            ack,
            phase,
            answer: Answer::None,
            in_doubt: false,
        }
    }

    /// Whether a request of it is on its way.
    pub(crate) fn asks(&self) -> bool {
        let asking = matches!(
            self.phase,
            Phase::Claiming { .. } | Phase::Reporting(_) | Phase::Releasing { .. }
        );
        asking && self.answer == Answer::None
    }

    pub(crate) fn is_releasing(&self) -> bool {
        matches!(self.phase, Phase::Releasing { .. })
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Worker {
    pub(crate) holds: Vec<Hold>,
    /// Whether what is old must be claimed: it is new, or has seen the bus restart.
    pub(crate) doubts: bool,
    /// Of messages that brought several steps, which of these are not done with, as a set that begins with
    /// the first (`worker/message.rs`).
    pub(crate) parts: Vec<(Key, u8)>,
    /// Attempts that it began and will not end, by their steps.
    pub(crate) begun: Vec<(u8, u8)>,
    /// Whether it was told to end. When it holds nothing any more, another one takes its place.
    pub(crate) drains: bool,
}

impl Worker {
    /// Steps that occupy a slot.
    pub(crate) fn busy(&self, scenario: &Scenario) -> usize {
        let seated = |hold: &&Hold| match hold.phase {
            Phase::Reporting(_) => scenario.instant,
            Phase::Releasing { .. } => false,
            Phase::Claiming { .. } | Phase::Waiting | Phase::Running => true,
        };
        self.holds.iter().filter(seated).count()
    }

    /// What it is giving back that a message brings again (`worker/giving_back.rs`).
    pub(crate) fn given_back(&mut self, slot: u8, seq: u8) -> Option<&mut Hold> {
        let brings =
            |hold: &&mut Hold| hold.is_releasing() && hold.slot == slot && hold.asked_seq >= seq;
        self.holds.iter_mut().filter(brings).min_by_key(|hold| hold.asked_seq)
    }

    /// Where it holds a step. What is given back is not held any more.
    pub(crate) fn place_of(&self, slot: u8) -> Option<usize> {
        self.holds.iter().position(|hold| hold.slot == slot && !hold.is_releasing())
    }
}

/// A work item that an orchestrator is about to publish, as it read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Outgoing {
    pub(crate) slot: u8,
    pub(crate) seq: u8,
    pub(crate) attempt: u8,
    pub(crate) claim_required: bool,
    /// Whether the bus knew no copy when it was read.
    pub(crate) is_first: bool,
    /// Whether it was published and not confirmed.
    pub(crate) repeated: bool,
}

/// Members that an orchestrator publishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) batch: u8,
    pub(crate) from: u8,
    pub(crate) next: u8,
    pub(crate) upto: u8,
    pub(crate) taken_over: bool,
    /// Those that are still to be published, as they were read.
    pub(crate) members: Vec<Outgoing>,
}

/// What an orchestrator remembers; all of it may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) publish: Vec<Outgoing>,
    pub(crate) mark: Vec<(u8, u8)>,
    pub(crate) span: Option<Span>,
    /// The batches that it took over, as a set: their members must be claimed (`claim_below`).
    pub(crate) took_over: u8,
    /// The batches that it has claimed and not let go, as a set.
    pub(crate) lane: u8,
    /// Whether it sends everything outstanding to a new stream.
    pub(crate) serves_epoch: bool,
    /// What it read and does not look at again: for mutants.
    pub(crate) read: Option<Box<Rows>>,
}

impl Node {
    pub(crate) fn has(&self, slot: u8) -> bool {
        self.publish.iter().any(|out| out.slot == slot) || self.mark.iter().any(|&(s, _)| s == slot)
    }
}

/// A request that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Late {
    Claim(Asked),
    Report(Report),
    Release(Released),
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) rows: Rows,
    pub(crate) bus: Bus,
    pub(crate) workers: Vec<Worker>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) late: Vec<Late>,
    pub(crate) budget: Budget,
}

impl State {
    /// The task is submitted, and an orchestrator is about to publish what is ready.
    pub(crate) fn first(scenario: &Scenario) -> Self {
        let mut rows = Rows::submitted(scenario);
        let mut watch = Watch::default();
        if scenario.begins_sealed {
            for (n, shape) in scenario.batches.iter().enumerate() {
                let report = Report {
                    slot: shape.analyzer,
                    attempt: 1,
                    seq: 1,
                    worker: 0,
                    ending: Ending::Done(0),
                };
                rows.mark_sent(shape.analyzer, 1);
                rows.store_outcome(scenario, report, rows.edges_of(shape.analyzer), &mut watch);
                (0..shape.members + 2).for_each(|_| {
                    rows.expand(scenario, n, &mut watch);
                });
            }
        }
        assert!(watch.broken.is_none(), "{:?}", watch.broken);
        let mut state = Self {
            rows,
            bus: Bus::default(),
            workers: vec![Worker::default(); scenario.workers],
            nodes: vec![Node::default(); scenario.nodes],
            late: Vec::new(),
            budget: scenario.budget,
        };
        let ready = (0..scenario.template.steps.len())
            .filter(|&slot| state.rows.is_to_publish(scenario, slot))
            .collect();
        state.remember(scenario, 0, ready, false);
        state
    }

    /// An orchestrator reads steps that are ready, to publish them (`dispatch/load_ready.sql`).
    pub(crate) fn remember(
        &mut self,
        scenario: &Scenario,
        node: u8,
        ready: Vec<usize>,
        claim_required: bool,
    ) {
        for slot in ready {
            let node = &mut self.nodes[usize::from(node)];
            let Some(step) = self.rows.step(slot) else { continue };
            if self.rows.is_to_publish(scenario, slot)
                && !node.publish.iter().any(|out| usize::from(out.slot) == slot)
            {
                node.publish.push(Outgoing {
                    slot: slot as u8,
                    seq: step.dispatch_seq,
                    attempt: step.attempt,
                    claim_required: claim_required || step.claim_required,
                    is_first: !self.bus.knows(slot as u8, step.dispatch_seq),
                    repeated: false,
                });
            }
        }
    }

    /// Whether a live worker keeps the time of this message from running out.
    pub(crate) fn is_held(&self, key: Key) -> bool {
        self.workers.iter().flat_map(|worker| &worker.holds).any(|hold| hold.ack == Some(key))
    }

    /// Whether the bus may deliver a message now.
    pub(crate) fn is_deliverable(&self, place: usize) -> bool {
        let message = &self.bus.messages[place];
        !message.out || !self.is_held(message.key())
    }

    /// Whether a worker is at work on a step, or about to learn that it is to be.
    pub(crate) fn is_at_work(&self, worker: u8, slot: u8) -> bool {
        let concerns = |hold: &Hold| {
            let is_next = matches!(hold.answer, Answer::Verdict { next: Some(next), .. } if next.slot == slot);
            hold.slot == slot || is_next
        };
        self.workers.get(usize::from(worker)).is_some_and(|w| w.holds.iter().any(concerns))
    }

    /// Whether nothing is left to do: the task has ended, and nothing of it is on the bus or held.
    pub(crate) fn is_quiet(&self) -> bool {
        self.rows.is_finished()
            && self.bus.messages.is_empty()
            && self.workers.iter().all(|worker| worker.holds.is_empty())
            && self.rows.has_members_to_cancel().is_none()
    }

    /// Gives workers and orchestrators the names that make states equal that differ in nothing else.
    /// Returns who is now called what.
    pub(crate) fn rename(&mut self) -> Names {
        if !self.bus.messages.iter().any(|message| message.old) {
            self.workers.iter_mut().for_each(|worker| worker.doubts = false);
        }
        let names = Names { workers: order(&self.workers), nodes: order(&self.nodes) };
        if names.are_same() {
            return names;
        }
        self.workers =
            names.workers.iter().map(|&n| self.workers[usize::from(n)].clone()).collect();
        self.nodes = names.nodes.iter().map(|&n| self.nodes[usize::from(n)].clone()).collect();
        let renamed = |list: &[u8], name: u8| {
            list.iter().position(|&n| n == name).map_or(name, |place| place as u8)
        };
        let worker = |name: &mut u8| *name = renamed(&names.workers, *name);
        let node = |name: &mut u8| *name = renamed(&names.nodes, *name);
        for step in self.rows.steps.iter_mut().flatten() {
            if let Lease::Of(name) = &mut step.lease {
                worker(name);
            }
        }
        for batch in self.rows.batches.iter_mut().flatten() {
            batch.publisher.iter_mut().for_each(node);
        }
        for hold in self.workers.iter_mut().flat_map(|worker| &mut worker.holds) {
            if let Answer::Begun { node: name, .. } | Answer::Poisoning { node: name, .. } =
                &mut hold.answer
            {
                node(name);
            }
        }
        for late in &mut self.late {
            match late {
                Late::Claim(asked) => worker(&mut asked.worker),
                Late::Report(report) => worker(&mut report.worker),
                Late::Release(released) => worker(&mut released.worker),
            }
        }
        names
    }
}

/// Who is now called what: the former number by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) workers: Vec<u8>,
    pub(crate) nodes: Vec<u8>,
}

impl Names {
    pub(crate) fn same(scenario: &Scenario) -> Self {
        let count = |n: usize| (0..n as u8).collect();
        Self { workers: count(scenario.workers), nodes: count(scenario.nodes) }
    }

    fn are_same(&self) -> bool {
        self.workers.is_sorted() && self.nodes.is_sorted()
    }

    /// What those were called who have been renamed once more.
    pub(crate) fn after(&self, next: &Names) -> Names {
        let follow = |names: &[u8], next: &[u8]| -> Vec<u8> {
            next.iter().map(|&n| names[usize::from(n)]).collect()
        };
        Names {
            workers: follow(&self.workers, &next.workers),
            nodes: follow(&self.nodes, &next.nodes),
        }
    }
}

/// The places of equal things in an order that does not depend on where they are.
fn order<T: Hash>(things: &[T]) -> Vec<u8> {
    let print = |thing: &T| {
        let mut print = Fingerprint::default();
        thing.hash(&mut print);
        print.finish()
    };
    let mut order: Vec<u8> = (0..things.len() as u8).collect();
    order.sort_by_cached_key(|&n| print(&things[usize::from(n)]));
    order
}
