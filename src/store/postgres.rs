//! The store on PostgreSQL 14 or later; the schema is in `migrations/postgres`.
//!
//! Each writer owns a connection ([`append`]); reads share a pool ([`readers`]); the probe and the relay ([`outbox`]) have one
//! connection each of their own, so that a slow read can neither make the service look dead nor delay publishing. sqlx's own
//! pool is not used: in sqlx 0.9.0 a cancelled query returns its connection through a ping without a time limit, so a connection
//! that died silently blocks its place in the pool. Here a connection whose state is unknown is closed.

mod append;
mod connect;
mod error;
pub(super) mod globs;
mod keys;
mod largest;
mod outbox;
mod read;
mod readers;
mod retention;
mod schema;
mod servers;
mod statement;
mod statistics;
mod verify;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use tokio::sync::Mutex;

use self::connect::{Address, Role, Session, bounded, close, connect};
use self::readers::Readers;
use self::statement::Schema;
use crate::config::Database;
use crate::event::{EventId, Timestamp, Topic, TopicGlobs};
use crate::store::{
    Appender, ConflictList, ConflictPage, Counts, EventReader, EventWriter, Found, List, Maintenance, Named, Page,
    Scan, ScanError, Stability, StoreError, StoreStats, TopicList, TopicSummary, TopicSums, Turn, Verification,
};

/// Whether the server takes no writes, and how far the log is stable.
const PROBE: &str = include_str!("postgres/sql/probe.sql");

/// How long a probe may take before the store counts as unreachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading the counters may take. There are few of them, so only an ailing server takes longer.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to look whether topics are known, for which a request waits.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of events at which a group commit is full. Larger ones are slower: more of the events that are sent twice at the
/// same time wait for each other's transactions, and they wait longer. From four connections PostgreSQL stores 78 000, 94 000,
/// 96 000, 76 000 and 74 000 events/s in commits of 64, 250, 1000, 2000 and 5000 events, 30 % of them duplicates of any earlier
/// event. The service stores 84 700 events/s from sixteen concurrent requests with 1000 events each, and 64 600 when a commit
/// gathers up to 10 000 events; from 64 requests with 100 events each, 89 300 and 82 500 when it gathers up to 500 and 1000
/// (medians of 9 and 13 runs; two cores, PostgreSQL 15).
const BATCH_EVENTS: usize = 500;

/// A store on PostgreSQL.
pub struct Postgres {
    address: Address,
    readers: Readers,
    probe: Mutex<Option<Session>>,
    expiry: Mutex<Option<Session>>,
    relay: Mutex<Option<Session>>,
}

impl Postgres {
    /// A store in `database`; connects to nothing yet. Fails as [`ErrorClass::Configuration`](crate::store::ErrorClass::Configuration)
    /// when its URL is not a `postgres://` URL.
    pub fn open(database: &Database) -> Result<Self, StoreError> {
        let servers = servers::servers(database.expose_url())?;
        let schema = Schema::new(database.schema());
        let address = Address::new(servers, schema, database.pooler());
        Ok(Self {
            readers: Readers::new(address.clone()),
            address,
            probe: Mutex::new(None),
            expiry: Mutex::new(None),
            relay: Mutex::new(None),
        })
    }

    /// A query whose statement names the store's schema.
    pub(super) fn query<'q>(&self, statement: &'static str) -> Query<'q, sqlx::Postgres, PgArguments> {
        self.address.schema.query(statement)
    }

    /// Where the tables are, unless the store was closed.
    fn address(&self) -> Result<&Address, StoreError> {
        if self.readers.is_closed() {
            return Err(connect::closed());
        }
        Ok(&self.address)
    }
}

impl Named for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }
}

#[async_trait]
impl EventWriter for Postgres {
    fn writers_max(&self) -> u32 {
        u32::MAX
    }

    fn batch_events(&self) -> usize {
        BATCH_EVENTS
    }

    async fn appender(&self, writer_id: u32) -> Result<Box<dyn Appender>, StoreError> {
        Ok(Box::new(append::PgAppender::open(self.address()?, writer_id).await?))
    }
}

