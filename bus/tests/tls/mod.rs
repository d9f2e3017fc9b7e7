//! TLS to a real nats-server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tasker_bus::{Bus, BusError};
use tasker_config::Nats;

use crate::support::TestServer;

/// Made for tests: for the name `localhost` and no address.
fn certificate(name: &str) -> PathBuf {
    let folder = "../sdk/rust/src/api/tests/certificates";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

fn start() -> TestServer {
    TestServer::start_with(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}",
        certificate("server.pem"),
        certificate("server.key")
    ))
}

/// Whether a connection comes about.
async fn connects(settings: &Nats) -> bool {
    let bus = Bus::connect(settings, "tls").await.expect("valid settings");
    bus.wait_connected(Duration::from_secs(2)).await.is_ok()
}

#[tokio::test]
async fn only_the_right_certificate_is_trusted() {
    let server = start();
    let mut settings = server.settings().nats;
    settings.ca_file = certificate("root.pem");
    for (url, ca_file, expect) in [
        (format!("tls://localhost:{}", server.port), "root.pem", true),
        // The server demands it.
        (format!("nats://localhost:{}", server.port), "root.pem", true),
        // The certificate is for another name.
        (format!("tls://127.0.0.1:{}", server.port), "root.pem", false),
        // Nobody knows who signed it.
        (format!("tls://localhost:{}", server.port), "", false),
    ] {
        let ca_file = if ca_file.is_empty() { PathBuf::new() } else { certificate(ca_file) };
        let settings = Nats { url: url.clone(), ca_file, ..settings.clone() };
        assert_eq!(connects(&settings).await, expect, "{url} {:?}", settings.ca_file);
    }
}

#[tokio::test]
async fn nothing_is_said_in_the_clear_where_tls_is_required() {
    let server = TestServer::start();
    let settings = server.settings().nats;
    assert!(connects(&settings).await);
    let strict = Nats { require_tls: true, ..settings };
    assert!(!connects(&strict).await);
}

#[tokio::test]
async fn mistakes_are_told_at_the_start() {
    let settings = TestServer::start().settings().nats;
    let elsewhere = Nats { url: "nats://192.0.2.1:4222".into(), ..settings.clone() };
    let no_file = Nats { ca_file: "/nowhere".into(), ..settings.clone() };
    let no_password = Nats { user: "worker".into(), ..settings };
    for (settings, key) in
        [(elsewhere, "nats.url"), (no_file, "nats.ca_file"), (no_password, "nats.password")]
    {
        let error = Bus::connect(&settings, "tls").await.err().expect("refused");
        assert!(matches!(error, BusError::Setting { key: k, .. } if k == key), "{key}: {error}");
    }
}
