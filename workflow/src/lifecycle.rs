//! Limits of time: how long a task may last, and its steps wait or run.

use tasker_messages::{StepFailure, StepId, StepKind, code};

use crate::template::Template;

/// Limits of a task; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lifecycle {
    /// From its acceptance to its end.
    pub max_duration_ms: Option<u64>,
    /// A step for its parents.
    pub max_waiting_for_dependencies_ms: Option<u64>,
    /// A step for its next attempt.
    pub max_waiting_for_retry_ms: Option<u64>,
    /// An attempt of a step, from when it is known to run.
    pub max_in_process_ms: Option<u64>,
    /// What happens to a task that passes one of them.
    pub action: StalenessAction,
}

/// What happens to a task that passes a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StalenessAction {
    /// It ends, and opens a dead letter.
    #[default]
    Dlq,
    /// It ends.
    Error,
    /// It goes on, and the log says so once.
    None,
}

impl StalenessAction {
    /// Every action, in the order of its declaration.
    pub const ALL: &'static [Self] = &[Self::Dlq, Self::Error, Self::None];

    /// The name used in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dlq => "dlq",
            Self::Error => "error",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for StalenessAction {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|action| action.as_str() == name).ok_or(())
    }
}

/// A task that is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskTiming {
    /// Since its acceptance, or since it was repaired.
    pub age_ms: u64,
    /// Whether it passed a limit before, and went on.
    pub is_stale: bool,
    /// Its rows without outcome that wait or are known to run, members among them.
    pub steps: Vec<StepTiming>,
}

/// A row that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTiming {
    /// The step.
    pub id: StepId,
    /// Its name.
    pub name: String,
    /// The step of the template.
    pub template_step: String,
    /// What it is.
    pub kind: StepKind,
    /// Its current attempt.
    pub attempt: u32,
    /// What it does.
    pub phase: StepPhase,
    /// For how long.
    pub since_ms: u64,
}

/// What a row without outcome does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPhase {
    /// It waits for its parents.
    Pending,
    /// It waits for its next attempt.
    WaitingForRetry,
    /// It runs; whether its worker has been silent since its lease ended.
    InProcess { silent: bool },
}

/// What follows from the times of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Review {
    /// The limit that was passed, as the error of the task.
    pub stale: Option<StepFailure>,
    /// Attempts whose time is over although nobody is left to end them.
    pub overdue: Vec<StepTiming>,
    /// When to look again; `None` if nothing can come of it.
    pub next_ms: Option<u64>,
}

/// Milliseconds between two looks at one task, at least.
const SHORTEST: u64 = 250;

impl Template {
    /// When a new task is looked at for the first time; `None` if nothing of it has a limit of time.
    pub fn first_review_ms(&self) -> Option<u64> {
        self.limits(false).min().map(|limit| limit.max(SHORTEST))
    }

    /// The limits that count for a task: a state that begins after a look cannot have passed its limit
    /// before the next one, which comes after the shortest limit at the latest.
    fn limits(&self, is_stale: bool) -> impl Iterator<Item = u64> {
        let Lifecycle {
            max_duration_ms,
            max_waiting_for_dependencies_ms,
            max_waiting_for_retry_ms,
            max_in_process_ms,
            ..
        } = self.lifecycle;
        let of_task = [
            max_duration_ms,
            max_waiting_for_dependencies_ms,
            max_waiting_for_retry_ms,
            max_in_process_ms,
        ];
        let of_steps = self.steps.iter().map(|step| step.max_in_process_ms);
        let staleness = of_task.into_iter().chain(of_steps).filter(move |_| !is_stale);
        staleness.chain(self.steps.iter().map(|step| step.timeout_ms)).flatten()
    }

    /// Looks at the times of a task. A worker ends an attempt that takes longer than its
    /// `timeout_seconds` by itself; where it has been silent for `grace_ms` after that, the attempt is
    /// overdue.
    pub fn review(&self, task: &TaskTiming, grace_ms: u64) -> Review {
        let mut clock = Clock { next_ms: self.limits(task.is_stale).min() };
        let stale = if task.is_stale { None } else { self.stale(task, &mut clock) };
        let late = |step: &&StepTiming| self.is_late(step, grace_ms, &mut clock);
        let overdue = task.steps.iter().filter(late).cloned().collect();
        Review { stale, overdue, next_ms: clock.next_ms.map(|wait| wait.max(SHORTEST)) }
    }

