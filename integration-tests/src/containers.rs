//! The tests of the deployment, on real containers: what `docker compose up -d` gives, what an image is, and what breaks between
//! hosts. The binary `compose-test` runs them one after the other; `make compose-test` builds what it needs.
//!
//! Each is a sentence and a function here, and needs nothing of another. Those that share a [`stack::Stack`] take it as the others
//! have left it, with data in it; what a failed one has left broken is mended before. What a run makes has a name with its process id
//! in it, and is removed at the end, by an interruption too; what a run that was killed has left, the next one removes.

mod account;
mod confinement;
pub mod engine;
mod faults;
mod image;
pub mod manual;
mod observability;
mod plain;
mod replicas;
mod stack;

use std::pin::Pin;

/// One test: what is so, as a sentence, and the function that finds out. It panics where it is not so.
pub struct Scenario {
    /// The sentence.
    pub sentence: String,
    /// The function.
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes the list of [`Scenario`]s: a function's name is its sentence.
macro_rules! scenarios {
    ($($room:ident { $($name:ident)+ })+) => {
        vec![$($(Scenario {
            sentence: stringify!($name).replace('_', " "),
            run: || Box::pin($room::$name()),
        },)+)+]
    };
}

/// All of them, in the order in which they run.
pub fn scenarios() -> Vec<Scenario> {
    scenarios! {
        image {
            a_change_of_one_file_compiles_only_our_own_crates
            the_image_adds_less_than_60_mb_to_its_base
            the_image_runs_the_program_alone_as_nobody_and_tells_its_version
            the_image_alone_serves_an_embedded_store_in_a_named_volume
            a_folder_that_it_may_not_write_to_is_told_in_one_line
        }
        plain {
            the_first_up_counts_20000_events_14000_unique_and_6000_duplicates
            the_publisher_ends_well_and_its_log_fits_a_log
            the_tester_passes_twice_on_a_system_with_data
            the_tester_names_what_is_wrong_with_a_wrong_service
            a_publisher_survives_the_restart_of_the_only_aggregator
            down_and_up_keep_all_data
            every_container_ends_well_within_its_grace_period
            every_variable_of_the_compose_files_is_in_the_example
            an_aggregator_that_starts_a_minute_before_storage_and_without_a_broker_serves
        }
        confinement {
            no_container_may_do_more_than_it_must
            storage_and_broker_keep_what_they_have_acknowledged
            from_the_front_network_neither_storage_nor_broker_can_be_reached
            an_idle_aggregator_uses_less_than_30_mb
        }
        observability {
            promtool_accepts_the_configuration_and_shows_each_alert_firing_and_not_firing
            promtool_accepts_the_figures_of_a_service_under_load
            prometheus_asks_the_service_and_an_alert_fires_when_the_broker_is_gone
            prometheus_finds_every_replica
        }
        manual {
            examples_of_containers_print_what_they_show
        }
        replicas {
            replicas_come_and_go_while_events_flow
            the_tester_passes_through_the_balancer
            a_rolling_restart_fails_no_request
            a_request_that_no_replica_takes_is_a_problem_with_a_time_to_try_again
        }
        faults {
            storage_killed_and_started_again_loses_nothing
            storage_paused_for_ten_seconds_loses_nothing
            a_broker_that_is_cut_off_and_joined_again_gets_every_event
            one_replica_killed_and_another_stopped_lose_nothing
            packets_that_vanish_for_twenty_seconds_lose_nothing
        }
    }
}
