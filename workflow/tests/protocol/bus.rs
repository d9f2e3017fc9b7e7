//! JetStream: a multiset of messages that are delivered in any order.

/// A work item on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) slot: u8,
    pub(crate) seq: u8,
    /// How many members it brings beside this one: those behind it.
    pub(crate) with: u8,
    /// Which of several messages with the same id.
    pub(crate) copy: u8,
    pub(crate) attempt: u8,
    pub(crate) claim_required: bool,
    /// How often it was delivered, as far as the bus knows: 2 stands for any more.
    pub(crate) delivered: u8,
    /// Whether a delivery is out and its time (`ack_wait`) has not run out.
    pub(crate) out: bool,
    /// Whether it was there before the bus was restarted.
    pub(crate) old: bool,
}

impl Message {
    pub(crate) fn key(&self) -> Key {
        Key { slot: self.slot, seq: self.seq, copy: self.copy }
    }

    /// The steps that it brings.
    pub(crate) fn slots(&self) -> std::ops::RangeInclusive<u8> {
        self.slot..=self.slot + self.with
    }

    pub(crate) fn brings(&self, slot: u8) -> bool {
        self.slots().contains(&slot)
    }
}

/// What an acknowledgement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u8,
    pub(crate) seq: u8,
    pub(crate) copy: u8,
}

/// An id that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Id {
    slot: u8,
    seq: u8,
    /// How often.
    copies: u8,
    /// Whether a message of the same id is known as a duplicate.
    known: bool,
}

/// The bus.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bus {
    /// In order, so that equal buses are equal.
    pub(crate) messages: Vec<Message>,
    /// The ids that were taken (`Nats-Msg-Id`).
    seen: Vec<Id>,
}

impl Bus {
    /// Takes a message unless it knows its id; `forgets` is how it takes one twice.
    pub(crate) fn publish(&mut self, message: Message, forgets: bool) -> bool {
        let (slot, seq) = (message.slot, message.seq);
        let copy = match self.seen.iter_mut().find(|id| (id.slot, id.seq) == (slot, seq)) {
            Some(id) if forgets || !id.known => {
                (id.copies, id.known) = (id.copies + 1, true);
                id.copies - 1
            }
            Some(_) => return false,
            None => {
                self.seen.push(Id { slot, seq, copies: 1, known: true });
                self.seen.sort_unstable();
                0
            }
        };
        self.messages.push(Message { copy, ..message });
        self.messages.sort_unstable();
        true
    }

    pub(crate) fn knows(&self, slot: u8, seq: u8) -> bool {
        self.seen.iter().any(|id| (id.slot, id.seq) == (slot, seq) && id.known)
    }

    pub(crate) fn find(&self, key: Key) -> Option<usize> {
        self.messages.iter().position(|message| message.key() == key)
    }

    /// An acknowledgement removes the message, whoever sends it and however late.
    pub(crate) fn acknowledge(&mut self, key: Key) -> bool {
        self.find(key).map(|place| self.messages.remove(place)).is_some()
    }

    /// The store is gone with all it knew.
    pub(crate) fn lose_store(&mut self) {
        *self = Self::default();
    }

    /// A restart: deliveries are forgotten, and the ids of messages that are not stored any more.
    pub(crate) fn restart(&mut self) {
        for id in &mut self.seen {
            id.known &= self.messages.iter().any(|m| (m.slot, m.seq) == (id.slot, id.seq));
        }
        self.redeliver();
    }

    /// Deliveries are forgotten.
    pub(crate) fn redeliver(&mut self) {
        for message in &mut self.messages {
            (message.delivered, message.out, message.old) = (0, false, true);
        }
    }
}
