//! One connection of a client, and that to the server which belongs to it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::frames::{self, Frames};
use super::{Judge, Shared, Verdict, Way, Weather};

/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

pub(super) struct Connection {
    shared: Arc<Shared>,
    judge: Mutex<Judge>,
    /// As the client has told it; empty until then.
    name: Mutex<Arc<str>>,
    /// Bytes that are not understood and only go on: of a client that asks for encryption. Tasker's
    /// own do not.
    is_opaque: AtomicBool,
    cut: Notify,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// One side has closed it, and the other one hears of it in an orderly way.
    Closed,
    /// Both sides are told that the other one is no more.
    Reset,
}

/// Messages that go on later.
type Late = FuturesUnordered<BoxFuture<'static, Vec<u8>>>;

/// Closes it without a good-bye.
pub(super) fn reset(stream: &TcpStream) {
    // One that is gone already cannot be reset.
    let _gone = stream.set_zero_linger();
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            judge: Mutex::new((shared.rule)()),
            shared,
            name: Mutex::new("".into()),
            is_opaque: AtomicBool::new(false),
            cut: Notify::new(),
        }
    }

    /// Resets it.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// What its client calls itself; empty until it has said so.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Carries bytes both ways until one side ends it, or somebody here.
    pub(super) async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let target = (Ipv4Addr::LOCALHOST, self.shared.target);
        let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
        for stream in [&client, &server] {
            // Slower, and otherwise the same.
            let _gone = stream.set_nodelay(true);
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let end = tokio::select! {
            end = self.pump(Way::Up, from_client, to_server) => end,
            end = self.pump(Way::Down, from_server, to_client) => end,
            () = self.cut.notified() => End::Reset,
        };
        if end == End::Reset {
            reset(&client);
            reset(&server);
        }
    }

    async fn pump(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let (mut frames, mut late) = (Frames::new(self.shared.protocol, way), Late::new());
        let (mut chunk, mut is_first) = (vec![0; CHUNK], true);
        loop {
            let (bytes, end) = tokio::select! {
                Some(message) = late.next(), if !late.is_empty() => (message, None),
                read = from.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => (Vec::new(), Some(End::Closed)),
                    Ok(n) => {
                        frames.push(&chunk[..n]);
                        self.judged(way, &mut frames, &mut is_first, &late)
                    }
                },
            };
            if end != Some(End::Reset) {
                self.weathered(way).await;
            }
            if let Some(end) = end {
                return end;
            }
            if to.write_all(&bytes).await.is_err() {
                return End::Closed;
            }
        }
    }

    /// What of the messages that are there goes on now, and whether the connection ends.
    fn judged(
        &self,
        way: Way,
        frames: &mut Frames,
        is_first: &mut bool,
        late: &Late,
    ) -> (Vec<u8>, Option<End>) {
        let mut passed = Vec::new();
        while !self.is_opaque.load(Ordering::Relaxed) {
            let Some(message) = frames.next() else { return (passed, None) };
            if way == Way::Up {
                self.look_at(message, std::mem::take(is_first));
            }
            let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
            match judge(&self.name(), way, message) {
                Verdict::Pass => passed.extend_from_slice(message),
                Verdict::Drop => {}
                Verdict::Again(after) => {
                    passed.extend_from_slice(message);
                    late.push(sent_after(after, message));
                }
                Verdict::Later(after) => late.push(sent_after(after, message)),
                Verdict::Cut => return (Vec::new(), Some(End::Reset)),
            }
        }
        passed.extend_from_slice(frames.rest());
        (passed, None)
    }

    /// Learns who the client is.
    fn look_at(&self, message: &[u8], is_first: bool) {
        let protocol = self.shared.protocol;
        if let Some(name) = frames::name_in(protocol, is_first, message) {
            *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
        }
        if is_first && protocol == super::Protocol::Postgres {
            let is_opaque = frames::asks_for_encryption(message);
            self.is_opaque.store(is_opaque, Ordering::Relaxed);
        }
    }

    /// Waits as long as the weather demands.
    async fn weathered(&self, way: Way) {
        let name = self.name();
        let is_held = |weather: &Weather| {
            let held = if way == Way::Up { weather.hold_up } else { weather.hold_down };
            held && name.starts_with(weather.whom)
        };
        let mut weather = self.shared.weather.subscribe();
        // The sender lives as long as `shared`.
        let Ok(now) = weather.wait_for(|weather| !is_held(weather)).await.map(|now| *now) else {
            return;
        };
        if !now.delay.is_zero() && name.starts_with(now.whom) {
            tokio::time::sleep(now.delay).await;
        }
    }
}

fn sent_after(after: Duration, message: &[u8]) -> BoxFuture<'static, Vec<u8>> {
    let message = message.to_vec();
    Box::pin(async move {
        tokio::time::sleep(after).await;
        message
    })
}
