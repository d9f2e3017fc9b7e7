//! Query strings, read strictly: an unknown or malformed parameter is an error that names it.

use std::str::FromStr;

use axum::extract::RawQuery;
use tasker_messages::nearest;

use super::problem::ApiError;

/// The parameters of a request.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string that may hold these parameters, each once.
    pub(super) fn read(RawQuery(query): RawQuery, known: &[&str]) -> Result<Self, ApiError> {
        let uri = format!("/?{}", query.unwrap_or_default());
        let uri: axum::http::Uri =
            uri.parse().map_err(|_| ApiError::bad_request("", "the query cannot be read"))?;
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        let query = query.map_err(|_| ApiError::bad_request("", "the query cannot be read"))?.0;
        for (n, (name, value)) in query.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let near = nearest(name, known.iter().copied());
                let near = near.map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
                let short: String = name.chars().take(60).collect();
                return Err(ApiError::bad_request(&short, format!("unknown parameter{near}")));
            }
            if value.contains('\0') {
                return Err(ApiError::bad_request(name, "holds a NUL character"));
            }
            if query[..n].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::bad_request(name, "given twice"));
            }
        }
        Ok(Self(query))
    }

    /// A parameter, if it is given.
    pub(super) fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: ToString,
    {
        let Some((_, text)) = self.0.iter().find(|(n, _)| n == name) else { return Ok(None) };
        text.parse().map(Some).map_err(|e: T::Err| ApiError::bad_request(name, e.to_string()))
    }

    /// `limit`: rows of a page.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        const DEFAULT: u32 = 100;
        const MOST: u32 = 1_000;
        match self.get::<u32>("limit")? {
            None => Ok(DEFAULT),
            Some(n @ 1..=MOST) => Ok(n),
            Some(n) => Err(ApiError::bad_request("limit", format!("must be 1 to {MOST}, not {n}"))),
        }
    }
}

/// An id in a path.
pub(super) fn id<T: FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: ToString,
{
    text.parse()
        .map_err(|e: T::Err| ApiError::bad_request("id", format!("not an id: {}", e.to_string())))
}
