//! The way of one task, station by station.

use sqlx::PgPool;
use tasker_messages::{GetMembers, NodeId, StepKind, StepState, TaskState, TemplateId, Verdict};
use tasker_workflow::Template;
use uuid::Uuid;

use super::{TEMPLATE, World, failure, ns, sent};
use crate::{MemberSource, NewBatch, NewMember, NewTask, Store, SubmitVerdict};

#[sqlx::test]
async fn a_task_runs_to_its_end(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(3).await;
    assert_eq!(world.state(task.id).await, "in_progress");

    let applied = world.apply(&world.members(batch, 3)).await;
    assert_eq!(applied.verdicts, [Verdict::Applied; 3]);
    assert_eq!(applied.emptied, [(batch, task.id)]);
    assert_eq!(applied.finished_by_queue.values().map(|f| f.steps).sum::<u32>(), 3);
    assert!(applied.ready.is_empty() && applied.finished_tasks.is_empty());

    assert_eq!(world.store.find_convergeable(10).await.expect("read"), [task.id]);
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    world.assert_as_read(&converged.ready).await;
    let [join] = converged.ready_ids()[..] else { panic!("one aggregator, not {converged:?}") };
    assert!(converged.finished_tasks.is_empty());
    let again = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert!(again.ready.is_empty() && again.settled_batches == 0, "{again:?}");

    let applied = world.succeed(join, StepKind::DeferredConvergence).await;
    let [after] = &applied.ready[..] else { panic!("one child, not {applied:?}") };
    let applied = world.succeed(after.id, StepKind::Standard).await;
    assert_eq!(applied.finished_tasks[0].state, TaskState::Complete);
    let view = world.store.view_task(task.id, Some(&ns())).await.expect("read").expect("there");
    assert_eq!(view.steps.len(), 7);
    assert!(view.steps.iter().all(|s| s.state == StepState::Complete), "{view:?}");
    world.assert_consistent().await;
}

#[sqlx::test]
async fn a_batch_that_failed_as_a_whole_blocks_its_task(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(2).await;
    let mut set = world.members(batch, 2);
    set.iter_mut().for_each(|a| a.ending = Err(failure(false)));
    world.apply(&set).await;
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert!(converged.ready.is_empty());
    assert_eq!(converged.finished_tasks[0].state, TaskState::BlockedByFailures);
    let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
    assert_eq!(view.error.expect("says why").code, "BATCH_ALL_FAILED");
    world.assert_consistent().await;
}

#[sqlx::test]
async fn some_failures_are_the_aggregators_business(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(2).await;
    let mut set = world.members(batch, 2);
    set[0].ending = Err(failure(false));
    world.apply(&set).await;
    assert_eq!(world.store.converge_tasks(&[task.id]).await.expect("converged").ready.len(), 1);
    let request = GetMembers { batch_id: batch, from: 0, limit: 10 };
    let page = world.store.members_page(&ns(), &request, 10, 1_000_000).await;
    let page = page.expect("read").expect("there");
    let states: Vec<_> = page.members.iter().map(|m| m.state).collect();
    assert_eq!((states, page.next), (vec![StepState::Error, StepState::Complete], None));
    assert_eq!(page.members[0].error.as_ref().expect("says why").code, "BOOM");
}

#[sqlx::test]
async fn a_retry_raises_the_fence_and_the_budget_ends(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let member = batch.member(0);
    let mut attempt = world.finished(member, StepKind::BatchWorker, 1);
    attempt.ending = Err(failure(true));
    let applied = world.apply(&[attempt.clone()]).await;
    assert_eq!((applied.verdicts[0], applied.next_retry_ms.is_some()), (Verdict::Applied, true));
    assert!(applied.emptied.is_empty());
    assert_eq!(
        world.apply(&[attempt.clone()]).await.verdicts,
        [Verdict::Stale { superseded: true }]
    );

    sqlx::query("update tasker.steps set run_after = now() where run_after is not null")
        .execute(&world.pool)
        .await
        .expect("made due");
    assert_eq!(world.store.wake_retries(10).await.expect("woken"), [member]);
    let ready = world.store.load_ready(&[member]).await.expect("read");
    assert_eq!((ready[0].attempt, ready[0].dispatch_seq, ready[0].tries), (2, 2, 1));
    assert_eq!((ready[0].template_step.as_str(), ready[0].claim_required), ("work", false));

    attempt.attempt = 2;
    attempt.dispatch_seq = 2;
    let applied = world.apply(&[attempt]).await;
    assert_eq!((applied.verdicts[0], applied.emptied.len()), (Verdict::Applied, 1));
    assert_eq!(world.count("select count(*) from tasker.failed_attempts").await, 1);
    world.assert_consistent().await;
}

