//! Passes on an embedded store, and the archive.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use uuid::Uuid;

use super::archive::{Archive, ArchiveError};
use super::folder::Folder;
use super::keeper::Keeper;
use super::prune::{Prune, prune};
use super::target::{Target, TargetError};
use crate::config::RetentionConfig;
use crate::event::{Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic, TopicGlob};
use crate::metrics::Metrics;
use crate::store::{Batch, Expiry, GroupCommit, List, Partition, Store};

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    retention: RetentionConfig,
}

fn config(arguments: &[&str]) -> RetentionConfig {
    Options::parse_from(["test"].iter().chain(arguments)).retention
}

async fn open(folder: &Path) -> Arc<dyn Store> {
    let store = crate::store::sqlite::Sqlite::open(&folder.join("a.db")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.migrate().await.unwrap();
    store
}

fn event(topic: &str, id: &str, payload: &str) -> Event {
    Event {
        topic: Topic::parse(topic.to_owned()).unwrap(),
        event_id: EventId::parse(id.to_owned()).unwrap(),
        occurred_at: Timestamp::from_micros(0).unwrap(),
        source: Source::parse("s").unwrap(),
        payload: Payload::parse(payload.to_owned()).unwrap(),
        headers: None,
    }
}

async fn send(store: &Arc<dyn Store>, events: Vec<Event>) {
    let (batch, _) = Batch::new(events);
    let commit = GroupCommit {
        id: Uuid::new_v4(),
        batch: &batch,
        lease: None,
        lock_limit: Duration::MAX,
    };
    let mut appender = store.appender(0).await.unwrap();
    appender.append(&commit, Duration::from_secs(9)).await.unwrap();
}

async fn listed(store: &Arc<dyn Store>) -> Vec<StoredEvent> {
    let list = List {
        limit: 1_000_000,
        ..List::default()
    };
    store.list(&list).await.unwrap().events
}

async fn end_partition(store: &Arc<dyn Store>) -> Partition {
    assert!(store.begin_partition(Duration::ZERO).await.unwrap());
    let partitions = store.partitions().await.unwrap();
    partitions
        .into_iter()
        .rfind(|partition| partition.ended_at.is_some())
        .unwrap()
}

/// Moves the clock of the store: what it knows of partitions was `seconds` longer ago.
fn age(folder: &Path, seconds: i64) {
    let connection = rusqlite::Connection::open(folder.join("a.db")).unwrap();
    connection
        .execute_batch(&format!(
            "update partitions set begun_at = begun_at - {seconds}000000, ended_at = ended_at - {seconds}000000"
        ))
        .unwrap();
}

fn keeper(store: &Arc<dyn Store>, arguments: &[&str], archive: Option<Archive>) -> (Keeper, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (
        Keeper::new(store.clone(), metrics.clone(), config(arguments), archive),
        metrics,
    )
}

fn archive(folder: &Path) -> Archive {
    Archive(Box::new(Folder(folder.join("archive"))))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("archive")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn events_expire_by_age_and_topic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    send(
        &store,
        vec![
            event("debug.a", "1", "{}"),
            event("t", "1", "{}"),
            event("pay", "1", "{}"),
        ],
    )
    .await;
    let arguments = ["--retain=1h", "--retain-topics=debug.*=10m,pay=2h"];
    let (mut keeper, metrics) = keeper(&store, &arguments, None);
    let left = async || -> Vec<String> {
        let left = listed(&store).await.into_iter();
        left.map(|stored| stored.event.topic.to_string()).collect()
    };
    // The partition ends when it is as old as the shortest retention, and its age counts from then.
    for (seconds, expected) in [
        (0, vec!["debug.a", "t", "pay"]),
        (601, vec!["debug.a", "t", "pay"]),
        (601, vec!["t", "pay"]),
        (3000, vec!["pay"]),
        (3000, vec!["pay"]),
        (601, vec![]),
    ] {
        age(folder.path(), seconds);
        keeper.pass().await.unwrap();
        assert_eq!(left().await, expected);
    }
    assert_eq!(metrics.expired_events.get(), 3);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn oldest_events_go_while_all_are_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(10_000));
    let (mut keeper, metrics) = keeper(&store, &["--retain=2MiB", "--retain-topics=keep=1d"], None);
    send(&store, vec![event("keep", "1", "{}")]).await;
    for round in 0..10 {
        let events = (0..50).map(|number| event("t", &format!("{round} {number}"), &payload));
        send(&store, events.collect()).await;
        keeper.pass().await.unwrap();
        let bytes: u64 = store.partitions().await.unwrap().iter().map(|one| one.bytes).sum();
        assert!(bytes <= 2 << 20, "{bytes}");
    }
    let left = listed(&store).await;
    assert_eq!(left[0].event.topic.as_str(), "keep", "it has an age of its own");
    assert_eq!(left.last().unwrap().event.event_id.as_str(), "9 49", "the newest stay");
    assert!((100..=207).contains(&left.len()), "{}", left.len());
    assert_eq!(metrics.expired_events.get() + left.len() as u64, 501);
    assert!(u64::try_from(metrics.partition_bytes.get()).unwrap() <= 2 << 20);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// Space that expired events took is given back to the system.
#[tokio::test(flavor = "multi_thread")]
async fn file_shrinks_when_events_expire() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(10_000));
    send(
        &store,
        (0..2000)
            .map(|number| event("t", &number.to_string(), &payload))
            .collect(),
    )
    .await;
    let partition = end_partition(&store).await;
    let pages = || -> i64 {
        let connection = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
        connection
            .query_row("select page_count from pragma_page_count", [], |row| row.get(0))
            .unwrap()
    };
    let before = pages();
    store.expire(&Expiry::of_all(partition.first_batch)).await.unwrap();
    let after = pages();
    assert!(before > 4000 && after * 10 < before, "{before} pages, then {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_and_conflicts_expire_by_times_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    send(&store, vec![event("t", "1", "{}"), event("t", "1", r#"{"v":1}"#)]).await;
    let arguments = ["--retain=1m", "--retain-identities=1h", "--retain-conflicts=30m"];
    let mut forgotten = 0;
    let conflicts = async || {
        let all = crate::store::ConflictList {
            topic: None,
            globs: crate::event::TopicGlobs::All,
            after: crate::event::Cursor::BEGINNING,
            limit: 10,
        };
        store.conflicts(&all).await.unwrap().conflicts.len()
    };
    for (seconds, identities, kept) in [(0, 1, 1), (61, 1, 1), (61, 1, 1), (1800, 1, 0), (1800, 0, 0)] {
        age(folder.path(), seconds);
        let connection = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
        for table in ["identities", "conflicts"] {
            let sql = format!("update {table} set received_at = received_at - {seconds}000000");
            connection.execute_batch(&sql).unwrap();
        }
        // A new one, because one looks through identities only now and then.
        let (mut keeper, metrics) = keeper(&store, &arguments, None);
        keeper.pass().await.unwrap();
        forgotten += metrics.forgotten_identities.get();
        assert_eq!(store.verify().await.unwrap().identities, identities, "{seconds}");
        assert_eq!(conflicts().await, kept, "{seconds}");
    }
    assert_eq!(forgotten, 1);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_is_archived_whole_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sent: Vec<_> = (0..2500)
        .map(|number| event("t", &number.to_string(), "{ \"a\":\n1}"))
        .collect();
    send(&store, sent).await;
    let all = listed(&store).await;
    let partition = end_partition(&store).await;
    let kept = archive(folder.path());
    kept.keep(&*store, &partition).await.unwrap();
    let (first, last) = (all[0].cursor, all[2499].cursor);
    assert_eq!(
        names(folder.path()),
        [
            format!("events-{first}-{last}.ndjson.zst"),
            format!("manifest-{first}-{last}.json")
        ]
    );
    let archived = store.archived().await.unwrap();
    assert_eq!(archived[0].events, 2500);
    assert_eq!(kept.verify(&archived).await, [""; 0]);
    // Again, as after a crash before it was noted, and once more where it was.
    let before = names(folder.path());
    kept.keep(&*store, &partition).await.unwrap();
    kept.keep(&*store, &store.partitions().await.unwrap()[0]).await.unwrap();
    assert_eq!(names(folder.path()), before);
    store.expire(&Expiry::of_all(partition.first_batch)).await.unwrap();
    assert_eq!(store.archived().await.unwrap(), archived);

    let segment = folder.path().join("archive").join(&before[0]);
    let mut bytes = std::fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let drifts = kept.verify(&archived).await;
    assert!(
        drifts.len() == 1 && drifts[0].contains("is not as it was written"),
        "{drifts:?}"
    );
    std::fs::remove_file(folder.path().join("archive").join(&before[1])).unwrap();
    assert_eq!(kept.verify(&archived).await.len(), 1);
}

