//! One run of a side: on an empty store, with its outcomes and counters checked at its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_tests::eventually::SOON;
use integration_tests::postgres::PostgresServer;
use integration_tests::processes::{peak_resident_bytes, processor_time, processor_time_with_children};
use integration_tests::redis::{RedisServer, RedisTarget};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;

use crate::events::{Event, Ids, Maker};
use crate::load::{Load, Sent, Target, percentile};
use crate::postgres::Statement;
use crate::sides::{Side, Sink, Store, What};
use crate::{postgres, subscriber};

/// What a PostgreSQL on a machine of this size is given. The settings that make a commit durable stay as they are.
const POSTGRES: [&str; 6] = [
    "fsync=on",
    "shared_buffers=4GB",
    "max_wal_size=16GB",
    // As on a server that has run for long: WAL files are reused instead of created in the middle of a run.
    "min_wal_size=8GB",
    "checkpoint_timeout=30min",
    "max_connections=200",
];

/// The servers that all sides share.
pub struct Servers {
    /// PostgreSQL, with `fsync` on.
    pub postgres: PostgresServer,
    /// Redis.
    pub redis: RedisServer,
}

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processor {
    /// Of this process: the load, and the subscribers.
    pub load: f64,
    /// Of the service.
    pub service: f64,
    /// Of PostgreSQL.
    pub postgres: f64,
    /// Of Redis.
    pub redis: f64,
}

/// The result of a run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The number of events sent.
    pub events: usize,
    /// Events a second.
    pub rate: f64,
    /// The median latency of the requests.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The processor time of each process.
    pub processor: Processor,
    /// The time from the first request to the last answer and the last message.
    pub elapsed: Duration,
    /// The most memory that the service had, in bytes; 0 without the service.
    pub peak_bytes: u64,
}

impl Run {
    fn without_service(side: Side, sent: &Sent, elapsed: Duration, processor: Processor) -> Self {
        Self {
            events: side.events,
            rate: rate(side.events, elapsed),
            p50: percentile(&sent.latencies, 0.5),
            p99: percentile(&sent.latencies, 0.99),
            processor,
            elapsed,
            peak_bytes: 0,
        }
    }
}

/// What a store has counted.
struct Totals {
    rows: i64,
    received: i64,
    unique: i64,
}

/// The totals of the service's tables, or of those by hand.
async fn totals(world: &World, is_by_hand: bool) -> Totals {
    if is_by_hand {
        let sum = async |column: &str| {
            let sql = format!("select coalesce(sum({column}), 0)::bigint from by_hand.counts");
            world.number(&sql).await
        };
        return Totals {
            rows: world.number("select count(*) from by_hand.events").await,
            received: sum("received").await,
            unique: sum("unique_processed").await,
        };
    }
    let totals = world.totals().await;
    Totals {
        rows: totals.rows,
        received: totals.received,
        unique: totals.unique,
    }
}

impl Servers {
    /// Starts both servers.
    pub async fn start() -> Self {
        Self {
            postgres: PostgresServer::with_settings(&POSTGRES).await,
            redis: RedisServer::new().await,
        }
    }

    /// Runs one side on an empty store of its own. All sides get the same events.
    pub async fn run(&self, side: Side) -> Result<Run> {
        self.run_with(side, Ids::Random).await
    }

    /// The same with ids of this kind.
    pub async fn run_with(&self, side: Side, ids: Ids) -> Result<Run> {
        let world = match side.what {
            What::Service(Store::Sqlite, _) => World::embedded(),
            _ => World::on(&self.postgres).await,
        };
        world.run(&["migrate"]).await.ended_with(0);
        if !matches!(side.what, What::Service(Store::Sqlite, _)) {
            // Dirty pages of earlier runs are written before the clock starts.
            world.execute("checkpoint").await;
        }
        self.run_on(&world, side, &mut Maker::new(ids, side.topics, 1)).await
    }

    /// Stores new events by the service's own statement.
    pub async fn fill(&self, world: &World, side: Side, maker: &mut Maker) -> Result<()> {
        let events: Vec<Event> = std::iter::repeat_with(|| maker.new_event()).take(side.events).collect();
        let requests = side.requests(&events);
        drop(events);
        self.run_statement(world, side, requests, Statement::GroupCommit.sql())
            .await
            .map(drop)
    }

    /// Runs one side on a store that may already hold events.
    pub async fn run_on(&self, world: &World, side: Side, maker: &mut Maker) -> Result<Run> {
        let is_by_hand = matches!(
            side.what,
            What::Batch(Statement::ByHand, _) | What::Insert | What::InsertAndCount
        );
        if is_by_hand {
            world.execute(postgres::BY_HAND).await;
        }
        let before = totals(world, is_by_hand).await;
        let (events, distinct) = maker.with_duplicates(side.events);
        let requests = side.requests(&events);
        drop(events);
        let run = match side.what {
            What::Service(..) => self.run_service(world, side, requests, distinct).await?,
            What::Batch(statement, _) => self.run_statement(world, side, requests, statement.sql()).await?,
            What::Insert => self.run_statement(world, side, requests, postgres::INSERT).await?,
            What::InsertAndCount => {
                self.run_statement(world, side, requests, postgres::INSERT_AND_COUNT)
                    .await?
            }
        };
        let after = totals(world, is_by_hand).await;
        let stored = after.rows - before.rows;
        ensure!(stored == i64::try_from(distinct)?, "{stored} rows of {distinct} events");
        if side.what != What::Insert {
            let counted = (after.received - before.received, after.unique - before.unique);
            let expected = (i64::try_from(side.events)?, stored);
            ensure!(
                counted == expected,
                "(received, unique) counted {counted:?}, expected {expected:?}"
            );
        }
        Ok(run)
    }

