//! Reports: back-pressure, repetition, refusals.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tasker_messages::{NodeId, Refusal, Verdict, WorkItem, code};
use uuid::Uuid;

use crate::fake::{Fake, Seen, count_by_step, ending, member_part};
use crate::handlers::registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_reports_stop_the_pulling() {
    let mut fake = Fake::start().await;
    fake.settings.worker.gather_max = 16;
    fake.settings.worker.report_timeout_ms = 20_000;
    fake.settings.streams.ack_wait_ms = 10_000;
    fake.open_queue().await;
    fake.seen().part = Box::new(|_| Ok(member_part("echo")));
    fake.answer_reports(false);
    let worker = fake.worker(registry()).await;
    let items = fake.members(2_000);
    fake.publish(&items).await;
    fake.until("as many reports as may be unanswered", |seen| seen.open == 4).await;
    // Reported, queued, held and fetched ahead: at most this many have left the server, however long one
    // waits.
    let bound = 4 * 16 + 2 * 16 + 8 + 3 * 8 + 1;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (pending, unacknowledged) = fake.left().await;
        assert!(unacknowledged <= bound, "{unacknowledged} deliveries are out");
        assert!(pending + unacknowledged <= 2_000);
    }
    assert_eq!(fake.seen().most_open, 4);
    fake.answer_reports(true);
    // What was fetched ahead has waited for long, and is given back.
    let ended = |seen: &Seen| count_by_step(seen).len() + seen.released.len();
    fake.until("all outcomes", |seen| ended(seen) == items.len()).await;
    fake.until_acknowledged().await;
    let once = |seen: &Seen| seen.outcomes().count() + seen.released.len();
    assert_eq!(once(&fake.seen()), items.len());
    assert_eq!(fake.seen().most_open, 4);
    worker.stop().await;
}

#[tokio::test]
async fn a_report_is_repeated_until_it_is_answered() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    // Nobody listens at the node that dispatched the first; the second is refused for a while; the
    // third is not answered in time.
    let gone = NodeId::from_uuid(Uuid::now_v7());
    let first = WorkItem { node: gone, ..fake.item("echo", json!(1)) };
    fake.publish(std::slice::from_ref(&first)).await;
    fake.until("a report to any", |seen| seen.outcome(first.step_id).is_some()).await;
    let refusals = AtomicU32::new(3);
    fake.seen().judge = Box::new(move |outcomes| {
        match refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) {
            Ok(_) => Err(Refusal::retry(code::UNAVAILABLE, "later")),
            Err(_) => Ok(vec![Verdict::Duplicate; outcomes.len()]),
        }
    });
    let second = fake.item("echo", json!(2));
    fake.publish(std::slice::from_ref(&second)).await;
    fake.until("four reports", |seen| count_by_step(seen).get(&second.step_id) == Some(&4)).await;
    fake.answer_reports(false);
    let third = fake.item("echo", json!(3));
    fake.publish(std::slice::from_ref(&third)).await;
    fake.until("two reports", |seen| count_by_step(seen).get(&third.step_id) == Some(&2)).await;
    assert_ne!(fake.left().await, (0, 0), "nothing is acknowledged without a verdict");
    fake.answer_reports(true);
    fake.until_acknowledged().await;
    worker.stop().await;
}

