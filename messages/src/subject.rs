//! Subjects, streams and durable names. They are built here and nowhere else.

use std::fmt;

use crate::{EventName, Namespace, NodeId, Queue, TaskId};

/// Stream of work items, work-queue retention.
pub const WORK_STREAM: &str = "TASKER_WORK";
/// Stream of commands between orchestrators, work-queue retention.
pub const CONTROL_STREAM: &str = "TASKER_CONTROL";
/// Stream of tasks that are enqueued without waiting for acceptance.
pub const SUBMIT_STREAM: &str = "TASKER_SUBMIT";
/// Durable consumer of [`CONTROL_STREAM`] that expands batches.
pub const BATCH_DURABLE: &str = "expand_batches";
/// Durable consumer of [`SUBMIT_STREAM`].
pub const SUBMIT_DURABLE: &str = "accept_tasks";
/// Queue group of the orchestrators for requests that any of them can answer.
pub const ORCHESTRATORS: &str = "orchestrators";

/// All subjects of [`WORK_STREAM`].
pub const WORK_SUBJECTS: &str = "tasker.work.>";
/// All subjects of [`CONTROL_STREAM`].
pub const CONTROL_SUBJECTS: &str = "tasker.control.>";
/// All subjects of [`SUBMIT_STREAM`].
pub const SUBMIT_SUBJECTS: &str = "tasker.enqueue.>";

/// Queue group of the workers that run analyzers for plans.
pub const PLANNERS: &str = "planners";

/// Where an analyzer is run for a plan: any worker of the queue answers.
pub fn plan(namespace: &Namespace, queue: &Queue) -> String {
    format!("{PLAN}.{namespace}.{queue}")
}

/// The same of a queue in all namespaces.
pub fn plan_wildcard(queue: &Queue) -> String {
    format!("{PLAN}.*.{queue}")
}

/// The namespace in such a subject.
pub fn plan_namespace(subject: &str) -> Option<Namespace> {
    let rest = subject.strip_prefix(PLAN)?.strip_prefix('.')?;
    Namespace::new(rest.split('.').next()?).ok()
}

pub(crate) const PLAN: &str = "tasker.plan";

/// Where the answer to one request for a plan goes. It is not the inbox of whoever asks: workers may
/// answer there, those of this namespace only, and answers to other requests go elsewhere.
pub fn planned(namespace: &Namespace, request: impl fmt::Display) -> String {
    format!("{PLANNED}.{namespace}.{request}")
}

pub(crate) const PLANNED: &str = "tasker.planned";

/// The first token of all inboxes.
const INBOX: &str = "_INBOX";
/// All inboxes.
pub const INBOXES: &str = "_INBOX.>";

/// The prefix of the inboxes of one client: nobody else may listen there.
pub fn inbox(client: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let token: String = client.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("{INBOX}.{token}")
}

/// Whether an answer may go there. Whoever asks chooses the subject, and whoever answers may publish to
/// subjects that the other one may not: an answer must not become a work item, a hint or an order to
/// JetStream.
pub fn takes_answers(reply: &str) -> bool {
    let begins = |prefix: &str| reply.strip_prefix(prefix).is_some_and(|r| r.starts_with('.'));
    begins(INBOX) || begins(PLANNED)
}

/// Where the work items of one queue travel.
pub fn work(namespace: &Namespace, queue: &Queue) -> String {
    format!("tasker.work.{namespace}.{queue}")
}

/// The durable consumer of one queue. The capital letter cannot occur in a name, so that
/// `a_b`/`c` and `a`/`b_c` never share a durable.
pub fn work_durable(namespace: &Namespace, queue: &Queue) -> String {
    format!("work_{namespace}_Q_{queue}")
}

/// The queue of a durable consumer.
pub fn queue_of_durable(durable: &str) -> Option<(Namespace, Queue)> {
    let (namespace, queue) = durable.strip_prefix("work_")?.split_once("_Q_")?;
    Some((namespace.parse().ok()?, queue.parse().ok()?))
}

