//! Partitions, and what expires: in small steps, each a transaction of its own, with as much time for others between them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::Sqlite;
use super::clock::{FUTURE_MICROS, in_micros, now, timestamp};
use super::connect::{Link, Role};
use super::error::{committing, failed_to};
use super::expiry::Page;
use crate::event::Timestamp;
use crate::store::{Archived, Expired, Expiry, Partition, Retention, StoreError};

const CURRENT: &str = "select first_batch, begun_at from partitions where ended_at is null";
const CORRECT_ENDS: &str = "update partitions set ended_at = ?1 where ended_at > ?2";
const HAS_EVENTS: &str = "select exists (select 1 from events where batch >= ?1)";
const BEGIN_LATER: &str = "update partitions set begun_at = ?1 where ended_at is null";
const END: &str = "update partitions set ended_at = ?1 where ended_at is null";
const BEGIN: &str = "insert into partitions (first_batch, begun_at) select last_batch + 1, ?1 from log";
const PARTITIONS: &str = include_str!("sql/partitions.sql");
const DECIDE: &str = "update partitions set decision = coalesce(?2, decision), held_back = coalesce(?3, held_back) where first_batch = ?1";
const REMOVE_EMPTY: &str = "
    delete from partitions
    where first_batch = ?1 and ended_at is not null and not exists (select 1 from events where batch >= ?1 and batch < ?2)";
const COUNT_EVENTS_OF: &str = "select count(*) from events where batch >= ?1 and batch < ?2";
const MARK_ARCHIVED: &str = "update partitions set archived_as = ?2 where first_batch = ?1";
const INSERT_ARCHIVE: &str = include_str!("sql/insert_archive.sql");
const ARCHIVES: &str = "select manifest, events from archives order by first_batch";
const IDENTITIES_PAGE: &str = include_str!("sql/identities_page.sql");
const FORGET: &str = "delete from identities where key = ?1";
const COUNT_FORGOTTEN: &str = "update log set identities_forgotten = identities_forgotten + ?1";
const EMPTY_TOPICS: &str = include_str!("sql/empty_topics.sql");
const ADD_FORGOTTEN: &str = include_str!("sql/forget_topic.sql");
const FORGET_TOPIC: &str = "delete from topic_counts where topic = ?1";
const SUBTRACT_TOPICS: &str = "update totals set topics = topics - ?1";
const PRUNE_CONFLICTS: &str = include_str!("sql/prune_conflicts.sql");
const FREE_PAGES: &str = "select freelist_count from pragma_freelist_count";

/// How many identities a step examines.
const STEP_IDENTITIES: u32 = 2000;
/// How many topics a step of forgetting looks at.
const STEP_TOPICS: u32 = 500;
/// How many pages a step gives back to the system: 1 MiB.
const STEP_PAGES: u32 = 256;