#[sqlx::test]
async fn an_idempotency_key_makes_one_task(pool: PgPool) {
    let world = World::new(pool).await;
    let set =
        [world.new_task(Some("k"), 1), world.new_task(Some("k"), 1), world.new_task(Some("k"), 2)];
    let verdicts = world.store.insert_tasks(&set).await.expect("stored");
    let id = set[0].id;
    assert_eq!(
        verdicts,
        [SubmitVerdict::Created, SubmitVerdict::Existing(id), SubmitVerdict::Conflict(id)]
    );
    assert_eq!(world.count("select count(*) from tasker.tasks").await, 1);
    assert_eq!(world.count("select count(*) from tasker.steps").await, 2);
}

/// Another node registers versions of a template that this one has looked up.
#[sqlx::test]
async fn a_task_of_a_version_that_is_not_the_newest_any_more_is_not_stored(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let remembered = || world.store.remembered_template(&ns(), "numbers").map(|found| found.id);
    let look = async || world.store.load_template(&ns(), "numbers", None).await.expect("read");
    assert_eq!(remembered(), None);
    assert_eq!(look().await.map(|found| found.id), remembered());
    assert_eq!(remembered(), Some(world.template_id));
    let other = Store::from_pool(pool);
    let register = async |version: &str| {
        let source = TEMPLATE.replace("1.0.0", version);
        let template = Template::parse(source.as_bytes()).expect("a valid template");
        let id = TemplateId::from_uuid(Uuid::now_v7());
        other.register_template(id, &template, &source).await.expect("registered");
        id
    };
    let assuming = |key| NewTask { assumes_newest: true, ..world.new_task(key, 1) };

    register("0.9.0").await;
    let first = assuming(Some("k"));
    let verdicts = world.store.insert_tasks(std::slice::from_ref(&first)).await;
    assert_eq!(verdicts.expect("stored"), [SubmitVerdict::Created]);
    let newest = register("1.0.1").await;
    let set = [assuming(Some("k")), assuming(None), assuming(Some("l")), world.new_task(None, 1)];
    let verdicts = world.store.insert_tasks(&set).await.expect("stored");
    let outdated = SubmitVerdict::Outdated;
    let expect = [SubmitVerdict::Existing(first.id), outdated, outdated, SubmitVerdict::Created];
    assert_eq!(verdicts, expect);
    assert_eq!(world.count("select count(*) from tasker.tasks").await, 2);
    assert_eq!(world.count("select count(*) from tasker.steps").await, 4);
    assert_eq!((remembered(), look().await.map(|f| f.id)), (Some(world.template_id), Some(newest)));
    assert_eq!(remembered(), Some(newest));
}

