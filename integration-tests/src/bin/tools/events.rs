//! The events that all sides store, made before the clock starts.

use std::fmt::Write;

/// How ids are made, which decides where in an index they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// As UUID version 4: anywhere.
    Random,
    /// As UUID version 7, or a sequence: after all earlier ones.
    Rising,
}

/// An event as all sides store it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its topic.
    pub topic: String,
    /// Its id, 36 characters.
    pub event_id: String,
    /// Some 230 bytes of JSON.
    pub payload: String,
}

/// The time of every event, as a body has it and in microseconds since 2000, as PostgreSQL counts.
pub const TIMESTAMP: &str = "2025-10-24T10:30:00Z";
pub const TIMESTAMP_MICROS: i64 = 814_530_600_000_000;
/// The source of each event.
pub const SOURCE: &str = "checkout-service";

/// Makes events; two makers with the same seed make the same events.
pub struct Maker {
    ids: Ids,
    topics: u64,
    state: u64,
    /// The number of distinct events so far.
    made: u64,
}

impl Maker {
    /// A maker of events of this many topics, which differ from the events of any other seed.
    pub fn new(ids: Ids, topics: u64, seed: u64) -> Self {
        Self {
            ids,
            topics,
            state: seed,
            made: 0,
        }
    }

    /// A random number (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An event that was never made before.
    pub fn new_event(&mut self) -> Event {
        let (first, second) = (self.next(), self.next());
        self.made += 1;
        let number = self.made;
        let high = match self.ids {
            Ids::Random => first,
            // 48 bits that rise and 16 that do not.
            Ids::Rising => (number << 16) | (first & 0xffff),
        };
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
        let (d, e) = (second >> 48, second & 0xffff_ffff_ffff);
        Event {
            topic: format!("shop.orders.{}", first % self.topics),
            event_id: format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}"),
            payload: format!(
                r#"{{"order_id":"ord-{number}","customer":{{"id":{number},"email":"customer{number}@example.com","tier":"gold"}},"items":[{{"sku":"A-100","quantity":2,"price":19.90}},{{"sku":"B-200","quantity":1,"price":5.00}}],"total":44.80,"currency":"EUR"}}"#
            ),
        }
    }

    /// This many events, 30 % of which repeat an earlier one of them; and the number of distinct events.
    pub fn with_duplicates(&mut self, count: usize) -> (Vec<Event>, usize) {
        let mut events: Vec<Event> = Vec::with_capacity(count);
        let mut distinct = 0;
        for index in 0..count as u64 {
            if index > 0 && self.next() % 10 < 3 {
                let earlier = usize::try_from(self.next() % index).expect("an index is a usize");
                events.push(events[earlier].clone());
            } else {
                distinct += 1;
                events.push(self.new_event());
            }
        }
        (events, distinct)
    }
}

/// The event as JSON.
pub fn write_json(event: &Event, json: &mut String) {
    let Event {
        topic,
        event_id,
        payload,
    } = event;
    write!(
        json,
        r#"{{"topic":"{topic}","event_id":"{event_id}","timestamp":"{TIMESTAMP}","source":"{SOURCE}","payload":{payload}}}"#
    )
    .expect("a String takes all text");
}
