//! The live stream on an embedded store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::hub::{Settings, Subscribers};
use super::subscriber::SubscriberPermit;
use super::watcher::READ_BYTES;
use crate::event::{Cursor, Event, EventId, Payload, Source, Timestamp, Topic, TopicGlobs};
use crate::sink::HandoffQueue;
use crate::store::{Batch, Expiry, GroupCommit, Retention, Store};

/// A live stream of an embedded store that has these events, and the switch that makes publishing look busy.
async fn stream(folder: &std::path::Path, events: usize) -> (Subscribers, Arc<AtomicBool>) {
    let store: Arc<dyn Store> = Arc::new(crate::store::sqlite::Sqlite::open(&folder.join("a.db")).unwrap());
    store.migrate().await.unwrap();
    let event = |number: usize| Event {
        topic: Topic::parse("t").unwrap(),
        event_id: EventId::parse(number.to_string()).unwrap(),
        occurred_at: Timestamp::from_micros(0).unwrap(),
        source: Source::parse("s").unwrap(),
        payload: Payload::parse(format!(r#"{{"text":"{}"}}"#, "x".repeat(1000))).unwrap(),
        headers: None,
    };
    let (batch, _) = Batch::new((0..events).map(event).collect());
    let commit = GroupCommit {
        id: uuid::Uuid::new_v4(),
        batch: &batch,
        lease: None,
        lock_limit: Duration::MAX,
    };
    let mut appender = store.appender(0).await.unwrap();
    appender.append(&commit, Duration::from_secs(5)).await.unwrap();
    let busy = Arc::new(AtomicBool::new(true));
    let is_busy = busy.clone();
    let subscribers = Subscribers::new(Settings {
        store,
        handoff: Arc::new(HandoffQueue::new(None)),
        subscribers_max: 100,
        is_busy: Box::new(move || is_busy.load(Ordering::Relaxed)),
        metrics: Arc::default(),
        stop: CancellationToken::new(),
    });
    (subscribers, busy)
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_little_at_a_time_while_requests_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (subscribers, busy) = stream(folder.path(), 200).await;
    subscribers.0.ring().begin(Cursor::BEGINNING);
    let one = subscribers.permit().unwrap();
    assert_eq!(subscribers.busy_limit(), None, "one subscriber is too few to matter");
    let others: Vec<SubscriberPermit> = (1..100).map(|_| subscribers.permit().unwrap()).collect();
    assert!(subscribers.permit().is_err());
    let limit = subscribers.busy_limit().unwrap();
    assert!(!subscribers.0.read(limit).await.unwrap(), "not all is read at once");
    let delivered = subscribers.0.ring().end().unwrap().position();
    assert!((10..100).contains(&delivered), "{delivered} of 200 events of 1 KB");
    busy.store(false, Ordering::Relaxed);
    assert_eq!(subscribers.busy_limit(), None);
    assert!(subscribers.0.read(READ_BYTES).await.unwrap());
    drop((one, others));
    assert_eq!(subscribers.subscribers(), 0);
}

/// The first frame that a subscriber at this position gets once the watcher has read.
async fn first_frame(subscribers: &Subscribers, at: Cursor) -> String {
    let mut subscriber = subscribers
        .permit()
        .unwrap()
        .subscribe(Some(at), None, TopicGlobs::All)
        .await
        .unwrap();
    subscribers.0.read(READ_BYTES).await.unwrap();
    let frame = tokio::time::timeout(Duration::from_secs(60), subscriber.next()).await;
    String::from_utf8(frame.expect("a frame").unwrap().to_vec()).unwrap()
}

/// Events were pruned before the watcher had read them.
#[tokio::test(flavor = "multi_thread")]
async fn watcher_leaves_no_gap_unsaid() {
    let folder = tempfile::tempdir().unwrap();
    let (subscribers, _) = stream(folder.path(), 3).await;
    let first = subscribers.0.store.stability().await.unwrap().last_stable;
    let first = Cursor::new(first.batch(), 0);
    subscribers.0.ring().begin(first);
    let other = crate::store::sqlite::Sqlite::open(&folder.path().join("a.db")).unwrap();
    assert!(other.begin_partition(Duration::ZERO).await.unwrap());
    let partition = other.partitions().await.unwrap()[0].first_batch;
    assert_eq!(other.expire(&Expiry::of_all(partition)).await.unwrap().removed, 3);
    let frame = first_frame(&subscribers, first).await;
    assert!(frame.starts_with("event: truncated\n"), "{frame}");
}

/// The store was replaced under the watcher.
#[tokio::test(flavor = "multi_thread")]
async fn watcher_beyond_the_log_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (subscribers, _) = stream(folder.path(), 3).await;
    let beyond = Cursor::new(i64::MAX, 0);
    subscribers.0.ring().begin(beyond);
    let frame = first_frame(&subscribers, beyond).await;
    assert!(frame.starts_with("event: cursor_unknown\n"), "{frame}");
    assert_eq!(subscribers.0.ring().end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn catches_up_from_the_store_then_the_ring() {
    let folder = tempfile::tempdir().unwrap();
    let (subscribers, _) = stream(folder.path(), 500).await;
    let watching = tokio::task::JoinSet::from_iter([subscribers.clone().watch()]);
    let mut subscriber = subscribers
        .permit()
        .unwrap()
        .subscribe(Some(Cursor::BEGINNING), None, TopicGlobs::All)
        .await
        .unwrap();
    let mut text = String::new();
    while text.matches("\ndata: ").count() < 500 {
        text.push_str(std::str::from_utf8(&subscriber.next().await.unwrap()).unwrap());
    }
    assert_eq!(text.matches("\ndata: ").count(), 500);
    subscribers.0.stop.cancel();
    assert_eq!(subscriber.next().await, None);
    watching.join_all().await;
}
