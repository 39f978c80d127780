//! The keys of clients.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::append::timestamp;
use super::connect::Session;
use super::error::{decoding, failed_to};
use super::{Postgres, STATS_TIMEOUT};
use crate::access::{Key, KeyId, KeyLimits, Scopes, SecretHash};
use crate::event::{Timestamp, TopicGlob, TopicGlobs};
use crate::store::{KEYS_MAX, KeyChanges, KeySaved, KeyStore, StoreError};

const CHANGED: &str = include_str!("sql/changed_keys.sql");
const KEYS: &str = "select k.* from eventsieve.keys k where k.id > $1 order by k.id limit $2";
const KEY: &str = "select k.* from eventsieve.keys k where k.id = $1";
const SAVE: &str = include_str!("sql/save_key.sql");
const NOTE_USES: &str = "
    update eventsieve.keys k set last_used_at = u.at
    from unnest($1::text[], $2::timestamptz[]) u (id, at)
    where k.id = u.id and (k.last_used_at is null or k.last_used_at < u.at)";

#[async_trait]
impl KeyStore for Postgres {
    async fn changed_keys(&self, after: i64, limit: u32) -> Result<KeyChanges, StoreError> {
        self.readers.run_with(STATS_TIMEOUT, (after, limit), changed_keys).await
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<Key>, StoreError> {
        self.readers.run_for_client(STATS_TIMEOUT, (after, limit), keys).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        self.readers.run_for_client(STATS_TIMEOUT, id, key).await
    }

    async fn save_key(&self, key: &Key) -> Result<KeySaved, StoreError> {
        let time = |time: Option<Timestamp>| time.map(DateTime::<Utc>::from);
        let (previous, until) = key.previous.unzip();
        let query = self
            .query(SAVE)
            .bind(key.id.as_str())
            .bind(&key.name)
            .bind(key.scopes.to_string())
            .bind(key.topics_text())
            .bind(key.limits.events_per_second.map(i64::from))
            .bind(key.limits.bytes_per_second.map(saturating))
            .bind(key.hash.0.to_vec())
            .bind(previous.map(|hash| hash.0.to_vec()))
            .bind(time(until))
            .bind(DateTime::<Utc>::from(key.created_at))
            .bind(time(key.expires_at))
            .bind(time(key.revoked_at))
            .bind(key.version)
            .bind(i64::from(KEYS_MAX));
        let rows = self.relay("keep a key", query).await?;
        match rows.first() {
            Some(row) => row.try_get(0).map(KeySaved::Saved).map_err(decoding),
            None if key.version == 0 => Ok(KeySaved::TooMany),
            None => Ok(KeySaved::Changed),
        }
    }

    async fn note_key_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        let (ids, times): (Vec<String>, Vec<DateTime<Utc>>) = uses
            .iter()
            .map(|(id, at)| (id.to_string(), DateTime::<Utc>::from(*at)))
            .unzip();
        let query = self.query(NOTE_USES).bind(ids).bind(times);
        self.relay("note the use of keys", query).await.map(drop)
    }
}

async fn changed_keys(pg: &mut Session, (after, limit): (i64, u32)) -> Result<KeyChanges, StoreError> {
    let query = pg.query(CHANGED).bind(after).bind(i64::from(limit));
    let rows = pg.fetch_all(query).await.map_err(failed_to("read the keys"))?;
    let read = || {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let has_key = |row: &&PgRow| row.try_get::<Option<&str>, _>("id").is_ok_and(|id| id.is_some());
        Ok(KeyChanges {
            version: first.try_get("newest_version")?,
            keys: rows.iter().filter(has_key).map(key_of).collect::<Result<_, _>>()?,
        })
    };
    read().map_err(decoding)
}

async fn keys(pg: &mut Session, (after, limit): (Option<KeyId>, u32)) -> Result<Vec<Key>, StoreError> {
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let query = pg.query(KEYS).bind(after).bind(i64::from(limit));
    let rows = pg.fetch_all(query).await.map_err(failed_to("list the keys"))?;
    rows.iter().map(key_of).collect::<Result<_, _>>().map_err(decoding)
}

async fn key(pg: &mut Session, id: KeyId) -> Result<Option<Key>, StoreError> {
    let query = pg.query(KEY).bind(id.to_string());
    let rows = pg.fetch_all(query).await.map_err(failed_to("read a key"))?;
    rows.first().map(key_of).transpose().map_err(decoding)
}

fn key_of(row: &PgRow) -> sqlx::Result<Key> {
    let time = |name| Ok::<_, sqlx::Error>(row.try_get::<Option<DateTime<Utc>>, _>(name)?.map(timestamp));
    let hash = |bytes: Vec<u8>| bytes.try_into().map(SecretHash).map_err(|_| wrong("hash"));
    let text = |name| row.try_get::<&str, _>(name);
    let previous = row
        .try_get::<Option<Vec<u8>>, _>("previous_hash")?
        .map(hash)
        .transpose()?;
    let limit = |name| row.try_get::<Option<i64>, _>(name);
    Ok(Key {
        id: KeyId::parse(text("id")?).ok_or_else(|| wrong("id"))?,
        name: row.try_get("name")?,
        scopes: Scopes::parse(text("scopes")?).ok_or_else(|| wrong("scopes"))?,
        topics: match row.try_get::<Option<&str>, _>("topics")? {
            None => TopicGlobs::All,
            Some(text) => text
                .split_whitespace()
                .map(|glob| TopicGlob::parse(glob).ok_or_else(|| wrong("topics")))
                .collect::<Result<_, _>>()?,
        },
        limits: KeyLimits {
            events_per_second: limit("events_per_second")?.and_then(|limit| limit.try_into().ok()),
            bytes_per_second: limit("bytes_per_second")?.and_then(|limit| limit.try_into().ok()),
        },
        hash: hash(row.try_get("hash")?)?,
        previous: previous.zip(time("previous_until")?),
        created_at: timestamp(row.try_get("created_at")?),
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
        version: row.try_get("version")?,
    })
}

/// A column with something that no service has written.
fn wrong(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("no key has such a value in the column {column}").into())
}

fn saturating(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
