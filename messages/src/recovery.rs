//! What a cluster mends by itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Namespace, Queue};

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryKind {
    /// Work items were missing on the bus, and were sent again.
    LostMessages,
    /// The stream of work items is another one than before: what was outstanding was sent again.
    NewStream,
    /// The stream of work items has fallen back to an earlier state.
    RolledBackStream,
    /// Steps waited on a queue that had no consumer: it was made again.
    MissingConsumer,
    /// A consumer did not deliver what waited although workers had room: it was made anew.
    StalledConsumer,
}

impl RecoveryKind {
    /// All of them.
    pub const ALL: [RecoveryKind; 5] = [
        Self::LostMessages,
        Self::NewStream,
        Self::RolledBackStream,
        Self::MissingConsumer,
        Self::StalledConsumer,
    ];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LostMessages => "lost_messages",
            Self::NewStream => "new_stream",
            Self::RolledBackStream => "rolled_back_stream",
            Self::MissingConsumer => "missing_consumer",
            Self::StalledConsumer => "stalled_consumer",
        }
    }
}

impl fmt::Display for RecoveryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecoveryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no kind of recovery"))
    }
}

/// Something that was mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When, by the database's clock, in RFC 3339.
    pub at: String,
    /// What was wrong.
    pub kind: RecoveryKind,
    /// Where, if it was in one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Which queue, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// How many steps were sent again.
    pub steps: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in RecoveryKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        }
        assert!("else".parse::<RecoveryKind>().is_err());
    }
}
