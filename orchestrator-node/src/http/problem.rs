//! Errors as `application/problem+json` (RFC 9457) with a stable code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tasker_actors::orchestrator::ReadError;
use tasker_messages::{Problem, Refusal, code};
use tasker_store::StoreError;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

/// Seconds after which "try again" is worth it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    pub(super) fn not_found(message: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, refusal: Refusal::new(code::NOT_FOUND, message) }
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "this route does not know that method";
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            refusal: Refusal::new(code::NOT_FOUND, message),
        }
    }

    pub(super) fn bad_request(field: &str, message: impl Into<String>) -> Self {
        let problem = Problem::new(code::INVALID_REQUEST, message).at(field);
        Refusal::of_document("the request", vec![problem]).into()
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Refusal::new(code::TOO_LARGE, message).into()
    }

    /// The status as a label of a metric.
    pub(super) fn status_text(&self) -> String {
        self.status.as_str().to_owned()
    }

    pub(super) fn media_type(expected: &str) -> Self {
        let message = format!("the body must be {expected}");
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            refusal: Refusal::new(code::INVALID_REQUEST, message),
        }
    }
}

/// Codes that are not answered with 400.
fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal.code.as_str() {
        code::TEMPLATE_NOT_FOUND
        | code::TASK_NOT_FOUND
        | code::STEP_NOT_FOUND
        | code::BATCH_NOT_FOUND
        | code::DEAD_LETTER_NOT_FOUND
        | code::WORKER_NOT_FOUND
        | code::NOT_FOUND => StatusCode::NOT_FOUND,
        code::IDEMPOTENCY_CONFLICT
        | code::ALREADY_REDRIVEN
        | code::WORKER_SILENT
        | code::TEMPLATE_CONFLICT
        | code::TASK_ENDED
        | code::STEP_NOT_FAILED
        | code::AGGREGATOR_RAN
        | code::DESCENDANT_RUNS
        | code::BATCH_STOPPED
        | code::NOTHING_TO_RETRY => StatusCode::CONFLICT,
        code::CONTEXT_SCHEMA_VIOLATION | code::RESULT_SCHEMA_VIOLATION => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        code::NOT_AUTHENTICATED => StatusCode::UNAUTHORIZED,
        code::FOREIGN_NAMESPACE | code::NOT_PERMITTED => StatusCode::FORBIDDEN,
        code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        code::NAMESPACE_FULL | code::TOO_MANY_REQUESTS => StatusCode::TOO_MANY_REQUESTS,
        code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        code::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self { status: status_of(&refusal), refusal }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        ReadError::from(error).into_refusal().into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.refusal.code,
            "detail": self.refusal.message,
            "problems": self.refusal.problems,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let may_pass = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        if may_pass.contains(&self.status) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
