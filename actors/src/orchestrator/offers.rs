//! Which callables live workers offer, as their heartbeats tell. Shared by whoever wants to warn; what
//! is not known yet is only not known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use tasker_messages::{Introduction, Queue, WorkerId};
use tasker_workflow::{Handler, Template};

/// By queue, of all namespaces: a worker that serves all namespaces is heard in one only when there is
/// work. Before that it introduces itself.
#[derive(Debug, Default)]
pub struct Offers {
    heard: RwLock<HashMap<Queue, Offered>>,
    introduced: RwLock<HashMap<WorkerId, Introduced>>,
}

/// What a worker has said of itself.
#[derive(Debug)]
struct Introduced {
    queues: Vec<Queue>,
    offered: Offered,
    at: Instant,
}

/// What the live workers of a queue have.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    pub(crate) callables: HashSet<String>,
    /// Whether one of them has resolvers, which may find any.
    pub(crate) resolves: bool,
}

impl Offered {
    fn has(&self, callable: &str) -> bool {
        self.resolves || self.callables.contains(callable)
    }
}

/// How long an introduction counts. It is repeated every half second to five seconds.
const INTRODUCED_FOR: Duration = Duration::from_secs(15);
/// Most workers whose introductions are kept, and callables of each: of the others it is not known whether
/// somebody has them.
const MAX_INTRODUCED: usize = 1_000;
const MAX_CALLABLES: usize = 1_000;
/// Most warnings about one template.
const MAX_WARNINGS: usize = 20;

impl Offers {
    pub(crate) fn replace(&self, offers: HashMap<Queue, Offered>) {
        *self.heard.write().unwrap_or_else(PoisonError::into_inner) = offers;
    }

    /// A worker says what it has, though it is not heard anywhere yet.
    pub(crate) fn introduce(&self, introduction: Introduction) {
        let mut introduced = self.introduced.write().unwrap_or_else(PoisonError::into_inner);
        introduced.retain(|_, worker| worker.at.elapsed() < INTRODUCED_FOR);
        let Introduction { worker, queues, callables, resolves } = introduction;
        if introduced.len() < MAX_INTRODUCED || introduced.contains_key(&worker) {
            let callables = callables.into_iter().take(MAX_CALLABLES).collect();
            let offered = Offered { callables, resolves };
            introduced.insert(worker, Introduced { queues, offered, at: Instant::now() });
        }
    }

    fn is_introduced(&self, queue: &Queue, callable: &str) -> bool {
        let introduced = self.introduced.read().unwrap_or_else(PoisonError::into_inner);
        introduced.values().any(|worker| {
            let is_there = worker.at.elapsed() < INTRODUCED_FOR;
            is_there && worker.offered.has(callable) && worker.queues.contains(queue)
        })
    }

    /// Whether a live worker of the queue says that it has the callable; what resolvers find is not
    /// known.
    pub(crate) fn lists(&self, queue: &Queue, callable: &str) -> bool {
        let offers = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        offers.get(queue).is_some_and(|offered| offered.callables.contains(callable))
    }

    /// Warns of callables that no live worker is known to have, once each.
    pub(crate) fn warnings(&self, template: &Template) -> Vec<String> {
        self.warnings_beside(&HashMap::new(), template)
    }

    /// The same, where it is known of some workers from elsewhere what they have.
    pub(crate) fn warnings_beside(
        &self,
        met: &HashMap<Queue, Offered>,
        template: &Template,
    ) -> Vec<String> {
        let offers = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        let mut lacking: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for step in &template.steps {
            let Handler { queue, callable, .. } = &step.handler;
            let mut known = [offers.get(queue), met.get(queue)].into_iter().flatten();
            let is_known = known.any(|offered| offered.has(callable));
            if !is_known && !self.is_introduced(queue, callable) {
                lacking.entry((queue.as_str(), callable)).or_default().push(step.name.as_str());
            }
        }
        let warning = |((queue, callable), steps): ((&str, &str), Vec<&str>)| {
            let more = match steps.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            format!(
                "no live worker of the queue `{queue}` is known to have `{callable}`: step `{}`{more} \
                 waits until one has",
                steps[0]
            )
        };
        lacking.into_iter().take(MAX_WARNINGS).map(warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_is_named() {
        let source = "name: t\nnamespace_name: n\nversion: 1.0.0\nsteps:\n\
            - {name: a, handler: {callable: x}}\n\
            - {name: b, handler: {callable: x, queue: q}}\n\
            - {name: c, handler: {callable: y}}\n\
            - {name: d, handler: {callable: y}}\n";
        let template = Template::parse(source.as_bytes()).expect("a template");
        let offers = Offers::default();
        assert_eq!(offers.warnings(&template).len(), 3);
        let q = Queue::new("q").expect("a queue");
        let one = |callable: &str, resolves| Offered {
            callables: [callable.to_owned()].into(),
            resolves,
        };
        offers.replace([(Queue::default(), one("x", false)), (q.clone(), one("y", false))].into());
        let warnings = offers.warnings(&template);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("`y`: step `c` and 1 more waits"), "{warnings:?}");
        assert!(warnings[1].contains("queue `q`") && warnings[1].contains("step `b` waits"));
        assert!(offers.lists(&q, "y") && !offers.lists(&q, "x"));
        let met = [(Queue::default(), one("y", false))].into();
        assert_eq!(offers.warnings_beside(&met, &template).len(), 1);
        // Nobody knows what a resolver finds.
        offers.replace([(Queue::default(), one("x", true)), (q, one("y", true))].into());
        assert_eq!(offers.warnings(&template), [""; 0]);
        assert!(!offers.lists(&Queue::default(), "y"));
    }

    #[test]
    fn who_is_not_heard_yet_has_introduced_itself() {
        let source = "name: t\nnamespace_name: n\nversion: 1.0.0\nsteps:\n\
            - {name: a, handler: {callable: x}}\n\
            - {name: b, handler: {callable: x, queue: q}}\n\
            - {name: c, handler: {callable: y}}\n";
        let template = Template::parse(source.as_bytes()).expect("a template");
        let offers = Offers::default();
        let introduce = |worker: u128, callable: &str, resolves| {
            offers.introduce(Introduction {
                worker: WorkerId::from_uuid(uuid::Uuid::from_u128(worker)),
                queues: vec![Queue::default()],
                callables: vec![callable.to_owned()],
                resolves,
            });
        };
        introduce(1, "x", false);
        let warnings = offers.warnings(&template);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("`y`") && warnings[1].contains("queue `q`"), "{warnings:?}");
        assert!(!offers.lists(&Queue::default(), "x"), "nobody serves it now");
        introduce(1, "z", false);
        assert_eq!(offers.warnings(&template).len(), 3, "the last word counts");
        introduce(2, "z", true);
        assert_eq!(offers.warnings(&template).len(), 1);
        let workers = 3..2 * MAX_INTRODUCED as u128;
        workers.for_each(|worker| introduce(worker, "x", false));
        let introduced = offers.introduced.read().expect("no panic");
        assert_eq!(introduced.len(), MAX_INTRODUCED);
    }
}
