//! Publishing: from rows to work items.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tasker_bus::Outgoing;
use tasker_guards::{CrashPoint, Guard, guard_is_off, pass};
use tasker_messages::{BatchId, BundledMember, SharedStep, StepId, TaskId, WorkItem, subject};
use tasker_store::{KnownResults, MemberRow, ReadyStep, SentSpan, StoreError, Written};

use super::bundles::group;
use super::lane::{LaneKey, MemberShared, Prepared, Published, Span, Work};
use crate::orchestrator::Node;

type Shared = HashMap<(TaskId, String), SharedStep>;

/// Members of larger batches do not carry what they share: one request of each worker is less than a copy
/// in each message, which all of the bus would have to move.
const MOST_CARRIERS: u32 = 64;

/// Reads ready steps and their shared parts. What cannot be read now is found by a sweep.
pub(crate) async fn prepare(node: &Node, steps: &[StepId], swept: bool) -> Vec<Prepared> {
    match node.store.load_ready(steps).await {
        Ok(steps) => complete(node, steps, &KnownResults::new(), swept).await,
        Err(error) => unread(&error),
    }
}

/// Reads the shared parts of ready steps. What cannot be read now is found by a sweep.
pub(crate) async fn complete(
    node: &Node,
    steps: Vec<ReadyStep>,
    known: &KnownResults,
    swept: bool,
) -> Vec<Prepared> {
    let shared = match load_shared_of(node, &steps, known).await {
        Ok(shared) => shared,
        Err(error) => return unread(&error),
    };
    let limit = node.settings.dispatch.inline_shared_bytes;
    // A step without a shared part is of a template that this build cannot read: another node's work.
    let prepare = |step: ReadyStep| {
        let shared = inline(shared.get(&step.shared_key())?, limit);
        Some(Prepared { step, shared, swept })
    };
    steps.into_iter().filter_map(prepare).collect()
}

fn unread(error: &StoreError) -> Vec<Prepared> {
    tracing::warn!(%error, "ready steps could not be read; a sweep finds them");
    Vec::new()
}

async fn load_shared_of(
    node: &Node,
    steps: &[ReadyStep],
    known: &KnownResults,
) -> Result<Shared, StoreError> {
    let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
    for step in steps {
        by_namespace.entry(&step.namespace).or_default().push(step.shared_key());
    }
    let mut shared = HashMap::new();
    for (namespace, mut keys) in by_namespace {
        keys.sort();
        keys.dedup();
        shared.extend(node.store.load_shared(namespace, &keys, known).await?);
    }
    Ok(shared)
}

fn inline(shared: &SharedStep, limit: usize) -> Option<Arc<RawValue>> {
    let text = serde_json::to_string(shared).ok().filter(|text| text.len() <= limit)?;
    RawValue::from_string(text).ok().map(Arc::from)
}

/// Puts work on the bus and records members as published. Nothing is recorded that the server has
/// not confirmed.
pub(crate) async fn publish(node: &Node, key: &LaneKey, work: Work) -> Published {
    let mut published = work.unpublished();
    if !work.ensured {
        if let Err(error) = ensure(node, key).await {
            tracing::warn!(%error, namespace = %key.0, queue = %key.1, "the queue is not ready on the bus");
            published.failed = work.steps.iter().map(|p| p.step.id).collect();
            published.dropped = work.spans.iter().map(|s| s.batch.id).collect();
            return published;
        }
        published.ensured = true;
    }
    if let Err(error) = publish_all(node, key, work, &mut published).await {
        tracing::warn!(%error, "members could not be read or recorded; a sweep goes on");
    }
    published
}

/// Makes sure that a queue exists on the bus, and tells the workers. Its limits are read anew: another
/// node may have set one since this node looked, which must not be undone.
pub(crate) async fn ensure(node: &Node, key: &LaneKey) -> Result<(), tasker_bus::BusError> {
    let limits = node.store.limits_of(&key.0).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the limits of a queue are those that were known");
        node.limits.of(&key.0)
    });
    let (settings, own) = (&node.settings.streams, limits.queues.get(&key.1).copied());
    match limits.max_running {
        None => {
            // A limit that comes late is put right when limits are looked at; a share would not be.
            let ensure = || node.bus.ensure_work_durable(&key.0, &key.1, own, settings);
            node.bus.ask_each_connection(ensure).await?;
        }
        Some(_) => node.bus.ensure_sharing_durable(&key.0, &key.1, settings).await?,
    }
    node.bus.publish(subject::QUEUES_CHANGED.to_owned(), &()).await
}

