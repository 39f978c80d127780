//! Who may do what, at the start of the service.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::access::Scopes;
use crate::config::{AccessConfig, ConfigError};
use crate::principals::{Principals, Settings};
use crate::store::Store;
use crate::store::backoff::Backoff;

/// Who may do what.
pub(super) struct Access {
    pub(super) principals: Principals,
    /// Whether nobody may do anything unless there are keys.
    is_open_to_nobody: bool,
}

impl Access {
    /// For a service that listens on `address`: on loopback everything is allowed without a key, unless it is said otherwise.
    pub(super) fn new(config: &AccessConfig, store: &Arc<dyn Store>, address: SocketAddr) -> Self {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let by_address = if is_loopback { Scopes::ALL } else { Scopes::NONE };
        Self {
            principals: Principals::new(Settings {
                store: store.clone(),
                anonymous: config.anonymous.unwrap_or(by_address),
                admin: config.admin,
            }),
            is_open_to_nobody: config.anonymous.is_none() && !is_loopback,
        }
    }

    /// Reads the keys, and refuses to serve nobody.
    pub(super) async fn know(&self) -> Result<()> {
        let mut backoff = Backoff::default();
        while let Err(error) = self.principals.load().await {
            let wait = backoff.next_wait();
            tracing::warn!(retry_in = ?wait, "failed to read the keys of clients, retrying: {}", error.line());
            tokio::time::sleep(wait).await;
        }
        if self.is_open_to_nobody && !self.principals.has_keys() {
            bail!(ConfigError(vec![
            "nobody may use a service that listens on other addresses than loopback: make a key (`eventsieve keys create`), set EVENTSIEVE_ADMIN_KEY, or say with EVENTSIEVE_ANONYMOUS what may be done without a key".to_owned()
        ]));
        }
        Ok(())
    }
}
