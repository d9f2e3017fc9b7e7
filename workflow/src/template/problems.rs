use std::cell::RefCell;

use tasker_messages::Problem;

/// Most problems that one document reports; a hostile one could have a hundred thousand.
const MOST: usize = 200;

/// What is wrong with a document, gathered while it is read.
#[derive(Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    left_out: RefCell<u32>,
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
