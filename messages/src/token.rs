//! Who may do what over HTTP: roles, the namespaces that they hold for, and tokens as people see them.

use serde::{Deserialize, Serialize};

use crate::repair::is_prose;
use crate::state::names;
use crate::{Namespace, Problem, Refusal, TokenId, code};

/// What somebody may do in a namespace. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything.
    Viewer,
    /// Submits tasks.
    Submitter,
    /// Stops, repairs and redrives what is there, and drains workers.
    Operator,
    /// Says which code runs and how much of it: templates and limits.
    Admin,
}

names!(Role, "role",
    Viewer => "viewer", Submitter => "submitter", Operator => "operator", Admin => "admin");

/// The namespaces that a credential is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Every one, also those that do not exist yet.
    #[default]
    All,
    /// These.
    Only(Vec<Namespace>),
}

impl Scope {
    /// Of one namespace, or of all.
    pub fn of(namespace: Option<Namespace>) -> Self {
        namespace.map_or(Self::All, |namespace| Self::Only(vec![namespace]))
    }

    /// Whether a namespace is among them; a name that breaks the rule of namespaces is only in all.
    pub fn holds(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name.as_str() == namespace),
        }
    }

    /// Refuses a namespace that a request names and that is not among them. It does not matter
    /// whether there is one of this name, so that nobody learns it.
    ///
    /// # Errors
    /// [`code::FOREIGN_NAMESPACE`].
    pub fn check(&self, namespace: &str) -> Result<(), Refusal> {
        if self.holds(namespace) {
            return Ok(());
        }
        let message = format!("the token is not for the namespace `{}`", namespace.escape_debug());
        Err(Refusal::new(code::FOREIGN_NAMESPACE, message))
    }

    /// As the parameter of a query; `None` is every namespace.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
        }
    }
}

/// Checks the name of a token, which stands in front of what people say of themselves in the audit
/// trail: it must not be able to look like more than a name.
///
/// # Errors
/// What is wrong with it.
pub fn check_token_name(name: &str) -> Result<(), Problem> {
    const MOST: usize = 64;
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let all = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if first && all && name.len() <= MOST && is_prose(name) {
        return Ok(());
    }
    let message = format!("must match [A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}", MOST - 1);
    Err(Problem::new(code::INVALID_NAME, message).at("name"))
}

/// A token without its secret, which nobody has but its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id, which is also the first part of the token.
    pub id: TokenId,
    /// What it is called in the audit trail.
    pub name: String,
    /// What it may be used for.
    pub role: Role,
    /// Where; null is every namespace.
    pub namespaces: Option<Vec<Namespace>>,
    /// Whether it is accepted now.
    pub state: TokenState,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// Until when it is accepted, RFC 3339.
    pub expires_at: String,
    /// When it was revoked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// Whether a token is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody has revoked it.
    Revoked,
}

names!(TokenState, "state of a token",
    Active => "active", Expired => "expired", Revoked => "revoked");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        assert!(Role::ALL.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_scope_holds_what_it_names() {
        let name = |name: &str| Namespace::new(name).expect("a name");
        let only = Scope::Only(vec![name("a"), name("b")]);
        for (scope, namespace, expect) in [
            (&Scope::All, "a", true),
            (&Scope::All, "Not A Name", true),
            (&only, "a", true),
            (&only, "b", true),
            (&only, "c", false),
            (&only, "", false),
            (&only, "a,b", false),
            (&Scope::Only(Vec::new()), "a", false),
        ] {
            assert_eq!(scope.holds(namespace), expect, "{scope:?} {namespace}");
            let refused = scope.check(namespace).map_err(|refusal| refusal.code);
            assert_eq!(refused.is_err(), !expect);
        }
        assert_eq!(Scope::All.names(), None);
        assert_eq!(only.names(), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(Scope::of(Some(name("a"))), Scope::Only(vec![name("a")]));
    }

    #[test]
    fn names_of_tokens() {
        for good in ["ci", "CI-1", "a.b_c", "0", &"x".repeat(64)] {
            check_token_name(good).expect(good);
        }
        for bad in ["", "-a", "a b", "a(b)", "a/b", "\u{e9}", "a\n", &"x".repeat(65)] {
            check_token_name(bad).expect_err(bad);
        }
    }
}