/// Where `ProcessBatchableStep` travels.
pub fn control_batch(namespace: &Namespace) -> String {
    format!("tasker.control.batch.{namespace}")
}

/// Where a task is carried without waiting for its acceptance.
pub fn enqueue(namespace: &Namespace) -> String {
    format!("{ENQUEUE}.{namespace}")
}

pub(crate) const ENQUEUE: &str = "tasker.enqueue";

/// Requests that any orchestrator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Submit a task; answered after COMMIT.
    Submit,
    /// Read a task.
    TaskGet,
    /// Wait until a task is terminal.
    TaskWait,
    /// Report finished attempts; answered after COMMIT.
    Outcome,
    /// Ask whether a redelivered step may run.
    Claim,
    /// Read the shared part of a step: context, configuration, dependency results.
    Shared,
    /// Read one dependency result that was too large to be shared.
    Result,
    /// Read a page of the results of a batch's members.
    Members,
    /// Append a page of cursors while an analyzer runs.
    AppendCursors,
    /// Give back steps that were pulled but not started.
    Release,
    /// Store how far a step has come.
    SaveCheckpoint,
    /// Read how far a step had come.
    GetCheckpoint,
}

impl Request {
    /// Every request, for subscribing to all of them.
    pub const ALL: &'static [Request] = &[
        Request::Submit,
        Request::TaskGet,
        Request::TaskWait,
        Request::Outcome,
        Request::Claim,
        Request::Shared,
        Request::Result,
        Request::Members,
        Request::AppendCursors,
        Request::Release,
        Request::SaveCheckpoint,
        Request::GetCheckpoint,
    ];

    /// The subject without the namespace.
    pub const fn prefix(self) -> &'static str {
        match self {
            Request::Submit => "tasker.submit",
            Request::TaskGet => "tasker.task.get",
            Request::TaskWait => "tasker.task.wait",
            Request::Outcome => "tasker.outcome",
            Request::Claim => "tasker.step.claim",
            Request::Shared => "tasker.step.shared",
            Request::Result => "tasker.step.result",
            Request::Members => "tasker.step.members",
            Request::AppendCursors => "tasker.step.cursors",
            Request::Release => "tasker.step.release",
            Request::SaveCheckpoint => "tasker.step.checkpoint",
            Request::GetCheckpoint => "tasker.step.resume",
        }
    }

    /// The subject for one namespace.
    pub fn subject(self, namespace: &Namespace) -> String {
        format!("{}.{namespace}", self.prefix())
    }

    /// The subscription for all namespaces.
    pub fn wildcard(self) -> String {
        format!("{}.*", self.prefix())
    }

    /// The namespace in a subject of this request.
    pub fn namespace(self, subject: &str) -> Option<Namespace> {
        let rest = subject.strip_prefix(self.prefix())?.strip_prefix('.')?;
        Namespace::new(rest.split('.').next()?).ok()
    }
}

/// Outcomes for the orchestrator that dispatched the steps.
pub fn outcome_at(namespace: &Namespace, node: NodeId) -> String {
    format!("tasker.outcome.{namespace}.at.{}", node.token())
}

/// Subscription of one orchestrator to the outcomes of the steps that it dispatched.
pub fn outcome_at_wildcard(node: NodeId) -> String {
    format!("tasker.outcome.*.at.{}", node.token())
}

/// Heartbeats of workers.
pub fn beat(namespace: &Namespace) -> String {
    format!("{BEAT}.{namespace}")
}

pub(crate) const BEAT: &str = "tasker.beat";

/// All heartbeats.
pub const BEATS: &str = "tasker.beat.*";

/// Hints to workers: cancelled tasks.
pub fn hint(namespace: &Namespace) -> String {
    format!("{HINT}.{namespace}")
}

pub(crate) const HINT: &str = "tasker.hint";

/// All hints.
pub const HINTS: &str = "tasker.hint.*";

/// Orchestrators tell workers which queues exist; core NATS, droppable.
pub const QUEUES_CHANGED: &str = "tasker.queues.changed";
/// Request for the list of queues that exist.
pub const QUEUES_LIST: &str = "tasker.queues.list";

