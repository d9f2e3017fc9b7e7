use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tasker_messages::{SharedStep, code as wire_code};

use crate::{RegisteredHandler, StepError, StepHandler};

/// Finds handlers that are not registered one by one, by callable and method.
type Resolver = Arc<dyn Fn(&str, &str) -> Option<RegisteredHandler> + Send + Sync>;

/// The handlers that a worker offers, by callable, and ways to find others.
///
/// A step is run by the handler that is registered under its `handler.callable` and
/// `handler.method`; if none is registered under the callable, by what the first of the chained
/// resolvers finds. A step that names a `handler.resolver` is run by what that one finds.
#[derive(Clone, Default)]
pub struct HandlerRegistry {
    /// By callable and method.
    handlers: BTreeMap<String, BTreeMap<String, RegisteredHandler>>,
    resolvers: Vec<NamedResolver>,
}

#[derive(Clone)]
struct NamedResolver {
    name: String,
    is_chained: bool,
    resolve: Resolver,
}

impl HandlerRegistry {
    /// A registry without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler under the name that templates use as `handler.callable`. A second handler of
    /// the same name replaces the first.
    #[must_use]
    pub fn register(self, callable: impl Into<String>, handler: impl StepHandler) -> Self {
        self.register_method(callable, SharedStep::DEFAULT_METHOD, handler)
    }

    /// Adds another entry point of a callable, under the name that templates use as
    /// `handler.method`. `call` is the one of [`Self::register`].
    #[must_use]
    pub fn register_method(
        mut self,
        callable: impl Into<String>,
        method: impl Into<String>,
        handler: impl StepHandler,
    ) -> Self {
        let methods = self.handlers.entry(callable.into()).or_default();
        methods.insert(method.into(), RegisteredHandler::new(handler));
        self
    }

    /// Adds a resolver that is asked, with callable and method, for steps that name it as
    /// `handler.resolver`, and for no others. A second one of the same name replaces the first.
    ///
    /// It is asked for each step that runs, so it should be quick.
    #[must_use]
    pub fn resolver(
        self,
        name: impl Into<String>,
        resolve: impl Fn(&str, &str) -> Option<RegisteredHandler> + Send + Sync + 'static,
    ) -> Self {
        self.add(NamedResolver { name: name.into(), is_chained: false, resolve: Arc::new(resolve) })
    }

    /// Adds a resolver that is also asked for callables that are not registered, after those that
    /// were added before it.
    #[must_use]
    pub fn chained_resolver(
        self,
        name: impl Into<String>,
        resolve: impl Fn(&str, &str) -> Option<RegisteredHandler> + Send + Sync + 'static,
    ) -> Self {
        self.add(NamedResolver { name: name.into(), is_chained: true, resolve: Arc::new(resolve) })
    }

    fn add(mut self, resolver: NamedResolver) -> Self {
        self.resolvers.retain(|known| known.name != resolver.name);
        self.resolvers.push(resolver);
        self
    }

    /// Adds all handlers and resolvers of another registry, replacing those of the same name.
    #[must_use]
    pub fn merge(mut self, other: HandlerRegistry) -> Self {
        for (callable, methods) in other.handlers {
            self.handlers.entry(callable).or_default().extend(methods);
        }
        other.resolvers.into_iter().fold(self, Self::add)
    }

    /// The handler that is registered under this name.
    pub fn get(&self, callable: &str) -> Option<RegisteredHandler> {
        self.handlers.get(callable)?.get(SharedStep::DEFAULT_METHOD).cloned()
    }

    /// The handler that is to run a step.
    ///
    /// # Errors
    /// A retryable `HANDLER_NOT_FOUND`, `HANDLER_METHOD_NOT_FOUND` or `RESOLVER_NOT_FOUND`: another
    /// worker may have it. They name what there is.
    pub fn find(
        &self,
        callable: &str,
        method: &str,
        resolver: Option<&str>,
    ) -> Result<RegisteredHandler, StepError> {
        if let Some(name) = resolver {
            return self.resolve(name, callable, method);
        }
        if let Some(methods) = self.handlers.get(callable) {
            return methods.get(method).cloned().ok_or_else(|| {
                let known = listed(methods.keys());
                let message =
                    format!("the handler `{callable}` has no method `{method}`; it has {known}");
                StepError::retryable(wire_code::HANDLER_METHOD_NOT_FOUND, message)
            });
        }
        let mut chain = self.resolvers.iter().filter(|resolver| resolver.is_chained);
        chain.find_map(|resolver| (resolver.resolve)(callable, method)).ok_or_else(|| {
            let message = format!("this worker has no handler `{callable}`");
            StepError::retryable(wire_code::HANDLER_NOT_FOUND, message)
        })
    }

