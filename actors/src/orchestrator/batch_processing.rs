//! Expands batchable steps into batches. Sent by the outcomes actor (announce), by its own pull of
//! the control stream (commands) and by its sweep; emits sealed batches to dispatch. What is lost
//! when it dies: nothing; unacknowledged commands come back, and the sweep finds stored outcomes
//! without a sealed batch.

use std::collections::HashSet;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::{AckHandle, Outgoing};
use tasker_guards::{CrashPoint, pass};
use tasker_messages::cursor::member_name;
use tasker_messages::{BatchId, FailureStrategy, Namespace, ProcessBatchableStep, StepId, subject};
use tasker_store::{
    Expandable, ExpandingBatch, KnownResults, MemberSource, NewBatch, NewMember, Sealed, StoreError,
};
use tasker_workflow::BatchConfig;
use tasker_workflow::batching::{self, BatchPlan, failure_budget};
use uuid::Uuid;

use super::Links;
use super::calm::Calm;
use super::dispatch::{DispatchMessage, PUBLISHER_LEASE};
use super::finalizer::FinalizerMessage;
use super::gather::Gather;
use super::node::{Node, run_detached};

/// Expands batches.
pub(crate) struct BatchProcessingActor;

/// A batchable step that is to be expanded, and the delivery that says so.
pub(crate) struct Expansion {
    pub(crate) step: StepId,
    pub(crate) ack: Option<AckHandle>,
}

/// What the actor is told.
pub(crate) enum BatchProcessingMessage {
    /// Outcomes of these steps were just committed: publish the commands to expand them.
    Announce(Namespace, Vec<StepId>),
    /// Expand a step.
    Expand(Expansion),
    /// A set has been worked off.
    Done(Vec<StepId>),
    /// Look for expansions that nobody continues.
    Sweep,
    /// The sweep has found these.
    Found(Vec<StepId>),
}

/// What the actor keeps in mind.
pub(crate) struct BatchProcessingState {
    node: Node,
    links: Links,
    gather: Gather<Expansion>,
    /// Steps that wait or are being expanded here, so that a sweep does not add them again.
    known: HashSet<StepId>,
    calm: Calm,
}

/// Expansions of one transaction, transactions at a time, and expansions that may wait. What does
/// not fit comes back from the stream or is found by the sweep.
const MAX_SET: u32 = 256;
const MAX_IN_FLIGHT: u32 = 2;
const MAX_WAITING: u32 = 4_096;

/// Members of a set that is written by one transaction; larger batches are written in chunks.
const SMALL: u32 = 2_000;

impl Actor for BatchProcessingActor {
    type Msg = BatchProcessingMessage;
    type State = BatchProcessingState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<BatchProcessingMessage>,
        (node, links): (Node, Links),
    ) -> Result<BatchProcessingState, ActorProcessingErr> {
        myself.send_interval(Duration::from_secs(1), || BatchProcessingMessage::Sweep);
        let gather = Gather::new(MAX_IN_FLIGHT, MAX_SET, MAX_WAITING);
        let calm = Calm::default();
        Ok(BatchProcessingState { node, links, gather, known: HashSet::new(), calm })
    }

    async fn handle(
        &self,
        myself: ActorRef<BatchProcessingMessage>,
        message: BatchProcessingMessage,
        state: &mut BatchProcessingState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BatchProcessingMessage::Announce(namespace, steps) => {
                state.calm.disturb();
                announce(&state.node, &namespace, steps);
            }
            BatchProcessingMessage::Expand(expansion) => state.take_in(expansion),
            BatchProcessingMessage::Done(steps) => {
                state.gather.done();
                steps.iter().for_each(|step| {
                    state.known.remove(step);
                });
            }
            BatchProcessingMessage::Sweep => {
                if state.calm.tick() {
                    sweep(&myself, &state.node);
                }
            }
            BatchProcessingMessage::Found(steps) => {
                for step in steps {
                    if !state.known.contains(&step) {
                        metrics::counter!("tasker_reconciler_expansions_total").increment(1);
                        state.take_in(Expansion { step, ack: None });
                    }
                }
            }
        }
        while let Some(set) = state.gather.next_set() {
            let (node, links) = (state.node.clone(), state.links.clone());
            let steps: Vec<StepId> = set.iter().map(|e| e.step).collect();
            let lost = steps.clone();
            let work = async move {
                expand_set(&node, &links, set).await;
                BatchProcessingMessage::Done(steps)
            };
            run_detached(&myself, work, || BatchProcessingMessage::Done(lost));
        }
        Ok(())
    }
}

