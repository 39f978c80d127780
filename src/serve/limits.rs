//! What the limits of memory come to.

use crate::config::Config;

/// Logs the limits, of which some follow from the memory, and warns where they are too high for it.
pub(super) fn log(config: &Config) {
    let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
    let (queue, answers) = (config.ingest.queue_bytes_max, config.http.answer_bytes_max);
    tracing::info!(
        memory = config.memory_limit.map(mebibytes),
        queue = mebibytes(queue),
        answers = mebibytes(answers),
        connections = config.http.connections_max,
        "limits"
    );
    // A batch takes as much again on its way to the store.
    let needed = queue.saturating_mul(2).saturating_add(answers);
    if config.memory_limit.is_some_and(|limit| needed > limit / 4 * 3) {
        tracing::warn!(
            "requests and answers may take more memory than this process may use: set lower EVENTSIEVE_QUEUE_BYTES and EVENTSIEVE_ANSWER_BYTES, or give it more"
        );
    }
}
