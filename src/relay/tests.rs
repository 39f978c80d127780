//! The relay between a fake store and a fake sink that fail on command, in paused time.

mod fake;

use std::collections::BTreeMap;
use std::sync::Mutex;

use uuid::Uuid;

use self::fake::{FakeSink, FakeStore, Row};
use super::*;
use crate::event::{Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::metrics::PublishPath;
use crate::sink::Committed;

const LEASE: Duration = Duration::from_secs(30);

struct Bench {
    store: Arc<FakeStore>,
    sink: Arc<FakeSink>,
    handoff: Arc<HandoffQueue>,
    sink_error: watch::Receiver<Option<SinkErrorKind>>,
    metrics: Arc<Metrics>,
    lease: OutboxLease,
    stop: CancellationToken,
    relay: tokio::task::JoinSet<()>,
}

fn bench() -> Bench {
    bench_with(FakeStore::default(), FakeSink::default())
}

fn bench_with(store: FakeStore, sink: FakeSink) -> Bench {
    let (store, sink) = (Arc::new(store), Arc::new(sink));
    let lease = OutboxLease {
        owner: Uuid::from_u128(1),
        length: LEASE,
    };
    let handoff = Arc::new(HandoffQueue::new(Some(lease)));
    let (sink_error, seen) = watch::channel(None);
    let metrics = Arc::new(Metrics::default());
    let relay = Relay::new(Settings {
        store: store.clone(),
        sink: sink.clone(),
        handoff: handoff.clone(),
        lease,
        sink_error,
        metrics: metrics.clone(),
    });
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(relay.run(stop.clone()));
    Bench {
        relay: running,
        store,
        sink,
        handoff,
        sink_error: seen,
        metrics,
        lease,
        stop,
    }
}

fn events(batch: i64, topics: &[&str]) -> Vec<StoredEvent> {
    let event = |(position, topic): (i32, &&str)| StoredEvent {
        event: Event {
            topic: Topic::parse((*topic).to_owned()).unwrap(),
            event_id: EventId::parse("e").unwrap(),
            occurred_at: Timestamp::from_micros(0).unwrap(),
            source: Source::parse("s").unwrap(),
            payload: Payload::parse("{}").unwrap(),
            headers: None,
        },
        received_at: Timestamp::from_micros(0).unwrap(),
        cursor: Cursor::new(batch, position),
        trace: None,
    };
    (0..).zip(topics).map(event).collect()
}

fn row(batch: i64, topics: &[&str], lease: Option<(Uuid, Instant)>) -> (i64, Row) {
    let row = Row {
        events: events(batch, topics),
        lease,
        is_published: false,
    };
    (batch, row)
}

impl Bench {
    /// Commits a batch as a writer whose group commit began under `lease`.
    fn commit_with(&self, lease: OutboxLease, batch: i64, topics: &[&str]) {
        let leased = Some((lease.owner, Instant::now() + lease.length));
        self.store.batches.lock().unwrap().extend([row(batch, topics, leased)]);
        self.handoff.push(Committed {
            batch,
            events: events(batch, topics),
            bytes: 100,
            since: Instant::now(),
            is_leased: !lease.length.is_zero(),
        });
    }

    fn commit(&self, batch: i64, topics: &[&str]) {
        self.commit_with(self.handoff.lease().unwrap(), batch, topics);
    }

    /// Commits a batch whose group commit began while the queue was closed.
    fn commit_while_closed(&self, batch: i64, topics: &[&str]) {
        let lease = OutboxLease {
            length: Duration::ZERO,
            ..self.lease
        };
        self.commit_with(lease, batch, topics);
    }

    /// Waits until `holds` is true. Time is paused, so this takes as long as the waits of the relay.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(300), waiting).await.is_ok();
        assert!(
            in_time,
            "{what}: published {:?}, unpublished {:?}",
            self.sink.published(),
            self.store.unpublished()
        );
    }

    /// Waits until the relay has ended.
    async fn ended(&mut self) {
        self.relay.join_next().await.unwrap().unwrap();
    }

    async fn open(&self) {
        self.until("the fast path runs", |bench| bench.handoff.is_open()).await;
    }

    async fn all_marked(&self) {
        self.until("all is marked", |bench| bench.store.unpublished().is_empty())
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn publishes_in_commit_order_and_marks() {
    let bench = bench();
    bench.open().await;
    for batch in 1..=5 {
        bench.commit(batch, &["t", "t"]);
    }
    bench.all_marked().await;
    let expected: Vec<_> = (1..=5).flat_map(|batch| [(batch, 0), (batch, 1)]).collect();
    assert_eq!(bench.sink.published(), expected);
    bench.handoff.flushed().await;
}

#[tokio::test(start_paused = true)]
async fn keeps_nothing_in_memory_while_the_sink_is_down() {
    let bench = bench();
    bench.open().await;
    *bench.sink.outage.lock().unwrap() = Some(SinkErrorKind::Unreachable);
    bench.commit(1, &["t"]);
    bench.commit(2, &["t"]);
    bench
        .until("the relay notices the outage", |bench| {
            bench.sink_error.borrow().is_some()
        })
        .await;
    assert!(!bench.handoff.is_open());
    bench
        .until("the leases are released", |bench| {
            bench
                .store
                .batches
                .lock()
                .unwrap()
                .values()
                .all(|row| row.lease.is_none())
        })
        .await;
    for batch in 3..=50 {
        bench.commit(batch, &["t"]);
    }
    assert!(bench.handoff.take().is_none());
    let calls = *bench.sink.calls.lock().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = *bench.sink.calls.lock().unwrap() - calls;
    assert!((10..200).contains(&tries), "{tries} tries in a minute");
    *bench.sink.outage.lock().unwrap() = None;
    bench.all_marked().await;
    assert_eq!(
        bench.sink.published(),
        (1..=50).map(|batch| (batch, 0)).collect::<Vec<_>>()
    );
    bench.open().await;
    assert_eq!(*bench.sink_error.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn takes_over_batches_of_a_dead_replica() {
    let bench = bench();
    bench.open().await;
    let dead = Some((Uuid::from_u128(2), Instant::now() + LEASE));
    bench.store.batches.lock().unwrap().extend([row(1, &["t"], dead)]);
    tokio::time::sleep(LEASE - Duration::from_millis(1)).await;
    assert_eq!(bench.sink.published(), []);
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn publishes_a_backlog_beside_the_fast_path() {
    let backlog: BTreeMap<i64, Row> = (1..=2000).map(|batch| row(batch, &["t"], None)).collect();
    let store = FakeStore {
        batches: Mutex::new(backlog),
        ..FakeStore::default()
    };
    let sink = FakeSink {
        pace: Duration::from_millis(1),
        ..FakeSink::default()
    };
    let bench = bench_with(store, sink);
    bench.open().await;
    assert!(bench.store.unpublished().len() > 1000, "a backlog is left");
    bench.commit(2001, &["t"]);
    bench
        .until("the fast path goes on", |bench| {
            bench.sink.published().contains(&(2001, 0))
        })
        .await;
    bench.all_marked().await;
    let mut published = bench.sink.published();
    published.retain(|position| position.0 != 2001);
    assert_eq!(published, (1..=2000).map(|batch| (batch, 0)).collect::<Vec<_>>());
    bench.handoff.flushed().await;
}

#[tokio::test(start_paused = true)]
async fn keeps_order_with_a_batch_committed_while_closed() {
    let bench = bench();
    bench.open().await;
    // The second group commit began after the queue was opened.
    bench.commit_while_closed(1, &["t"]);
    bench.commit(2, &["t"]);
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0), (2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn keeps_order_with_a_batch_committed_while_opening() {
    let bench = bench();
    let store = bench.store.clone();
    let commit = move || store.batches.lock().unwrap().extend([row(1, &["t"], None)]);
    *bench.store.after_claim.lock().unwrap() = Some(Box::new(commit));
    bench.open().await;
    bench.commit(2, &["t"]);
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0), (2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn publishes_a_batch_once_that_is_queued_while_claimed() {
    let bench = bench();
    bench.open().await;
    let handoff = bench.handoff.clone();
    let push = move || {
        handoff.push(Committed {
            batch: 1,
            events: events(1, &["t"]),
            bytes: 1,
            since: Instant::now(),
            is_leased: false,
        });
    };
    *bench.store.after_claim.lock().unwrap() = Some(Box::new(push));
    bench.store.batches.lock().unwrap().extend([row(1, &["t"], None)]);
    bench.all_marked().await;
    bench.handoff.flushed().await;
    assert_eq!(bench.sink.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_a_rejected_event_and_marks_its_batch() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t", "rejected", "t"]);
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0), (1, 2)]);
    assert_eq!(*bench.store.dead_letters.lock().unwrap(), [Cursor::new(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn sends_less_to_a_sink_that_ends_the_connection() {
    let sink = FakeSink {
        events_max: Some(2),
        ..FakeSink::default()
    };
    let bench = bench_with(FakeStore::default(), sink);
    bench.open().await;
    bench.commit(1, &["t"; 9]);
    bench.commit(2, &["t"]);
    bench.all_marked().await;
    let expected: Vec<_> = (0..9).map(|position| (1, position)).chain([(2, 0)]).collect();
    assert_eq!(bench.sink.published(), expected);
    assert!(bench.store.dead_letters.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn dead_letters_an_event_that_ends_the_connection() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t", "t", "cuts", "t"]);
    bench.commit(2, &["t"]);
    bench.all_marked().await;
    assert_eq!(*bench.store.dead_letters.lock().unwrap(), [Cursor::new(1, 2)]);
    let published: std::collections::BTreeSet<_> = bench.sink.published().into_iter().collect();
    assert_eq!(published, [(1, 0), (1, 1), (1, 3), (2, 0)].into());
    bench
        .until("it is well", |bench| bench.sink_error.borrow().is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_after_unexpected_errors() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["unexpected", "unexpected"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*bench.store.dead_letters.lock().unwrap(), []);
    assert_eq!(*bench.sink_error.borrow(), Some(SinkErrorKind::Unexpected));
    bench.commit(2, &["t"]);
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(2, 0)]);
    assert_eq!(
        *bench.store.dead_letters.lock().unwrap(),
        [Cursor::new(1, 0), Cursor::new(1, 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn resumes_a_batch_where_it_stopped() {
    let store = FakeStore {
        batches: Mutex::new([row(1, &["t"; 8], None)].into()),
        ..FakeStore::default()
    };
    let sink = FakeSink {
        script: Mutex::new([None, Some(SinkErrorKind::Full), None, Some(SinkErrorKind::ReadOnly)].into()),
        ..FakeSink::default()
    };
    let bench = bench_with(store, sink);
    bench.all_marked().await;
    assert_eq!(
        bench.sink.published(),
        (0..8).map(|position| (1, position)).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn leaves_a_batch_to_the_outbox_when_its_lease_runs_out() {
    let bench = bench();
    bench.open().await;
    bench
        .store
        .batches
        .lock()
        .unwrap()
        .extend([row(1, &["t"], Some((bench.lease.owner, Instant::now() + LEASE)))]);
    let since = Instant::now();
    tokio::time::sleep(LEASE / 2 + Duration::from_millis(1)).await;
    bench.handoff.push(Committed {
        batch: 1,
        // The events differ from those in the store, to show which of them were published.
        events: events(9, &["t"]),
        bytes: 1,
        since,
        is_leased: true,
    });
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn marks_later_when_the_store_is_down() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t"]);
    *bench.store.is_down.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.store.unpublished(), [1]);
    *bench.store.is_down.lock().unwrap() = false;
    bench.all_marked().await;
    assert_eq!(bench.sink.published(), [(1, 0)], "published once");
}

#[tokio::test(start_paused = true)]
async fn stop_publishes_the_queue_and_releases_leases() {
    let mut bench = bench();
    bench.open().await;
    bench.commit(1, &["t"]);
    // A batch whose reply from the store was lost: under a lease of this process, and never queued.
    bench
        .store
        .batches
        .lock()
        .unwrap()
        .extend([row(2, &["t"], Some((bench.lease.owner, Instant::now() + LEASE)))]);
    bench.stop.cancel();
    bench.ended().await;
    assert_eq!(bench.sink.published(), [(1, 0)]);
    let batches = bench.store.batches.lock().unwrap();
    assert!(batches[&1].is_published);
    assert!(batches[&2].lease.is_none() && !batches[&2].is_published);
}

#[tokio::test(start_paused = true)]
async fn stop_right_after_the_start_publishes_everything() {
    for is_open in [false, true] {
        let mut bench = bench();
        if is_open {
            bench.open().await;
        }
        bench.commit_while_closed(1, &["t"]);
        bench.commit(2, &["t"]);
        bench.stop.cancel();
        bench.ended().await;
        assert_eq!(bench.sink.published(), [(1, 0), (2, 0)], "open: {is_open}");
        assert!(bench.store.unpublished().is_empty(), "open: {is_open}");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_while_the_sink_is_down_releases_leases() {
    let mut bench = bench();
    bench.open().await;
    *bench.sink.outage.lock().unwrap() = Some(SinkErrorKind::Unreachable);
    bench.commit(1, &["t"]);
    bench.stop.cancel();
    bench.ended().await;
    assert!(bench.store.batches.lock().unwrap()[&1].lease.is_none());
}

#[tokio::test(start_paused = true)]
async fn counts_published_events_dead_letters_and_errors() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t", "rejected", "t"]);
    bench.all_marked().await;
    let published = |path| bench.metrics.published_by(path).get();
    assert_eq!((published(PublishPath::Fast), published(PublishPath::CatchUp)), (2, 0));
    assert_eq!(bench.metrics.sink_dead_letters.get(), 1);
    *bench.sink.outage.lock().unwrap() = Some(SinkErrorKind::Full);
    bench.commit(2, &["t", "t", "t", "t"]);
    bench
        .until("the relay notices the outage", |bench| {
            bench.sink_error.borrow().is_some()
        })
        .await;
    *bench.sink.outage.lock().unwrap() = None;
    bench.all_marked().await;
    assert_eq!((published(PublishPath::Fast), published(PublishPath::CatchUp)), (2, 4));
    assert!(bench.metrics.sink_duration.get_sample_count() >= 3);
    let errors = |kind: SinkErrorKind| bench.metrics.sink_errors.with_label_values(&[kind.as_str()]).get();
    assert!(errors(SinkErrorKind::Full) >= 1);
    assert_eq!(errors(SinkErrorKind::Unexpected), 0);
}

#[tokio::test(start_paused = true)]
async fn backlog_gauges_are_updated_until_the_stop() {
    let (store, metrics) = (Arc::new(FakeStore::default()), Arc::new(Metrics::default()));
    let stop = CancellationToken::new();
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(watch_backlog(store.clone(), metrics.clone(), stop.clone()));
    let level = async |batches: i64| {
        let seen = async {
            while metrics.outbox_batches.get() != batches {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(6), seen).await.is_ok()
    };
    store
        .batches
        .lock()
        .unwrap()
        .extend([row(1, &["t"], None), row(2, &["t"], None)]);
    assert!(level(2).await, "the gauges are set every five seconds");
    *store.is_down.lock().unwrap() = true;
    store.batches.lock().unwrap().clear();
    assert!(!level(0).await, "the gauges keep their values while the store is down");
    *store.is_down.lock().unwrap() = false;
    assert!(level(0).await);
    stop.cancel();
    watching.join_next().await.unwrap().unwrap();
}