impl BatchProcessingState {
    fn take_in(&mut self, expansion: Expansion) {
        self.calm.disturb();
        let step = expansion.step;
        if self.gather.push(expansion).is_ok() {
            self.known.insert(step);
        }
    }
}

/// Publishes `ProcessBatchableStep` for each step. What the bus does not take, the sweep finds.
fn announce(node: &Node, namespace: &Namespace, steps: Vec<StepId>) {
    let messages: Vec<Outgoing> = steps
        .into_iter()
        .filter_map(|step| {
            let payload = serde_json::to_vec(&ProcessBatchableStep { step }).ok()?;
            Some(Outgoing {
                subject: subject::control_batch(namespace),
                message_id: subject::message_id(step, 1),
                payload: payload.into(),
            })
        })
        .collect();
    let bus = node.bus.clone();
    tokio::spawn(async move {
        pass(CrashPoint::AnnounceBegins);
        for result in bus.publish_jetstream(messages).await {
            if let Err(error) = result {
                tracing::warn!(%error, "a command to expand was not published; the sweep finds it");
            }
        }
        pass(CrashPoint::AnnounceDone);
    });
}

fn sweep(myself: &ActorRef<BatchProcessingMessage>, node: &Node) {
    let node = node.clone();
    let work = async move {
        let older_than = node.settings.reconciler.stalled_expansion_ms;
        match node.store.find_stalled_expansions(older_than, MAX_SET).await {
            Ok(steps) => BatchProcessingMessage::Found(steps),
            Err(error) => {
                tracing::warn!(%error, "stalled expansions could not be looked for");
                BatchProcessingMessage::Found(Vec::new())
            }
        }
    };
    run_detached(myself, work, || BatchProcessingMessage::Found(Vec::new()));
}

/// Expands a set of steps; acknowledges each command once its batch is sealed or not needed.
async fn expand_set(node: &Node, links: &Links, set: Vec<Expansion>) {
    let steps: Vec<StepId> = set.iter().map(|e| e.step).collect();
    match expand_steps(node, links, &steps).await {
        Ok(()) => {
            for ack in set.iter().filter_map(|e| e.ack.as_ref()) {
                pass(CrashPoint::CommandDone);
                ack.ack().await;
                pass(CrashPoint::CommandAcked);
            }
        }
        Err(error) => {
            tracing::error!(%error, steps = steps.len(), "batches could not be expanded; the commands come back");
        }
    }
}

async fn expand_steps(node: &Node, links: &Links, steps: &[StepId]) -> Result<(), StoreError> {
    let mut small = Vec::new();
    let mut small_members = 0;
    let expandable = node.store.load_expandable(steps).await?;
    for step in expandable {
        let template = node.store.template(step.template_id).await?;
        let Some((_, batchable)) = template.step(&step.name) else { continue };
        let Some(worker) = template.worker_of(&step.name) else { continue };
        let most = node.settings.batches.max_members;
        let plan = match batching::plan(&template, batchable, &step.result, step.appended, most) {
            Ok(plan) => plan,
            Err(failure) => {
                // Judged before it was stored: only a smaller limit since then comes here.
                tracing::error!(step.id = %step.step_id, code = failure.code, error = failure.message, "a stored batch outcome cannot be expanded");
                continue;
            }
        };
        let queue = worker.handler.queue.to_string();
        let config = template.batchable_of(worker.name.as_str()).and_then(|b| b.batch.as_ref());
        let mut batch = new_batch(&step, worker.name.to_string(), queue, &plan, config);
        let chunked = step.batch.is_some()
            || plan.expected() > SMALL
            || matches!(plan, BatchPlan::Appended(_));
        if chunked {
            expand_in_chunks(node, links, &step, &batch, &plan).await?;
            continue;
        }
        batch.members = members(&batch.worker_template, &plan, 0, plan.expected());
        small_members += plan.expected();
        small.push(batch);
        if small_members >= SMALL {
            small_members = 0;
            seal(node, links, &small).await?;
            small.clear();
        }
    }
    if !small.is_empty() {
        seal(node, links, &small).await?;
    }
    Ok(())
}

/// Writes batches, to publish them from memory.
async fn seal(node: &Node, links: &Links, batches: &[NewBatch]) -> Result<(), StoreError> {
    let lease_ms = PUBLISHER_LEASE.as_millis() as u64;
    let (mut sealed, open) = node.store.seal_to_publish(batches, node.id, lease_ms).await?;
    for batch in &open {
        metrics::histogram!("tasker_batches_size").record(f64::from(batch.expected));
    }
    if !links.dispatch.cast(DispatchMessage::Batches(open)) {
        // This node ends: others need not wait for its lease.
        node.store.leave_batches(node.id).await?;
    }
    sealed.batches.clear();
    pass_on(links, sealed);
    Ok(())
}