    fn resolve(
        &self,
        name: &str,
        callable: &str,
        method: &str,
    ) -> Result<RegisteredHandler, StepError> {
        let Some(resolver) = self.resolvers.iter().find(|resolver| resolver.name == name) else {
            let known = listed(self.resolvers.iter().map(|resolver| &resolver.name));
            let message = format!("this worker has no resolver `{name}`; it has {known}");
            return Err(StepError::retryable(wire_code::RESOLVER_NOT_FOUND, message));
        };
        (resolver.resolve)(callable, method).ok_or_else(|| {
            let message =
                format!("the resolver `{name}` finds no handler `{callable}` with `{method}`");
            StepError::retryable(wire_code::HANDLER_NOT_FOUND, message)
        })
    }

    /// Whether there are resolvers: then there may be handlers that [`Self::callables`] does not name.
    pub fn resolves(&self) -> bool {
        !self.resolvers.is_empty()
    }

    /// The names of all registered handlers, sorted.
    pub fn callables(&self) -> impl Iterator<Item = &str> {
        self.handlers.keys().map(String::as_str)
    }
}

/// Names for an error's message.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resolvers: Vec<&str> = self.resolvers.iter().map(|r| r.name.as_str()).collect();
        f.debug_struct("HandlerRegistry")
            .field("handlers", &self.handlers)
            .field("resolvers", &resolvers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::TestContext;
    use crate::{StepContext, StepResult};

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

    #[tokio::test]
    async fn methods_and_resolvers() {
        let answer = |n: i64| {
            RegisteredHandler::new(move |_: StepContext| async move { Ok(json!(n).into()) })
        };
        let registry = HandlerRegistry::new()
            .register("a", answer(1))
            .register_method("a", "other", answer(2))
            .register_method("b", "only", answer(3))
            .resolver("aside", move |callable, method| {
                (callable == "a" && method == "call").then(|| answer(4))
            })
            .chained_resolver("first", move |callable, _| (callable == "c").then(|| answer(5)))
            .chained_resolver("second", move |callable, _| {
                ["a", "c", "d"].contains(&callable).then(|| answer(6))
            });
        let registry = HandlerRegistry::new().register("a", answer(0)).merge(registry);
        let table = [
            ("a", "call", None, Ok(1)),
            ("a", "other", None, Ok(2)),
            ("b", "only", None, Ok(3)),
            ("a", "call", Some("aside"), Ok(4)),
            ("c", "call", None, Ok(5)),
            ("d", "call", None, Ok(6)),
            ("a", "none", None, Err("HANDLER_METHOD_NOT_FOUND")),
            ("b", "call", None, Err("HANDLER_METHOD_NOT_FOUND")),
            ("e", "call", None, Err("HANDLER_NOT_FOUND")),
            ("a", "other", Some("aside"), Err("HANDLER_NOT_FOUND")),
            ("a", "call", Some("none"), Err("RESOLVER_NOT_FOUND")),
        ];
        for (callable, method, resolver, expect) in table {
            let got = match registry.find(callable, method, resolver) {
                Ok(handler) => {
                    let result = handler.call(TestContext::builder().build()).await;
                    Ok(result.expect("it succeeds").value().clone())
                }
                Err(error) => Err(error.code().to_owned()),
            };
            let expect = expect.map(|n: i64| json!(n)).map_err(str::to_owned);
            assert_eq!(got, expect, "{callable} {method} {resolver:?}");
        }
        let error = registry.find("a", "none", None).expect_err("no such method").to_string();
        assert!(error.contains("`call`, `other`"), "{error}");
        let error =
            registry.find("a", "call", Some("x")).expect_err("no such resolver").to_string();
        assert!(error.contains("`aside`, `first`, `second`"), "{error}");
    }
}
