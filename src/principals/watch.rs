//! Keeps the keys in memory as they are in the store.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::known::{Principals, now};
use crate::store::StoreError;

/// How often the store is asked for changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often all keys are read anew: after a restore of an older copy, versions may come again.
const ANEW: Duration = Duration::from_secs(300);

/// How often it is noted which keys were used.
const NOTE: Duration = Duration::from_secs(60);

/// How many keys are read at once.
const PAGE: u32 = 1000;

impl Principals {
    /// Reads what has changed since the last time.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.update(false).await
    }

    /// Reads all keys.
    pub async fn load(&self) -> Result<(), StoreError> {
        self.update(true).await
    }

    /// Follows the store until `stop`, and notes in it which keys are used.
    pub async fn watch(self, stop: CancellationToken) {
        let watching = async {
            let (mut anew_at, mut note_at) = (Instant::now() + ANEW, Instant::now() + NOTE);
            let (mut was_read, mut noted) = (true, now());
            loop {
                tokio::time::sleep(INTERVAL).await;
                let is_anew = Instant::now() >= anew_at;
                let read = self.update(is_anew).await;
                match &read {
                    // What was known while the store was away may be too old to be added to.
                    Ok(()) if is_anew => anew_at = Instant::now() + ANEW,
                    Ok(()) => {}
                    Err(error) if was_read => tracing::warn!(
                        error.class = error.class.as_str(),
                        "failed to read the keys of clients, those that are known work for five minutes: {}",
                        error.line()
                    ),
                    Err(_) => {}
                }
                if read.is_err() {
                    anew_at = Instant::now();
                }
                was_read = read.is_ok();
                if was_read && Instant::now() >= note_at {
                    note_at = Instant::now() + NOTE;
                    let since = std::mem::replace(&mut noted, now());
                    let uses = self.used_since(since);
                    if !uses.is_empty()
                        && let Err(error) = self.0.store.note_key_uses(&uses).await
                    {
                        tracing::debug!("failed to note which keys were used: {}", error.line());
                    }
                }
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    async fn update(&self, anew: bool) -> Result<(), StoreError> {
        let _turn = self.0.reading.lock().await;
        let store = &self.0.store;
        let after = if anew { 0 } else { self.version() };
        let mut changes = store.changed_keys(after, PAGE).await?;
        // The store is an older copy of what it was.
        let anew = anew || changes.version < after;
        if anew && after > 0 {
            changes = store.changed_keys(0, PAGE).await?;
        }
        let (mut keys, mut newest) = (Vec::new(), changes.version);
        loop {
            let is_full = changes.keys.len() == PAGE as usize;
            keys.append(&mut changes.keys);
            let Some(last) = keys.last().filter(|_| is_full) else {
                break;
            };
            changes = store.changed_keys(last.version, PAGE).await?;
            newest = changes.version;
        }
        self.learn(keys, newest, anew);
        Ok(())
    }
}
