//! Which servers to connect to, and whether their addresses may be spoken to in the clear.

use std::net::IpAddr;

use async_nats::ServerAddr;
use tasker_config::Nats;

use crate::BusError;
use crate::address::Address;

/// The servers of `nats.url`.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) addresses: Vec<ServerAddr>,
    /// Whether all of them must speak TLS.
    pub(crate) tls: bool,
    /// Whether to connect to further servers that these name, which may be anywhere.
    pub(crate) may_learn_others: bool,
}

const URL: &str = "nats.url";

impl Servers {
    /// # Errors
    /// If an address cannot be read, or is one elsewhere without TLS.
    pub(crate) fn read(address: &Address, settings: &Nats) -> Result<Self, BusError> {
        let addresses: Vec<ServerAddr> = address
            .servers
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error: std::io::Error| BusError::setting(URL, error.to_string()))?;
        // One of them means all: what a server says of others has no scheme.
        let tls = settings.require_tls || addresses.iter().any(ServerAddr::tls_required);
        let elsewhere = addresses.iter().find(|address| !is_loopback(address.host()));
        let plaintext = settings.dangerously_allow_plaintext;
        match elsewhere {
            Some(server) if !tls && !plaintext => {
                let message = format!(
                    "{} is another machine, and without TLS all between could read passwords and \
                     work: use tls://, or set nats.require_tls, or \
                     nats.dangerously_allow_plaintext if nobody else is on that network",
                    server.host()
                );
                return Err(BusError::setting(URL, message));
            }
            Some(server) if !tls => {
                tracing::warn!(server = server.host(), "NATS is spoken to without TLS");
            }
            _ => {}
        }
        Ok(Self { addresses, tls, may_learn_others: tls || plaintext })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use tasker_config::Loader;

    use super::*;

    fn read(url: &str, more: &[&str]) -> Result<Servers, BusError> {
        let mut loader = Loader::new().and_then(|l| l.flag("nats.url", url, "test"));
        for key in more {
            loader = loader.and_then(|l| l.flag(key, "true", "test"));
        }
        let settings = loader.and_then(Loader::load).expect("valid settings").settings.nats;
        Servers::read(&Address::read(&settings.url), &settings)
    }

    #[test]
    fn plaintext_stays_on_this_machine() {
        for url in ["nats://127.0.0.1:1", "localhost", "nats://[::1]:1,127.9.9.9:2"] {
            let servers = read(url, &[]).expect(url);
            assert!(!servers.tls && !servers.may_learn_others, "{url}");
        }
        let allowed = "nats.dangerously_allow_plaintext";
        for url in
            ["nats://10.0.0.1:1", "nats:4222", "127.0.0.1,nats://[fe80::1]:1", "localhost.a.b"]
        {
            let error = read(url, &[]).expect_err(url).to_string();
            assert!(error.starts_with("nats.url: ") && error.contains(allowed), "{error}");
            assert!(read(url, &["nats.require_tls"]).expect(url).tls);
            assert!(!read(url, &[allowed]).expect(url).tls);
        }
        assert!(read("tls://a.b:1,127.0.0.1", &[]).expect("TLS").tls);
    }

    #[test]
    fn errors_hold_no_credentials() {
        for url in ["http://u:planted@127.0.0.1", "nats://u:planted@10.0.0.1"] {
            let error = read(url, &[]).expect_err(url).to_string();
            assert!(!error.contains("planted"), "{error}");
        }
    }
}