/// How long it may take to count a partition.
const COUNT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a step may wait for the lock of the file.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Sqlite {
    /// Runs one step in a transaction of its own, and then leaves the file to others for as long as it took.
    pub(super) async fn step<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, took) = self
            .with_new_connection(Role::Writer, move |mut link: Link| {
                link.check_writable()?;
                link.limit(TIMEOUT)?;
                let begun = Instant::now();
                let transaction = link
                    .connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)
                    .map_err(failed_to(action))?;
                let done = work(&transaction).map_err(failed_to(action))?;
                transaction.commit().map_err(committing)?;
                Ok((done, begun.elapsed()))
            })
            .await?;
        tokio::time::sleep(took).await;
        Ok(done)
    }

    /// Forgets the topics of which nothing is left, in the order of their names.
    async fn forget_topics(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut after = Some(String::new());
        while let Some(name) = after {
            let step = self.step("forget topics", move |connection| {
                let mut page = connection.prepare_cached(EMPTY_TOPICS)?;
                let topics: Vec<(String, bool)> = page
                    .query_map(params![name, before.micros(), STEP_TOPICS], |row| {
                        Ok((row.get(0)?, row.get(1)?))
                    })?
                    .collect::<Result<_, _>>()?;
                let mut forgotten = 0;
                for (topic, _) in topics.iter().filter(|(_, is_empty)| *is_empty) {
                    connection.prepare_cached(ADD_FORGOTTEN)?.execute([topic])?;
                    forgotten += connection.prepare_cached(FORGET_TOPIC)?.execute([topic])?;
                }
                connection.execute(SUBTRACT_TOPICS, [i64::try_from(forgotten).unwrap_or(i64::MAX)])?;
                Ok(topics.into_iter().next_back().map(|(topic, _)| topic))
            });
            after = step.await?;
        }
        Ok(())
    }

    /// Gives the pages that are free back to the system.
    async fn reclaim(&self) -> Result<(), StoreError> {
        let mut before = u32::MAX;
        loop {
            let (left, took) = self
                .with_new_connection(Role::Writer, |link: Link| {
                    link.limit(TIMEOUT)?;
                    let begun = Instant::now();
                    let read = || {
                        // A row for each page: a single step would free one page.
                        let mut vacuum = link
                            .connection
                            .prepare(&format!("pragma incremental_vacuum({STEP_PAGES})"))?;
                        let mut rows = vacuum.query([])?;
                        while rows.next()?.is_some() {}
                        link.connection.query_row(FREE_PAGES, [], |row| row.get::<_, u32>(0))
                    };
                    Ok((read().map_err(failed_to("give space back"))?, begun.elapsed()))
                })
                .await?;
            // A file that another program has made may be unable to give back pages.
            if left == 0 || left >= before {
                return Ok(());
            }
            before = left;
            tokio::time::sleep(took).await;
        }
    }
}

#[async_trait]
impl Retention for Sqlite {
    /// One service at a time has claimed the file, and steps of two processes do not disturb each other.
    async fn lease(&self, _name: &str, _owner: Uuid, _length: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn begin_partition(&self, older_than: Duration) -> Result<bool, StoreError> {
        self.step("begin a partition", move |connection| {
            let now = now().micros();
            let credible = now.saturating_add(FUTURE_MICROS);
            // The clock was wrong when these ended.
            connection.execute(CORRECT_ENDS, [now, credible])?;
            let (first, begun): (i64, i64) = connection.query_row(CURRENT, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if (now.saturating_sub(in_micros(older_than))..=credible).contains(&begun) {
                return Ok(false);
            }
            let has_events: bool = connection.query_row(HAS_EVENTS, [first], |row| row.get(0))?;
            if begun > now || !has_events {
                connection.execute(BEGIN_LATER, [now])?;
                return Ok(false);
            }
            connection.execute(END, [now])?;
            connection.execute(BEGIN, [now])?;
            Ok(true)
        })
        .await
    }

    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        self.readers
            .run(TIMEOUT, |connection| {
                partitions(connection).map_err(failed_to("list the partitions"))
            })
            .await
    }

    async fn expire(&self, expiry: &Expiry) -> Result<Expired, StoreError> {
        let partitions = self.partitions().await?;
        let Some(partition) = partitions.into_iter().find(|one| one.first_batch == expiry.partition) else {
            return Ok(Expired::default());
        };
        let mut expired = Expired {
            is_open: partition.ended_at.is_none(),
            ..Expired::default()
        };
        if expired.is_open && !expiry.dry_run {
            return Ok(expired);
        }
        let mut next = Some(partition.begin());
        while let Some(after) = next {
            let (expiry, partition) = (expiry.clone(), partition.clone());
            let dry_run = expiry.dry_run;
            let page = move |connection: &Connection| {
                let page = Page::read(connection, &expiry, &partition, after)?;
                if !expiry.dry_run {
                    page.remove(connection, partition.first_batch)?;
                }
                Ok(page)
            };
            let page = if dry_run {
                let page = move |connection: &Connection| page(connection).map_err(failed_to("count what has expired"));
                self.readers.run(TIMEOUT, page).await?
            } else {
                self.step("remove what has expired", page).await?
            };
            expired.removed += page.to_remove.len() as u64;
            expired.held_back += page.held_back;
            next = page.next;
        }
        if !expiry.dry_run {
            let (decision, first, before) = (expiry.decision.clone(), partition.first_batch, partition.before_batch);
            let held_back = decision
                .as_ref()
                .map(|_| i64::try_from(expired.held_back).unwrap_or(i64::MAX));
            self.step("note what has expired", move |connection| {
                connection.execute(DECIDE, params![first, decision, held_back])?;
                connection.execute(REMOVE_EMPTY, [first, before])
            })
            .await?;
            self.reclaim().await?;
        }
        Ok(expired)
    }

    async fn mark_archived(&self, partition: i64, archived: &Archived) -> Result<bool, StoreError> {
        let partitions = self.partitions().await?;
        let Some(found) = partitions
            .into_iter()
            .find(|one| one.first_batch == partition && !one.is_open)
        else {
            return Ok(false);
        };
        // Not in the step: a partition that has ended gets no more events, and to count many takes long.
        let count = move |connection: &Connection| {
            let range = [found.first_batch, found.before_batch];
            let count: rusqlite::Result<i64> = connection.query_row(COUNT_EVENTS_OF, range, |row| row.get(0));
            count.map_err(failed_to("count a partition"))
        };
        if unsigned(self.readers.run(COUNT_TIMEOUT, count).await?) != archived.events {
            return Ok(false);
        }
        let archived = archived.clone();
        self.step("note an archive", move |connection| {
            let events = i64::try_from(archived.events).unwrap_or(i64::MAX);
            let is_marked = connection.execute(MARK_ARCHIVED, params![partition, archived.manifest])? == 1;
            if is_marked {
                let now = now().micros();
                connection.execute(INSERT_ARCHIVE, params![partition, archived.manifest, events, now])?;
            }
            Ok(is_marked)
        })
        .await
    }

    async fn archived(&self) -> Result<Vec<Archived>, StoreError> {
        self.readers
            .run(TIMEOUT, |connection| {
                let archived = |row: &rusqlite::Row<'_>| {
                    Ok(Archived {
                        manifest: row.get(0)?,
                        events: unsigned(row.get(1)?),
                    })
                };
                let read = || {
                    connection
                        .prepare(ARCHIVES)?
                        .query_map([], archived)?
                        .collect::<Result<_, _>>()
                };
                read().map_err(failed_to("list the archives"))
            })
            .await
    }

