//! What must not happen: stale, foreign and mismatched reports, claims out of turn.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tasker_messages::{
    BatchId, Claim, ClaimVerdict, DropReason, Namespace, ReleasedStep, RunningStep, StepId,
    StepKind, Verdict, WorkerId,
};
use uuid::Uuid;

use super::{TERMS, World, ns, sent};
use crate::{BundledBatch, SentSpan};

#[sqlx::test]
async fn only_the_current_attempt_of_the_right_step_counts(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    let (before, analyze) = (task.step_ids[0], task.step_ids[1]);
    let foreign = Namespace::new("others").expect("a valid name");
    let report = [world.finished(before, StepKind::Standard, 1)];
    let applied =
        world.store.apply_outcomes(&foreign, &report, super::LEASE_MS).await.expect("read");
    assert_eq!(applied.verdicts, [Verdict::Unknown]);

    let set = [
        world.finished(before, StepKind::Batchable, 1),
        world.finished(before, StepKind::Standard, 2),
        world.finished(analyze, StepKind::Batchable, 1),
    ];
    for (attempt, expect) in set.iter().zip([
        Verdict::Unknown,
        Verdict::Stale { superseded: false },
        // Pending: nobody can have run it.
        Verdict::Unknown,
    ]) {
        let verdict = world.apply(std::slice::from_ref(attempt)).await.verdicts[0];
        assert!(verdict == expect, "{attempt:?}: {verdict:?}");
    }
    assert_eq!(world.count("select count(*) from tasker.outcomes").await, 0);
    assert_eq!(world.apply(&report).await.verdicts, [Verdict::Applied]);
    assert_eq!(world.apply(&report).await.verdicts, [Verdict::Duplicate]);
}

/// The answer to a claim may be lost, so that it comes again, or come twice in one request: it was
/// granted, and nothing more is charged.
#[sqlx::test]
async fn a_claim_that_comes_again_is_granted_once(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    world.lose_a_worker().await;
    let claim = Claim { step_id: batch.member(0), dispatch_seq: 1, redelivered: true, begun: None };
    let claim_all = async |claims: &[Claim]| {
        let granted = world.store.claim_steps(&ns(), world.worker, claims, &TERMS, None).await;
        granted.expect("decided")
    };
    let run = ClaimVerdict::Run { attempt: 2, tries: 1 };
    assert_eq!(claim_all(&[claim, claim]).await.verdicts, [run, ClaimVerdict::Held]);
    // A budget of two would be used up by another charge.
    let again = claim_all(&[claim]).await;
    assert!(again.verdicts == [run] && again.poisoned.is_empty(), "{again:?}");
    sqlx::query("update tasker.steps set lease_until = now() where batch_id is not null")
        .execute(&world.pool)
        .await
        .expect("run out");
    assert_eq!(claim_all(&[claim]).await.poisoned.len(), 1, "it has vanished a second time");
}

/// Messages of two dispatches of a step come together when a consumer is made anew.
#[sqlx::test]
async fn an_earlier_dispatch_does_not_stand_in_the_way_of_the_one_that_counts(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let step_id = batch.member(0);
    let first = [Claim { step_id, dispatch_seq: 1, redelivered: false, begun: None }];
    world.store.claim_steps(&ns(), world.worker, &first, &TERMS, None).await.expect("decided");
    let back = [ReleasedStep { step_id, attempt: 2, dispatch_seq: 1, unstarted: true }];
    let sent = world.store.release_steps(&ns(), world.worker, &back).await.expect("decided");
    assert_eq!(sent, [step_id]);
    let claims = [1, 2, 2, 1].map(|dispatch_seq| Claim { dispatch_seq, ..first[0] });
    let granted = world.store.claim_steps(&ns(), world.worker, &claims, &TERMS, None).await;
    let superseded = ClaimVerdict::Drop(tasker_messages::DropReason::Superseded);
    let run = ClaimVerdict::Run { attempt: 3, tries: 0 };
    let expect = [superseded, run, ClaimVerdict::Held, ClaimVerdict::Held];
    assert_eq!(granted.expect("decided").verdicts, expect);
}

