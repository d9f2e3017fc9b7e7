use url::{Host, Origin, Url};

use super::secret::HIDDEN;
use crate::{StepError, code};

/// So much of a URL is shown.
const SHOWN_BYTES: usize = 1_024;

/// Where the relative paths of a client's requests begin, and where its credentials may go.
#[derive(Clone)]
pub(super) struct Base(Url);

impl Base {
    pub(super) fn new(text: &str) -> Result<Self, StepError> {
        let mut url = parse(text)?;
        if url.query().is_some() {
            return Err(invalid("a base URL has no query"));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }

    /// The URL of a path below this one. Whatever the path holds, it does not climb out.
    fn below(&self, path: &str) -> Result<Url, StepError> {
        let url = parse(&format!("{}{}", self.0, path.trim_start_matches(['/', '\\'])))?;
        if self.is_home(&url) && url.path().starts_with(self.0.path()) {
            return Ok(url);
        }
        Err(invalid("the path leads out of the base URL"))
    }

    /// Whether a URL is of the same origin: scheme, host and port.
    pub(super) fn is_home(&self, url: &Url) -> bool {
        origin(url) == origin(&self.0)
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

/// The URL of a request: a whole one, or a path below the base.
pub(super) fn resolve(base: Option<&Base>, path_or_url: &str) -> Result<Url, StepError> {
    let scheme_end = path_or_url.find("://").unwrap_or(usize::MAX);
    let is_whole = path_or_url.find(['/', '?', '#']).is_some_and(|at| at > scheme_end);
    match base {
        _ if is_whole => parse(path_or_url),
        Some(base) => base.below(path_or_url),
        None => Err(invalid("a path without a base URL; give the client one")),
    }
}

/// Where a link or a redirection leads that was found at `from`.
pub(super) fn follow(from: &Url, link: &str) -> Result<Url, StepError> {
    accept(from.join(link).map_err(|error| invalid(&format!("a link: {error}")))?)
}

pub(super) fn origin(url: &Url) -> Origin {
    url.origin()
}

fn parse(text: &str) -> Result<Url, StepError> {
    // The text itself stays out of the error: it may hold what nobody should see.
    accept(Url::parse(text).map_err(|error| invalid(&error.to_string()))?)
}

fn accept(mut url: Url) -> Result<Url, StepError> {
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("only http and https are spoken, not `{}`", url.scheme());
        return Err(StepError::permanent(code::API_ADDRESS_REFUSED, message));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("user and password belong into `basic` of the client"));
    }
    if matches!(url.host(), None | Some(Host::Domain("" | "."))) {
        return Err(invalid("no host"));
    }
    url.set_fragment(None);
    Ok(url)
}

fn invalid(why: &str) -> StepError {
    StepError::permanent(code::API_URL_INVALID, format!("no usable URL: {why}"))
}

/// A URL for people: names of its parameters, not their values, which may be secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut text = url[..url::Position::AfterPath].to_owned();
    for (n, pair) in url.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        text.push(if n == 0 { '?' } else { '&' });
        if let Some((name, _)) = pair.split_once('=') {
            text.push_str(name);
            text.push('=');
        }
        text.push_str(HIDDEN);
    }
    // All of it is ASCII; a boundary is found anyway.
    if text.len() > SHOWN_BYTES {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: Option<&str>, path: &str, expect: Result<&str, &str>) {
        let base = base.map(|base| Base::new(base).expect("a base"));
        let got = resolve(base.as_ref(), path);
        assert_eq!(got.as_ref().map(Url::as_str).map_err(StepError::code), expect, "{path}");
    }

    #[test]
    fn urls_of_requests() {
        let (invalid, refused) = (Err(code::API_URL_INVALID), Err(code::API_ADDRESS_REFUSED));
        let api = Some("https://h.example/v1");
        let table = [
            (api, "items", Ok("https://h.example/v1/items")),
            (api, "/items?a=1#x", Ok("https://h.example/v1/items?a=1")),
            (api, "", Ok("https://h.example/v1/")),
            (api, "?q=http://x/", Ok("https://h.example/v1/?q=http://x/")),
            (api, "a/../b", Ok("https://h.example/v1/b")),
            (api, "//evil.example/", Ok("https://h.example/v1/evil.example/")),
            (api, "/\\evil.example/", Ok("https://h.example/v1/evil.example/")),
            (api, "@evil.example", Ok("https://h.example/v1/@evil.example")),
            (api, "javascript:x", Ok("https://h.example/v1/javascript:x")),
            (api, "../admin", invalid),
            (api, "%2e%2e/admin", invalid),
            (api, "a/..\\../admin", invalid),
            (api, "http://other.example/x", Ok("http://other.example/x")),
            (api, "HTTP://other.example", Ok("http://other.example/")),
            (api, "file:///etc/passwd", refused),
            (api, "gopher://h.example/", refused),
            (api, "http://user:secret@h.example/", invalid),
            (api, "http://", invalid),
            (api, "http://./", invalid),
            (api, "http://h.example:99999/", invalid),
            (None, "items", invalid),
            (None, "http://2130706433/", Ok("http://127.0.0.1/")),
            (None, "http://0x7f.1/", Ok("http://127.0.0.1/")),
            (None, "http://0177.0.0.1/", Ok("http://127.0.0.1/")),
            (None, "http://①②⑦.0.0.1/", Ok("http://127.0.0.1/")),
            (None, "http://[::ffff:127.0.0.1]/", Ok("http://[::ffff:7f00:1]/")),
        ];
        for (base, path, expect) in table {
            check(base, path, expect);
        }
        for base in ["", "h.example", "/v1", "https://h.example/?a=1"] {
            assert_eq!(Base::new(base).map(|_| ()).expect_err(base).code(), code::API_URL_INVALID);
        }
    }

    #[test]
    fn links() {
        let from = Url::parse("https://h.example/v1/items?page=1").expect("a URL");
        let table = [
            ("?page=2", Ok("https://h.example/v1/items?page=2")),
            ("/v2", Ok("https://h.example/v2")),
            ("//other.example/", Ok("https://other.example/")),
            ("http://[1", Err(code::API_URL_INVALID)),
            ("https://u:p@h.example/", Err(code::API_URL_INVALID)),
            ("file:///etc/passwd", Err(code::API_ADDRESS_REFUSED)),
        ];
        for (link, expect) in table {
            let got = follow(&from, link);
            assert_eq!(got.as_ref().map(Url::as_str).map_err(StepError::code), expect, "{link}");
        }
    }

    #[test]
    fn what_people_see_of_a_url() {
        let table = [
            ("https://h.example/a/b", "https://h.example/a/b"),
            ("https://h.example/a?key=secret&b=&c", "https://h.example/a?key=***&b=***&***"),
        ];
        for (url, expect) in table {
            assert_eq!(shown(&Url::parse(url).expect("a URL")), expect);
        }
        let user = Url::parse("https://u:secret@h.example/").expect("a URL");
        assert!(accept(user).is_err(), "such a URL never comes so far as to be shown");
        let long = Url::parse(&format!("https://h.example/{}", "a".repeat(5_000))).expect("a URL");
        assert_eq!(shown(&long).len(), SHOWN_BYTES + '…'.len_utf8());
    }
}
