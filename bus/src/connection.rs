//! The connection: options, and what the rest of a process learns about it.

use async_nats::{Client, ConnectOptions, Event, ServerError};
use std::time::{Duration, Instant};
use tasker_config::Nats;
use tasker_messages::subject;
use tokio::sync::watch;

use crate::address::{Address, Credentials};
use crate::servers::Servers;
use crate::{BusError, credentials};

/// What is known about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connection {
    /// Whether there is one.
    pub connected: bool,
    /// Rises with every connect and reconnect; 0 before the first.
    pub epoch: u64,
    /// When it was made.
    pub since: Option<Instant>,
}

impl Connection {
    /// Whether it took the place of an earlier one less than this ago.
    pub fn replaced_another_within(&self, time: Duration) -> bool {
        self.epoch > 1 && self.since.is_some_and(|since| since.elapsed() < time)
    }
}

/// Longest pause between two attempts to reconnect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

pub(crate) async fn connect(
    settings: &Nats,
    name: &str,
) -> Result<(Client, watch::Receiver<Connection>), BusError> {
    let (state, connection) = watch::channel(Connection::default());
    let address = Address::read(&settings.url);
    let servers = Servers::read(&address, settings)?;
    let mut options = ConnectOptions::new().require_tls(servers.tls);
    if let Some(ca_file) = credentials::ca_file(settings)? {
        options = options.add_root_certificates(ca_file);
    }
    if !servers.may_learn_others {
        options = options.ignore_discovered_servers();
    }
    let mut owner = name.to_owned();
    match credentials::read(address, settings)? {
        Some(Credentials::Password { user, password }) => {
            owner.clone_from(&user);
            options = options.user_and_password(user, password);
        }
        Some(Credentials::Token(token)) => options = options.token(token),
        None => {}
    }
    let client = options
        .name(name)
        .custom_inbox_prefix(inbox_prefix(&owner))
        .retry_on_initial_connect()
        .connection_timeout(settings.connect_timeout())
        .ping_interval(settings.ping_interval())
        .request_timeout(Some(settings.request_timeout()))
        .client_capacity(settings.command_capacity)
        .subscription_capacity(settings.subscription_capacity)
        .reconnect_delay_callback(|attempts| {
            MAX_RECONNECT_DELAY
                .min(Duration::from_millis(50) * u32::try_from(attempts).unwrap_or(20))
        })
        .event_callback(move |event| {
            take_note(&state, &event);
            std::future::ready(())
        })
        .connect(servers.addresses)
        .await
        .map_err(|e| BusError::Connect { source: e.into() })?;
    Ok((client, connection))
}

/// Each client has a prefix of its own below that of its user, or of its name if it has no user, so that
/// permissions can keep others from its answers.
fn inbox_prefix(owner: &str) -> String {
    format!("{}.{}", subject::inbox(owner), uuid::Uuid::now_v7().simple())
}

fn take_note(state: &watch::Sender<Connection>, event: &Event) {
    match event {
        Event::Connected => {
            let mut epoch = 0;
            state.send_modify(|connection| {
                connection.connected = true;
                connection.epoch += 1;
                connection.since = Some(Instant::now());
                epoch = connection.epoch;
            });
            if epoch > 1 {
                metrics::counter!("tasker_bus_reconnects_total").increment(1);
                tracing::info!(epoch, "reconnected to NATS");
            }
        }
        Event::Disconnected | Event::Closed => {
            state.send_modify(|connection| connection.connected = false);
            tracing::warn!("disconnected from NATS");
        }
        Event::SlowConsumer(_) => {
            metrics::counter!("tasker_bus_slow_consumers_total").increment(1);
            tracing::error!("a subscriber is too slow: a message of NATS was dropped");
        }
        Event::ServerError(ServerError::Other(error)) if error.contains("ermissions Violation") => {
            metrics::counter!("tasker_bus_permission_violations_total").increment(1);
            tracing::error!(error, "nats-server refuses something to this user; see config/nats");
        }
        Event::ServerError(error) => tracing::warn!(%error, "error from nats-server"),
        Event::ClientError(error) => tracing::debug!(%error, "error of the NATS client"),
        Event::LameDuckMode | Event::Draining => tracing::info!(%event, "NATS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_replaces_those_before_it() {
        let made = |epoch, ago| {
            let since = Instant::now().checked_sub(Duration::from_secs(ago));
            Connection { connected: true, epoch, since }
        };
        let within = Duration::from_secs(10);
        assert!(!Connection::default().replaced_another_within(within));
        assert!(!made(1, 0).replaced_another_within(within));
        assert!(made(2, 0).replaced_another_within(within));
        assert!(made(7, 9).replaced_another_within(within));
        assert!(!made(7, 11).replaced_another_within(within));
    }
}
