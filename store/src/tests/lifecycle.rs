//! Limits of time.

use std::time::Duration;

use sqlx::PgPool;
use tasker_messages::{
    ReasonCode, RunningStep, StepId, StepKind, TaskId, TaskState, Verdict, code,
};

use super::{LEASE_MS, World};
use crate::{RepairRequest, RepairTarget};

const GRACE_MS: u64 = 10_000;

fn limited(lifecycle: &str) -> String {
    format!("{}lifecycle: {{{lifecycle}}}\n", super::TEMPLATE)
}

impl World {
    /// Lets the task be due for a look and everything about it so many seconds older.
    async fn age(&self, task: TaskId, seconds: i32) {
        let statements = [
            "update tasker.tasks
             set check_at = now(), created_at = created_at - $2 * interval '1 s',
                 clock_from = clock_from - $2 * interval '1 s'
             where id = $1",
            "update tasker.steps
             set created_at = created_at - $2 * interval '1 s',
                 started_at = started_at - $2 * interval '1 s',
                 lease_until = lease_until - $2 * interval '1 s'
             where task_id = $1",
            "update tasker.failed_attempts set created_at = created_at - $2 * interval '1 s'
             where step_id in (select id from tasker.steps where task_id = $1)",
        ];
        for statement in statements {
            let done = sqlx::query(statement).bind(task.as_uuid()).bind(seconds);
            done.execute(&self.pool).await.expect("done");
        }
    }

    async fn review(&self) -> crate::Reviewed {
        self.store.review_tasks(16, GRACE_MS).await.expect("reviewed")
    }

    async fn beat(&self, step_id: StepId, attempt: u32) {
        let running = [RunningStep { step_id, attempt }];
        let ns = super::ns();
        self.store.renew_leases(&ns, self.worker, &running, LEASE_MS).await.expect("renewed");
    }
}

#[sqlx::test]
async fn a_task_that_lasts_too_long_ends_and_opens_a_dead_letter(pool: PgPool) {
    let world = World::of(pool, &limited("max_duration_minutes: 10")).await;
    let (task, batch) = world.expand(3).await;
    world.apply(&world.members(batch, 1)).await;
    world.age(task.id, 599).await;
    let early = world.review().await;
    assert_eq!((early.tasks, early.ended.len()), (1, 0));
    assert_eq!(world.review().await.tasks, 0, "the next look is planned");
    world.age(task.id, 2).await;
    let reviewed = world.review().await;
    let ended: Vec<(TaskId, TaskState)> = reviewed.ended.iter().map(|t| (t.id, t.state)).collect();
    assert_eq!(ended, [(task.id, TaskState::Error)]);
    let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
    let error = view.error.expect("an error");
    assert_eq!(error.code, code::TASK_STALE);
    assert!(error.message.starts_with("the task lasts for 10.0"), "{}", error.message);
    // Nothing of it starts, and what had not ended is cancelled.
    while world.store.cancel_members(100).await.expect("cancelled") {}
    let open = "select count(*) from tasker.steps s where not exists
                (select from tasker.outcomes o where o.step_id = s.id)";
    assert_eq!(world.count(open).await, 0);
    let cancelled = "select count(*) from tasker.outcomes where state = 'cancelled'";
    assert_eq!(world.count(cancelled).await, 2, "two members; what was not there does not come");
    let late = world.apply(&world.members(batch, 2)[1..]).await;
    assert_eq!(late.verdicts, [Verdict::Duplicate], "a late result changes nothing");
    let letters = "select count(*) from tasker.dead_letters
                   where kind = 'task' and error ->> 'code' = 'TASK_STALE' and redriven_at is null";
    assert_eq!(world.count(letters).await, 1);
    let audited = "select count(*) from tasker.admin_actions
                   where action = 'end_stale_task' and principal = 'lifecycle'";
    assert_eq!(world.count(audited).await, 1);
    world.age(task.id, 1).await;
    assert_eq!(world.review().await.tasks, 0, "it has ended");
    let request = RepairRequest {
        cascade: false,
        task: task.id,
        target: RepairTarget::Task,
        principal: "op".to_owned(),
        reason: "again".to_owned(),
    };
    let refused = world.store.repair(&request).await.expect("asked").expect_err("refused");
    assert_eq!(refused.code, code::TASK_ENDED);
    let why = world.store.explain_task(task.id, Duration::from_secs(15)).await;
    let codes: Vec<ReasonCode> =
        why.expect("read").expect("there").reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [ReasonCode::Cancelled; 3], "members, aggregator and what is behind it");
}

impl World {
    /// The task's first step fails for good, and the whole task is repaired afterwards.
    async fn repair_after(&self, task: &crate::NewTask, seconds: i32) {
        let mut failed = self.finished(task.step_ids[0], StepKind::Standard, 1);
        failed.ending = Err(super::failure(false));
        self.apply(&[failed]).await;
        assert_eq!(self.state(task.id).await, "blocked_by_failures");
        self.age(task.id, seconds).await;
        let request = RepairRequest {
            cascade: false,
            task: task.id,
            target: RepairTarget::Task,
            principal: "op".to_owned(),
            reason: "again".to_owned(),
        };
        self.store.repair(&request).await.expect("asked").expect("repaired");
        assert_eq!(self.state(task.id).await, "in_progress");
    }
}

