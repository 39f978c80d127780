//! A lane of the queue: requests that wait, taken from their clients in turn.
//!
//! Each client has a queue of its own, in the order of arrival, and a batch takes one request of each client after the other. So a
//! client that sends more than the store takes waits behind itself, and not the others behind it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::limits::BATCH_BYTES;
use super::pending::PendingRequest;
use super::submission::Client;

/// Requests that wait, with their events and bytes, those of withdrawn ones included.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The requests of each client that has any, in the order of their arrival.
    of_clients: HashMap<Client, VecDeque<Arc<PendingRequest>>>,
    /// The same clients; the first has the next turn.
    turns: VecDeque<Client>,
    tickets: BTreeSet<u64>,
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// The ticket of the request that came first.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.tickets.first().copied()
    }

    pub(super) fn push_back(&mut self, request: Arc<PendingRequest>) {
        self.events += request.event_count;
        self.bytes += request.bytes;
        self.tickets.insert(request.ticket);
        let of_client = self.of_clients.entry(request.client).or_default();
        if of_client.is_empty() {
            self.turns.push_back(request.client);
        }
        of_client.push_back(request);
    }

    /// Takes the first request of the client whose turn it is, which then has the last turn.
    fn pop_next(&mut self) -> Option<Arc<PendingRequest>> {
        let client = self.turns.pop_front()?;
        let of_client = self.of_clients.get_mut(&client)?;
        let request = of_client.pop_front()?;
        if of_client.is_empty() {
            self.of_clients.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.forget(&request);
        Some(request)
    }

    fn next(&self) -> Option<&Arc<PendingRequest>> {
        self.of_clients.get(self.turns.front()?)?.front()
    }

    fn forget(&mut self, request: &PendingRequest) {
        self.tickets.remove(&request.ticket);
        self.events -= request.event_count;
        self.bytes -= request.bytes;
    }

    /// Removes the withdrawn requests from the front of a client's queue.
    pub(super) fn forget_withdrawn(&mut self, client: Client) {
        while let Some(of_client) = self.of_clients.get_mut(&client)
            && let Some(request) = of_client.pop_front_if(|front| front.is_withdrawn())
        {
            if of_client.is_empty() {
                self.of_clients.remove(&client);
                self.turns.retain(|waiting| *waiting != client);
            }
            self.forget(&request);
        }
    }

    /// Claims requests of each client in turn, until a batch is full.
    pub(super) fn claim_batch(&mut self, batch_events: usize) -> Vec<Arc<PendingRequest>> {
        let (mut claimed, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.next() {
            let is_full = events + next.event_count > batch_events || bytes >= BATCH_BYTES;
            if is_full && !claimed.is_empty() && !next.is_withdrawn() {
                break;
            }
            let Some(request) = self.pop_next() else { break };
            if request.claim() {
                events += request.event_count;
                bytes += request.bytes;
                claimed.push(request);
            }
        }
        claimed
    }
}
