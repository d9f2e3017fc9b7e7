//! Who sends what on core NATS, and who listens to it: what the users of nats-server may do.

use crate::subject::{self, Request};
use crate::{Namespace, Queue};

/// The namespaces that a program deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every one.
    All,
    /// One.
    One(&'a Namespace),
}

impl Scope<'_> {
    fn token(&self) -> &str {
        match self {
            Scope::All => "*",
            Scope::One(namespace) => namespace.as_ref(),
        }
    }

    fn of(&self, prefix: &str) -> String {
        format!("{prefix}.{}", self.token())
    }
}

/// What one kind of program sends to and listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Subjects, perhaps with wildcards.
    pub sends: Vec<String>,
    /// Subjects, perhaps with wildcards.
    pub hears: Vec<String>,
}

/// Who makes a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Submitter,
    Worker,
}

const fn asker(request: Request) -> Asker {
    match request {
        Request::Submit | Request::TaskGet | Request::TaskWait => Asker::Submitter,
        Request::Outcome
        | Request::Claim
        | Request::Shared
        | Request::Result
        | Request::Members
        | Request::AppendCursors
        | Request::Release
        | Request::SaveCheckpoint
        | Request::GetCheckpoint => Asker::Worker,
    }
}

fn requests(scope: Scope<'_>, of: Asker) -> impl Iterator<Item = String> {
    let asked = Request::ALL.iter().filter(move |request| asker(**request) == of);
    asked.map(move |request| scope.of(request.prefix()))
}

impl Access {
    /// An orchestrator: it serves every namespace.
    pub fn orchestrator() -> Self {
        let all = Scope::All;
        let mut hears: Vec<String> = Request::ALL.iter().map(|r| r.wildcard()).collect();
        hears.push(format!("{}.at.*", Request::Outcome.wildcard()));
        hears.push(format!("{}.*", all.of(subject::PLANNED)));
        hears.extend(
            [subject::BEATS, subject::TASK_EVENTS, subject::QUEUES_LIST].map(str::to_owned),
        );
        let sends = [
            subject::WORK_SUBJECTS,
            subject::CONTROL_SUBJECTS,
            subject::HINTS,
            subject::EVENTS,
            subject::QUEUES_CHANGED,
            // Answers.
            subject::INBOXES,
        ];
        let mut sends = sends.map(str::to_owned).to_vec();
        sends.push(format!("{}.*", all.of(subject::PLAN)));
        Self { sends, hears }
    }

    /// A worker that pulls these queues; of all namespaces it pulls any queue, and asks which there are.
    pub fn worker(scope: Scope<'_>, queues: &[Queue]) -> Self {
        let mut sends: Vec<String> = requests(scope, Asker::Worker).collect();
        sends.push(format!("{}.at.*", scope.of(Request::Outcome.prefix())));
        sends.push(scope.of(subject::BEAT));
        sends.push(format!("{}.*", scope.of(subject::PLANNED)));
        let mut hears = vec![scope.of(subject::HINT), subject::QUEUES_CHANGED.to_owned()];
        let plan = scope.of(subject::PLAN);
        match scope {
            Scope::All => {
                sends.push(subject::QUEUES_LIST.to_owned());
                hears.push(format!("{plan}.*"));
            }
            Scope::One(_) => hears.extend(queues.iter().map(|queue| format!("{plan}.{queue}"))),
        }
        Self { sends, hears }
    }

    /// A program that submits tasks and waits for them; it may hear what becomes of them.
    pub fn submitter(scope: Scope<'_>) -> Self {
        let mut sends: Vec<String> = requests(scope, Asker::Submitter).collect();
        sends.push(scope.of(subject::ENQUEUE));
        Self { sends, hears: vec![format!("{}.>", scope.of(subject::EVENT))] }
    }

    /// A program that watches: heartbeats and ends of tasks, nothing of what is in them.
    pub fn monitor() -> Self {
        let hears = [subject::BEATS, subject::TASK_EVENTS].map(str::to_owned).to_vec();
        Self { sends: Vec::new(), hears }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sends_beyond_its_namespace() {
        let namespace: Namespace = "csv".parse().expect("a token");
        let queues = ["default".parse().expect("a token"), "gpu".parse().expect("a token")];
        let scope = Scope::One(&namespace);
        let worker = Access::worker(scope, &queues);
        for access in [&worker, &Access::submitter(scope)] {
            for subject in access.sends.iter().chain(&access.hears) {
                let of_all = subject == subject::QUEUES_CHANGED;
                assert!(subject.split('.').any(|token| token == "csv") || of_all, "{subject}");
            }
        }
        assert!(worker.sends.contains(&Request::Claim.subject(&namespace)));
        assert!(!worker.sends.contains(&Request::Submit.subject(&namespace)));
        for queue in &queues {
            assert!(worker.hears.contains(&subject::plan(&namespace, queue)));
        }
        assert_eq!(Access::monitor().sends, Vec::<String>::new());
    }
}
