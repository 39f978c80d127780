//! Composition: builds the service from its modules, starts it, and stops it in the reverse order.

mod access;
mod delivery;
mod handles;
mod largest;
mod limits;
mod notify;
mod probe;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::access::Access;
use self::delivery::Delivery;
use self::largest::find_largest_topics;
use self::notify::Reports;
use self::probe::Probe;
use crate::config::{Config, LifeConfig};
use crate::http::listener::Listener;
use crate::http::{self, AppState, Health, Parts, Phase};
use crate::ingest::{Ingest, Writer};
use crate::lifecycle::{Signals, Tasks};
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::relay::{Relay, prune_commit_ledger, watch_backlog};
use crate::retention::{Archive, Keeper};
use crate::store::backoff::Backoff;
use crate::store::{self, ErrorClass, Store};
use crate::subscribers::{self, Subscribers};
use crate::telemetry;

/// Runs the service until a signal stops it; a second signal ends it at once, with an error.
pub async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::listen().context("failed to install the signal handlers")?;
    let stop = CancellationToken::new();
    let manager = config.notify.clone();
    let service = Service::bind(config).await?;
    let reports = Reports::begin(&manager, service.phase());
    let mut running = pin!(async {
        let ended = service.run(stop.clone()).await;
        telemetry::end_traces().await;
        ended
    });
    tokio::select! {
        ended = &mut running => return ended,
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
    reports.stopping().await;
    stop.cancel();
    tokio::select! {
        ended = running => ended,
        signal = signals.next() => bail!("stopped immediately by a second signal ({signal})"),
    }
}

/// A service whose port is open. Clients that connect are answered once it runs.
pub struct Service {
    store: Arc<dyn Store>,
    parts: Parts,
    writers: Vec<Writer>,
    relay: Option<Relay>,
    keeper: Keeper,
    phase: watch::Sender<Phase>,
    health: watch::Sender<Health>,
    tasks: Tasks,
    listener: Listener,
    metrics_listener: Option<Listener>,
    address: SocketAddr,
    access: Access,
    life: LifeConfig,
}

impl Service {
    /// Claims the store, and opens the port.
    ///
    /// # Errors
    /// Another service has claimed the store, the port is taken, the address does not belong to this machine, or the ready-file
    /// cannot be written.
    pub async fn bind(mut config: Config) -> Result<Self> {
        config.http.connections_max = handles::make_room(config.http.connections_max);
        limits::log(&config);
        let store = store::open(&config.database)?;
        store.claim().await?;
        let metrics = Arc::new(Metrics::default());
        let archive = Archive::open(&config.retention.archive).map_err(anyhow::Error::msg)?;
        let keeper = Keeper::new(store.clone(), metrics.clone(), config.retention, archive);
        let tasks = Tasks::default();
        let Delivery {
            handoff,
            relay,
            state: fanout,
        } = Delivery::new(&config.sink, &store, &metrics)?;
        let (ingest, writers) = Ingest::new(config.ingest, store.clone(), metrics.clone(), handoff.clone());
        let publishing = ingest.clone();
        let subscribers = Subscribers::new(subscribers::Settings {
            store: store.clone(),
            handoff,
            subscribers_max: config.sink.subscribers_max,
            is_busy: Box::new(move || publishing.is_busy()),
            metrics: metrics.clone(),
            stop: tasks.stop().clone(),
        });
        let (phase, seen_phase) = watch::channel(Phase::Starting);
        let (health, seen_health) = watch::channel(None);
        let address = format!("{}:{}", config.http.host, config.http.port);
        // First: once the other port is open the ready-file is written.
        let metrics_listener = match &config.http.metrics_address {
            None => None,
            Some(address) => {
                let bound = Listener::bind_metrics(&config.http, address, metrics.clone()).await;
                Some(bound.with_context(|| format!("cannot listen on {address} (EVENTSIEVE_METRICS_ADDRESS)"))?)
            }
        };
        let listener = Listener::bind(config.http.clone(), metrics.clone())
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.address()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), url = listener.url()?, "listening");
        let access = Access::new(&config.access, &store, address);
        let parts = Parts {
            store: store.clone(),
            keys: store.clone(),
            principals: access.principals.clone(),
            ingest,
            metrics,
            limits: config.http,
            phase: seen_phase,
            health: seen_health,
            subscribers,
            sink: fanout,
        };
        Ok(Self {
            store,
            parts,
            writers,
            relay,
            keeper,
            phase,
            health,
            tasks,
            listener,
            metrics_listener,
            address,
            access,
            life: config.life,
        })
    }

    /// The address that it listens on; for port 0 with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Follows the phase of the service: starting, serving, draining.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Serves until `stop`, then completes the requests that have begun.
    ///
    /// # Errors
    /// The configuration cannot work (wrong password, missing database, old schema with `--no-migrate`), a task has died, or the
    /// grace period ended before everything had stopped.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut running = Running {
            store: self.store,
            ingest: self.parts.ingest.clone(),
            metrics: self.parts.metrics.clone(),
            subscribers: self.parts.subscribers.clone(),
            principals: self.parts.principals.clone(),
            phase: self.phase,
            tasks: self.tasks,
            relay: Tasks::default(),
            connections: TaskTracker::new(),
        };
        let state = AppState::new(self.parts);
        if let Some(listener) = self.metrics_listener {
            let app = http::metrics_routes(state.clone());
            let (stop, connections) = (running.tasks.stop().clone(), running.connections.clone());
            running
                .tasks
                .spawn("metrics listener", listener.run(app, stop, connections));
        }
        let app = http::routes(state);
        let listening = self
            .listener
            .run(app, running.tasks.stop().clone(), running.connections.clone());
        running.tasks.spawn("listener", listening);
        tokio::select! {
            opened = open(&*running.store, !self.life.no_migrate, self.relay.is_some()) => opened?,
            () = stop.cancelled() => {
                tracing::info!("stopped before the store was available");
                return Ok(());
            }
            name = running.tasks.death() => bail!("the task {name:?} has ended unexpectedly"),
        }
        tokio::select! {
            known = self.access.know() => known?,
            () = stop.cancelled() => return Ok(()),
        }
        running.start(self.writers, self.relay, self.keeper, self.health);
        tokio::select! {
            () = stop.cancelled() => {}
            name = running.tasks.death() => bail!("the task {name:?} has ended unexpectedly"),
            name = running.relay.death() => bail!("the task {name:?} has ended unexpectedly"),
        }
        running.stop(&self.life).await
    }
}