fn new_batch(
    step: &Expandable,
    worker_template: String,
    queue: String,
    plan: &BatchPlan,
    config: Option<&BatchConfig>,
) -> NewBatch {
    NewBatch {
        id: step.batch.map_or_else(|| BatchId::from_uuid(Uuid::now_v7()), |b| b.id),
        task_id: step.task_id,
        namespace: step.namespace.clone(),
        batchable_step: step.step_id,
        worker_template,
        queue,
        priority: step.priority,
        is_no_op: plan.is_no_op(),
        expected: plan.expected(),
        max_failed: failure_budget(config, plan.expected()),
        parallelism: config.and_then(|c| c.parallelism),
        isolates: config.is_some_and(|c| c.failure_strategy == FailureStrategy::Isolate),
        members: Vec::new(),
    }
}

fn members(worker_template: &str, plan: &BatchPlan, from: u32, upto: u32) -> Vec<NewMember> {
    (from..upto)
        .filter_map(|ordinal| plan.member(ordinal))
        .map(|member| NewMember {
            name: member_name(worker_template, &member.batch_id),
            cursor_json: member.cursor_json,
        })
        .collect()
}

/// Writes a large batch chunk by chunk, from wherever an earlier expansion left it, and seals it.
async fn expand_in_chunks(
    node: &Node,
    links: &Links,
    step: &Expandable,
    batch: &NewBatch,
    plan: &BatchPlan,
) -> Result<(), StoreError> {
    let Some(ExpandingBatch { id, expanded_upto }) = node.store.begin_expansion(batch).await?
    else {
        return Ok(());
    };
    let mut at = expanded_upto;
    while at < batch.expected {
        match write_chunks(node, step, batch, plan, id, at).await? {
            Some(upto) if upto > at => at = upto,
            // Another node is at it, or it was stopped; if it stalls, a sweep finds it.
            _ => return Ok(()),
        }
    }
    pass_on(links, node.store.seal_expanded(batch.batchable_step, id).await?);
    metrics::histogram!("tasker_batches_size").record(f64::from(batch.expected));
    Ok(())
}

/// Writes the next chunks of a batch: two at the same time where the plan says where each begins.
/// Returns where the batch stands afterwards; `None` if this expansion is not to go on.
async fn write_chunks(
    node: &Node,
    step: &Expandable,
    batch: &NewBatch,
    plan: &BatchPlan,
    id: BatchId,
    at: u32,
) -> Result<Option<u32>, StoreError> {
    let size = node.settings.batches.expand_chunk;
    if matches!(plan, BatchPlan::Appended(_)) {
        let source = MemberSource::Appended {
            step_id: step.step_id,
            attempt: step.attempt,
            worker_template: batch.worker_template.clone(),
            limit: size,
        };
        let Some(chunk) = node.store.write_chunk(batch, id, at, &source, true).await? else {
            return Ok(None);
        };
        return chunk.commit().await;
    }
    let middle = batch.expected.min(at.saturating_add(size));
    let upto = batch.expected.min(middle.saturating_add(size));
    let given = |from, upto| MemberSource::Given(members(&batch.worker_template, plan, from, upto));
    let (first, second) = (given(at, middle), given(middle, upto));
    let first = node.store.write_chunk(batch, id, at, &first, true);
    if middle == upto {
        let Some(chunk) = first.await? else { return Ok(None) };
        return chunk.commit().await;
    }
    // Both run to their end: a dropped one would leave its transaction open.
    let (first, second) =
        tokio::join!(first, node.store.write_chunk(batch, id, middle, &second, false));
    let (Some(first), Some(second)) = (first?, second?) else { return Ok(None) };
    if first.commit().await?.is_none() {
        return Ok(None);
    }
    second.commit().await
}

fn pass_on(links: &Links, sealed: Sealed) {
    if !sealed.batches.is_empty() {
        links.dispatch.cast(DispatchMessage::Sealed(sealed.batches));
    }
    if !sealed.ready.is_empty() {
        links.dispatch.cast(DispatchMessage::Released(sealed.ready, KnownResults::new()));
    }
    if !sealed.finished_tasks.is_empty() {
        links.finalizer.cast(FinalizerMessage::Finished(sealed.finished_tasks));
    }
}
