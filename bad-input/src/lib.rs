//! Bad input: corpora of what may come from outside, and what is to be answered.
//!
//! A corpus is a text file of cases, one a line ([`cases`]); what is too large to be committed is made
//! from a recipe ([`make`]). The tests of this crate replay all of them, and the bodies of the fuzz
//! targets in `fuzz/` are functions here, so that their seeds are replayed without a fuzzer.

mod case;
mod document;
mod fuzz;
mod make;
mod message;
mod result;

pub use case::{Case, cases, folder, shown, shown_all, template};
pub use document::{Problems, read_body};
pub use fuzz::Target;
pub use make::{content, make};
pub use message::{Envelope, read_envelope, read_message};
pub use result::judge_result;
