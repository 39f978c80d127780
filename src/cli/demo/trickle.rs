//! A few events a second that go on after the check, so that the dashboard has something to show.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::load::plan::{Plan, Random, Times};
use crate::cli::load::sample;
use crate::client::{Client, ClientError};

/// The time between two requests.
const INTERVAL: Duration = Duration::from_millis(500);

/// How many events a request has.
const EVENTS: usize = 3;

/// One event of so many is a duplicate of a recent one.
const DUPLICATE_OF: NonZeroU64 = NonZeroU64::new(4).expect("4 is not 0");

/// How many events count as recent.
const RECENT: usize = 100;

/// Publishes new events of `plan`, with duplicates among them, until the future is dropped. A request that fails is left out.
pub(super) async fn publish(client: &Client, plan: Plan, now_ms: impl Fn() -> i64) -> Result<(), ClientError> {
    let mut trickle = Trickle::new(plan);
    let mut turns = interval(INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match client.publish(trickle.request(now_ms()), "application/json").await {
            Ok(_) | Err(ClientError::Retryable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Trickle {
    plan: Plan,
    random: Random,
    /// The number of the next new event.
    next: u64,
    recent: VecDeque<String>,
}

impl Trickle {
    /// The events that come after those of `plan`.
    fn new(plan: Plan) -> Self {
        Self {
            random: Random::new(!plan.seed),
            next: plan.unique(),
            recent: VecDeque::new(),
            plan,
        }
    }

    fn request(&mut self, now_ms: i64) -> Bytes {
        let events: Vec<String> = (0..EVENTS).map(|_| self.event(now_ms)).collect();
        format!("[{}]", events.join(",")).into()
    }

    fn event(&mut self, now_ms: i64) -> String {
        let recent = NonZeroU64::new(self.recent.len() as u64);
        if let Some(recent) = recent.filter(|_| self.random.below(DUPLICATE_OF) == 0) {
            let index = usize::try_from(self.random.below(recent)).unwrap_or_default();
            if let Some(event) = self.recent.get(index) {
                return event.clone();
            }
        }
        let plan = Plan {
            times: Times::with(self.next, now_ms),
            ..self.plan
        };
        let mut event = String::new();
        sample::write_event(&plan, self.next, &mut event);
        self.next += 1;
        self.recent.push_back(event.clone());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::cli::load::plan::example::plan;

    #[test]
    fn new_events_have_the_present_time_and_some_come_twice() {
        let mut trickle = Trickle::new(plan(20, 6));
        let events: Vec<Value> = (0..100)
            .flat_map(|_| serde_json::from_slice::<Vec<Value>>(&trickle.request(1_761_301_800_000)).unwrap())
            .collect();
        assert!(
            events
                .iter()
                .all(|event| event["timestamp"] == "2025-10-24T10:30:00.000Z")
        );
        let ids: HashSet<&str> = events.iter().filter_map(|event| event["event_id"].as_str()).collect();
        assert!(ids.iter().all(|id| !id.ends_with("-13")), "the plan's own events");
        assert!((200..250).contains(&ids.len()), "{}", ids.len());
        assert_eq!(trickle.recent.len(), RECENT);
    }
}
