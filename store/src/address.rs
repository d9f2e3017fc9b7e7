//! Where the database is, and whether it may be spoken to in the clear.

use std::net::IpAddr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tasker_config::Database;

use crate::StoreError;

/// Reads `database.url`. On this machine nobody is between, so that what would only be preferred is not
/// asked for.
///
/// # Errors
/// If it cannot be read, or is an address elsewhere without TLS.
pub(crate) fn options(settings: &Database) -> Result<PgConnectOptions, StoreError> {
    let options: PgConnectOptions = settings.url.parse()?;
    let (host, mode) = (options.get_host().to_owned(), options.get_ssl_mode());
    let must_encrypt =
        matches!(mode, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if options.get_socket().is_some() || is_here(&host) {
        return Ok(match mode {
            PgSslMode::Prefer => options.ssl_mode(PgSslMode::Disable),
            _ => options,
        });
    }
    match mode {
        PgSslMode::VerifyFull => {}
        _ if must_encrypt => {
            tracing::warn!(
                host,
                "only sslmode=verify-full makes sure that the database is the right one"
            );
        }
        _ if settings.dangerously_allow_plaintext => {
            tracing::warn!(host, "Postgres is spoken to without TLS, unless it offers it");
        }
        _ => return Err(StoreError::Plaintext { host }),
    }
    Ok(options)
}

/// Whether a host is this machine: a socket's folder or a loopback address.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/') || host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use tasker_config::Loader;

    use super::*;

    fn read(url: &str, allowed: bool) -> Result<PgSslMode, StoreError> {
        let loader = Loader::new().and_then(|l| l.flag("database.url", url, "test"));
        let mut settings = loader.and_then(Loader::load).expect("valid settings").settings.database;
        settings.dangerously_allow_plaintext = allowed;
        options(&settings).map(|options| options.get_ssl_mode())
    }

    #[test]
    fn plaintext_stays_on_this_machine() {
        for url in [
            "postgres://u@127.0.0.1:1/d",
            "postgres://u@localhost/d",
            "postgres://u@[::1]:5/d",
            "postgres://u@%2Frun%2Fpostgresql/d",
            "postgres:///d?host=/run/postgresql",
        ] {
            let mode = read(url, false).expect(url);
            assert!(matches!(mode, PgSslMode::Disable), "{url}: {mode:?}");
        }
        for url in [
            "postgres://u:planted@10.0.0.1/d",
            "postgres://u@postgres:5432/d",
            "postgres://u@127.0.0.1/d?host=a.b",
            "postgres://u@a.b/d?sslmode=prefer",
            "postgres://u@a.b/d?sslmode=disable",
            "postgres://u@localhost.a.b/d",
        ] {
            let error = read(url, false).expect_err(url).to_string();
            assert!(error.contains("sslmode=verify-full") && !error.contains("planted"), "{error}");
            assert!(read(url, true).is_ok(), "{url}");
        }
        for mode in ["require", "verify-ca", "verify-full"] {
            let url = format!("postgres://u@a.b/d?sslmode={mode}");
            assert!(read(&url, false).is_ok(), "{url}");
        }
    }
}
