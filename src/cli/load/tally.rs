//! The sums of a run: what the answers say is stored, and whether that is the plan.
//!
//! A request is stored as a whole or not at all, and of all copies of an event at most one is answered as new. So the new events of
//! all answers are the unique events of the plan, except after *lost attempts*: attempts that ended without an answer, although they
//! may have stored the request. The answer to the next attempt then says that nothing in the request is new. New events may
//! therefore be missing from the answers, but never more than there are in requests that were resent and answered so. Every event
//! of a lost attempt may have been received, and counted as a duplicate, once more.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::plan::Plan;
use crate::cli::{
    progress::Done,
    send::Answered,
    table::{count, rate, values},
};

/// Latencies above this, an hour, are recorded as this: no call takes so long.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// The answers do not fit what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Discrepancy {
    /// One answer is wrong in itself.
    #[error(
        "the answers do not add up: {place} are {events} events, and the answer says {received} received, {unique} unique, {duplicates} duplicates"
    )]
    Answer {
        place: String,
        events: u64,
        received: u64,
        unique: u64,
        duplicates: u64,
    },
    /// The answers together call more or fewer events new than the plan has.
    #[error("the answers do not add up: {planned} unique events were sent, and the answers count {found}{}", hint(*planned, *found))]
    Unique { planned: u64, found: u64 },
}

fn hint(planned: u64, found: u64) -> &'static str {
    if found < planned {
        " (was this seed, or a part of its events, published before?)"
    } else {
        ""
    }
}

/// What has been sent and answered so far.
#[derive(Debug)]
pub(crate) struct Tally {
    in_flight: u64,
    /// Events in answered requests, each once.
    events: u64,
    /// New events, by the answers.
    unique: u64,
    /// Events that were sent again after a lost attempt, once for each time.
    resent: u64,
    /// Events of requests that a lost attempt may have stored, because their answer says that nothing is new.
    unconfirmed: u64,
    /// In microseconds.
    latencies: Histogram<u64>,
    /// From the first attempt that was answered, so that waiting for the service to come up is not measured, to the last answer.
    busy: Option<(Instant, Instant)>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            in_flight: 0,
            events: 0,
            unique: 0,
            resent: 0,
            unconfirmed: 0,
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds and precision are valid"),
            busy: None,
        }
    }
}

impl Tally {
    /// A request of so many events begins.
    pub(crate) fn begin(&mut self, events: u64) {
        self.in_flight += events;
    }

    /// Counts the answer to a request of so many events, which comes from `place`. An answer that is wrong in itself is an error and
    /// is not counted.
    pub(crate) fn answered(&mut self, events: u64, place: &str, answered: &Answered) -> Result<(), Discrepancy> {
        self.in_flight -= events;
        let answer = &answered.answer;
        let (received, unique, duplicates) = (answer.received, answer.unique_processed, answer.duplicate_dropped);
        if received != events || unique.checked_add(duplicates) != Some(received) {
            return Err(Discrepancy::Answer {
                place: place.to_owned(),
                events,
                received,
                unique,
                duplicates,
            });
        }
        self.events += events;
        self.unique += unique;
        self.resent += events * answered.lost_attempts;
        if answered.lost_attempts > 0 && unique == 0 {
            self.unconfirmed += events;
        }
        self.measure(answered.latency);
        Ok(())
    }

