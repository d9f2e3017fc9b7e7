use serde_json::{Value, json};
use tasker_messages::{BatchView, Queue, QueueLoad};

use super::*;
use crate::convergence::{BatchFact, Choice, Ending, StepFact};
use crate::testing::template;

/// Rows as `name state`, where a decision may add `> chosen,steps`.
fn detail(rows: &[&str], batches: &[(&str, Value)], offers: &[Offer]) -> TaskDetail {
    let mut detail = TaskDetail { offers: offers.to_vec(), ..TaskDetail::default() };
    for row in rows {
        let (row, choice) = row.split_once(" > ").map_or((*row, None), |(row, c)| (row, Some(c)));
        let (name, state) = row.split_once(' ').expect("a name and a state");
        let state: StepState = state.parse().expect("a state");
        let ended = match state {
            StepState::Complete | StepState::ResolvedManually => Some(Ending::Succeeded),
            StepState::Error | StepState::Cancelled => Some(Ending::Failed),
            _ => None,
        };
        detail.facts.steps.insert(name.to_owned(), StepFact { ended });
        if let Some(choice) = choice {
            let steps = choice.split(',').map(str::to_owned).collect();
            detail.facts.choices.insert(name.to_owned(), Choice { steps, settled: true });
        }
        let failed = matches!(state, StepState::Error | StepState::WaitingForRetry);
        let error = json!({"code": "NO", "message": "never", "retryable": false});
        let step = StepDetail {
            state,
            attempt: 2,
            published: true,
            run_after: (state == StepState::WaitingForRetry).then(|| "noon".to_owned()),
            lease: (state == StepState::InProgress).then(|| lease(false)),
            error: failed.then(|| serde_json::from_value(error).expect("an error")),
        };
        detail.steps.insert(name.to_owned(), step);
    }
    for (worker, numbers) in batches {
        let batch = batch(worker, numbers);
        let fact = BatchFact {
            remaining: batch.remaining,
            succeeded: batch.succeeded,
            failed: batch.failed,
            stopped: numbers["stopped"] == true,
        };
        if batch.state != BatchState::Expanding {
            detail.facts.batches.insert((*worker).to_owned(), fact);
        }
        detail.batches.insert((*worker).to_owned(), batch);
    }
    detail
}

fn lease(expired: bool) -> Lease {
    let last_beat = Some("ten".to_owned());
    Lease { worker: "host-7".to_owned(), last_beat, until: "noon".to_owned(), expired }
}

fn batch(worker: &str, numbers: &Value) -> BatchView {
    let mut batch = json!({"id": "0190a0a0-0000-7000-8000-000000000000", "batchable_step": "s",
        "worker_template": worker, "state": "sealed", "expected": 9, "published": 9, "succeeded": 0,
        "failed": 0, "remaining": 0, "is_no_op": false});
    for (key, value) in numbers.as_object().into_iter().flatten() {
        batch[key] = value.clone();
    }
    serde_json::from_value(batch).expect("a batch")
}

fn offer(queue: &str, callable: &str, slots: u32, busy: u32) -> Offer {
    let queue = Queue::new(queue).expect("a queue");
    let callables = vec![callable.to_owned()];
    Offer { queues: vec![QueueLoad { queue, slots, busy }], callables, resolves: false }
}

fn shown(steps: &[&str], detail: &TaskDetail) -> Vec<String> {
    let shown = |r: Reason| {
        let waits_for = r.waits_for.join(",");
        format!("{} {} {} [{waits_for}] {}", r.step, r.state, r.code, r.message)
    };
    why(&template(steps), detail).into_iter().map(shown).collect()
}

/// The reasons without their messages.
fn check(steps: &[&str], rows: &[&str], batches: &[(&str, Value)], expect: &[&str]) {
    let offers = [offer("default", "x", 4, 0)];
    let got: Vec<String> = why(&template(steps), &detail(rows, batches, &offers))
        .into_iter()
        .map(|r| format!("{} {} {} [{}]", r.step, r.state, r.code, r.waits_for.join(",")))
        .collect();
    assert_eq!(got, expect, "{steps:?} {rows:?}");
}

#[test]
fn static_steps() {
    let chain = ["a -", "b - a", "c - b"];
    check(
        &chain,
        &["a in_progress", "b pending", "c pending"],
        &[],
        &[
            "a in_progress running []",
            "b pending waits_for_parents [a]",
            "c pending waits_for_parents [b]",
        ],
    );
    check(
        &chain,
        &["a error", "b pending", "c pending"],
        &[],
        &[
            "a error failed []",
            "b pending blocked_by_failures [a]",
            "c pending blocked_by_failures [b]",
        ],
    );
    check(
        &chain,
        &["a resolved_manually", "b waiting_for_retry", "c pending"],
        &[],
        &["b waiting_for_retry waits_for_retry []", "c pending waits_for_parents [b]"],
    );
    // Between two transactions.
    check(&chain, &["a complete", "b complete", "c pending"], &[], &["c pending settling []"]);
    check(&["a -"], &["a complete"], &[], &[]);
    // A branch that failed does not hold up the other one.
    check(
        &["a -", "b -", "c - a", "d - b"],
        &["a error", "b enqueued", "c pending", "d pending"],
        &[],
        &[
            "a error failed []",
            "b enqueued queued []",
            "c pending blocked_by_failures [a]",
            "d pending waits_for_parents [b]",
        ],
    );
}

