//! Who asks, as far as fairness goes.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;

/// Who asks: all requests from one address are one client. Of an IPv6 address only the network
/// counts, since whoever has one address there has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    /// Who sent this request.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        Self(request.peer_addr().map(|peer| network(peer.ip())))
    }

    /// The server itself, for work that nobody waits for.
    pub(crate) fn own() -> Self {
        Self(None)
    }

    #[cfg(test)]
    pub(crate) fn at(last: u8) -> Self {
        Self(Some([10, 0, 0, last].into()))
    }
}

/// What counts as one client.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |address: &str| network(address.parse().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
    }
}
