use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::{Secret, invalid_request};
use crate::StepError;

/// How a client says who it is.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    Bearer(Secret),
    Basic { user: String, password: Secret },
    ApiKey { header: String, key: Secret },
}

impl Credentials {
    pub(super) fn header(&self) -> Result<(HeaderName, HeaderValue), StepError> {
        let (name, value) = match self {
            Self::Bearer(token) => (AUTHORIZATION, format!("Bearer {}", token.expose())),
            Self::Basic { user, .. } if user.contains(':') => {
                return Err(invalid_request("the user of a basic authentication has a colon"));
            }
            Self::Basic { user, password } => {
                (AUTHORIZATION, format!("Basic {}", basic(user, password)))
            }
            Self::ApiKey { header, key } => (header_name(header)?, key.expose().to_owned()),
        };
        // The text of the error would not show the value, but nothing here depends on that.
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| invalid_request(format!("the secret for `{name}` cannot be sent")))?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    /// Everything that must not be shown.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::Bearer(token) => vec![token.expose().to_owned()],
            Self::Basic { user, password } => {
                vec![password.expose().to_owned(), basic(user, password)]
            }
            Self::ApiKey { key, .. } => vec![key.expose().to_owned()],
        }
    }
}

fn basic(user: &str, password: &Secret) -> String {
    BASE64.encode(format!("{user}:{}", password.expose()))
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, StepError> {
    HeaderName::try_from(name).map_err(|_| invalid_request(format!("{name:?} is no header name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    fn check(credentials: &Credentials, expect: Result<(&str, &str), &str>) {
        let got = credentials.header();
        let got = got.as_ref().map(|(name, value)| {
            assert!(value.is_sensitive());
            (name.as_str(), value.to_str().expect("ASCII"))
        });
        assert_eq!(got.map_err(StepError::code), expect);
    }

    #[test]
    fn headers() {
        let bad = Err(code::API_REQUEST_INVALID);
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.to_owned(),
            password: Secret::new(password),
        };
        let key = |header: &str, key: &str| Credentials::ApiKey {
            header: header.to_owned(),
            key: Secret::new(key),
        };
        check(&Credentials::Bearer(Secret::new("t")), Ok(("authorization", "Bearer t")));
        check(&Credentials::Bearer(Secret::new("t\nx: y")), bad);
        // The pair of RFC 7617, section 2.
        let expect = Ok(("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        check(&basic("Aladdin", "open sesame"), expect);
        check(&basic("a:b", "c"), bad);
        check(&key("X-Api-Key", "k"), Ok(("x-api-key", "k")));
        check(&key("X Api Key", "k"), bad);
    }
}