#[test]
fn decisions() {
    let steps = ["d d", "x - d", "y - d", "j j x y"];
    check(
        &steps,
        &["d enqueued"],
        &[],
        &[
            "d enqueued queued []",
            "x absent not_yet_created [d]",
            "y absent not_yet_created [d]",
            "j absent not_yet_created [x,y]",
        ],
    );
    // Nothing is said about what never exists.
    check(
        &steps,
        &["d complete > x", "x in_progress"],
        &[],
        &["x in_progress running []", "j absent not_yet_created [x]"],
    );
    check(
        &steps,
        &["d complete > x"],
        &[],
        &["x absent settling []", "j absent not_yet_created [x]"],
    );
    check(
        &steps,
        &["d error"],
        &[],
        &[
            "d error failed []",
            "x absent blocked_by_failures [d]",
            "y absent blocked_by_failures [d]",
            "j absent blocked_by_failures [x,y]",
        ],
    );
    // A failure in one of two branches: the join still runs; nothing holds it up.
    check(
        &["d d", "x - d", "y - d", "j j x y"],
        &["d complete > x,y", "x error", "y in_progress"],
        &[],
        &["x error failed []", "y in_progress running []", "j absent not_yet_created [y]"],
    );
    // A join of what waits behind a failure waits for ever.
    check(
        &["d d", "x - d", "y - x", "j j y"],
        &["d complete > x", "x error", "y pending"],
        &[],
        &[
            "x error failed []",
            "y pending blocked_by_failures [x]",
            "j absent blocked_by_failures [y]",
        ],
    );
}

