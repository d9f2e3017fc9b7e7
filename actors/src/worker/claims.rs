//! Asks whether redelivered steps may run. Sent by the pull loops; emits steps that may run. What is
//! lost when it dies: claims without a verdict; their messages come back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::RequestError;
use tasker_guards::{CrashPoint, pass};
use tasker_messages::subject::Request;
use tasker_messages::{Claim, ClaimReply, ClaimRequest, ClaimVerdict, Namespace};

use super::core::Core;
use super::execute::{Step, run_step};
use super::held::HeldStep;
use super::retry::BackOff;

/// Asks whether redelivered steps may run.
pub(crate) struct ClaimsActor;

/// A step that must be claimed.
pub(crate) struct Asking {
    pub(crate) step: Step,
    /// Whether the same message was delivered before.
    pub(crate) redelivered: bool,
}

/// What the actor is told.
pub(crate) enum ClaimsMessage {
    /// Claim a step.
    Claim(Box<Asking>),
    /// A request of this namespace has been worked off.
    Done(Namespace),
}

/// What the actor keeps in mind. What waits is bounded by what the worker holds.
pub(crate) struct ClaimsState {
    core: Arc<Core>,
    waiting: HashMap<Namespace, Vec<Asking>>,
    asking: HashSet<Namespace>,
}

impl Actor for ClaimsActor {
    type Msg = ClaimsMessage;
    type State = ClaimsState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _: ActorRef<ClaimsMessage>,
        core: Arc<Core>,
    ) -> Result<ClaimsState, ActorProcessingErr> {
        Ok(ClaimsState { core, waiting: HashMap::new(), asking: HashSet::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ClaimsMessage>,
        message: ClaimsMessage,
        state: &mut ClaimsState,
    ) -> Result<(), ActorProcessingErr> {
        let namespace = match message {
            ClaimsMessage::Claim(asking) => {
                let namespace = asking.step.place.namespace.clone();
                state.waiting.entry(namespace.clone()).or_default().push(*asking);
                namespace
            }
            ClaimsMessage::Done(namespace) => {
                state.asking.remove(&namespace);
                namespace
            }
        };
        ask_next(&myself, state, namespace);
        Ok(())
    }
}

/// Asks for what waits in a namespace, unless a request is on its way: meanwhile claims gather.
fn ask_next(myself: &ActorRef<ClaimsMessage>, state: &mut ClaimsState, namespace: Namespace) {
    if state.asking.contains(&namespace) {
        return;
    }
    let Some(mut set) = state.waiting.remove(&namespace) else { return };
    let most = state.core.settings.worker.gather_max as usize;
    if set.len() > most {
        state.waiting.insert(namespace.clone(), set.split_off(most));
    }
    state.asking.insert(namespace.clone());
    let (core, myself, ns) = (Arc::clone(&state.core), myself.clone(), namespace.clone());
    let work = tokio::spawn(async move { claim(&core, &ns, set).await });
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::error!(%error, "claims were lost; their messages come back");
        }
        let _stopped = myself.cast(ClaimsMessage::Done(namespace));
    });
}

async fn claim(core: &Arc<Core>, namespace: &Namespace, set: Vec<Asking>) {
    let claims = set.iter().map(|asking| Claim {
        step_id: asking.step.item.step_id,
        dispatch_seq: asking.step.item.dispatch_seq,
        redelivered: asking.redelivered,
        begun: core.held.begun(asking.step.item.step_id),
    });
    let request = ClaimRequest { worker: core.id, claims: claims.collect(), until_ms: None };
    let Some(reply) = ask(core, namespace, request).await else { return };
    if reply.verdicts.len() != set.len() {
        tracing::error!(
            claims = set.len(),
            verdicts = reply.verdicts.len(),
            "an answer does not fit its claims; what has no verdict comes back"
        );
    }
    let mut set_aside = Vec::new();
    for (asking, verdict) in set.into_iter().zip(reply.verdicts) {
        let Asking { step, redelivered } = asking;
        if redelivered
            && matches!(verdict, ClaimVerdict::Run { .. })
            && !core.held.runs_first(&step.hold)
        {
            metrics::counter!("tasker_worker_claims_total", "verdict" => "set_aside").increment(1);
            set_aside.push((step, verdict));
        } else {
            follow(core, step, verdict).await;
        }
    }
    give_back(core, set_aside);
}

/// Members that came again in one message, which one of them may have cost the life of its worker: only the
/// first that is granted is run here. The others come again by themselves, so that none is charged for what
/// another one does.
fn give_back(core: &Arc<Core>, set_aside: Vec<(Step, ClaimVerdict)>) {
    let take = |(step, verdict): (Step, ClaimVerdict)| {
        if let ClaimVerdict::Run { attempt, .. } = verdict {
            core.held.granted(&step.hold, attempt);
        }
        core.held.take_one(step.hold)
    };
    let steps: Vec<HeldStep> = set_aside.into_iter().filter_map(take).collect();
    Core::give_back_later(core, steps);
}

/// Asks until there is an answer; `None` if the request is refused for good.
///
/// A request that is not answered in time is not served later: after the next one has been answered, a
/// step that is held by another worker is forgotten, and nobody would hear of what is granted then.
async fn ask(core: &Core, namespace: &Namespace, mut request: ClaimRequest) -> Option<ClaimReply> {
    let subject = Request::Claim.subject(namespace);
    let timeout = core.settings.nats.request_timeout();
    let mut back_off = BackOff::of_requests();
    let mut tells_time = true;
    loop {
        // The answer takes its time as well.
        let until = Instant::now() + timeout / 10 * 9;
        let until = core.bus.server_unix_nanos(until).filter(|_| tells_time);
        request.until_ms = until.map(|nanos| nanos / 1_000_000);
        match core.bus.request(subject.clone(), &request, timeout).await {
            Ok(reply) => return Some(reply),
            Err(error) if !error.is_retryable() => {
                tracing::error!(%error, claims = request.claims.len(), "claims are refused");
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, claims = request.claims.len(), "claiming again");
                // Should a clock be wrong, it is not refused for ever.
                tells_time = !matches!(error, RequestError::Refused(_));
                back_off.pause().await;
            }
        }
    }
}

async fn follow(core: &Core, mut step: Step, verdict: ClaimVerdict) {
    if let Some(newer) = core.held.other_dispatch(&step.hold, step.item.dispatch_seq)
        && !matches!(verdict, ClaimVerdict::Run { .. })
    {
        // The verdict is on a message that is gone; the one that came after it is still needed.
        step.item.dispatch_seq = newer;
        let asking = Asking { step, redelivered: false };
        core.claims.cast(ClaimsMessage::Claim(Box::new(asking)));
        return;
    }
    let count = |verdict| metrics::counter!("tasker_worker_claims_total", "verdict" => verdict);
    match verdict {
        ClaimVerdict::Run { attempt, tries } => {
            count("run").increment(1);
            pass(CrashPoint::ClaimGranted);
            core.held.granted(&step.hold, attempt);
            core.cancelled.resume(&step.place.namespace, &step.item);
            (step.attempt, step.tries) = (attempt, tries);
            tokio::spawn(run_step(step));
        }
        ClaimVerdict::Held => {
            count("held").increment(1);
            // Forgotten without acknowledgement: should the other worker die, it comes back.
            drop(step);
        }
        ClaimVerdict::Drop(reason) => {
            count("drop").increment(1);
            tracing::debug!(step.id = %step.item.step_id, ?reason, "not to be run");
            if let Some(ack) = core.held.settle_one(step.hold) {
                ack.ack().await;
            }
        }
    }
}
