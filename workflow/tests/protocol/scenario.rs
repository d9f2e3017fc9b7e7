//! What is explored: a template, how many take part, and what may go wrong.

use tasker_messages::{StepFailure, StepKind};
use tasker_workflow::{Template, batching};

use crate::mutant::Mutant;

/// What may go wrong, or what handlers may do. Each has a budget per path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A worker dies with all it holds.
    WorkerCrash,
    /// An orchestrator dies with all it remembers, at any point between two of its steps.
    NodeCrash,
    /// The time of a message runs out although a live worker holds it.
    Expiry,
    /// A lease runs out although its worker is at work.
    SlowLease,
    /// The bus loses a message.
    Loss,
    /// The bus loses its whole store.
    StoreLoss,
    /// The bus is restarted and has forgotten what it had delivered.
    Restart,
    /// Somebody deletes the consumer, and it is made again.
    NewConsumer,
    /// An orchestrator is stopped for longer than the bus remembers ids, with a copy in its hands.
    Duplicate,
    /// A reply, an acknowledgement or a confirmation is lost.
    Drop,
    /// A request arrives after its sender has given up waiting for the answer.
    Late,
    /// The end of a transaction is not known to who asked for it.
    Ambiguous,
    /// A sweep does too early what another node is about to do, or suspects the wrong step.
    Hasty,
    /// A worker is told to end.
    Drain,
    /// A worker gives back what waits for a slot.
    Surplus,
    /// A run ends without an outcome that is stored, or it is refused for good.
    Abandoned,
    /// The task is cancelled.
    Cancel,
    /// A handler fails and may be tried again.
    Retryable,
    /// A handler fails for good.
    Permanent,
    /// A worker lacks the handler.
    Unserved,
}

impl Fault {
    pub(crate) const ALL: [Fault; 20] = [
        Fault::WorkerCrash,
        Fault::NodeCrash,
        Fault::Expiry,
        Fault::SlowLease,
        Fault::Loss,
        Fault::StoreLoss,
        Fault::Restart,
        Fault::NewConsumer,
        Fault::Duplicate,
        Fault::Drop,
        Fault::Late,
        Fault::Ambiguous,
        Fault::Hasty,
        Fault::Drain,
        Fault::Surplus,
        Fault::Abandoned,
        Fault::Cancel,
        Fault::Retryable,
        Fault::Permanent,
        Fault::Unserved,
    ];
    pub(crate) const COUNT: usize = Fault::ALL.len();

    /// What handlers do is no fault.
    const fn is_free(self) -> bool {
        matches!(self, Fault::Retryable | Fault::Permanent | Fault::Unserved)
    }
}

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    left: [u8; Fault::COUNT],
    total: u8,
}

impl Budget {
    /// At most `total` faults on a path, and of each kind no more than it says.
    pub(crate) fn new(total: u8, kinds: &[(Fault, u8)]) -> Self {
        let mut left = [0; Fault::COUNT];
        kinds.iter().for_each(|&(fault, n)| left[fault as usize] = n);
        Self { left, total }
    }

    pub(crate) fn allows(&self, fault: Fault) -> bool {
        self.left[fault as usize] > 0 && (fault.is_free() || self.total > 0)
    }

    /// Whether anything may still go wrong.
    pub(crate) fn goes_on(&self) -> bool {
        self.total > 0
    }

    pub(crate) fn spend(&mut self, fault: Fault) {
        self.left[fault as usize] -= 1;
        self.total -= u8::from(!fault.is_free());
        if self.total == 0 {
            // Which ones are left makes no difference any more.
            self.left[..Fault::Retryable as usize].fill(0);
        }
    }
}

/// What an attempt ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// A result; of a decision, which of its choices.
    Done(u8),
    Retryable,
    Permanent,
    Unserved,
    Poison,
}

/// A batch of the scenario.
pub(crate) struct BatchShape {
    /// The position of the worker template.
    pub(crate) worker: usize,
    /// The position of its analyzer.
    pub(crate) analyzer: usize,
    pub(crate) members: u8,
    pub(crate) max_failed: u8,
    /// The slot of the first member.
    pub(crate) first: usize,
}

