//! What a token is made of, and how one is compared with what is stored.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tasker_messages::TokenId;
use uuid::Uuid;

/// A token as its owner holds it: `tasker_<id>_<secret>`, both in hexadecimal digits. The id is
/// looked up; the secret is 256 random bits, of which only the hash is stored.
#[derive(Clone)]
pub struct ApiToken {
    id: TokenId,
    secret: [u8; 32],
}

/// How tokens begin, so that those who look for leaked secrets find them.
const PREFIX: &str = "tasker_";
/// Digits of the id and of the secret, and the character between them.
const LENGTH: usize = 32 + 1 + 64;

impl ApiToken {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no random bytes to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { id: TokenId::from_uuid(Uuid::now_v7()), secret })
    }

    /// Reads one; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX).filter(|rest| rest.len() == LENGTH)?;
        let (id, secret) = rest.split_once('_')?;
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if id.len() != 32 || !is_hex(id) || !is_hex(secret) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(secret.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self { id: id.parse().ok()?, secret: bytes })
    }

    /// Which one it says it is.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The whole of it, for its owner.
    pub fn reveal(&self) -> String {
        let digits: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{}_{digits}", self.id.as_uuid().simple())
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether this is the stored hash, in a time that does not tell how much of it is right.
    pub(crate) fn has_hash(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, ***)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown() {
        let (token, other) = (ApiToken::generate(), ApiToken::generate());
        let (token, other) = (token.expect("random bytes"), other.expect("random bytes"));
        let shown = token.reveal();
        let read = ApiToken::parse(&shown).expect("a token");
        assert_eq!((read.id(), read.secret), (token.id(), token.secret));
        assert!(read.has_hash(&token.hash()) && !read.has_hash(&other.hash()));
        let secret = shown.rsplit('_').next().expect("a secret");
        assert!(!format!("{token:?}").contains(secret));
        assert_ne!(token.hash(), token.secret);
    }

    #[test]
    fn what_is_no_token() {
        let token = ApiToken::generate().expect("random bytes").reveal();
        let (head, digits) = token.split_at(token.len() - 64);
        let bad = [
            String::new(),
            "tasker_".to_owned(),
            token[1..].to_owned(),
            format!("{token}0"),
            token[..token.len() - 1].to_owned(),
            format!(" {token}"),
            token.to_ascii_uppercase(),
            format!("{head}+{}", &digits[1..]),
            format!("{head}g{}", &digits[1..]),
            format!("{head}\u{e9}{}", &digits[2..]),
            token.replace('_', "-"),
            format!("tasker_{}", "_".repeat(97)),
            format!("tasker_{}", "0".repeat(97)),
        ];
        for text in bad {
            assert!(ApiToken::parse(&text).is_none(), "{text:?}");
        }
    }
}
