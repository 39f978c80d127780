//! Which topics are the largest, where there are so many that no list has them all.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Postgres;
use super::connect::{Role, Session, bounded, connect};
use crate::store::{Retention, StoreError, TOPICS_MAX};

const LARGEST_TOPICS: &str = include_str!("sql/largest_topics.sql");
const SET_LARGEST_TOPICS: &str = "select eventsieve.set_largest_topics($1)";
const TOPIC_COUNT: &str = "select coalesce(sum(topics), 0)::bigint from eventsieve.totals";

/// The lease under which it is found out. It is not given back: for so long nobody does it again.
const LEASE: &str = "largest topics";
const INTERVAL: Duration = Duration::from_secs(60);
/// Nor for this many times as long as it took: the server spends a hundredth of one processor on it at most.
const REST_FACTOR: u32 = 100;

/// How long it may take to read the counters of all topics.
const TIMEOUT: Duration = Duration::from_secs(600);

impl Postgres {
    /// In two transactions: one that reads for long and has written nothing holds back no cursor read.
    pub(super) async fn refresh_largest_topics(&self) -> Result<(), StoreError> {
        let count = self.relay("count the topics", self.query(TOPIC_COUNT)).await?;
        let count: i64 = count
            .first()
            .map_or(Ok(0), |row| sqlx::Row::try_get(row, 0))
            .map_err(super::error::decoding)?;
        if count <= TOPICS_MAX {
            return Ok(());
        }
        let owner = Uuid::new_v4();
        if !self.lease(LEASE, owner, INTERVAL).await? {
            return Ok(());
        }
        let begun = Instant::now();
        let mut pg = connect(self.address()?, Role::Retention).await?;
        let found = Self::find_largest(&mut pg).await;
        super::connect::close(pg).await;
        found?;
        let rest = begun.elapsed().saturating_mul(REST_FACTOR).max(INTERVAL);
        self.lease(LEASE, owner, rest).await.map(drop)
    }

    async fn find_largest(pg: &mut Session) -> Result<(), StoreError> {
        let find = pg.query(LARGEST_TOPICS).bind(TOPICS_MAX);
        let largest: Vec<String> = bounded(TIMEOUT, "find the largest topics", pg.scalars(find)).await?;
        let set = pg.query(SET_LARGEST_TOPICS).bind(largest);
        bounded(TIMEOUT, "note the largest topics", pg.fetch_all(set))
            .await
            .map(drop)
    }
}
