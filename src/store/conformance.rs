//! The promises of [`Store`] and [`Appender`], each with a test, on every store.
//!
//! A test is written against the traits and gets a [`TestDatabase`] of its own: an empty database. The table at the end of this file
//! lists all tests and runs them on each store. A new store adds one line to it, and a file with its test database and the tests
//! that are only for this store (`postgres` and `sqlite`). A test that is not in the table is dead code, which the compiler
//! reports.

mod append;
mod conflicts;
mod counters;
mod globs;
mod health;
mod keys;
mod list;
mod model;
mod outbox;
mod outbox_postgres;
mod payloads;
mod places;
mod postgres;
mod retention;
mod retry;
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
    Appended, Appender, Batch, Counts, Filter, GroupCommit, Lease, List, LogPosition, Outcome, Scan, Store, StoreError,
};

/// How long one attempt to commit may take. Much longer than any should: a machine under load must not fail a test.
const ATTEMPT: Duration = Duration::from_secs(9);

/// How long to wait for something that is certain to happen, such as the end of another test's transaction.
const DEADLINE: Duration = Duration::from_secs(60);

/// An empty database for one test, and what the test does to it behind the store's back.
#[async_trait]
trait TestDatabase: Sync {
    /// Creates the database.
    async fn open() -> Self
    where
        Self: Sized;

    /// The name of the store.
    fn name(&self) -> &'static str;

    /// Opens the store, each time as another process would.
    fn store(&self) -> Arc<dyn Store>;

    /// Runs some statements directly.
    async fn execute(&self, sql: &str);

    /// Makes the store reject events with the id `poison`, as if by a rule that validation does not know.
    async fn forbid_poison(&self);

    /// Makes stores that are opened from now on read-only.
    async fn forbid_writes(&self);

    /// Removes the database.
    async fn remove(self)
    where
        Self: Sized;
}

/// Runs a test on a database of its own, which is removed also when the test fails.
fn run<B: TestDatabase>(case: impl AsyncFnOnce(&B)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime starts").block_on(async {
        let db = B::open().await;
        let outcome = AssertUnwindSafe(case(&db)).catch_unwind().await;
        db.remove().await;
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
async fn migrated(db: &dyn TestDatabase) -> Arc<dyn Store> {
    let store = db.store();
    store.migrate().await.unwrap();
    store
}

/// The connection of one writer, and short ways to use it. Each call runs in a task of its own, so two writers work concurrently
/// even where a commit blocks.
struct Writer(Option<Box<dyn Appender>>);

impl Writer {
    async fn of(store: &Arc<dyn Store>) -> Self {
        Self::writer_id(store, 0).await
    }

    async fn writer_id(store: &Arc<dyn Store>, writer_id: u32) -> Self {
        Self(Some(store.appender(writer_id).await.unwrap()))
    }

    /// Commits some events with a new id.
    async fn send(&mut self, events: &[Event]) -> Appended {
        self.send_as(Uuid::new_v4(), events).await
    }

    /// Commits some events with the id `id`.
    async fn send_as(&mut self, id: Uuid, events: &[Event]) -> Appended {
        self.attempt(id, events, ATTEMPT).await.unwrap()
    }

    /// Commits some events that must be published.
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
        let mut appender = self.0.take().expect("a writer has one call at a time");
        let task = tokio::spawn(async move {
            let commit = GroupCommit {
                id,
                batch: &batch,
                lease,
                lock_limit: timeout,
            };
            let appended = appender.append(&commit, timeout).await;
            (appender, appended)
        });
        let (appender, appended) = task.await.expect("appending does not panic");
        self.0 = Some(appender);
        appended
    }

    async fn dry_run(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let (batch, _) = Batch::new(events.to_vec());
        let commit = GroupCommit {
            id: Uuid::new_v4(),
            batch: &batch,
            lease: None,
            lock_limit: Duration::MAX,
        };
        self.connection().dry_run(&commit, ATTEMPT).await
    }

    fn connection(&mut self) -> &mut dyn Appender {
        self.0.as_deref_mut().expect("a writer has one call at a time")
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
        headers: None,
    }
}

