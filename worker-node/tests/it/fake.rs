//! The orchestrator's side of the bus: it publishes work items and answers what workers ask.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tasker_bus::{Bus, Incoming, Outgoing, Subscription};
use tasker_config::Settings;
use tasker_messages::subject::{self, Request};
use tasker_messages::{
    AttemptFinished, AttemptOutcome, Claim, ClaimReply, ClaimRequest, ClaimVerdict, CursorConfig,
    GetShared, Heartbeat, Introduction, Namespace, NextStep, NodeId, OutcomeReport,
    OutcomeVerdicts, Queue, QueueList, QueueRef, Refusal, ReleaseReply, ReleaseRequest,
    ReleasedStep, SharedStep, StepId, TaskId, Verdict, WorkItem,
};
use tasker_sdk::HandlerRegistry;
use tasker_worker_node::WorkerNode;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::server::{TestServer, within};

type Judge = Box<dyn FnMut(&[AttemptFinished]) -> Result<Vec<Verdict>, Refusal> + Send>;
type Hand = Box<dyn FnMut(&[AttemptFinished], u32) -> Vec<NextStep> + Send>;
type Claims = Box<dyn FnMut(&Claim) -> ClaimVerdict + Send>;
type Parts = Box<dyn FnMut(&GetShared) -> Result<SharedStep, Refusal> + Send>;

/// What the fake orchestrator has seen, and how it answers.
pub(crate) struct Seen {
    pub(crate) reports: Vec<Vec<AttemptFinished>>,
    /// Reports without an answer, now and at most.
    pub(crate) open: usize,
    pub(crate) most_open: usize,
    pub(crate) claims: Vec<Claim>,
    /// Until when each request for claims is of use.
    pub(crate) until: Vec<Option<i64>>,
    pub(crate) parts: Vec<GetShared>,
    pub(crate) released: Vec<ReleasedStep>,
    /// Whether nobody answers who is asked to take steps back.
    pub(crate) keeps_silent: bool,
    pub(crate) beats: Vec<Heartbeat>,
    /// What came with each request for the list of queues.
    pub(crate) introductions: Vec<Option<Introduction>>,
    /// What each report would take.
    pub(crate) takes: Vec<u32>,
    pub(crate) judge: Judge,
    pub(crate) hand: Hand,
    pub(crate) grant: Claims,
    /// How the next requests for claims are turned away; without a refusal they are not answered.
    pub(crate) turn_away: VecDeque<Option<Refusal>>,
    pub(crate) part: Parts,
}

impl Seen {
    fn new() -> Self {
        Self {
            reports: Vec::new(),
            open: 0,
            most_open: 0,
            claims: Vec::new(),
            until: Vec::new(),
            parts: Vec::new(),
            released: Vec::new(),
            keeps_silent: false,
            beats: Vec::new(),
            introductions: Vec::new(),
            takes: Vec::new(),
            judge: Box::new(|outcomes| Ok(vec![Verdict::Applied; outcomes.len()])),
            hand: Box::new(|_, _| Vec::new()),
            turn_away: VecDeque::new(),
            grant: Box::new(|_| ClaimVerdict::Run { attempt: 2, tries: 1 }),
            part: Box::new(|_| Ok(part("echo", json!(null)))),
        }
    }

    /// Everything that was reported, repetitions included.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &AttemptFinished> {
        self.reports.iter().flatten()
    }

    /// The first outcome of a step.
    pub(crate) fn outcome(&self, step: StepId) -> Option<&AttemptFinished> {
        self.outcomes().find(|outcome| outcome.step_id == step)
    }
}

