//! The routes as a table: whatever is served is listed, with the role that it needs.

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use tasker_messages::Role;

use super::Api;
use super::gate::guard;

/// A route that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteView {
    /// The method.
    pub method: &'static str,
    /// The path, with names of what varies in braces.
    pub path: &'static str,
    /// The least role that may use it; `None` needs no token.
    pub role: Option<Role>,
}

/// The methods that routes have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    const fn parts(self) -> (&'static str, MethodFilter) {
        match self {
            Self::Get => ("GET", MethodFilter::GET),
            Self::Post => ("POST", MethodFilter::POST),
            Self::Put => ("PUT", MethodFilter::PUT),
            Self::Patch => ("PATCH", MethodFilter::PATCH),
            Self::Delete => ("DELETE", MethodFilter::DELETE),
        }
    }
}

/// A router that is made route by route, and the list of them.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) router: Router<Api>,
    pub(super) listed: Vec<RouteView>,
}

impl Routes {
    /// Adds a route that needs a token with this role.
    pub(super) fn with<H, T>(
        self,
        role: Role,
        method: Method,
        path: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let (_, filter) = method.parts();
        // Not in front of what is said about methods that the path does not know.
        let served = on(filter, handler).route_layer(from_fn_with_state(role, guard));
        self.add(Some(role), method, path, served)
    }

    /// Adds a route that is open to everybody.
    pub(super) fn open<H, T>(self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let (_, filter) = method.parts();
        self.add(None, method, path, on(filter, handler))
    }

    fn add(
        mut self,
        role: Option<Role>,
        method: Method,
        path: &'static str,
        served: MethodRouter<Api>,
    ) -> Self {
        self.router = self.router.route(path, served);
        self.listed.push(RouteView { method: method.parts().0, path, role });
        self
    }
}
