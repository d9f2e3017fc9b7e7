use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    shell: Shell,
}

/// Prints a script for a shell, for instance to
/// `~/.local/share/bash-completion/completions/tasker`.
pub(crate) fn run(args: CompletionArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tasker", &mut script);
    Ok(output::print(&String::from_utf8_lossy(&script))?)
}
