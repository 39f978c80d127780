//! Whose connection it is, and whether there is a place for it.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clients::{self, Clients, Place};
use super::proxy_protocol::{self, HeaderError};
use crate::config::{HttpConfig, ProxyConfig};
use crate::http::client_address::ClientAddress;
use crate::http::prefix::Removed;
use crate::metrics::Metrics;
use crate::telemetry::Sample;

/// The log lines of headers that are none: a balancer that is configured otherwise may connect a thousand times a second.
static INVALID: Sample = Sample::new(5);

/// What every connection passes.
#[derive(Clone)]
pub(super) struct Gate {
    clients: Clients,
    config: HttpConfig,
    metrics: Arc<Metrics>,
}

/// A connection that may send requests.
pub(super) struct Admitted {
    pub(super) stream: TcpStream,
    /// The other end of the connection, or the client that its header of the PROXY protocol names.
    pub(super) client: ClientAddress,
    /// A trusted proxy has none: its connections carry the requests of many clients.
    _place: Option<Place>,
}

/// Writes into the extensions of a request whose it is, and what a proxy has removed from its path.
pub(super) fn identify<B>(request: &mut Request<B>, from: ClientAddress, proxies: &ProxyConfig) {
    let client = from.of_request(request.headers(), proxies);
    request.extensions_mut().insert(client);
    if from.is_proxy(proxies)
        && let Some(removed) = Removed::of(request.headers())
    {
        request.extensions_mut().insert(removed);
    }
}

impl Gate {
    pub(super) fn new(config: HttpConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            clients: Clients::new(config.connections_per_client_max),
            config,
            metrics,
        }
    }

    /// Admits a connection, or answers it that its client has too many. Waits for the header of the PROXY protocol where there must be
    /// one.
    pub(super) async fn admit(&self, mut stream: TcpStream, peer: SocketAddr) -> Option<Admitted> {
        let proxies = &self.config.proxy;
        let mut client = ClientAddress::of(peer.ip());
        if proxies.proxy_protocol && client.is_proxy(proxies) {
            let reading = timeout(self.config.header_timeout, proxy_protocol::read(&mut stream));
            match reading.await.unwrap_or(Err(HeaderError::Late)) {
                Ok(named) => client = named.map_or(client, ClientAddress::of),
                Err(HeaderError::Unused) => return None,
                Err(error) => {
                    self.report(client, &error);
                    return None;
                }
            }
        }
        let place = if client.is_proxy(proxies) {
            None
        } else {
            let Some(place) = self.clients.admit(client) else {
                self.metrics.http_connections_refused.inc();
                tracing::debug!(%client, "refused a connection: its client has too many");
                clients::refuse(&stream);
                return None;
            };
            Some(place)
        };
        Some(Admitted {
            stream,
            client,
            _place: place,
        })
    }

    fn report(&self, client: ClientAddress, error: &HeaderError) {
        self.metrics.http_proxy_headers_invalid.inc();
        if let Some(left_out) = INVALID.admit() {
            tracing::warn!(
                %client,
                left_out,
                "closed a connection of a trusted proxy, which must begin with a header of the PROXY protocol: {error}"
            );
        }
    }
}