/// What the archive cannot take stays, and goes when it can.
#[tokio::test(flavor = "multi_thread")]
async fn archive_that_is_away_holds_expiry_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    send(&store, vec![event("t", "1", "{}")]).await;
    let away = folder.path().join("mount");
    let target = Archive(Box::new(Folder(away.join("archive"))));
    let (mut keeper, metrics) = keeper(&store, &["--retain=1m"], Some(target));
    for seconds in [61, 61] {
        age(folder.path(), seconds);
        keeper.pass().await.unwrap();
    }
    assert_eq!((listed(&store).await.len(), metrics.archive_errors.get()), (1, 1));
    std::fs::create_dir(&away).unwrap();
    keeper = super::tests::keeper(
        &store,
        &["--retain=1m"],
        Some(Archive(Box::new(Folder(away.join("archive"))))),
    )
    .0;
    keeper.pass().await.unwrap();
    assert_eq!(listed(&store).await.len(), 0);
    assert_eq!(store.archived().await.unwrap().len(), 1);
}

/// A target that fails at the given call, and can return something else than was written.
struct Broken {
    inner: Folder,
    calls: AtomicUsize,
    fails_at: usize,
    changes: bool,
}

#[async_trait]
impl Target for Broken {
    async fn put(&self, name: &str, body: Bytes) -> Result<(), TargetError> {
        self.inner.put(name, body).await?;
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            call if call == self.fails_at && !self.changes => Err(TargetError("full".to_owned())),
            _ => Ok(()),
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, TargetError> {
        let body = self.inner.get(name).await?;
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            call if call == self.fails_at && self.changes => Ok(Bytes::from(vec![0; body.len()])),
            call if call == self.fails_at => Err(TargetError("away".to_owned())),
            _ => Ok(body),
        }
    }
}