    /// The first limit that was passed.
    fn stale(&self, task: &TaskTiming, clock: &mut Clock) -> Option<StepFailure> {
        let limit = self.lifecycle.max_duration_ms;
        if let Some(limit) = limit.filter(|&limit| clock.is_over(task.age_ms, limit)) {
            return Some(stale("the task lasts", task.age_ms, limit));
        }
        task.steps.iter().find_map(|step| {
            let limit = self.limit_of(step)?;
            let what = || format!("step `{}` {}", step.name, step.phase.words());
            clock.is_over(step.since_ms, limit).then(|| stale(&what(), step.since_ms, limit))
        })
    }

    /// Whether nobody is left to end an attempt whose time is over. One whose worker is alive is looked
    /// at again.
    fn is_late(&self, step: &StepTiming, grace_ms: u64, clock: &mut Clock) -> bool {
        let StepPhase::InProcess { silent } = step.phase else { return false };
        let timeout = self.step(&step.template_step).and_then(|(_, template)| template.timeout_ms);
        let limit = timeout.map(|timeout| timeout.saturating_add(grace_ms));
        limit.is_some_and(|limit| clock.is_over(step.since_ms, limit)) && silent
    }

    /// The limit of what a step does. A worker that is silent runs nothing: its step is taken over, or
    /// runs out of its `timeout_seconds`.
    fn limit_of(&self, step: &StepTiming) -> Option<u64> {
        let (_, template) = self.step(&step.template_step)?;
        match step.phase {
            StepPhase::Pending => self.lifecycle.max_waiting_for_dependencies_ms,
            StepPhase::WaitingForRetry => self.lifecycle.max_waiting_for_retry_ms,
            StepPhase::InProcess { silent: true } => None,
            StepPhase::InProcess { silent: false } => {
                template.max_in_process_ms.or(self.lifecycle.max_in_process_ms)
            }
        }
    }
}

/// When something could be over next.
struct Clock {
    next_ms: Option<u64>,
}

impl Clock {
    /// Whether a limit was passed; if not, it is looked at when it could be.
    fn is_over(&mut self, since_ms: u64, limit_ms: u64) -> bool {
        match limit_ms.checked_sub(since_ms) {
            None | Some(0) => true,
            Some(left) => {
                self.next_ms = Some(self.next_ms.map_or(left, |next| next.min(left)));
                false
            }
        }
    }
}

impl StepPhase {
    const fn words(self) -> &'static str {
        match self {
            StepPhase::Pending => "waits for its parents",
            StepPhase::WaitingForRetry => "waits for its next attempt",
            StepPhase::InProcess { .. } => "runs",
        }
    }
}

fn stale(what: &str, since_ms: u64, limit_ms: u64) -> StepFailure {
    let minutes = |ms: u64| ms as f64 / 60_000.0;
    StepFailure {
        code: code::TASK_STALE.to_owned(),
        message: format!(
            "{what} for {:.2} minutes; its template allows {}",
            minutes(since_ms),
            minutes(limit_ms)
        ),
        retryable: false,
        error_type: "lifecycle".to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    }
}

