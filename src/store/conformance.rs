//! The promises of [`Store`] and [`Appender`], each with a test, on every store.
//!
//! A case is written against the traits and gets a [`Bed`]: an empty database of its own. The table at the end of this file
//! names all cases and runs them on each store; a new store adds one line to it, and a file with its bed and with what only
//! it can be asked (`postgres` and `sqlite`). A case that is not in the table is dead code, which the compiler reports.

mod again;
mod append;
mod counters;
mod health;
mod list;
mod outbox;
mod outbox_postgres;
mod payloads;
mod postgres;
mod programs;
mod prune;
mod scan;
mod schema;
mod sqlite;
mod verify;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use futures_util::FutureExt;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::StoreOptions;
use crate::event::{Cursor, Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::store::{
    Appended, Appender, Batch, Counts, Filter, GroupCommit, Lease, List, LogPosition, Order, Outcome, Scan, Store,
    StoreError,
};

/// What one attempt to flush may take. Much longer than any should: a machine under load must not fail a test.
const ATTEMPT: Duration = Duration::from_secs(9);

/// How long something may take that is sure to come, such as the end of another test's transaction.
const DEADLINE: Duration = Duration::from_secs(60);

/// An empty database, and what a test does to it behind the store's back.
#[async_trait]
trait Bed: Sync {
    /// Makes a database of its own.
    async fn open() -> Self
    where
        Self: Sized;

    /// The name that the store bears.
    fn name(&self) -> &'static str;

    /// Opens the store, each time as another process would.
    fn store(&self) -> Arc<dyn Store>;

    /// Runs some statements by hand.
    async fn execute(&self, sql: &str);

    /// Makes the store refuse events with the id `poison`, as for a rule that validation does not know.
    async fn forbid_poison(&self);

    /// Lets stores that are opened from now on write nothing.
    async fn forbid_writes(&self);

    /// Removes the database.
    async fn remove(self)
    where
        Self: Sized;
}

/// Runs a case on a bed of its own, which is removed also when the case fails.
fn run<B: Bed>(case: impl AsyncFnOnce(&B)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime starts").block_on(async {
        let bed = B::open().await;
        let outcome = AssertUnwindSafe(case(&bed)).catch_unwind().await;
        bed.remove().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Reads a `DATABASE_URL` as the commands do.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    store: StoreOptions,
}

/// A store with its schema.
async fn migrated(bed: &dyn Bed) -> Arc<dyn Store> {
    let store = bed.store();
    store.migrate().await.unwrap();
    store
}

/// One writer's connection, and short ways to use it. What it does runs in a task of its own: two writers that are waited
/// for together work at the same time, also where a flush blocks.
struct Writer(Option<Box<dyn Appender>>);

impl Writer {
    async fn of(store: &Arc<dyn Store>) -> Self {
        Self::writer_id(store, 0).await
    }

    async fn writer_id(store: &Arc<dyn Store>, writer_id: u32) -> Self {
        Self(Some(store.appender(writer_id).await.unwrap()))
    }

    /// Commits some events as a new flush.
    async fn send(&mut self, events: &[Event]) -> Appended {
        self.send_as(Uuid::new_v4(), events).await
    }

    /// Commits some events as the flush `id`.
    async fn send_as(&mut self, id: Uuid, events: &[Event]) -> Appended {
        self.attempt(id, events, ATTEMPT).await.unwrap()
    }

    /// Commits some events that are owed to the fan-out.
    async fn send_leased(&mut self, events: &[Event]) -> Appended {
        let lease = Some(Lease {
            owner: Uuid::new_v4(),
            length: Duration::from_secs(30),
        });
        self.append(Uuid::new_v4(), events, lease, ATTEMPT).await.unwrap()
    }

    async fn attempt(&mut self, id: Uuid, events: &[Event], timeout: Duration) -> Result<Appended, StoreError> {
        self.append(id, events, None, timeout).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for the task in the next line")]
    async fn append(
        &mut self,
        id: Uuid,
        events: &[Event],
        lease: Option<Lease>,
        timeout: Duration,
    ) -> Result<Appended, StoreError> {
        let (batch, _) = Batch::new(events.to_vec());
        let mut appender = self.0.take().expect("a writer does one thing at a time");
        let task = tokio::spawn(async move {
            let flush = GroupCommit {
                id,
                batch: &batch,
                lease,
            };
            let appended = appender.append(&flush, timeout).await;
            (appender, appended)
        });
        let (appender, appended) = task.await.expect("appending does not panic");
        self.0 = Some(appender);
        appended
    }

    async fn dry_run(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let (batch, _) = Batch::new(events.to_vec());
        let flush = GroupCommit {
            id: Uuid::new_v4(),
            batch: &batch,
            lease: None,
        };
        self.connection().dry_run(&flush, ATTEMPT).await
    }

    fn connection(&mut self) -> &mut dyn Appender {
        self.0.as_deref_mut().expect("a writer does one thing at a time")
    }
}

/// An event whose time and source do not matter.
fn event(topic: &str, event_id: &str, payload: &str) -> Event {
    Event {
        topic: Topic::parse(topic).unwrap(),
        event_id: EventId::parse(event_id).unwrap(),
        occurred_at: Timestamp::parse("2025-10-24T10:30:00.123456Z").unwrap(),
        source: Source::parse("conformance").unwrap(),
        payload: Payload::parse(payload.to_owned()).unwrap(),
    }
}

/// `count` events of one topic, with the ids `prefix0`, `prefix1` and so on.
fn events(topic: &str, prefix: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| event(topic, &format!("{prefix}{number}"), r#"{"a":1}"#))
        .collect()
}

/// What became of the rows, in words.
fn kinds(appended: &Appended) -> Vec<&'static str> {
    let kind = |outcome: &Outcome| match outcome {
        Outcome::Stored(_) => "stored",
        Outcome::Duplicate(_) => "duplicate",
        Outcome::Conflict(_) => "conflict",
    };
    appended.outcomes.iter().map(kind).collect()
}

/// The places that the outcomes name.
fn places(appended: &Appended) -> Vec<LogPosition> {
    let place = |outcome: &Outcome| match outcome {
        Outcome::Stored(place) => *place,
        Outcome::Duplicate(place) | Outcome::Conflict(place) => place.expect("the first copy is there"),
    };
    appended.outcomes.iter().map(place).collect()
}

/// Received, unique, duplicates, conflicts; nothing pruned.
fn counts(received: i64, unique_processed: i64, duplicate_dropped: i64, conflicts: i64) -> Counts {
    Counts {
        received,
        unique_processed,
        duplicate_dropped,
        conflicts,
        pruned: 0,
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name.to_owned()).unwrap()
}

/// Everything that is committed, in log order.
async fn listed(store: &Arc<dyn Store>) -> Vec<StoredEvent> {
    store
        .list(&List {
            limit: 100_000,
            ..List::default()
        })
        .await
        .unwrap()
        .events
}

/// Walks to the end of what is settled, and returns what it saw and where it goes on.
async fn walked(store: &Arc<dyn Store>, from: Cursor, limit: u32) -> (Vec<StoredEvent>, Cursor) {
    walked_by(
        store,
        &Scan {
            filter: Filter::default(),
            after: from,
            limit,
            bytes_max: usize::MAX,
        },
    )
    .await
}

/// The same with a filter.
async fn walked_by(store: &Arc<dyn Store>, walk: &Scan) -> (Vec<StoredEvent>, Cursor) {
    let mut walk = walk.clone();
    let mut seen = Vec::new();
    loop {
        let page = store.scan(&walk).await.unwrap();
        assert!(page.events.len() <= walk.limit as usize);
        assert!(page.next >= walk.after, "a walk never goes back");
        assert!(
            page.is_last || page.next > walk.after,
            "a page that is not the last moves on"
        );
        walk.after = page.next;
        seen.extend(page.events);
        if page.is_last {
            return (seen, walk.after);
        }
    }
}

/// Waits until all that is committed is settled: other tests and other programs write on the same server.
async fn settle(store: &Arc<dyn Store>) {
    let newest = List {
        order: Order::Descending,
        limit: 1,
        ..List::default()
    };
    let newest = store
        .list(&newest)
        .await
        .unwrap()
        .events
        .first()
        .map_or(Cursor::BEGINNING, |event| event.cursor);
    eventually("all that is committed is settled", async || {
        store.stability().await.unwrap().last_stable >= newest
    })
    .await;
}

/// Waits for something that is sure to come.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs the cases named on each of the stores named.
macro_rules! conformance {
    (on { $($store:ident: $bed:ty),+ $(,)? } $cases:tt) => {
        $(mod $store { conformance!(@rooms $bed, $cases); })+
    };
    (@rooms $bed:ty, { $($room:ident { $($case:ident)+ })+ }) => {
        $(mod $room {
            use crate::store::conformance as suite;
            $(#[test] fn $case() { suite::run::<$bed>(async |bed| suite::$room::$case(bed).await); })+
        })+
    };
}

conformance! {
    on {
        on_postgres: crate::store::conformance::postgres::Server,
        on_sqlite: crate::store::conformance::sqlite::Folder,
    }
    {
        append {
            a_new_event_comes_back_byte_for_byte
            names_and_payloads_of_the_largest_size_are_kept
            a_flush_keeps_the_order_of_arrival
            identities_are_compared_byte_for_byte
            of_copies_in_one_flush_the_first_is_stored
            copies_that_are_the_same_bytes_are_one_row
            a_duplicate_names_the_first_copy
            a_conflict_names_the_first_copy_and_changes_nothing
            of_two_writers_at_the_same_moment_one_stores
            later_flushes_come_later_in_the_log
            overlapping_flushes_of_many_rounds_store_each_event_once
            flushes_of_the_same_topics_never_deadlock
            an_empty_flush_is_committed
            a_flush_of_ten_thousand_duplicates_is_answered_in_time
            an_event_that_the_store_refuses_is_a_data_error_and_nothing_of_its_flush_is_stored
            a_rehearsal_changes_nothing
            a_rehearsal_finds_what_the_store_refuses
        }
        payloads {
            equal_values_are_duplicates
            other_values_are_conflicts
        }
        again {
            a_flush_that_is_sent_again_is_answered_the_same_and_writes_nothing
            also_with_duplicates_conflicts_and_copies
            also_of_a_single_event
            also_after_other_flushes
            also_when_it_stored_nothing
            of_two_attempts_at_the_same_moment_one_writes
        }
        counters {
            the_counters_are_exact_for_each_mix
            a_topic_never_seen_has_zeros
            topics_are_named_largest_first_and_capped
            stats_are_one_snapshot
        }
        outbox {
            a_batch_with_a_lease_is_owed_to_the_fan_out
            a_batch_without_a_lease_is_born_published
            a_batch_that_stored_nothing_is_born_published
            the_oldest_are_claimed_first_and_no_more_than_asked_for
            what_is_claimed_is_left_alone_until_its_lease_ends
            the_lease_of_a_flush_holds_others_off
            a_lease_of_no_length_can_be_claimed_at_once
            what_is_marked_is_owed_no_more
            a_mark_or_a_release_by_a_former_owner_does_nothing
            an_owner_whose_lease_has_ended_marks_what_nobody_else_has_claimed
            what_is_released_can_be_claimed_at_once
            claimers_at_the_same_moment_never_claim_the_same
            the_events_of_a_batch_come_in_its_order
            the_events_of_several_batches_come_in_log_order_without_what_lies_between
            a_portion_ends_before_it_has_too_many_bytes
            a_batch_of_many_events_is_read_in_portions
            parked_events_are_listed_in_log_order
            an_event_that_is_parked_again_has_the_new_reason_and_the_old_time
            what_the_fan_out_has_taken_is_parked_no_longer
            what_is_owed_is_counted_with_its_age_and_what_is_parked
            the_ledger_is_pruned_in_steps_up_to_what_is_young
            a_step_of_the_ledger_ends_at_the_first_young_row
            what_is_unpublished_or_was_published_lately_stays_in_the_ledger
            numbers_never_come_again_when_the_ledger_is_empty
        }
        list {
            every_filter_in_both_orders_with_limit_and_offset
            a_list_shows_what_was_just_acknowledged
            a_long_list_is_read_page_by_page
            many_reads_at_once_wait_for_their_turn
            the_next_of_a_full_list_is_its_last_event
            the_next_of_a_short_list_is_the_settled_edge
            the_next_of_a_newest_first_list_is_the_settled_edge
            the_next_of_a_list_below_a_batch_skips_nothing
        }
        scan {
            a_walk_shows_everything_once_in_log_order
            a_walk_with_any_filter_shows_what_a_list_does
            a_walk_that_is_at_the_end_goes_on_with_what_comes_later
            a_rare_filter_gives_short_pages_that_move_on
            a_walk_beside_two_writers_skips_nothing
            a_page_ends_before_it_has_too_many_bytes
            a_page_of_a_filter_has_as_many_bytes_as_it_may
        }
        health {
            a_store_bears_its_name
            a_probe_tells_what_is_settled
            a_store_that_takes_no_writes_says_so
            all_that_is_committed_lies_below_the_horizon
            what_is_received_is_stamped_by_the_store_s_clock
            a_store_tells_its_version
            a_server_in_order_gives_no_warnings
            a_closed_store_takes_no_calls
        }
        schema {
            migrating_twice_changes_nothing
            eight_replicas_migrate_an_empty_database_at_once
            an_empty_database_is_refused_until_it_is_migrated
        }
        verify {
            a_store_in_order_has_no_drift
            a_changed_counter_is_found
            a_deleted_event_is_found
            a_deleted_topic_counter_is_found
            counters_that_contradict_themselves_are_found
            two_events_at_one_place_are_found
            a_missing_ledger_row_is_found
            an_outbox_row_without_events_is_found
            a_parked_event_that_is_gone_is_found
        }
        prune {
            what_is_old_goes_and_what_is_not_stays
            only_counting_changes_nothing_and_says_the_same
            what_is_not_published_is_kept
            what_is_parked_is_kept
            a_step_that_meets_nothing_old_is_the_last
            a_pruned_identity_is_accepted_anew
            cursors_stay_good
            beside_writers_and_each_other_every_event_is_counted_once
        }
        programs {
            any_program_of_flushes_does_what_the_model_does
        }
    }
}
