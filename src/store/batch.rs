//! The rows of a group commit.

use crate::event::{Event, IdentityKey};

/// What one group commit stores: the distinct rows of some events, sorted by `(topic, event_id, position)`.
///
/// Because batches are sorted, two commits with the same identities lock them in the same order and cannot deadlock. Only
/// [`Batch::new`] makes a batch, so every batch is sorted.
#[derive(Debug)]
pub struct Batch {
    events: Vec<Event>,
    rows: Vec<Row>,
}

/// One row of a [`Batch`]: an event, and how many byte-for-byte copies of its payload it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The index in [`Batch::events`] of the first copy: the row's position in the log's batch.
    pub position: u32,
    /// How many events of the batch it stands for: itself and its copies.
    pub copies: u32,
    /// The key of its identity.
    pub key: IdentityKey,
    /// The digest of its payload's value.
    pub digest: i64,
}

impl Batch {
    /// Sorts `events` (in the order of their arrival) into rows. Also returns, for each event, the index of its row.
    ///
    /// Copies whose payload is byte for byte that of the identity's first event in the batch become one row with it.
    pub fn new(events: Vec<Event>) -> (Batch, Vec<u32>) {
        let mut order: Vec<u32> = (0u32..).take(events.len()).collect();
        let at = |index: u32| &events[index as usize];
        order.sort_unstable_by(|&a, &b| (&at(a).topic, &at(a).event_id, a).cmp(&(&at(b).topic, &at(b).event_id, b)));
        let mut rows: Vec<Row> = Vec::with_capacity(order.len());
        let mut row_of = vec![0; events.len()];
        let mut first = 0; // the row of the current identity's first event
        for index in order {
            let event = at(index);
            let known = rows
                .get(first)
                .map(|row| at(row.position))
                .filter(|known| (&known.topic, &known.event_id) == (&event.topic, &event.event_id));
            if known.is_some_and(|known| known.payload == event.payload) {
                rows[first].copies += 1;
                row_of[index as usize] = row_number(first);
            } else {
                if known.is_none() {
                    first = rows.len();
                }
                row_of[index as usize] = row_number(rows.len());
                rows.push(Row {
                    position: index,
                    copies: 1,
                    key: IdentityKey::of(&event.topic, &event.event_id),
                    digest: event.payload.digest(),
                });
            }
        }
        (Batch { events, rows }, row_of)
    }

    /// The rows, sorted by `(topic, event_id, position)`.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The event that a row stores.
    pub fn event(&self, row: Row) -> &Event {
        &self.events[row.position as usize]
    }

    /// The number of events, copies included.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events again, in the order of their arrival.
    pub fn into_events(self) -> Vec<Event> {
        self.events
    }
}

fn row_number(index: usize) -> u32 {
    u32::try_from(index).expect("a batch has at most as many rows as a request limit allows, far below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Payload, Source, Timestamp, Topic};

    /// Three letters an event: topic, id and payload.
    fn batch(letters: &str) -> (Batch, Vec<u32>) {
        let event = |letters: &str| Event {
            topic: Topic::parse(letters[0..1].to_owned()).unwrap(),
            event_id: EventId::parse(letters[1..2].to_owned()).unwrap(),
            occurred_at: Timestamp::from_micros(0).unwrap(),
            source: Source::parse("s").unwrap(),
            payload: Payload::parse(format!(r#"{{"v":"{}"}}"#, &letters[2..3])).unwrap(),
            headers: None,
        };
        Batch::new(letters.split_whitespace().map(event).collect())
    }

    /// The rows as pairs of position and copies.
    fn rows(letters: &str) -> Vec<(u32, u32)> {
        batch(letters)
            .0
            .rows()
            .iter()
            .map(|row| (row.position, row.copies))
            .collect()
    }

    #[test]
    fn rows_are_sorted_by_topic_then_id_by_bytes() {
        assert_eq!(
            rows("tbA taA uaA taB sbA TaA tAA"),
            [(5, 1), (4, 1), (6, 1), (1, 1), (3, 1), (0, 1), (2, 1)]
        );
        let (batch, row_of) = batch("tbA taA");
        let ids: Vec<&str> = batch
            .rows()
            .iter()
            .map(|row| batch.event(*row).event_id.as_str())
            .collect();
        assert_eq!((ids, row_of), (vec!["a", "b"], vec![1, 0]));
    }

    #[test]
    fn empty_batch_has_no_rows() {
        let (batch, row_of) = batch("");
        assert!(batch.is_empty() && batch.rows().is_empty() && row_of.is_empty());
    }

    #[test]
    fn copies_of_first_payload_join_its_row() {
        assert_eq!(rows("taA taA taA"), [(0, 3)]);
        assert_eq!(rows("taA tbA taA tbA taA"), [(0, 3), (1, 2)]);
        assert_eq!(batch("taA tbA taA tbA taA").1, [0, 1, 0, 1, 0]);
    }

    #[test]
    fn another_payload_is_a_row_of_its_own() {
        assert_eq!(rows("taA taB taA"), [(0, 2), (1, 1)]);
        assert_eq!(batch("taA taB taA").1, [0, 1, 0]);
        assert_eq!(rows("taA taB taB taA taC taA"), [(0, 3), (1, 1), (2, 1), (4, 1)]);
        assert_eq!(batch("taA taB taB taA taC taA").1, [0, 1, 2, 0, 3, 0]);
    }

    #[test]
    fn equal_payloads_of_other_identities_stay_apart() {
        assert_eq!(rows("taA tbA uaA"), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(rows("tbB taA tbA taB tbB"), [(1, 1), (3, 1), (0, 2), (2, 1)]);
    }

    #[test]
    fn events_come_back_in_order_of_arrival() {
        let (batch, _) = batch("tbA taA uaA taA");
        assert_eq!(batch.len(), 4);
        let ids: Vec<String> = batch
            .into_events()
            .iter()
            .map(|event| format!("{}{}", event.topic, event.event_id))
            .collect();
        assert_eq!(ids, ["tb", "ta", "ua", "ta"]);
    }

    #[test]
    fn every_event_has_its_row_and_is_counted() {
        let letters: Vec<String> = (0..200u32)
            .map(|n| format!("{}{}{}", n % 3, n * 7 % 5, n * n % 4))
            .collect();
        let (batch, row_of) = batch(&letters.join(" "));
        assert_eq!(batch.rows().iter().map(|row| row.copies).sum::<u32>(), 200);
        assert_eq!(row_of.len(), 200);
        for (index, row) in row_of.iter().enumerate() {
            let (event, first) = (
                batch.event(Row {
                    position: u32::try_from(index).unwrap(),
                    ..batch.rows()[0]
                }),
                batch.event(batch.rows()[*row as usize]),
            );
            assert_eq!(
                (&event.topic, &event.event_id, &event.payload),
                (&first.topic, &first.event_id, &first.payload)
            );
        }
        assert!(batch.rows().is_sorted_by_key(|row| (
            &batch.event(*row).topic,
            &batch.event(*row).event_id,
            row.position
        )));
    }
}
