//! What to think of what was seen.

use tasker_bus::StreamLoad;
use tasker_messages::{Condition, Diagnosis, Finding, WorkerView};
use tasker_store::{Late, LateKind, Schema};

use super::ago;
use super::look::{BusSeen, QueueSeen, RowsSeen, Seen};

/// A stream that is fuller than that deserves attention, in percent.
const FULL: u64 = 80;

/// Judges everything that was seen.
pub(super) fn judge(seen: &Seen) -> Diagnosis {
    let mut findings = Vec::new();
    match &seen.rows {
        Ok(rows) => judge_rows(rows, &mut findings),
        Err(error) => findings.push(wrong(
            "database",
            format!("not read: {error}"),
            "check database.url, and whether the server runs and lets this user in",
        )),
    }
    match &seen.bus {
        Ok(bus) => judge_bus(bus, &mut findings),
        Err(error) => findings.push(wrong(
            "bus",
            format!("not asked: {error}"),
            "check nats.url, and whether the server runs with JetStream and lets this user in",
        )),
    }
    Diagnosis {
        ok: findings.iter().all(|finding| finding.condition != Condition::Wrong),
        findings,
        recoveries: seen.rows.as_ref().map(|rows| rows.recoveries.clone()).unwrap_or_default(),
    }
}

fn finding(id: &str, condition: Condition, what: String, advice: &str) -> Finding {
    Finding { id: id.to_owned(), condition, what, advice: advice.to_owned(), places: Vec::new() }
}

fn ok(id: &str, what: String) -> Finding {
    finding(id, Condition::Ok, what, "")
}

fn wrong(id: &str, what: String, advice: &str) -> Finding {
    finding(id, Condition::Wrong, what, advice)
}

fn judge_rows(rows: &RowsSeen, findings: &mut Vec<Finding>) {
    findings.push(database(&rows.schema));
    if rows.schema.check().is_err() {
        return;
    }
    findings.push(workers(&rows.workers));
    for kind in LATE {
        findings.extend(late(kind, &rows.late));
    }
}

fn database(schema: &Schema) -> Finding {
    let Schema { applied, known, .. } = *schema;
    let what = format!("the schema is at version {applied}, this build is made for {known}");
    let (condition, advice) = match schema.check() {
        Err(_) if applied < known => (Condition::Wrong, "run `tasker migrate`"),
        Err(_) => (Condition::Wrong, "use a later release, such as that which migrated it"),
        Ok(()) if applied < known => (
            Condition::Attention,
            "run `tasker migrate --contract` once no node of an earlier release runs",
        ),
        Ok(()) if applied > known => {
            (Condition::Attention, "go on with the upgrade, or leave it: this build works with it")
        }
        Ok(()) => return ok("database", format!("answers, schema version {applied}")),
    };
    finding("database", condition, what, advice)
}

fn workers(workers: &[WorkerView]) -> Finding {
    let mut live: Vec<_> = workers.iter().filter(|worker| worker.live).map(|w| w.id).collect();
    live.dedup();
    let draining = workers.iter().filter(|worker| worker.live && worker.draining).count();
    let silent = workers.iter().filter(|worker| !worker.live && !worker.drained).count();
    let what = format!("{} alive, {draining} draining, {silent} silent", live.len());
    match live.is_empty() {
        true => finding(
            "workers",
            Condition::Attention,
            what,
            "start a worker, if none runs; one is heard of where it pulls a queue",
        ),
        false => ok("workers", what),
    }
}

const LATE: [LateKind; 6] = [
    LateKind::Unsent,
    LateKind::Retry,
    LateKind::Unpublished,
    LateKind::Unconverged,
    LateKind::Expanding,
    LateKind::Lease,
];