/// Two segments and a manifest, each written and read back: cut off or spoiled at any of the six calls, the partition stays, and the
/// next attempt leaves the same files.
#[tokio::test(flavor = "multi_thread")]
async fn attempt_that_was_cut_off_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000));
    send(
        &store,
        (0..200)
            .map(|number| event("t", &number.to_string(), &payload))
            .collect(),
    )
    .await;
    let partition = end_partition(&store).await;
    for changes in [false, true] {
        for fails_at in 0..6 {
            let target = Broken {
                inner: Folder(folder.path().join("archive")),
                calls: AtomicUsize::new(0),
                fails_at,
                changes: changes && fails_at % 2 == 1,
            };
            let error = Archive(Box::new(target)).keep(&*store, &partition).await.unwrap_err();
            let is_expected = matches!(error, ArchiveError::Target(_) | ArchiveError::Differs(_));
            assert!(is_expected, "{error}");
            assert_eq!(store.archived().await.unwrap(), []);
        }
    }
    let kept = archive(folder.path());
    kept.keep(&*store, &partition).await.unwrap();
    let archived = store.archived().await.unwrap();
    assert_eq!((archived.len(), archived[0].events), (1, 200));
    assert_eq!(kept.verify(&archived).await, [""; 0]);
    assert_eq!(names(folder.path()).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_archives_and_removes_by_age_and_topic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    send(&store, vec![event("debug.a", "1", "{}"), event("t", "1", "{}")]).await;
    let before = Timestamp::from_micros(store.clock().await.unwrap().micros() + 1).unwrap();
    let mut wanted = Prune {
        before,
        topics: TopicGlob::parse("debug.*"),
        dry_run: true,
    };
    let kept = archive(folder.path());
    let run = async |wanted: &Prune| {
        let pruned = prune(&*store, Some(&kept), wanted, |_| {}).await.unwrap();
        (pruned.removed, pruned.held_back)
    };
    assert_eq!(run(&wanted).await, (1, 0));
    assert_eq!(listed(&store).await.len(), 2);
    wanted.dry_run = false;
    assert_eq!(run(&wanted).await, (1, 0));
    assert_eq!(listed(&store).await[0].event.topic.as_str(), "t");
    wanted.topics = None;
    assert_eq!(run(&wanted).await, (1, 0));
    assert_eq!(run(&wanted).await, (0, 0));
    let archived = store.archived().await.unwrap();
    assert_eq!((archived.len(), archived[0].events), (1, 2), "once, and whole");
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}
