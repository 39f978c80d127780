//! The contestants, and one run of one of them: on an empty store, with its verdicts and counters checked at its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_tests::eventually::SOON;
use integration_tests::postgres::PostgresServer;
use integration_tests::processes::{peak_resident_bytes, processor_time, processor_time_with_children};
use integration_tests::redis::{Outlet, RedisServer};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;

use crate::events::{Event, Ids, Maker};
use crate::load::{Load, Sent, Target, percentile};
use crate::{http, postgres, subscriber};

/// The servers that all contestants share.
pub struct Servers {
    /// PostgreSQL, with `fsync` on.
    pub postgres: PostgresServer,
    /// Redis.
    pub redis: RedisServer,
}

/// Where the service keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// On PostgreSQL.
    Postgres,
    /// Embedded.
    Sqlite,
}

/// The shards of a topic's counters.
const SHARDS: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The service over HTTP, its fan-out on and one subscriber attached, with so many events a request.
    Service(Store, usize),
    /// Its own flush statement, raw, with so many rows.
    Flush(usize),
    /// A row at a time, raw: the insert alone.
    Insert,
    /// The same, with an exact counter for its topic.
    InsertAndCount,
}

/// A contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// What is measured.
    pub what: What,
    /// From how many connections.
    pub connections: usize,
    /// How many events it gets.
    pub events: usize,
    /// Of how many topics.
    pub topics: u64,
}

impl Side {
    /// Its name in tables.
    pub fn name(self) -> String {
        let one = match (self.connections, self.topics) {
            (1, _) => ", alone",
            (_, 1) => ", one topic",
            _ => "",
        };
        match self.what {
            What::Service(store, size) => {
                let store = match store {
                    Store::Postgres => "",
                    Store::Sqlite => " on SQLite",
                };
                match size {
                    1 => format!("service{store}, single events{one}"),
                    _ => format!("service{store}, batches of {size}"),
                }
            }
            What::Flush(size) => format!("raw flush of {size}"),
            What::Insert => format!("raw insert{one}"),
            What::InsertAndCount => format!("raw insert and counter{one}"),
        }
    }

    /// A request for each batch of the events.
    pub fn requests(self, events: &[Event]) -> Vec<Vec<u8>> {
        let numbered = (1..).zip(events);
        match self.what {
            What::Service(_, size) => events.chunks(size).map(http::publish).collect(),
            What::Flush(size) => {
                let batches = events.chunks(size).enumerate();
                // Those that are under way at one time have a shard of the counters each, as writers have.
                let shard = |number| i32::try_from(number % SHARDS).expect("there are few");
                batches
                    .map(|(number, batch)| postgres::flush(batch, shard(number)))
                    .collect()
            }
            What::Insert | What::InsertAndCount => {
                numbered.map(|(number, event)| postgres::row(event, number)).collect()
            }
        }
    }
}

/// The processor's time in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processor {
    /// Of this process: the load, and the subscriber.
    pub load: f64,
    /// Of the service.
    pub service: f64,
    /// Of PostgreSQL.
    pub postgres: f64,
    /// Of Redis.
    pub redis: f64,
}

/// What a run has shown.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How many events were sent.
    pub events: usize,
    /// Events a second.
    pub rate: f64,
    /// The median of the requests' times.
    pub p50: Duration,
    /// What one of a hundred exceeds.
    pub p99: Duration,
    /// Who has worked for how long.
    pub processor: Processor,
    /// From the first request to the last answer, and the last message.
    pub elapsed: Duration,
    /// The most memory that the service had, in bytes.
    pub peak_bytes: u64,
}

impl Run {
    /// Of a side without the service.
    fn of(side: Side, sent: &Sent, elapsed: Duration, processor: Processor) -> Self {
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

impl Servers {
    /// Runs one side on a store of its own. All sides get the same events.
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
            // What runs before have left to be written is written before the clock starts.
            world.execute("checkpoint").await;
        }
        self.run_on(&world, side, &mut Maker::new(ids, side.topics, 1)).await
    }

