//! Ports of this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;
use uuid::Uuid;

/// Ports below this often belong to something.
const LOWEST: u16 = 10_000;
/// What Linux does unless told otherwise.
const USUAL_FIRST_EPHEMERAL: u16 = 32_768;
const PROBE: Duration = Duration::from_secs(1);

/// A free TCP port on 127.0.0.1.
///
/// It is outside of the range that the kernel gives to outgoing connections. A port from inside
/// could be taken by one while its server is being restarted; worse, a client that keeps trying to
/// reconnect to it would sooner or later be connected to itself.
pub(super) fn free() -> io::Result<u16> {
    let span = u128::from(first_ephemeral().saturating_sub(LOWEST).max(1));
    for _ in 0..100 {
        // The low bits of a UUIDv7 are random.
        let port = LOWEST + (Uuid::now_v7().as_u128() % span) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range.ok().and_then(|text| parse_first(&text)).unwrap_or(USUAL_FIRST_EPHEMERAL)
}

fn parse_first(range: &str) -> Option<u16> {
    range.split_whitespace().next()?.parse().ok().filter(|&first| first > LOWEST)
}

/// An address that orchestrators share, kept from others while all of them are down.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) address: SocketAddr,
    /// Bound but never listening: the kernel gives connections only to sockets that listen.
    _socket: TcpSocket,
}

/// Reserves an address that nobody uses.
pub(super) fn reserve(address: SocketAddr) -> io::Result<Reserved> {
    // With `SO_REUSEPORT` the kernel would let two clusters share the address, each getting half of
    // the requests. Asking whether somebody answers is surer than a probing bind, which also fails
    // for the minute that closed connections of an earlier run linger.
    if TcpStream::connect_timeout(&address, PROBE).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "somebody serves this address already",
        ));
    }
    let socket = socket(address)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(Reserved { address, _socket: socket })
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_not_ephemeral() {
        let port = free().expect("a free port");
        assert!((LOWEST..first_ephemeral()).contains(&port), "{port}");
        assert_eq!(parse_first("32768\t60999\n"), Some(32768));
        assert_eq!(parse_first("1024 65535"), None);
        assert_eq!(parse_first(""), None);
    }

    #[tokio::test]
    async fn a_reserved_address_is_shared_only_on_purpose() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free().expect("a free port")));
        let reserved = reserve(address).expect("free");
        assert!(TcpListener::bind(reserved.address).is_err(), "anybody can take it");
        let member = socket(address).expect("a socket");
        member.set_reuseport(true).expect("an option");
        member.bind(address).expect("an orchestrator may bind it");
        let _listening = member.listen(8).expect("an orchestrator may listen");
        assert!(reserve(address).is_err(), "a second cluster would share it");
    }
}
