//! An outcome that is stored alone does what it does in a set: the two have statements of their own.

use std::time::Instant;

use sqlx::PgPool;
use tasker_messages::StepKind::{self, Batchable, Decision, Standard};
use tasker_messages::Verdict;

use super::{LEASE_MS, TEMPLATE as BATCH, World, failure};
use crate::{Applied, FinishedAttempt, NewTask};

/// `numbers` is the name that `World` submits.
const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: first, handler: {callable: t}}
  - {name: second, dependencies: [first], handler: {callable: t}}
  - {name: beside, dependencies: [first], handler: {callable: t}}
  - {name: elsewhere, dependencies: [first, second], handler: {callable: t, queue: other}}
  - {name: join, dependencies: [beside, elsewhere], handler: {callable: t}}
  - {name: route, type: decision, dependencies: [beside], handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
  - {name: analyze, type: batchable, dependencies: [join], handler: {callable: t}, batch_config: {worker_template: work}}
  - {name: work, type: batch_worker, dependencies: [analyze], handler: {callable: t}}
  - {name: last, type: deferred_convergence, dependencies: [work], handler: {callable: t}}
";

/// A task without anything that is settled later, so that it ends with its last step.
const PLAIN: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: first, handler: {callable: t}}
  - {name: bad, handler: {callable: t}}
  - {name: second, dependencies: [first], handler: {callable: t}}
  - {name: never, dependencies: [bad], handler: {callable: t}}
";

/// A report on a step that exists from the beginning.
#[derive(Debug, Clone, Copy)]
struct Case(&'static str, StepKind, u32, Takes, Verdict);

/// Whether the worker would take a step that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    One,
    None,
}

const STALE: Verdict = Verdict::Stale { superseded: true };

/// Two tasks of one template: the outcomes of one are stored alone, those of the other in sets.
struct Twins {
    world: World,
    alone: NewTask,
    in_a_set: NewTask,
}

impl Twins {
    async fn of(pool: PgPool, template: &str) -> Self {
        let world = World::of(pool, template).await;
        let (alone, in_a_set) = (world.submit().await, world.submit().await);
        // No two columns are the same.
        for moved in [
            "update tasker.steps set attempt = 2, dispatch_seq = 4, tries = 1, claim_required = true",
            "update tasker.tasks set priority = 7",
        ] {
            sqlx::query(moved).execute(&world.pool).await.expect("moved");
        }
        Self { world, alone, in_a_set }
    }

    fn attempt(&self, task: &NewTask, case: Case) -> FinishedAttempt {
        let Case(name, kind, attempt, takes, _) = case;
        FinishedAttempt {
            takes_next: takes == Takes::One,
            ..self.world.finished(self.world.id(task, name), kind, attempt)
        }
    }

    /// Reports it on both tasks; what follows must be the same, and so must the rows.
    async fn report(&self, case: Case) -> Applied {
        let alone = [self.attempt(&self.alone, case)];
        let set = [self.attempt(&self.in_a_set, case)];
        let mut alone = self.world.apply(&alone).await;
        self.world.store_in_sets(true);
        let mut set = self.world.apply(&set).await;
        self.world.store_in_sets(false);
        assert_eq!(alone.verdicts, [case.4], "{case:?}");
        let now = Instant::now();
        for applied in [&mut alone, &mut set] {
            let handed = applied.handed.iter_mut().map(|(_, step)| step);
            handed.chain(&mut applied.ready).for_each(|step| step.known_since = now);
        }
        let shown = self.named(&self.alone, format!("{alone:?}"));
        assert_eq!(shown, self.named(&self.in_a_set, format!("{set:?}")), "{case:?}");
        let rows = [self.rows(&self.alone).await, self.rows(&self.in_a_set).await];
        assert_eq!(rows[0], rows[1], "{case:?}");
        alone
    }

    /// A text with names in the place of ids.
    fn named(&self, task: &NewTask, mut text: String) -> String {
        for (planned, id) in task.plan.steps.iter().zip(&task.step_ids) {
            let name = self.world.template.steps[planned.step].name.as_str();
            text = text.replace(&id.to_string(), name);
        }
        text.replace(&task.id.to_string(), "task")
    }

    /// All that there is of a task, but for moments.
    async fn rows(&self, task: &NewTask) -> String {
        let rows: String = sqlx::query_scalar(
            "select concat_ws(E'\n',
                (select string_agg(row(s.id, s.kind, s.state, s.attempt, s.dispatch_seq, s.sent_seq,
                     s.tries, s.pending_parents, s.children, s.unsettled, s.claim_required, s.queue,
                     s.lease_worker, s.lease_until > now() + interval '5 seconds',
                     s.enqueued_at is null, o.state, o.attempt, o.result::text, o.error::text,
                     o.worker, o.execution_ms)::text, E'\n' order by s.id)
                 from tasker.steps s left join tasker.outcomes o on o.step_id = s.id
                 where s.task_id = t.id),
                row(t.state, t.active_steps, t.pending_steps, t.failed_steps, t.finished_at is null,
                    t.error::text, t.step_error::text)::text)
             from tasker.tasks t where t.id = $1",
        )
        .bind(task.id.as_uuid())
        .fetch_one(&self.world.pool)
        .await
        .expect("a task");
        self.named(task, rows)
    }
}