#[async_trait]
impl EventReader for Postgres {
    async fn list(&self, list: &List) -> Result<Page, StoreError> {
        self.readers.run_for_client(read::LIST_TIMEOUT, list, read::list).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ScanError> {
        let (readers, limit) = (&self.readers, read::LIST_TIMEOUT);
        let page = match scan.turn {
            Turn::Client => readers.run_for_client(limit, scan, read::scan).await?,
            Turn::Service => readers.run_with(limit, scan, read::scan).await?,
        };
        page.ok_or(ScanError::UnknownCursor)
    }

    async fn find(&self, topic: &Topic, event_id: &EventId) -> Result<Option<Found>, StoreError> {
        self.readers
            .run_for_client(read::LIST_TIMEOUT, (topic, event_id), read::find)
            .await
    }

    async fn topics(&self, list: &TopicList) -> Result<Vec<TopicSummary>, StoreError> {
        self.readers
            .run_for_client(STATS_TIMEOUT, list, statistics::topics)
            .await
    }

    async fn conflicts(&self, list: &ConflictList) -> Result<ConflictPage, StoreError> {
        self.readers
            .run_for_client(STATS_TIMEOUT, list, statistics::conflicts)
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.readers.run(STATS_TIMEOUT, statistics::stats).await
    }

    async fn sums(&self, globs: &TopicGlobs) -> Result<TopicSums, StoreError> {
        self.readers
            .run_for_client(STATS_TIMEOUT, globs, statistics::sums)
            .await
    }

    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError> {
        self.readers
            .run_with(STATS_TIMEOUT, topic, statistics::topic_counts)
            .await
    }

    async fn unknown_topics(&self, topics: &[&str]) -> Result<Vec<String>, StoreError> {
        self.readers
            .run_with(TOPICS_TIMEOUT, topics, statistics::unknown_topics)
            .await
    }

    async fn stability(&self) -> Result<Stability, StoreError> {
        self.readers.run(STATS_TIMEOUT, statistics::stability).await
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        self.readers.run(STATS_TIMEOUT, statistics::clock).await
    }
}

#[async_trait]
impl Maintenance for Postgres {
    async fn claim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn migrate(&self) -> Result<i64, StoreError> {
        let mut pg = connect(self.address()?, Role::Admin).await?;
        let version = schema::migrate(&mut pg).await?;
        close(pg).await;
        Ok(version)
    }

    async fn grant(&self, role: &str) -> Result<(), StoreError> {
        let mut pg = connect(self.address()?, Role::Admin).await?;
        schema::grant(&mut pg, role).await?;
        close(pg).await;
        Ok(())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let mut pg = connect(self.address()?, Role::Admin).await?;
        schema::check(&mut pg).await?;
        close(pg).await;
        Ok(())
    }

    async fn probe(&self) -> Result<Stability, StoreError> {
        let mut slot = self.probe.lock().await;
        let mut pg = match slot.take() {
            Some(pg) => pg,
            None => connect(self.address()?, Role::Probe).await?,
        };
        let query = pg.query(PROBE);
        let row = bounded(PROBE_TIMEOUT, "probe the store", pg.fetch_one(query)).await?;
        if row.try_get("is_read_only").map_err(error::decoding)? {
            return Err(error::read_only());
        }
        *slot = Some(pg);
        statistics::stability_from(&row)
    }

    async fn verify(&self) -> Result<Verification, StoreError> {
        let mut pg = connect(self.address()?, Role::Admin).await?;
        let verification = verify::verify(&mut pg).await?;
        close(pg).await;
        Ok(verification)
    }

    async fn find_largest_topics(&self) -> Result<(), StoreError> {
        self.refresh_largest_topics().await
    }

    async fn version(&self) -> Result<String, StoreError> {
        self.readers.run(STATS_TIMEOUT, statistics::version).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        let off = self.readers.run(STATS_TIMEOUT, statistics::unsafe_settings).await?;
        let warning = |name: String| {
            format!("PostgreSQL runs with {name} = off: acknowledged events may be lost if the server crashes")
        };
        Ok(off.into_iter().map(warning).collect())
    }

    async fn close(&self) {
        self.readers.close().await;
        for slot in [&self.probe, &self.expiry, &self.relay] {
            if let Some(pg) = slot.lock().await.take() {
                close(pg).await;
            }
        }
    }
}
