use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tasker_config::Outcomes;
use tasker_messages::Namespace;

use super::outcomes::Report;

/// While a set of a namespace is being stored, so many of its outcomes must wait for another one to begin
/// beside it: a transaction has its price however few they are, and two that meet at a batch take turns.
const WORTHWHILE: usize = 128;
/// While there is room for another set, nobody waits longer than this for one of the same namespace to end.
const PATIENCE: Duration = Duration::from_millis(20);

/// Reports that wait for a transaction: at once when nothing of their namespace is under way, in larger sets
/// under load.
#[derive(Default)]
pub(crate) struct ReportQueue {
    /// Of namespaces of which something waits or is under way.
    lanes: HashMap<Namespace, Lane>,
    attempts: usize,
    in_flight: u32,
}

/// What there is of one namespace.
#[derive(Default)]
struct Lane {
    /// The oldest first, each with the time since when it waits.
    waiting: VecDeque<(Instant, Report)>,
    attempts: usize,
    in_flight: u32,
}

impl Lane {
    /// Since when something waits, and how long until it may begin without a set that ends.
    fn waits_for(&self, now: Instant) -> Option<(Instant, Duration)> {
        let (since, _) = self.waiting.front()?;
        let at_once = self.in_flight == 0 || self.attempts >= WORTHWHILE;
        let patience = (*since + PATIENCE).saturating_duration_since(now);
        Some((*since, if at_once { Duration::ZERO } else { patience }))
    }

    fn take_set(&mut self, limit: usize) -> Vec<Report> {
        let (mut set, mut size) = (Vec::new(), 0);
        while let Some((_, report)) = self.waiting.front()
            && (set.is_empty() || size + report.attempts.len() <= limit)
        {
            size += report.attempts.len();
            set.extend(self.waiting.pop_front().map(|(_, report)| report));
        }
        self.attempts -= size;
        self.in_flight += 1;
        set
    }
}

impl ReportQueue {
    /// Takes a report in, or gives it back if too many outcomes wait.
    pub(crate) fn push(
        &mut self,
        report: Report,
        settings: &Outcomes,
        now: Instant,
    ) -> Result<(), Report> {
        let attempts = self.attempts + report.attempts.len();
        if attempts > settings.max_waiting as usize && self.attempts > 0 {
            return Err(report);
        }
        self.attempts = attempts;
        let lane = self.lanes.entry(report.namespace.clone()).or_default();
        lane.attempts += report.attempts.len();
        lane.waiting.push_back((now, report));
        Ok(())
    }

    /// Reports of one namespace up to the limit of a transaction, if one may begin: those that have waited
    /// longest. [`Self::done`] ends it.
    pub(crate) fn next_set(&mut self, settings: &Outcomes, now: Instant) -> Option<Vec<Report>> {
        if self.in_flight >= settings.transactions {
            return None;
        }
        let may_begin = |lane: &Lane| lane.waits_for(now).filter(|(_, wait)| wait.is_zero());
        let lanes = self.lanes.values_mut();
        let oldest = lanes.filter_map(|lane| may_begin(lane).map(|(since, _)| (since, lane)));
        let (_, lane) = oldest.min_by_key(|(since, _)| *since)?;
        let set = lane.take_set(settings.max_per_transaction as usize);
        self.attempts -= set.iter().map(|report| report.attempts.len()).sum::<usize>();
        self.in_flight += 1;
        Some(set)
    }

