//! `tasker bus users`: what nats-server is to allow whom.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use tasker_messages::{Namespace, Queue};

use crate::exit::Exit;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum BusCommand {
    /// Print the users of nats-server, as the part of its configuration that config/nats/nats.conf includes
    Users(BusUsersArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BusUsersArgs {
    /// A namespace that gets a worker and a submitter of its own; may be given more than once
    /// [default: one of each for all namespaces]
    #[arg(long, value_name = "NAME")]
    namespace: Vec<Namespace>,
    /// A queue that the workers of each namespace pull; may be given more than once [default: default]
    #[arg(long, value_name = "NAME", requires = "namespace")]
    queue: Vec<Queue>,
}

pub(crate) fn run(command: BusCommand) -> anyhow::Result<()> {
    let BusCommand::Users(args) = command;
    Ok(output::print(&text(args)?)?)
}

fn text(args: BusUsersArgs) -> Result<String, Exit> {
    let queues = if args.queue.is_empty() { vec![Queue::default()] } else { args.queue };
    let users = tasker_bus::users(&args.namespace, &queues);
    let mut variables = BTreeMap::new();
    for user in &users {
        if let Some(other) = variables.insert(&user.password_variable, &user.name) {
            let message = format!(
                "the passwords of {other} and {} would be the same variable {}: print the users of \
                 these namespaces one by one, and change the name of one variable",
                user.name, user.password_variable
            );
            return Err(Exit::usage(message));
        }
    }
    Ok(tasker_bus::server_users(&users))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_variable_of_its_own() {
        let text = |names: &[&str]| {
            let namespace = names.iter().map(|name| name.parse().expect("a name")).collect();
            text(BusUsersArgs { namespace, queue: Vec::new() })
        };
        let shown = text(&["a-b", "c"]).expect("different");
        for user in ["worker-a-b", "submitter-c", "orchestrator", "monitor"] {
            assert!(shown.contains(&format!("user: \"{user}\"")), "{shown}");
        }
        assert!(shown.contains("$TASKER_NATS_WORKER_A_B_PASSWORD"), "{shown}");
        assert!(
            shown.contains("$JS.API.CONSUMER.MSG.NEXT.TASKER_WORK.work_c_Q_default"),
            "{shown}"
        );
        assert!(text(&["a-b", "a_b"]).is_err());
        assert!(text(&["a", "a"]).is_err());
    }
}
