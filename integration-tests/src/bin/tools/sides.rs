//! The sides of the benchmarks.

use crate::events::Event;
use crate::http;
use crate::postgres::{self, Statement};

/// Where the service keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// On PostgreSQL.
    Postgres,
    /// Embedded.
    Sqlite,
}

/// What the service publishes stored events to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Nothing: no Redis is configured.
    Nothing,
    /// A Redis channel with one subscriber.
    Channel,
    /// The same channel, and a Redis stream.
    ChannelAndStream,
}

/// The shards of a topic's counters.
const SHARDS: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The service over HTTP, with this many events in a request.
    Service(Store, usize),
    /// One SQL statement for a batch of this many events, sent to PostgreSQL without the service.
    Batch(Statement, usize),
    /// One SQL statement for each event, sent to PostgreSQL without the service: the insert alone.
    Insert,
    /// The same, with an exact counter for its topic.
    InsertAndCount,
}

/// One side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// What is measured.
    pub what: What,
    /// The number of connections.
    pub connections: usize,
    /// The number of events.
    pub events: usize,
    /// The number of topics.
    pub topics: u64,
    /// What the service publishes to.
    pub sink: Sink,
    /// The number of subscribers of `/events/stream`, each of which must get every event.
    pub stream_subscribers: usize,
}

impl Side {
    /// A side with eight topics, a Redis channel and no stream subscribers.
    pub const fn new(what: What, connections: usize, events: usize) -> Self {
        Self {
            what,
            connections,
            events,
            topics: 8,
            sink: Sink::Channel,
            stream_subscribers: 0,
        }
    }

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
                let load = match size {
                    1 => format!("single events{one}"),
                    _ => format!("batches of {size}"),
                };
                let sink = match self.sink {
                    Sink::Nothing => ", no Redis",
                    Sink::Channel => "",
                    Sink::ChannelAndStream => ", with a stream",
                };
                let subscribers = match self.stream_subscribers {
                    0 => String::new(),
                    count => format!(", {count} subscribers"),
                };
                format!("service{store}, {load}{sink}{subscribers}")
            }
            What::Batch(statement, size) => format!("{} of {size}", statement.name()),
            What::Insert => format!("plain insert{one}"),
            What::InsertAndCount => format!("plain insert and counter{one}"),
        }
    }

    /// One request for each batch of the events.
    pub fn requests(self, events: &[Event]) -> Vec<Vec<u8>> {
        let numbered = (1..).zip(events);
        match self.what {
            What::Service(_, size) => events.chunks(size).map(http::publish).collect(),
            What::Batch(_, size) => {
                let batches = events.chunks(size).enumerate();
                // Batches that are in flight at the same time use different shards of the counters, as the writers do.
                let shard = |number| i32::try_from(number % SHARDS).expect("there are few");
                batches
                    .map(|(number, batch)| postgres::batch(batch, shard(number)))
                    .collect()
            }
            What::Insert | What::InsertAndCount => {
                numbered.map(|(number, event)| postgres::row(event, number)).collect()
            }
        }
    }
}
