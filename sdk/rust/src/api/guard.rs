use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::invalid_request;
use crate::StepError;

/// IPv4 networks that are not the public internet: the special-purpose registry of RFC 6890, all
/// multicast and reserved addresses.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 3),
    // Looks public, but inside one large cloud it is the host's own service for its guests.
    v4([168, 63, 129, 16], 32),
];

/// All that is public in IPv6.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// What is not, within it: protocol assignments with Teredo, and documentation.
const SPECIAL_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];
/// 6to4: the IPv4 address is in bits 16 to 47.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
/// Forms whose last 32 bits are an IPv4 address: mapped, translated, compatible, and NAT64.
const EMBEDDING: [Ipv6Net; 4] = [
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Decides which addresses a client may connect to: public ones, and what its builder allows.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressGuard {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

/// A host that a client must not connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressRefused {
    host: String,
}

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: whoever chooses the URL would learn what is behind our names.
        write!(
            f,
            "`{}` is not at a public address; `allow_host` or `allow_network` of the client lets it \
             through",
            self.host
        )
    }
}

impl std::error::Error for AddressRefused {}

impl AddressGuard {
    /// Reads what is allowed: names of hosts, and networks as `10.0.0.0/8` or single addresses.
    pub(super) fn new(hosts: &[String], networks: &[String]) -> Result<Self, StepError> {
        let networks = networks.iter().map(|text| {
            let single = |_| text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>()
                .or_else(single)
                .map_err(|_| invalid_request(format!("{text:?} is no network, e.g. 10.0.0.0/8")))
        });
        Ok(Self {
            hosts: hosts.iter().map(|host| plain(host)).collect(),
            networks: networks.collect::<Result<_, _>>()?,
        })
    }

    /// Those of a host's addresses that may be connected to; an error if that is none of them.
    pub(super) fn permitted(
        &self,
        host: &str,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, AddressRefused> {
        if !self.hosts.contains(&plain(host)) {
            addresses.retain(|address| self.permits(address.ip()));
        }
        if addresses.is_empty() {
            return Err(AddressRefused { host: plain(host) });
        }
        Ok(addresses)
    }

    fn permits(&self, ip: IpAddr) -> bool {
        let meant = embedded(ip).map_or(ip, IpAddr::V4);
        let is_allowed = self.networks.iter().any(|net| net.contains(&ip) || net.contains(&meant));
        is_allowed || is_public(meant)
    }
}

/// A host as it is compared: without brackets, final dot and capitals.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => {
            GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|net| net.contains(&ip))
        }
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let [_, _, a, b, c, d, .., w, x, y, z] = ip.octets();
    if SIX_TO_FOUR.contains(&ip) {
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    EMBEDDING.iter().any(|net| net.contains(&ip)).then(|| Ipv4Addr::new(w, x, y, z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    fn guard(hosts: &[&str], networks: &[&str]) -> Result<AddressGuard, StepError> {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        AddressGuard::new(&owned(hosts), &owned(networks))
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| (text.parse::<IpAddr>().expect("an address"), 0).into()).collect()
    }

    const REFUSED: &str = "
        0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 100.100.100.200
        127.0.0.1 127.255.255.254 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255
        192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.1 198.51.100.1
        203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
        :: ::1 ::2 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 3fff::1 4000::1
        5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
        ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::ffff:0:127.0.0.1
        64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::8.8.8.8
        2002:7f00:1:: 2002:a9fe:a9fe::1 2002:c0a8:101::1";
    const PUBLIC: &str = "
        1.1.1.1 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
        169.253.0.1 169.255.0.1 172.15.255.255 172.32.0.1 192.167.0.1 192.169.0.1 198.17.0.1
        198.20.0.1 223.255.255.255 168.63.129.15
        2606:4700::1111 2a00::1 2001:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1";

    #[test]
    fn what_is_public() {
        let guard = AddressGuard::default();
        for ip in REFUSED.split_whitespace() {
            let expect = Err(AddressRefused { host: "name".to_owned() });
            assert_eq!(guard.permitted("name", addresses(&[ip])), expect, "{ip}");
        }
        for ip in PUBLIC.split_whitespace() {
            let expect = addresses(&[ip]);
            assert_eq!(guard.permitted("name", expect.clone()), Ok(expect), "{ip}");
        }
        // Of a host with several addresses only the public ones are used.
        let mixed = addresses(&["10.0.0.1", "1.1.1.1", "::1", "2a00::1"]);
        assert_eq!(guard.permitted("name", mixed), Ok(addresses(&["1.1.1.1", "2a00::1"])));
    }

    #[test]
    fn what_is_allowed() {
        let networks = guard(&[], &["10.1.0.0/16", "127.0.0.1", "fd00::/8"]).expect("networks");
        let hosts = guard(&["Intranet.Example.", "[::1]"], &[]).expect("hosts");
        let all = ["10.1.2.3", "10.2.0.1", "127.0.0.1", "127.0.0.2", "::ffff:10.1.0.9", "fd12::1"];
        let table = [
            (&networks, "name", &["10.1.2.3", "127.0.0.1", "::ffff:10.1.0.9", "fd12::1"][..]),
            (&hosts, "INTRANET.example", &all[..]),
            (&hosts, "intranet.example.", &all[..]),
            (&hosts, "[::1]", &all[..]),
            (&hosts, "x.intranet.example", &[]),
        ];
        for (guard, host, expect) in table {
            let got = guard.permitted(host, addresses(&all)).unwrap_or_default();
            assert_eq!(got, addresses(expect), "{host}");
        }
        for wrong in ["10.0.0.0/33", "localhost", "", "10.0.0/8"] {
            let error = guard(&[], &[wrong]).expect_err(wrong);
            assert_eq!(error.code(), code::API_REQUEST_INVALID, "{wrong}");
        }
    }
}
