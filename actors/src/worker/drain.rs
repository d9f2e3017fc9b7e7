//! The orderly end of a worker: of its process, or of its work alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use metrics::counter;
use tasker_messages::subject::Request;
use tasker_messages::{Namespace, ReleaseReply, ReleaseRequest, ReleasedStep, StepId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::core::{Core, Stage};
use super::heartbeat::beat;
use super::held::{HeldStep, Phase};
use super::retry::BackOff;

/// How long pull loops may take to end: longer than each of them allows itself, since what one takes in
/// after that nobody gives back.
const LOOPS_END: Duration = Duration::from_secs(6);
/// How long giving steps back may take, before their messages are left to come back, which can cost a try:
/// long enough for a second request, if the orchestrator that got the first has ended.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
/// How long a worker that is told to end waits for an answer before it asks another orchestrator.
pub(crate) const HURRY: Duration = Duration::from_secs(2);
/// How long the last reports may take.
const LAST_REPORTS: Duration = Duration::from_secs(3);
/// How long the last acknowledgements may take to leave.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// How often a worker that drains without a hurry looks for what came late.
const LATE_ONES: Duration = Duration::from_millis(200);
/// Most steps that are given back by one request.
const MAX_RELEASED: usize = 1_024;

/// Which steps were taken back. An orchestrator of an earlier build only says how many.
fn taken(request: &ReleaseRequest, reply: ReleaseReply) -> HashSet<StepId> {
    if reply.released as usize == request.steps.len() {
        return request.steps.iter().map(|step| step.step_id).collect();
    }
    reply.steps.into_iter().collect()
}

impl Core {
    /// Ends everything, in this order: pulling, waiting, running, reporting.
    pub(crate) async fn drain(&self) {
        let deadline = Instant::now() + self.settings.worker.drain();
        self.raise_stage(Stage::Draining);
        self.end_pulling().await;
        let waiting = self.held.take(&[Phase::Claiming, Phase::Waiting, Phase::Starting]);
        tokio::join!(self.give_back(waiting), async {
            if timeout(RELEASE_LIMIT, self.surplus_given_back()).await.is_err() {
                tracing::warn!(
                    "not all that was fetched ahead could be given back; it comes back by itself"
                );
            }
        });
        if timeout_at(deadline, self.held.empty()).await.is_err() {
            let rest = [Phase::Claiming, Phase::Waiting, Phase::Starting, Phase::Running];
            let unfinished = self.held.take(&rest);
            tracing::warn!(steps = unfinished.len(), "what still runs is given back");
            self.raise_stage(Stage::Killed);
            self.give_back(unfinished).await;
            if timeout(LAST_REPORTS, self.held.empty()).await.is_err() {
                tracing::warn!("outcomes were not answered; their steps run again elsewhere");
                return self.flush().await;
            }
        }
        self.announce_drained().await;
        self.flush().await;
    }

    /// Ends everything but the process, as somebody has asked: nobody waits for its end, so that what
    /// runs may take as long as it does. Reaching the end, it goes on giving signs of life.
    pub(crate) async fn stand_down(&self) {
        self.end_pulling().await;
        loop {
            // A delivery or a verdict on a claim may still have been on its way.
            self.release_all(self.held.take(&[Phase::Waiting, Phase::Starting])).await;
            let is_empty = timeout(LATE_ONES, self.held.empty()).await.is_ok();
            // A queue that is still being pulled may bring one more.
            if is_empty && self.ledger.queues() == 0 {
                break;
            }
            if is_empty {
                sleep(LATE_ONES).await;
            }
        }
        self.surplus_given_back().await;
        self.flush().await;
        self.announce_drained().await;
        tracing::info!(worker = %self.id, "worker has drained");
    }

    /// Gives back what was fetched ahead and has waited for so long: all but the one of each queue that may
    /// always wait. Nobody waits for the answer, but a drain.
    pub(crate) fn give_back_surplus(core: &Arc<Self>, age: Duration) {
        let surplus = core.held.take_surplus(age, core.ledger.queues() as usize);
        Self::give_back_later(core, surplus);
    }

    /// Gives steps back that were taken from their holds, without waiting for the answer.
    pub(crate) fn give_back_later(core: &Arc<Self>, steps: Vec<HeldStep>) {
        if steps.is_empty() {
            return;
        }
        counter!("tasker_worker_steps_given_back_total").increment(steps.len() as u64);
        let mut given_back = core.given_back.lock().unwrap_or_else(PoisonError::into_inner);
        while given_back.try_join_next().is_some() {}
        let core = Arc::clone(core);
        given_back.spawn(async move { core.release_all(steps).await });
    }

    /// Returns when what is being given back by [`Self::give_back_later`] has been answered. Given up
    /// before, it is given back no further.
    async fn surplus_given_back(&self) {
        let take = || -> JoinSet<()> {
            std::mem::take(&mut self.given_back.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut given_back = take();
        while given_back.join_next().await.is_some() {}
    }

    /// Says so and asks for nothing more; what waits for a slot gets none, from the first moment.
    async fn end_pulling(&self) {
        tracing::info!(held = self.ledger.busy(), "worker drains");
        self.slots.close();
        self.announce().await;
        let mut freed = self.ledger.freed();
        let loops_ended =
            async { while self.ledger.queues() > 0 && freed.changed().await.is_ok() {} };
        if timeout(LOOPS_END, loops_ended).await.is_err() {
            tracing::warn!("a queue is still being pulled");
        }
    }

    async fn announce_drained(&self) {
        self.raise_stage(Stage::Drained);
        self.announce().await;
    }

    /// Tells the new stage at once; if that fails, the next heartbeat does.
    async fn announce(&self) {
        if timeout(LAST_FLUSH, beat(self, self.settings.worker.heartbeat())).await.is_err() {
            tracing::debug!("a change could not be announced");
        }
    }

    async fn flush(&self) {
        if !matches!(timeout(LAST_FLUSH, self.bus.flush()).await, Ok(Ok(()))) {
            tracing::warn!("the last acknowledgements may be lost");
        }
    }

    /// Gives steps back in the time that a process has that is told to end.
    async fn give_back(&self, steps: Vec<HeldStep>) {
        if timeout(RELEASE_LIMIT, self.release_all(steps)).await.is_err() {
            tracing::warn!("not everything could be given back; it comes back by itself");
        }
    }

    /// Gives steps back to the orchestrators, and acknowledges their messages after the answer: new
    /// ones are on the way then. Where nobody answers it goes on asking: a message that came back by
    /// itself could be charged to a step that never ran.
    async fn release_all(&self, steps: Vec<HeldStep>) {
        let mut by_namespace: HashMap<Namespace, Vec<HeldStep>> = HashMap::new();
        for step in steps {
            by_namespace.entry(step.place.namespace.clone()).or_default().push(step);
        }
        for (namespace, steps) in &by_namespace {
            for steps in steps.chunks(MAX_RELEASED) {
                self.release(namespace, steps).await;
            }
        }
    }

    async fn release(&self, namespace: &Namespace, steps: &[HeldStep]) {
        let released = steps.iter().map(|step| ReleasedStep {
            step_id: step.step_id,
            attempt: step.attempt,
            dispatch_seq: step.dispatch_seq,
            unstarted: step.is_unstarted(),
        });
        self.give_back_steps(namespace, released.collect()).await;
    }

    /// Gives steps back, and answers with those that were taken. Their messages are acknowledged.
    pub(crate) async fn give_back_steps(
        &self,
        namespace: &Namespace,
        steps: Vec<ReleasedStep>,
    ) -> HashSet<StepId> {
        let request = ReleaseRequest { worker: self.id, steps };
        let taken = self.ask_to_take_back(namespace, &request).await;
        for ack in self.held.giving_back.end(&request.steps, &taken) {
            ack.ack().await;
        }
        taken
    }

    /// Asks until there is an answer.
    async fn ask_to_take_back(
        &self,
        namespace: &Namespace,
        request: &ReleaseRequest,
    ) -> HashSet<StepId> {
        let subject = Request::Release.subject(namespace);
        let mut back_off = BackOff::of_requests();
        loop {
            let timeout = match self.stage() {
                Stage::Serving => self.settings.nats.request_timeout(),
                _ => self.settings.nats.request_timeout().min(HURRY),
            };
            let answer = self.bus.request::<_, ReleaseReply>(subject.clone(), request, timeout);
            match answer.await {
                Ok(reply) => {
                    tracing::info!(%namespace, steps = reply.released, "steps given back");
                    return taken(request, reply);
                }
                Err(error) if !error.is_retryable() => {
                    tracing::error!(%error, %namespace, "steps are not taken back");
                    return HashSet::new();
                }
                Err(error) => {
                    tracing::debug!(%error, "giving back again");
                    sleep(back_off.next()).await;
                }
            }
        }
    }
}
