//! What many dispatches have in common, parsed once and fetched once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde_json::value::RawValue;
use tasker_bus::{Bus, RequestError};
use tasker_messages::subject::Request;
use tasker_messages::{GetShared, Namespace, SharedStep, StepId, StepKind, TaskId, WorkItem, code};
use tasker_sdk::StepError;

use super::retry::BackOff;

/// A parsed part takes about so many times the memory of its text.
const BYTES_PER_TEXT_BYTE: usize = 4;
/// What an entry takes beside its part.
const ENTRY_BYTES: usize = 512;

/// Members of one batch share a key: their ids are of one family. Other steps have one
/// each, so that a step that runs anew with other results of its parents is never given old ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    task: TaskId,
    family: u128,
    template_step: Arc<str>,
}

impl Key {
    fn of(item: &WorkItem) -> Self {
        Self {
            task: item.task_id,
            family: item.step_id.family(),
            template_step: Arc::clone(&item.template_step),
        }
    }
}

type Part = Result<Arc<SharedStep>, StepError>;
type Fetch = Shared<BoxFuture<'static, Part>>;

/// The cache of a worker.
pub(crate) struct SharedParts {
    limit: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    parts: HashMap<Key, Cached>,
    fetches: HashMap<Key, Fetch>,
    bytes: usize,
    clock: u64,
}

struct Cached {
    part: Arc<SharedStep>,
    /// The text of a part that travels with each dispatch, to see that it is the same.
    text: Option<Arc<RawValue>>,
    bytes: usize,
    used: u64,
}

impl SharedParts {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, cache: Mutex::default() }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared part of a dispatch. A transport problem is not the step's fault: it is waited
    /// for, not reported.
    ///
    /// # Errors
    /// If the part cannot be read, or the orchestrator says that there is none.
    pub(crate) async fn of(&self, bus: &Bus, namespace: &Namespace, item: &WorkItem) -> Part {
        let key = Key::of(item);
        if let Some(text) = &item.shared {
            return self.inline(key, text, item.cursor.is_some());
        }
        let fetch = {
            let mut cache = self.cache();
            if let Some(part) = cache.find(&key, None) {
                return Ok(part);
            }
            let fetch = cache.fetches.entry(key.clone());
            fetch.or_insert_with(|| fetch_part(bus, namespace, item).boxed().shared()).clone()
        };
        let part = fetch.await;
        self.keep_fetched(key, &part);
        part
    }

    fn inline(&self, key: Key, text: &Arc<RawValue>, is_member: bool) -> Part {
        if is_member && let Some(part) = self.cache().find(&key, Some(text)) {
            return Ok(part);
        }
        let part = parse(text)?;
        if is_member {
            let bytes = text.get().len();
            self.cache().keep(key, &part, Some(Arc::clone(text)), bytes, self.limit);
        }
        Ok(part)
    }

    fn keep_fetched(&self, key: Key, part: &Part) {
        let mut cache = self.cache();
        // The first of those who waited keeps it.
        if cache.fetches.remove(&key).is_none() {
            return;
        }
        if let Ok(part) = part
            && part.kind == StepKind::BatchWorker
        {
            let bytes = estimate(part);
            cache.keep(key, part, None, bytes, self.limit);
        }
    }
}

impl Cache {
    fn find(&mut self, key: &Key, text: Option<&Arc<RawValue>>) -> Option<Arc<SharedStep>> {
        self.clock += 1;
        let cached = self.parts.get_mut(key)?;
        let same = match (text, &cached.text) {
            (None, _) => true,
            (Some(text), Some(known)) => text.get() == known.get(),
            (Some(_), None) => false,
        };
        cached.used = self.clock;
        same.then(|| Arc::clone(&cached.part))
    }

    fn keep(
        &mut self,
        key: Key,
        part: &Arc<SharedStep>,
        text: Option<Arc<RawValue>>,
        text_bytes: usize,
        limit: usize,
    ) {
        let bytes = text_bytes * BYTES_PER_TEXT_BYTE + ENTRY_BYTES;
        if bytes > limit {
            return;
        }
        let cached = Cached { part: Arc::clone(part), text, bytes, used: self.clock };
        if let Some(previous) = self.parts.insert(key, cached) {
            self.bytes -= previous.bytes;
        }
        self.bytes += bytes;
        if self.bytes > limit {
            self.shrink(limit / 4 * 3);
        }
    }

    /// Forgets what was used longest ago. Goes below the limit, so that it is rarely done.
    fn shrink(&mut self, goal: usize) {
        let mut by_use: Vec<_> = self.parts.iter().map(|(key, c)| (c.used, key.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= goal {
                break;
            }
            if let Some(cached) = self.parts.remove(&key) {
                self.bytes -= cached.bytes;
            }
        }
    }
}

fn parse(text: &RawValue) -> Part {
    serde_json::from_str(text.get()).map(Arc::new).map_err(|error| {
        let message = format!("what the step shares with others cannot be read: {error}");
        StepError::permanent(code::INTERNAL, message)
    })
}

/// The size of a part as text.
fn estimate(part: &SharedStep) -> usize {
    serde_json::to_vec(part).map_or(usize::MAX / BYTES_PER_TEXT_BYTE / 2, |text| text.len())
}

fn fetch_part(
    bus: &Bus,
    namespace: &Namespace,
    item: &WorkItem,
) -> impl Future<Output = Part> + Send + use<> {
    let (bus, subject) = (bus.clone(), Request::Shared.subject(namespace));
    let request =
        GetShared { task_id: item.task_id, template_step: item.template_step.to_string() };
    let step: StepId = item.step_id;
    async move {
        metrics::counter!("tasker_worker_shared_fetches_total").increment(1);
        let timeout = bus.request_timeout();
        let mut back_off = BackOff::of_requests();
        loop {
            let ask = || bus.request(subject.clone(), &request, timeout);
            match bus.ask_each_connection(ask).await {
                Ok(part) => return Ok(Arc::<SharedStep>::new(part)),
                Err(RequestError::Refused(refusal)) if !refusal.retryable => {
                    return Err(StepError::permanent(refusal.code, refusal.message));
                }
                Err(RequestError::Malformed { source, .. }) => {
                    let message =
                        format!("what the step shares with others cannot be read: {source}");
                    return Err(StepError::permanent(code::INTERNAL, message));
                }
                Err(error) => {
                    tracing::debug!(step.id = %step, %error, "shared part: asking again");
                    back_off.pause().await;
                }
            }
        }
    }
}
