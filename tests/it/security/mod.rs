//! Who may do what: tokens, roles, namespaces, and what must not be seen by anybody.

mod namespaces;
mod objects;
mod requests;
mod roles;
mod secrets;
mod tokens;
