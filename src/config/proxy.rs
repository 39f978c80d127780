//! What stands between clients and the service.

use std::net::{AddrParseError, IpAddr};
use std::str::FromStr;

use clap::Args;
use clap::builder::FalseyValueParser;
use ipnet::IpNet;

use super::value::Parser;

/// The proxies in front of the service, and what is believed of what they say.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Behind a proxy")]
pub struct ProxyConfig {
    /// The networks of proxies whose word about their clients is believed: 10.0.0.0/8,fd00::/8 [default: none]
    #[arg(long, env = "EVENTSIEVE_TRUSTED_PROXIES", default_value = "", hide_default_value = true, value_name = "NETWORK,...", value_parser = networks())]
    pub trusted_proxies: Networks,
    /// The header in which trusted proxies name their clients, x-forwarded-for or forwarded; the other one is ignored, because a client could send it
    #[arg(long, env = "EVENTSIEVE_FORWARDED_HEADER", default_value = "x-forwarded-for", value_name = "HEADER", value_parser = forwarded_header())]
    pub forwarded_header: ForwardedHeader,
    /// Connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2; those that do not are closed
    #[arg(long, env = "EVENTSIEVE_PROXY_PROTOCOL", value_parser = FalseyValueParser::new())]
    pub proxy_protocol: bool,
    /// The path that all URLs of the service begin with, where a proxy passes it on: /events-service; probes and /metrics answer without it too [default: none]
    #[arg(long, env = "EVENTSIEVE_BASE_PATH", default_value = "", hide_default_value = true, value_name = "PATH", value_parser = base_path())]
    pub base_path: PathPrefix,
}

/// What paths begin with: empty, or a path without a slash at its end. It can be written into any URL as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no path that could be written into a URL as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a path such as /events-service")]
pub struct PathPrefixError;

impl FromStr for PathPrefix {
    type Err = PathPrefixError;

    fn from_str(text: &str) -> Result<Self, PathPrefixError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain);
        let is_path = match text.strip_prefix('/') {
            Some(parts) => parts.split('/').all(is_part),
            None => text.is_empty(),
        };
        is_path.then(|| Self(text.to_owned())).ok_or(PathPrefixError)
    }
}

/// A header in which a proxy names its client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses alone.
    #[default]
    XForwardedFor,
    /// `Forwarded`, of RFC 7239.
    Forwarded,
}

/// Networks of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether one of them has this address. One of version 4 is the same as that address mapped into version 6.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
        networks.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, AddrParseError> {
    let alone = |_| text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
    text.parse().or_else(alone)
}

impl ProxyConfig {
    /// What is wrong between settings that are each valid.
    pub(super) fn conflict(&self) -> Option<String> {
        let is_wrong = self.proxy_protocol && self.trusted_proxies == Networks::default();
        let problem = "EVENTSIEVE_PROXY_PROTOCOL needs EVENTSIEVE_TRUSTED_PROXIES: only they may send its header";
        is_wrong.then(|| problem.to_owned())
    }
}

fn base_path() -> Parser<PathPrefix> {
    Parser::new("a path such as /events-service, of letters, digits and -._~", |text| {
        text.parse().ok()
    })
}

fn networks() -> Parser<Networks> {
    Parser::new("networks such as 10.0.0.0/8,fd00::/8", |text| text.parse().ok())
}

fn forwarded_header() -> Parser<ForwardedHeader> {
    Parser::new("x-forwarded-for or forwarded", |text| {
        let names = [
            ("x-forwarded-for", ForwardedHeader::XForwardedFor),
            ("forwarded", ForwardedHeader::Forwarded),
        ];
        let named = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map(|(_, header)| *header)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_their_addresses_in_both_forms() {
        let networks = "10.0.0.0/8, 192.0.2.7,fd00::/8,".parse::<Networks>().unwrap();
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd00::1", true),
            ("fe00::1", false),
        ] {
            assert_eq!(networks.contain(address.parse().unwrap()), is_in, "{address}");
        }
        assert!(!Networks::default().contain("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn prefix_is_a_plain_path_without_its_last_slash() {
        for (text, expected) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-c._~1/", "/a/b-c._~1")] {
            assert_eq!(text.parse::<PathPrefix>().unwrap().as_str(), expected);
        }
        for text in [
            "a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/a/../b",
            "/a b",
            "/a%20",
            "/a?b",
            "/a#b",
            "/\u{e9}",
            "https://a",
        ] {
            assert!(text.parse::<PathPrefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_rejected() {
        for text in [
            "10.0.0.0/33",
            "10.0.0",
            "::/129",
            "localhost",
            "10.0.0.0/8;fd00::/8",
            "10.0.0.0/",
        ] {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
    }
}
