//! How many connections each client has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;

use crate::http::client_address::ClientAddress;

/// The answer to a connection that is refused, without its body.
const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n";

/// Its body. The request is not read, so it has no id.
const PROBLEM: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"This client has too many connections. Nothing was stored; use those that it has, or try again later."}"#;

/// The open connections of each client.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// No client may have more than `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self {
            open: Arc::default(),
            max,
        }
    }

    /// A place for another connection of this client; `None` if it has too many.
    pub(super) fn admit(&self, address: ClientAddress) -> Option<Place> {
        let client = address.network();
        let mut open = self.open.lock().expect("nothing panics while it counts connections");
        let count = open.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(open);
        let clients = self.clone();
        Some(Place { clients, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .clients
            .open
            .lock()
            .expect("nothing panics while it counts connections");
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// Answers a connection that is refused, as far as that is possible without waiting.
pub(super) fn refuse(stream: &TcpStream) {
    let answer = format!("{REFUSAL}content-length: {}\r\n\r\n{PROBLEM}", PROBLEM.len());
    // A new connection has room for so little, and whoever has gone needs no answer.
    stream.try_write(answer.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_places() {
        let clients = Clients::new(2);
        let admit = |address: &str| clients.admit(ClientAddress::of(address.parse().unwrap()));
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        let _other = admit("10.0.0.2").unwrap();
        drop(first);
        assert!(admit("10.0.0.1").is_some());
        let _network = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        assert_eq!(clients.open.lock().unwrap().len(), 3);
    }
}