/// A worker that drains gives back a step whose claim was granted while it asked: it is taken from that
/// worker, and from nobody else.
#[sqlx::test]
async fn what_a_claim_has_just_granted_is_given_back(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let step_id = batch.member(0);
    let claim = [Claim { step_id, dispatch_seq: 1, redelivered: false, begun: None }];
    world.store.claim_steps(&ns(), world.worker, &claim, &TERMS, None).await.expect("decided");
    let back = [ReleasedStep { step_id, attempt: 1, dispatch_seq: 1, unstarted: true }];
    let other = WorkerId::from_uuid(Uuid::now_v7());
    assert!(world.store.release_steps(&ns(), other, &back).await.expect("decided").is_empty());
    let taken = world.store.release_steps(&ns(), world.worker, &back).await.expect("decided");
    assert_eq!(taken, [step_id]);
    let ready = world.store.load_ready(&[step_id]).await.expect("read");
    assert_eq!((ready[0].attempt, ready[0].dispatch_seq, ready[0].tries), (3, 2, 0));
}

/// A step that was taken for lost while a worker runs it is given back by that worker, so that the message
/// of the second dispatch, which another one was told is held, is superseded and costs nothing.
#[sqlx::test]
async fn what_was_sent_again_is_given_back_by_whom_runs_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let step_id = batch.member(0);
    let node = tasker_messages::NodeId::from_uuid(Uuid::now_v7());
    world.store.claim_batches(Some(&[batch]), node, 5_000, 10).await.expect("claimed");
    world.store.advance_published(&[sent(batch, 0, 1)], node, 5_000).await.expect("published");
    let queue = tasker_messages::Queue::default();
    let why = (
        tasker_messages::NodeId::from_uuid(Uuid::now_v7()),
        tasker_messages::RecoveryKind::LostMessages,
    );
    let sent = world.store.redispatch((&ns(), &queue), &[step_id], why).await;
    assert_eq!(sent.expect("sent"), 1);
    let running = [RunningStep { step_id, attempt: 1 }];
    world.store.renew_leases(&ns(), world.worker, &running, 60_000).await.expect("leased");
    let other = WorkerId::from_uuid(Uuid::now_v7());
    let claim = async |redelivered| {
        let claim = [Claim { step_id, dispatch_seq: 2, redelivered, begun: None }];
        let granted = world.store.claim_steps(&ns(), other, &claim, &TERMS, None).await;
        granted.expect("decided").verdicts
    };
    assert_eq!(claim(false).await, [ClaimVerdict::Held]);
    let release = async |worker, attempt| {
        let back = [ReleasedStep { step_id, attempt, dispatch_seq: 1, unstarted: true }];
        world.store.release_steps(&ns(), worker, &back).await.expect("decided")
    };
    // Neither by another one, nor under an attempt that is not current.
    assert!(release(other, 1).await.is_empty() && release(world.worker, 2).await.is_empty());
    assert_eq!(release(world.worker, 1).await, [step_id]);
    assert_eq!(claim(true).await, [ClaimVerdict::Drop(DropReason::Superseded)]);
    let ready = world.store.load_ready(&[step_id]).await.expect("read");
    assert_eq!((ready[0].attempt, ready[0].dispatch_seq, ready[0].tries), (2, 3, 0));
    // Somebody else may have begun it: another attempt follows, and it is given back once.
    assert!(release(world.worker, 1).await.is_empty());
}

/// Whoever waits for the rows is late when it has them, and not before: a request that is sent after that
/// time is decided after this one.
#[sqlx::test]
async fn a_claim_that_nobody_waits_for_is_not_decided(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let step_id = batch.member(0);
    world.lose_a_worker().await;
    let claim = [Claim { step_id, dispatch_seq: 1, redelivered: true, begun: None }];
    let mut before = world.pool.begin().await.expect("begun");
    sqlx::query("select from tasker.steps where id = $1 for update")
        .bind(step_id.as_uuid())
        .execute(&mut *before)
        .await
        .expect("locked");
    let until = Instant::now() + Duration::from_millis(200);
    let (namespace, worker) = (ns(), world.worker);
    let late = world.store.claim_steps(&namespace, worker, &claim, &TERMS, Some(until));
    let free = async {
        tokio::time::sleep_until((until + Duration::from_millis(1)).into()).await;
        before.commit().await.expect("unlocked");
    };
    let (late, ()) = tokio::join!(late, free);
    let late = late.expect("asked");
    assert!(late.is_late && late.verdicts.is_empty(), "{late:?}");
    let until = Some(Instant::now() + Duration::from_secs(60));
    let granted = world.store.claim_steps(&ns(), world.worker, &claim, &TERMS, until).await;
    let run = ClaimVerdict::Run { attempt: 2, tries: 1 };
    assert_eq!(granted.expect("decided").verdicts, [run], "nothing was charged before");
}