    fn measure(&mut self, latency: Duration) {
        let now = Instant::now();
        let first = self
            .busy
            .map_or(now.checked_sub(latency).unwrap_or(now), |(first, _)| first);
        self.busy = Some((first, now));
        self.latencies
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How far the run is.
    pub(crate) fn done(&self) -> Done {
        let resent = match self.resent {
            0 => String::new(),
            resent => format!(", {} resent", count(resent)),
        };
        Done {
            events: self.events,
            details: format!("{} unique{resent}", count(self.unique)),
        }
    }

    /// How many events were sent again after a lost attempt, counted once for each time.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }

    /// How many events are in requests that have begun and are not answered.
    pub(crate) fn events_in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Checks, when all is answered, that the plan's unique events are stored. That there are no more duplicates than planned
    /// follows, because each answer's new events and duplicates are the events of its request.
    pub(crate) fn verify(&self, plan: &Plan) -> Result<(), Discrepancy> {
        let (planned, found) = (plan.unique(), self.unique);
        if self.events != plan.events || found > planned || planned - found > self.unconfirmed {
            return Err(Discrepancy::Unique { planned, found });
        }
        Ok(())
    }

    /// The table that a run ends with.
    pub(crate) fn table(&self, plan: &Plan) -> String {
        // When everything is answered and adds up, also what lost attempts stored is known.
        let unique = if self.verify(plan).is_ok() {
            plan.unique()
        } else {
            self.unique
        };
        let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
        values([
            ("sent", count(self.events)),
            ("unique", count(unique)),
            ("duplicates", count(self.events - unique)),
            ("resent", count(self.resent)),
            ("events/s", rate(self.events_per_second())),
            ("latency p50", ms(self.latencies.value_at_quantile(0.5))),
            ("latency p95", ms(self.latencies.value_at_quantile(0.95))),
            ("latency p99", ms(self.latencies.value_at_quantile(0.99))),
            ("latency max", ms(self.latencies.max())),
        ])
    }

    fn events_per_second(&self) -> f64 {
        let seconds = self.busy.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        if seconds > 0.0 {
            self.events as f64 / seconds
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::publish::example;
    use crate::cli::load::plan::example::plan;

    /// Requests of ten events, each answered before the next: `(new events, lost attempts)`.
    fn answers(requests: &[(u64, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (unique, lost_attempts) in requests {
            tally.begin(10);
            tally
                .answered(10, "here", &answered([10, *unique, 10 - unique], *lost_attempts))
                .unwrap();
        }
        tally
    }

    fn answered([received, unique, duplicates]: [u64; 3], lost_attempts: u64) -> Answered {
        Answered {
            answer: example(received, unique, duplicates),
            latency: Duration::from_millis(1),
            lost_attempts,
        }
    }

    #[test]
    fn answers_as_planned_add_up() {
        let tally = answers(&[(7, 0), (7, 0)]);
        assert_eq!(tally.verify(&plan(20, 6)), Ok(()));
        assert_eq!((tally.unique, tally.resent(), tally.events_in_flight()), (14, 0, 0));
    }

    #[test]
    fn one_unique_event_too_many_or_too_few_is_found() {
        for unique in [6, 8] {
            let found = 7 + unique;
            let tally = answers(&[(7, 0), (unique, 0)]);
            assert_eq!(
                tally.verify(&plan(20, 6)),
                Err(Discrepancy::Unique { planned: 14, found })
            );
        }
        // A retried request does not hide one too many.
        assert!(answers(&[(8, 1), (7, 0)]).verify(&plan(20, 6)).is_err());
    }

    #[test]
    fn a_lost_attempt_may_have_stored_its_request() {
        for unique in [7, 0] {
            let tally = answers(&[(unique, 1), (7, 0)]);
            assert_eq!((tally.verify(&plan(20, 6)), tally.resent()), (Ok(()), 10));
        }
        assert_eq!(answers(&[(0, 3)]).resent(), 30);
    }

    #[test]
    fn a_lost_attempt_cannot_have_stored_part_of_its_request() {
        assert!(answers(&[(6, 1), (7, 0)]).verify(&plan(20, 6)).is_err());
        assert!(answers(&[(0, 0), (7, 0)]).verify(&plan(20, 6)).is_err());
    }

    #[test]
    fn a_request_without_answer_is_found() {
        let mut tally = answers(&[(7, 0)]);
        tally.begin(10);
        assert_eq!(tally.events_in_flight(), 10);
        assert!(tally.verify(&plan(20, 13)).is_err());
    }

    #[test]
    fn an_answer_that_is_wrong_in_itself_is_an_error() {
        for counts in [[9, 6, 3], [10, 6, 3], [10, 8, 3], [10, u64::MAX, 11]] {
            let mut tally = Tally::default();
            tally.begin(10);
            let result = tally.answered(10, "here", &answered(counts, 0));
            assert!(matches!(result, Err(Discrepancy::Answer { .. })));
        }
    }

    #[test]
    fn the_table_shows_every_sum() {
        let table = answers(&[(0, 1), (7, 0)]).table(&plan(20, 6));
        let rows: Vec<(&str, &str)> = table
            .lines()
            .map(|line| {
                line.rsplit_once("  ")
                    .map(|(label, value)| (label.trim(), value.trim()))
                    .unwrap()
            })
            .collect();
        for row in [("sent", "20"), ("unique", "14"), ("duplicates", "6"), ("resent", "10")] {
            assert!(rows.contains(&row), "{row:?} in\n{table}");
        }
        assert_eq!(rows.len(), 9);
    }

    #[test]
    fn latencies_are_precise_to_one_part_in_a_thousand() {
        let mut tally = Tally::default();
        for ms in 1..=100 {
            tally.measure(Duration::from_millis(ms));
        }
        for (quantile, exact) in [(0.5, 50_000), (0.95, 95_000), (0.99, 99_000), (1.0, 100_000)] {
            let found = tally.latencies.value_at_quantile(quantile);
            assert!(found.abs_diff(exact) <= exact / 1000, "{quantile}: {found}");
        }
        assert_eq!(Tally::default().latencies.value_at_quantile(0.99), 0);
    }
}
