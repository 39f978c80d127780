//! The black-box checks of a running deployment: what the contract promises to a client and to a subscriber. The binary `tester` runs
//! them.
//!
//! # How to write a check
//!
//! 1. A check is an `async fn` of a module below, which is its subject. Its name is a short sentence, and [`CHECKS`] lists it. The
//!    compiler reports a check that is not listed as dead code.
//! 2. It relies on nothing but its topics, which were never used before ([`Deployment::topic`]): there may be any other data, and
//!    traffic of other clients. Assertions about the whole log must hold with both.
//! 3. Two requests may reach two replicas. An event that one has acknowledged is visible at the other; `uptime_stats`, `_flush` and the
//!    order on the channel belong to one replica.
//! 4. A possible bug of the service makes it fail, and its message explains to a newcomer what is wrong.
//! 5. It assumes the default limits: 10 000 events and 10 MiB for each request.
//! 6. Its events stay in the log: some seventy topics with 16 000 events for each run.

mod answers;
mod batches;
mod channel;
mod counters;
mod cursors;
mod dedup;
mod health;
mod http;
mod limits;
mod order;
mod payload;
mod races;
mod reading;
mod schema;
mod stream;
mod topics;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::deployment::Deployment;

/// The subject of those checks that need the Redis of the deployment.
pub const CHANNEL: &str = "channel";

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One check.
pub struct Check {
    /// Its subject, in one word.
    pub subject: &'static str,
    name: &'static str,
    run: for<'a> fn(&'a Deployment) -> Running<'a>,
}

impl Check {
    /// What it checks, as a short sentence.
    pub fn name(&self) -> String {
        self.name.replace('_', " ")
    }

    /// Checks a deployment.
    ///
    /// # Panics
    /// The check fails; the message says why.
    pub async fn run(&self, deployment: &Deployment) {
        (self.run)(deployment).await;
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}] {}", self.subject, self.name())
    }
}

/// The checks of modules, by the names of their functions.
macro_rules! table {
    ($($subject:ident { $($name:ident)+ })+) => {
        &[$($(
            Check {
                subject: stringify!($subject),
                name: stringify!($name),
                run: |deployment| Box::pin($subject::$name(deployment)),
            },
        )+)+]
    };
}

/// All checks, in the order in which they start: the longest ones come first.
pub static CHECKS: &[Check] = table! {
    limits {
        a_request_has_at_most_10_000_events
        a_body_has_at_most_10_mib_after_decompression
        a_payload_has_at_most_256_kib
        a_payload_has_at_most_64_levels
    }
    races {
        events_from_64_clients_at_once_are_stored_once
        one_event_from_64_clients_at_once_is_stored_once
        concurrent_equal_batches_are_stored_once
    }
    channel {
        each_stored_event_is_one_message_as_listed
        duplicates_and_conflicts_have_no_message
        events_of_many_clients_are_one_message_each
        a_message_carries_the_payload_byte_for_byte
    }
    stream {
        a_stream_begins_with_the_next_event
        a_stream_resumes_at_the_requested_cursor
        a_topic_filter_excludes_other_topics
        an_invalid_cursor_is_rejected_by_name
        a_frame_has_the_cursor_and_the_listed_event
        a_stream_has_each_event_once_while_many_publish
        reconnecting_sees_each_event_once
    }
    schema {
        a_valid_event_comes_back_with_all_members
        all_five_members_are_required
        a_member_of_the_wrong_type_is_rejected
        names_have_1_to_255_bytes
        names_exclude_control_characters_topics_white_space
        names_have_no_unpaired_surrogates
        a_timestamp_comes_back_in_utc_in_its_shortest_form
        an_invalid_timestamp_is_rejected
        repeated_members_are_rejected_unknown_ones_ignored
        one_invalid_event_rejects_the_whole_request
        invalid_json_or_no_event_is_rejected
    }
    payload {
        a_payload_comes_back_byte_for_byte
        a_payload_must_be_an_object
        an_unrepresentable_payload_is_rejected
        the_most_extreme_payloads_are_accepted
    }
    dedup {
        a_copy_is_a_duplicate_and_names_the_first_copy
        copies_in_one_request_are_stored_once
        the_first_copy_wins_and_a_duplicate_changes_nothing
        payloads_are_compared_as_json_values
        identities_are_compared_byte_for_byte
        the_same_id_in_another_topic_is_another_event
        a_request_that_is_sent_again_stores_nothing_twice
    }
    counters {
        the_counters_of_a_topic_are_exact
        rejected_events_are_not_received
        an_unknown_topic_has_zero_counters
        events_accepted_with_202_are_counted_later
        received_always_equals_unique_plus_duplicates
        the_log_counters_add_up_and_never_decrease
        the_log_counters_include_each_topic
        answers_to_many_clients_add_up_to_the_counters
    }
    order {
        the_events_of_a_request_keep_its_order
        an_acknowledged_event_precedes_later_ones
    }
    topics {
        topics_are_kept_apart_and_are_case_sensitive
        stats_count_the_unique_events_of_each_topic
    }
    batches {
        an_array_an_envelope_and_ndjson_are_accepted
        gzip_and_zstd_are_accepted
        an_empty_batch_has_zero_totals
        results_are_sent_for_one_event_or_on_request
        a_lenient_request_lists_invalid_and_stores_valid
        a_lenient_request_with_no_valid_event_is_rejected
        respond_async_is_answered_202_and_stored_soon
        at_most_100_validation_errors_are_listed
    }
    reading {
        an_acknowledged_event_is_in_every_later_list
        lists_are_ordered_limited_and_offset
        filters_select_by_topic_source_id_and_time
        an_invalid_parameter_is_named
        a_bare_array_links_to_the_next_page
        ndjson_has_no_limit_unless_one_is_given
    }
    cursors {
        a_cursor_read_sees_each_event_once_in_log_order
        a_cursor_read_while_many_publish_misses_nothing
        a_cursor_read_from_next_of_a_list_misses_nothing
    }
    health {
        the_probes_of_a_healthy_deployment_say_200
        the_root_names_the_service
        stats_have_every_member
        a_flush_reports_how_many_events_it_waited_for
    }
    http {
        an_unknown_path_is_404
        a_wrong_method_is_405_with_the_allowed_ones
        wrong_media_types_are_415_broken_bodies_400
        each_answer_has_a_request_id_and_echoes_a_valid_one
    }
};
