//! Composition: builds the service from its modules, starts it, and stops it in the reverse order.

mod probe;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::probe::Probe;
use crate::config::{Config, LifeConfig, SinkConfig};
use crate::http::listener::Listener;
use crate::http::{self, AppState, Health, Parts, Phase, SinkState};
use crate::ingest::{Ingest, Writer};
use crate::lifecycle::{Signals, Tasks};
use crate::metrics::Metrics;
use crate::relay::{self, Relay, prune_commit_ledger, watch_backlog};
use crate::sink::{self, HandoffQueue, OutboxLease, SinkErrorKind};
use crate::store::backoff::Backoff;
use crate::store::{self, ErrorClass, Store};
use crate::subscribers::{self, Subscribers};
use crate::telemetry;

/// Runs the service until a signal stops it; a second signal ends it at once, with an error.
pub async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::listen().context("failed to install the signal handlers")?;
    let stop = CancellationToken::new();
    let service = Service::bind(config).await?;
    let mut running = pin!(async {
        let ended = service.run(stop.clone()).await;
        telemetry::end_traces().await;
        ended
    });
    tokio::select! {
        ended = &mut running => return ended,
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
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
    phase: watch::Sender<Phase>,
    health: watch::Sender<Health>,
    tasks: Tasks,
    listener: Listener,
    address: SocketAddr,
    life: LifeConfig,
}

impl Service {
    /// Claims the store, and opens the port.
    ///
    /// # Errors
    /// Another service has claimed the store, the port is taken, the address does not belong to this machine, or the ready-file
    /// cannot be written.
    pub async fn bind(config: Config) -> Result<Self> {
        let store = store::open(&config.database_url)?;
        store.claim().await?;
        let metrics = Arc::new(Metrics::default());
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
        let listener = Listener::bind(config.http.clone(), metrics.clone())
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.address()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), url = listener.url()?, "listening");
        let parts = Parts {
            store: store.clone(),
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
            phase,
            health,
            tasks,
            listener,
            address,
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
            phase: self.phase,
            tasks: self.tasks,
            relay: Tasks::default(),
            connections: TaskTracker::new(),
        };
        let app = http::routes(AppState::new(self.parts));
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
        running.start(self.writers, self.relay, self.health);
        tokio::select! {
            () = stop.cancelled() => {}
            name = running.tasks.death() => bail!("the task {name:?} has ended unexpectedly"),
            name = running.relay.death() => bail!("the task {name:?} has ended unexpectedly"),
        }
        running.stop(&self.life).await
    }
}

/// How stored events leave the process.
struct Delivery {
    handoff: Arc<HandoffQueue>,
    relay: Option<Relay>,
    state: SinkState,
}

impl Delivery {
    fn new(config: &SinkConfig, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> Result<Self> {
        for kind in SinkErrorKind::ALL {
            metrics.sink_errors.with_label_values(&[kind.as_str()]);
        }
        let (sink_error, seen_error) = watch::channel(None);
        let lease = OutboxLease {
            owner: Uuid::new_v4(),
            length: config.lease,
        };
        let handoff = Arc::new(HandoffQueue::new(config.redis.is_some().then_some(lease)));
        let relay = match config.redis.clone() {
            Some(redis) => {
                let settings = relay::Settings {
                    store: store.clone(),
                    sink: sink::open(redis)?,
                    handoff: handoff.clone(),
                    lease,
                    sink_error,
                    metrics: metrics.clone(),
                };
                Some(Relay::new(settings))
            }
            None => None,
        };
        let kind = if relay.is_some() { "redis" } else { "process" };
        Ok(Self {
            handoff,
            relay,
            state: SinkState {
                kind,
                error: seen_error,
            },
        })
    }
}

/// The parts of a running service.
struct Running {
    store: Arc<dyn Store>,
    ingest: Ingest,
    metrics: Arc<Metrics>,
    subscribers: Subscribers,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
    /// The relay, which ends after the writers that queue batches for it.
    relay: Tasks,
    connections: TaskTracker,
}

impl Running {
    /// Starts serving requests: the store is available.
    fn start(&self, writers: Vec<Writer>, relay: Option<Relay>, health: watch::Sender<Health>) {
        let probe = Probe {
            store: self.store.clone(),
            ingest: self.ingest.clone(),
            metrics: self.metrics.clone(),
            health,
        };
        self.tasks.spawn("probe", probe.run(self.tasks.stop().clone()));
        let backlog = watch_backlog(self.store.clone(), self.metrics.clone(), self.tasks.stop().clone());
        self.tasks.spawn("backlog", backlog);
        if let Some(relay) = relay {
            self.relay.spawn("relay", relay.run(self.relay.stop().clone()));
        }
        for writer in writers {
            self.tasks.spawn("writer", writer.run());
        }
        self.tasks.spawn("subscribers", self.subscribers.clone().watch());
        let ledger = prune_commit_ledger(self.store.clone(), self.tasks.stop().clone());
        self.tasks.spawn("commit ledger", ledger);
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
