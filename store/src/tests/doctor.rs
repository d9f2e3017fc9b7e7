//! What `tasker doctor` reads.

use sqlx::PgPool;
use tasker_messages::{NodeId, RecoveryKind};
use uuid::Uuid;

use super::{World, sent};
use crate::LateKind;

impl World {
    /// What is late, and how often.
    async fn late(&self) -> Vec<(LateKind, u64)> {
        let late = self.store.find_late().await.expect("read");
        late.iter().map(|late| (late.kind, late.count)).collect()
    }
}

/// One row after the other is made late, and goes on again.
#[sqlx::test]
async fn late_rows_are_found(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(3).await;
    assert_eq!(world.late().await, []);
    world.run("update tasker.batches set sealed_at = now() - interval '11 s'").await;
    assert_eq!(world.late().await, [(LateKind::Unpublished, 1)]);
    let node = NodeId::from_uuid(Uuid::now_v7());
    world.store.claim_batches(Some(&[batch]), node, 5_000, 10).await.expect("claimed");
    assert_eq!(world.late().await, [], "it has a publisher now");
    world.store.advance_published(&[sent(batch, 0, 3)], node, 5_000).await.expect("published");

    // Members: one leased by a worker that went silent, one not sent, one whose retry is due.
    world
        .run(
            "update tasker.steps set state = 'in_progress', lease_worker = gen_random_uuid(),
             lease_until = now() - interval '31 s' where name like '%_001'",
        )
        .await;
    assert_eq!(world.late().await, [(LateKind::Lease, 1)]);
    world
        .run(
            "update tasker.steps set sent_seq = 0, enqueued_at = now() - interval '11 s'
             where name like '%_002'",
        )
        .await;
    world
        .run(
            "update tasker.steps set state = 'waiting_for_retry', run_after = now() - interval '11 s'
             where name like '%_003'",
        )
        .await;
    let all = [(LateKind::Lease, 1), (LateKind::Retry, 1), (LateKind::Unsent, 1)];
    assert_eq!(world.late().await, all);
    let found = world.store.find_late().await.expect("read");
    assert_eq!(found[0].example, batch.member(0).as_uuid());
    assert!(found.iter().all(|late| late.queue == "default" && late.longest.as_secs() < 60));

    // What has ended waits for nothing.
    world.run("update tasker.steps set state = 'enqueued', attempt = 1, run_after = null").await;
    world.apply(&world.members(batch, 3)).await;
    assert_eq!(world.late().await, []);
    world.run("update tasker.batches set touched_at = now() - interval '31 s'").await;
    assert_eq!(world.late().await, [(LateKind::Unconverged, 1)]);
}

#[sqlx::test]
async fn a_batch_that_is_not_written_to_its_end_is_late(pool: PgPool) {
    let world = World::new(pool).await;
    world.expand(2).await;
    world
        .run(
            "update tasker.batches set state = 'expanding', sealed_at = null, expanded_upto = 1,
             touched_at = now() - interval '31 s'",
        )
        .await;
    assert_eq!(world.late().await, [(LateKind::Expanding, 1)]);
}

#[sqlx::test]
async fn slots_and_recoveries(pool: PgPool) {
    let world = World::new(pool).await;
    let (ns, queue) = (super::ns(), tasker_messages::Queue::default());
    let live = std::time::Duration::from_secs(15);
    let free = async || world.store.free_slots(&ns, &queue, live).await.expect("read");
    assert_eq!(free().await, 0);
    let beat = |draining| {
        let load = [(queue.clone(), 4, 1), ("other".parse().expect("a name"), 7, 0)];
        let load =
            load.map(|(queue, slots, busy)| tasker_messages::QueueLoad { queue, slots, busy });
        tasker_messages::Heartbeat {
            worker: tasker_messages::WorkerId::from_uuid(Uuid::now_v7()),
            name: "w".to_owned(),
            build: "1".to_owned(),
            queues: load.to_vec(),
            callables: Vec::new(),
            resolves: false,
            running: Vec::new(),
            draining,
            drained: false,
            bundles: false,
        }
    };
    let alive = beat(false);
    world.store.record_heartbeat(&ns, &alive).await.expect("recorded");
    world.store.record_heartbeat(&ns, &beat(true)).await.expect("recorded");
    assert_eq!(free().await, 3, "of the one that takes steps, on this queue");
    world.run("update tasker.workers set last_beat_at = now() - interval '16 s'").await;
    assert_eq!(free().await, 0);

    let vanished = async |from, to| {
        let ages = std::time::Duration::from_secs(from)..std::time::Duration::from_secs(to);
        world.store.has_vanished_workers(&ns, ages).await.expect("read")
    };
    assert_eq!((vanished(8, 15).await, vanished(8, 27).await), (false, true));
    world.run("update tasker.workers set drained = true where draining").await;
    assert!(vanished(8, 27).await, "the other one has not drained");
    let elsewhere = "elsewhere".parse().expect("a name");
    world.store.record_heartbeat(&elsewhere, &alive).await.expect("recorded");
    assert!(!vanished(8, 27).await, "it is alive, and has nothing to do here");

    let node = NodeId::from_uuid(Uuid::now_v7());
    let place = Some((&ns, &queue));
    let record = async |kind, place| {
        world.store.record_recovery(node, kind, place).await.expect("recorded");
    };
    record(RecoveryKind::RolledBackStream, None).await;
    record(RecoveryKind::StalledConsumer, place).await;
    world
        .run("update tasker.recoveries set at = now() - interval '61 min' where queue is null")
        .await;
    let kinds = async |hours| {
        let told = world.store.list_recoveries(hours, 10).await.expect("read");
        told.iter().map(|recovery| recovery.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(1).await, [RecoveryKind::StalledConsumer]);
    assert_eq!(kinds(2).await, [RecoveryKind::StalledConsumer, RecoveryKind::RolledBackStream]);
    let schema = world.store.schema().await.expect("read");
    assert_eq!((schema.known > 8, schema.applied), (true, schema.known));
}
