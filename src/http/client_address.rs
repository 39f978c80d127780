//! Who sent a request.
//!
//! The address of a client is that of its connection, or what the header of the PROXY protocol says. Where that is a trusted proxy's,
//! the header that such proxies write ([`ForwardedHeader`]) names their clients, each proxy at its right end. So it is read from the
//! right, past other trusted proxies: what the first address that is not trusted has put to the left of itself proves nothing.

mod forwarded;

use std::fmt;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

use crate::config::{ForwardedHeader, ProxyConfig};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client that sent a request: an extension of the request, made in one place, where its connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The other end of a connection. One of version 4 is not told in the form of version 6, as a socket for both does.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The client of a request with these headers that came from here.
    pub(super) fn of_request(self, headers: &HeaderMap, proxies: &ProxyConfig) -> Self {
        if !self.is_proxy(proxies) {
            return self;
        }
        let name = match proxies.forwarded_header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        let mut client = self;
        // A client may have sent lines too; what a proxy adds is the last one, or the end of it.
        for line in headers.get_all(name).iter().rev() {
            let line = line.to_str().unwrap_or_default();
            let named = match proxies.forwarded_header {
                ForwardedHeader::XForwardedFor => forwarded::addresses(line),
                ForwardedHeader::Forwarded => forwarded::elements(line).unwrap_or_else(|| vec![None]),
            };
            for address in named.into_iter().rev() {
                let Some(address) = address else { return client };
                client = Self::of(address);
                if !client.is_proxy(proxies) {
                    return client;
                }
            }
        }
        client
    }

    /// Whether this is a trusted proxy.
    pub(super) fn is_proxy(self, proxies: &ProxyConfig) -> bool {
        proxies.trusted_proxies.contain(self.0)
    }

    /// The client as limits know it: of version 6, whoever has the network of 64 bits, for a client may use all of its addresses.
    pub(super) fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            address => address,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::Config;

    fn proxies(header: ForwardedHeader) -> ProxyConfig {
        ProxyConfig {
            trusted_proxies: "10.0.0.0/8,fd00::/8".parse().unwrap(),
            forwarded_header: header,
            ..Config::with_defaults("postgres://h/d", "::1", 0).unwrap().http.proxy
        }
    }

    fn client(header: ForwardedHeader, from: &str, lines: &[&str]) -> String {
        let (read, other) = match header {
            ForwardedHeader::XForwardedFor => (X_FORWARDED_FOR, header::FORWARDED),
            ForwardedHeader::Forwarded => (header::FORWARDED, X_FORWARDED_FOR),
        };
        let lines = lines
            .iter()
            .map(|line| (read.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        let forged = [
            (other, HeaderValue::from_static("for=192.0.2.66")),
            (X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.66")),
        ];
        let forged = forged.into_iter().filter(|(name, _)| *name != read);
        let headers = lines.chain(forged).collect();
        let address = ClientAddress::of(from.parse().unwrap());
        address.of_request(&headers, &proxies(header)).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_names_its_client() {
        for (from, lines, expected) in [
            ("10.0.0.1", &["198.51.100.7"][..], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("fd00::1", &["[2001:db8::7]:80"], "2001:db8::7"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("::ffff:192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            assert_eq!(
                client(ForwardedHeader::XForwardedFor, from, lines),
                expected,
                "{from} {lines:?}"
            );
        }
    }

    #[test]
    fn what_a_client_adds_on_the_left_is_not_believed() {
        for (lines, expected) in [
            (&["192.0.2.1, 198.51.100.7"][..], "198.51.100.7"),
            (&["192.0.2.1", "198.51.100.7"], "198.51.100.7"),
            (&["192.0.2.1, 198.51.100.7, 10.1.1.1", "10.2.2.2"], "198.51.100.7"),
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["192.0.2.1, nonsense:1:2"], "10.0.0.1"),
            (&["192.0.2.1, \u{e9}"], "10.0.0.1"),
            (&["198.51.100.7, ,"], "198.51.100.7"),
        ] {
            assert_eq!(
                client(ForwardedHeader::XForwardedFor, "10.0.0.1", lines),
                expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_as_the_other_header_is() {
        for (lines, expected) in [
            (&["for=198.51.100.7;proto=https"][..], "198.51.100.7"),
            (
                &[r#"for=192.0.2.1, For="[2001:db8::7]:4711";by=10.0.0.1 , for=10.4.4.4"#],
                "2001:db8::7",
            ),
            (&["for=192.0.2.1", "proto=http; FOR = 198.51.100.7"], "10.0.0.1"),
            (&["for=192.0.2.1, for=_hidden"], "10.0.0.1"),
            (&["for=192.0.2.1, proto=https"], "10.0.0.1"),
            // An open quote would swallow what the proxy adds.
            (&[r#"for="192.0.2.1, for=198.51.100.7"#], "10.0.0.1"),
            (&[r#"for=192.0.2.1;x="\, for="[2001:db8::7]""#], "10.0.0.1"),
            (&[r#"for="192.0.2.1;x=", for=198.51.100.7"#], "198.51.100.7"),
        ] {
            assert_eq!(
                client(ForwardedHeader::Forwarded, "10.0.0.1", lines),
                expected,
                "{lines:?}"
            );
        }
    }
}
