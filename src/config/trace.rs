//! Where spans are sent.

use clap::Args;

/// The default name of the service.
const SERVICE_NAME: &str = "eventsieve";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct TraceOptions {
    /// The OpenTelemetry collector that spans are sent to, over OTLP/HTTP: http://HOST:4318; without it nothing is traced
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    otlp_endpoint: Option<String>,
    /// The name of the service in its spans
    #[arg(long, env = "OTEL_SERVICE_NAME", default_value = SERVICE_NAME, value_name = "NAME")]
    service_name: String,
}

/// Where spans are sent.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// The base URL of the collector, which holds no secret.
    pub endpoint: String,
    /// The name of the service.
    pub service_name: String,
}

impl TraceOptions {
    /// `None` when no collector is named. An empty value counts as none.
    pub(super) fn check(&self, problems: &mut Vec<String>) -> Option<TraceConfig> {
        let endpoint = self.otlp_endpoint.as_ref().filter(|url| !url.is_empty())?;
        if !is_base_url(endpoint) {
            // The value is not shown: it may hold a password.
            problems.push(
                "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL such as http://collector:4318, without user, password, ? and #; a key belongs in OTEL_EXPORTER_OTLP_HEADERS"
                    .to_owned(),
            );
            return None;
        }
        let service_name = match self.service_name.as_str() {
            "" => SERVICE_NAME,
            name => name,
        };
        Some(TraceConfig {
            endpoint: endpoint.clone(),
            service_name: service_name.to_owned(),
        })
    }
}

fn is_base_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: Option<&str>, name: &str) -> Result<Option<TraceConfig>, Vec<String>> {
        let mut problems = Vec::new();
        let options = TraceOptions {
            otlp_endpoint: endpoint.map(ToOwned::to_owned),
            service_name: name.to_owned(),
        };
        let found = options.check(&mut problems);
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    #[test]
    fn traces_nothing_without_a_collector() {
        for none in [None, Some("")] {
            assert!(check(none, "shop").unwrap().is_none());
        }
    }

    #[test]
    fn accepts_a_base_url_and_an_empty_name() {
        for url in ["http://127.0.0.1:4318", "https://collector.example/otlp/"] {
            assert_eq!(check(Some(url), "shop").unwrap().unwrap().endpoint, url);
        }
        let config = check(Some("http://collector:4318"), "").unwrap().unwrap();
        assert_eq!(config.service_name, "eventsieve");
    }

    #[test]
    fn rejects_and_hides_an_invalid_address() {
        for url in [
            "collector:4318",
            "ftp://collector",
            "http://",
            "http://user:geheim@collector:4318",
            "http://collector:4318?key=geheim",
            "http://collector:4318#x",
            "geheim",
        ] {
            let problems = check(Some(url), "shop").unwrap_err();
            assert_eq!(problems.len(), 1, "{url}");
            assert!(!problems[0].contains("geheim"), "{problems:?}");
        }
    }
}
