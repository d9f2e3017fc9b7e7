use std::collections::BTreeMap;
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

/// The handlers that a worker offers, by callable.
#[derive(Debug, Clone, Default)]
pub struct HandlerRegistry {
    handlers: BTreeMap<String, RegisteredHandler>,
}

impl HandlerRegistry {
    /// A registry without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler under the name that templates use as `handler.callable`. A second handler of
    /// the same name replaces the first.
    #[must_use]
    pub fn register(mut self, callable: impl Into<String>, handler: impl StepHandler) -> Self {
        self.handlers.insert(callable.into(), RegisteredHandler::new(handler));
        self
    }

    /// Adds all handlers of another registry, replacing those of the same name.
    #[must_use]
    pub fn merge(mut self, other: HandlerRegistry) -> Self {
        self.handlers.extend(other.handlers);
        self
    }

    /// The handler of this name.
    pub fn get(&self, callable: &str) -> Option<RegisteredHandler> {
        self.handlers.get(callable).cloned()
    }

    /// The names of all handlers, sorted.
    pub fn callables(&self) -> impl Iterator<Item = &str> {
        self.handlers.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::TestContext;

    struct Add(i64);

    impl StepHandler for Add {
        async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
            tokio::task::yield_now().await;
            let n: i64 = ctx.input()?;
            Ok(json!(n + self.0).into())
        }
    }

    async fn fail(_ctx: StepContext) -> Result<StepResult, StepError> {
        Err(StepError::permanent("NO", "never"))
    }

    #[tokio::test]
    async fn handlers_are_found_by_name() {
        let registry =
            HandlerRegistry::new().register("b", fail).register("a", Add(1)).register("a", Add(2));
        assert_eq!(registry.callables().collect::<Vec<_>>(), ["a", "b"]);
        let call = |name: &str| {
            let ctx = TestContext::builder().input(json!(40)).build();
            registry.get(name).map(|handler| handler.call(ctx))
        };
        assert_eq!(call("a").expect("registered").await.expect("adds").value(), &json!(42));
        assert_eq!(call("b").expect("registered").await.expect_err("fails").code(), "NO");
        assert!(call("c").is_none());
    }
}
