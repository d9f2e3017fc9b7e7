use std::cell::{Cell, RefCell};

use tasker_messages::{Problem, StepName, nearest};

/// Most problems that one document reports; a hostile one could have a hundred thousand.
const MOST: usize = 200;
/// Most patterns in all schemas of one document.
const MAX_PATTERNS: usize = 256;
/// Each suggestion compares a name with all steps, so a hostile document gets only a few.
const MAX_SUGGESTIONS: u32 = 20;

/// What is wrong with a document, gathered while it is read.
#[derive(Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    left_out: RefCell<u32>,
    /// Patterns in the schemas that were read: each takes memory as long as the template does.
    patterns: Cell<usize>,
    /// Misspelt names of steps for which others were looked at.
    suggestions: Cell<u32>,
}

impl Problems {
    pub(super) fn push(&self, problem: Problem) {
        let mut found = self.found.borrow_mut();
        if found.len() < MOST {
            found.push(problem);
        } else {
            *self.left_out.borrow_mut() += 1;
        }
    }

    /// How many more patterns the document may have.
    pub(super) fn patterns_left(&self) -> usize {
        MAX_PATTERNS - self.patterns.get().min(MAX_PATTERNS)
    }

    pub(super) fn count_patterns(&self, more: usize) {
        self.patterns.set(self.patterns.get() + more);
    }

    /// The end of a message about a step that does not exist: a step that may be meant.
    pub(super) fn suggestion<'a>(
        &self,
        name: &str,
        steps: impl IntoIterator<Item = &'a str>,
    ) -> String {
        let made = self.suggestions.get();
        self.suggestions.set(made + 1);
        let near = if made < MAX_SUGGESTIONS { nearest(name, steps) } else { None };
        // A name that is wrong itself helps nobody, and may hold anything.
        let near = near.filter(|near| StepName::new(near).is_ok());
        near.map_or(String::new(), |near| format!("; did you mean `{near}`?"))
    }

    /// How many there are so far.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All problems in the order of the document's lines.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.line);
        let left_out = self.left_out.into_inner();
        if let Some(last) = found.last_mut().filter(|_| left_out > 0) {
            last.message.push_str(&format!(" (and {left_out} more problems that are not shown)"));
        }
        found
    }
}

/// A text from a document as an error may show it: short and without control characters.
pub(super) fn shown(text: &str) -> String {
    let head: String = text.chars().take(60).collect();
    let tail = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{tail}")
}
