//! The accounting: what the answers prove about what is stored, and whether that is what was planned.
//!
//! A request is stored as a whole or not at all, and of the copies of an event at most one is answered as new. So an answer says `unique` for each event that this
//! very attempt stored. The only gap are *lost attempts*, whose outcome never came back: what they stored, later answers call duplicates. For a request that was
//! answered after lost attempts:
//!
//! | its answer | what follows |
//! |---|---|
//! | some event is new | no lost attempt had stored the request before it; one may come after it, and be counted as duplicates |
//! | none is new, but it holds a first copy that no other request could have stored | a lost attempt had stored the request |
//! | none is new, and it holds no such first copy | a lost attempt may have stored the request |
//!
//! Another request can have stored a first copy only if it holds a duplicate of it and was on its way at the same time; since requests begin in
//! the plan's order, and duplicates come later, the requests in flight are all that has to be watched. So unless two copies of one event raced, what the lost attempts
//! stored is known to the event, and everything must add up exactly; else it is known within bounds, and everything must add up within these.
//!
//! A lost attempt can come after the one that was answered: where packets are dropped, the kernels go on sending what is on its way, and the store may
//! get a flush when its events are there already. So how often events were received is known within bounds only, once an attempt was lost.

use std::{collections::HashSet, ops::Range};

use tokio::time::Instant;

use super::{batch::Batch, latency::Latencies, plan::Plan, send::Answered, span::Span};

/// The answers do not fit what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Discrepancy {
    /// One answer is wrong in itself.
    #[error(
        "the answers do not add up: {place} are {events} events, and the answer says {received} received, {unique} unique, {duplicates} duplicates"
    )]
    Answer {
        /// Which request it answers.
        place: String,
        /// How many events it was sent.
        events: u64,
        /// How many it says were received.
        received: u64,
        /// How many it says were new.
        unique: u64,
        /// How many it says were not.
        duplicates: u64,
    },
    /// One answer calls more or fewer events new than it can, after the answers before it.
    #[error("the answers do not add up: of {place} {possible} are new, and the answer says {unique}")]
    Request {
        /// Which request it answers.
        place: String,
        /// How many can be new.
        possible: Span,
        /// How many it says were new.
        unique: u64,
    },
    /// The events that all answers together account for as stored are not those of the plan.
    #[error("the answers do not add up: {planned} unique events were sent, and the answers account for {found}{}", hint(*planned, *found))]
    Unique {
        /// How many unique events were planned.
        planned: u64,
        /// How many the answers account for.
        found: Span,
    },
}

fn hint(planned: u64, found: Span) -> &'static str {
    if found.high < planned {
        " (was this seed, or a part of its events, published before?)"
    } else {
        ""
    }
}

/// A request that has begun and is not answered.
#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    place: String,
    events: u64,
    /// Its first copies; `None` for lines of a file, of which nothing is known.
    firsts: Option<Range<u64>>,
    /// Those of its first copies of which another request in flight holds a duplicate, and may have stored it.
    contested: HashSet<u64>,
    /// How many of its duplicates were sent while their first copy was in flight: these it may have stored itself.
    racing: u64,
}

impl InFlight {
    fn holds(&self, number: u64) -> bool {
        self.firsts.as_ref().is_some_and(|firsts| firsts.contains(&number))
    }

    /// How many new events an attempt of this request stored, if any did so: at least the first copies that nobody else can have stored.
    fn storable(&self) -> Span {
        self.firsts.as_ref().map_or(
            Span {
                low: 0,
                high: self.events,
            },
            |firsts| {
                let count = firsts.end - firsts.start;
                Span {
                    low: count - self.contested.len() as u64,
                    high: count + self.racing,
                }
            },
        )
    }
}

/// Stands for a request that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What has been sent and answered so far.
#[derive(Debug, Default)]
pub struct Tally {
    begun: u64,
    in_flight: Vec<InFlight>,
    /// Events in answered requests, each once.
    events: u64,
    /// New events, by the answers.
    unique: u64,
    /// Events that were sent again after a lost attempt, once for each time.
    resent: u64,
    /// Events that lost attempts had stored as new, so that no answer said so.
    unseen: Span,
    /// Those of the resent that the service got all the same: it counts them as received, and as duplicates, once more.
    resent_after_stored: Span,
    /// The first answer that is right in itself and does not fit the others.
    misfit: Option<Discrepancy>,
    latencies: Latencies,
    /// From the first attempt that was answered, so that waiting for the service to come up is not measured, to the last answer.
    busy: Option<(Instant, Instant)>,
}

