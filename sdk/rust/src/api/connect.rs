use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::guard::AddressGuard;

type BoxError = Box<dyn Error + Send + Sync>;

/// No connection within the time that it may take.
#[derive(Debug)]
pub(super) struct ConnectTimedOut(Duration);

impl fmt::Display for ConnectTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {:?}", self.0)
    }
}

impl Error for ConnectTimedOut {}

/// Makes every connection of a client. Addresses are checked here, where the socket is opened: a
/// name that is asked for twice may have two answers, and only the one that is used counts.
#[derive(Clone)]
pub(super) struct Connector {
    guard: Arc<AddressGuard>,
    https: HttpsConnector<HttpConnector<GuardedResolver>>,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(guard: AddressGuard, tls: ClientConfig, limit: Duration) -> Self {
        let guard = Arc::new(guard);
        let mut http = HttpConnector::new_with_resolver(GuardedResolver(Arc::clone(&guard)));
        http.enforce_http(false);
        http.set_nodelay(true);
        // Shared among the addresses of a host, so that the first one cannot use it up.
        http.set_connect_timeout(Some(limit));
        Self { guard, https: HttpsConnector::from((http, tls)), limit }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        // Addresses in URLs are never looked up, so the resolver does not see them.
        if let Some(ip) = literal(&target)
            && let Err(refused) =
                self.guard.permitted(target.host().unwrap_or_default(), vec![(ip, 0).into()])
        {
            return Box::pin(async { Err(refused.into()) });
        }
        let (connecting, limit) = (self.https.call(target), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimedOut(limit).into()),
            }
        })
    }
}

pub(super) fn literal(target: &Uri) -> Option<IpAddr> {
    target.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Looks names up and hands on only those addresses that may be connected to.
#[derive(Clone)]
struct GuardedResolver(Arc<AddressGuard>);

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(guard.permitted(name.as_str(), found)?.into_iter())
        })
    }
}