/// What comes a second time is charged if a worker may have vanished with it: if one has, or if somebody
/// was known to have it.
#[sqlx::test]
async fn what_nobody_can_have_died_of_costs_no_try(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(3).await;
    world.lose_a_worker().await;
    world.run("update tasker.workers set last_beat_at = now()").await;
    let claim = async |ordinal, redelivered| {
        let claim =
            [Claim { step_id: batch.member(ordinal), dispatch_seq: 1, redelivered, begun: None }];
        let granted = world.store.claim_steps(&ns(), world.worker, &claim, &TERMS, None).await;
        granted.expect("decided").verdicts[0]
    };
    let give_to_another_who_vanishes = async || {
        world
            .run(
                "update tasker.steps set lease_until = now(), lease_worker = gen_random_uuid()
                 where lease_worker is not null",
            )
            .await;
    };
    let run = |attempt, tries| ClaimVerdict::Run { attempt, tries };
    assert_eq!(claim(0, true).await, run(2, 0), "all workers are well");
    give_to_another_who_vanishes().await;
    assert_eq!(claim(0, true).await, run(3, 1), "somebody had it");
    give_to_another_who_vanishes().await;
    assert_eq!(claim(0, false).await, run(4, 1), "it has not come before");
    world.lose_a_worker().await;
    assert_eq!(claim(1, true).await, run(2, 1), "one has vanished");
    world.run("update tasker.workers set drained = true").await;
    assert_eq!(claim(2, true).await, run(2, 0), "it has ended in good order");
}

#[sqlx::test]
async fn a_claim_fences_the_one_before(pool: PgPool) {
    let world = World::new(pool).await;
    world.lose_a_worker().await;
    let (_, batch) = world.expand(1).await;
    let member = batch.member(0);
    let claim = |dispatch_seq, redelivered| Claim {
        step_id: member,
        dispatch_seq,
        redelivered,
        begun: None,
    };
    let other = WorkerId::from_uuid(Uuid::now_v7());
    let decide = async |worker, claim: Claim| {
        world.store.claim_steps(&ns(), worker, &[claim], &TERMS, None).await.expect("decided")
    };
    assert_eq!(
        decide(other, claim(2, true)).await.verdicts,
        [ClaimVerdict::Drop(DropReason::Superseded)]
    );
    assert_eq!(
        decide(other, claim(1, true)).await.verdicts,
        [ClaimVerdict::Run { attempt: 2, tries: 1 }]
    );
    assert_eq!(decide(world.worker, claim(1, true)).await.verdicts, [ClaimVerdict::Held]);
    let late = world.apply(&[world.finished(member, StepKind::BatchWorker, 1)]).await;
    assert_eq!(late.verdicts, [Verdict::Stale { superseded: false }]);
    sqlx::query("update tasker.steps set lease_until = now() where batch_id is not null")
        .execute(&world.pool)
        .await
        .expect("run out");
    let poisoned = decide(other, claim(1, true)).await;
    assert_eq!(poisoned.verdicts, [ClaimVerdict::Drop(DropReason::Poisoned)]);
    assert_eq!((poisoned.poisoned[0].attempt, poisoned.poisoned[0].tries), (2, 2));
    let done = world.apply(&[world.finished(member, StepKind::BatchWorker, 2)]).await;
    assert_eq!(done.verdicts, [Verdict::Applied]);
    assert_eq!(
        decide(other, claim(1, true)).await.verdicts,
        [ClaimVerdict::Drop(DropReason::Ended)]
    );
}

