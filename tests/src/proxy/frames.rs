//! Where the messages of a byte stream begin and end.

use std::ops::Range;

use serde_json::Value;

/// What the bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Of the frontend and backend of Postgres, without TLS.
    Postgres,
    /// Of clients of NATS, without TLS.
    Nats,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// Whole messages out of pieces.
#[derive(Debug)]
pub(super) struct Frames {
    protocol: Protocol,
    way: Way,
    buffer: Vec<u8>,
    /// Before it are messages that were taken.
    taken: usize,
    /// Whether the first message is still to come: that of a client of Postgres has no type.
    is_first: bool,
}

/// Requests for encryption, which servers of Postgres answer with one byte and no message.
const REQUESTS_FOR_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

impl Frames {
    pub(super) fn new(protocol: Protocol, way: Way) -> Self {
        Self { protocol, way, buffer: Vec::new(), taken: 0, is_first: true }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let rest = &self.buffer[self.taken..];
        let length = match self.protocol {
            Protocol::Postgres if self.is_first && self.way == Way::Up => be_length(rest, 0)?,
            Protocol::Postgres => 1 + be_length(rest, 1)?,
            Protocol::Nats => nats_length(rest)?,
        };
        if rest.len() < length {
            return None;
        }
        self.is_first = false;
        let range = self.take(length);
        Some(&self.buffer[range])
    }

    /// Everything that is there, whatever it is.
    pub(super) fn rest(&mut self) -> &[u8] {
        let length = self.buffer.len() - self.taken;
        let range = self.take(length);
        &self.buffer[range]
    }

    fn take(&mut self, length: usize) -> Range<usize> {
        let begin = self.taken;
        self.taken += length;
        begin..self.taken
    }
}

/// The length that Postgres writes before its messages, which counts itself.
fn be_length(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(field) as usize)
}

/// A line, and the payload that it announces.
fn nats_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let has_payload = ["PUB ", "HPUB ", "MSG ", "HMSG "].iter().any(|verb| line.starts_with(verb));
    if !has_payload {
        return Some(end);
    }
    let payload: usize = line.split_whitespace().last()?.parse().unwrap_or(0);
    Some(end + payload + 2)
}

/// Whether a client of Postgres asks for encryption with its first message.
pub(super) fn asks_for_encryption(first: &[u8]) -> bool {
    be_length(first, 4).is_some_and(|code| REQUESTS_FOR_ENCRYPTION.contains(&(code as u32)))
}

/// The name that a client gives itself in this message, if it does.
pub(super) fn name_in(protocol: Protocol, is_first: bool, message: &[u8]) -> Option<String> {
    match protocol {
        Protocol::Postgres if is_first => {
            let mut fields = message.get(8..)?.split(|&byte| byte == 0);
            fields.find(|&field| field == b"application_name")?;
            Some(String::from_utf8_lossy(fields.next()?).into_owned())
        }
        Protocol::Nats if message.starts_with(b"CONNECT ") => {
            let options: Value = serde_json::from_slice(&message[b"CONNECT ".len()..]).ok()?;
            Some(options["name"].as_str()?.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All messages, of bytes that come one at a time.
    fn split(protocol: Protocol, way: Way, bytes: &[u8]) -> Vec<String> {
        let (mut frames, mut all) = (Frames::new(protocol, way), Vec::new());
        for byte in bytes {
            frames.push(&[*byte]);
            while let Some(frame) = frames.next() {
                all.push(String::from_utf8_lossy(frame).into_owned());
            }
        }
        assert_eq!(frames.rest(), b"", "something is left");
        all
    }

    #[test]
    fn messages_of_nats_have_payloads() {
        let up = b"CONNECT {\"name\": \"a\"}\r\nPUB x 4\r\n\r\n\r\n\r\nHPUB x y 2 5\r\nabcde\r\nPING\r\n";
        let lines = split(Protocol::Nats, Way::Up, up);
        assert_eq!(
            lines[1..],
            ["PUB x 4\r\n\r\n\r\n\r\n", "HPUB x y 2 5\r\nabcde\r\n", "PING\r\n"]
        );
        assert_eq!(name_in(Protocol::Nats, false, lines[0].as_bytes()).as_deref(), Some("a"));
        let down = b"MSG x 1 0\r\n\r\n-ERR 'x'\r\n";
        assert_eq!(split(Protocol::Nats, Way::Down, down), ["MSG x 1 0\r\n\r\n", "-ERR 'x'\r\n"]);
    }

    #[test]
    fn messages_of_postgres_have_lengths() {
        let start = b"\0\0\0\x22\0\x03\0\0application_name\0a b\0c\0d\0\0";
        let commit = b"Q\0\0\0\x0bCOMMIT\0";
        let up = split(Protocol::Postgres, Way::Up, &[&start[..], commit].concat());
        assert_eq!(up[1].as_bytes(), commit);
        assert_eq!(name_in(Protocol::Postgres, true, start).as_deref(), Some("a b"));
        assert!(!asks_for_encryption(start));
        assert!(asks_for_encryption(b"\0\0\0\x08\x04\xd2\x16\x2f"));
        assert_eq!(split(Protocol::Postgres, Way::Down, commit).len(), 1);
    }
}