#[test]
fn batches() {
    let steps = ["s b", "w w s", "j j w", "k - j"];
    let then = ["j absent not_yet_created [w]", "k absent not_yet_created [j]"];
    let with =
        |first: &[&'static str]| -> Vec<&str> { first.iter().copied().chain(then).collect() };
    check(
        &steps,
        &["s in_progress"],
        &[],
        &with(&["s in_progress running []", "w absent not_yet_created [s]"]),
    );
    check(
        &steps,
        &["s expanding"],
        &[("w", json!({"state": "expanding"}))],
        &with(&["s expanding expanding []", "w expanding not_yet_created [s]"]),
    );
    check(
        &steps,
        &["s complete"],
        &[("w", json!({"remaining": 3, "succeeded": 6}))],
        &with(&["w sealed members_remain []"]),
    );
    // All have ended, and nobody has converged it yet.
    check(
        &steps,
        &["s complete"],
        &[("w", json!({"succeeded": 9}))],
        &["j absent settling []", "k absent settling []"],
    );
    check(
        &steps,
        &["s error"],
        &[],
        &[
            "s error failed []",
            "w absent blocked_by_failures [s]",
            "j absent blocked_by_failures [w]",
            "k absent blocked_by_failures [j]",
        ],
    );
    check(
        &steps,
        &["s complete"],
        &[("w", json!({"failed": 9, "state": "failed"}))],
        &[
            "w failed failed []",
            "j absent blocked_by_failures [w]",
            "k absent blocked_by_failures [j]",
        ],
    );
    check(
        &steps,
        &["s complete"],
        &[("w", json!({"failed": 2, "succeeded": 1, "state": "failed", "stopped": true}))],
        &[
            "w failed batch_stopped []",
            "j absent batch_stopped [w]",
            "k absent blocked_by_failures [j]",
        ],
    );
    check(
        &steps,
        &["s complete"],
        &[("w", json!({"failed": 2, "remaining": 7, "state": "failed", "stopped": true}))],
        &[
            "w failed batch_stopped []",
            "j absent batch_stopped [w]",
            "k absent blocked_by_failures [j]",
        ],
    );
}

#[test]
fn who_could_run_it() {
    let table: &[(&[Offer], &str)] = &[
        (
            &[],
            "no_worker [] no live worker pulls the queue `default` of this namespace; start one. ",
        ),
        (
            &[offer("other", "x", 1, 0)],
            "no_worker [] no live worker pulls the queue `default` of this namespace; start one. ",
        ),
        (
            &[offer("default", "y", 1, 0)],
            "no_handler [] of 1 live worker of the queue `default` none has `x`. ",
        ),
    ];
    const ON_BUS: &str = "on the bus; no worker has said that it runs it";
    for (offers, expect) in table {
        let got = shown(&["a -"], &detail(&["a enqueued"], &[], offers));
        assert_eq!(got, [format!("a enqueued {expect}{ON_BUS}")]);
    }
    let offers = [offer("default", "y", 9, 0), offer("default", "x", 4, 4)];
    let all_busy = "1 live worker can run it, 4 of their 4 slots busy; 1 of 2 live workers of its queue cannot";
    let got = shown(&["a -"], &detail(&["a enqueued"], &[], &offers));
    assert_eq!(got, [format!("a enqueued all_slots_busy [] {ON_BUS}; {all_busy}")]);
    // The same of the members of a batch.
    let half = [("w", json!({"remaining": 5, "published": 7, "succeeded": 3, "failed": 1}))];
    let numbers = "5 of 9 members remain: 3 on the bus, running or waiting for a retry, 2 not \
                   published yet; 3 succeeded, 1 failed";
    let mut busy = detail(&["s complete"], &half, &offers);
    let steps = ["s b", "w w s", "j j w"];
    assert_eq!(
        shown(&steps, &busy)[0],
        format!("w sealed members_remain [] {numbers}; {all_busy}")
    );
    // The limit of a queue is told; of another queue it is not.
    let queue = |name: &str| Queue::new(name).expect("a queue");
    busy.limits = [(queue("other"), 9)].into();
    assert!(shown(&steps, &busy)[0].ends_with(all_busy));
    busy.limits.insert(queue("default"), 3);
    let limit = "; the limit of the queue `default` lets 3 run at a time";
    assert!(shown(&steps, &busy)[0].ends_with(&format!("{all_busy}{limit}")));
    busy.limit = Some(5);
    let both = format!("{all_busy}{limit}; the limit of the namespace lets 5 run at a time");
    assert!(shown(&steps, &busy)[0].ends_with(&both));
    busy.offers.clear();
    assert!(shown(&steps, &busy)[0].starts_with("w sealed no_worker [] no live worker"));
}

#[test]
fn particulars() {
    let x = [offer("default", "x", 4, 0)];
    let one = |row: &str| shown(&["a -"], &detail(&[row], &[], &x)).remove(0);
    assert_eq!(
        one("a in_progress"),
        "a in_progress running [] attempt 2 by worker host-7, last heard of at ten; leased until noon"
    );
    assert_eq!(
        one("a waiting_for_retry"),
        "a waiting_for_retry waits_for_retry [] attempt 2 follows at noon; the last one failed: never \
         [NO]"
    );
    assert_eq!(one("a error"), "a error failed [] attempt 2 was the last: never [NO]");
    let mut silent = detail(&["a in_progress"], &[], &x);
    silent.steps.get_mut("a").expect("there").lease = Some(lease(true));
    assert_eq!(
        shown(&["a -"], &silent),
        [
            "a in_progress lease_expired [] attempt 2 by worker host-7, last heard of at ten; its lease \
          ended at noon, another worker takes over"
        ]
    );
    // Where nobody is left, that is the reason, whatever else is so.
    silent.offers.clear();
    assert!(shown(&["a -"], &silent)[0].starts_with("a in_progress no_worker [] no live worker"));
    let mut waits = detail(&["a waiting_for_retry"], &[], &[offer("default", "y", 1, 0)]);
    assert!(shown(&["a -"], &waits)[0].contains("none has `x`. attempt 2 follows at noon"));
    // A resolver may find it.
    waits.offers[0].resolves = true;
    assert!(shown(&["a -"], &waits)[0].starts_with("a waiting_for_retry waits_for_retry []"));
    let mut cancelled = detail(&["a complete", "b cancelled", "d error"], &[], &[]);
    cancelled.stopped = Some(TaskStop::Cancelled);
    assert_eq!(
        shown(&["a -", "b - a", "d -", "c j b d"], &cancelled),
        [
            "b cancelled cancelled [] its task was cancelled",
            "d error failed [] attempt 2 was the last: never [NO]",
            "c absent cancelled [] its task was cancelled",
        ]
    );
}

/// A task that was ended by a limit of time: nothing of it goes on.
#[test]
fn a_stale_task() {
    let batch = [("w", json!({"state": "cancelled", "remaining": 4, "succeeded": 5}))];
    let mut stale = detail(&["s complete", "a cancelled"], &batch, &[]);
    stale.facts.batches.clear();
    stale.stopped = Some(TaskStop::Stale);
    let why = "its task was ended by a limit of time";
    assert_eq!(
        shown(&["s b", "w w s", "j j w a", "a -"], &stale),
        [
            format!("w cancelled cancelled [] {why}"),
            format!("j absent cancelled [] {why}"),
            format!("a cancelled cancelled [] {why}"),
        ]
    );
}

/// A join that can only be blocked says so before its last parent has ended.
#[test]
fn joins_without_hope() {
    let steps = ["s b", "w w s", "a -", "j j w a"];
    let j = |rows: &[&str], batch: Value| {
        let detail = detail(rows, &[("w", batch)], &[]);
        shown(&steps, &detail).into_iter().find(|row| row.starts_with("j ")).unwrap_or_default()
    };
    let running = ["s complete", "a in_progress"];
    let all_failed = j(&running, json!({"failed": 9, "state": "failed"}));
    assert!(all_failed.starts_with("j absent blocked_by_failures [w]"), "{all_failed}");
    let stopped = j(&running, json!({"failed": 9, "state": "failed", "stopped": true}));
    assert!(stopped.starts_with("j absent batch_stopped [w]"), "{stopped}");
    let waits = j(&running, json!({"succeeded": 9}));
    assert!(waits.starts_with("j absent not_yet_created [a]"), "{waits}");
}
