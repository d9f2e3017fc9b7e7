//! Deliveries: what a message is to a worker that may hold its step already, and what becomes of the one
//! that is held.

use tasker_messages::Verdict;

/// What a delivery is to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// The step is not held.
    New,
    /// The same dispatch again, or a newer one of the attempt that is held: go on with it under the
    /// new delivery.
    Same,
    /// An older dispatch than the one that is held.
    Older,
    /// A later attempt: what is held has been overtaken.
    Later,
}

/// An attempt under a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatched {
    /// The fence.
    pub attempt: u32,
    /// Which message.
    pub dispatch_seq: u32,
}

/// Says what a delivery is. A claim raises the attempt that is held, so a redelivery may name a lower
/// one.
pub fn meet(held: Option<Dispatched>, come: Dispatched) -> Meeting {
    match held {
        None => Meeting::New,
        Some(held) if come.dispatch_seq < held.dispatch_seq => Meeting::Older,
        Some(held) if come.dispatch_seq > held.dispatch_seq && come.attempt > held.attempt => {
            Meeting::Later
        }
        Some(_) => Meeting::Same,
    }
}

/// What becomes of the message that is held when a report of its step has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterReport {
    /// It is acknowledged.
    Acknowledge,
    /// It is given back to the bus at once: the verdict says nothing of it, and it is claimed when it comes
    /// again.
    GiveBack,
    /// It is left to come back by itself.
    Forget,
}

/// Says what becomes of the held message. While a report is under way the step may be dispatched again,
/// and the new message take the place of the one that was reported on: that the old one is superseded
/// is no reason to acknowledge the new one.
pub fn after_report(verdict: Verdict, reported_seq: u32, held_seq: u32) -> AfterReport {
    match verdict {
        Verdict::Stale { .. } if reported_seq != held_seq => AfterReport::GiveBack,
        verdict if verdict.acknowledges() => AfterReport::Acknowledge,
        _ => AfterReport::Forget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_after_reports() {
        let stale = |superseded| Verdict::Stale { superseded };
        // (verdict, reported seq, held seq)
        let table = [
            (Verdict::Applied, 1, 1, AfterReport::Acknowledge),
            (Verdict::Duplicate, 1, 2, AfterReport::Acknowledge),
            (Verdict::Unknown, 1, 1, AfterReport::Acknowledge),
            (stale(true), 1, 1, AfterReport::Acknowledge),
            (stale(false), 1, 1, AfterReport::Forget),
            (stale(true), 1, 2, AfterReport::GiveBack),
            (stale(false), 1, 2, AfterReport::GiveBack),
        ];
        for (verdict, reported, held, expect) in table {
            let after = after_report(verdict, reported, held);
            assert_eq!(after, expect, "{verdict:?} on {reported}, {held} is held");
        }
    }

    #[test]
    fn deliveries_of_held_steps() {
        // (held attempt, seq), (come attempt, seq)
        let table = [
            (None, (1, 1), Meeting::New),
            (Some((1, 1)), (1, 1), Meeting::Same),
            // Claimed after a redelivery, and delivered once more.
            (Some((3, 1)), (1, 1), Meeting::Same),
            // Taken for lost and dispatched again while it runs here.
            (Some((1, 1)), (1, 2), Meeting::Same),
            (Some((2, 2)), (1, 1), Meeting::Older),
            // A retry, while the report of the failed attempt waits for its answer.
            (Some((1, 1)), (2, 2), Meeting::Later),
        ];
        let dispatched = |(attempt, dispatch_seq)| Dispatched { attempt, dispatch_seq };
        for (held, come, expect) in table {
            let met = meet(held.map(dispatched), dispatched(come));
            assert_eq!(met, expect, "{held:?} meets {come:?}");
        }
    }
}