/// Brings a queue that exists on the bus to this limit; one that does not exist gets it when it is
/// made.
pub(crate) async fn adapt(
    node: &Node,
    key: &LaneKey,
    limit: Option<u32>,
) -> Result<(), tasker_bus::BusError> {
    let settings = &node.settings.streams;
    let most = limit.map_or(settings.max_ack_pending, |limit| limit.min(settings.max_ack_pending));
    match node.bus.consumer_load(&key.0, &key.1).await? {
        Some(load) if load.max_ack_pending != most || load.paused_for.is_some() => {
            tracing::info!(namespace = %key.0, queue = %key.1, most, "adapting a queue to its limit");
            node.bus.ensure_work_durable(&key.0, &key.1, limit, settings).await
        }
        _ => Ok(()),
    }
}

async fn publish_all(
    node: &Node,
    key: &LaneKey,
    mut work: Work,
    published: &mut Published,
) -> Result<(), StoreError> {
    published.dropped = work.spans.iter().map(|s| s.batch.id).collect();
    published.failed = work.steps.iter().map(|p| p.step.id).collect();
    load_member_shared(node, key, &mut work.spans).await?;
    work.spans.retain(|span| !matches!(span.shared, MemberShared::Unknown));
    let (members, known_since) = own_members(node, &mut work.spans).await?;

    let subject = subject::work(&key.0, &key.1);
    let mut messages: Vec<Outgoing> = Vec::with_capacity(work.steps.len() + members.len());
    messages.extend(work.steps.iter().map(|p| outgoing(&subject, &work_item(node, p))));
    let common = Members {
        limited: node.limits.max_running(&key.0, &key.1).is_some(),
        fresh_until_ms: fresh_until_ms(node, known_since),
    };
    let mut bundles: Vec<usize> = Vec::new();
    let mut rest = &members[..];
    for span in &work.spans {
        let low = span.batch.id.member(0);
        let high = span.batch.id.member(span.upto - 1);
        let its = rest.iter().take_while(|row| row.id <= high && row.id >= low).count();
        let (rows, behind) = rest.split_at(its);
        rest = behind;
        for members in group(rows, span.bundle, span.claim_below) {
            bundles.push(members.len());
            messages.push(outgoing(&subject, &member_item(node, &common, span, members)));
        }
    }
    debug_assert!(rest.is_empty(), "members of no span");
    count_bundles(&bundles);
    metrics::histogram!("tasker_dispatch_set_size").record(messages.len() as f64);
    pass(CrashPoint::PublishBegins);
    let mut results = node.bus.publish_batch(messages).await.into_iter();
    pass(CrashPoint::PublishDone);

    published.failed.clear();
    for prepared in &work.steps {
        match results.next() {
            Some(Ok(())) => published.steps.push((prepared.step.id, prepared.step.dispatch_seq)),
            _ => published.failed.push(prepared.step.id),
        }
    }
    published.sent = (members.len() as u32, bundles.len() as u32);
    let most_bundled = bundles.iter().copied().max().unwrap_or(1) as u32;
    let confirmed =
        results.zip(bundles).flat_map(|(r, members)| std::iter::repeat_n(r.is_ok(), members));
    let confirmed: Vec<bool> = confirmed.collect();
    record_members(node, &work.spans, &members, (&confirmed, most_bundled), published).await
}

/// What was written so lately is published from memory: what has become of it since, as when its task was
/// cancelled, matters no more than between a read and a publish. Less than the half second for which a sweep
/// leaves it to this node (`claim_batches.sql`).
pub(super) const WRITTEN_FOR: Duration = Duration::from_millis(250);

/// The members of spans, in the order of these, which may change, and a moment before anybody else can have
/// published any of them.
async fn own_members(
    node: &Node,
    spans: &mut Vec<Span>,
) -> Result<(Vec<MemberRow>, Instant), StoreError> {
    let now = Instant::now();
    let (written, mut unread): (Vec<Span>, Vec<Span>) =
        spans.drain(..).partition(|span| just_written(span, now).is_some());
    let mut known_since = now;
    let mut members = Vec::new();
    for (since, its) in written.iter().filter_map(|span| just_written(span, now)) {
        known_since = known_since.min(since);
        members.extend_from_slice(its);
    }
    metrics::counter!("tasker_dispatch_unread_members_total").increment(members.len() as u64);
    members.extend(load_own_members(node, &mut unread).await?);
    *spans = written;
    spans.append(&mut unread);
    Ok((members, known_since))
}

