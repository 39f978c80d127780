//! The handoff queue alone, and against itself from several threads.

use futures_util::FutureExt;

use super::*;

const LEASE: OutboxLease = OutboxLease {
    owner: Uuid::nil(),
    length: Duration::from_secs(30),
};

fn committed(batch: i64, bytes: usize) -> Committed {
    Committed {
        batch,
        events: Vec::new(),
        bytes,
        since: Instant::now(),
        is_leased: true,
    }
}

#[tokio::test]
async fn a_batch_that_does_not_fit_closes_the_queue() {
    let handoff = HandoffQueue::new(Some(LEASE));
    handoff.open();
    assert_eq!(handoff.lease(), Some(LEASE));
    handoff.push(committed(1, BYTES_MAX));
    handoff.push(committed(2, 1));
    assert!(!handoff.is_open());
    handoff.push(committed(3, 0));
    assert_eq!(handoff.take_skipped(), [2, 3]);
    assert_eq!(handoff.take_skipped(), [0; 0]);
    assert_eq!(handoff.lease().unwrap().length, Duration::ZERO);
    assert_eq!(handoff.take().unwrap().batch, 1);
    handoff.done(BYTES_MAX);
    handoff.open();
    handoff.push(committed(4, BYTES_MAX));
    assert!(handoff.is_open());
}

#[tokio::test]
async fn skips_batches_committed_while_closed() {
    let handoff = HandoffQueue::new(Some(LEASE));
    let unleased = |batch| Committed {
        is_leased: false,
        ..committed(batch, 1)
    };
    handoff.push(unleased(1));
    assert_eq!(
        handoff.take_skipped(),
        [0; 0],
        "closed, the relay looks into the outbox anyway"
    );
    handoff.open();
    handoff.push(unleased(2));
    handoff.push(committed(3, 1));
    assert!(handoff.take().is_none(), "the skipped batch is older");
    assert_eq!(handoff.take_skipped(), [2]);
    assert_eq!(handoff.take().unwrap().batch, 3);
}

/// Whether `flushed` returns at once.
fn is_flushed(handoff: &HandoffQueue) -> bool {
    Box::pin(handoff.flushed()).now_or_never().is_some()
}

#[tokio::test]
async fn flushed_waits_for_batches_queued_before_it() {
    let handoff = HandoffQueue::new(Some(LEASE));
    handoff.open();
    handoff.caught_up();
    assert!(is_flushed(&handoff));
    handoff.push(committed(1, 1));
    let mut flushed = Box::pin(handoff.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    handoff.push(committed(2, 1));
    assert!(handoff.take().is_some());
    handoff.done(1);
    flushed.await;
}

#[tokio::test]
async fn flushed_waits_for_the_outbox() {
    let handoff = HandoffQueue::new(Some(LEASE));
    assert!(!is_flushed(&handoff), "the relay has not looked yet");
    handoff.open();
    handoff.caught_up();
    handoff.push(Committed {
        is_leased: false,
        ..committed(1, 1)
    });
    assert!(!is_flushed(&handoff));
    assert_eq!(handoff.take_skipped(), [1]);
    assert!(!is_flushed(&handoff), "the relay is about to publish it");
    handoff.caught_up();
    assert!(is_flushed(&handoff));
    handoff.push(committed(2, BYTES_MAX + 1));
    assert_eq!(handoff.take_skipped(), [2]);
    handoff.caught_up();
    assert!(!is_flushed(&handoff), "the relay is behind");
    let mut flushed = Box::pin(handoff.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    handoff.give_up();
    flushed.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flushed_and_push_never_deadlock() {
    const BATCHES: i64 = 20_000;
    let handoff = std::sync::Arc::new(HandoffQueue::new(Some(LEASE)));
    handoff.open();
    handoff.caught_up();
    let mut both = tokio::task::JoinSet::new();
    let pushing = handoff.clone();
    both.spawn(async move {
        for batch in 0..BATCHES {
            pushing.push(committed(batch, 0));
            tokio::task::yield_now().await;
        }
    });
    let taking = handoff.clone();
    both.spawn(async move {
        let mut taken = 0;
        while taken < BATCHES {
            match taking.take() {
                Some(committed) => {
                    taking.done(committed.bytes);
                    taken += 1;
                }
                None => taking.arrived().await,
            }
        }
    });
    while both.try_join_next().is_none() {
        handoff.flushed().await;
        tokio::task::yield_now().await;
    }
    both.join_all().await;
    handoff.flushed().await;
}

#[tokio::test]
async fn queues_nothing_without_a_relay() {
    let handoff = HandoffQueue::new(None);
    handoff.push(committed(1, usize::MAX));
    handoff.committed().await;
    assert_eq!(handoff.lease(), None);
    assert_eq!(handoff.take_skipped(), [0; 0]);
    handoff.flushed().await;
}
