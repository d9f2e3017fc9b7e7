//! Identifiers. All are UUIDv7 made by the program that creates the thing; members of a batch
//! derive theirs from the batch.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made elsewhere.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID inside.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

id!(
    /// One run of a template.
    TaskId
);
id!(
    /// One step of one task. The idempotency key that handlers see.
    StepId
);
id!(
    /// One expanded batchable step.
    BatchId
);
id!(
    /// One registered version of a template.
    TemplateId
);
id!(
    /// One orchestrator process, new at every start.
    NodeId
);
id!(
    /// One worker process, new at every start.
    WorkerId
);
id!(
    /// One token of the HTTP API. No secret: it is shown and logged.
    TokenId
);

/// The low bits of a member's id that hold its ordinal.
const ORDINAL_MASK: u128 = u32::MAX as u128;

impl BatchId {
    /// The id of the batch's member with this ordinal: time and randomness of the batch, the
    /// ordinal in the low 32 bits.
    ///
    /// Members are therefore ordered by id as by ordinal, stand next to each other in an index,
    /// and a second expansion of the same batch makes the same ids.
    pub const fn member(self, ordinal: u32) -> StepId {
        let base = self.0.as_u128() & !ORDINAL_MASK;
        StepId(Uuid::from_u128(base | ordinal as u128))
    }

    /// What the ids of its members have in common, see [`StepId::family`].
    pub const fn family(self) -> u128 {
        self.0.as_u128() >> ORDINAL_MASK.count_ones()
    }
}

impl StepId {
    /// The ordinal inside a member's id; meaningless for a step that is not a member of a batch.
    pub const fn ordinal(self) -> u32 {
        (self.0.as_u128() & ORDINAL_MASK) as u32
    }

    /// The member of the same batch with this ordinal; meaningless for a step that is not a member.
    pub const fn sibling(self, ordinal: u32) -> Self {
        let family = self.0.as_u128() & !ORDINAL_MASK;
        Self(Uuid::from_u128(family | ordinal as u128))
    }

    /// The id without its ordinal: the same for all members of a batch, and another one for each
    /// step that is no member.
    pub const fn family(self) -> u128 {
        self.0.as_u128() >> ORDINAL_MASK.count_ones()
    }
}

impl NodeId {
    /// The form that stands as one token in a subject.
    pub fn token(self) -> String {
        self.0.simple().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_ordered_and_derived() {
        let batch = BatchId::from_uuid(Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_ffff_ffff));
        let ids: Vec<_> = [0, 1, 255, 256, u32::MAX].map(|n| batch.member(n)).to_vec();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[3].ordinal(), 256);
        assert!(ids.iter().all(|id| id.family() == batch.family()));
        assert_eq!(ids[0].as_uuid().get_version_num(), 7);
        assert_eq!(
            ids[0],
            StepId::from_uuid(Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_0000_0000))
        );
    }
}