/// The members of a span and since when they are known, if this node has just written them.
fn just_written(span: &Span, now: Instant) -> Option<(Instant, &[MemberRow])> {
    let Written { members, known_since } = span.batch.written.as_ref()?;
    let its = members.get(span.from as usize..span.upto as usize)?;
    (now.duration_since(*known_since) < WRITTEN_FOR).then_some((*known_since, its))
}

/// Reads the members of spans. One whose batch another node has taken over, or that is not the next one
/// any more, is left out.
async fn load_own_members(
    node: &Node,
    spans: &mut Vec<Span>,
) -> Result<Vec<MemberRow>, StoreError> {
    let place = |s: &Span| (s.batch.id, s.from, s.upto);
    let places: Vec<_> = spans.iter().map(place).collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let own: HashSet<BatchId> = node.store.own_spans(&places, node.id).await?.into_iter().collect();
    spans.retain(|span| own.contains(&span.batch.id));
    let places: Vec<_> = spans.iter().map(place).collect();
    if places.is_empty() { Ok(Vec::new()) } else { node.store.load_members(&places).await }
}

/// Records each span up to its first member that the server did not confirm.
async fn record_members(
    node: &Node,
    spans: &[Span],
    members: &[MemberRow],
    (confirmed, most_bundled): (&[bool], u32),
    published: &mut Published,
) -> Result<(), StoreError> {
    let mut reached = Vec::with_capacity(spans.len());
    for span in spans {
        let (low, high) = (span.batch.id.member(span.from), span.batch.id.member(span.upto - 1));
        let lost = members
            .iter()
            .zip(confirmed)
            .find(|(row, ok)| !**ok && row.id >= low && row.id <= high);
        let upto = lost.map_or(span.upto, |(row, _)| row.id.ordinal());
        if upto > span.from {
            let (batch, from, bundled) =
                (span.batch.id, span.from, span.bundle.min(most_bundled).max(1));
            reached.push(SentSpan { batch, from, upto, bundled });
        }
    }
    if reached.is_empty() {
        return Ok(());
    }
    let lease_ms = super::sweep::PUBLISHER_LEASE.as_millis() as u64;
    let advanced = node.store.advance_published(&reached, node.id, lease_ms).await?;
    pass(CrashPoint::MembersRecorded);
    for SentSpan { batch: id, from, upto, .. } in reached {
        let Some(span) = spans.iter().find(|s| s.batch.id == id && s.from == from) else {
            continue;
        };
        if advanced.contains(&id) {
            published.spans.push((id, upto - from, span.shared.clone()));
            if upto == span.upto {
                published.dropped.retain(|dropped| *dropped != id);
            }
        }
    }
    Ok(())
}

