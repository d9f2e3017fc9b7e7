//! Whether anybody could run a step that is ready.

use tasker_messages::{QueueLoad, ReasonCode};

use super::TaskDetail;
use crate::template::StepTemplate;

/// What a live worker pulls and has.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The queues that it pulls in the task's namespace, as of its last heartbeat.
    pub queues: Vec<QueueLoad>,
    /// The callables that it has.
    pub callables: Vec<String>,
    /// Whether it has others, which it finds when they are asked for.
    pub resolves: bool,
}

impl Offer {
    /// Whether it could run the step, as far as it says.
    pub fn has(&self, step: &StepTemplate) -> bool {
        let listed = self.callables.contains(&step.handler.callable);
        self.resolves || listed && step.handler.resolver.is_none()
    }

    /// How many of its slots are taken by queues of this namespace, which share them.
    fn busy(&self, slots: u32) -> u32 {
        self.queues.iter().map(|load| load.busy).sum::<u32>().min(slots)
    }
}

/// Why a step that is ready does not run; `otherwise` is told along.
pub(super) fn why(
    step: &StepTemplate,
    detail: &TaskDetail,
    otherwise: &str,
) -> (ReasonCode, String) {
    let (queue, callable) = (&step.handler.queue, &step.handler.callable);
    let slots =
        |offer: &Offer| offer.queues.iter().find(|load| load.queue == *queue).map(|l| l.slots);
    let pulling: Vec<(&Offer, u32)> =
        detail.offers.iter().filter_map(|offer| Some((offer, slots(offer)?))).collect();
    if pulling.is_empty() {
        let message = format!(
            "no live worker pulls the queue `{queue}` of this namespace; start one. {otherwise}"
        );
        return (ReasonCode::NoWorker, message);
    }
    let all = pulling.len();
    let able: Vec<&(&Offer, u32)> = pulling.iter().filter(|(offer, _)| offer.has(step)).collect();
    if able.is_empty() {
        let message = format!(
            "of {} of the queue `{queue}` none has `{callable}`. {otherwise}",
            workers(all)
        );
        return (ReasonCode::NoHandler, message);
    }
    let slots: u64 = able.iter().map(|(_, slots)| u64::from(*slots)).sum();
    let busy: u64 = able.iter().map(|(offer, slots)| u64::from(offer.busy(*slots))).sum();
    let lack = match all - able.len() {
        0 => String::new(),
        lack => format!("; {lack} of {} of its queue cannot", workers(all)),
    };
    let who = format!("{} can run it, {busy} of their {slots} slots busy", workers(able.len()));
    let code = if busy >= slots { ReasonCode::AllSlotsBusy } else { ReasonCode::Queued };
    let limit = match detail.limits.get(queue) {
        Some(limit) => format!("; the limit of the queue `{queue}` lets {limit} run at a time"),
        None => String::new(),
    };
    let of_all = match detail.limit {
        Some(limit) => format!("; the limit of the namespace lets {limit} run at a time"),
        None => String::new(),
    };
    (code, format!("{otherwise}; {who}{lack}{limit}{of_all}"))
}

fn workers(n: usize) -> String {
    if n == 1 { "1 live worker".to_owned() } else { format!("{n} live workers") }
}
