//! How many members of a batch may fail.

use sqlx::PgPool;
use tasker_messages::{BatchId, StepState, Verdict};

use super::{World, failure};
use crate::{Applied, FinishedAttempt, NewTask};

/// A batch of so many members of which so many may fail.
async fn expand(
    world: &World,
    members: u32,
    max_failed: u32,
    isolates: bool,
) -> (NewTask, BatchId) {
    let (task, batch) = world.expand(members).await;
    sqlx::query("update tasker.batches set max_failed = $2, isolates = $3 where id = $1")
        .bind(batch.as_uuid())
        .bind(max_failed as i32)
        .bind(isolates)
        .execute(&world.pool)
        .await
        .expect("changed");
    (task, batch)
}

fn failed(mut attempts: Vec<FinishedAttempt>) -> Vec<FinishedAttempt> {
    attempts.iter_mut().for_each(|attempt| attempt.ending = Err(failure(false)));
    attempts
}

async fn apply_all(world: &World, set: &[FinishedAttempt]) -> Applied {
    let applied = world.apply(set).await;
    assert!(applied.verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "{applied:?}");
    applied
}

#[sqlx::test]
async fn one_failure_too_many_stops_a_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = expand(&world, 8, 1, false).await;
    let members = world.members(batch, 8);
    let applied = apply_all(&world, &failed(members[..1].to_vec())).await;
    assert!(applied.stopped.is_empty(), "one is tolerated");
    let applied = apply_all(&world, &failed(members[1..3].to_vec())).await;
    assert_eq!(applied.stopped, [(batch, task.id)]);
    // Whoever runs may still end; it counts, and the stop is told once.
    let applied = apply_all(&world, &members[3..4]).await;
    assert!(applied.stopped.is_empty());
    assert!(apply_all(&world, &failed(members[4..5].to_vec())).await.stopped.is_empty());

    assert!(world.store.find_convergeable(10).await.expect("read").is_empty(), "members are left");
    assert!(world.store.cancel_members(2).await.expect("cancelled"));
    assert!(world.store.cancel_members(2).await.expect("cancelled"));
    assert!(!world.store.cancel_members(2).await.expect("nothing is left"));
    // A late result finds that its member has ended.
    assert_eq!(world.apply(&members[5..6]).await.verdicts, [Verdict::Duplicate]);

    assert_eq!(world.store.find_convergeable(10).await.expect("read"), [task.id]);
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert!(converged.ready.is_empty(), "no aggregate of what was stopped");
    assert_eq!(converged.finished_tasks.len(), 1);
    let again = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!((again.settled_batches, again.finished_tasks.len()), (0, 0));

    let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
    let error = view.error.expect("says why");
    assert_eq!(
        (view.state.as_str(), error.code.as_str()),
        ("blocked_by_failures", "BATCH_STOPPED")
    );
    assert!(error.message.contains("4 members") && error.message.contains("1 are tolerated"));
    let states = |state: StepState| view.steps.iter().filter(|s| s.state == state).count();
    assert_eq!((states(StepState::Error), states(StepState::Cancelled)), (4, 3));
    let batch = &view.batches[0];
    assert_eq!((batch.succeeded, batch.failed, batch.remaining), (1, 4, 0));
    assert_eq!(world.count("select count(*) from tasker.dead_letters").await, 0);
}

#[sqlx::test]
async fn a_batch_that_fails_as_its_last_members_end_is_stopped_too(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = expand(&world, 3, 1, false).await;
    let mut set = world.members(batch, 3);
    set[..2].iter_mut().for_each(|attempt| attempt.ending = Err(failure(false)));
    let applied = apply_all(&world, &set).await;
    assert_eq!((applied.emptied.len(), applied.stopped.len()), (1, 0), "nobody is left to stop");
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert!(converged.ready.is_empty());
    assert_eq!(converged.finished_tasks.len(), 1);
    world.assert_consistent().await;
}

#[sqlx::test]
async fn isolated_members_open_dead_letters(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = expand(&world, 4, 4, true).await;
    let mut set = world.members(batch, 4);
    set[1].ending = Err(failure(false));
    set[2].ending = Err(failure(true));
    apply_all(&world, &set).await;
    let letters = "select count(*) from tasker.dead_letters";
    assert_eq!(world.count(letters).await, 1, "the other one runs again");
    let of_member = "select count(*) from tasker.dead_letters l
                     join tasker.steps s on s.id = l.step_id and s.task_id = l.task_id
                     where s.name = 'work_002' and l.error ->> 'code' = 'BOOM' and l.attempt = 1";
    assert_eq!(world.count(of_member).await, 1);
    set[1].attempt = 1;
    assert_eq!(world.apply(&set[1..2]).await.verdicts, [Verdict::Duplicate]);
    assert_eq!(world.count(letters).await, 1);

    let mut last = set.remove(2);
    (last.attempt, last.dispatch_seq, last.ending) = (2, 2, Ok("1".into()));
    sqlx::query("update tasker.steps set state = 'enqueued', run_after = null where attempt = 2")
        .execute(&world.pool)
        .await
        .expect("woken");
    apply_all(&world, &[last]).await;
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!(converged.ready.len(), 1, "the aggregator runs over what succeeded");
    world.assert_consistent().await;
}