async fn load_member_shared(
    node: &Node,
    key: &LaneKey,
    spans: &mut [Span],
) -> Result<(), StoreError> {
    for span in spans.iter_mut().filter(|s| s.batch.expected > MOST_CARRIERS) {
        span.shared = MemberShared::OnRequest;
    }
    let missing: Vec<(TaskId, String)> = spans
        .iter()
        .filter(|s| matches!(s.shared, MemberShared::Unknown))
        .map(|s| (s.batch.task_id, s.batch.worker_template.clone()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let shared = node.store.load_shared(&key.0, &missing, &KnownResults::new()).await?;
    let limit = node.settings.dispatch.inline_member_shared_bytes;
    for span in spans.iter_mut().filter(|s| matches!(s.shared, MemberShared::Unknown)) {
        let found = shared.get(&(span.batch.task_id, span.batch.worker_template.clone()));
        let Some(found) = found else { continue };
        span.shared = inline(found, limit).map_or(MemberShared::OnRequest, MemberShared::Inline);
    }
    Ok(())
}

/// The work item of a step that is not sent as part of a batch.
pub(crate) fn work_item(node: &Node, prepared: &Prepared) -> WorkItem {
    let step = &prepared.step;
    WorkItem {
        task_id: step.task_id,
        step_id: step.id,
        name: step.name.as_str().into(),
        template_step: step.template_step.as_str().into(),
        attempt: step.attempt,
        dispatch_seq: step.dispatch_seq,
        tries: step.tries,
        claim_required: step.claim_required || prepared.swept,
        fresh_until_ms: Some(fresh_until_ms(node, step.known_since)),
        node: node.id,
        cursor: step.cursor.clone().and_then(|text| RawValue::from_string(text).ok()),
        shared: prepared.shared.clone(),
        limited: node.limits.max_running(&step.namespace, &step.queue).is_some(),
        bundled: Vec::new(),
    }
}

/// Until when the copy of a row that is known since then is the first one, or one that the server takes for
/// a duplicate of the first one. Half of the time in which it does is left for clocks that differ.
fn fresh_until_ms(node: &Node, known_since: Instant) -> i64 {
    let window = node.settings.streams.duplicate_window() / 2;
    let known = node.bus.server_unix_nanos(known_since).unwrap_or(0) / 1_000_000;
    known.saturating_add(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
}

/// Counts the members that come in one message with others.
fn count_bundles(bundles: &[usize]) {
    let bundled: usize = bundles.iter().filter(|members| **members > 1).sum();
    metrics::counter!("tasker_dispatch_bundled_members_total").increment(bundled as u64);
}

/// What the members of a publish have in common.
struct Members {
    limited: bool,
    fresh_until_ms: i64,
}

/// The message of one member, or of several of which the first stands for all.
fn member_item(node: &Node, common: &Members, span: &Span, members: &[MemberRow]) -> WorkItem {
    let row = &members[0];
    let bundled = members[1..].iter().map(|row| BundledMember {
        ordinal: row.id.ordinal(),
        name: row.name.as_str().into(),
        cursor: cursor_of(row),
    });
    WorkItem {
        task_id: span.batch.task_id,
        step_id: row.id,
        name: row.name.as_str().into(),
        template_step: span.batch.worker_template.as_str().into(),
        attempt: row.attempt,
        dispatch_seq: row.dispatch_seq,
        tries: 0,
        // One that was dispatched before is published by others, too: whoever made it ready again.
        claim_required: row.claim_required
            || row.dispatch_seq > 1
            || row.id.ordinal() < span.claim_below,
        fresh_until_ms: Some(common.fresh_until_ms),
        node: node.id,
        cursor: cursor_of(row),
        bundled: bundled.collect(),
        shared: match &span.shared {
            MemberShared::Inline(shared) => Some(Arc::clone(shared)),
            MemberShared::Unknown | MemberShared::OnRequest => None,
        },
        limited: common.limited,
    }
}

fn cursor_of(row: &MemberRow) -> Option<Box<RawValue>> {
    row.cursor.clone().and_then(|text| RawValue::from_string(text).ok())
}

fn outgoing(subject: &str, item: &WorkItem) -> Outgoing {
    let dispatch_seq = if guard_is_off(Guard::NewMessageId) { 1 } else { item.dispatch_seq };
    Outgoing {
        subject: subject.to_owned(),
        message_id: subject::message_id(item.step_id, dispatch_seq),
        // A work item is made of ids, numbers and JSON text: writing it cannot fail.
        payload: serde_json::to_vec(item).unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::{Namespace, Queue};
    use tasker_store::OpenBatch;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn members_that_were_just_written_need_not_be_read() {
        let known_since = Instant::now();
        let id = BatchId::from_uuid(Uuid::from_u128(7 << 32));
        let member = |ordinal| MemberRow {
            id: id.member(ordinal),
            name: ordinal.to_string(),
            attempt: 1,
            dispatch_seq: 1,
            cursor: None,
            claim_required: false,
        };
        let span = |from, upto, written| Span {
            batch: OpenBatch {
                id,
                task_id: TaskId::from_uuid(Uuid::nil()),
                namespace: Namespace::new("n").expect("a name"),
                queue: Queue::default(),
                priority: 0,
                worker_template: "w".into(),
                expected: 4,
                published_upto: from,
                ended: 0,
                parallelism: None,
                taken_over: false,
                from_another: false,
                written,
            },
            shared: MemberShared::Unknown,
            from,
            upto,
            claim_below: 0,
            bundle: 1,
        };
        let all = Arc::new((0..4).map(member).collect::<Vec<_>>());
        let written = || Some(Written { members: Arc::clone(&all), known_since });
        let names = |span: &Span, after| {
            let (since, its) = just_written(span, known_since + after)?;
            assert_eq!(since, known_since);
            Some(its.iter().map(|row| row.name.clone()).collect::<Vec<_>>().join(" "))
        };
        let soon = WRITTEN_FOR - Duration::from_millis(1);
        assert_eq!(names(&span(1, 3, written()), soon).as_deref(), Some("1 2"));
        assert_eq!(names(&span(1, 3, written()), WRITTEN_FOR), None);
        assert_eq!(names(&span(1, 3, None), soon), None);
        assert_eq!(names(&span(3, 5, written()), soon), None, "it has no fifth");
    }
}
