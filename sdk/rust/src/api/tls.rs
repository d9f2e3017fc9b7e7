use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto};

use super::invalid_request;
use crate::StepError;

/// The machine's roots, read once for all clients of the process: there are some hundred files.
static SYSTEM_ROOTS: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let errors = found.errors.len();
        tracing::warn!(errors, "no root certificates on this machine; https will be refused");
    }
    // Old roots that rustls cannot read are common, and no reason to do without the others.
    roots.add_parsable_certificates(found.certs);
    roots
});

/// TLS as clients use it: the machine's roots and those that are given, as PEM.
pub(super) fn settings(extra_roots: &[Vec<u8>]) -> Result<ClientConfig, StepError> {
    let mut roots = SYSTEM_ROOTS.clone();
    for pem in extra_roots {
        add_pem(&mut roots, pem)
            .map_err(|why| invalid_request(format!("a root certificate in PEM: {why}")))?;
    }
    // The provider is named, so that it does not matter what others install for the process.
    let settings = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid_request(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(settings)
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("there is none".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    #[test]
    fn roots_that_are_none() {
        let not_base64 = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let not_a_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [&b""[..], b"text", not_base64, not_a_certificate] {
            let error = settings(&[pem.to_vec()]).expect_err("no root");
            assert_eq!(error.code(), code::API_REQUEST_INVALID);
        }
    }
}