/// A nats-server, an orchestrator, and the settings for a worker.
pub(crate) struct Fake {
    pub(crate) server: TestServer,
    pub(crate) settings: Settings,
    pub(crate) bus: Bus,
    pub(crate) namespace: Namespace,
    pub(crate) queue: Queue,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<Seen>,
    changed: Notify,
    node: NodeId,
    /// While false, reports wait for their answer.
    answering: watch::Sender<bool>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let server = TestServer::start();
        let mut settings = server.settings();
        settings.streams.ack_wait_ms = 1_500;
        settings.nats.request_timeout_ms = 2_000;
        settings.worker.slots = 8;
        settings.worker.progress_ms = 400;
        settings.worker.heartbeat_ms = 200;
        settings.worker.report_timeout_ms = 1_000;
        settings.worker.drain_ms = 5_000;
        let bus = Bus::connect(&settings.nats, "orchestrator").await.expect("an address");
        bus.wait_connected(Duration::from_secs(10)).await.expect("connected");
        let shared = Arc::new(Shared {
            seen: Mutex::new(Seen::new()),
            changed: Notify::new(),
            node: NodeId::from_uuid(Uuid::now_v7()),
            answering: watch::Sender::new(true),
        });
        let [namespace, queue] = ["test", "default"];
        let (namespace, queue) = (namespace.parse().expect("valid"), queue.parse().expect("valid"));
        let fake = Self { server, settings, bus, namespace, queue, shared };
        fake.listen().await;
        fake
    }

    /// Creates streams and durable, as the dispatcher does.
    pub(crate) async fn open_queue(&self) {
        let streams = &self.settings.streams;
        self.bus.ensure_streams(streams).await.expect("streams");
        let durable = self.bus.ensure_work_durable(&self.namespace, &self.queue, None, streams);
        durable.await.expect("a durable");
        self.bus.publish(subject::QUEUES_CHANGED.into(), &()).await.expect("open");
    }

    pub(crate) async fn worker(&self, registry: HandlerRegistry) -> WorkerNode {
        let started = WorkerNode::start(self.settings.clone(), registry, "test worker");
        started.await.expect("valid settings")
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was seen fulfils a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        within(what, async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(&self.seen()) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// Waits until the bus holds nothing of the queue any more.
    pub(crate) async fn until_acknowledged(&self) {
        within("all messages acknowledged", async {
            while self.left().await != (0, 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Messages that were not delivered, and those that were and are not acknowledged.
    pub(crate) async fn left(&self) -> (u64, u64) {
        match self.bus.consumer_load(&self.namespace, &self.queue).await {
            Ok(Some(load)) => (load.pending, load.ack_pending),
            other => panic!("no consumer: {other:?}"),
        }
    }

    /// Waits until all messages up to this one have been acknowledged.
    pub(crate) async fn until_acknowledged_up_to(&self, stream_sequence: u64) {
        within("messages acknowledged", async {
            loop {
                let load = self.bus.consumer_load(&self.namespace, &self.queue).await;
                let load = load.expect("an answer").expect("a consumer");
                if load.ack_floor_stream_seq >= stream_sequence {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Whether reports are answered.
    pub(crate) fn answer_reports(&self, answer: bool) {
        self.shared.answering.send_replace(answer);
    }

    /// A work item of a standard step.
    pub(crate) fn item(&self, callable: &str, context: Value) -> WorkItem {
        let shared = to_raw_value(&part(callable, context)).expect("JSON");
        WorkItem {
            task_id: TaskId::from_uuid(Uuid::now_v7()),
            step_id: StepId::from_uuid(Uuid::now_v7()),
            name: "step".into(),
            template_step: "step".into(),
            attempt: 1,
            dispatch_seq: 1,
            tries: 0,
            claim_required: false,
            fresh_until_ms: None,
            node: self.shared.node,
            cursor: None,
            shared: Some(Arc::from(shared)),
            limited: false,
            bundled: Vec::new(),
        }
    }

    /// Work items of members of one batch, whose shared part does not travel along.
    pub(crate) fn members(&self, count: u32) -> Vec<WorkItem> {
        let task_id = TaskId::from_uuid(Uuid::now_v7());
        let batch = tasker_messages::BatchId::from_uuid(Uuid::now_v7());
        let item = |n: u32| WorkItem {
            task_id,
            step_id: batch.member(n),
            name: format!("member_{n}").into(),
            template_step: "member".into(),
            cursor: Some(cursor(n)),
            shared: None,
            ..self.item("", Value::Null)
        };
        (0..count).map(item).collect()
    }

    pub(crate) async fn publish(&self, items: &[WorkItem]) {
        let message_id = |item: &WorkItem| subject::message_id(item.step_id, item.dispatch_seq);
        self.publish_as(items, message_id).await;
    }

    /// Publishes items under other ids than their own, as if the server had forgotten those.
    pub(crate) async fn publish_as(&self, items: &[WorkItem], id: impl Fn(&WorkItem) -> String) {
        let messages = items.iter().map(|item| Outgoing {
            subject: subject::work(&self.namespace, &self.queue),
            message_id: id(item),
            payload: serde_json::to_vec(item).expect("JSON").into(),
        });
        let results = self.bus.publish_jetstream(messages.collect()).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    async fn listen(&self) {
        let node = subject::outcome_at_wildcard(self.shared.node);
        let group = Some(subject::ORCHESTRATORS);
        for (subject, group) in [(node, None), (Request::Outcome.wildcard(), group)] {
            self.serve(&subject, group, |shared, incoming| {
                tokio::spawn(async move { take_report(&shared, incoming).await });
            })
            .await;
        }
        self.serve(&Request::Claim.wildcard(), group, |shared, incoming| {
            let request: ClaimRequest = read(&incoming);
            let mut seen = shared.lock();
            seen.claims.extend(&request.claims);
            seen.until.push(request.until_ms);
            match seen.turn_away.pop_front() {
                Some(Some(refusal)) => return answer(incoming, Err::<ClaimReply, _>(refusal)),
                Some(None) => return,
                None => {}
            }
            let verdicts = request.claims.iter().map(|claim| (seen.grant)(claim)).collect();
            answer(incoming, Ok(ClaimReply { verdicts }));
        })
        .await;
        self.serve(&Request::Shared.wildcard(), group, |shared, incoming| {
            let request: GetShared = read(&incoming);
            let mut seen = shared.lock();
            let part = (seen.part)(&request);
            seen.parts.push(request);
            answer(incoming, part);
        })
        .await;
        self.serve(&Request::Release.wildcard(), group, |shared, incoming| {
            let request: ReleaseRequest = read(&incoming);
            let mut seen = shared.lock();
            seen.released.extend(&request.steps);
            if seen.keeps_silent {
                return;
            }
            drop(seen);
            let steps: Vec<StepId> = request.steps.iter().map(|step| step.step_id).collect();
            answer(incoming, Ok(ReleaseReply { released: steps.len() as u32, steps }));
        })
        .await;
        self.serve(subject::BEATS, None, |shared, incoming| {
            shared.lock().beats.push(read(&incoming));
        })
        .await;
        let queue = QueueRef { namespace: self.namespace.clone(), queue: self.queue.clone() };
        self.serve(subject::QUEUES_LIST, group, move |shared, incoming| {
            shared.lock().introductions.push(read(&incoming));
            answer(incoming, Ok(QueueList { queues: vec![queue.clone()] }));
        })
        .await;
        self.bus.flush().await.expect("flushed");
    }

    async fn serve(
        &self,
        subject: &str,
        group: Option<&str>,
        handle: impl Fn(Arc<Shared>, Incoming) + Send + 'static,
    ) {
        let mut subscription: Subscription =
            self.bus.subscribe(subject, group).await.expect("open");
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            while let Some(incoming) = subscription.next().await {
                assert_eq!(incoming.protocol_ok(), Ok(()), "{}", incoming.subject);
                handle(Arc::clone(&shared), incoming);
                shared.changed.notify_waiters();
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take_report(shared: &Shared, incoming: Incoming) {
    let OutcomeReport { outcomes, takes, .. } = read(&incoming);
    let (verdicts, next) = {
        let mut seen = shared.lock();
        seen.open += 1;
        seen.most_open = seen.most_open.max(seen.open);
        let verdicts = (seen.judge)(&outcomes);
        let next = (seen.hand)(&outcomes, takes);
        seen.takes.push(takes);
        seen.reports.push(outcomes);
        (verdicts, next)
    };
    shared.changed.notify_waiters();
    let mut answering = shared.answering.subscribe();
    drop(answering.wait_for(|&answering| answering).await);
    shared.lock().open -= 1;
    incoming.answer(verdicts.map(|verdicts| OutcomeVerdicts { verdicts, next })).await;
    shared.changed.notify_waiters();
}

fn read<T: DeserializeOwned>(incoming: &Incoming) -> T {
    serde_json::from_slice(&incoming.payload).expect("a message of the worker")
}

fn answer<T: serde::Serialize + Send + Sync + 'static>(
    incoming: Incoming,
    answer: Result<T, Refusal>,
) {
    tokio::spawn(async move { incoming.answer(answer).await });
}

/// A shared part.
pub(crate) fn part(callable: &str, context: Value) -> SharedStep {
    let part = json!({
        "kind": "standard", "callable": callable, "context": context, "max_attempts": 3,
    });
    serde_json::from_value(part).expect("a shared part")
}

/// A shared part of members.
pub(crate) fn member_part(callable: &str) -> SharedStep {
    SharedStep { kind: tasker_messages::StepKind::BatchWorker, ..part(callable, Value::Null) }
}

fn cursor(n: u32) -> Box<RawValue> {
    let config = CursorConfig {
        batch_id: n.to_string(),
        start_cursor: n.into(),
        end_cursor: (n + 1).into(),
        batch_size: 1,
    };
    to_raw_value(&config).expect("JSON")
}

/// The result, or the code of the error.
pub(crate) fn ending(outcome: &AttemptFinished) -> Result<Value, String> {
    match &outcome.outcome {
        AttemptOutcome::Succeeded(text) => Ok(serde_json::from_str(text.get()).expect("JSON")),
        AttemptOutcome::Failed(failure) => Err(failure.code.clone()),
    }
}

/// How often each step was reported.
pub(crate) fn count_by_step(seen: &Seen) -> HashMap<StepId, u32> {
    let mut counts = HashMap::new();
    for outcome in seen.outcomes() {
        *counts.entry(outcome.step_id).or_default() += 1;
    }
    counts
}
