use hyper::header::LINK;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::{ApiResponse, invalid_request, link, target};
use crate::{StepError, code};

/// How many pages are read at most.
pub const DEFAULT_MAX_PAGES: u32 = 10_000;

/// How a service hands out what does not fit into one answer. Places in a body are JSON pointers
/// (RFC 6901), such as `/data/items`; an empty one is the whole body.
#[derive(Debug, Clone)]
pub struct Pagination {
    items: String,
    next: Next,
    max_pages: u32,
}

#[derive(Debug, Clone)]
enum Next {
    Cursor { pointer: String, parameter: String },
    Url { pointer: String },
    Link,
    Number { parameter: String, first: u64 },
}

impl Pagination {
    /// The body holds the items and, at `cursor`, a text or number that the request for the next
    /// page carries as this parameter of its URL. The last page has none, null or an empty text.
    pub fn cursor(
        items: impl Into<String>,
        cursor: impl Into<String>,
        parameter: impl Into<String>,
    ) -> Self {
        let next = Next::Cursor { pointer: cursor.into(), parameter: parameter.into() };
        Self::new(items, next)
    }

    /// The body holds the items and, at `next`, the URL of the next page, whole or relative. The
    /// last page has none, null or an empty text.
    pub fn next_url(items: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(items, Next::Url { pointer: next.into() })
    }

    /// The body holds the items, and the header `Link` the next page with `rel="next"`.
    pub fn link_header(items: impl Into<String>) -> Self {
        Self::new(items, Next::Link)
    }

    /// Pages are numbered by this parameter of the URL, the first one by `first`, or by what the URL
    /// of the request says already. A page without items is the end.
    pub fn page_number(items: impl Into<String>, parameter: impl Into<String>, first: u64) -> Self {
        Self::new(items, Next::Number { parameter: parameter.into(), first })
    }

    fn new(items: impl Into<String>, next: Next) -> Self {
        Self { items: items.into(), next, max_pages: DEFAULT_MAX_PAGES }
    }

    /// How many pages are read at most, instead of [`DEFAULT_MAX_PAGES`]. One more is an error,
    /// since what is behind it would be missing without a word. Eight bytes are kept for each page.
    #[must_use]
    pub fn max_pages(mut self, pages: u32) -> Self {
        self.max_pages = pages;
        self
    }

    pub(super) fn most_pages(&self) -> u32 {
        self.max_pages
    }

    /// The URL of the first page.
    pub(super) fn first(&self, mut url: Url) -> Result<Url, StepError> {
        if let Next::Number { parameter, first } = &self.next
            && number_in(&url, parameter)?.is_none()
        {
            set_parameter(&mut url, parameter, &first.to_string());
        }
        Ok(url)
    }

    /// The items of a page, taken out of its body.
    pub(super) fn take_items(
        &self,
        answer: &ApiResponse,
        body: &mut Value,
    ) -> Result<Vec<Value>, StepError> {
        match body.pointer_mut(&self.items).map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => {
                let what = format!("no list of items at {:?}", self.items);
                Err(answer.fail(code::API_PAGE_INVALID, &what))
            }
        }
    }

    /// The URL of the page after the one at `url`.
    pub(super) fn after(
        &self,
        url: &Url,
        answer: &ApiResponse,
        body: &Value,
        has_items: bool,
    ) -> Result<Option<Url>, StepError> {
        let follow = |link: &str| {
            target::follow(&answer.url, link)
                .map(Some)
                .map_err(|error| answer.fail(error.code(), error.message()))
        };
        let mut next = url.clone();
        match &self.next {
            Next::Cursor { pointer, parameter } => match text_at(answer, body, pointer)? {
                Some(cursor) => set_parameter(&mut next, parameter, &cursor),
                None => return Ok(None),
            },
            Next::Url { pointer } => {
                return text_at(answer, body, pointer)?.map_or(Ok(None), |link| follow(&link));
            }
            Next::Link => {
                let links = answer.headers.get_all(LINK).iter();
                let found = links.filter_map(|header| header.to_str().ok()).find_map(link::next_of);
                return found.map_or(Ok(None), follow);
            }
            Next::Number { parameter, .. } => match number_in(url, parameter)? {
                Some(number) if has_items => {
                    set_parameter(&mut next, parameter, &number.saturating_add(1).to_string());
                }
                _ => return Ok(None),
            },
        }
        Ok(Some(next))
    }

    /// Whether a page without items is the end and no page of its own.
    pub(super) fn ends_without_items(&self) -> bool {
        matches!(self.next, Next::Number { .. })
    }
}

/// A cursor or link in a body; `None` if there is none.
fn text_at(answer: &ApiResponse, body: &Value, at: &str) -> Result<Option<String>, StepError> {
    match body.pointer(at) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => {
            let what = format!("neither a text nor a number at {at:?}");
            Err(answer.fail(code::API_PAGE_INVALID, &what))
        }
    }
}

fn number_in(url: &Url, parameter: &str) -> Result<Option<u64>, StepError> {
    let found = url.query_pairs().find(|(name, _)| name == parameter);
    found
        .map(|(_, value)| value.parse())
        .transpose()
        .map_err(|_| invalid_request(format!("the parameter `{parameter}` is no page number")))
}

/// Leaves the other parameters byte by byte as they are: some services sign them.
fn set_parameter(url: &mut Url, parameter: &str, value: &str) {
    let is_other = |pair: &&str| {
        let name = form_urlencoded::parse(pair.as_bytes()).next();
        name.is_some_and(|(name, _)| name != parameter)
    };
    let query = url.query().unwrap_or_default();
    let mut pairs: Vec<_> = query.split('&').filter(is_other).map(str::to_owned).collect();
    pairs.push(
        form_urlencoded::Serializer::new(String::new()).append_pair(parameter, value).finish(),
    );
    url.set_query(Some(&pairs.join("&")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let table = [
            ("http://h/", "http://h/?p+q=a%26b"),
            ("http://h/?", "http://h/?p+q=a%26b"),
            ("http://h/?x=%20%7E~&y", "http://h/?x=%20%7E~&y&p+q=a%26b"),
            ("http://h/?p+q=1&x=2&p%20q=3", "http://h/?x=2&p+q=a%26b"),
        ];
        for (url, expect) in table {
            let mut url = Url::parse(url).expect("a URL");
            set_parameter(&mut url, "p q", "a&b");
            assert_eq!(url.as_str(), expect);
        }
    }
}