    /// In the order of their keys.
    async fn forget_identities(&self, before: Timestamp) -> Result<u64, StoreError> {
        let (mut after, mut forgotten) = (Some(Vec::new()), 0);
        while let Some(key) = after {
            let step = self.step("forget identities", move |connection| {
                let mut old = Vec::new();
                let mut page = connection.prepare_cached(IDENTITIES_PAGE)?;
                let mut rows = page.query(params![key, before.micros(), STEP_IDENTITIES])?;
                let (mut examined, mut last) = (0, None);
                while let Some(row) = rows.next()? {
                    examined += 1;
                    let key: Vec<u8> = row.get(0)?;
                    if row.get(1)? {
                        old.push(key.clone());
                    }
                    last = Some(key);
                }
                let mut forget = connection.prepare_cached(FORGET)?;
                for key in &old {
                    forget.execute([key])?;
                }
                connection.execute(COUNT_FORGOTTEN, [i64::try_from(old.len()).unwrap_or(0)])?;
                Ok((old.len() as u64, last.filter(|_| examined == STEP_IDENTITIES)))
            });
            let (old, last) = step.await?;
            forgotten += old;
            after = last;
        }
        self.forget_topics(before).await?;
        Ok(forgotten)
    }

    async fn prune_conflicts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.step("prune conflicts", move |connection| {
            Ok(connection.execute(PRUNE_CONFLICTS, params![before.micros(), limit])? as u64)
        })
        .await
    }
}

fn partitions(connection: &Connection) -> rusqlite::Result<Vec<Partition>> {
    let partition = |row: &rusqlite::Row<'_>| {
        Ok(Partition {
            first_batch: row.get(0)?,
            before_batch: row.get(1)?,
            is_open: row.get::<_, Option<i64>>(2)?.is_none(),
            ended_at: row.get::<_, Option<i64>>(2)?.map(timestamp).transpose()?,
            bytes: unsigned(row.get(3)?),
            decision: row.get(4)?,
            held_back: unsigned(row.get(5)?),
            archived_as: row.get(6)?,
        })
    };
    connection.prepare(PARTITIONS)?.query_map([], partition)?.collect()
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