/// Where the end of a task is announced.
pub fn task_event(namespace: &Namespace, task: TaskId) -> String {
    format!("{EVENT}.{namespace}.{task}")
}

pub(crate) const EVENT: &str = "tasker.event";
/// All announcements and domain events.
pub(crate) const EVENTS: &str = "tasker.event.>";

/// All announcements of ended tasks.
pub const TASK_EVENTS: &str = "tasker.event.*.*";

/// Where a domain event is published. It has one token more than the end of a task, at least, so that
/// [`TASK_EVENTS`] does not cover it.
pub fn domain_event(namespace: &Namespace, name: &EventName) -> String {
    format!("{EVENT}.{namespace}.domain.{name}")
}

/// `Nats-Msg-Id` and id of a domain event: the same attempt publishes the same event under the same id,
/// however often it does.
pub fn domain_event_id(step: impl fmt::Display, attempt: u32, name: &EventName) -> String {
    format!("{step}:{attempt}:{name}")
}

/// `Nats-Msg-Id` of a work item: one per decision to send a step, so that a second publish of the
/// same decision is dropped by the server and a re-dispatch is not.
pub fn message_id(step: impl fmt::Display, dispatch_seq: u32) -> String {
    format!("{step}:{dispatch_seq}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durables_do_not_collide() {
        let name = |ns: &str, queue: &str| {
            work_durable(&ns.parse().expect("a token"), &queue.parse().expect("a token"))
        };
        assert_ne!(name("a_b", "c"), name("a", "b_c"));
        let found =
            |durable: &str| queue_of_durable(durable).map(|(ns, queue)| format!("{ns} {queue}"));
        assert_eq!(found(&name("a_b", "c")).as_deref(), Some("a_b c"));

        assert_eq!((found("expand_batches"), found("work_a_b")), (None, None));
    }

    #[test]
    fn ends_of_tasks_do_not_cover_domain_events() {
        let namespace = "csv".parse().expect("a token");
        let tokens = TASK_EVENTS.split('.').count();
        for name in ["order_charged", "order.charged"] {
            let subject = domain_event(&namespace, &name.parse().expect("a name"));
            assert_eq!(subject, format!("tasker.event.csv.domain.{name}"));
            assert!(subject.split('.').count() > tokens, "{subject}");
        }
    }

    #[test]
    fn a_plan_finds_its_namespace() {
        let (ns, queue): (Namespace, Queue) =
            ("csv".parse().expect("a token"), "gpu".parse().expect("a token"));
        let subject = plan(&ns, &queue);
        assert_eq!(subject, "tasker.plan.csv.gpu");
        assert_eq!(plan_namespace(&subject), Some(ns));
        for other in ["tasker.plan", "tasker.plan.*.gpu", "tasker.planned.csv.gpu"] {
            assert_eq!(plan_namespace(other), None, "{other}");
        }
    }

    #[test]
    fn answers_go_to_inboxes_only() {
        let namespace = "csv".parse().expect("a token");
        let inbox = |client: &str| inbox(client);
        assert_eq!(
            (inbox("worker-1"), inbox("a.b *>")),
            ("_INBOX.worker-1".into(), "_INBOX.a_b___".into())
        );
        for good in [inbox("worker"), planned(&namespace, 7)] {
            assert!(takes_answers(&format!("{good}.x")), "{good}");
        }
        for bad in [
            "_INBOX",
            "_INBOXES.x",
            "tasker.work.b.default",
            "$JS.API.STREAM.DELETE.TASKER_WORK",
            "",
        ] {
            assert!(!takes_answers(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_finds_its_namespace() {
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(7));
        let ns: Namespace = "csv".parse().expect("a token");
        for &request in Request::ALL {
            assert_eq!(request.namespace(&request.subject(&ns)), Some(ns.clone()));
            assert_eq!(request.namespace("tasker.other.csv"), None);
        }
        assert_eq!(Request::Outcome.namespace(&outcome_at(&ns, node)), Some(ns));
        assert_eq!(Request::Outcome.namespace("tasker.outcome.B*D"), None);
    }
}
