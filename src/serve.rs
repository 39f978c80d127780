//! Composition: builds the service floor by floor, starts it, and stops it in the reverse order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, LifeConfig};
use crate::http::listener::Listener;
use crate::http::{self, AppState, Health, Parts, Phase};
use crate::ingest::{Ingest, Writer};
use crate::lifecycle::{Signals, Tasks};
use crate::metrics::Metrics;
use crate::store::backoff::Backoff;
use crate::store::{self, ErrorClass, Store};

/// How often the store is probed: a store that is gone is noticed within this and the probe's own time limit.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the service until a signal ends it.
///
/// # Errors
/// The configuration cannot work (port taken, wrong password, missing database, old schema with `--no-migrate`), a task has
/// died, or the grace period was over before everything had ended.
pub async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::listen().context("the system refuses signal handlers")?;
    let store = store::open(&config.database_url)?;
    store.claim().await?;
    let metrics = Arc::new(Metrics::default());
    let (ingest, writers) = Ingest::new(config.ingest, &store, metrics.clone());
    let (phase, seen_phase) = watch::channel(Phase::Starting);
    let (health, seen_health) = watch::channel(None);

    let address = format!("{}:{}", config.http.host, config.http.port);
    let listener = Listener::bind(config.http.clone())
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), url = listener.url()?, "listening");
    let parts = Parts {
        store: store.clone(),
        ingest: ingest.clone(),
        metrics,
        limits: config.http,
        phase: seen_phase,
        health: seen_health,
    };
    let app = http::routes(AppState::new(parts));
    let mut service = Service {
        store,
        ingest,
        phase,
        tasks: Tasks::default(),
        connections: TaskTracker::new(),
    };
    service.tasks.spawn(
        "listener",
        listener.run(app, service.tasks.stop().clone(), service.connections.clone()),
    );

    let ended = tokio::select! {
        started = open(&*service.store, config.life.migrates) => started,
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the store was open");
            return Ok(());
        }
        name = service.tasks.death() => Err(anyhow!("the {name} task has died")),
    };
    ended?;
    service.start(writers, health);
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        name = service.tasks.death() => bail!("the {name} task has died"),
    }
    service.stop(&config.life, &mut signals).await
}

/// A service that listens.
struct Service {
    store: Arc<dyn Store>,
    ingest: Ingest,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
    connections: TaskTracker,
}

impl Service {
    /// The store is open: from here on requests are served.
    fn start(&self, writers: Vec<Writer>, health: watch::Sender<Health>) {
        self.tasks.spawn(
            "probe",
            probe(
                self.store.clone(),
                self.ingest.clone(),
                health,
                self.tasks.stop().clone(),
            ),
        );
        for writer in writers {
            self.tasks.spawn("writer", writer.run());
        }
        self.phase.send_replace(Phase::Serving);
        tracing::info!(store = self.store.name(), "serving");
    }

    /// Not ready, keep serving for a while, no more connections, requests end, the queue drains, the store closes. Within the
    /// grace period, or until a second signal.
    async fn stop(mut self, life: &LifeConfig, signals: &mut Signals) -> Result<()> {
        self.phase.send_replace(Phase::Draining);
        let drained = async {
            tokio::time::sleep(life.drain_delay).await;
            self.tasks.stop().cancel();
            self.connections.close();
            self.connections.wait().await;
            self.ingest.close();
            self.tasks.ended().await;
            self.store.close().await;
        };
        tokio::select! {
            () = drained => {}
            () = tokio::time::sleep(life.grace_period) => {
                bail!("the grace period of {:?} is over: {} queued events were left", life.grace_period, self.ingest.queued());
            }
            signal = signals.next() => bail!("ended at once by a second signal, {signal}"),
        }
        if let Some(name) = futures_util::FutureExt::now_or_never(self.tasks.death()) {
            bail!("the {name} task has died");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the store, for ever, and brings or finds its schema as this program needs it. What waiting cannot mend ends it.
async fn open(store: &dyn Store, migrates: bool) -> Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let opened = if migrates {
            store.migrate().await.map(drop)
        } else {
            store.check_schema().await
        };
        match opened {
            Ok(()) => break,
            Err(error) if error.class == ErrorClass::Configuration => return Err(error.into()),
            Err(error) => {
                let wait = backoff.next_wait();
                tracing::warn!(retry_in = ?wait, "waiting for the store: {}", error.line());
                tokio::time::sleep(wait).await;
            }
        }
    }
    match store.warnings().await {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::warn!("the store's settings could not be read: {}", error.line()),
    }
    Ok(())
}

/// Probes the store until the service stops.
async fn probe(store: Arc<dyn Store>, ingest: Ingest, health: watch::Sender<Health>, stop: CancellationToken) {
    let mut was_well = None;
    while !stop.is_cancelled() {
        let found = store.probe().await;
        if found.is_err() {
            ingest.suspect_connections();
        }
        if was_well != Some(found.is_ok()) {
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
        was_well = Some(found.is_ok());
        health.send_replace(Some(found.map_err(|error| error.class)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
}
