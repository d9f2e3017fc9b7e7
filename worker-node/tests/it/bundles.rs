//! Messages that bring several members of a batch.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tasker_messages::{
    AttemptFinished, BundledMember, ClaimVerdict, DropReason, StepId, Verdict, WorkItem,
};
use tasker_sdk::{Batchable, HandlerRegistry, StepContext, StepError, StepHandler, StepResult};

use crate::delivery::Gate;
use crate::fake::{Fake, count_by_step, ending, member_part};
use crate::server::within;

/// Puts members of one batch into one message.
fn bundle(items: &[WorkItem]) -> WorkItem {
    let member = |item: &WorkItem| BundledMember {
        ordinal: item.step_id.ordinal(),
        name: item.name.clone(),
        cursor: item.cursor.clone(),
    };
    WorkItem { bundled: items[1..].iter().map(member).collect(), ..items[0].clone() }
}

fn ids(items: &[WorkItem]) -> Vec<StepId> {
    items.iter().map(|item| item.step_id).collect()
}

/// Returns where its range begins, and its name.
struct Tells;

impl Batchable for Tells {}

impl StepHandler for Tells {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let start = self.get_batch_context(&ctx)?.start_position()?;
        Ok(json!([start, ctx.name()]).into())
    }
}

#[tokio::test]
async fn each_member_of_a_bundle_runs_once_with_its_own_range() {
    let fake = Fake::start().await;
    fake.seen().part = Box::new(|_| Ok(member_part("tells")));
    fake.open_queue().await;
    let items = fake.members(200);
    let bundles: Vec<WorkItem> = items.chunks(16).map(bundle).collect();
    fake.publish(&bundles).await;
    let worker = fake.worker(HandlerRegistry::new().register("tells", Tells)).await;
    fake.until("all outcomes", |seen| count_by_step(seen).len() == items.len()).await;
    fake.until_acknowledged().await;
    {
        let seen = fake.seen();
        assert!(count_by_step(&seen).values().all(|n| *n == 1), "each once");
        for (n, item) in items.iter().enumerate() {
            let told = ending(seen.outcome(item.step_id).expect("an outcome"));
            assert_eq!(told, Ok(json!([n, format!("member_{n}")])));
        }
        assert!(seen.claims.is_empty());
        assert_eq!(seen.parts.len(), 1, "what they share is asked for once");
        assert!(seen.beats.iter().all(|beat| beat.bundles));
    }
    within("the end", worker.stop()).await;
}

#[tokio::test]
async fn a_bundle_is_acknowledged_when_its_last_member_has_ended() {
    let fake = Fake::start().await;
    fake.seen().part = Box::new(|_| Ok(member_part("gate")));
    fake.open_queue().await;
    let gate = Gate::new();
    let items = fake.members(4);
    fake.publish(&[bundle(&items)]).await;
    let worker = fake.worker(gate.registry()).await;
    gate.called(4).await;
    gate.open.add_permits(3);
    fake.until("three outcomes", |seen| count_by_step(seen).len() == 3).await;
    // For longer than its time, which the last one extends: it neither ends nor comes again.
    tokio::time::sleep(Duration::from_millis(2 * fake.settings.streams.ack_wait_ms)).await;
    assert_eq!(fake.left().await, (0, 1));
    gate.open.add_permits(1);
    fake.until_acknowledged().await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 4);
    assert!(fake.seen().claims.is_empty());
    within("the end", worker.stop()).await;
}

#[tokio::test]
async fn of_a_bundle_that_comes_again_one_member_is_run_and_the_others_come_by_themselves() {
    let fake = Fake::start().await;
    fake.seen().part = Box::new(|_| Ok(member_part("tells")));
    fake.open_queue().await;
    let items = fake.members(4);
    let (all, again) = (ids(&items), ids(&items[2..]));
    let is_again = |id: StepId| again.contains(&id);
    {
        let mut seen = fake.seen();
        // What these returned was not stored, and nobody sends them again.
        let these = again.clone();
        seen.judge = Box::new(move |outcomes| {
            let verdict = |o: &AttemptFinished| match these.contains(&o.step_id) {
                true if o.attempt == 1 => Verdict::Stale { superseded: false },
                _ => Verdict::Applied,
            };
            Ok(outcomes.iter().map(verdict).collect())
        });
        let these = again.clone();
        seen.grant = Box::new(move |claim| match these.contains(&claim.step_id) {
            true => ClaimVerdict::Run { attempt: 2, tries: 1 },
            false => ClaimVerdict::Drop(DropReason::Ended),
        });
    }
    fake.publish(&[bundle(&items)]).await;
    let worker = fake.worker(HandlerRegistry::new().register("tells", Tells)).await;
    fake.until_acknowledged().await;
    {
        let seen = fake.seen();
        let mut claimed: Vec<StepId> = seen.claims.iter().map(|claim| claim.step_id).collect();
        claimed.sort_unstable();
        assert_eq!(claimed, all, "each member");
        assert!(seen.claims.iter().all(|claim| claim.redelivered));
        let ran_again: Vec<StepId> =
            seen.outcomes().filter(|o| o.attempt == 2).map(|o| o.step_id).collect();
        let back: Vec<_> =
            seen.released.iter().map(|s| (s.step_id, s.attempt, s.unstarted)).collect();
        let [ran] = ran_again[..] else { panic!("not one: {ran_again:?}") };
        let [(given_back, 2, true)] = back[..] else { panic!("not one: {back:?}") };
        assert!(is_again(ran) && is_again(given_back) && ran != given_back);
        assert_eq!(seen.outcomes().count(), all.len() + 1);
    }
    within("the end", worker.stop()).await;
}

#[tokio::test]
async fn what_waits_of_a_slow_bundle_is_given_back() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 2;
    fake.seen().part = Box::new(|_| Ok(member_part("gate")));
    fake.open_queue().await;
    let gate = Gate::new();
    let items = fake.members(16);
    fake.publish(&[bundle(&items)]).await;
    let worker = fake.worker(gate.registry()).await;
    // Two run, and one may wait.
    fake.until("steps given back", |seen| seen.released.len() >= 13).await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 2, "no more than two at a time");
    assert!(fake.seen().released.iter().all(|step| step.unstarted));
    assert_eq!(fake.left().await, (0, 1), "those that run need the message");
    gate.open.add_permits(16);
    fake.until_acknowledged().await;
    {
        let seen = fake.seen();
        assert_eq!(count_by_step(&seen).len() + seen.released.len(), 16);
        assert!(seen.claims.is_empty());
    }
    within("the end", worker.stop()).await;
}
