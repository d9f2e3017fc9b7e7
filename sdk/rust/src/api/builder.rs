use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::client::{ApiClient, Inner};
use super::connect::Connector;
use super::credentials::{Credentials, header_name};
use super::guard::AddressGuard;
use super::secret::Scrubber;
use super::target::Base;
use super::{Secret, invalid_request, tls};
use crate::StepError;

/// How long a request may take from its first look-up to the last byte of its answer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take, look-up and TLS included.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of an answer, in bytes.
pub const DEFAULT_MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// How many redirections are followed, one after the other.
pub const DEFAULT_MAX_REDIRECTS: u32 = 5;

/// No time-out is longer: no step runs longer than a week.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a connection is kept that nobody uses.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// Makes an [`ApiClient`].
#[must_use]
pub struct ApiClientBuilder {
    base_url: Option<String>,
    headers: Vec<(String, String)>,
    credentials: Option<Credentials>,
    timeout: Duration,
    connect_timeout: Duration,
    max_body_bytes: usize,
    max_redirects: u32,
    roots: Vec<Vec<u8>>,
    hosts: Vec<String>,
    networks: Vec<String>,
}

impl Default for ApiClientBuilder {
    fn default() -> Self {
        Self {
            base_url: None,
            headers: Vec::new(),
            credentials: None,
            timeout: DEFAULT_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            max_redirects: DEFAULT_MAX_REDIRECTS,
            roots: Vec::new(),
            hosts: Vec::new(),
            networks: Vec::new(),
        }
    }
}

impl ApiClientBuilder {
    /// What paths of requests are appended to. Headers and credentials of the client go to the
    /// origin of this URL (scheme, host and port) and nowhere else.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// A header of every request to the base URL. `user-agent` replaces that of the SDK.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Authenticates by `Authorization: Bearer …`.
    pub fn bearer(mut self, token: Secret) -> Self {
        self.credentials = Some(Credentials::Bearer(token));
        self
    }

    /// Authenticates by user and password (RFC 7617).
    pub fn basic(mut self, user: impl Into<String>, password: Secret) -> Self {
        self.credentials = Some(Credentials::Basic { user: user.into(), password });
        self
    }

    /// Authenticates by a key in a header of this name.
    pub fn api_key(mut self, header: impl Into<String>, key: Secret) -> Self {
        self.credentials = Some(Credentials::ApiKey { header: header.into(), key });
        self
    }

    /// How long a request may take with all redirections, instead of [`DEFAULT_TIMEOUT`]; at most a
    /// week.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a connection may take, instead of [`DEFAULT_CONNECT_TIMEOUT`]; at most a week.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest body of an answer, instead of [`DEFAULT_MAX_BODY_BYTES`].
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How many redirections are followed, instead of [`DEFAULT_MAX_REDIRECTS`].
    pub fn max_redirects(mut self, redirects: u32) -> Self {
        self.max_redirects = redirects;
        self
    }

    /// Root certificates in PEM that are trusted beside those of the machine.
    pub fn root_certificates_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// A host that may be at any address: a name, which is then trusted to whoever answers for it,
    /// or an address.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// A network that is no part of the public internet and may be connected to, as `10.0.0.0/8` or
    /// as a single address.
    pub fn allow_network(mut self, network: impl Into<String>) -> Self {
        self.networks.push(network.into());
        self
    }

    /// The client. Reads the machine's root certificates if it is the first one of the process.
    ///
    /// # Errors
    /// A permanent [`crate::code::API_URL_INVALID`] or [`crate::code::API_ADDRESS_REFUSED`] for the
    /// base URL, [`crate::code::API_REQUEST_INVALID`] for anything else that makes no sense.
    pub fn build(self) -> Result<ApiClient, StepError> {
        if self.base_url.is_none() && (self.credentials.is_some() || !self.headers.is_empty()) {
            let why = "headers and credentials need a base URL, which says where they may go";
            return Err(invalid_request(why));
        }
        for timeout in [self.timeout, self.connect_timeout] {
            if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
                let why = format!("a time-out of {timeout:?} is not within a week");
                return Err(invalid_request(why));
            }
        }
        let guard = AddressGuard::new(&self.hosts, &self.networks)?;
        let connector = Connector::new(guard, tls::settings(&self.roots)?, self.connect_timeout);
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let secrets = self.credentials.iter().flat_map(Credentials::secrets);
        Ok(ApiClient::new(Inner {
            base: self.base_url.as_deref().map(Base::new).transpose()?,
            scrubber: Arc::new(Scrubber::new(secrets)),
            headers: self.all_headers()?,
            http,
            timeout: self.timeout,
            max_body_bytes: self.max_body_bytes,
            max_redirects: self.max_redirects,
        }))
    }

    /// What goes to the base URL with every request.
    fn all_headers(&self) -> Result<HeaderMap, StepError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(super::client::SDK));
        for (name, value) in &self.headers {
            let name = header_name(name)?;
            // Not shown: a caller may have put a secret here.
            let value = HeaderValue::try_from(value.as_str()).map_err(|_| {
                invalid_request(format!("the value of the header `{name}` cannot be sent"))
            })?;
            headers.insert(name, value);
        }
        if let Some(credentials) = &self.credentials {
            let (name, value) = credentials.header()?;
            headers.insert(name, value);
        }
        Ok(headers)
    }
}