/// What is late of one kind, if anything is.
fn late(kind: LateKind, all: &[Late]) -> Option<Finding> {
    let (id, what, advice) = match kind {
        LateKind::Unsent => (
            "unsent",
            "ready steps are not on the bus",
            "see whether an orchestrator runs, and whether a full stream or window keeps them back",
        ),
        LateKind::Retry => {
            ("retries", "retries are due and were not begun", "see whether an orchestrator runs")
        }
        LateKind::Unpublished => (
            "publishing",
            "nobody publishes the members of sealed batches",
            "see whether an orchestrator runs",
        ),
        LateKind::Unconverged => (
            "convergence",
            "batches whose members have all ended were not settled",
            "see the log of the orchestrators; `tasker task why` says what the task waits for",
        ),
        LateKind::Expanding => (
            "expansion",
            "batches are not written to their end",
            "see the log of the orchestrators for what stops the expansion",
        ),
        LateKind::Lease => (
            "leases",
            "workers went silent, and their steps have not come back",
            "they come back with the messages, after streams.ack_wait_ms, or are sent again",
        ),
    };
    let here: Vec<&Late> = all.iter().filter(|late| late.kind == kind).collect();
    if here.is_empty() {
        return None;
    }
    let count: u64 = here.iter().map(|late| late.count).sum();
    // A lease that has run out is how the death of a worker looks for a while.
    let condition = match kind {
        LateKind::Lease => Condition::Attention,
        _ => Condition::Wrong,
    };
    let mut finding = finding(id, condition, format!("{what}: {count}"), advice);
    finding.places = here.iter().map(|late| place_of(late)).collect();
    Some(finding)
}

fn place_of(late: &Late) -> String {
    let Late { namespace, queue, count, longest, example, .. } = late;
    format!("{namespace}/{queue}: {count}, for up to {}, such as {example}", ago(*longest))
}

fn judge_bus(bus: &BusSeen, findings: &mut Vec<Finding>) {
    findings.push(streams(&bus.streams));
    findings.push(queues(&bus.queues));
    findings.push(consumers(&bus.queues));
    findings.push(served(&bus.queues));
}

