//! The requests of a plan.

use bytes::Bytes;

use super::{
    plan::{Plan, Slot, Slots},
    sample,
};
use crate::cli::send::Request;

const JSON: &str = "application/json";

/// One request of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) request: Request,
    /// How many events it holds.
    pub(crate) events: u64,
    /// Which of the events these are, in words.
    pub(crate) place: String,
}

/// Makes requests of a plan.
#[derive(Debug)]
pub(crate) struct Generator {
    plan: Plan,
    slots: Slots,
    batch_size: u64,
    sent: u64,
}

impl Generator {
    /// Requests of `batch_size` events each, and one of those that remain. With a size of 1 a request is one event, not an array.
    pub(crate) fn new(plan: Plan, batch_size: u64) -> Self {
        Self {
            plan,
            slots: plan.slots(),
            batch_size,
            sent: 0,
        }
    }
}

impl Iterator for Generator {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let events = self.batch_size.min(self.plan.events - self.sent);
        if events == 0 {
            return None;
        }
        let mut json = String::new();
        for slot in self.slots.by_ref().take(usize::try_from(events).unwrap_or(usize::MAX)) {
            let (Slot::First(number) | Slot::Copy(number)) = slot;
            json.push(if json.is_empty() { '[' } else { ',' });
            sample::write_event(&self.plan, number, &mut json);
        }
        json.push(']');
        let body = Bytes::from(json);
        let body = if self.batch_size == 1 {
            body.slice(1..body.len() - 1)
        } else {
            body
        };
        let place = format!("events {} to {}", self.sent + 1, self.sent + events);
        self.sent += events;
        let request = Request {
            body,
            content_type: JSON,
            prefer: None,
        };
        Some(Batch { request, events, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::plan::example::plan;

    fn generator(events: u64, batch_size: u64) -> Generator {
        Generator::new(plan(events, events * 3 / 10), batch_size)
    }

    fn events(batch: &Batch) -> Vec<serde_json::Value> {
        serde_json::from_slice(&batch.request.body).unwrap()
    }

    #[test]
    fn requests_hold_the_whole_plan() {
        let batches: Vec<Batch> = generator(1_010, 50).collect();
        let sizes: Vec<u64> = batches.iter().map(|batch| batch.events).collect();
        assert_eq!((sizes.len(), sizes[0], sizes[20]), (21, 50, 10));
        let all: Vec<serde_json::Value> = batches.iter().flat_map(events).collect();
        let mut distinct: Vec<String> = all.iter().map(ToString::to_string).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((all.len(), distinct.len()), (1_010, 1_010 - 303));
    }

    #[test]
    fn requests_follow_from_the_seed() {
        assert!(generator(500, 7).eq(generator(500, 7)));
    }

    #[test]
    fn events_do_not_depend_on_the_batch_size() {
        let all = |size| {
            generator(200, size)
                .flat_map(|batch| events(&batch))
                .collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(100));
    }

    #[test]
    fn batch_size_one_sends_single_events() {
        let batch = generator(3, 1).next().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&batch.request.body).unwrap();
        assert!(event.is_object());
    }
}