/// The times of a task that is repaired begin anew: however old it is, the repair is not in vain.
#[sqlx::test]
async fn a_repair_begins_the_times_anew(pool: PgPool) {
    let limits = "max_duration_minutes: 10, max_waiting_for_dependencies_minutes: 5";
    let world = World::of(pool, &limited(limits)).await;
    let task = world.submit().await;
    world.repair_after(&task, 3_000).await;
    let reviewed = world.review().await;
    assert_eq!((reviewed.tasks, reviewed.ended.len()), (1, 0));
    assert_eq!(world.state(task.id).await, "in_progress");
    world.age(task.id, 301).await;
    assert_eq!(world.review().await.ended.len(), 1, "and then they count");
}

/// A task that passed a limit, went on and then failed is repaired like any other.
#[sqlx::test]
async fn a_task_that_went_on_can_be_repaired(pool: PgPool) {
    let lifecycle = "max_duration_minutes: 1, staleness_action: none";
    let world = World::of(pool, &limited(lifecycle)).await;
    let task = world.submit().await;
    world.age(task.id, 61).await;
    world.review().await;
    world.repair_after(&task, 0).await;
}

#[sqlx::test]
async fn the_action_says_what_happens(pool: PgPool) {
    for (action, state, letters) in [("error", "error", 0), ("none", "in_progress", 0)] {
        let lifecycle = format!("max_duration_minutes: 1, staleness_action: {action}");
        let world = World::of(fresh(&pool).await, &limited(&lifecycle)).await;
        let task = world.submit().await;
        world.succeed(task.step_ids[0], StepKind::Standard).await;
        world.age(task.id, 61).await;
        let reviewed = world.review().await;
        assert_eq!(reviewed.ended.len(), usize::from(action == "error"));
        assert_eq!(world.state(task.id).await, state, "{action}");
        assert_eq!(world.count("select count(*) from tasker.dead_letters").await, letters);
        let noted =
            "select count(*) from tasker.tasks where coalesce(stale_at, overran_at) is not null";
        assert_eq!(world.count(noted).await, 1, "{action}");
    }
}

/// The same database without what was in it.
async fn fresh(pool: &PgPool) -> PgPool {
    let tables = "truncate tasker.templates, tasker.tasks, tasker.steps, tasker.outcomes,
                  tasker.dead_letters cascade";
    sqlx::query(tables).execute(pool).await.expect("emptied");
    pool.clone()
}

#[sqlx::test]
async fn each_way_of_waiting_has_its_limit(pool: PgPool) {
    let lifecycle = "max_waiting_for_dependencies_minutes: 1, max_waiting_for_retry_minutes: 2, \
                     max_steps_in_process_minutes: 3";
    let world = World::of(pool, &limited(lifecycle)).await;
    let message = async |task: TaskId| {
        let view = world.store.view_task(task, None).await.expect("read").expect("there");
        view.error.map(|error| error.message).unwrap_or_default()
    };
    // `analyze` waits for `before`.
    let task = world.submit().await;
    world.age(task.id, 61).await;
    assert_eq!(world.review().await.ended.len(), 1);
    assert!(message(task.id).await.starts_with("step `analyze` waits for its parents"));
    // A member waits for its second attempt; the pending steps have no rows.
    let (task, batch) = world.expand(2).await;
    let mut set = world.members(batch, 1);
    set[0].ending = Err(super::failure(true));
    world.apply(&set).await;
    world.age(task.id, 119).await;
    assert_eq!(world.review().await.ended.len(), 0);
    world.age(task.id, 2).await;
    assert_eq!(world.review().await.ended.len(), 1);
    assert!(message(task.id).await.starts_with("step `work_001` waits for its next attempt"));
    // A member runs, and its worker says so.
    let (task, batch) = world.expand(2).await;
    world.beat(batch.member(1), 1).await;
    world.age(task.id, 179).await;
    world.beat(batch.member(1), 1).await;
    assert_eq!(world.review().await.ended.len(), 0);
    world.age(task.id, 2).await;
    assert_eq!(world.review().await.ended.len(), 1, "heartbeats do not begin it anew");
    assert!(message(task.id).await.starts_with("step `work_002` runs for 3.0"));
}

/// A worker ends an attempt that takes too long by itself. If it is gone, and nobody takes over, the
/// orchestrator does.
#[sqlx::test]
async fn an_attempt_of_a_lost_worker_runs_out_of_time(pool: PgPool) {
    let source = super::TEMPLATE.replace(
        "handler: {callable: t.work}",
        "handler: {callable: t.work}\n    timeout_seconds: 60",
    );
    let world = World::of(pool, &source).await;
    let (task, batch) = world.expand(2).await;
    let member = batch.member(1);
    world.beat(member, 1).await;
    world.age(task.id, 71).await;
    world.beat(member, 1).await;
    assert_eq!(world.review().await.overdue.len(), 0, "its worker is alive");
    world.age(task.id, 11).await;
    let overdue = world.review().await.overdue;
    let found: Vec<(StepId, u32)> = overdue.iter().map(|(_, a)| (a.step_id, a.attempt)).collect();
    assert_eq!(found, [(member, 1)]);
    let failure = overdue[0].1.ending.as_ref().expect_err("a failure");
    assert_eq!((failure.code.as_str(), failure.retryable), (code::HANDLER_TIMEOUT, true));
    // Reported like any failure: it is tried again, and its time begins anew with the next attempt.
    let applied = world.apply(&[overdue[0].1.clone()]).await;
    assert_eq!(applied.verdicts, [Verdict::Applied]);
    world.store.wake_retries(10).await.expect("woken");
    world.beat(member, 2).await;
    world.age(task.id, 50).await;
    assert_eq!(world.review().await.overdue.len(), 0);
    world.age(task.id, 21).await;
    assert_eq!(world.review().await.overdue.len(), 1);
}