/// The error of an attempt whose time is over although its worker has not said so.
pub fn overdue(step: &StepTiming) -> StepFailure {
    StepFailure {
        code: code::HANDLER_TIMEOUT.to_owned(),
        message: format!(
            "attempt {} of `{}` ran out of time, and its worker is silent",
            step.attempt, step.name
        ),
        retryable: true,
        error_type: "timeout".to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MINUTE: u64 = 60_000;

    /// Two steps, of which the second has limits of its own, under this lifecycle.
    fn template(lifecycle: &str) -> Template {
        let source = format!(
            "name: t\nnamespace_name: n\nversion: 1.0.0\nlifecycle: {{{lifecycle}}}\nsteps:\n\
             - {{name: a, handler: {{callable: x}}}}\n\
             - {{name: b, handler: {{callable: x}}, timeout_seconds: 30, lifecycle: \
             {{max_steps_in_process_minutes: 20}}}}\n"
        );
        Template::parse(source.as_bytes()).expect("a template")
    }

    fn step(name: &str, phase: StepPhase, since_ms: u64) -> StepTiming {
        StepTiming {
            id: StepId::from_uuid(Uuid::nil()),
            name: name.to_owned(),
            template_step: name.to_owned(),
            kind: StepKind::Standard,
            attempt: 1,
            phase,
            since_ms,
        }
    }

    fn review(lifecycle: &str, age_ms: u64, steps: &[StepTiming]) -> Review {
        let task = TaskTiming { age_ms, is_stale: false, steps: steps.to_vec() };
        template(lifecycle).review(&task, 10_000)
    }

    fn message(review: &Review) -> &str {
        review.stale.as_ref().map_or("", |failure| failure.message.as_str())
    }

    #[test]
    fn each_limit_is_passed_exactly_when_its_time_is_over() {
        let running = StepPhase::InProcess { silent: false };
        type Row = Option<(&'static str, StepPhase)>;
        let table: [(&str, Row, u64, &str); 5] = [
            ("max_duration_minutes: 2", None, 2 * MINUTE, "the task lasts for 2.00 minutes"),
            (
                "max_waiting_for_dependencies_minutes: 3",
                Some(("a", StepPhase::Pending)),
                3 * MINUTE,
                "step `a` waits for its parents for 3.00 minutes",
            ),
            (
                "max_waiting_for_retry_minutes: 0.5",
                Some(("a", StepPhase::WaitingForRetry)),
                MINUTE / 2,
                "step `a` waits for its next attempt for 0.50 minutes",
            ),
            (
                "max_steps_in_process_minutes: 4",
                Some(("a", running)),
                4 * MINUTE,
                "step `a` runs for 4.00 minutes",
            ),
            // The step's own limit goes before the task's.
            (
                "max_steps_in_process_minutes: 4",
                Some(("b", running)),
                20 * MINUTE,
                "step `b` runs for 20.00 minutes",
            ),
        ];
        for (lifecycle, row, limit, expect) in table {
            let at = |ms: u64| match row {
                Some((name, phase)) => review(lifecycle, 0, &[step(name, phase, ms)]),
                None => review(lifecycle, ms, &[]),
            };
            let before = at(limit - 1);
            assert_eq!(before.stale, None, "{lifecycle}");
            // What is left of the limit, unless another limit is shorter.
            assert_eq!(before.next_ms, Some(SHORTEST), "{lifecycle}");
            let after = at(limit);
            assert!(message(&after).starts_with(expect), "{lifecycle}: {}", message(&after));
            assert_eq!(after.stale.map(|failure| failure.code), Some(code::TASK_STALE.to_owned()));
        }
        // No other phase has to do with a limit.
        let others =
            [step("a", running, 9 * MINUTE), step("a", StepPhase::WaitingForRetry, 9 * MINUTE)];
        assert_eq!(review("max_waiting_for_dependencies_minutes: 3", 0, &others).stale, None);
    }

    #[test]
    fn an_attempt_is_overdue_when_its_worker_is_silent_too() {
        let at = |silent, since_ms| {
            review("", 0, &[step("b", StepPhase::InProcess { silent }, since_ms)]).overdue.len()
        };
        assert_eq!(at(true, 39_999), 0, "its worker may still report the time-out");
        assert_eq!(at(true, 40_000), 1);
        assert_eq!(at(false, 400_000), 0, "a live worker ends it by itself");
        let a = step("a", StepPhase::InProcess { silent: true }, u64::MAX);
        assert_eq!(review("", 0, &[a]).overdue, [], "it has no time limit");
    }

    #[test]
    fn looks() {
        assert_eq!(template("").first_review_ms(), Some(30_000));
        assert_eq!(template("max_duration_minutes: 0.1").first_review_ms(), Some(6_000));
        let unlimited = crate::testing::template(&["a -"]);
        assert_eq!(unlimited.first_review_ms(), None);
        assert_eq!(unlimited.review(&TaskTiming::default(), 0), Review::default());
        // Nothing waits: what begins to wait now cannot be late before the shortest limit.
        assert_eq!(review("max_waiting_for_retry_minutes: 0.25", 0, &[]).next_ms, Some(15_000));
        let a = step("a", StepPhase::InProcess { silent: true }, 9 * MINUTE);
        let silent = review("max_steps_in_process_minutes: 4", 0, &[a]);
        assert_eq!(silent.stale, None, "nobody runs it");
        // A task that passed a limit and went on is not stale again, but its attempts have times.
        let running = step("b", StepPhase::InProcess { silent: true }, 90 * MINUTE);
        let task = TaskTiming { age_ms: 99 * MINUTE, is_stale: true, steps: vec![running] };
        let review = template("max_duration_minutes: 1").review(&task, 0);
        assert_eq!((review.stale, review.overdue.len(), review.next_ms), (None, 1, Some(30_000)));
    }

    #[test]
    fn the_action() {
        let action = |lifecycle: &str| template(lifecycle).lifecycle.action;
        assert_eq!(action(""), StalenessAction::Dlq);
        for known in StalenessAction::ALL {
            assert_eq!(action(&format!("staleness_action: {}", known.as_str())), *known);
        }
    }
}