#[sqlx::test]
async fn a_large_batch_is_expanded_in_chunks_and_continued(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let batch = world.new_batch(&task, 5);
    let chunk = |from: usize, upto: usize| -> Vec<NewMember> { batch.members[from..upto].to_vec() };
    let begun = world.store.begin_expansion(&batch).await.expect("begun").expect("open");
    let given = |from, upto| MemberSource::Given(chunk(from, upto));
    let write = async |from: u32, upto| {
        let source = given(from as usize, upto);
        world
            .store
            .write_chunk(&batch, begun.id, from, &source, from % 2 == 1)
            .await
            .expect("written")
    };
    let chunk = write(0, 3).await.expect("expanding");
    assert_eq!(chunk.commit().await.expect("committed"), Some(3));
    // A second node that starts from the beginning has nothing to write.
    assert!(write(0, 3).await.is_none());
    // A chunk whose predecessor is not there leaves nothing behind.
    let early = write(4, 5).await.expect("expanding");
    assert_eq!(early.commit().await.expect("rolled back"), None);
    let sealed = world.store.seal_expanded(batch.batchable_step, begun.id).await.expect("not yet");
    assert!(sealed.batches.is_empty());
    let resumed = world.store.load_expandable(&[batch.batchable_step]).await.expect("read");
    assert_eq!(resumed[0].batch.expect("begun").expanded_upto, 3);
    let (fourth, fifth) = tokio::join!(write(3, 4), write(4, 5));
    let (fourth, fifth) = (fourth.expect("expanding"), fifth.expect("expanding"));
    assert_eq!(fourth.commit().await.expect("committed"), Some(4));
    assert_eq!(fifth.commit().await.expect("committed"), Some(5));
    let sealed = world.store.seal_expanded(batch.batchable_step, begun.id).await.expect("sealed");
    assert_eq!(sealed.batches, [begun.id]);
    let again = world.store.seal_expanded(batch.batchable_step, begun.id).await.expect("nothing");
    assert!(again.batches.is_empty());
    assert_eq!(
        world.count("select count(*) from tasker.steps where batch_id is not null").await,
        5
    );
}

/// Whoever sweeps while a batch is being written must not see it: an expansion that is given up deletes
/// members, and those that are not written yet would be passed over.
#[sqlx::test]
async fn no_batch_is_published_before_it_is_sealed(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let batch = world.new_batch(&task, 3);
    let begun = world.store.begin_expansion(&batch).await.expect("begun").expect("open");
    let source = MemberSource::Given(batch.members.clone());
    let chunk = world.store.write_chunk(&batch, begun.id, 0, &source, true).await.expect("written");
    assert_eq!(chunk.expect("expanding").commit().await.expect("committed"), Some(3));
    let node = NodeId::from_uuid(Uuid::now_v7());
    let swept = async || {
        let batches = world.store.claim_batches(None, node, 5_000, 10).await.expect("read");
        batches.iter().map(|b| b.id).collect::<Vec<_>>()
    };
    assert_eq!(swept().await, [], "members are published before their batch is sealed");
    world.store.seal_expanded(batch.batchable_step, begun.id).await.expect("sealed");
    assert_eq!(swept().await, [begun.id]);
}

#[sqlx::test]
async fn publishing_moves_on_for_its_publisher_only(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(4).await;
    let (mine, other) = (NodeId::from_uuid(Uuid::now_v7()), NodeId::from_uuid(Uuid::now_v7()));
    let open = world.store.claim_batches(Some(&[batch]), mine, 5_000, 10).await.expect("claimed");
    assert_eq!((open.len(), open[0].published_upto), (1, 0));
    assert!(world.store.claim_batches(None, other, 5_000, 10).await.expect("held").is_empty());
    assert!(!open[0].taken_over && !open[0].from_another);
    let own = async |from, node| {
        world.store.own_spans(&[(batch, from, 4)], node).await.expect("read") == [batch]
    };
    assert!(own(0, mine).await && !own(0, other).await && !own(1, mine).await);
    let members = world.store.load_members(&[(batch, 1, 3)]).await.expect("read");
    let ordinals: Vec<u32> = members.iter().map(|m| m.id.ordinal()).collect();
    assert_eq!(ordinals, [1, 2]);
    let span = [sent(batch, 0, 3)];
    assert!(world.store.advance_published(&span, other, 5_000).await.expect("no").is_empty());
    assert_eq!(world.store.advance_published(&span, mine, 5_000).await.expect("yes"), [batch]);
    assert!(world.store.advance_published(&span, mine, 5_000).await.expect("moved on").is_empty());
    let swept = async || world.store.claim_batches(None, mine, 5_000, 10).await.expect("claimed");
    assert!(swept().await.is_empty(), "it has just had it");
    world.run("update tasker.batches set publisher_until = now() + interval '4499 ms'").await;
    let open = swept().await;
    assert_eq!(open[0].published_upto, 3);
    assert!(open[0].taken_over && !open[0].from_another && own(3, mine).await);
    // Its lease runs out, and it comes to itself after another has been there.
    sqlx::query("update tasker.batches set publisher_until = now() - interval '1 s'")
        .execute(&world.pool)
        .await
        .expect("written");
    assert!(world.store.claim_batches(None, other, 0, 10).await.expect("claimed")[0].from_another);
    assert!(!own(3, mine).await);
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let back = world.store.claim_batches(None, mine, 5_000, 10).await.expect("claimed");
    assert!(back[0].from_another);
}

