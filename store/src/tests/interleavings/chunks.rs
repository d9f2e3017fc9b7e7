//! Expansions in chunks against a cancellation and against each other: DESIGN section 4, rule 5.

use sqlx::PgPool;

use super::{Gate, WAITING, until};
use crate::tests::World;
use crate::{Chunk, MemberSource, NewBatch, NewTask};

const NOTED: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: s, type: batchable, handler: {callable: t}}
  - {name: w, type: batch_worker, dependencies: [s], handler: {callable: t}}
  - {name: note, dependencies: [s], handler: {callable: t}}
  - {name: j, type: deferred_convergence, dependencies: [w], handler: {callable: t}}
";

const MEMBERS: &str = "select count(*) from tasker.steps where batch_id is not null";
const OPEN: &str = "select count(*) from tasker.batches where not settled";

/// An expansion of two members that has begun.
async fn begun(world: &World) -> (NewTask, NewBatch) {
    let task = world.submit().await;
    world.done(&task, &["s"]).await;
    let batch = world.split(&task, "s", 2).await;
    let expanding = world.store.begin_expansion(&batch).await.expect("begun").expect("open");
    assert_eq!(expanding.id, batch.id);
    (task, batch)
}

async fn chunk(world: &World, batch: &NewBatch, from: usize, lead: bool) -> Option<Chunk> {
    let members = batch.members[from..=from].to_vec();
    let source = MemberSource::Given(members);
    let written = world.store.write_chunk(batch, batch.id, from as u32, &source, lead).await;
    written.expect("written")
}

/// Both chunks written and committed.
async fn expanded(world: &World) -> (NewTask, NewBatch) {
    let (task, batch) = begun(world).await;
    for from in 0..2 {
        let chunk = chunk(world, &batch, from, true).await.expect("expanding");
        assert_eq!(chunk.commit().await.expect("committed"), Some(from as u32 + 1));
    }
    (task, batch)
}

/// Members of a chunk that is not committed cannot be swept, because nobody sees them: the chunk itself
/// must find that its task was cancelled. Committed regardless, they would be there for ever.
#[sqlx::test]
async fn a_chunk_is_written_while_its_task_is_cancelled_and_swept(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    let (task, batch) = begun(&world).await;
    let open = chunk(&world, &batch, 0, false).await.expect("expanding");
    world.cancel(&task).await;
    world.sweep().await;
    assert_eq!(world.count(OPEN).await, 0, "as far as the sweep can see");
    assert_eq!(open.commit().await.expect("rolled back"), None);
    assert!(chunk(&world, &batch, 0, true).await.is_none(), "no other node goes on");
    assert_eq!(world.count(MEMBERS).await, 0);
    let end = "cancelled 1/2/0 | note=cancelled s=complete | w cancelled 2/0/0";
    assert_eq!(world.shown(task.id).await, end);
}

/// The first of two chunks holds its batch: cancelling waits for it, and the sweep removes what it has
/// written.
#[sqlx::test]
async fn a_task_is_cancelled_while_a_chunk_is_committed(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    let (task, batch) = begun(&world).await;
    let open = chunk(&world, &batch, 0, true).await.expect("expanding");
    let (upto, _) = tokio::join!(
        async {
            until(&mut world.connection().await, WAITING).await;
            open.commit().await.expect("committed")
        },
        world.cancel(&task)
    );
    assert_eq!(upto, Some(1), "before the cancellation");
    assert!(chunk(&world, &batch, 1, true).await.is_none(), "after it");
    let sealed = world.store.seal_expanded(batch.batchable_step, batch.id).await.expect("no");
    assert!(sealed.batches.is_empty());
    world.sweep().await;
    assert_eq!((world.count(MEMBERS).await, world.count(OPEN).await), (0, 0));
    let end = "cancelled 1/2/0 | note=cancelled s=complete | w cancelled 2/0/0";
    assert_eq!(world.shown(task.id).await, end);
}

/// A task is cancelled while the last transaction of an expansion seals it.
#[sqlx::test]
async fn a_task_is_cancelled_while_an_expansion_is_sealed(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    for cancel_first in [true, false] {
        let (task, batch) = expanded(&world).await;
        let seal = async {
            world.store.seal_expanded(batch.batchable_step, batch.id).await.expect("decided")
        };
        let gate = Gate::Task(task.id);
        let (sealed, end) = if cancel_first {
            let (_, sealed) = world.in_order(gate, world.cancel(&task), seal).await;
            (sealed, "cancelled 1/2/0 | note=cancelled s=complete | w cancelled 2/0/0")
        } else {
            let (sealed, _) = world.in_order(gate, seal, world.cancel(&task)).await;
            let end = "cancelled 2/1/0 | note=cancelled s=complete w_001=cancelled \
                       w_002=cancelled | w cancelled 0/0/0";
            (sealed, end)
        };
        let is_sealed = usize::from(!cancel_first);
        assert_eq!((sealed.batches.len(), sealed.ready.len()), (is_sealed, is_sealed));
        world.sweep().await;
        assert_eq!(world.shown(task.id).await, end);
        assert_eq!(world.count(OPEN).await, 0);
    }
}

/// Two nodes seal what was expanded in chunks: once, and the analyzer's children come once. Until then
/// nothing of it runs, and the task does not end.
#[sqlx::test]
async fn two_nodes_seal_one_expansion(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    let (task, batch) = expanded(&world).await;
    assert_eq!(world.converge(&task).await.ready_ids(), []);
    let seal = || async {
        world.store.seal_expanded(batch.batchable_step, batch.id).await.expect("decided")
    };
    let (one, other) = world.in_order(Gate::Task(task.id), seal(), seal()).await;
    assert_eq!((one.batches, other.batches.len()), (vec![batch.id], 0));
    assert_eq!(one.ready.len() + other.ready.len(), 1);
    assert!(world.shown(task.id).await.starts_with("in_progress 2/1/0 "));
}