#[sqlx::test]
async fn a_lost_message_is_sent_again_unless_somebody_runs_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(3).await;
    let node = tasker_messages::NodeId::from_uuid(Uuid::now_v7());
    world.store.claim_batches(Some(&[batch]), node, 5_000, 10).await.expect("claimed");
    world.store.advance_published(&[sent(batch, 0, 3)], node, 5_000).await.expect("published");
    let counted = world.store.count_dispatched().await.expect("read");
    assert_eq!(counted.iter().map(|d| d.outstanding).collect::<Vec<_>>(), [3]);

    let running = [RunningStep { step_id: batch.member(1), attempt: 1 }];
    world.store.renew_leases(&ns(), world.worker, &running, 60_000).await.expect("leased");
    world.apply(&[world.finished(batch.member(0), StepKind::BatchWorker, 1)]).await;
    let queue = tasker_messages::Queue::default();
    let lost = world.store.find_lost((&ns(), &queue), None, 0, 10).await.expect("read").steps;
    assert_eq!(lost, [batch.member(2)], "what has ended or is leased is not lost");
    let all = [batch.member(0), batch.member(1), batch.member(2)];
    let why = (node, tasker_messages::RecoveryKind::LostMessages);
    assert_eq!(world.store.redispatch((&ns(), &queue), &all, why).await.expect("sent"), 1);
    assert_eq!(world.store.redispatch((&ns(), &queue), &all, why).await.expect("not again"), 0);
    let told = world.store.list_recoveries(1, 10).await.expect("read");
    let told: Vec<_> = told.iter().map(|r| (r.kind, r.queue.as_ref(), r.steps)).collect();
    assert_eq!(told, [(why.1, Some(&queue), 1)], "what was not sent is not told");
    let unsent = world.store.find_unsent(1_000, 10).await.expect("read");
    assert_eq!(unsent, [batch.member(2)]);
    let ready = world.store.load_ready(&unsent).await.expect("read");
    assert_eq!((ready[0].dispatch_seq, ready[0].claim_required, ready[0].attempt), (2, true, 1));
    let counted = world.store.count_dispatched().await.expect("read");
    assert_eq!(counted[0].outstanding, 1, "the leased one");
    world.store.mark_sent(&[(batch.member(2), 2)]).await.expect("marked");
    assert!(world.store.find_unsent(0, 10).await.expect("read").is_empty());
}

#[sqlx::test]
async fn what_came_in_bundles_is_counted_in_the_fewest_messages(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, one) = world.expand(20).await;
    let (_, other) = world.expand(3).await;
    let node = tasker_messages::NodeId::from_uuid(Uuid::now_v7());
    let queue = tasker_messages::Queue::default();
    world.store.claim_batches(Some(&[one, other]), node, 5_000, 10).await.expect("claimed");
    let spans = [SentSpan { bundled: 16, ..sent(one, 0, 18) }, sent(other, 0, 3)];
    world.store.advance_published(&spans, node, 5_000).await.expect("published");
    // What was bundled once counts so, also if the rest came one by one.
    world.store.advance_published(&[sent(one, 18, 20)], node, 5_000).await.expect("published");
    let counted = async || {
        let counted = world.store.count_dispatched().await.expect("read");
        counted.iter().map(|d| (d.outstanding, d.messages, d.bundled)).collect::<Vec<_>>()
    };
    assert_eq!(counted().await, [(20 + 3, 2 + 3, 16)]);
    let members = (0..5).map(|n| world.finished(one.member(n), StepKind::BatchWorker, 1));
    world.apply(&members.collect::<Vec<_>>()).await;
    assert_eq!(counted().await, [(15 + 3, 1 + 3, 16)]);
    // One that is about to be sent again is on no message.
    let why = (node, tasker_messages::RecoveryKind::LostMessages);
    let again = [other.member(0)];
    world.store.redispatch((&ns(), &queue), &again, why).await.expect("sent again");
    assert_eq!(counted().await, [(15 + 2, 1 + 2, 16)]);

    let open = world.store.bundled_batches(&ns(), &queue, 10).await.expect("read");
    assert_eq!(open, [BundledBatch { id: one, published: 20, ended: 5 }]);
    let find = async |batches: Option<&[BatchId]>| {
        let found = world.store.find_lost((&ns(), &queue), batches, 0, 100).await.expect("read");
        found.steps.into_iter().map(StepId::family).collect::<Vec<_>>()
    };
    assert_eq!(find(Some(&[one])).await, [one.family(); 15]);
    assert_eq!(find(Some(&[])).await, [0; 0]);
    let (tasks, members) = (find(None).await.len(), 15 + 2);
    assert_eq!(tasks, members, "the analyzers have ended");
}
