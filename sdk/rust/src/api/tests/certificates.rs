use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::{Asked, Reply, Server};
use crate::{ApiClient, ApiClientBuilder, code};

/// Made for these tests with a root that signed nothing else and whose key is gone; valid for a
/// hundred years, for the name `localhost` and no address.
const ROOT: &str = include_str!("certificates/root.pem");
const CERTIFICATE: &[u8] = include_bytes!("certificates/server.pem");
const KEY: &[u8] = include_bytes!("certificates/server.key");

async fn tls_server(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let tls = TlsAcceptor::from(Arc::new(settings));
    Server::start_with(Some(tls), reply).await
}

fn inside(_: &Asked) -> Reply {
    Reply::json(&json!("inside"))
}

fn client(builder: ApiClientBuilder) -> ApiClient {
    builder.allow_network("127.0.0.0/8").build().expect("a client")
}

#[tokio::test]
async fn roots_of_ones_own() {
    let server = tls_server(inside).await;
    let trusting = client(ApiClient::builder().root_certificates_pem(ROOT));
    let url = format!("https://localhost:{}/", server.port());
    assert_eq!(trusting.get(&url).await.expect("trusted").json(), Ok(json!("inside")));
    assert_eq!(server.log(), ["GET /"]);
}

#[tokio::test]
async fn certificates_that_are_not_trusted() {
    let server = tls_server(inside).await;
    let table = [
        // Nobody knows the root.
        (client(ApiClient::builder()), "localhost"),
        // The root is known, and the certificate is for another name.
        (client(ApiClient::builder().root_certificates_pem(ROOT)), "127.0.0.1"),
    ];
    for (client, host) in table {
        let url = format!("https://{host}:{}/", server.port());
        let failure = client.get(&url).await.expect_err("not trusted").into_failure();
        let got = (failure.code.as_str(), failure.retryable);
        assert_eq!(got, (code::API_TLS_REFUSED, false), "{host}: {}", failure.message);
    }
    assert_eq!(server.log(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_goes_on_from_https_to_http() {
    let plain = Server::start(inside).await;
    let location = plain.url("/");
    let server = tls_server(move |_| Reply::redirect(302, &location)).await;
    let client = client(ApiClient::builder().root_certificates_pem(ROOT));
    let url = format!("https://localhost:{}/", server.port());
    let error = client.get(&url).await.expect_err("not followed");
    assert_eq!((error.code(), error.is_retryable()), (code::API_REDIRECT_REFUSED, false));
    assert_eq!(plain.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_without_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}/", listener.local_addr().expect("it listens"));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("it listens");
    });
    let error = client(ApiClient::builder()).get(&url).await.expect_err("no TLS");
    assert_eq!((error.code(), error.is_retryable()), (code::API_UNREACHABLE, true));
    server.await.expect("no panic");
}
