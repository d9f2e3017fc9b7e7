//! Who sends a request, and which namespaces are theirs.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tasker_messages::{BatchId, Namespace, Refusal, Role, Scope, TaskId, check_reason, code};
use tasker_store::KnownToken;

use crate::http::Api;
use crate::http::batches::no_batch;
use crate::http::problem::ApiError;
use crate::http::query::id;
use crate::http::repair::unusable;
use crate::http::tasks::no_task;

/// Who sends a request. Handlers take it as an argument, and ask it about whatever the request
/// names; without the guard in front of the route there is none.
#[derive(Debug, Clone)]
pub(in crate::http) enum Caller {
    /// Whoever is on this machine: there are no tokens.
    Anybody,
    /// Who has this token.
    Token(Arc<KnownToken>),
}

impl Caller {
    /// The namespaces that are theirs.
    pub(in crate::http) fn scope(&self) -> &Scope {
        match self {
            Self::Anybody => &Scope::All,
            Self::Token(token) => &token.scope,
        }
    }

    /// The namespace that a request names, or all of theirs.
    pub(in crate::http) fn narrowed(&self, namespace: Option<Namespace>) -> Result<Scope, Refusal> {
        let Some(namespace) = namespace else { return Ok(self.scope().clone()) };
        self.scope().check(namespace.as_str())?;
        Ok(Scope::of(Some(namespace)))
    }

    /// The id of a task of theirs. One in another namespace is not there.
    pub(in crate::http) async fn task(&self, api: &Api, text: &str) -> Result<TaskId, ApiError> {
        let task: TaskId = id(text)?;
        if *self.scope() != Scope::All {
            let namespace = api.node.store.namespace_of_task(task).await?;
            self.has(namespace.as_deref()).ok_or_else(|| no_task(task))?;
        }
        Ok(task)
    }

    /// The id of a batch of theirs. One in another namespace is not there.
    pub(in crate::http) async fn batch(&self, api: &Api, text: &str) -> Result<BatchId, ApiError> {
        let batch: BatchId = id(text)?;
        if *self.scope() != Scope::All {
            let namespace = api.node.store.namespace_of_batch(batch).await?;
            self.has(namespace.as_deref()).ok_or_else(|| no_batch(batch))?;
        }
        Ok(batch)
    }

    fn has(&self, namespace: Option<&str>) -> Option<()> {
        namespace.filter(|name| self.scope().holds(name)).map(|_| ())
    }

    /// Whether the role is enough.
    pub(super) fn check_role(&self, needed: Role) -> Result<(), Refusal> {
        match self {
            Self::Token(token) if token.role < needed => {
                let (name, role) = (&token.name, token.role);
                let message = format!("the token `{name}` is for a {role}; this is for a {needed}");
                Err(Refusal::new(code::NOT_PERMITTED, message))
            }
            Self::Token(_) | Self::Anybody => Ok(()),
        }
    }

    /// The name for the audit trail. What somebody says of themselves comes after what is known.
    pub(in crate::http) fn principal(&self, by: Option<String>) -> String {
        match (self, by) {
            (Self::Anybody, by) => by.unwrap_or_else(|| "api".to_owned()),
            (Self::Token(token), Some(by)) => format!("token:{} ({by})", token.name),
            (Self::Token(token), None) => format!("token:{}", token.name),
        }
    }

    /// The same, if it and the reason can be kept.
    pub(in crate::http) fn audited(
        &self,
        reason: &str,
        by: Option<String>,
    ) -> Result<String, ApiError> {
        check_reason(reason, by.as_deref()).map_err(unusable)?;
        Ok(self.principal(by))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a route without a guard asks who calls");
            Refusal::new(code::INTERNAL, "the request cannot be answered").into()
        })
    }
}
