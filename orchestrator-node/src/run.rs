use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tasker_actors::orchestrator::{Orchestrator, StartError};
use tasker_config::{Auth, Settings};
use tasker_messages::code;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::http;

/// How an orchestrator runs, beside its settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Shares the HTTP address with other orchestrators of this machine (`SO_REUSEPORT`), so that
    /// the address survives the death of one of them.
    pub reuse_port: bool,
}

/// Why an orchestrator ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The HTTP address is not usable.
    #[error("http.listen = `{address}`: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Whoever reaches the HTTP address could do everything.
    #[error(
        "http.listen = `{address}` is not a loopback address, where api.auth = `none` would let \
         everybody in: set it to `tokens`, and make one with `tasker token create` [{code}]",
        code = code::API_UNPROTECTED
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
    /// Database, bus or actors.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process's signals or sockets.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(String),
    /// An actor died more often than its budget allows.
    #[error("an actor died too often; see the log for its errors")]
    Exhausted,
}

/// How long requests that are being answered may take when the process stops.
const HTTP_DRAIN: Duration = Duration::from_secs(3);
/// Listen backlog.
const BACKLOG: u32 = 1024;

/// Runs an orchestrator until SIGINT or SIGTERM, then drains it.
///
/// # Errors
/// If it cannot start, or an actor used up its restart budget.
pub async fn run(settings: Settings, options: Options) -> Result<(), RunError> {
    let listener = listen(&settings.http.listen, settings.api.auth, options)?;
    let metrics = install_metrics()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let orchestrator = Orchestrator::start(Arc::new(settings)).await?;
    let mut exhausted = orchestrator.exhausted();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let app = http::router(orchestrator.node().clone(), orchestrator.links().clone(), metrics);
    let address = listener.local_addr()?;
    let server = tokio::spawn(http::serve(listener, app, stopped));
    tracing::info!(%address, node = %orchestrator.node().id, "orchestrator ready");

    let ended_well = tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        _ = exhausted.wait_for(|is| *is) => false,
    };
    stop.send_replace(true);
    if tokio::time::timeout(HTTP_DRAIN, server).await.is_err() {
        tracing::warn!("some requests were not answered in time");
    }
    orchestrator.stop().await;
    if ended_well { Ok(()) } else { Err(RunError::Exhausted) }
}

fn install_metrics() -> Result<PrometheusHandle, RunError> {
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|e| RunError::Metrics(e.to_string()))?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(metrics)
}

/// Opens the HTTP port. Without tokens only on loopback: whoever reaches the port may do everything.
fn listen(text: &str, auth: Auth, options: Options) -> Result<TcpListener, RunError> {
    let wrong = |reason: String| RunError::Address { address: text.to_owned(), reason };
    let address: SocketAddr = text
        .parse()
        .map_err(|_| wrong("must be an address and port such as 127.0.0.1:8080".into()))?;
    if !address.ip().is_loopback() {
        if auth == Auth::None {
            return Err(RunError::Unprotected { address });
        }
        tracing::warn!(%address, "tokens travel in clear text beyond this machine; let a proxy with TLS stand in front");
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(options.reuse_port)?;
    socket.bind(address).map_err(|e| wrong(e.to_string()))?;
    Ok(socket.listen(BACKLOG)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_tokens_only_loopback() {
        let listen = |address, auth| listen(address, auth, Options::default());
        for beyond in ["0.0.0.0:0", "[::]:0", "10.255.255.1:0"] {
            let error = listen(beyond, Auth::None).expect_err(beyond);
            assert!(matches!(error, RunError::Unprotected { .. }), "{error}");
            assert!(error.to_string().contains(code::API_UNPROTECTED), "{error}");
        }
        for bad in ["localhost:80", "127.0.0.1", ""] {
            let error = listen(bad, Auth::Tokens).expect_err(bad);
            assert!(matches!(error, RunError::Address { .. }), "{error}");
        }
        for auth in [Auth::Tokens, Auth::None] {
            assert!(listen("127.0.0.1:0", auth).is_ok());
        }
        assert!(listen("0.0.0.0:0", Auth::Tokens).is_ok());
    }

    #[tokio::test]
    async fn a_port_is_shared_on_request_only() {
        let shared = Options { reuse_port: true };
        let first = listen("127.0.0.1:0", Auth::None, shared).expect("a free port");
        let address = first.local_addr().expect("bound").to_string();
        assert!(listen(&address, Auth::None, Options::default()).is_err());
        assert!(listen(&address, Auth::None, shared).is_ok());
    }
}
