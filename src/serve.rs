//! Composition: builds the service floor by floor, starts it, and stops it in the reverse order.

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
use crate::subscribers::{self, Live};
use crate::telemetry;

/// Runs the service until a signal ends it; a second one ends it at once.
///
/// # Errors
/// As [`Service::bind`] and [`Service::run`], or the second signal.
pub async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::listen().context("the system refuses signal handlers")?;
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
        signal = signals.next() => bail!("ended at once by a second signal, {signal}"),
    }
}

/// A service whose port is open. Who connects is answered once it runs.
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
    /// Another service holds the store, the port is taken, the address is not ours, or the ready-file cannot be written.
    pub async fn bind(config: Config) -> Result<Self> {
        let store = store::open(&config.database_url)?;
        store.claim().await?;
        let metrics = Arc::new(Metrics::default());
        let tasks = Tasks::default();
        let Outlet {
            handoff,
            relay,
            state: fanout,
        } = Outlet::new(&config.fanout, &store, &metrics)?;
        let (ingest, writers) = Ingest::new(config.ingest, store.clone(), metrics.clone(), handoff.clone());
        let publishing = ingest.clone();
        let live = Live::new(subscribers::Settings {
            store: store.clone(),
            handoff,
            subscribers_max: config.fanout.subscribers_max,
            is_busy: Box::new(move || publishing.is_busy()),
            metrics: metrics.clone(),
            stop: tasks.stop().clone(),
        });
        let (phase, seen_phase) = watch::channel(Phase::Starting);
        let (health, seen_health) = watch::channel(None);
        let asked = format!("{}:{}", config.http.host, config.http.port);
        let listener = Listener::bind(config.http.clone(), metrics.clone())
            .await
            .with_context(|| format!("cannot listen on {asked}"))?;
        let address = listener.address()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), url = listener.url()?, "listening");
        let parts = Parts {
            store: store.clone(),
            ingest,
            metrics,
            limits: config.http,
            phase: seen_phase,
            health: seen_health,
            live,
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

    /// The address that it listens on, with the port that it was given if any would do.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it stands in its life.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Serves until `stop`, and then lets all end that has begun.
    ///
    /// # Errors
    /// The configuration cannot work (wrong password, missing database, old schema with `--no-migrate`), a task has died, or
    /// the grace period was over before everything had ended.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut running = Running {
            store: self.store,
            ingest: self.parts.ingest.clone(),
            metrics: self.parts.metrics.clone(),
            live: self.parts.live.clone(),
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
            opened = open(&*running.store, self.life.migrates, self.relay.is_some()) => opened?,
            () = stop.cancelled() => {
                tracing::info!("stopped before the store was open");
                return Ok(());
            }
            name = running.tasks.death() => bail!("the {name} task has died"),
        }
        running.start(self.writers, self.relay, self.health);
        tokio::select! {
            () = stop.cancelled() => {}
            name = running.tasks.death() => bail!("the {name} task has died"),
            name = running.relay.death() => bail!("the {name} task has died"),
        }
        running.stop(&self.life).await
    }
}

/// The way of stored events out of the process.
struct Outlet {
    handoff: Arc<HandoffQueue>,
    relay: Option<Relay>,
    state: SinkState,
}

impl Outlet {
    fn new(config: &SinkConfig, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> Result<Self> {
        for trouble in SinkErrorKind::ALL {
            metrics.sink_errors.with_label_values(&[trouble.as_str()]);
        }
        let (trouble, seen_trouble) = watch::channel(None);
        let debt = OutboxLease {
            owner: Uuid::new_v4(),
            lease: config.lease,
        };
        let handoff = Arc::new(HandoffQueue::new(config.redis.is_some().then_some(debt)));
        let relay = match config.redis.clone() {
            Some(redis) => {
                let settings = relay::Settings {
                    store: store.clone(),
                    fanout: sink::open(redis)?,
                    handoff: handoff.clone(),
                    debt,
                    trouble,
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
                error: seen_trouble,
            },
        })
    }
}

/// The parts of a service that runs.
struct Running {
    store: Arc<dyn Store>,
    ingest: Ingest,
    metrics: Arc<Metrics>,
    live: Live,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
    /// The relay, which ends after all that hands something over to it.
    relay: Tasks,
    connections: TaskTracker,
}

impl Running {
    /// The store is open: from here on requests are served.
    fn start(&self, writers: Vec<Writer>, relay: Option<Relay>, health: watch::Sender<Health>) {
        let probe = Probe {
            store: self.store.clone(),
            ingest: self.ingest.clone(),
            metrics: self.metrics.clone(),
            health,
        };
        self.tasks.spawn("probe", probe.run(self.tasks.stop().clone()));
        let level = watch_backlog(self.store.clone(), self.metrics.clone(), self.tasks.stop().clone());
        self.tasks.spawn("outbox level", level);
        if let Some(relay) = relay {
            self.relay.spawn("relay", relay.run(self.relay.stop().clone()));
        }
        for writer in writers {
            self.tasks.spawn("writer", writer.run());
        }
        self.tasks.spawn("watcher", self.live.clone().watch());
        let ledger = prune_commit_ledger(self.store.clone(), self.tasks.stop().clone());
        self.tasks.spawn("ledger", ledger);
        self.phase.send_replace(Phase::Serving);
        tracing::info!(store = self.store.name(), "serving");
    }

    /// Not ready, keep serving for a while, no more connections, streams and requests end, the queue drains, the relay makes a
    /// last pass, the store closes. Within the grace period.
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
                bail!("the grace period of {:?} is over: {} queued events were left", life.grace_period, self.ingest.queued());
            }
        }
        for tasks in [&mut self.tasks, &mut self.relay] {
            if let Some(name) = futures_util::FutureExt::now_or_never(tasks.death()) {
                bail!("the {name} task has died");
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the store, for ever, and brings or finds its schema as this program needs it. What waiting cannot mend ends it.
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
                tracing::warn!(retry_in = ?wait, "waiting for the store: {}", error.line());
                tokio::time::sleep(wait).await;
            }
        }
    }
    match store.warnings().await {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::warn!("the store's settings could not be read: {}", error.line()),
    }
    if !has_relay
        && let Ok(stats) = store.stats().await
        && stats.backlog.batches > 0
    {
        tracing::warn!(
            outbox.batches = stats.backlog.batches,
            "batches of an earlier time wait for a Redis, and REDIS_URL is not set"
        );
    }
    Ok(())
}
