use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;

/// A program that knows nothing of Tasker's libraries: the text protocol of NATS over a socket.
/// It can send what those never would, for instance a request without a protocol version.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
    inbox: String,
    requests: u32,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The header block; empty if there is none.
    pub headers: String,
    /// The body; null if it is not JSON.
    pub body: Value,
}

impl Reply {
    /// The stable code of a refusal; empty if there is none.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

const LIMIT: Duration = Duration::from_secs(30);

impl Wire {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("nats://").context("a URL of NATS")?;
        let stream = BufReader::new(TcpStream::connect(address).await?);
        let inbox = format!("_INBOX.{}", Uuid::now_v7().simple());
        let mut wire = Self { stream, inbox, requests: 0 };
        let greeting = wire.line().await?;
        ensure!(greeting.starts_with("INFO "), "not a nats-server: {greeting}");
        let options = json!({"verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "lang": "wire", "version": "0", "protocol": 1});
        let subscribe = format!("CONNECT {options}\r\nSUB {}.* 1\r\n", wire.inbox);
        wire.stream.write_all(subscribe.as_bytes()).await?;
        Ok(wire)
    }

    /// Sends a request with exactly these headers and waits for the answer.
    ///
    /// # Errors
    /// If there is none within 30 s, or nobody listens to the subject.
    pub async fn request(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> anyhow::Result<Reply> {
        self.requests += 1;
        let reply_to = format!("{}.{}", self.inbox, self.requests);
        self.publish(subject, &reply_to, headers, payload).await?;
        let answered = tokio::time::timeout(LIMIT, self.answer(&reply_to)).await;
        answered.with_context(|| format!("no answer on {subject}"))?
    }

    async fn publish(
        &mut self,
        subject: &str,
        reply_to: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let mut block = String::new();
        for (name, value) in headers {
            block.push_str(&format!("{name}: {value}\r\n"));
        }
        let head = if block.is_empty() {
            format!("PUB {subject} {reply_to} {}\r\n", payload.len())
        } else {
            block = format!("NATS/1.0\r\n{block}\r\n");
            let (before, all) = (block.len(), block.len() + payload.len());
            format!("HPUB {subject} {reply_to} {before} {all}\r\n")
        };
        let message = [head.as_bytes(), block.as_bytes(), payload, b"\r\n"].concat();
        Ok(self.stream.write_all(&message).await?)
    }

    async fn answer(&mut self, reply_to: &str) -> anyhow::Result<Reply> {
        loop {
            let line = self.line().await?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let (header_bytes, bytes) = match words.as_slice() {
                ["PING"] => {
                    self.stream.write_all(b"PONG\r\n").await?;
                    continue;
                }
                ["MSG", _, _, bytes] => (0, bytes.parse::<usize>()?),
                ["HMSG", _, _, headers, bytes] => (headers.parse()?, bytes.parse()?),
                ["-ERR", ..] => bail!("nats-server says {line}"),
                _ => continue,
            };
            let is_mine = words[1] == reply_to;
            let mut content = vec![0; bytes + 2];
            self.stream.read_exact(&mut content).await?;
            if !is_mine {
                continue;
            }
            let (headers, body) = content[..bytes].split_at(header_bytes);
            let headers = String::from_utf8_lossy(headers).into_owned();
            ensure!(!headers.starts_with("NATS/1.0 503"), "nobody listens");
            let body = serde_json::from_slice(body).unwrap_or_default();
            return Ok(Reply { headers, body });
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let bytes = self.stream.read_line(&mut line).await?;
        ensure!(bytes > 0, "nats-server closed the connection");
        Ok(line)
    }
}
