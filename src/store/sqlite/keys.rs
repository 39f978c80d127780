//! The keys of clients.

use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::clock::{now, timestamp};
use super::error::failed_to;
use super::{STATS_TIMEOUT, Sqlite};
use crate::access::{Key, KeyId, KeyLimits, Scopes, SecretHash};
use crate::event::{Timestamp, TopicGlob, TopicGlobs};
use crate::store::{KEYS_MAX, KeyChanges, KeySaved, KeyStore, StoreError};

const VERSION: &str = "select version from access";
const CHANGED: &str = "select * from keys where version > ?1 order by version limit ?2";
const KEYS: &str = "select * from keys where id > ?1 order by id limit ?2";
const KEY: &str = "select * from keys where id = ?1";
const VERSION_OF: &str = "select version from keys where id = ?1";
const COUNT: &str = "select count(*) from keys";
const REMOVE_REVOKED: &str = "delete from keys where revoked_at < ?1";
const NEXT_VERSION: &str = "update access set version = version + 1 returning version";
const SAVE: &str = include_str!("sql/save_key.sql");
const NOTE_USE: &str = "update keys set last_used_at = ?2 where id = ?1 and coalesce(last_used_at, 0) < ?2";

/// For so long a key that was revoked stays, in microseconds.
const REVOKED_MICROS: i64 = 24 * 3_600_000_000;

#[async_trait]
impl KeyStore for Sqlite {
    async fn changed_keys(&self, after: i64, limit: u32) -> Result<KeyChanges, StoreError> {
        let read = move |connection: &Connection| {
            let version = connection.prepare_cached(VERSION)?.query_row([], |row| row.get(0))?;
            let keys = connection
                .prepare_cached(CHANGED)?
                .query_map(params![after, limit], key_of)?
                .collect::<Result<_, _>>()?;
            Ok(KeyChanges { version, keys })
        };
        self.readers
            .run(STATS_TIMEOUT, move |connection| {
                read(connection).map_err(failed_to("read the keys"))
            })
            .await
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<Key>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let read = move |connection: &Connection| {
            connection
                .prepare_cached(KEYS)?
                .query_map(params![after, limit], key_of)?
                .collect::<Result<_, _>>()
        };
        self.readers
            .run_for_client(STATS_TIMEOUT, move |connection| {
                read(connection).map_err(failed_to("list the keys"))
            })
            .await
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(KEY)?;
            statement.query_row([id.as_str()], key_of).optional()
        };
        self.readers
            .run_for_client(STATS_TIMEOUT, move |connection| {
                read(connection).map_err(failed_to("read a key"))
            })
            .await
    }

    async fn save_key(&self, key: &Key) -> Result<KeySaved, StoreError> {
        let key = key.clone();
        self.step("keep a key", move |connection| save(connection, &key)).await
    }

    async fn note_key_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        let uses = uses.to_vec();
        self.step("note the use of keys", move |connection| {
            let mut note = connection.prepare_cached(NOTE_USE)?;
            for (id, at) in &uses {
                note.execute(params![id.as_str(), at.micros()])?;
            }
            Ok(())
        })
        .await
    }
}

fn save(connection: &Connection, key: &Key) -> rusqlite::Result<KeySaved> {
    if key.version == 0 {
        connection.execute(REMOVE_REVOKED, [now().micros().saturating_sub(REVOKED_MICROS)])?;
        if connection.query_row(COUNT, [], |row| row.get::<_, u32>(0))? >= KEYS_MAX {
            return Ok(KeySaved::TooMany);
        }
    } else {
        let known = connection.query_row(VERSION_OF, [key.id.as_str()], |row| row.get(0));
        if known.optional()? != Some(key.version) {
            return Ok(KeySaved::Changed);
        }
    }
    let version: i64 = connection.query_row(NEXT_VERSION, [], |row| row.get(0))?;
    let (previous, until) = key.previous.unzip();
    let bytes_per_second = key
        .limits
        .bytes_per_second
        .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    connection.prepare_cached(SAVE)?.execute(params![
        key.id.as_str(),
        key.name,
        key.scopes.to_string(),
        key.topics_text(),
        key.limits.events_per_second,
        bytes_per_second,
        key.hash.0,
        previous.map(|hash| hash.0),
        until.map(Timestamp::micros),
        key.created_at.micros(),
        key.expires_at.map(Timestamp::micros),
        key.revoked_at.map(Timestamp::micros),
        version,
    ])?;
    Ok(KeySaved::Saved(version))
}

fn key_of(row: &Row<'_>) -> rusqlite::Result<Key> {
    let time = |name: &str| row.get::<_, Option<i64>>(name)?.map(timestamp).transpose();
    let text = |name: &str| row.get::<_, String>(name);
    Ok(Key {
        id: KeyId::parse(&text("id")?).ok_or_else(|| wrong("id"))?,
        name: text("name")?,
        scopes: Scopes::parse(&text("scopes")?).ok_or_else(|| wrong("scopes"))?,
        topics: match row.get::<_, Option<String>>("topics")? {
            None => TopicGlobs::All,
            Some(text) => text
                .split_whitespace()
                .map(|glob| TopicGlob::parse(glob).ok_or_else(|| wrong("topics")))
                .collect::<Result<_, _>>()?,
        },
        limits: KeyLimits {
            events_per_second: row.get("events_per_second")?,
            bytes_per_second: row
                .get::<_, Option<i64>>("bytes_per_second")?
                .and_then(|limit| limit.try_into().ok()),
        },
        hash: SecretHash(row.get("hash")?),
        previous: row
            .get::<_, Option<[u8; 32]>>("previous_hash")?
            .map(SecretHash)
            .zip(time("previous_until")?),
        created_at: timestamp(row.get("created_at")?)?,
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
        version: row.get("version")?,
    })
}

/// A column with something that no service has written.
fn wrong(column: &str) -> rusqlite::Error {
    let message = format!("no key has such a value in the column {column}");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, message.into())
}
