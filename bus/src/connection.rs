//! The connection: options, and what the rest of a process learns about it.

use async_nats::{Client, ConnectOptions, Event};
use std::time::Duration;
use tasker_config::Nats;
use tokio::sync::watch;

use crate::BusError;
use crate::address::{Address, Credentials};

/// What is known about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connection {
    /// Whether there is one.
    pub connected: bool,
    /// Rises with every connect and reconnect; 0 before the first.
    pub epoch: u64,
}

/// Longest pause between two attempts to reconnect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

pub(crate) async fn connect(
    settings: &Nats,
    name: &str,
) -> Result<(Client, watch::Receiver<Connection>), BusError> {
    let (state, connection) = watch::channel(Connection::default());
    let Address { servers, credentials } = Address::read(&settings.url);
    let options = match credentials {
        Some(Credentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(Credentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    let client = options
        .name(name)
        .custom_inbox_prefix(inbox_prefix(name))
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
        .connect(servers)
        .await
        .map_err(|e| BusError::Connect { source: e.into() })?;
    Ok((client, connection))
}

/// Each client has a prefix of its own, so that permissions can keep others from its answers.
fn inbox_prefix(name: &str) -> String {
    let token: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("_INBOX.{token}.{}", uuid::Uuid::now_v7().simple())
}

fn take_note(state: &watch::Sender<Connection>, event: &Event) {
    match event {
        Event::Connected => {
            let mut epoch = 0;
            state.send_modify(|connection| {
                connection.connected = true;
                connection.epoch += 1;
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
        Event::ServerError(error) => tracing::warn!(%error, "error from nats-server"),
        Event::ClientError(error) => tracing::debug!(%error, "error of the NATS client"),
        Event::LameDuckMode | Event::Draining => tracing::info!(%event, "NATS"),
    }
}
