//! The probe of the store: whether it can be reached, takes writes, and which version it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http::Health;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::store::Maintenance;

/// How often the store is probed: a store that is gone is noticed within this and the probe's own time limit.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks the store how it is, and tells all who want to know.
pub(super) struct Probe {
    pub(super) store: Arc<dyn Maintenance>,
    pub(super) ingest: Ingest,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: watch::Sender<Health>,
}

impl Probe {
    /// Probes until the service stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut was_well = None;
        let mut knows_version = false;
        while !stop.is_cancelled() {
            let found = self.store.probe().await;
            let is_well = found.is_ok();
            match &found {
                Ok(stability) => self.metrics.log_visibility_lag.set(stability.visibility_lag_seconds),
                Err(error) => {
                    self.metrics.count_store_error(error.class.as_str());
                    self.ingest.suspect_connections();
                }
            }
            self.metrics.store_up.set(is_well.into());
            if was_well != Some(is_well) {
                match &found {
                    Ok(_) if was_well.is_some() => tracing::info!("the store is back"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(
                        error.class = error.class.as_str(),
                        "the store is gone: {}",
                        error.line()
                    ),
                }
            }
            self.health.send_replace(Some(found.map_err(|error| error.class)));
            knows_version &= was_well == Some(true);
            if is_well && !knows_version {
                knows_version = self.learn_version().await;
            }
            was_well = Some(is_well);
            stop.run_until_cancelled(tokio::time::sleep(PROBE_INTERVAL)).await;
        }
    }

    /// A server that was away may have come back as another version. Answers whether that is known now.
    async fn learn_version(&self) -> bool {
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
                    "the store does not tell its version: {}",
                    error.line()
                );
                false
            }
        }
    }
}
