use std::fmt;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::failure::Place;
use crate::{StepError, code};

/// A whole answer.
pub struct ApiResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Where it came from, after redirections.
    pub(super) url: Url,
    pub(super) place: Place,
}

impl ApiResponse {
    /// The status: 2xx, or one that the request accepts.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The first header of this name, whatever its capitals; `None` if its value is no ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// A permanent [`code::API_BODY_INVALID`] if it is not UTF-8.
    pub fn text(&self) -> Result<&str, StepError> {
        std::str::from_utf8(&self.body).map_err(|error| self.unexpected(&error.to_string()))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// A permanent [`code::API_BODY_INVALID`] if it is none; an empty body is none.
    pub fn json(&self) -> Result<Value, StepError> {
        self.json_as()
    }

    /// The body as a type, from JSON.
    ///
    /// # Errors
    /// A permanent [`code::API_BODY_INVALID`] if it does not fit.
    pub fn json_as<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_slice(&self.body).map_err(|error| self.unexpected(&error.to_string()))
    }

    fn unexpected(&self, why: &str) -> StepError {
        let what = format!("an unexpected body: {why}");
        self.place.answer(code::API_BODY_INVALID, &what, self.status(), &self.body)
    }

    /// An error about this answer.
    pub(super) fn fail(&self, code: &str, what: &str) -> StepError {
        self.place.answer(code, what, self.status(), &self.body)
    }
}

impl fmt::Debug for ApiResponse {
    // Headers and body may hold what nobody should see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse")
            .field("status", &self.status())
            .field("url", &self.place.url())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
