use boon::{ErrorKind, InstanceToken, ValidationError};

/// Longest text about one violation, in characters.
const MAX_TEXT: usize = 300;
/// Longest name of a key in a path, in characters.
const MAX_KEY: usize = 60;

/// One thing of a value that does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, such as `context.orders[2].price`.
    pub path: String,
    /// What is wrong. Texts of the value are not shown: they may be secret, and long.
    pub message: String,
}

/// What is wrong at the ends of an error's branches, at most so many things. With an empty name the
/// paths are JSON pointers.
pub(super) fn all(error: &ValidationError<'_, '_>, name: &str, most: usize) -> Vec<Violation> {
    let mut found = Vec::new();
    gather(error, name, most, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn gather(error: &ValidationError<'_, '_>, name: &str, most: usize, found: &mut Vec<Violation>) {
    // What is wrong with each alternative says little, and may be very much.
    let alternatives = matches!(error.kind, ErrorKind::AnyOf | ErrorKind::OneOf(_));
    if !error.causes.is_empty() && !alternatives {
        for cause in &error.causes {
            gather(cause, name, most, found);
        }
    } else if found.len() < most {
        found.push(Violation { path: path(error, name), message: message(&error.kind) });
    }
}

fn path(error: &ValidationError<'_, '_>, name: &str) -> String {
    let tokens = &error.instance_location.tokens;
    if name.is_empty() {
        return error.instance_location.to_string();
    }
    tokens.iter().fold(name.to_owned(), |mut path, token| {
        match token {
            InstanceToken::Item(n) => path.push_str(&format!("[{n}]")),
            InstanceToken::Prop(key) => {
                path.push('.');
                path.extend(key.chars().take(MAX_KEY).flat_map(char::escape_debug));
            }
        }
        path
    })
}

fn message(kind: &ErrorKind<'_, '_>) -> String {
    match kind {
        ErrorKind::Pattern { want, .. } => text(&format!("does not match the pattern {want:?}")),
        ErrorKind::Format { want, .. } => format!("is not a valid {want}"),
        ErrorKind::FalseSchema => "must not be there".to_owned(),
        ErrorKind::AnyOf => "fits no schema of `anyOf`".to_owned(),
        ErrorKind::OneOf(None) => "fits no schema of `oneOf`".to_owned(),
        ErrorKind::OneOf(Some(_)) => "fits more than one schema of `oneOf`".to_owned(),
        ErrorKind::Not => "fits the schema of `not`".to_owned(),
        ErrorKind::Enum { .. } => "is none of the values of `enum`".to_owned(),
        ErrorKind::Const { .. } => "is not the value of `const`".to_owned(),
        other => text(&other.to_string()),
    }
}

/// A message as it may be shown: short, without control characters.
pub(super) fn text(message: &str) -> String {
    let mut shown = String::with_capacity(message.len().min(MAX_TEXT));
    for (n, c) in message.chars().enumerate() {
        if n == MAX_TEXT {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown
}
