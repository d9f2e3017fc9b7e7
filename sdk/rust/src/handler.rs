use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{StepContext, StepError, StepResult};

/// The code behind a step. Implement it with `async fn call`.
///
/// A handler runs at least once per step and may run on several workers in turn; a panic in it is
/// caught and ends the step. A plain `async fn(StepContext) -> Result<StepResult, StepError>` is a
/// handler, too.
pub trait StepHandler: Send + Sync + 'static {
    /// Runs one attempt of one step.
    fn call(&self, ctx: StepContext) -> impl Future<Output = Result<StepResult, StepError>> + Send;
}

impl<F, Fut> StepHandler for F
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<StepResult, StepError>> + Send,
{
    fn call(&self, ctx: StepContext) -> impl Future<Output = Result<StepResult, StepError>> + Send {
        self(ctx)
    }
}

/// The object-safe form of [`StepHandler`], one allocation per call.
trait DynHandler: Send + Sync {
    fn call_boxed(
        self: Arc<Self>,
        ctx: StepContext,
    ) -> BoxFuture<'static, Result<StepResult, StepError>>;
}

impl<H: StepHandler> DynHandler for H {
    fn call_boxed(
        self: Arc<Self>,
        ctx: StepContext,
    ) -> BoxFuture<'static, Result<StepResult, StepError>> {
        Box::pin(async move { self.call(ctx).await })
    }
}

/// A handler as the worker holds it.
#[derive(Clone)]
pub struct RegisteredHandler(Arc<dyn DynHandler>);

impl RegisteredHandler {
    /// Wraps a handler.
    pub fn new(handler: impl StepHandler) -> Self {
        Self(Arc::new(handler))
    }

    /// Runs one attempt of one step.
    pub fn call(&self, ctx: StepContext) -> BoxFuture<'static, Result<StepResult, StepError>> {
        Arc::clone(&self.0).call_boxed(ctx)
    }
}

impl StepHandler for RegisteredHandler {
    fn call(&self, ctx: StepContext) -> impl Future<Output = Result<StepResult, StepError>> + Send {
        RegisteredHandler::call(self, ctx)
    }
}

impl fmt::Debug for RegisteredHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegisteredHandler")
    }
}
