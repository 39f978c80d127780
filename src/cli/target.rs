//! The flags that name a running service: `--url`, else `--host` and `--port`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::client::target::{Target, TargetError};

/// The flags that name the service, for a command that usually runs on the service's own machine or in its container.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// Base URL of the service; built from --host and --port if it is missing
    #[arg(long, env = "TARGET_URL", value_name = "URL")]
    url: Option<Target>,
    /// Address that the service listens on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port that the service listens on
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
}

impl TargetArgs {
    /// The service that the flags name.
    pub(crate) fn target(&self) -> Result<Target, TargetError> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => reached_at(&self.host, self.port),
        }
    }
}

/// The service that listens on `host` and `port` of its own machine, as it is reached from there.
pub(crate) fn reached_at(host: &str, port: u16) -> Result<Target, TargetError> {
    format!("http://{}:{port}", reachable(host)).parse()
}

/// The host under which a service that listens on `host` is reached from its own machine: "every address" means loopback.
fn reachable(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_address_becomes_a_reachable_one() {
        for (host, url) in [
            ("0.0.0.0", "http://127.0.0.1:8080"),
            ("::", "http://[::1]:8080"),
            ("::1", "http://[::1]:8080"),
            ("10.0.0.7", "http://10.0.0.7:8080"),
            ("localhost", "http://localhost:8080"),
        ] {
            let args = TargetArgs {
                url: None,
                host: host.to_owned(),
                port: 8080,
            };
            assert_eq!(args.target().unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_url_wins_over_host_and_port() {
        let args = TargetArgs {
            url: Some("http://other".parse().unwrap()),
            host: "::".to_owned(),
            port: 1,
        };
        assert_eq!(args.target().unwrap().to_string(), "http://other");
    }
}
