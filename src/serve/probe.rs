//! The health probe of the store: whether it can be reached and takes writes, and its version.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http::Health;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::store::Maintenance;

/// How often the store is probed: an outage is noticed within this interval and the time limit of the probe.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Probes the store, and reports its health.
pub(super) struct Probe {
    pub(super) store: Arc<dyn Maintenance>,
    pub(super) ingest: Ingest,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: watch::Sender<Health>,
}

impl Probe {
    /// Probes until the service stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut was_up = None;
        let mut knows_version = false;
        while !stop.is_cancelled() {
            let found = self.store.probe().await;
            let is_up = found.is_ok();
            match &found {
                Ok(stability) => self.metrics.log_visibility_lag.set(stability.visibility_lag_seconds),
                Err(error) => {
                    self.metrics.count_store_error(error.class.as_str());
                    self.ingest.suspect_connections();
                }
            }
            self.metrics.store_up.set(is_up.into());
            if was_up != Some(is_up) {
                match &found {
                    Ok(_) if was_up.is_some() => tracing::info!("the store is available again"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(
                        error.class = error.class.as_str(),
                        "the store is unavailable, publishing fails until it is back: {}",
                        error.line()
                    ),
                }
            }
            self.health.send_replace(Some(found.map_err(|error| error.class)));
            knows_version &= was_up == Some(true);
            if is_up && !knows_version {
                knows_version = self.read_version().await;
            }
            was_up = Some(is_up);
            stop.run_until_cancelled(tokio::time::sleep(PROBE_INTERVAL)).await;
        }
    }

    /// Reads the version, which may have changed during an outage. Returns whether it is known now.
    async fn read_version(&self) -> bool {
        match self.store.version().await {
            Ok(version) => {
                self.metrics.store_info.reset();
                self.metrics
                    .store_info
                    .with_label_values(&[self.store.name(), &version])
                    .set(1);
                true
            }
            Err(error) => {
                tracing::debug!(
                    error.class = error.class.as_str(),
                    "failed to read the version of the store, retrying with the next probe: {}",
                    error.line()
                );
                false
            }
        }
    }
}
