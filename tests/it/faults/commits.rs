//! Commits of which nobody learns whether they happened: between the orchestrators and Postgres is a
//! proxy that understands just so much of the protocol as to cut connections at the worst moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tasker_tests::{Rules, Verdict, Way, until};

use super::trial::{Rounds, Trial};

/// Of each so many commits and of each so many writing statements one is lost before it is sent, and
/// one happens without an answer.
const EVERY: u64 = 12;
/// For as many as one trial wants.
const ENOUGH: Duration = Duration::from_secs(300);

/// How a transaction ends.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// By `COMMIT`.
    Commit,
    /// As a statement of its own.
    Statement,
}

/// What was done to all connections.
#[derive(Default)]
struct Cuts {
    is_on: AtomicBool,
    /// By kind: those that could have been cut.
    chances: [AtomicU64; 2],
    /// By kind: the server has answered that it is done, and nobody got the answer.
    committed: [AtomicU64; 2],
    /// The server has not got all of it.
    never_sent: AtomicU64,
}

impl Cuts {
    fn committed(&self) -> u64 {
        self.committed.iter().map(|kind| kind.load(Ordering::Relaxed)).sum()
    }
}

/// One connection, as far as its messages tell.
struct Connection {
    cuts: Arc<Cuts>,
    /// Whether they write, by their names.
    statements: HashMap<Vec<u8>, bool>,
    /// Whether the statement that was bound last writes, and was told to run.
    writes: bool,
    runs: bool,
    in_transaction: bool,
    /// Answers that the server owes.
    owed: u64,
    /// Its answer is withheld; whether it has said that it is done.
    withheld: Option<(Kind, bool)>,
}

impl Connection {
    fn new(cuts: Arc<Cuts>) -> Self {
        Self {
            cuts,
            statements: HashMap::new(),
            writes: false,
            runs: false,
            in_transaction: false,
            owed: 0,
            withheld: None,
        }
    }

    /// The types of messages are those of "Message Formats" in the manual of Postgres.
    fn judge(&mut self, way: Way, message: &[u8]) -> Verdict {
        let body = message.get(5..).unwrap_or_default();
        match (way, message[0]) {
            (Way::Up, b'P') => {
                let mut texts = body.split(|&byte| byte == 0);
                let (name, query) = (texts.next().unwrap_or_default(), texts.next());
                self.statements.insert(name.to_vec(), query.is_some_and(writes));
                Verdict::Pass
            }
            (Way::Up, b'B') => {
                let name = body.split(|&byte| byte == 0).nth(1).unwrap_or_default();
                self.writes = self.statements.get(name).is_some_and(|&writes| writes);
                Verdict::Pass
            }
            (Way::Up, b'E') => {
                self.runs = true;
                Verdict::Pass
            }
            (Way::Up, b'S') => {
                let is_all = std::mem::take(&mut self.runs) && self.writes && !self.in_transaction;
                self.asks(is_all.then_some(Kind::Statement))
            }
            (Way::Up, b'Q') => self.asks(body.starts_with(b"COMMIT").then_some(Kind::Commit)),
            (Way::Up, _) => Verdict::Pass,
            (Way::Down, kind) => self.answers(kind, body),
        }
    }

    /// The client waits for an answer now: of something that ends a transaction, perhaps.
    fn asks(&mut self, ends: Option<Kind>) -> Verdict {
        let is_first = self.owed == 0;
        self.owed += 1;
        let Some(kind) = ends.filter(|_| is_first && self.cuts.is_on.load(Ordering::Relaxed))
        else {
            return Verdict::Pass;
        };
        match self.cuts.chances[kind as usize].fetch_add(1, Ordering::Relaxed) % EVERY {
            0 => {
                self.cuts.never_sent.fetch_add(1, Ordering::Relaxed);
                Verdict::Cut
            }
            6 => {
                self.withheld = Some((kind, false));
                Verdict::Pass
            }
            _ => Verdict::Pass,
        }
    }

