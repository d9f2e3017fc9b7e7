//! The users of nats-server: for each kind of program exactly what it sends and listens to.
//!
//! A user that may publish a request to JetStream chooses where the answer goes, so the lists below are
//! also lists of what the server can be made to say; see `SECURITY.md`.

use std::fmt::Write as _;

use tasker_messages::access::{Access, Scope};
use tasker_messages::{Namespace, Queue, subject};

/// A user of nats-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusUser {
    /// Its name, and the second token of its inboxes.
    pub name: String,
    /// The variable in the environment of nats-server that holds its password, or the bcrypt of it.
    pub password_variable: String,
    /// What it may publish to. Everything else is refused.
    pub publish: Vec<String>,
    /// What it may subscribe to. Everything else is refused.
    pub subscribe: Vec<String>,
}

/// Users for a deployment: `orchestrator`, `monitor`, and `worker` and `submitter` for all namespaces. If
/// namespaces are named, the last two are `worker-<namespace>` and `submitter-<namespace>` for each, and
/// those workers pull these queues.
pub fn users(namespaces: &[Namespace], queues: &[Queue]) -> Vec<BusUser> {
    let mut users = vec![orchestrator()];
    let scopes: Vec<Scope<'_>> = match namespaces {
        [] => vec![Scope::All],
        named => named.iter().map(Scope::One).collect(),
    };
    users.extend(scopes.iter().map(|scope| worker(*scope, queues)));
    users.extend(scopes.iter().map(|scope| submitter(*scope)));
    users.push(monitor());
    users
}

const HEAD: &str = "\
# The users of Tasker in nats-server, each with exactly what its kind of program says and hears. Written by
# `tasker bus users`, not by hand. Passwords, or their bcrypt, come from the environment of nats-server.

";

/// The users as a part of the configuration of nats-server.
pub fn server_users(users: &[BusUser]) -> String {
    let mut text = format!("{HEAD}authorization {{\n  users: [\n");
    for BusUser { name, password_variable, publish, subscribe } in users {
        let list = |subjects: &[String]| -> String {
            subjects.iter().map(|subject| format!("          \"{subject}\"\n")).collect()
        };
        let (publish, subscribe) = (list(publish), list(subscribe));
        // Writing to a string cannot fail.
        let _never = write!(
            text,
            "    {{\n      user: \"{name}\"\n      password: ${password_variable}\n      \
             permissions: {{\n        publish: [\n{publish}        ]\n        subscribe: [\n\
             {subscribe}        ]\n      }}\n    }}\n"
        );
    }
    text.push_str("  ]\n}\n");
    text
}

fn user(role: &str, scope: Option<&Namespace>, access: Access, api: Vec<String>) -> BusUser {
    let name = scope.map_or_else(|| role.to_owned(), |namespace| format!("{role}-{namespace}"));
    let variable = name.to_uppercase().replace('-', "_");
    let Access { sends: mut publish, hears: mut subscribe } = access;
    publish.extend(api);
    subscribe.push(format!("{}.>", subject::inbox(&name)));
    BusUser {
        password_variable: format!("TASKER_NATS_{variable}_PASSWORD"),
        name,
        publish,
        subscribe,
    }
}

const STREAMS: [&str; 3] = [subject::WORK_STREAM, subject::CONTROL_STREAM, subject::SUBMIT_STREAM];

/// Creates streams and consumers and deletes consumers of work; no stream is purged or deleted.
fn orchestrator() -> BusUser {
    let mut api = Vec::new();
    for stream in STREAMS {
        api.extend(
            ["INFO", "CREATE", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.{stream}")),
        );
        api.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
    }
    let work = subject::WORK_STREAM;
    api.extend(["INFO", "DELETE", "PAUSE"].map(|verb| format!("$JS.API.CONSUMER.{verb}.{work}.*")));
    api.push(format!("$JS.API.CONSUMER.NAMES.{work}"));
    api.extend(pulls(subject::CONTROL_STREAM, subject::BATCH_DURABLE));
    api.extend(pulls(subject::SUBMIT_STREAM, subject::SUBMIT_DURABLE));
    user("orchestrator", None, Access::orchestrator(), api)
}

fn worker(scope: Scope<'_>, queues: &[Queue]) -> BusUser {
    let work = subject::WORK_STREAM;
    let (namespace, durables) = match scope {
        Scope::All => (None, vec!["*".to_owned()]),
        Scope::One(namespace) => {
            let durable = |queue| subject::work_durable(namespace, queue);
            (Some(namespace), queues.iter().map(durable).collect())
        }
    };
    let mut api = vec![format!("$JS.API.STREAM.INFO.{work}")];
    for durable in &durables {
        api.push(format!("$JS.API.CONSUMER.INFO.{work}.{durable}"));
        api.extend(pulls(work, durable));
    }
    let mut worker = user("worker", namespace, Access::worker(scope, queues), api);
    // A pull is ended by messages to the inbox of one's own.
    worker.publish.push(format!("{}.>", subject::inbox(&worker.name)));
    worker
}

fn submitter(scope: Scope<'_>) -> BusUser {
    let namespace = match scope {
        Scope::All => None,
        Scope::One(namespace) => Some(namespace),
    };
    user("submitter", namespace, Access::submitter(scope), Vec::new())
}

fn monitor() -> BusUser {
    let of_stream = |stream: &&str| {
        [
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.CONSUMER.NAMES.{stream}"),
            format!("$JS.API.CONSUMER.LIST.{stream}"),
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
        ]
    };
    user("monitor", None, Access::monitor(), STREAMS.iter().flat_map(of_stream).collect())
}

/// To pull from a durable and to acknowledge its messages, in both forms: the second one has a domain and
/// an account before the stream.
fn pulls(stream: &str, durable: &str) -> [String; 3] {
    [
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
        format!("$JS.ACK.{stream}.{durable}.>"),
        format!("$JS.ACK.*.*.{stream}.{durable}.>"),
    ]
}