#[tokio::test]
async fn stale_outcomes_are_acknowledged_only_when_superseded() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    fake.seen().judge = Box::new(|outcomes| {
        let verdict = |o: &tasker_messages::AttemptFinished| match o.attempt {
            1 => Verdict::Stale { superseded: false },
            _ => Verdict::Applied,
        };
        Ok(outcomes.iter().map(verdict).collect())
    });
    let item = fake.item("echo", json!(1));
    fake.publish(std::slice::from_ref(&item)).await;
    // It is not acknowledged, comes back, is claimed as attempt 2, and applied.
    fake.until("attempt 2", |seen| seen.outcomes().any(|o| o.attempt == 2)).await;
    fake.until_acknowledged().await;
    assert_eq!(fake.seen().claims.len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_stale_outcome_does_not_acknowledge_the_message_that_came_after_it() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    fake.answer_reports(false);
    let worker = fake.worker(registry()).await;
    // Another worker has the second dispatch, and dies with it.
    fake.seen().judge = Box::new(|outcomes| {
        let verdict = |o: &tasker_messages::AttemptFinished| match o.dispatch_seq {
            1 => Verdict::Stale { superseded: true },
            _ => Verdict::Applied,
        };
        Ok(outcomes.iter().map(verdict).collect())
    });
    let item = fake.item("echo", json!(1));
    fake.publish(std::slice::from_ref(&item)).await;
    fake.until("a report that waits", |seen| seen.open == 1).await;
    fake.publish(&[WorkItem { dispatch_seq: 2, claim_required: true, ..item.clone() }]).await;
    fake.until_acknowledged_up_to(1).await;
    fake.answer_reports(true);
    fake.until("the second one", |seen| seen.outcomes().any(|o| o.dispatch_seq == 2)).await;
    fake.until_acknowledged().await;
    let claimed = |c: &tasker_messages::Claim| (c.dispatch_seq, c.redelivered);
    let claims: Vec<_> = fake.seen().claims.iter().map(claimed).collect();
    assert_eq!(claims, [(2, true)]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_outcome_does_not_fail_its_neighbours() {
    let mut fake = Fake::start().await;
    fake.settings.worker.max_unanswered = 1;
    fake.open_queue().await;
    fake.answer_reports(false);
    fake.seen().part = Box::new(|_| Ok(member_part("echo")));
    let worker = fake.worker(registry()).await;
    let items = fake.members(50);
    let culprit = items[20].step_id;
    let first = fake.item("echo", json!(0));
    fake.publish(std::slice::from_ref(&first)).await;
    fake.until("a report that holds up the rest", |seen| seen.open == 1).await;
    fake.seen().judge = Box::new(move |outcomes| {
        let refused = |o: &tasker_messages::AttemptFinished| {
            o.step_id == culprit
                && matches!(&o.outcome, tasker_messages::AttemptOutcome::Succeeded(_))
        };
        match outcomes.iter().any(refused) {
            true => Err(Refusal::new(code::INVALID_REQUEST, "one of them is bad")),
            false => Ok(vec![Verdict::Applied; outcomes.len()]),
        }
    });
    fake.publish(&items).await;
    fake.answer_reports(true);
    fake.until("all outcomes", |seen| {
        let last = seen.outcomes().filter(|o| o.step_id == culprit).last();
        count_by_step(seen).len() == 51 && last.is_some_and(|o| ending(o).is_err())
    })
    .await;
    fake.until_acknowledged().await;
    worker.stop().await;
    let seen = fake.seen();
    let last = seen.outcomes().filter(|o| o.step_id == culprit).last().map(ending);
    assert_eq!(last, Some(Err(code::INVALID_REQUEST.to_owned())));
}

#[tokio::test]
async fn what_is_refused_for_good_is_claimed_as_another_attempt() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    fake.seen().judge = Box::new(|outcomes| match outcomes.iter().any(|o| o.attempt == 1) {
        true => Err(Refusal::new(code::INVALID_REQUEST, "neither the outcome nor the error")),
        false => Ok(vec![Verdict::Applied; outcomes.len()]),
    });
    let worker = fake.worker(registry()).await;
    let item = fake.item("echo", json!(1));
    fake.publish(std::slice::from_ref(&item)).await;
    fake.until("attempt 2", |seen| seen.outcomes().any(|o| o.attempt == 2)).await;
    fake.until_acknowledged().await;
    // Its lease may still be this worker's.
    assert_eq!(fake.seen().claims.iter().map(|c| c.begun).collect::<Vec<_>>(), [Some(1)]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_restarts_of_the_server() {
    let mut fake = Fake::start().await;
    fake.open_queue().await;
    fake.seen().part = Box::new(|_| Ok(member_part("echo")));
    let worker = fake.worker(registry()).await;
    let items = fake.members(6_000);
    for (n, items) in items.chunks(2_000).enumerate() {
        fake.publish(items).await;
        fake.until("some outcomes", |seen| count_by_step(seen).len() > n * 2_000 + 300).await;
        fake.server.end("TERM");
        fake.server.run();
        fake.bus.wait_connected(Duration::from_secs(20)).await.expect("reconnected");
    }
    fake.until("all outcomes", |seen| count_by_step(seen).len() == items.len()).await;
    fake.until_acknowledged().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_after_the_store_of_the_bus_is_lost() {
    let mut fake = Fake::start().await;
    fake.open_queue().await;
    fake.seen().part = Box::new(|_| Ok(member_part("echo")));
    let worker = fake.worker(registry()).await;
    let items = fake.members(3_000);
    fake.publish(&items).await;
    fake.until("some outcomes", |seen| count_by_step(seen).len() > 300).await;
    fake.server.end("KILL");
    fake.server.wipe();
    fake.server.run();
    fake.bus.wait_connected(Duration::from_secs(20)).await.expect("reconnected");
    fake.open_queue().await;
    // What has no outcome is dispatched again, as the reconciler does.
    let done = count_by_step(&fake.seen());
    let rest = items.iter().filter(|item| !done.contains_key(&item.step_id));
    let again = rest.map(|item| WorkItem { dispatch_seq: 2, claim_required: true, ..item.clone() });
    fake.publish(&again.collect::<Vec<_>>()).await;
    fake.until("all outcomes", |seen| count_by_step(seen).len() == items.len()).await;
    fake.until_acknowledged().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_sent_again_when_the_connection_was_lost() {
    let mut fake = Fake::start().await;
    fake.settings.worker.report_timeout_ms = 60_000;
    fake.open_queue().await;
    fake.answer_reports(false);
    let worker = fake.worker(registry()).await;
    fake.publish(&[fake.item("echo", json!(1))]).await;
    fake.until("a report", |seen| seen.open == 1).await;
    fake.server.end("KILL");
    fake.server.run();
    fake.until("the report once more", |seen| seen.open == 2).await;
    fake.answer_reports(true);
    fake.until_acknowledged().await;
    worker.stop().await;
}