impl Tally {
    /// Notes that `batch` is about to be sent. Must be called in the order of the plan.
    pub fn begin(&mut self, batch: &Batch) -> Ticket {
        let (mut firsts, mut racing) = (None, 0);
        if let Some(identities) = &batch.identities {
            firsts = Some(identities.firsts.clone());
            for &copy in &identities.copies {
                if let Some(original) = self.in_flight.iter_mut().find(|request| request.holds(copy)) {
                    original.contested.insert(copy);
                    racing += 1;
                }
            }
        }
        let ticket = Ticket(self.begun);
        self.begun += 1;
        let (place, events) = (batch.place.clone(), batch.events);
        self.in_flight.push(InFlight {
            ticket,
            place,
            events,
            firsts,
            contested: HashSet::new(),
            racing,
        });
        ticket
    }

    /// Counts the answer to the request that `ticket` stands for.
    ///
    /// # Errors
    /// When the answer is wrong in itself. It is not counted then.
    ///
    /// # Panics
    /// When the request was answered before.
    pub fn answered(&mut self, ticket: Ticket, answered: &Answered) -> Result<(), Discrepancy> {
        let index = self
            .in_flight
            .iter()
            .position(|request| request.ticket == ticket)
            .expect("one answer for each ticket");
        let request = self.in_flight.swap_remove(index);
        let answer = &answered.answer;
        let (received, unique, duplicates) = (answer.received, answer.unique_processed, answer.duplicate_dropped);
        if received != request.events || unique.checked_add(duplicates) != Some(received) {
            let InFlight { place, events, .. } = request;
            return Err(Discrepancy::Answer {
                place,
                events,
                received,
                unique,
                duplicates,
            });
        }
        self.events += request.events;
        self.unique += unique;
        self.resent += request.events * answered.lost_attempts;
        if answered.lost_attempts > 0 && unique == 0 {
            self.stored_unseen(&request, answered.lost_attempts);
        } else {
            self.resent_after_stored.add(0, request.events * answered.lost_attempts);
            if !request.storable().contains(unique) && self.misfit.is_none() {
                self.misfit = Some(Discrepancy::Request {
                    possible: request.storable(),
                    place: request.place,
                    unique,
                });
            }
        }
        let now = Instant::now();
        let first = self
            .busy
            .map_or(now.checked_sub(answered.latency).unwrap_or(now), |(first, _)| first);
        self.busy = Some((first, now));
        self.latencies.add(answered.latency);
        Ok(())
    }

    /// Counts what lost attempts did for a request whose answer says that nothing in it was new: see the table above.
    fn stored_unseen(&mut self, request: &InFlight, lost_attempts: u64) {
        let storable = request.storable();
        self.unseen.add(storable.low, storable.high);
        let certain = if storable.low > 0 { request.events } else { 0 };
        self.resent_after_stored.add(certain, request.events * lost_attempts);
    }

    /// How many events have been answered, each counted once.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many events were sent again after a lost attempt, counted once for each time.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// How many events are in requests that have begun and are not answered.
    #[must_use]
    pub fn events_in_flight(&self) -> u64 {
        self.in_flight.iter().map(|request| request.events).sum()
    }

    /// How many of the answered events are stored first copies, as far as the answers tell.
    #[must_use]
    pub fn unique(&self) -> Span {
        Span {
            low: self.unique + self.unseen.low,
            high: self.unique + self.unseen.high,
        }
    }

    /// Those of the resent events that the service got more than once: it counts them as received once more.
    #[must_use]
    pub fn resent_after_stored(&self) -> Span {
        self.resent_after_stored
    }

    /// Checks, when all is answered, that just the plan's first copies are stored, each by the request that should have. That there are no
    /// more duplicates than planned, but for what lost attempts had stored, follows: an answer's duplicates are what it received without
    /// its new events.
    ///
    /// # Errors
    /// When the answers account for more or fewer, or one of them does not fit the others.
    pub fn verify(&self, plan: &Plan) -> Result<(), Discrepancy> {
        let (planned, found) = (plan.unique(), self.unique());
        if self.events != plan.events || !found.contains(planned) {
            return Err(Discrepancy::Unique { planned, found });
        }
        self.misfit.clone().map_or(Ok(()), Err)
    }