/// The parts of a running service.
struct Running {
    store: Arc<dyn Store>,
    ingest: Ingest,
    metrics: Arc<Metrics>,
    subscribers: Subscribers,
    principals: Principals,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
    /// The relay, which ends after the writers that queue batches for it.
    relay: Tasks,
    connections: TaskTracker,
}

impl Running {
    /// Starts serving requests: the store is available.
    fn start(&self, writers: Vec<Writer>, relay: Option<Relay>, keeper: Keeper, health: watch::Sender<Health>) {
        let probe = Probe {
            store: self.store.clone(),
            ingest: self.ingest.clone(),
            metrics: self.metrics.clone(),
            health,
        };
        let (store, metrics) = (|| self.store.clone(), || self.metrics.clone());
        let stop = || self.tasks.stop().clone();
        self.tasks.spawn("probe", probe.run(stop()));
        self.tasks.spawn("backlog", watch_backlog(store(), metrics(), stop()));
        let largest = find_largest_topics(store(), stop());
        self.tasks.spawn("largest topics", largest);
        if let Some(relay) = relay {
            self.relay.spawn("relay", relay.run(self.relay.stop().clone()));
        }
        for writer in writers {
            self.tasks.spawn("writer", writer.run());
        }
        self.tasks.spawn("subscribers", self.subscribers.clone().watch());
        let ledger = prune_commit_ledger(store(), stop());
        self.tasks.spawn("commit ledger", ledger);
        self.tasks.spawn("retention", keeper.run(stop()));
        self.tasks.spawn("keys", self.principals.clone().watch(stop()));
        self.phase.send_replace(Phase::Serving);
        tracing::info!(store = self.store.name(), "serving");
    }

    /// Stops within the grace period: reports not ready and keeps serving for a while, closes the listener, ends streams and
    /// requests, drains the queue, lets the relay make its last passes, and closes the store.
    async fn stop(mut self, life: &LifeConfig) -> Result<()> {
        self.phase.send_replace(Phase::Draining);
        let drained = async {
            tokio::time::sleep(life.drain_delay).await;
            self.tasks.stop().cancel();
            self.connections.close();
            self.connections.wait().await;
            self.ingest.close();
            self.tasks.ended().await;
            self.relay.stop().cancel();
            self.relay.ended().await;
            self.store.close().await;
        };
        tokio::select! {
            () = drained => {}
            () = tokio::time::sleep(life.grace_period) => {
                bail!("the grace period of {:?} ended with {} events still queued: their requests were not answered", life.grace_period, self.ingest.queued());
            }
        }
        for tasks in [&mut self.tasks, &mut self.relay] {
            if let Some(name) = futures_util::FutureExt::now_or_never(tasks.death()) {
                bail!("the task {name:?} has ended unexpectedly");
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the store, without a limit, and migrates or checks its schema. An error that waiting cannot fix ends the service.
async fn open(store: &dyn Store, migrates: bool, has_relay: bool) -> Result<()> {
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
                tracing::warn!(retry_in = ?wait, "failed to open the store, retrying: {}", error.line());
                tokio::time::sleep(wait).await;
            }
        }
    }
    match store.warnings().await {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::warn!(
            "failed to read the settings of the store, skipping its warnings: {}",
            error.line()
        ),
    }
    if !has_relay
        && let Ok(stats) = store.stats().await
        && stats.backlog.batches > 0
    {
        tracing::warn!(
            outbox.batches = stats.backlog.batches,
            "the outbox holds batches that were not published, and they stay there: REDIS_URL is not set"
        );
    }
    Ok(())
}