    async fn run_statement(
        &self,
        world: &World,
        side: Side,
        requests: Vec<Vec<u8>>,
        statement: &'static str,
    ) -> Result<Run> {
        let (address, database) = server_of(world.database_url())?;
        let target = Target::Postgres {
            address,
            database,
            statement,
        };
        let load = Load::prepare(target, side.connections, requests).await?;
        let before = self.processor(None)?;
        let (begun, sent) = load.start();
        let sent = sent.await?;
        let end = sent.end.context("the load has ended")?;
        let processor = since(before, self.processor(None)?);
        Ok(Run::without_service(side, &sent, end - begun, processor))
    }

    async fn run_service(&self, world: &World, side: Side, requests: Vec<Vec<u8>>, distinct: usize) -> Result<Run> {
        let target = RedisTarget::on(&self.redis);
        let service = self.serve(world, sink_settings(side.sink, &target)).await;
        let address = service.address().to_owned();
        let messages = match side.sink {
            Sink::Nothing => None,
            _ => Some(subscriber::subscribe(
                &self.redis_address(),
                target.channel(),
                distinct,
            )?),
        };
        let streams = subscriber::subscribe_to_stream(&address, side.stream_subscribers, distinct).await?;
        let load = Load::prepare(Target::Service { address }, side.connections, requests).await?;
        let before = self.processor(Some(&service))?;
        let (begun, sent) = load.start();
        let sent = sent.await?;
        // An acknowledged event whose message the subscriber has not received yet is unfinished work.
        let mut end = sent.end.context("the load has ended")?;
        if let Some(messages) = messages {
            let received = tokio::time::timeout(SOON, messages).await;
            end = end.max(received.context("messages are missing")???);
        }
        let processor = since(before, self.processor(Some(&service))?);
        for stream in streams.join_all().await {
            stream?;
        }
        ensure!(
            (sent.stored, sent.duplicates) == (distinct, side.events - distinct),
            "the answers count {} stored and {} duplicate events",
            sent.stored,
            sent.duplicates
        );
        world.published(SOON).await;
        Ok(Run {
            peak_bytes: peak_resident_bytes(service.pid())?,
            ..Run::without_service(side, &sent, end - begun, processor)
        })
    }

    /// Starts a service with the defaults of all settings but these.
    pub async fn serve(&self, world: &World, settings: Vec<(&str, &str)>) -> Service {
        let with = |all: Settings, (variable, value): (&str, &str)| all.with(variable, value);
        world
            .serve_with(settings.into_iter().fold(world.settings(), with))
            .await
    }

    /// The `HOST:PORT` of Redis.
    pub fn redis_address(&self) -> String {
        format!("127.0.0.1:{}", self.redis.port())
    }

    /// The processor time of each process so far.
    pub fn processor(&self, service: Option<&Service>) -> Result<Processor> {
        let service = service.map_or(Ok(Duration::ZERO), |service| processor_time(service.pid()))?;
        Ok(Processor {
            load: processor_time(std::process::id())?.as_secs_f64(),
            service: service.as_secs_f64(),
            postgres: processor_time_with_children(self.postgres.pid())?.as_secs_f64(),
            redis: processor_time(self.redis.pid())?.as_secs_f64(),
        })
    }
}

/// The settings of a service that publishes to this.
pub fn sink_settings(sink: Sink, target: &RedisTarget) -> Vec<(&str, &str)> {
    let channel = vec![("REDIS_URL", target.url()), ("REDIS_CHANNEL", target.channel())];
    match sink {
        Sink::Nothing => Vec::new(),
        Sink::Channel => channel,
        Sink::ChannelAndStream => [channel, vec![("REDIS_STREAM", target.stream())]].concat(),
    }
}

/// The processor time between two samples.
pub fn since(before: Processor, after: Processor) -> Processor {
    Processor {
        load: after.load - before.load,
        service: after.service - before.service,
        postgres: after.postgres - before.postgres,
        redis: after.redis - before.redis,
    }
}

/// Events a second.
#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 events")]
pub fn rate(events: usize, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64()
}

/// The `HOST:PORT` and the database in a URL.
fn server_of(url: &str) -> Result<(String, String)> {
    let url: reqwest::Url = url.parse()?;
    let host = url.host_str().context("a server has a host")?;
    let port = url.port().context("a server of our own has a port")?;
    Ok((format!("{host}:{port}"), url.path().trim_start_matches('/').to_owned()))
}
