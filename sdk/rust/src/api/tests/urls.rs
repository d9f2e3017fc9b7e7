//! The URLs of `corpus/urls.txt`: which addresses they lead to, and which of those are connected to.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use hyper::Uri;

use crate::api::connect::literal;
use crate::api::guard::AddressGuard;
use crate::api::target::{Base, resolve};
use crate::code;

/// The host and the first address that a client would connect to, or why it would not.
fn verdict(base: &str, url: &str, found: &str) -> String {
    let base = (base != "-").then(|| Base::new(base).expect("a base"));
    let url = match resolve(base.as_ref(), url) {
        Ok(url) => url,
        Err(error) => return error.code().to_owned(),
    };
    let target: Uri = url.as_str().parse().expect("what is a URL is a URI");
    let host = target.host().expect("a host");
    // As the connector does: an address is not looked up, whatever stands in the place of one.
    let addresses: Vec<SocketAddr> = match literal(&target) {
        Some(ip) => vec![(ip, 0).into()],
        None => found
            .split_whitespace()
            .filter_map(|ip| Some((ip.parse::<IpAddr>().ok()?, 0).into()))
            .collect(),
    };
    match AddressGuard::default().permitted(host, addresses) {
        Ok(permitted) => format!("{host} {}", permitted[0].ip()),
        Err(_) => code::API_ADDRESS_REFUSED.to_owned(),
    }
}

#[test]
fn urls() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/urls.txt");
    let text = std::fs::read_to_string(path).expect("the corpus");
    let (mut cases, mut wrong) = (0, String::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<String> = line
            .split(" | ")
            .map(|column| {
                let column = column.replace('␣', " ").replace('␉', "\t");
                column.replace('␤', "\n").replace('␀', "\0")
            })
            .collect();
        let [name, base, url, found, expect] = columns.as_slice() else {
            panic!("not five columns: {line}");
        };
        let got = verdict(base, url, found);
        if got != *expect {
            let _ = writeln!(wrong, "{name}: {url:?}\n expect {expect}\n got    {got}");
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases >= 140, "only {cases} URLs");
}
