//! Where nats-server is, apart from who we are: the client neither uses what a URL says of the latter nor
//! keeps it out of its logs.

use std::fmt;

/// What `nats.url` says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The servers, without credentials.
    pub(crate) servers: Vec<String>,
    /// The credentials of the first of them that has any.
    pub(crate) credentials: Option<Credentials>,
}

/// How we say who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// `nats://user:password@host`.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// `nats://token@host`.
    Token(String),
}

impl Address {
    /// Reads servers with commas between them.
    pub(crate) fn read(url: &str) -> Self {
        let mut credentials = None;
        let servers = url.split(',').map(|server| {
            let (scheme, rest) = match server.trim().split_once("://") {
                Some((scheme, rest)) => (format!("{scheme}://"), rest),
                None => (String::new(), server.trim()),
            };
            let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
            if !user.is_empty() {
                credentials.get_or_insert_with(|| Credentials::read(user));
            }
            format!("{scheme}{host}")
        });
        let servers = servers.collect();
        Self { servers, credentials }
    }
}

impl Credentials {
    fn read(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, password)) => {
                Self::Password { user: decoded(user), password: decoded(password) }
            }
            None => Self::Token(decoded(text)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.servers.join(","))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A text with its `%XX` as the bytes that they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out() {
        let password = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.into(), password: password.into() })
        };
        let token = |token: &str| Some(Credentials::Token(token.into()));
        let table: [(&str, &[&str], Option<Credentials>); 9] = [
            ("nats://h:1", &["nats://h:1"], None),
            ("h", &["h"], None),
            ("nats://u:p@h:1", &["nats://h:1"], password("u", "p")),
            ("tls://u:p@h, nats://i:2", &["tls://h", "nats://i:2"], password("u", "p")),
            (
                "nats://h,nats://u:p@i,nats://v:q@j",
                &["nats://h", "nats://i", "nats://j"],
                password("u", "p"),
            ),
            ("nats://t0ken@h", &["nats://h"], token("t0ken")),
            ("u:p@h", &["h"], password("u", "p")),
            ("nats://a%40b:%25%zz%4@h", &["nats://h"], password("a@b", "%%zz%4")),
            ("nats://u:p@q@h", &["nats://h"], password("u", "p@q")),
        ];
        for (url, servers, credentials) in table {
            let read = Address::read(url);
            assert_eq!(read.servers, servers, "{url}");
            assert!(read.credentials == credentials, "{url}");
        }
        let shown = format!("{:?} {:?}", Address::read("nats://u:canary@h"), token("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
