use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A program that does what it likes: the text protocol of NATS over a socket.
pub(super) struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    /// # Errors
    /// What the server says if it does not let the user in.
    pub(super) fn connect(port: u16, user: &str, password: &str) -> Result<Self, String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let mut raw = Self { stream: BufReader::new(stream) };
        assert!(raw.line().starts_with("INFO "));
        let options = serde_json::json!({"verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "protocol": 1, "lang": "raw", "version": "0",
            "user": user, "pass": password});
        raw.send(&format!("CONNECT {options}\r\n"));
        match raw.refusal() {
            None => Ok(raw),
            Some(said) => Err(said),
        }
    }

    /// Publishes, with a subject for the answer if there is one; what the server says against it.
    pub(super) fn publish(&mut self, subject: &str, reply: &str, payload: &str) -> Option<String> {
        self.send(&format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()));
        self.refusal()
    }

    /// Subscribes to a subject, or to `SUBJECT GROUP`; what the server says against it.
    pub(super) fn subscribe(&mut self, subject: &str) -> Option<String> {
        self.send(&format!("SUB {subject} 1\r\n"));
        self.refusal()
    }

    /// The server works off what a connection sends in order: what it has against anything stands before
    /// the answer to a later ping.
    fn refusal(&mut self) -> Option<String> {
        self.send("PING\r\n");
        let mut refusal = None;
        loop {
            let line = self.line();
            match line.split_whitespace().next() {
                Some("PONG") => return refusal,
                Some("-ERR") => refusal = Some(line),
                Some("PING") => self.send("PONG\r\n"),
                // The connection is closed.
                None => return Some(refusal.unwrap_or_else(|| "closed".to_owned())),
                _ => {}
            }
        }
    }

    fn send(&mut self, text: &str) {
        // Nobody listens any more to a user who was not let in.
        let _closed = self.stream.get_mut().write_all(text.as_bytes());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _closed = self.stream.read_line(&mut line);
        line
    }
}