fn streams(streams: &[(&'static str, Option<StreamLoad>)]) -> Finding {
    let (mut places, mut worst) = (Vec::new(), Condition::Ok);
    for (name, load) in streams {
        let (condition, place) = match load {
            None => (Condition::Wrong, "missing".to_owned()),
            Some(load) if !load.is_work_queue => {
                (Condition::Wrong, "not a work queue: somebody else made it".to_owned())
            }
            Some(load) => {
                let full = load.max_bytes.map_or(0, |most| load.bytes * 100 / most.max(1));
                let condition = if full >= FULL { Condition::Attention } else { Condition::Ok };
                (condition, format!("{} messages, {full} % full", load.messages))
            }
        };
        worst = worst.max(condition);
        places.push(format!("{name}: {place}"));
    }
    let advice = match worst {
        Condition::Ok => "",
        Condition::Attention => "give streams.max_bytes more room, or start more workers",
        Condition::Wrong => "start an orchestrator: it makes what is missing",
    };
    Finding { places, ..finding("streams", worst, format!("{} streams", streams.len()), advice) }
}

/// Rows against consumers: what should be on the bus and is not.
fn queues(queues: &[QueueSeen]) -> Finding {
    let (mut places, mut missing) = (Vec::new(), 0);
    for seen in queues {
        let on_bus = seen.load.map_or(0, |load| load.pending + load.ack_pending);
        let lacks = seen.messages.saturating_sub(on_bus);
        if lacks > 0 {
            missing += lacks;
            let QueueSeen { namespace, queue, messages, .. } = seen;
            places
                .push(format!("{namespace}/{queue}: {messages} by the rows, {on_bus} on the bus"));
        }
    }
    if missing == 0 {
        let outstanding: u64 = queues.iter().map(|seen| seen.outstanding).sum();
        return ok("queues", format!("{outstanding} steps outstanding, none missing on the bus"));
    }
    // Rows and bus are read one after the other, and what has just ended is still in one of them.
    let advice =
        "if it stays so for longer than reconciler.confirm_ms, an orchestrator sends it again";
    let what = format!("{missing} of the messages that should be on the bus are not seen there");
    Finding { places, ..finding("queues", Condition::Attention, what, advice) }
}

/// Consumers that are missing, or stand still.
fn consumers(queues: &[QueueSeen]) -> Finding {
    let of = |seen: &QueueSeen, what: &str| format!("{}/{}: {what}", seen.namespace, seen.queue);
    let missing = queues.iter().filter(|seen| seen.load.is_none() && seen.outstanding > 0);
    let mut places: Vec<String> = missing.map(|seen| of(seen, "there is none")).collect();
    let still = queues.iter().filter(|seen| seen.stood_still);
    places.extend(still.map(|seen| of(seen, "delivers nothing, though workers have room")));
    if places.is_empty() {
        return ok("consumers", format!("{} consumers, none stands still", queues.len()));
    }
    let advice =
        "an orchestrator makes it anew, after reconciler.stalled_consumer_ms if it stands still";
    let what = "consumers do not deliver".to_owned();
    Finding { places, ..finding("consumers", Condition::Wrong, what, advice) }
}

/// Queues on which work waits and that nobody pulls.
fn served(queues: &[QueueSeen]) -> Finding {
    let waits = |seen: &&QueueSeen| seen.outstanding > 0 && seen.workers == 0;
    let places: Vec<String> = queues
        .iter()
        .filter(waits)
        .map(|seen| format!("{}/{}: {} steps", seen.namespace, seen.queue, seen.outstanding))
        .collect();
    if places.is_empty() {
        return ok("served", "every queue with work has workers".to_owned());
    }
    let what = "no live worker pulls queues on which work waits".to_owned();
    let advice =
        "start workers for these namespaces and queues; `tasker worker list` shows who pulls what";
    Finding { places, ..finding("served", Condition::Attention, what, advice) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tasker_bus::ConsumerLoad;
    use tasker_messages::{QueueLoad, WorkerId};
    use uuid::Uuid;

    use super::*;

    fn queue() -> QueueSeen {
        QueueSeen {
            namespace: "n".parse().expect("a name"),
            queue: "q".parse().expect("a name"),
            outstanding: 5,
            messages: 5,
            load: Some(ConsumerLoad {
                created_unix_nanos: 0,
                age: Duration::ZERO,
                pending: 3,
                ack_pending: 2,
                ack_floor_stream_seq: 0,
                delivered_stream_seq: 0,
                max_ack_pending: 100,
                paused_for: None,
            }),
            stood_still: false,
            free_slots: 1,
            workers: 1,
        }
    }

    fn worker() -> WorkerView {
        WorkerView {
            id: WorkerId::from_uuid(Uuid::nil()),
            namespace: "n".parse().expect("a name"),
            name: "w".to_owned(),
            build: "1".to_owned(),
            queues: vec![QueueLoad { queue: "q".parse().expect("a name"), slots: 2, busy: 1 }],
            callables: Vec::new(),
            resolves: false,
            draining: false,
            drained: false,
            drain_asked_at: None,
            live: true,
            last_beat_at: String::new(),
        }
    }

    fn healthy() -> Seen {
        let stream =
            StreamLoad { messages: 5, bytes: 10, max_bytes: Some(100), is_work_queue: true };
        let rows = RowsSeen {
            schema: Schema { applied: 9, known: 9, required: 8, needs: 7 },
            late: Vec::new(),
            workers: vec![worker()],
            recoveries: Vec::new(),
            dispatched: Vec::new(),
        };
        let bus = BusSeen { streams: vec![("S", Some(stream))], queues: vec![queue()] };
        Seen { rows: Ok(rows), bus: Ok(bus) }
    }

    /// What is not right after `change`, and how.
    fn after(change: impl FnOnce(&mut Seen)) -> Vec<(String, Condition)> {
        let mut seen = healthy();
        change(&mut seen);
        let found = judge(&seen);
        let all = found.findings.into_iter().filter(|f| f.condition != Condition::Ok);
        let all: Vec<_> = all
            .inspect(|finding| assert!(!finding.advice.is_empty(), "{finding:?}"))
            .map(|finding| (finding.id, finding.condition))
            .collect();
        assert_eq!(found.ok, all.iter().all(|(_, condition)| *condition != Condition::Wrong));
        all
    }

    fn after_rows(change: impl FnOnce(&mut RowsSeen)) -> Vec<(String, Condition)> {
        after(|seen| change(seen.rows.as_mut().expect("read")))
    }

    fn after_queue(change: impl FnOnce(&mut QueueSeen)) -> Vec<(String, Condition)> {
        after(|seen| change(&mut seen.bus.as_mut().expect("asked").queues[0]))
    }

    fn after_stream(change: impl FnOnce(&mut Option<StreamLoad>)) -> Vec<(String, Condition)> {
        after(|seen| change(&mut seen.bus.as_mut().expect("asked").streams[0].1))
    }

    #[test]
    fn each_defect_is_named() {
        let (wrong, look) = (Condition::Wrong, Condition::Attention);
        let one = |id: &str, condition| vec![(id.to_owned(), condition)];
        assert_eq!(after(|_| ()), []);
        assert_eq!(after(|seen| seen.rows = Err("no".to_owned())), one("database", wrong));
        assert_eq!(after(|seen| seen.bus = Err("no".to_owned())), one("bus", wrong));
        let after_schema = |applied, needs| {
            after_rows(|rows| (rows.schema.applied, rows.schema.needs) = (applied, needs))
        };
        assert_eq!(after_schema(7, 7), one("database", wrong));
        assert_eq!(after_schema(8, 7), one("database", look));
        assert_eq!(after_schema(12, 9), one("database", look));
        assert_eq!(after_schema(12, 10), one("database", wrong));
        assert_eq!(after_rows(|rows| rows.workers[0].live = false), one("workers", look));
        assert_eq!(after_stream(|load| *load = None), one("streams", wrong));
        let foreign = |load: &mut Option<StreamLoad>| {
            load.as_mut().expect("there").is_work_queue = false;
        };
        assert_eq!(after_stream(foreign), one("streams", wrong));
        let full = |load: &mut Option<StreamLoad>| load.as_mut().expect("there").bytes = 80;
        assert_eq!(after_stream(full), one("streams", look));
        assert_eq!(after_queue(|queue| queue.messages = 6), one("queues", look));
        assert_eq!(after_queue(|queue| queue.stood_still = true), one("consumers", wrong));
        assert_eq!(after_queue(|queue| queue.workers = 0), one("served", look));
        let gone = [one("queues", look), one("consumers", wrong)].concat();
        assert_eq!(after_queue(|queue| queue.load = None), gone);
        let idle = |queue: &mut QueueSeen| {
            (queue.load, queue.workers) = (None, 0);
            (queue.outstanding, queue.messages) = (0, 0);
        };
        assert_eq!(after_queue(idle), []);
    }

    #[test]
    fn what_is_late_is_named() {
        let ids = ["unsent", "retries", "publishing", "convergence", "expansion", "leases"];
        for (kind, id) in LATE.into_iter().zip(ids) {
            let late = Late {
                kind,
                namespace: "n".to_owned(),
                queue: "q".to_owned(),
                count: 3,
                longest: Duration::from_secs(61),
                example: Uuid::nil(),
            };
            let found = after_rows(|rows| rows.late.push(late));
            let condition = if id == "leases" { Condition::Attention } else { Condition::Wrong };
            assert_eq!(found, [(id.to_owned(), condition)]);
        }
    }
}
