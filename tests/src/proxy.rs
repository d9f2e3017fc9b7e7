//! What stands between the nodes of a cluster and a server, and does to their connections what a bad
//! network does.

mod connection;
mod frames;

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use connection::Connection;
pub use frames::{Protocol, Way};

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is swallowed, and the connection goes on without it.
    Drop,
    /// It goes on now, and again after a time.
    Again(Duration),
    /// It goes on only after a time, behind others that came later.
    Later(Duration),
    /// The connection is reset on both sides. What was read together with the message, before it, is
    /// lost as well.
    Cut,
}

/// Judges each message of one connection, by the name that its client has given itself.
pub type Judge = Box<dyn FnMut(&str, Way, &[u8]) -> Verdict + Send>;
/// Makes a judge for each new connection.
pub type Rule = Arc<dyn Fn() -> Judge + Send + Sync>;

/// A rule that lets everything pass.
pub fn no_rule() -> Rule {
    Arc::new(|| Box::new(|_, _, _| Verdict::Pass))
}

/// What all connections of some clients go through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// How the names of these clients begin; those of all do with nothing.
    pub whom: &'static str,
    /// Nothing goes on to the server; what was sent meanwhile follows when this has passed, as after a
    /// partition that was shorter than the patience of TCP.
    pub hold_up: bool,
    /// Nothing goes on to the client.
    pub hold_down: bool,
    /// New connections are reset, whosever they are.
    pub refuse: bool,
    /// Before everything that goes on.
    pub delay: Duration,
}

/// A proxy on loopback. It ends with this value.
pub struct Proxy {
    shared: Arc<Shared>,
    /// Its own: what it does is not to depend on what a test waits for.
    runtime: Option<Runtime>,
}

struct Shared {
    protocol: Protocol,
    target: u16,
    rule: Rule,
    weather: watch::Sender<Weather>,
    connections: Mutex<Vec<Weak<Connection>>>,
}

impl Proxy {
    /// Forwards to a port of loopback what comes to the one that `port` ends with.
    ///
    /// # Errors
    /// If there are no resources for another thread.
    pub fn start(
        protocol: Protocol,
        target: u16,
        rule: Rule,
        port: impl Future<Output = u16> + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()?;
        let (weather, _) = watch::channel(Weather::default());
        let shared =
            Arc::new(Shared { protocol, target, rule, weather, connections: Mutex::default() });
        let listening = Arc::clone(&shared);
        runtime.spawn(async move {
            // A cluster that cannot reach its servers does not start, and shows it.
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port.await)).await {
                listening.listen(listener).await;
            }
        });
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// From now on, until something else is said.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// From now on nothing is held, delayed or refused.
    pub fn clear(&self) {
        self.set(Weather::default());
    }

    /// Resets the connections of the clients whose names begin so, and returns how many there were.
    pub fn cut(&self, whom: &str) -> u64 {
        let of = self.connections_of(whom);
        of.iter().for_each(|connection| connection.cut());
        of.len() as u64
    }

    /// How many clients whose names begin so are connected.
    pub fn count(&self, whom: &str) -> u64 {
        self.connections_of(whom).len() as u64
    }

    fn connections_of(&self, whom: &str) -> Vec<Arc<Connection>> {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let living = connections.iter().filter_map(Weak::upgrade);
        living.filter(|connection| connection.name().starts_with(whom)).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("target", &self.shared.target).finish_non_exhaustive()
    }
}

impl Shared {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            // A client that was gone before it was accepted is no reason to stop.
            let Ok((client, _)) = listener.accept().await else { continue };
            if self.weather.borrow().refuse {
                connection::reset(&client);
                continue;
            }
            let connection = Arc::new(Connection::new(Arc::clone(&self)));
            let mut all = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(&connection));
            drop(all);
            tokio::spawn(connection.carry(client));
        }
    }
}

#[cfg(test)]
mod tests;
