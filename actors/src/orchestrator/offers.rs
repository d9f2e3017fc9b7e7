//! Which callables live workers offer, as their heartbeats tell. Shared by whoever wants to warn; what
//! is not known yet is only not known.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use tasker_messages::Queue;
use tasker_workflow::{Handler, StepTemplate, Template};

/// Callables by queue, of all namespaces: a worker that serves all namespaces is heard in one only
/// when there is work.
#[derive(Debug, Default)]
pub struct Offers(RwLock<HashMap<Queue, HashSet<String>>>);

/// Most warnings about one template.
const MAX_WARNINGS: usize = 20;

impl Offers {
    pub(crate) fn replace(&self, offers: HashMap<Queue, HashSet<String>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = offers;
    }

    /// Warns of steps that no live worker could run.
    pub(crate) fn warnings(&self, template: &Template) -> Vec<String> {
        let offers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let lacking =
            template.steps.iter().map(|step| (step, &step.handler)).filter(|(_, handler)| {
                !offers.get(&handler.queue).is_some_and(|known| known.contains(&handler.callable))
            });
        let warning = |(step, handler): (&StepTemplate, &Handler)| {
            format!(
                "no live worker of the queue `{}` is known to have `{}`: step `{}` waits until one has",
                handler.queue, handler.callable, step.name
            )
        };
        lacking.take(MAX_WARNINGS).map(warning).collect()
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
            - {name: c, handler: {callable: y}}\n";
        let template = Template::parse(source.as_bytes()).expect("a template");
        let offers = Offers::default();
        assert_eq!(offers.warnings(&template).len(), 3);
        let q = Queue::new("q").expect("a queue");
        let one = |callable: &str| HashSet::from([callable.to_owned()]);
        offers.replace([(Queue::default(), one("x")), (q, one("y"))].into());
        let warnings = offers.warnings(&template);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].contains("queue `q`") && warnings[0].contains("step `b`"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("`y`") && warnings[1].contains("step `c`"), "{warnings:?}");
    }
}
