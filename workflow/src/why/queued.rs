//! Whether anybody could run a step that is ready.

use tasker_messages::{QueueLoad, ReasonCode};

use crate::template::StepTemplate;

/// What a live worker pulls and has.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The queues that it pulls in the task's namespace, as of its last heartbeat.
    pub queues: Vec<QueueLoad>,
    /// The callables that it has.
    pub callables: Vec<String>,
}

/// Why a step that is ready does not run; `otherwise` is told along.
pub(super) fn why(step: &StepTemplate, offers: &[Offer], otherwise: &str) -> (ReasonCode, String) {
    let (queue, callable) = (&step.handler.queue, &step.handler.callable);
    let load = |offer: &Offer| offer.queues.iter().find(|load| load.queue == *queue).cloned();
    let pulling: Vec<(&Offer, QueueLoad)> =
        offers.iter().filter_map(|offer| Some((offer, load(offer)?))).collect();
    if pulling.is_empty() {
        let message = format!(
            "no live worker pulls the queue `{queue}` of this namespace; start one. {otherwise}"
        );
        return (ReasonCode::NoWorker, message);
    }
    let all = pulling.len();
    let has = |offer: &Offer| offer.callables.iter().any(|name| name == callable);
    let able: Vec<&QueueLoad> =
        pulling.iter().filter(|(offer, _)| has(offer)).map(|(_, load)| load).collect();
    if able.is_empty() {
        let message = format!(
            "none of the {all} live workers of the queue `{queue}` has `{callable}`. {otherwise}"
        );
        return (ReasonCode::NoHandler, message);
    }
    let slots: u64 = able.iter().map(|load| u64::from(load.slots)).sum();
    let busy: u64 = able.iter().map(|load| u64::from(load.busy)).sum();
    let lack = match all - able.len() {
        0 => String::new(),
        lack => format!("; {lack} of the {all} workers of its queue lack `{callable}`"),
    };
    let who = format!("{} live workers can run it, {busy} of their {slots} slots busy", able.len());
    let code = if busy >= slots { ReasonCode::AllSlotsBusy } else { ReasonCode::Queued };
    (code, format!("{otherwise}; {who}{lack}"))
}