/// A search or a walk.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) template: Template,
    pub(crate) batches: Vec<BatchShape>,
    /// What a decision can choose.
    pub(crate) choices: Vec<Vec<&'static str>>,
    pub(crate) workers: usize,
    pub(crate) nodes: usize,
    /// How many steps a worker holds at a time.
    pub(crate) slots: usize,
    /// How many members a message brings at most.
    pub(crate) bundles: u8,
    /// Whether ready steps are handed over with the answer to a report.
    pub(crate) hand_over: bool,
    /// Whether storing an outcome takes a look first and a lock later, as under READ COMMITTED.
    pub(crate) split_apply: bool,
    /// Whether a delivered step may wait for its slot.
    pub(crate) waits_for_slot: bool,
    /// Whether handlers take no time: then only reports do, and there are fewer states.
    pub(crate) instant: bool,
    /// Whether orders are tried that make no difference ([`crate::ample`]).
    pub(crate) every_order: bool,
    /// Whether the search begins with the batch written and sealed.
    pub(crate) begins_sealed: bool,
    pub(crate) budget: Budget,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) kinds: Vec<StepKind>,
    pub(crate) positions: Vec<usize>,
}

impl Scenario {
    /// Steps as `name type parents`, `b`, `w`, `j`, `d` and `-` standing for the five types;
    /// `members` by worker template, `max_attempts` for all.
    pub(crate) fn new(
        name: &'static str,
        steps: &[&str],
        members: &[(&str, u8)],
        max_attempts: u8,
    ) -> Self {
        let template = parse(steps, max_attempts);
        let mut first = template.steps.len();
        let batches = members.iter().map(|&(worker, members)| {
            let (position, step) = template.step(worker).expect("a step of the template");
            let analyzer = step.dependencies.first().expect("an analyzer");
            let (analyzer, config) = template.step(analyzer.as_str()).expect("a step");
            let max_failed = batching::failure_budget(config.batch.as_ref(), members.into()) as u8;
            first += usize::from(members);
            let first = first - usize::from(members);
            BatchShape { worker: position, analyzer, members, max_failed, first }
        });
        let batches: Vec<BatchShape> = batches.collect();
        let mut positions: Vec<usize> = (0..template.steps.len()).collect();
        for batch in &batches {
            positions.extend((0..batch.members).map(|_| batch.worker));
        }
        let kinds = positions.iter().map(|&p| template.steps[p].kind).collect();
        Self {
            name,
            template,
            batches,
            choices: Vec::new(),
            workers: 2,
            nodes: 2,
            slots: 2,
            bundles: 1,
            hand_over: false,
            split_apply: false,
            waits_for_slot: false,
            instant: true,
            every_order: false,
            begins_sealed: false,
            budget: Budget::default(),
            mutant: None,
            kinds,
            positions,
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How many rows there may be: one for each step of the template and each member.
    pub(crate) fn rows(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn kind(&self, slot: usize) -> StepKind {
        self.kinds[slot]
    }

    /// The position in the template.
    pub(crate) fn position(&self, slot: usize) -> usize {
        self.positions[slot]
    }

    /// The batch that a row is a member of.
    pub(crate) fn batch_of(&self, slot: usize) -> Option<usize> {
        (slot >= self.template.steps.len())
            .then(|| self.batches.iter().rposition(|b| b.first <= slot).expect("a batch"))
    }

    pub(crate) fn slot_name(&self, slot: usize) -> String {
        let name = self.template.steps[self.position(slot)].name.as_str();
        match self.batch_of(slot) {
            Some(batch) => format!("{name}[{}]", slot - self.batches[batch].first),
            None => name.to_owned(),
        }
    }

    pub(crate) fn max_attempts(&self, slot: usize) -> u32 {
        self.template.steps[self.position(slot)].retry.max_attempts
    }
}

/// The failure that a worker reports.
pub(crate) fn failure(ending: Ending) -> Option<StepFailure> {
    let (retryable, kind) = match ending {
        Ending::Done(_) => return None,
        Ending::Retryable => (true, ""),
        Ending::Permanent => (false, "permanent"),
        Ending::Unserved => (true, StepFailure::UNSERVED),
        Ending::Poison => (false, "poison"),
    };
    Some(StepFailure {
        code: "MODEL".to_owned(),
        message: String::new(),
        retryable,
        error_type: kind.to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    })
}

fn parse(steps: &[&str], max_attempts: u8) -> Template {
    let mut source = "name: model\nnamespace_name: model\nversion: 1.0.0\nsteps:\n".to_owned();
    for step in steps {
        let mut words = step.split_whitespace();
        let name = words.next().unwrap_or_default();
        let kind = match words.next() {
            Some("b") => "batchable",
            Some("w") => "batch_worker",
            Some("j") => "deferred_convergence",
            Some("d") => "decision",
            _ => "standard",
        };
        let parents = words.collect::<Vec<_>>().join(", ");
        source.push_str(&format!(
            "- {{name: {name}, type: {kind}, dependencies: [{parents}], handler: {{callable: x}}, \
             retry: {{max_attempts: {max_attempts}}}}}\n"
        ));
    }
    Template::parse(source.as_bytes()).unwrap_or_else(|problems| panic!("{steps:?}: {problems:?}"))
}
