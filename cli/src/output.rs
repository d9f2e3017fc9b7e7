//! The only place that prints. Standard output carries what was asked for, nothing else;
//! everything that is said about it goes to standard error.
//!
//! Written with `write!` and not `println!`, which would panic when the reader has gone.

use std::fmt::Display;
use std::io::{self, Write};

use clap::{Args, ValueEnum};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// The answer of the API.
    Json,
    /// One identifier a line.
    Ids,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Prints text; ends it with a line break if it has none.
pub(crate) fn print(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Says something about what happens, on standard error. Failing to say it is no failure.
pub(crate) fn note(message: &dyn Display) {
    // Nobody is left to tell if standard error is closed.
    let _unsaid = writeln!(io::stderr().lock(), "tasker: {message}");
}

/// A line of progress, on standard error.
pub(crate) fn progress(line: &dyn Display) {
    let _unsaid = writeln!(io::stderr().lock(), "{line}");
}
