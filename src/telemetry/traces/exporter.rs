//! The way to the collector: OTLP over HTTP, in protobuf. A collector that cannot be reached costs its spans, and a line now and
//! then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// What the specification of OTLP appends to the address for traces.
const TRACES_PATH: &str = "/v1/traces";

/// How long the collector may take to answer: the specification's default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a collector that is away is complained about, at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    otlp: Otlp,
    complained: Mutex<Option<Instant>>,
}

impl Collector {
    /// A collector at this base URL, to which nothing is connected yet. Not to be called within a runtime.
    ///
    /// # Errors
    /// A sentence that says what is wrong: nothing of headers or of the URL.
    pub(super) fn new(endpoint: &str) -> Result<Self, String> {
        // An error means that a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut client = reqwest::blocking::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            // Headers may hold a key, which is for nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !endpoint.starts_with("https:") {
            // Without this the system's certificates are read even if they are never needed, and an image may have none.
            client = client.tls_certs_only([]);
        }
        let unusable = |_| "the way to OTEL_EXPORTER_OTLP_ENDPOINT cannot be prepared".to_owned();
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(client.build().map_err(|error| {
                format!(
                    "TLS to OTEL_EXPORTER_OTLP_ENDPOINT cannot be prepared: {}",
                    error.without_url()
                )
            })?)
            .with_endpoint(format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')))
            .build()
            .map_err(unusable)?;
        Ok(Self {
            otlp,
            complained: Mutex::default(),
        })
    }

    /// Whether the last complaint is long ago; then this is one.
    fn may_complain(&self) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL);
        if is_due {
            *complained = Some(Instant::now());
        }
        is_due
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.otlp.export(batch).await;
        if let Err(error) = &sent
            && self.may_complain()
        {
            tracing::warn!(spans, "spans are lost, the collector does not take them: {error}");
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
    fn a_collector_that_is_away_is_complained_about_now_and_then() {
        let collector = Collector::new("http://127.0.0.1:9").unwrap();
        assert!(collector.may_complain());
        assert!(!collector.may_complain());
        let long_ago = Instant::now().checked_sub(COMPLAINT_INTERVAL).unwrap();
        *collector.complained.lock().unwrap() = Some(long_ago);
        assert!(collector.may_complain());
    }
}
