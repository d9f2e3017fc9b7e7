//! Messages that come twice, late, and out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tasker_tests::{Rule, Rules, Verdict, Way};

use super::trial::{Rounds, Trial};

/// How late, in milliseconds: up to longer than a request waits for its answer, and than the server
/// remembers the ids of messages.
const LATE: [u64; 6] = [1, 20, 200, 1_000, 3_000, 12_000];
/// Of each so many messages one comes twice and one comes late.
const EVERY: u64 = 10;

/// What was done to messages.
#[derive(Default)]
struct Mess {
    is_on: AtomicBool,
    seen: AtomicU64,
    again: AtomicU64,
    later: AtomicU64,
}

impl Mess {
    fn judge(&self, way: Way, message: &[u8]) -> Verdict {
        let verbs: [&[u8]; 2] =
            if way == Way::Up { [b"PUB ", b"HPUB "] } else { [b"MSG ", b"HMSG "] };
        let is_one = verbs.iter().any(|verb| message.starts_with(verb));
        if !is_one || !self.is_on.load(Ordering::Relaxed) {
            return Verdict::Pass;
        }
        let n = self.seen.fetch_add(1, Ordering::Relaxed);
        let late = Duration::from_millis(LATE[(n / EVERY) as usize % LATE.len()]);
        match n % EVERY {
            3 if !is_delivery(way, message) => {
                self.again.fetch_add(1, Ordering::Relaxed);
                Verdict::Again(late)
            }
            7 => {
                self.later.fetch_add(1, Ordering::Relaxed);
                Verdict::Later(late)
            }
            _ => Verdict::Pass,
        }
    }
}

/// Whether it is a message of a stream. The server counts how often it delivers one, and nothing
/// between it and a client makes two of it; what comes again is counted. All others may come from
/// anybody, as often as they like.
fn is_delivery(way: Way, message: &[u8]) -> bool {
    let end = message.iter().position(|&byte| byte == b'\r').unwrap_or(0);
    way == Way::Down && String::from_utf8_lossy(&message[..end]).contains(" $JS.ACK.")
}

fn rule(mess: &Arc<Mess>) -> Rule {
    let mess = Arc::clone(mess);
    Arc::new(move || {
        let mess = Arc::clone(&mess);
        Box::new(move |name, way, message| {
            let is_node = name.starts_with("worker") || name.starts_with("tasker-orchestrator");
            if is_node { mess.judge(way, message) } else { Verdict::Pass }
        })
    })
}

#[tokio::test]
async fn f20_messages_come_twice_and_late() -> anyhow::Result<()> {
    let rounds = Rounds { few: 5, all: 120, at_a_time: 60 };
    let mess = Arc::new(Mess::default());
    let rules = Rules { nats: rule(&mess), ..Rules::default() };
    let Some((mut trial, rounds)) = Trial::behind("F20 messages disordered", rounds, rules).await?
    else {
        return Ok(());
    };
    mess.is_on.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(rounds)).await;
    mess.is_on.store(false, Ordering::Relaxed);
    let [again, later] = [&mess.again, &mess.later].map(|n| n.load(Ordering::Relaxed));
    trial.hit(again + later);
    trial.note("came_again", again);
    trial.note("came_later", later);
    trial.finish().await?;
    ensure!(again > 0 && later > 0, "{again} again, {later} later");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_of_a_stream_are_told_from_others() {
        let check = |way, text: &str| is_delivery(way, text.as_bytes());
        assert!(check(Way::Down, "HMSG work.a 1 $JS.ACK.S.c.1.2.3.4.5 12 14\r\nx\r\n"));
        assert!(!check(Way::Down, "MSG _INBOX.a 1 4\r\n $JS.ACK.\r\n"));
        assert!(!check(Way::Up, "PUB $JS.ACK.S.c.1.2.3.4.5 4\r\n+ACK\r\n"));
    }
}