/// `count` events of one topic, with the ids `prefix0`, `prefix1` and so on.
fn events(topic: &str, prefix: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| event(topic, &format!("{prefix}{number}"), r#"{"a":1}"#))
        .collect()
}

/// The outcomes of the rows, in words.
fn kinds(appended: &Appended) -> Vec<&'static str> {
    let kind = |outcome: &Outcome| match outcome {
        Outcome::Stored(_) => "stored",
        Outcome::Duplicate(_) => "duplicate",
        Outcome::Conflict(_) => "conflict",
    };
    appended.outcomes.iter().map(kind).collect()
}

/// The positions in the outcomes.
fn places(appended: &Appended) -> Vec<LogPosition> {
    let place = |outcome: &Outcome| match outcome {
        Outcome::Stored(place) => *place,
        Outcome::Duplicate(place) | Outcome::Conflict(place) => *place,
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

/// Scans to the last stable position. Returns what it saw and where to continue.
async fn scanned_all(store: &Arc<dyn Store>, from: Cursor, limit: u32) -> (Vec<StoredEvent>, Cursor) {
    scanned_with(
        store,
        &Scan {
            filter: Filter::default(),
            after: from,
            limit,
            bytes_max: usize::MAX,
            turn: crate::store::Turn::Client,
        },
    )
    .await
}

/// The same with a filter.
async fn scanned_with(store: &Arc<dyn Store>, scan: &Scan) -> (Vec<StoredEvent>, Cursor) {
    let mut scan = scan.clone();
    let mut seen = Vec::new();
    loop {
        let page = store.scan(&scan).await.unwrap();
        assert!(page.events.len() <= scan.limit as usize);
        assert!(page.next >= scan.after, "a scan never goes back");
        assert!(
            page.is_last || page.next > scan.after,
            "a page that is not the last advances"
        );
        scan.after = page.next;
        seen.extend(page.events);
        if page.is_last {
            return (seen, scan.after);
        }
    }
}

/// Waits until everything committed is stable: other tests and other programs write on the same server.
async fn until_stable(store: &Arc<dyn Store>) {
    eventually("everything committed is stable", async || {
        store.stability().await.unwrap().visibility_lag_seconds == 0.0
    })
    .await;
}

/// Waits for something that is certain to happen.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs the listed tests on each of the listed stores.
macro_rules! conformance {
    (on { $($store:ident: $db:ty),+ $(,)? } $tests:tt) => {
        $(mod $store { conformance!(@modules $db, $tests); })+
    };
    (@modules $db:ty, { $($module:ident { $($test:ident)+ })+ }) => {
        $(mod $module {
            use crate::store::conformance as suite;
            $(#[test] fn $test() { suite::run::<$db>(async |db| suite::$module::$test(db).await); })+
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
            new_event_comes_back_byte_for_byte
            largest_names_and_payloads_are_kept
            headers_come_back_byte_for_byte
            batch_keeps_order_of_arrival
            identities_are_compared_byte_for_byte
            first_copy_in_a_batch_is_stored
            identical_copies_are_one_row
            duplicate_returns_position_of_first_copy
            conflict_returns_first_copy_and_changes_nothing
            one_of_two_concurrent_writers_stores
            later_batches_come_later_in_log
            overlapping_batches_store_each_event_once
            batches_of_same_topics_never_deadlock
            empty_batch_is_committed
            ten_thousand_duplicates_are_answered_in_time
            poison_event_is_a_data_error_and_nothing_is_stored
            dry_run_changes_nothing
            dry_run_finds_poison_event
        }
        payloads {
            equal_values_are_duplicates
            different_values_are_conflicts
        }
        retry {
            retry_gets_same_answer_and_writes_nothing
            retry_with_duplicates_conflicts_and_copies
            retry_of_a_single_event
            retry_after_other_commits
            retry_of_a_commit_that_stored_nothing
            one_of_two_concurrent_attempts_writes
        }
        counters {
            counters_are_exact_for_each_mix
            unknown_topic_has_zeros
            topics_are_listed_largest_first_and_capped
            new_topic_is_counted_once_whoever_brings_it
            stats_are_one_snapshot
        }
        globs {
            many_topics_are_read_in_log_order
            more_topics_than_are_merged_are_read_too
            truncation_is_told_of_matching_topics
            new_topic_that_matches_is_seen
            topics_are_those_that_match
            sums_are_those_of_matching_topics
            conflicts_are_those_of_matching_topics
        }
        keys {
            key_comes_back_as_it_was_kept
            changes_come_in_the_order_of_their_versions
            change_of_an_older_state_is_refused
            revoked_key_goes_after_a_day
            times_of_use_are_no_change
            there_is_a_limit_of_keys
        }
        outbox {
            leased_batch_is_unpublished
            batch_without_lease_is_published
            batch_that_stored_nothing_is_published
            oldest_are_claimed_first_up_to_the_limit
            claimed_batch_is_not_claimed_until_lease_ends
            lease_of_a_commit_prevents_claims
            lease_of_zero_length_can_be_claimed_at_once
            marked_batch_leaves_the_backlog
            mark_or_release_by_former_owner_does_nothing
            expired_owner_marks_batch_not_claimed_since
            released_batch_can_be_claimed_at_once
            concurrent_claims_never_overlap
            events_of_a_batch_come_in_its_order
            events_of_several_batches_come_in_log_order
            page_of_batches_is_limited_by_bytes
            large_batch_is_read_in_pages
            dead_letters_are_listed_in_log_order
            repeated_dead_letter_has_new_reason_and_old_time
            removed_dead_letter_is_gone
            backlog_has_batches_age_and_dead_letters
            ledger_is_pruned_in_steps_up_to_young_rows
            ledger_step_ends_at_first_young_row
            unpublished_and_recent_rows_stay_in_ledger
            batch_numbers_are_not_reused_after_ledger_is_empty
        }
        list {
            every_filter_in_both_orders_with_limit_and_offset
            list_shows_what_was_just_acknowledged
            long_list_is_read_page_by_page
            many_concurrent_reads_wait_for_a_connection
            list_is_limited_by_bytes
            next_of_full_list_is_its_last_event
            next_of_short_list_is_last_stable_position
            next_of_newest_first_list_is_last_stable_position
            next_of_list_below_a_batch_skips_nothing
        }
        scan {
            scan_shows_everything_once_in_log_order
            scan_with_any_filter_shows_what_list_shows
            scan_at_end_continues_with_later_events
            rare_filter_gives_short_pages_that_advance
            scan_beside_two_writers_skips_nothing
            page_is_limited_by_bytes
            filtered_page_uses_all_its_bytes
        }
        places {
            place_at_end_is_newest_batch
            batch_that_stored_nothing_is_a_place
            cursor_above_the_log_is_unknown
            cursor_of_a_lost_batch_is_truncated
            cursor_of_a_lost_batch_is_known_before_the_next_one
            cursor_of_an_older_log_is_truncated
            restarts_lose_no_place
            cursor_before_expired_events_is_truncated
            truncation_is_told_by_topic
            lease_from_a_wrong_clock_has_expired
            longest_lease_is_kept
            batches_from_the_future_stay_in_the_ledger_alone
        }
        health {
            store_has_its_name
            probe_returns_stability
            read_only_store_is_reported
            committed_batches_are_below_committed_below
            received_at_is_by_clock_of_store
            store_has_a_version
            healthy_server_has_no_warnings
            closed_store_takes_no_calls
        }
        schema {
            migrating_twice_changes_nothing
            eight_replicas_migrate_concurrently
            empty_database_is_rejected_until_migrated
        }
        verify {
            consistent_store_has_no_drift
            changed_counter_is_found
            changed_totals_are_found
            deleted_event_is_found
            deleted_topic_counter_is_found
            contradictory_counters_are_found
            missing_identity_is_found
            surplus_identity_is_found
            missing_ledger_row_is_found
            unpublished_batch_without_events_is_found
            dead_letter_without_event_is_found
        }
        retention {
            expired_events_are_gone_and_others_stay
            dry_run_counts_the_same_and_changes_nothing
            current_partition_does_not_expire
            partition_ends_only_when_it_is_old_and_has_events
            unpublished_events_are_held_back
            dead_letters_are_held_back
            identity_outlives_its_event
            topics_expire_by_the_first_pattern_that_matches
            only_events_before_a_time_expire
            cursors_and_lists_stay_valid_over_partitions
            scan_beside_writers_skips_nothing_where_partitions_end
            counters_are_exact_while_events_expire
            forgotten_identity_is_stored_again
            topic_of_which_nothing_is_left_is_forgotten
            identity_is_found_before_and_after_its_event_expires
            archive_is_noted_for_what_is_there
            size_of_partitions_follows_their_events
        }
        conflicts {
            conflict_is_kept_with_what_was_sent
            conflicts_are_counted_beyond_those_kept
            retry_keeps_a_conflict_once
            topics_are_listed_by_name_in_pages
        }
        model {
            random_programs_match_the_model
        }
    }
}
