//! The relay between a store and a fan-out that fail on command, in paused time.

mod fake;

use std::collections::BTreeMap;
use std::sync::Mutex;

use uuid::Uuid;

use self::fake::{FakeFanout, FakeStore, Row};
use super::*;
use crate::event::{Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::metrics::PublishPath;
use crate::sink::Committed;

const LEASE: Duration = Duration::from_secs(30);

struct Bench {
    store: Arc<FakeStore>,
    fanout: Arc<FakeFanout>,
    handoff: Arc<HandoffQueue>,
    trouble: watch::Receiver<Option<SinkErrorKind>>,
    metrics: Arc<Metrics>,
    debt: OutboxLease,
    stop: CancellationToken,
    relay: tokio::task::JoinSet<()>,
}

fn bench() -> Bench {
    bench_with(FakeStore::default(), FakeFanout::default())
}

fn bench_with(store: FakeStore, fanout: FakeFanout) -> Bench {
    let (store, fanout) = (Arc::new(store), Arc::new(fanout));
    let debt = OutboxLease {
        owner: Uuid::from_u128(1),
        lease: LEASE,
    };
    let handoff = Arc::new(HandoffQueue::new(Some(debt)));
    let (trouble, seen) = watch::channel(None);
    let metrics = Arc::new(Metrics::default());
    let relay = Relay::new(Settings {
        store: store.clone(),
        fanout: fanout.clone(),
        handoff: handoff.clone(),
        debt,
        trouble,
        metrics: metrics.clone(),
    });
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(relay.run(stop.clone()));
    Bench {
        relay: running,
        store,
        fanout,
        handoff,
        trouble: seen,
        metrics,
        debt,
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
    /// Commits a batch as a writer does that began its flush with `debt`.
    fn commit_with(&self, debt: OutboxLease, batch: i64, topics: &[&str]) {
        let lease = Some((debt.owner, Instant::now() + debt.lease));
        self.store.batches.lock().unwrap().extend([row(batch, topics, lease)]);
        self.handoff.push(Committed {
            batch,
            events: events(batch, topics),
            bytes: 100,
            since: Instant::now(),
            is_leased: !debt.lease.is_zero(),
        });
    }

    fn commit(&self, batch: i64, topics: &[&str]) {
        self.commit_with(self.handoff.debt().unwrap(), batch, topics);
    }

    /// Commits a batch whose flush began while the handover was closed.
    fn commit_while_closed(&self, batch: i64, topics: &[&str]) {
        let debt = OutboxLease {
            lease: Duration::ZERO,
            ..self.debt
        };
        self.commit_with(debt, batch, topics);
    }

    /// Lets time pass until this holds. It is paused: that takes as long as the relay's own waits.
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
            self.fanout.published(),
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

    async fn stability(&self) {
        self.until("all is marked", |bench| bench.store.unpublished().is_empty())
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_over_is_published_in_its_order_and_marked_in_groups() {
    let bench = bench();
    bench.open().await;
    for batch in 1..=5 {
        bench.commit(batch, &["t", "t"]);
    }
    bench.stability().await;
    let expected: Vec<_> = (1..=5).flat_map(|batch| [(batch, 0), (batch, 1)]).collect();
    assert_eq!(bench.fanout.published(), expected);
    bench.handoff.flushed().await;
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_that_fails_leaves_nothing_in_memory_and_gets_everything_when_it_is_back() {
    let bench = bench();
    bench.open().await;
    *bench.fanout.outage.lock().unwrap() = Some(SinkErrorKind::Unreachable);
    bench.commit(1, &["t"]);
    bench.commit(2, &["t"]);
    bench
        .until("it has noticed", |bench| bench.trouble.borrow().is_some())
        .await;
    assert!(!bench.handoff.is_open());
    bench
        .until("leases are given back", |bench| {
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
    let calls = *bench.fanout.calls.lock().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = *bench.fanout.calls.lock().unwrap() - calls;
    assert!((10..200).contains(&tries), "{tries} tries in a minute");
    *bench.fanout.outage.lock().unwrap() = None;
    bench.stability().await;
    assert_eq!(
        bench.fanout.published(),
        (1..=50).map(|batch| (batch, 0)).collect::<Vec<_>>()
    );
    bench.open().await;
    assert_eq!(*bench.trouble.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_replica_has_left_is_taken_over_when_its_lease_ends() {
    let bench = bench();
    bench.open().await;
    let dead = Some((Uuid::from_u128(2), Instant::now() + LEASE));
    bench.store.batches.lock().unwrap().extend([row(1, &["t"], dead)]);
    tokio::time::sleep(LEASE - Duration::from_millis(1)).await;
    assert_eq!(bench.fanout.published(), []);
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_published_beside_the_fast_path() {
    let backlog: BTreeMap<i64, Row> = (1..=2000).map(|batch| row(batch, &["t"], None)).collect();
    let store = FakeStore {
        batches: Mutex::new(backlog),
        ..FakeStore::default()
    };
    let fanout = FakeFanout {
        pace: Duration::from_millis(1),
        ..FakeFanout::default()
    };
    let bench = bench_with(store, fanout);
    bench.open().await;
    assert!(bench.store.unpublished().len() > 1000, "a backlog is left");
    bench.commit(2001, &["t"]);
    bench
        .until("the fast path goes on", |bench| {
            bench.fanout.published().contains(&(2001, 0))
        })
        .await;
    bench.stability().await;
    let mut published = bench.fanout.published();
    published.retain(|place| place.0 != 2001);
    assert_eq!(published, (1..=2000).map(|batch| (batch, 0)).collect::<Vec<_>>());
    bench.handoff.flushed().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_before_the_fast_path_began_is_not_overtaken() {
    let bench = bench();
    bench.open().await;
    // The second flush began after the handover was opened.
    bench.commit_while_closed(1, &["t"]);
    bench.commit(2, &["t"]);
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0), (2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_while_the_fast_path_begins_is_not_overtaken() {
    let bench = bench();
    let store = bench.store.clone();
    let commit = move || store.batches.lock().unwrap().extend([row(1, &["t"], None)]);
    *bench.store.after_claim.lock().unwrap() = Some(Box::new(commit));
    bench.open().await;
    bench.commit(2, &["t"]);
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0), (2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_while_it_is_being_claimed_is_published_once() {
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
    bench.stability().await;
    bench.handoff.flushed().await;
    assert_eq!(bench.fanout.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_itself_is_parked_and_its_batch_is_marked() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t", "refused", "t"]);
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0), (1, 2)]);
    assert_eq!(*bench.store.parked.lock().unwrap(), [Cursor::new(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_nobody_knows_parks_the_event_that_it_is_about_once_others_go_well() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["odd", "odd"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*bench.store.parked.lock().unwrap(), []);
    assert_eq!(*bench.trouble.borrow(), Some(SinkErrorKind::Odd));
    bench.commit(2, &["t"]);
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(2, 0)]);
    assert_eq!(
        *bench.store.parked.lock().unwrap(),
        [Cursor::new(1, 0), Cursor::new(1, 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_stopped_half_way_goes_on_where_it_stopped() {
    let store = FakeStore {
        batches: Mutex::new([row(1, &["t"; 8], None)].into()),
        ..FakeStore::default()
    };
    let fanout = FakeFanout {
        script: Mutex::new([None, Some(SinkErrorKind::Full), None, Some(SinkErrorKind::ReadOnly)].into()),
        ..FakeFanout::default()
    };
    let bench = bench_with(store, fanout);
    bench.stability().await;
    assert_eq!(
        bench.fanout.published(),
        (0..8).map(|position| (1, position)).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_too_long_in_memory_is_left_to_the_outbox() {
    let bench = bench();
    bench.open().await;
    bench
        .store
        .batches
        .lock()
        .unwrap()
        .extend([row(1, &["t"], Some((bench.debt.owner, Instant::now() + LEASE)))]);
    let since = Instant::now();
    tokio::time::sleep(LEASE / 2 + Duration::from_millis(1)).await;
    bench.handoff.push(Committed {
        batch: 1,
        // What memory holds differs here from the store, to tell which of them was published.
        events: events(9, &["t"]),
        bytes: 1,
        since,
        is_leased: true,
    });
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_marks_gets_them_later() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t"]);
    *bench.store.is_down.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.store.unpublished(), [1]);
    *bench.store.is_down.lock().unwrap() = false;
    bench.stability().await;
    assert_eq!(bench.fanout.published(), [(1, 0)], "published once");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stops_publishes_its_queue_and_gives_its_leases_back() {
    let mut bench = bench();
    bench.open().await;
    bench.commit(1, &["t"]);
    // A flush whose reply was lost: under our lease, and never handed over.
    bench
        .store
        .batches
        .lock()
        .unwrap()
        .extend([row(2, &["t"], Some((bench.debt.owner, Instant::now() + LEASE)))]);
    bench.stop.cancel();
    bench.ended().await;
    assert_eq!(bench.fanout.published(), [(1, 0)]);
    let batches = bench.store.batches.lock().unwrap();
    assert!(batches[&1].is_published);
    assert!(batches[&2].lease.is_none() && !batches[&2].is_published);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stops_when_it_has_just_begun_publishes_what_was_committed_before_it_began() {
    for is_open in [false, true] {
        let mut bench = bench();
        if is_open {
            bench.open().await;
        }
        bench.commit_while_closed(1, &["t"]);
        bench.commit(2, &["t"]);
        bench.stop.cancel();
        bench.ended().await;
        assert_eq!(bench.fanout.published(), [(1, 0), (2, 0)], "open: {is_open}");
        assert!(bench.store.unpublished().is_empty(), "open: {is_open}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stops_while_the_fan_out_is_away_gives_all_leases_back() {
    let mut bench = bench();
    bench.open().await;
    *bench.fanout.outage.lock().unwrap() = Some(SinkErrorKind::Unreachable);
    bench.commit(1, &["t"]);
    bench.stop.cancel();
    bench.ended().await;
    assert!(bench.store.batches.lock().unwrap()[&1].lease.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_published_and_what_fails_is_counted() {
    let bench = bench();
    bench.open().await;
    bench.commit(1, &["t", "refused", "t"]);
    bench.stability().await;
    let published = |way| bench.metrics.published_by(way).get();
    assert_eq!((published(PublishPath::Fast), published(PublishPath::CatchUp)), (2, 0));
    assert_eq!(bench.metrics.sink_dead_letters.get(), 1);
    *bench.fanout.outage.lock().unwrap() = Some(SinkErrorKind::Full);
    bench.commit(2, &["t", "t", "t", "t"]);
    bench
        .until("it has noticed", |bench| bench.trouble.borrow().is_some())
        .await;
    *bench.fanout.outage.lock().unwrap() = None;
    bench.stability().await;
    assert_eq!((published(PublishPath::Fast), published(PublishPath::CatchUp)), (2, 4));
    assert!(bench.metrics.sink_duration.get_sample_count() >= 3);
    let errors = |trouble: SinkErrorKind| bench.metrics.sink_errors.with_label_values(&[trouble.as_str()]).get();
    assert!(errors(SinkErrorKind::Full) >= 1);
    assert_eq!(errors(SinkErrorKind::Odd), 0);
}

#[tokio::test(start_paused = true)]
async fn the_level_of_the_outbox_is_looked_at_until_the_stop() {
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
    assert!(level(2).await, "it looks every five seconds");
    *store.is_down.lock().unwrap() = true;
    store.batches.lock().unwrap().clear();
    assert!(!level(0).await, "what is not told stays");
    *store.is_down.lock().unwrap() = false;
    assert!(level(0).await);
    stop.cancel();
    watching.join_next().await.unwrap().unwrap();
}
