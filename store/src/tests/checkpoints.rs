//! Checkpoints: fenced by the attempt, by the end of the step, and by their own count.

use serde_json::json;
use sqlx::PgPool;
use tasker_messages::{
    Checkpoint, CheckpointVerdict, Claim, Namespace, SaveCheckpoint, StepId, StepKind,
};

use super::{TERMS, World, ns};

fn save(step_id: StepId, attempt: u32, items_processed: u64) -> SaveCheckpoint {
    let checkpoint = Checkpoint {
        cursor: json!({"at": items_processed}),
        items_processed,
        accumulated_results: json!([items_processed]),
        timestamp: None,
    };
    SaveCheckpoint { step_id, attempt, checkpoint }
}

async fn verdict(world: &World, request: &SaveCheckpoint) -> CheckpointVerdict {
    let set = std::slice::from_ref(request);
    world.store.save_checkpoints(&ns(), set).await.expect("stored")
        [&(request.step_id, request.attempt)]
}

async fn items(world: &World, step: StepId) -> Option<u64> {
    let stored = world.store.load_checkpoint(&ns(), step).await.expect("read");
    stored.map(|checkpoint| checkpoint.items_processed)
}

#[sqlx::test]
async fn only_the_current_attempt_gets_ahead(pool: PgPool) {
    use CheckpointVerdict::{NotAhead, Saved, Superseded};
    let world = World::new(pool).await;
    let (_, batch) = world.expand(2).await;
    let step = batch.member(0);
    assert_eq!(items(&world, step).await, None);
    assert_eq!(verdict(&world, &save(step, 1, 10)).await, Saved);
    assert_eq!(verdict(&world, &save(step, 1, 10)).await, Saved, "the answer was lost");
    assert_eq!(verdict(&world, &save(step, 1, 9)).await, NotAhead);
    assert_eq!(verdict(&world, &save(step, 2, 20)).await, Superseded);

    let claim = [Claim { step_id: step, dispatch_seq: 1, redelivered: true, begun: None }];
    world.store.claim_steps(&ns(), world.worker, &claim, &TERMS, None).await.expect("claimed");
    assert_eq!(verdict(&world, &save(step, 1, 20)).await, Superseded, "a zombie");
    assert_eq!(items(&world, step).await, Some(10));
    assert_eq!(verdict(&world, &save(step, 2, 10)).await, NotAhead, "nothing was done");
    assert_eq!(verdict(&world, &save(step, 2, 11)).await, Saved);

    world.apply(&[world.finished(step, StepKind::BatchWorker, 2)]).await;
    assert_eq!(verdict(&world, &save(step, 2, 12)).await, Superseded, "it has ended");
    assert_eq!(items(&world, step).await, Some(11));

    let foreign = Namespace::new("other").expect("a name");
    let other = batch.member(1);
    let set = [save(other, 1, 1)];
    let verdicts = world.store.save_checkpoints(&foreign, &set).await.expect("read");
    assert_eq!(verdicts[&(other, 1)], Superseded);
    assert_eq!(world.store.load_checkpoint(&foreign, step).await.expect("read"), None);
}

#[sqlx::test]
async fn many_steps_at_a_time(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(40).await;
    let set: Vec<_> = (0..40).map(|n| save(batch.member(n), 1 + n % 2, 5)).collect();
    let verdicts = world.store.save_checkpoints(&ns(), &set).await.expect("stored");
    for request in &set {
        let expect = match request.attempt {
            1 => CheckpointVerdict::Saved,
            _ => CheckpointVerdict::Superseded,
        };
        assert_eq!(verdicts[&(request.step_id, request.attempt)], expect);
    }
    assert_eq!(world.count("select count(*) from tasker.checkpoints").await, 20);
}
