//! Steps that are being given back.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tasker_messages::{ReleasedStep, StepId};

use super::message::Message;

/// One dispatch that is being given back.
struct Dispatch {
    seq: u32,
    /// Its message, which nobody else is to get meanwhile; none if it was handed over.
    ack: Option<Message>,
}

/// Steps that orchestrators were asked to take back, until they have answered, by dispatch. A worker that
/// claims one of them meanwhile may be granted the attempt that it gives back, since it seems to have asked
/// before, and another worker gets it as well. Their messages are kept until then: one that came to
/// another worker could be charged, although nobody vanished with it.
#[derive(Default)]
pub(crate) struct GivingBack {
    steps: Mutex<HashMap<StepId, Vec<Dispatch>>>,
}

impl GivingBack {
    fn steps(&self) -> MutexGuard<'_, HashMap<StepId, Vec<Dispatch>>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are to be given back: step, dispatch and message of each.
    pub(crate) fn begin(&self, steps: impl Iterator<Item = (StepId, u32, Option<Message>)>) {
        let mut known = self.steps();
        for (step, seq, ack) in steps {
            known.entry(step).or_default().push(Dispatch { seq, ack });
        }
    }

    /// They have been answered. Gives the messages of those that were taken back, which have others now;
    /// what was not taken back needs its message, unless it has ended: then a claim says so.
    pub(crate) fn end(&self, steps: &[ReleasedStep], taken: &HashSet<StepId>) -> Vec<Message> {
        let mut known = self.steps();
        let mut needless = Vec::new();
        for step in steps {
            let Some(dispatches) = known.get_mut(&step.step_id) else { continue };
            // The next dispatch of it may be given back already.
            let ended = dispatches.extract_if(.., |dispatch| dispatch.seq <= step.dispatch_seq);
            let acks = ended.filter_map(|dispatch| dispatch.ack);
            let acks: Vec<Message> = acks.filter(|_| taken.contains(&step.step_id)).collect();
            needless.extend(acks);
            if dispatches.is_empty() {
                known.remove(&step.step_id);
            }
        }
        needless
    }

    /// Keeps a message that brings what is being given back, and gives one that is not needed any more, if
    /// any; `Err` gives back the message of a step that is not. What was dispatched later was taken back
    /// before.
    pub(crate) fn keep(
        &self,
        step: StepId,
        dispatch_seq: u32,
        ack: Message,
    ) -> Result<Option<Message>, Message> {
        let mut known = self.steps();
        let dispatches = known.get_mut(&step).into_iter().flatten();
        let later = dispatches.filter(|dispatch| dispatch.seq >= dispatch_seq);
        match later.min_by_key(|dispatch| dispatch.seq) {
            None => Err(ack),
            Some(of) if of.seq > dispatch_seq => Ok(Some(ack)),
            Some(of) => {
                let again = of.ack.as_ref().is_some_and(|kept| kept.is_same(&ack));
                Ok(of.ack.replace(ack).filter(|_| !again))
            }
        }
    }

    /// Looks at the messages that are kept.
    pub(crate) fn each_message(&self, look: impl FnMut(&Message)) {
        let known = self.steps();
        known.values().flatten().filter_map(|dispatch| dispatch.ack.as_ref()).for_each(look);
    }
}

#[cfg(test)]
mod tests {
    use tasker_bus::{AckHandle, Bus};
    use uuid::Uuid;

    use super::super::fixture;
    use super::*;

    fn step(n: u128) -> StepId {
        StepId::from_uuid(Uuid::from_u128(n))
    }

    fn released(step_id: StepId, dispatch_seq: u32) -> [ReleasedStep; 1] {
        [ReleasedStep { step_id, attempt: 1, dispatch_seq, unstarted: true }]
    }

    /// A delivery of the message that stands there in the stream.
    fn message(bus: &Bus, sequence: u64, delivered: u64) -> Message {
        let reply = format!("$JS.ACK.work.durable.{delivered}.{sequence}.1.1.0");
        Message::split(AckHandle::of_reply(bus, &reply), 1).remove(0)
    }

    fn names(acks: impl IntoIterator<Item = Message>) -> Vec<String> {
        acks.into_iter().map(|ack| format!("{ack:?}")).collect()
    }

    #[tokio::test]
    async fn a_step_is_given_back_until_the_last_answer() {
        let bus = &fixture::core(|_| {}).await.bus;
        let (giving_back, one) = (GivingBack::default(), step(1));
        let taken = HashSet::from([one]);
        let has = |of, seq| giving_back.keep(of, seq, message(bus, 7, 1)).is_ok();
        giving_back.begin([(one, 3, None)].into_iter());
        assert!(has(one, 3) && has(one, 2), "what was superseded as well");
        assert!(!has(one, 4) && !has(step(2), 3));
        // It was taken back, has come here again, and is given back once more.
        giving_back.begin([(one, 4, None)].into_iter());
        assert_eq!(giving_back.end(&released(one, 3), &taken).len(), 1);
        assert!(has(one, 4) && has(one, 3));
        giving_back.end(&released(one, 4), &taken);
        assert!(!has(one, 3) && giving_back.steps().is_empty());
    }

    #[tokio::test]
    async fn messages_are_kept_until_the_answer() {
        let bus = &fixture::core(|_| {}).await.bus;
        let (giving_back, one, two) = (GivingBack::default(), step(1), step(2));
        let [first, again, copy, of_two, superseded] =
            [(7, 1), (7, 2), (8, 1), (9, 1), (6, 1)].map(|(at, n)| move || message(bus, at, n));
        giving_back.begin([(one, 3, Some(first())), (two, 1, None)].into_iter());
        let keep = |of, seq, ack| names(giving_back.keep(of, seq, ack).expect("it is given back"));
        assert_eq!(keep(two, 1, of_two()), names([]));
        assert_eq!(keep(one, 3, again()), names([]), "the same message once more");
        assert_eq!(keep(one, 3, copy()), names([again()]), "nobody would extend two of them");
        assert_eq!(keep(one, 2, superseded()), names([superseded()]));
        let kept = || {
            let mut kept = Vec::new();
            giving_back.each_message(|message| kept.push(format!("{message:?}")));
            kept.sort();
            kept
        };
        assert_eq!(kept(), names([copy(), of_two()]));
        // What was not taken back keeps its message.
        let both = [released(one, 3), released(two, 1)].concat();
        assert_eq!(names(giving_back.end(&both, &HashSet::from([one]))), names([copy()]));
        assert!(kept().is_empty());
    }
}