    /// The table that a run ends with.
    #[must_use]
    pub fn table(&self, plan: Option<&Plan>) -> String {
        // With all answered and in order, the plan itself settles what the answers only bound.
        let settled = plan
            .filter(|plan| self.verify(plan).is_ok())
            .map(|plan| Span::exactly(plan.unique()));
        let unique = settled.unwrap_or_else(|| self.unique());
        let duplicates = Span {
            low: self.events.saturating_sub(unique.high),
            high: self.events.saturating_sub(unique.low),
        };
        let ms = |number: f64| format!("{number:.1} ms");
        [
            ("sent", self.events.to_string()),
            ("unique", unique.to_string()),
            ("duplicates", duplicates.to_string()),
            ("resent", self.resent.to_string()),
            ("resent after stored", self.resent_after_stored.to_string()),
            ("events/s", format!("{:.0}", self.events_per_second())),
            ("latency p50", ms(self.latencies.percentile_ms(50))),
            ("latency p95", ms(self.latencies.percentile_ms(95))),
            ("latency p99", ms(self.latencies.percentile_ms(99))),
            ("latency max", ms(self.latencies.max_ms())),
        ]
        .iter()
        .map(|(name, value)| format!("{name:<20}{value:>16}\n"))
        .collect()
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
    use std::{num::NonZeroU64, time::Duration};

    use super::*;
    use crate::{api::publish::example, cli::load::batch::Identities};

    /// A request of ten events: the first copies `firsts`, duplicates of `copies`, and for the rest duplicates of its own.
    fn batch(firsts: Range<u64>, copies: &[u64]) -> Batch {
        let identities = Some(Identities {
            firsts,
            copies: copies.to_vec(),
        });
        Batch {
            body: "".into(),
            content_type: "",
            events: 10,
            identities,
            place: "here".to_owned(),
        }
    }

    fn lines() -> Batch {
        Batch {
            identities: None,
            ..batch(0..0, &[])
        }
    }

    fn answer(unique: u64, lost_attempts: u64) -> Answered {
        let answer = example(10, unique, 10 - unique);
        Answered {
            answer,
            latency: Duration::from_millis(1),
            lost_attempts,
        }
    }

    fn plan(events: u64, duplicates: u64) -> Plan {
        Plan {
            events,
            duplicates,
            topics: NonZeroU64::MIN,
            seed: 0,
        }
    }

    fn span(low: u64, high: u64) -> Span {
        Span { low, high }
    }

    /// Requests that are answered one after the other: `(firsts, unique, lost attempts)`.
    fn one_by_one(requests: &[(Range<u64>, u64, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (firsts, unique, lost_attempts) in requests {
            let ticket = tally.begin(&batch(firsts.clone(), &[]));
            tally.answered(ticket, &answer(*unique, *lost_attempts)).unwrap();
        }
        tally
    }

    #[test]
    fn answers_as_planned_add_up() {
        let tally = one_by_one(&[(0..7, 7, 0), (7..14, 7, 0)]);
        assert_eq!(tally.verify(&plan(20, 6)), Ok(()));
        assert_eq!(
            (tally.unique(), tally.resent(), tally.resent_after_stored()),
            (span(14, 14), 0, span(0, 0))
        );
    }

    #[test]
    fn one_unique_event_too_many_or_too_few_is_found() {
        for unique in [6, 8] {
            let tally = one_by_one(&[(0..7, 7, 0), (7..14, unique, 0)]);
            assert_eq!(
                tally.verify(&plan(20, 6)),
                Err(Discrepancy::Unique {
                    planned: 14,
                    found: span(7 + unique, 7 + unique)
                })
            );
        }
    }

    #[test]
    fn two_errors_that_cancel_each_other_are_found() {
        let tally = one_by_one(&[(0..7, 6, 0), (7..14, 8, 0)]);
        let misfit = Discrepancy::Request {
            place: "here".to_owned(),
            possible: span(7, 7),
            unique: 6,
        };
        assert_eq!(tally.verify(&plan(20, 6)), Err(misfit));
    }

    #[test]
    fn what_one_lost_attempt_stored_is_known_and_that_it_may_yet_be_counted() {
        // (new events in the answer after one lost attempt, resent after stored)
        for (unique, after_stored) in [(7, span(0, 10)), (0, span(10, 10))] {
            let tally = one_by_one(&[(0..7, unique, 1), (7..14, 7, 0)]);
            assert_eq!(tally.verify(&plan(20, 6)), Ok(()));
            assert_eq!((tally.unique(), tally.resent()), (span(14, 14), 10));
            assert_eq!(tally.resent_after_stored(), after_stored);
        }
    }

    #[test]
    fn an_event_that_is_lost_with_an_attempt_is_found() {
        // The second attempt stored six of seven, although the first cannot have stored a part.
        let tally = one_by_one(&[(0..7, 6, 1), (7..14, 7, 0)]);
        assert!(tally.verify(&plan(20, 6)).is_err());
        // A request without a lost attempt says that nothing is new.
        let tally = one_by_one(&[(0..7, 0, 0), (7..14, 7, 0)]);
        assert!(tally.verify(&plan(20, 6)).is_err());
    }

    #[test]
    fn of_several_lost_attempts_any_may_have_been_the_one_that_stored() {
        let tally = one_by_one(&[(0..7, 0, 3)]);
        assert_eq!((tally.resent(), tally.resent_after_stored()), (30, span(10, 30)));
        assert_eq!(tally.verify(&plan(10, 3)), Ok(()));
    }

    #[test]
    fn a_request_of_duplicates_alone_does_not_tell_what_became_of_a_lost_attempt() {
        let tally = one_by_one(&[(0..10, 10, 0), (10..10, 0, 1)]);
        assert_eq!(
            (tally.unique(), tally.resent_after_stored()),
            (span(10, 10), span(0, 10))
        );
        assert_eq!(tally.verify(&plan(20, 10)), Ok(()));
    }

    #[test]
    fn a_duplicate_may_overtake_its_first_copy() {
        let mut tally = Tally::default();
        let original = tally.begin(&batch(0..10, &[]));
        let racer = tally.begin(&batch(10..15, &[3]));
        tally.answered(racer, &answer(6, 0)).unwrap();
        tally.answered(original, &answer(9, 0)).unwrap();
        assert_eq!(tally.verify(&plan(20, 5)), Ok(()));
    }

    #[test]
    fn a_racing_duplicate_only_widens_what_is_known_by_itself() {
        // Number 3 is in both requests, and the first one's lost attempt may or may not have come before the second one's.
        for racer_unique in [5, 6] {
            let mut tally = Tally::default();
            let original = tally.begin(&batch(0..10, &[]));
            let racer = tally.begin(&batch(10..15, &[3]));
            tally.answered(racer, &answer(racer_unique, 0)).unwrap();
            tally.answered(original, &answer(0, 1)).unwrap();
            assert_eq!(tally.unique(), span(racer_unique + 9, racer_unique + 10));
            assert_eq!(tally.resent_after_stored(), span(10, 10));
            assert_eq!(tally.verify(&plan(20, 5)), Ok(()));
        }
    }

    #[test]
    fn a_lost_attempt_whose_every_first_copy_may_be_anothers_is_undecided() {
        let mut tally = Tally::default();
        let original = tally.begin(&batch(0..1, &[]));
        let racer = tally.begin(&batch(1..2, &[0]));
        tally.answered(racer, &answer(2, 0)).unwrap();
        tally.answered(original, &answer(0, 1)).unwrap();
        assert_eq!(tally.resent_after_stored(), span(0, 10));
        assert_eq!(tally.verify(&plan(20, 18)), Ok(()));
    }

    #[test]
    fn an_answered_request_races_with_nothing() {
        let mut tally = one_by_one(&[(0..10, 10, 0)]);
        let ticket = tally.begin(&batch(10..15, &[3]));
        tally.answered(ticket, &answer(6, 0)).unwrap();
        assert_eq!(
            tally.verify(&plan(20, 5)),
            Err(Discrepancy::Unique {
                planned: 15,
                found: span(16, 16)
            })
        );
    }

    #[test]
    fn an_answer_that_is_wrong_in_itself_is_refused() {
        for (received, unique, duplicates) in [(9, 6, 3), (10, 6, 3), (10, 8, 3), (10, u64::MAX, 11)] {
            let mut tally = Tally::default();
            let ticket = tally.begin(&batch(0..7, &[]));
            let answer = example(received, unique, duplicates);
            let answered = Answered {
                answer,
                latency: Duration::ZERO,
                lost_attempts: 0,
            };
            assert!(matches!(
                tally.answered(ticket, &answered),
                Err(Discrepancy::Answer { .. })
            ));
        }
    }

    #[test]
    fn of_a_file_the_answers_alone_are_counted() {
        let mut tally = Tally::default();
        for (unique, lost_attempts) in [(8, 0), (3, 1), (0, 1)] {
            let ticket = tally.begin(&lines());
            tally.answered(ticket, &answer(unique, lost_attempts)).unwrap();
        }
        assert_eq!(
            (tally.unique(), tally.resent_after_stored()),
            (span(11, 21), span(0, 20))
        );
        let table = tally.table(None);
        assert!(table.contains("11 to 21") && table.contains("9 to 19"), "{table}");
    }

    #[test]
    fn the_table_has_every_figure() {
        let table = one_by_one(&[(0..7, 0, 1), (7..14, 7, 0)]).table(Some(&plan(20, 6)));
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.rsplitn(2, "  ").map(str::trim).collect())
            .collect();
        for (name, value) in [
            ("sent", "20"),
            ("unique", "14"),
            ("duplicates", "6"),
            ("resent", "10"),
            ("resent after stored", "10"),
        ] {
            assert!(rows.contains(&vec![value, name]), "{name} {value} in\n{table}");
        }
        assert_eq!(rows.len(), 10);
    }
}