#[sqlx::test]
async fn what_follows_is_the_same(pool: PgPool) {
    let twins = Twins::of(pool, TEMPLATE).await;
    for case in [
        Case("join", Standard, 2, Takes::One, Verdict::Unknown),
        Case("first", Decision, 2, Takes::One, Verdict::Unknown),
        Case("first", Standard, 1, Takes::One, STALE),
    ] {
        twins.report(case).await;
    }
    let names = |applied: &Applied| {
        let handed = applied.handed.iter().map(|(_, step)| step.name.clone());
        let ready = applied.ready.iter().map(|step| step.name.clone());
        (handed.collect::<Vec<_>>().join(" "), ready.collect::<Vec<_>>().join(" "))
    };
    for (case, handed, ready) in [
        (Case("first", Standard, 2, Takes::One, Verdict::Applied), "second", "beside"),
        (Case("first", Standard, 2, Takes::One, Verdict::Duplicate), "", ""),
        // In another queue.
        (Case("second", Standard, 2, Takes::One, Verdict::Applied), "", "elsewhere"),
        // `join`, its first child, waits for `elsewhere`; another one is not offered.
        (Case("beside", Standard, 2, Takes::One, Verdict::Applied), "", "route"),
        (Case("elsewhere", Standard, 2, Takes::One, Verdict::Applied), "", "join"),
        (Case("route", Decision, 2, Takes::One, Verdict::Applied), "", ""),
        (Case("join", Standard, 2, Takes::None, Verdict::Applied), "", "analyze"),
        (Case("analyze", Batchable, 2, Takes::One, Verdict::Applied), "", ""),
    ] {
        let applied = twins.report(case).await;
        assert_eq!(names(&applied), (handed.to_owned(), ready.to_owned()), "{case:?}");
        let settled_later = matches!(case.1, Decision | Batchable);
        assert_eq!(applied.unsettled.len(), usize::from(settled_later), "{case:?}");
    }
    twins.world.assert_consistent().await;
}

#[sqlx::test]
async fn a_task_ends_the_same(pool: PgPool) {
    for fails in [false, true] {
        let twins = match fails {
            false => Twins::of(pool.clone(), PLAIN).await,
            true => Twins::of(pool.clone(), &PLAIN.replace("1.0.0", "1.1.0")).await,
        };
        twins.report(Case("first", Standard, 2, Takes::One, Verdict::Applied)).await;
        if fails {
            for task in [&twins.alone, &twins.in_a_set] {
                let id = twins.world.id(task, "bad");
                let bad = twins.world.finished(id, Standard, 2);
                let bad = FinishedAttempt { ending: Err(failure(false)), ..bad };
                twins.world.apply(&[bad]).await;
            }
        } else {
            twins.report(Case("bad", Standard, 2, Takes::None, Verdict::Applied)).await;
            twins.report(Case("never", Standard, 2, Takes::None, Verdict::Applied)).await;
        }
        let applied = twins.report(Case("second", Standard, 2, Takes::One, Verdict::Applied)).await;
        let ended: Vec<String> =
            applied.finished_tasks.iter().map(|task| task.state.to_string()).collect();
        assert_eq!(ended, [if fails { "blocked_by_failures" } else { "complete" }]);
        twins.report(Case("second", Standard, 2, Takes::One, Verdict::Duplicate)).await;
        twins.world.assert_consistent().await;
    }
}

/// A step of another namespace, one of a task that was cancelled, and a member of a batch.
#[sqlx::test]
async fn what_may_not_be_stored_is_not(pool: PgPool) {
    let twins = Twins::of(pool, PLAIN).await;
    let first = twins.attempt(&twins.alone, Case("first", Standard, 2, Takes::None, STALE));
    let others = "others".parse().expect("a name");
    let applied = twins.world.store.apply_outcomes(&others, &[first], LEASE_MS).await;
    assert_eq!(applied.expect("read").verdicts, [Verdict::Unknown]);
    for task in [&twins.alone, &twins.in_a_set] {
        twins.world.store.cancel_task(task.id, "somebody", None).await.expect("cancelled");
    }
    // The end by request is an outcome.
    twins.report(Case("bad", Standard, 2, Takes::One, Verdict::Duplicate)).await;
    let world = World::of(twins.world.pool.clone(), &BATCH.replace("1.0.0", "1.2.0")).await;
    let (_, batch) = world.expand(1).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        let applied = world.apply(&[world.finished(batch.member(0), Standard, 1)]).await;
        assert_eq!(applied.verdicts, [Verdict::Unknown]);
    }
}