    /// A set of a namespace has been worked off.
    pub(crate) fn done(&mut self, namespace: &Namespace) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(namespace) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        self.lanes.retain(|_, lane| lane.in_flight > 0 || !lane.waiting.is_empty());
    }

    /// How long until a set may begin without one that ends; none if nothing waits, or only an end can help.
    pub(crate) fn waits_for(&self, settings: &Outcomes, now: Instant) -> Option<Duration> {
        if self.in_flight >= settings.transactions {
            return None;
        }
        self.lanes.values().filter_map(|lane| lane.waits_for(now)).map(|(_, wait)| wait).min()
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::{StepId, StepKind, WorkerId};
    use tasker_store::FinishedAttempt;
    use tokio::sync::oneshot;

    use super::*;

    const SETTINGS: Outcomes = Outcomes {
        max_per_transaction: 200,
        transactions: 2,
        max_waiting: 300,
        max_result_bytes: 1,
    };

    fn report(namespace: &str, outcomes: usize) -> Report {
        let attempt = FinishedAttempt {
            step_id: StepId::from_uuid(uuid::Uuid::nil()),
            attempt: 1,
            dispatch_seq: 1,
            kind: StepKind::Standard,
            has_schema: false,
            has_events: false,
            worker: WorkerId::from_uuid(uuid::Uuid::nil()),
            execution_ms: 0,
            ending: Ok("1".into()),
            takes_next: false,
        };
        let (answer, _) = oneshot::channel();
        let namespace = namespace.parse::<Namespace>().expect("a namespace");
        Report { namespace, attempts: vec![attempt; outcomes], answer }
    }

    /// Sizes of the reports of the next set.
    fn next(queue: &mut ReportQueue, now: Instant) -> Option<Vec<usize>> {
        let set = queue.next_set(&SETTINGS, now)?;
        Some(set.iter().map(|report| report.attempts.len()).collect())
    }

    fn done(queue: &mut ReportQueue, namespace: &str) {
        queue.done(&namespace.parse().expect("a namespace"));
    }

    #[test]
    fn a_second_set_must_be_worth_it_or_waited_for() {
        let (mut queue, start) = (ReportQueue::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let push = |queue: &mut ReportQueue, outcomes, ms| {
            assert!(queue.push(report("a", outcomes), &SETTINGS, at(ms)).is_ok());
        };
        push(&mut queue, 1, 0);
        assert_eq!(next(&mut queue, at(0)), Some(vec![1]), "nothing else is under way");
        push(&mut queue, 127, 1);
        assert_eq!(next(&mut queue, at(2)), None);
        assert_eq!(queue.waits_for(&SETTINGS, at(2)), Some(Duration::from_millis(19)));
        push(&mut queue, 1, 3);
        assert_eq!(next(&mut queue, at(3)), Some(vec![127, 1]), "enough for a second one");
        push(&mut queue, 200, 4);
        assert_eq!(next(&mut queue, at(90)), None, "two are under way");
        assert_eq!(queue.waits_for(&SETTINGS, at(90)), None);
        done(&mut queue, "a");
        assert_eq!(next(&mut queue, at(91)), Some(vec![200]));
        done(&mut queue, "a");
        push(&mut queue, 2, 92);
        assert_eq!(next(&mut queue, at(111)), None);
        assert_eq!(next(&mut queue, at(112)), Some(vec![2]), "it has waited long enough");
        done(&mut queue, "a");
        done(&mut queue, "a");
        push(&mut queue, 3, 113);
        assert_eq!(next(&mut queue, at(113)), Some(vec![3]));
        assert_eq!(queue.waits_for(&SETTINGS, at(113)), None, "nothing waits");
    }

    #[test]
    fn a_set_is_of_one_namespace_and_has_a_limit() {
        let (mut queue, now) = (ReportQueue::default(), Instant::now());
        let later = now + Duration::from_millis(1);
        for (namespace, outcomes, at) in
            [("a", 150, now), ("a", 50, now), ("b", 10, later), ("a", 60, later)]
        {
            assert!(queue.push(report(namespace, outcomes), &SETTINGS, at).is_ok());
        }
        assert!(queue.push(report("b", 31), &SETTINGS, now).is_err(), "270 wait");
        assert_eq!(next(&mut queue, later), Some(vec![150, 50]));
        assert_eq!(next(&mut queue, later), Some(vec![10]), "nothing of `b` is under way");
        done(&mut queue, "a");
        assert_eq!(next(&mut queue, later), Some(vec![60]));
        done(&mut queue, "a");
        done(&mut queue, "b");
        assert!(queue.lanes.is_empty());
        assert!(queue.push(report("b", 301), &SETTINGS, now).is_ok(), "alone it must fit");
        assert_eq!(next(&mut queue, now), Some(vec![301]));
    }

    #[test]
    fn what_waits_of_one_namespace_is_not_worth_a_set_of_another() {
        let (mut queue, now) = (ReportQueue::default(), Instant::now());
        assert!(queue.push(report("a", 1), &SETTINGS, now).is_ok());
        assert_eq!(next(&mut queue, now), Some(vec![1]));
        let later = now + Duration::from_millis(1);
        assert!(queue.push(report("a", 2), &SETTINGS, now).is_ok());
        assert!(queue.push(report("b", 127), &SETTINGS, later).is_ok());
        assert_eq!(next(&mut queue, later), Some(vec![127]), "the oldest that may begin");
        done(&mut queue, "b");
        assert!(queue.push(report("b", 127), &SETTINGS, later).is_ok());
        assert_eq!(next(&mut queue, later), Some(vec![127]));
        done(&mut queue, "b");
        assert_eq!(next(&mut queue, later), None, "129 waited, two of them of `a`");
        assert_eq!(queue.waits_for(&SETTINGS, later), Some(Duration::from_millis(19)));
    }
}
