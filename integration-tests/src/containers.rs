//! The tests of the deployment, on real containers: the compose files, the images, and faults between hosts. The binary
//! `compose-test` runs them one after the other. `make compose-test` builds what it needs.
//!
//! No test needs another one. Tests that share a [`stack::Stack`] start with the data that earlier tests have left in it; whatever
//! a failed test has left broken is repaired first. The names of all containers, networks and volumes of a run contain its
//! process id. They are removed at the end of the run, also after a signal; the next run removes what a killed run has left.

mod confinement;
pub mod engine;
mod faults;
pub mod group;
mod image;
pub mod manual;
pub mod neighbours;
mod observability;
mod plain;
mod publisher;
mod replicas;
mod stack;

use std::pin::Pin;

/// One test.
pub struct Scenario {
    /// Its name: `MODULE::FUNCTION`.
    pub name: &'static str,
    /// The function, which panics if the test fails.
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes the list of [`Scenario`]s from modules and their functions.
macro_rules! scenarios {
    ($($module:ident { $($name:ident)+ })+) => {
        vec![$($(Scenario {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: || Box::pin($module::$name()),
        },)+)+]
    };
}

/// All of them, in the order in which they run.
pub fn scenarios() -> Vec<Scenario> {
    scenarios! {
        image {
            changed_file_recompiles_only_own_crates
            adds_less_than_60_mb_to_its_base
            runs_only_the_program_without_root
            serves_embedded_store_in_named_volume
            read_only_folder_is_one_line
        }
        plain {
            first_up_counts_20000_events
            publisher_exits_with_0_and_logs_lines
            tester_passes_twice_with_data
            tester_reports_a_wrong_counter
            publisher_survives_aggregator_restart
            down_and_up_keep_all_data
            containers_stop_within_grace_period
            env_example_has_each_compose_variable
            starts_before_storage_and_without_broker
        }
        confinement {
            containers_have_no_extra_privileges
            storage_and_broker_are_durable
            front_network_cannot_reach_back_ends
            idle_aggregator_uses_less_than_30_mb
        }
        observability {
            promtool_accepts_rules_and_their_tests
            promtool_accepts_metrics_under_load
            alert_fires_when_broker_is_gone
            prometheus_finds_each_replica
        }
        manual {
            examples_of_containers_print_what_they_show
        }
        neighbours {
            well_behaved_client_is_served_on_the_embedded_store
            well_behaved_client_is_served_on_postgres
        }
        replicas {
            scaling_during_publishing_loses_nothing
            tester_passes_through_balancer
            rolling_restart_fails_no_request
            read_whose_replica_dies_is_not_sent_again
            no_replica_is_503_with_retry_after
        }
        faults {
            killed_storage_loses_nothing
            storage_paused_for_10s_loses_nothing
            disconnected_broker_gets_each_event
            killed_and_stopped_replicas_lose_nothing
            packets_dropped_for_20s_lose_nothing
        }
    }
}