#[sqlx::test]
async fn what_was_written_is_what_would_be_read(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let batch = NewBatch { parallelism: Some(2), priority: 3, ..world.new_batch(&task, 3) };
    let (mine, other) = (NodeId::from_uuid(Uuid::now_v7()), NodeId::from_uuid(Uuid::now_v7()));
    let seal =
        async || world.store.seal_to_publish(std::slice::from_ref(&batch), mine, 5_000).await;
    let (sealed, mut open) = seal().await.expect("sealed");
    assert_eq!((sealed.batches, open.len()), (vec![batch.id], 1));
    let written = open[0].written.take().expect("written");
    let read = world.store.load_members(&[(batch.id, 0, 3)]).await.expect("read");
    assert_eq!(format!("{:?}", written.members), format!("{read:?}"));
    // It has it, and nobody else.
    for (named, node, n) in [(None, mine, 0), (None, other, 0), (Some(&[batch.id][..]), other, 0)] {
        assert_eq!(world.store.claim_batches(named, node, 5_000, 10).await.expect("held").len(), n);
    }
    let claimed = world.store.claim_batches(Some(&[batch.id]), mine, 5_000, 10).await;
    open[0].taken_over = true;
    assert_eq!(format!("{:?}", claimed.expect("claimed")), format!("{open:?}"));
    assert!(seal().await.expect("sealed before").1.is_empty());
}

#[sqlx::test]
async fn a_cancelled_task_has_no_open_step(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(3).await;
    world.apply(&world.members(batch, 1)).await;
    let cancelled = world.store.cancel_task(task.id, "test", Some("enough")).await.expect("done");
    assert_eq!(cancelled, crate::Cancelled::Now { namespace: ns() });
    while world.store.cancel_members(1).await.expect("chunk") {}
    let late = world.apply(&world.members(batch, 3)).await;
    assert_eq!(late.verdicts, [Verdict::Duplicate; 3]);
    let open = "select count(*) from tasker.steps s
                where not exists (select from tasker.outcomes o where o.step_id = s.id)";
    assert_eq!(world.count(open).await, 0);
    assert_eq!(world.count("select count(*) from tasker.batches where not settled").await, 0);
    assert_eq!(
        world.store.cancel_task(task.id, "test", None).await.expect("read"),
        crate::Cancelled::Ended(TaskState::Cancelled)
    );
    assert_eq!(world.count("select remaining::bigint from tasker.batches").await, 0);
}

/// Of a set of batches only those are written whose analyzers have none, each once: a command may come again,
/// to this node or to another one.
#[sqlx::test]
async fn a_batch_that_is_there_is_not_written_again(pool: PgPool) {
    let world = World::new(pool).await;
    let (first, known) = world.expand(2).await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let task = world.submit().await;
        world.succeed(task.step_ids[0], StepKind::Standard).await;
        world.succeed(task.step_ids[1], StepKind::Batchable).await;
        tasks.push(task);
    }
    let of = |task| world.new_batch(task, 3);
    let set = [of(&first), of(&tasks[0]), of(&tasks[0]), of(&tasks[1])];
    let sealed = world.store.seal_new_batches(&set).await.expect("sealed");
    let mut batches = sealed.batches;
    batches.sort_unstable();
    assert_eq!(batches, [set[1].id, set[3].id]);
    let members: Vec<(Uuid, i64)> = sqlx::query_as(
        "select batch_id, count(*) from tasker.steps where batch_id is not null
         group by batch_id order by batch_id",
    )
    .fetch_all(&world.pool)
    .await
    .expect("read");
    let expect = [(known, 2), (set[1].id, 3), (set[3].id, 3)].map(|(id, n)| (id.as_uuid(), n));
    assert_eq!(members, expect);
    let open = "select count(*) from tasker.steps where kind = 'batchable' and unsettled";
    assert_eq!(world.count(open).await, 0);
}
