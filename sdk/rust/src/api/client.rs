use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper_util::client::legacy::Client;

use super::connect::Connector;
use super::secret::Scrubber;
use super::target::{self, Base};
use super::{ApiClientBuilder, ApiRequest};
use crate::StepError;

/// How the SDK calls itself.
pub(super) const SDK: &str = concat!("tasker-sdk/", env!("CARGO_PKG_VERSION"));

/// An HTTP client for handlers. Cheap to clone; clones share their connections.
///
/// - It connects to public addresses only, and to what its builder allows. Addresses are checked
///   when the connection is made, so neither a name that changes its address nor a redirection
///   leads anywhere else. Proxies of the environment are not used.
/// - Its headers and credentials go to the origin of its base URL and nowhere else.
/// - Every wait and every body has a limit.
/// - An answer that is no success is a [`StepError`] which says whether to try again. Errors tell
///   method, URL without the values of its parameters, status, and the first KiB of the answer,
///   without the client's credentials.
///
/// ```no_run
/// use std::time::Duration;
/// use tasker_sdk::{ApiClient, Secret, StepError};
///
/// # async fn example() -> Result<(), StepError> {
/// let client = ApiClient::builder()
///     .base_url("https://api.example.com/v1")
///     .bearer(Secret::from_env("EXAMPLE_TOKEN")?)
///     .timeout(Duration::from_secs(10))
///     .build()?;
/// let order: serde_json::Value = client.get("orders").query("state", "open").await?.json()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ApiClient {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) base: Option<Base>,
    /// For the origin of the base URL only.
    pub(super) headers: HeaderMap,
    pub(super) scrubber: Arc<Scrubber>,
    pub(super) http: Client<Connector, Full<Bytes>>,
    pub(super) timeout: Duration,
    pub(super) max_body_bytes: usize,
    pub(super) max_redirects: u32,
}

impl ApiClient {
    /// Starts a client with the defaults.
    pub fn builder() -> ApiClientBuilder {
        ApiClientBuilder::default()
    }

    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// A request of any method but `CONNECT` and `TRACE`, to a path below the base URL or to a whole
    /// URL. Nothing happens before it is awaited, where mistakes in it show, too.
    pub fn request(&self, method: &str, path_or_url: &str) -> ApiRequest {
        ApiRequest::new(Ok(self.clone()), method, path_or_url)
    }

    /// [`Self::request`] with `GET`.
    pub fn get(&self, path_or_url: &str) -> ApiRequest {
        self.request("GET", path_or_url)
    }

    /// [`Self::request`] with `POST`.
    pub fn post(&self, path_or_url: &str) -> ApiRequest {
        self.request("POST", path_or_url)
    }

    /// [`Self::request`] with `PUT`.
    pub fn put(&self, path_or_url: &str) -> ApiRequest {
        self.request("PUT", path_or_url)
    }

    /// [`Self::request`] with `PATCH`.
    pub fn patch(&self, path_or_url: &str) -> ApiRequest {
        self.request("PATCH", path_or_url)
    }

    /// [`Self::request`] with `DELETE`.
    pub fn delete(&self, path_or_url: &str) -> ApiRequest {
        self.request("DELETE", path_or_url)
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { base, headers, timeout, max_body_bytes, max_redirects, .. } = self.inner();
        let base = base.as_ref().map(|base| target::shown(base.url()));
        // Names only: a caller may have put a secret into any header.
        let headers: Vec<_> = headers.keys().collect();
        f.debug_struct("ApiClient")
            .field("base_url", &base)
            .field("headers", &headers)
            .field("timeout", timeout)
            .field("max_body_bytes", max_body_bytes)
            .field("max_redirects", max_redirects)
            .finish_non_exhaustive()
    }
}

/// A client that could not be made fails every request.
pub(super) type MaybeClient = Result<ApiClient, StepError>;