    fn answers(&mut self, message: u8, body: &[u8]) -> Verdict {
        let is_last = message == b'Z';
        if is_last {
            self.owed = self.owed.saturating_sub(1);
            self.in_transaction = body != b"I";
        }
        let Some((kind, is_done)) = &mut self.withheld else { return Verdict::Pass };
        if message == b'C' {
            *is_done = !body.starts_with(b"ROLLBACK");
        }
        // The server commits a single statement only after it has said what became of it; that it is
        // ready again, outside of a transaction and without an error, is the proof.
        if is_last && *is_done && !self.in_transaction {
            self.cuts.committed[*kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        if is_last || message == b'E' { Verdict::Cut } else { Verdict::Drop }
    }
}

/// Whether a statement changes rows.
fn writes(query: &[u8]) -> bool {
    let query = String::from_utf8_lossy(query).to_ascii_lowercase();
    ["insert into ", "update tasker.", "delete from "].iter().any(|verb| query.contains(verb))
}

#[tokio::test]
async fn f13_commits_are_in_doubt() -> anyhow::Result<()> {
    let rounds = Rounds { few: 60, all: 1_000, at_a_time: 250 };
    let cuts = Arc::new(Cuts::default());
    let ours = Arc::clone(&cuts);
    let postgres: tasker_tests::Rule = Arc::new(move || {
        let mut connection = Connection::new(Arc::clone(&ours));
        Box::new(move |name, way, message| match name.starts_with("tasker ") {
            true => connection.judge(way, message),
            false => Verdict::Pass,
        })
    });
    let rules = Rules { postgres, ..Rules::default() };
    let Some((mut trial, rounds)) = Trial::behind("F13 commits in doubt", rounds, rules).await?
    else {
        return Ok(());
    };
    cuts.is_on.store(true, Ordering::Relaxed);
    until("so many commits are in doubt", ENOUGH, async || Ok(cuts.committed() >= rounds)).await?;
    cuts.is_on.store(false, Ordering::Relaxed);
    trial.hit(cuts.committed());
    let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let [commits, statements] = cuts.committed.each_ref().map(number);
    trial.note("commits_in_doubt", commits);
    trial.note("statements_in_doubt", statements);
    trial.note("never_sent", number(&cuts.never_sent));
    trial.finish().await?;
    ensure!(commits > 0 && statements > 0, "{commits} commits, {statements} statements");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    /// Plays a dialogue whose first chance is taken by `nth`, and returns the last verdict.
    fn play(nth: u64, dialogue: &[(Way, u8, &[u8])]) -> (Verdict, Arc<Cuts>) {
        let cuts = Arc::new(Cuts::default());
        cuts.is_on.store(true, Ordering::Relaxed);
        for kind in &cuts.chances {
            kind.store(nth, Ordering::Relaxed);
        }
        let mut connection = Connection::new(Arc::clone(&cuts));
        let mut last = Verdict::Pass;
        for (way, kind, body) in dialogue {
            assert_ne!(last, Verdict::Cut, "it goes on");
            last = connection.judge(*way, &message(*kind, body));
        }
        (last, cuts)
    }

    const COMMIT: (Way, u8, &[u8]) = (Way::Up, b'Q', b"COMMIT\0");

    #[test]
    fn a_commit_is_cut_before_and_after() {
        let begun = [(Way::Up, b'Q', &b"BEGIN\0"[..]), (Way::Down, b'Z', b"T"), COMMIT];
        let (verdict, cuts) = play(0, &begun);
        assert_eq!((verdict, cuts.committed()), (Verdict::Cut, 0));
        let done = [(Way::Down, b'C', &b"COMMIT\0"[..]), (Way::Down, b'Z', b"I")];
        let (verdict, cuts) = play(6, &[&begun[..], &done].concat());
        assert_eq!((verdict, cuts.committed()), (Verdict::Cut, 1));
        let undone = [(Way::Down, b'C', &b"ROLLBACK\0"[..]), (Way::Down, b'Z', b"I")];
        let (verdict, cuts) = play(6, &[&begun[..], &undone].concat());
        assert_eq!((verdict, cuts.committed()), (Verdict::Cut, 0));
    }

    #[test]
    fn statements_count_that_write_and_stand_alone() {
        let run = |query: &'static [u8]| {
            [
                (Way::Up, b'P', query),
                (Way::Up, b'B', b"\0s\0"),
                (Way::Up, b'E', b""),
                (Way::Up, b'S', b""),
                (Way::Down, b'C', b"SELECT 1\0"),
                (Way::Down, b'Z', b"I"),
            ]
        };
        let writing = run(b"s\0with a as (update tasker.steps set x = 1) select 1\0");
        assert_eq!(play(6, &writing).1.committed(), 1);
        assert_eq!(play(0, &writing[..4]).0, Verdict::Cut);
        let (verdict, cuts) = play(6, &run(b"s\0select 1\0"));
        assert_eq!((verdict, cuts.committed()), (Verdict::Pass, 0));
        let begun = [(Way::Up, b'Q', &b"BEGIN\0"[..]), (Way::Down, b'Z', b"T")];
        let (verdict, cuts) = play(6, &[&begun[..], &writing[..5]].concat());
        assert_eq!((verdict, cuts.committed()), (Verdict::Pass, 0));
    }
}
