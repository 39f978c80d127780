//! The black-box checks of a deployment that somebody else runs: what the contract promises to a client and to a subscriber, proved
//! from outside. The binary `tester` runs them.
//!
//! # How to write a check
//!
//! 1. A check is an `async fn` of a module below, which names its subject; its name is a sentence, and [`CHECKS`] lists it. One
//!    that is not listed is dead code, which the compiler reports.
//! 2. It relies on nothing but its topics, which nobody else has ever used ([`Deployment::topic`]): there may be any data beside
//!    them, and traffic of others. What it says of the whole log must hold with both.
//! 3. Two requests may meet two replicas. What one has acknowledged, the other knows; `uptime_stats`, `_flush` and the order on
//!    the channel are of one replica alone.
//! 4. It can fail: there is a mistake of the service that it would notice, and its message says to a newcomer what is wrong.
//! 5. Limits are taken to be the defaults: 10 000 events and 10 MiB a request.
//! 6. It leaves what it published behind, some seventy topics with 16 000 events for each run: there is no way to take it back.

mod answers;
mod batches;
mod channel;
mod counters;
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
mod walks;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::deployment::Deployment;

/// The subject of those checks that need the Redis of the deployment.
pub const CHANNEL: &str = "channel";

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One check.
pub struct Check {
    /// What it is about: a word.
    pub subject: &'static str,
    name: &'static str,
    run: for<'a> fn(&'a Deployment) -> Running<'a>,
}

impl Check {
    /// What is so if it passes.
    pub fn sentence(&self) -> String {
        self.name.replace('_', " ")
    }

    /// Checks a deployment.
    ///
    /// # Panics
    /// What the sentence says is not so; the message says what is.
    pub async fn run(&self, deployment: &Deployment) {
        (self.run)(deployment).await;
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}] {}", self.subject, self.sentence())
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

/// All checks, in the order in which they are begun: those that take longest come first.
pub static CHECKS: &[Check] = table! {
    limits {
        a_request_of_10_000_events_is_taken_and_one_more_is_refused
        a_body_over_10_mib_is_413_counted_after_decompression
        a_payload_has_at_most_256_kib
        a_payload_has_at_most_64_levels
    }
    races {
        each_of_200_events_that_64_clients_publish_at_once_is_stored_in_exactly_one_answer
        one_event_from_64_clients_at_once_is_stored_once
        of_two_equal_batches_at_once_each_event_is_stored_once
    }
    channel {
        each_stored_event_is_one_message_equal_to_the_event_in_events
        no_message_is_of_a_duplicate_or_a_conflict
        what_many_clients_publish_at_once_is_one_message_for_each_event
        a_message_carries_the_payload_byte_for_byte
    }
    stream {
        a_follower_begins_with_what_comes_next
        a_follower_resumes_without_a_gap_where_it_asks_to
        a_follower_of_a_topic_gets_that_topic_alone
        a_place_that_is_none_is_refused_with_its_name
        a_frame_carries_the_cursor_and_the_event_as_in_events
        a_follower_sees_each_event_once_while_many_publish
        a_follower_that_leaves_and_resumes_sees_everything_once
    }
    schema {
        a_valid_event_is_stored_and_comes_back_with_all_its_members
        all_five_members_are_required
        a_member_of_the_wrong_type_is_refused
        names_have_1_to_255_bytes
        names_have_no_control_characters_and_topics_no_white_space
        names_have_no_unpaired_surrogates
        a_timestamp_comes_back_in_utc_with_no_more_digits_than_needed
        what_is_no_timestamp_is_refused
        a_member_given_twice_is_refused_and_one_that_is_unknown_is_ignored
        one_broken_rule_refuses_the_whole_request_and_every_fault_is_listed
        what_is_no_json_or_no_event_is_refused
    }
    payload {
        a_payload_comes_back_byte_for_byte
        a_payload_must_be_an_object
        a_payload_that_no_store_can_hold_is_refused
        a_payload_at_the_edge_of_what_a_store_can_hold_is_taken
    }
    dedup {
        a_copy_is_a_duplicate_and_names_the_first_copy
        copies_in_one_request_are_stored_once
        the_first_copy_wins_and_a_duplicate_changes_nothing
        another_payload_is_a_conflict_and_payloads_compare_as_json_values
        identities_are_compared_byte_for_byte
        the_same_id_in_another_topic_is_another_event
        a_request_that_is_sent_again_stores_nothing_twice
    }
    counters {
        the_counters_of_a_topic_are_exact
        rejected_events_are_not_received
        a_topic_never_seen_has_zeros
        what_is_accepted_with_a_202_is_counted_in_the_end
        received_is_unique_plus_duplicates_at_every_look
        the_counters_of_the_whole_log_add_up_and_never_fall
        the_whole_log_counts_what_a_topic_counts
        the_answers_of_many_publishers_add_up_to_the_counters
    }
    order {
        the_events_of_a_request_keep_its_order
        an_event_published_after_the_answer_to_another_comes_after_it
    }
    topics {
        topics_are_kept_apart_and_are_case_sensitive
        the_topics_of_stats_count_their_unique_events
    }
    batches {
        an_array_an_envelope_and_lines_are_taken
        gzip_and_zstd_are_understood
        a_batch_of_no_events_is_all_zero
        results_are_there_for_one_event_and_else_when_they_are_asked_for
        a_lenient_request_stores_what_is_valid_and_lists_what_is_not
        a_lenient_request_with_no_valid_event_is_refused
        respond_async_is_answered_202_and_stored_soon
        no_more_than_a_hundred_faults_are_listed
    }
    reading {
        an_acknowledged_event_is_in_every_later_list_and_count
        lists_are_ordered_limited_and_offset
        filters_select_by_topic_source_id_and_time
        a_bad_parameter_is_named
        a_bare_array_links_to_what_comes_next
        lines_come_without_a_limit_unless_one_is_given
    }
    walks {
        a_walk_sees_each_event_once_in_log_order
        a_walk_while_many_publish_misses_nothing
        a_walk_from_the_next_of_a_list_misses_nothing
    }
    health {
        the_probes_of_a_healthy_deployment_say_200
        the_first_page_says_who_is_there
        stats_have_every_member
        a_flush_says_how_many_events_it_waited_for
    }
    http {
        an_unknown_path_is_404
        a_wrong_method_is_405_and_says_which_are_allowed
        a_wrong_media_type_or_coding_is_415_and_a_broken_body_400
        every_answer_carries_a_request_id_and_a_good_one_is_echoed
    }
};
