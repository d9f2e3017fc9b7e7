use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::request::Draft;
use super::{ApiResponse, Pagination, invalid_request, target};
use crate::{StepError, code};

/// An answer in pages, one in memory at a time. Made by [`crate::ApiRequest::pages`].
///
/// ```no_run
/// use tasker_sdk::{ApiClient, Pagination, StepError};
///
/// # async fn example(client: ApiClient) -> Result<(), StepError> {
/// let pagination = Pagination::cursor("/items", "/next_cursor", "cursor");
/// let mut pages = client.get("orders").query("limit", 100).pages(pagination);
/// while let Some(page) = pages.next_page().await? {
///     for order in page.items() {
///         println!("{order}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct ApiPages {
    /// What every page is asked for with; or why that makes no sense.
    draft: Result<Draft, StepError>,
    pagination: Pagination,
    next: Option<Url>,
    /// Hashes of the URLs so far.
    seen: HashSet<u64>,
    pages: u32,
}

impl ApiPages {
    pub(super) fn new(draft: Result<Draft, StepError>, pagination: Pagination) -> Self {
        let draft = draft.and_then(|mut draft| {
            if draft.method != Method::GET || draft.body.is_some() {
                return Err(invalid_request("only a GET without a body has pages"));
            }
            draft.url = pagination.first(draft.url)?;
            Ok(draft)
        });
        let next = draft.as_ref().ok().map(|draft| draft.url.clone());
        let seen = next.iter().map(hash).collect();
        Self { draft, pagination, next, seen, pages: 0 }
    }

    /// The next page; `None` behind the last one. After an error the same page is asked for again.
    ///
    /// # Errors
    /// Those of the request, a permanent [`code::API_BODY_INVALID`] if the body is not JSON,
    /// [`code::API_PAGE_INVALID`] if it has no items or leads to another origin, and
    /// [`code::API_PAGES_ENDLESS`] if it leads back to an earlier page or the pages do not end
    /// within their limit.
    pub async fn next_page(&mut self) -> Result<Option<ApiPage>, StepError> {
        let draft = self.draft.as_ref().map_err(Clone::clone)?;
        let Some(url) = self.next.clone() else { return Ok(None) };
        let mut request = draft.clone();
        request.url = url.clone();
        let answer = request.send().await?;
        let mut body = answer.json()?;
        let items = self.pagination.take_items(&answer, &mut body)?;
        let next = self.pagination.after(&url, &answer, &body, !items.is_empty())?;
        if let Some(next) = &next {
            self.check(next, &answer)?;
            self.seen.insert(hash(next));
        }
        self.next = next;
        self.pages += 1;
        if items.is_empty() && self.pagination.ends_without_items() {
            return Ok(None);
        }
        Ok(Some(ApiPage { items, number: self.pages, answer }))
    }

    /// The URL of the page that comes next; `None` behind the last one. A checkpoint may hold it: a
    /// request for it goes on from there. It may hold what nobody should see, if the service puts
    /// such things into URLs.
    pub fn next_url(&self) -> Option<&str> {
        self.next.as_ref().map(Url::as_str)
    }

    fn check(&self, next: &Url, answer: &ApiResponse) -> Result<(), StepError> {
        let first = self.draft.as_ref().map_err(Clone::clone)?;
        let (code, what) = if target::origin(next) != target::origin(&first.url) {
            (code::API_PAGE_INVALID, "the next page is of another origin".to_owned())
        } else if self.seen.contains(&hash(next)) {
            (code::API_PAGES_ENDLESS, "the next page is one that was read before".to_owned())
        } else if self.pages + 1 >= self.pagination.most_pages() {
            let most = self.pagination.most_pages();
            (code::API_PAGES_ENDLESS, format!("there are more than {most} pages"))
        } else {
            return Ok(());
        };
        Err(answer.fail(code, &what))
    }
}

fn hash(url: &Url) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.as_str().hash(&mut hasher);
    hasher.finish()
}

/// One page of an answer.
pub struct ApiPage {
    items: Vec<Value>,
    number: u32,
    answer: ApiResponse,
}

impl ApiPage {
    /// What is on it.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// What is on it.
    pub fn into_items(self) -> Vec<Value> {
        self.items
    }

    /// What is on it, as a type.
    ///
    /// # Errors
    /// A permanent [`code::API_BODY_INVALID`] if an item does not fit.
    pub fn items_as<T: DeserializeOwned>(&self) -> Result<Vec<T>, StepError> {
        let read = |(n, item)| {
            T::deserialize(item).map_err(|error| {
                let what = format!("item {n} of page {}: {error}", self.number);
                self.answer.fail(code::API_BODY_INVALID, &what)
            })
        };
        self.items.iter().enumerate().map(read).collect()
    }

    /// Which one it is of those that were read; the first is 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The whole answer.
    pub fn response(&self) -> &ApiResponse {
        &self.answer
    }
}

impl fmt::Debug for ApiPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiPage")
            .field("number", &self.number)
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}