    /// Stores new events by raw flushes.
    pub async fn fill(&self, world: &World, side: Side, maker: &mut Maker) -> Result<()> {
        let events: Vec<Event> = std::iter::repeat_with(|| maker.new_event()).take(side.events).collect();
        let requests = side.requests(&events);
        drop(events);
        self.run_raw(world, side, requests, postgres::FLUSH).await.map(drop)
    }

    /// Runs one side on a store, which holds what earlier makers' events have left there.
    pub async fn run_on(&self, world: &World, side: Side, maker: &mut Maker) -> Result<Run> {
        let before = world.totals().await;
        let (events, distinct) = maker.with_duplicates(side.events);
        let requests = side.requests(&events);
        drop(events);
        let run = match side.what {
            What::Service(..) => self.run_service(world, side, requests, distinct).await?,
            What::Flush(_) => self.run_raw(world, side, requests, postgres::FLUSH).await?,
            What::Insert => self.run_raw(world, side, requests, postgres::INSERT).await?,
            What::InsertAndCount => self.run_raw(world, side, requests, postgres::INSERT_AND_COUNT).await?,
        };
        let after = world.totals().await;
        let stored = after.rows - before.rows;
        ensure!(stored == i64::try_from(distinct)?, "{stored} rows of {distinct} events");
        if side.what != What::Insert {
            let counted = (after.received - before.received, after.unique - before.unique);
            let expected = (i64::try_from(side.events)?, stored);
            ensure!(
                counted == expected,
                "received and stored: counted {counted:?}, and were {expected:?}"
            );
            ensure!(after.received == after.unique + after.duplicates, "{after:?}");
        }
        Ok(run)
    }

    async fn run_raw(&self, world: &World, side: Side, requests: Vec<Vec<u8>>, statement: &'static str) -> Result<Run> {
        let (address, database) = place_of(world.database_url())?;
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
        Ok(Run::of(side, &sent, end - begun, processor))
    }

    async fn run_service(&self, world: &World, side: Side, requests: Vec<Vec<u8>>, distinct: usize) -> Result<Run> {
        let outlet = Outlet::on(&self.redis);
        let service = self.serve(world, &outlet, &[]).await;
        let redis = format!("127.0.0.1:{}", self.redis.port());
        let messages = subscriber::subscribe(&redis, outlet.channel(), distinct)?;
        let address = service.address().to_owned();
        let load = Load::prepare(Target::Service { address }, side.connections, requests).await?;
        let before = self.processor(Some(&service))?;
        let (begun, sent) = load.start();
        let sent = sent.await?;
        // What was acknowledged and is not yet told to the subscriber is still to be done.
        let told = tokio::time::timeout(SOON, messages)
            .await
            .context("messages are missing")???;
        let end = sent.end.context("the load has ended")?.max(told);
        let processor = since(before, self.processor(Some(&service))?);
        ensure!(
            (sent.stored, sent.duplicates) == (distinct, side.events - distinct),
            "the answers say that {} were stored and {} dropped",
            sent.stored,
            sent.duplicates
        );
        world.fanned_out(SOON).await;
        Ok(Run {
            peak_bytes: peak_resident_bytes(service.pid())?,
            ..Run::of(side, &sent, end - begun, processor)
        })
    }

    /// A service with the defaults of all settings but these, and the fan-out on.
    pub async fn serve(&self, world: &World, outlet: &Outlet, others: &[(&str, &str)]) -> Service {
        let settings = world.settings().with("REDIS_URL", outlet.url());
        let settings = settings.with("REDIS_CHANNEL", outlet.channel());
        let with = |settings: Settings, (variable, value): &(&str, &str)| settings.with(variable, value);
        world.serve_with(others.iter().fold(settings, with)).await
    }

    /// How long the processor has worked so far.
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

/// What was worked between two looks.
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
fn place_of(url: &str) -> Result<(String, String)> {
    let url: reqwest::Url = url.parse()?;
    let host = url.host_str().context("a server has a host")?;
    let port = url.port().context("a server of our own has a port")?;
    Ok((format!("{host}:{port}"), url.path().trim_start_matches('/').to_owned()))
}
