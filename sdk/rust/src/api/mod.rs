//! HTTP for handlers: a client that connects to public addresses only, has a limit for everything,
//! and says of each failure whether another attempt may help.

mod builder;
mod client;
mod connect;
mod credentials;
mod exchange;
mod failure;
mod guard;
mod idempotency;
mod link;
mod pages;
mod pagination;
mod request;
mod response;
mod secret;
mod target;
#[cfg(test)]
mod tests;
mod tls;

pub use builder::{
    ApiClientBuilder, DEFAULT_CONNECT_TIMEOUT, DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_REDIRECTS,
    DEFAULT_TIMEOUT,
};
pub use client::ApiClient;
pub use failure::MAX_RETRY_AFTER;
pub use pages::{ApiPage, ApiPages};
pub use pagination::{DEFAULT_MAX_PAGES, Pagination};
pub use request::ApiRequest;
pub use response::ApiResponse;
pub use secret::Secret;

use crate::{StepContext, StepError, code};

/// What handlers that call HTTP services have in common: the handler says with which client, and
/// has the verbs. Requests are for the step, as [`ApiRequest::for_step`] describes.
///
/// ```no_run
/// use tasker_sdk::{Api, ApiClient, StepContext, StepError, StepHandler, StepResult};
///
/// struct Charge {
///     client: ApiClient,
/// }
///
/// impl Api for Charge {
///     fn api_client(&self, _: &StepContext) -> Result<ApiClient, StepError> {
///         Ok(self.client.clone())
///     }
/// }
///
/// impl StepHandler for Charge {
///     async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
///         let charge = self.post(&ctx, "charges").json(ctx.input_json()).await?;
///         Ok(charge.json()?.into())
///     }
/// }
/// ```
pub trait Api {
    /// The client for a step: one that the handler keeps, whose connections are used again, or one
    /// made from [`StepContext::config`]. An error fails the request.
    ///
    /// # Errors
    /// Those of [`ApiClientBuilder::build`], or of reading the configuration.
    fn api_client(&self, ctx: &StepContext) -> Result<ApiClient, StepError>;

    /// [`ApiClient::request`] for the step.
    fn request(&self, ctx: &StepContext, method: &str, path_or_url: &str) -> ApiRequest {
        ApiRequest::new(self.api_client(ctx), method, path_or_url).for_step(ctx)
    }

    /// [`ApiClient::get`] for the step.
    fn get(&self, ctx: &StepContext, path_or_url: &str) -> ApiRequest {
        self.request(ctx, "GET", path_or_url)
    }

    /// [`ApiClient::post`] for the step.
    fn post(&self, ctx: &StepContext, path_or_url: &str) -> ApiRequest {
        self.request(ctx, "POST", path_or_url)
    }

    /// [`ApiClient::put`] for the step.
    fn put(&self, ctx: &StepContext, path_or_url: &str) -> ApiRequest {
        self.request(ctx, "PUT", path_or_url)
    }

    /// [`ApiClient::patch`] for the step.
    fn patch(&self, ctx: &StepContext, path_or_url: &str) -> ApiRequest {
        self.request(ctx, "PATCH", path_or_url)
    }

    /// [`ApiClient::delete`] for the step.
    fn delete(&self, ctx: &StepContext, path_or_url: &str) -> ApiRequest {
        self.request(ctx, "DELETE", path_or_url)
    }
}

/// What HTTP cannot carry, or a client cannot be made of.
fn invalid_request(why: impl Into<String>) -> StepError {
    StepError::permanent(code::API_REQUEST_INVALID, why)
}
