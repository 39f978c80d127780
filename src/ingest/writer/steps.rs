//! What the traces of requests show of their way through a writer.

use tokio::time::Instant;

use super::Flushed;
use super::in_doubt::Failure;
use crate::ingest::pending::Work;
use crate::telemetry::Step;

/// A traced request is in a writer's hands for the first time.
pub(super) fn waited(work: &mut Work) {
    if let (Some(trace), Some(since)) = (&work.trace, work.waiting_since.take()) {
        Step::new("ingest.wait", since).end([trace]);
    }
}

/// The commit of a batch that began at `begun` and took this many attempts.
pub(super) fn commit(begun: Instant, attempts: usize, result: &Result<Flushed, Failure>) -> Step {
    let step = Step::new("ingest.commit", begun).count("attempts", attempts);
    match result {
        Ok(flushed) => step.with("batch", flushed.appended.batch),
        Err(Failure::Unknown) => step.failed("the outcome is unknown"),
        Err(Failure::Definite) => step.failed("nothing was stored"),
        Err(Failure::Refused) => step.failed("the store refused events"),
    }
}
