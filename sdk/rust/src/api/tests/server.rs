use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::super::ApiClientBuilder;
use crate::ApiClient;

/// A request as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the server does about a request.
pub(super) enum Reply {
    /// Sends this and closes.
    Send(String),
    /// Sends this and then nothing, until the client closes.
    Stall(String),
}

impl Reply {
    pub(super) fn of(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Send(format!(
            "HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\nconnection: close\r\n\
             {headers}\r\n{body}"
        ))
    }

    pub(super) fn json(body: &Value) -> Self {
        Self::of(200, "content-type: application/json\r\n", &body.to_string())
    }

    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self::of(status, &format!("location: {location}\r\n"), "")
    }
}

/// An HTTP server on loopback, one request per connection.
pub(super) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, reply).await
    }

    pub(super) async fn start_with(
        tls: Option<TlsAcceptor>,
        reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (record, reply) = (Arc::clone(&asked), Arc::new(reply));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, reply, tls) = (Arc::clone(&record), Arc::clone(&reply), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &record, &*reply).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &record, &*reply).await,
                            // The client does not trust us.
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, asked, serving }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client of this server, which may connect to 127.0.0.1 and nothing else on loopback.
    pub(super) fn client(&self) -> ApiClientBuilder {
        ApiClient::builder().base_url(self.url("")).allow_network("127.0.0.1")
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Methods and targets of the requests so far.
    pub(super) fn log(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads one request and answers it; `None` if the client went away.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    record: &Mutex<Vec<Asked>>,
    reply: impl Fn(&Asked) -> Reply,
) -> Option<()> {
    let asked = read(&mut stream).await?;
    // Before the answer: the test looks when it has that.
    record.lock().expect("no panic").push(asked.clone());
    match reply(&asked) {
        Reply::Send(answer) => {
            stream.write_all(answer.as_bytes()).await.ok()?;
            stream.shutdown().await.ok()
        }
        Reply::Stall(beginning) => {
            stream.write_all(beginning.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            while stream.read_u8().await.is_ok() {}
            None
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("text");
    let mut lines = head.split("\r\n");
    let mut request = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (request.next()?, request.next()?);
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |text| text.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { method, target, headers, body: String::from_utf8(body).expect("text") })
}
