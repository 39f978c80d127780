//! The exporter to the collector: OTLP over HTTP, in protobuf. While the collector cannot be reached, its spans are lost, and a
//! warning is logged now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// The path that the specification of OTLP appends to the address for traces.
const TRACES_PATH: &str = "/v1/traces";

/// How long the collector may take to answer: the specification's default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The least time between two warnings about lost spans.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    otlp: Otlp,
    warned_at: Mutex<Option<Instant>>,
}

impl Collector {
    /// A collector at this base URL. It connects with the first spans. Not to be called within a runtime.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the headers and the URL.
    pub(super) fn new(endpoint: &str) -> Result<Self, String> {
        // An error means that a provider is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut client = reqwest::blocking::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            // Headers may hold a key, which must not go to another server.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !endpoint.starts_with("https:") {
            // Without this the certificates of the system are read although they are not needed, and an image may have none.
            client = client.tls_certs_only([]);
        }
        let unusable = |_| "failed to set up the exporter to OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(client.build().map_err(|error| {
                format!(
                    "failed to set up TLS to OTEL_EXPORTER_OTLP_ENDPOINT: {}",
                    error.without_url()
                )
            })?)
            .with_endpoint(format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')))
            .build()
            .map_err(unusable)?;
        Ok(Self {
            otlp,
            warned_at: Mutex::default(),
        })
    }

    /// Whether the last warning is old enough; then this call counts as the next one.
    fn may_warn(&self) -> bool {
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = warned_at.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL);
        if is_due {
            *warned_at = Some(Instant::now());
        }
        is_due
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.otlp.export(batch).await;
        if let Err(error) = &sent
            && self.may_warn()
        {
            tracing::warn!(spans, "failed to send spans to the collector, dropping them: {error}");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_a_minute() {
        let collector = Collector::new("http://127.0.0.1:9").unwrap();
        assert!(collector.may_warn());
        assert!(!collector.may_warn());
        let long_ago = Instant::now().checked_sub(WARNING_INTERVAL).unwrap();
        *collector.warned_at.lock().unwrap() = Some(long_ago);
        assert!(collector.may_warn());
    }
}
