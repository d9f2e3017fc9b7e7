use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::servers::{Changed, changed};
use crate::{Cluster, Scratch, repository};

/// A cluster whose nodes are users of nats-server and speak TLS to both servers, with certificates that
/// only they trust.
#[derive(Debug)]
pub struct Secured {
    cluster: Cluster,
}

impl Secured {
    /// Starts it; `root` is the certificate that is trusted, as a path below the repository.
    ///
    /// # Errors
    /// If it does not become ready, as with a root that has not signed the servers' certificate.
    pub async fn start(root: &str) -> anyhow::Result<Self> {
        let settings = "[nats]\nrequire_tls = true\n";
        let cluster = Cluster::with_servers(1, 1, settings, |scratch| servers(scratch, root));
        Ok(Self { cluster: cluster.await? })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// For `localhost` and 127.0.0.1.
const SERVER: &str = "tests/certificates/server.pem";

fn servers(scratch: &Scratch, root: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut paths = Vec::new();
    for from in [root, SERVER, "tests/certificates/server.key"] {
        let from = repository().join(from);
        let path = scratch.path().join(from.file_name().unwrap_or_default());
        fs::copy(from, &path)?;
        // Of a test, so no secret: whoever runs Postgres reads it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        paths.push(path.display().to_string());
    }
    let [root, certificate, key] = paths.as_slice() else { anyhow::bail!("three files") };
    // Postgres refuses a key that others may read.
    let copy = format!("install -m 600 '{key}' \"$2/server.key\"");
    let postgres = format!("-c ssl=on -c ssl_cert_file='{certificate}' -c ssl_key_file=server.key");
    let nats = format!("--tls --tlscert '{certificate}' --tlskey '{key}'");
    let postgres = Changed { before: copy, arguments: postgres };
    let nats = Changed { arguments: nats, ..Changed::default() };
    let mut environment = changed(scratch, &postgres, &nats)?;
    environment.extend([
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGSSLROOTCERT", root.clone()),
        ("TASKER__NATS__CA_FILE", root.clone()),
    ]);
    Ok(environment)
}
