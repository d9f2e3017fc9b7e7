//! What stands between a request and its handler: who sends it, how many of them, and whether the
//! role is enough. Which namespaces are theirs, handlers ask the [`Caller`].

mod buckets;
mod caller;
mod tokens;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use tasker_config::Auth;
use tasker_messages::{Refusal, Role, code};
use tasker_store::{ApiToken, Store};

use self::buckets::{Buckets, Source};
pub(super) use self::caller::Caller;
use self::tokens::Tokens;
use super::problem::ApiError;

/// The gate of one orchestrator.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None` lets everybody in.
    tokens: Option<Arc<Tokens>>,
    buckets: Buckets,
}

/// Stands in front of a route that is not open.
pub(super) async fn guard(
    State(role): State<Role>,
    Extension(gate): Extension<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let admitted = gate.admit(request.headers(), address).await;
    let caller = admitted.and_then(|caller| {
        caller.check_role(role)?;
        Ok(caller)
    });
    let caller = caller.inspect_err(|error| {
        metrics::counter!("tasker_api_refused_total", "status" => error.status_text()).increment(1);
    })?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

impl Gate {
    pub(super) fn new(settings: &tasker_config::Api, store: &Store) -> Self {
        let tokens = match settings.auth {
            Auth::None => None,
            Auth::Tokens => Some(Tokens::new(store.clone(), settings.token_refresh())),
        };
        let buckets = Buckets::new(settings.requests_per_second, settings.request_burst);
        Self { tokens: tokens.map(Arc::new), buckets }
    }

    async fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, ApiError> {
        let from_address = || self.count(Source::of_address(address));
        let Some(tokens) = &self.tokens else {
            from_address()?;
            check_local(headers)?;
            return Ok(Caller::Anybody);
        };
        let token = bearer(headers);
        // Counted before anything is asked for them.
        match token.as_ref().and_then(|token| tokens.recognise(token)) {
            Some(id) => self.count(Source::Token(id))?,
            None => from_address()?,
        }
        let Some(token) = token else {
            let message = "a token is needed: send it as `Authorization: Bearer TOKEN`";
            return Err(Refusal::new(code::NOT_AUTHENTICATED, message).into());
        };
        match tokens.find(&token).await? {
            Some(known) => Ok(Caller::Token(known)),
            None => {
                let message = "the token is not known, has expired or was revoked";
                Err(Refusal::new(code::NOT_AUTHENTICATED, message).into())
            }
        }
    }

    fn count(&self, source: Source) -> Result<(), ApiError> {
        if self.buckets.take(source, Instant::now()) {
            return Ok(());
        }
        let message = "too many requests; wait for a moment";
        Err(Refusal::retry(code::TOO_MANY_REQUESTS, message).into())
    }
}

/// The token of a request; `None` if there is none, or nothing that can be one.
fn bearer(headers: &HeaderMap) -> Option<ApiToken> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| ApiToken::parse(token.trim()))?
}

/// Without tokens everybody on this machine is answered, but not every page that somebody on this
/// machine looks at: a browser sends what such a page wants, under a name that leads here.
fn check_local(headers: &HeaderMap) -> Result<(), Refusal> {
    let named = [header::HOST, header::ORIGIN];
    let mut given = named.iter().flat_map(|name| headers.get_all(name));
    if given.all(|value| value.to_str().is_ok_and(is_local)) {
        return Ok(());
    }
    let message =
        "without tokens requests are answered that go to a loopback address by that address";
    Err(Refusal::new(code::NOT_PERMITTED, message))
}

/// Whether this is a loopback address, or its name, in the form of a host or an origin.
fn is_local(host: &str) -> bool {
    let authority = host.split_once("://").map_or(host, |(_, authority)| authority);
    let name = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(given: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        given.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    #[test]
    fn tokens_in_headers() {
        let token = ApiToken::generate().expect("random bytes");
        let text = token.reveal();
        let check = |given: &[String], expect: bool| {
            let mut all = HeaderMap::new();
            for text in given {
                let value = HeaderValue::from_str(text).expect("a value");
                all.append(header::AUTHORIZATION, value);
            }
            let found = bearer(&all).map(|found| found.id());
            assert_eq!(found, expect.then(|| token.id()), "{given:?}");
        };
        check(&[], false);
        check(&[format!("Bearer {text}")], true);
        check(&[format!("bearer  {text} ")], true);
        check(std::slice::from_ref(&text), false);
        check(&[format!("Basic {text}")], false);
        check(&["Bearer".to_owned()], false);
        check(&["Bearer x".to_owned()], false);
        check(&[format!("Bearer {text}"), format!("Bearer {text}")], false);
    }

    #[test]
    fn pages_of_others_are_not_answered() {
        let (host, origin) = (header::HOST, header::ORIGIN);
        let local = [
            "127.0.0.1",
            "127.0.0.1:8080",
            "localhost",
            "LOCALHOST:1",
            "[::1]:80",
            "[::1]",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:8080",
        ];
        for name in local {
            assert!(is_local(name), "{name}");
        }
        let foreign = [
            "",
            "example.org",
            "127.0.0.1.example.org",
            "localhost.example.org",
            "10.0.0.1:80",
            "null",
            "[::2]",
            "http://evil",
            "http://[",
            "0.0.0.0:8080",
            "127.0.0.1@evil",
        ];
        for name in foreign {
            assert!(!is_local(name), "{name}");
        }
        let table = [
            (headers(&[]), true),
            (headers(&[(host.clone(), "127.0.0.1:8080")]), true),
            (headers(&[(host.clone(), "localhost"), (origin.clone(), "http://localhost")]), true),
            (headers(&[(host.clone(), "rebound.example.org:8080")]), false),
            (headers(&[(host, "127.0.0.1"), (origin, "https://example.org")]), false),
        ];
        for (given, expect) in table {
            assert_eq!(check_local(&given).is_ok(), expect, "{given:?}");
        }
    }
}
