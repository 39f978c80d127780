//! The outbox: what is stored and not yet published.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{ATTEMPT, TestDatabase, Writer, event, events, eventually, listed, migrated, until_stable};
use crate::event::{Cursor, Event, StoredEvent};
use crate::store::{Backlog, EventsPage, Lease, NewDeadLetter, Store};

pub(super) async fn leased_batch_is_unpublished(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send_leased(&[event("t", "1", "{}")]).await;
    writer
        .send_leased(&[event("t", "1", "{}"), event("t", "2", "{}")])
        .await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.backlog.batches, 2);
    assert!(
        (0.0..600.0).contains(&stats.backlog.oldest_seconds),
        "{}",
        stats.backlog.oldest_seconds
    );
    let verification = store.verify().await.unwrap();
    assert_eq!((verification.outbox_batches, verification.drifts), (2, vec![]));
}

pub(super) async fn batch_without_lease_is_published(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog.batches, stats.backlog.oldest_seconds), (0, 0.0));
    assert_eq!(store.verify().await.unwrap().outbox_batches, 0);
}

pub(super) async fn batch_that_stored_nothing_is_published(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("t", "1", "{}"), event("t", "2", "{}")]).await;
    writer
        .send_leased(&[event("t", "1", "{}"), event("t", "2", r#"{"v":1}"#)])
        .await;
    writer.send_leased(&[]).await;
    assert_eq!(store.stats().await.unwrap().backlog.batches, 0);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// A token of its own, and for how many milliseconds.
fn lease(milliseconds: u64) -> Lease {
    Lease {
        owner: Uuid::new_v4(),
        length: Duration::from_millis(milliseconds),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Long enough that it does not end while a test runs.
pub(super) fn long() -> Lease {
    lease(3_600_000)
}

impl Writer {
    /// Commits some events with an expired lease, so that the batch may be claimed at once; returns its number.
    pub(super) async fn send_unleased(&mut self, events: &[Event]) -> i64 {
        let appended = self.append(Uuid::new_v4(), events, Some(lease(0)), ATTEMPT).await;
        appended.unwrap().batch
    }
}

/// Some batches that may be claimed at once, of one event each.
pub(super) async fn unpublished(store: &Arc<dyn Store>, count: usize) -> Vec<i64> {
    let mut writer = Writer::of(store).await;
    let mut batches = Vec::new();
    for number in 0..count {
        let id = format!("{} {number}", Uuid::new_v4());
        batches.push(writer.send_unleased(&[event("t", &id, "{}")]).await);
    }
    batches
}

/// Lets batches, and their events, be as if they had come and been published two hours earlier.
pub(super) async fn age(db: &dyn TestDatabase, which: &str) {
    let ago = match db.name() {
        "postgres" => "interval '2 hours'",
        _ => "7200000000",
    };
    db.execute(&format!(
        "update batches set received_at = received_at - {ago}, published_at = published_at - {ago} where {which};
         update events set received_at = received_at - {ago} where {which}"
    ))
    .await;
}

async fn backlog_batches(store: &Arc<dyn Store>) -> i64 {
    let stats = store.stats().await.unwrap();
    let verification = store.verify().await.unwrap();
    assert_eq!(
        (verification.outbox_batches, verification.drifts),
        (stats.backlog.batches, vec![])
    );
    let unpublished = store.backlog().await.unwrap();
    assert_eq!(
        (unpublished.batches, unpublished.dead_letters),
        (stats.backlog.batches, stats.backlog.dead_letters)
    );
    stats.backlog.batches
}

pub(super) async fn oldest_are_claimed_first_up_to_the_limit(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let batches = unpublished(&store, 5).await;
    assert_eq!(store.claim_unpublished(long(), 2).await.unwrap(), batches[..2]);
    assert_eq!(other.claim_unpublished(long(), 2).await.unwrap(), batches[2..4]);
    assert_eq!(store.claim_unpublished(long(), 2).await.unwrap(), batches[4..]);
    assert_eq!(other.claim_unpublished(long(), 2).await.unwrap(), [0; 0]);
    assert_eq!(backlog_batches(&store).await, 5);
}

pub(super) async fn claimed_batch_is_not_claimed_until_lease_ends(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let batches = unpublished(&store, 2).await;
    assert_eq!(store.claim_unpublished(long(), 1).await.unwrap(), batches[..1]);
    let (short, begun) = (lease(300), Instant::now());
    assert_eq!(store.claim_unpublished(short, 1).await.unwrap(), batches[1..]);
    eventually("the short lease ends", async || {
        let claimed = other.claim_unpublished(long(), 10).await.unwrap();
        assert!(claimed.is_empty() || claimed == batches[1..], "{claimed:?}");
        !claimed.is_empty()
    })
    .await;
    assert!(begun.elapsed() >= short.length, "it was claimed while its lease lasted");
}

pub(super) async fn lease_of_a_commit_prevents_claims(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send_leased(&[event("t", "1", "{}")]).await;
    let unpublished = writer.send_unleased(&[event("t", "2", "{}")]).await;
    writer.send(&[event("t", "3", "{}")]).await;
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [unpublished]);
}

pub(super) async fn lease_of_zero_length_can_be_claimed_at_once(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batches = unpublished(&store, 2).await;
    for _ in 0..3 {
        // By a clock that counts microseconds the next call may fall into the same one.
        eventually("the lease has ended", async || {
            store.claim_unpublished(lease(0), 10).await.unwrap() == batches
        })
        .await;
    }
}

pub(super) async fn marked_batch_leaves_the_backlog(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batches = unpublished(&store, 3).await;
    let lease = long();
    store.claim_unpublished(lease, 10).await.unwrap();
    let first = [batches[0], batches[2], batches[2], i64::MAX];
    assert_eq!(store.mark_published(lease.owner, &first).await.unwrap(), 2);
    assert_eq!(backlog_batches(&store).await, 1);
    assert_eq!(
        store.mark_published(lease.owner, &batches).await.unwrap(),
        1,
        "what is marked is not marked again"
    );
    assert_eq!(store.mark_published(lease.owner, &[]).await.unwrap(), 0);
    assert_eq!(backlog_batches(&store).await, 0);
    assert_eq!(store.release(lease.owner, None).await.unwrap(), 0);
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [0; 0]);
}

pub(super) async fn mark_or_release_by_former_owner_does_nothing(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let batches = unpublished(&store, 2).await;
    let (former, owner) = (lease(0), long());
    assert_eq!(store.claim_unpublished(former, 10).await.unwrap(), batches);
    eventually("the lease has ended", async || {
        other.claim_unpublished(owner, 10).await.unwrap() == batches
    })
    .await;
    assert_eq!(store.mark_published(former.owner, &batches).await.unwrap(), 0);
    assert_eq!(store.release(former.owner, Some(&batches)).await.unwrap(), 0);
    assert_eq!(store.release(former.owner, None).await.unwrap(), 0);
    assert_eq!(backlog_batches(&store).await, 2);
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [0; 0]);
    assert_eq!(other.mark_published(owner.owner, &batches).await.unwrap(), 2);
}

/// No other owner has published it, so it need not be published again.
pub(super) async fn expired_owner_marks_batch_not_claimed_since(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batches = unpublished(&store, 1).await;
    let lease = lease(0);
    assert_eq!(store.claim_unpublished(lease, 1).await.unwrap(), batches);
    assert_eq!(store.mark_published(lease.owner, &batches).await.unwrap(), 1);
    assert_eq!(backlog_batches(&store).await, 0);
}

pub(super) async fn released_batch_can_be_claimed_at_once(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batches = unpublished(&store, 4).await;
    let (one, two) = (long(), long());
    assert_eq!(store.claim_unpublished(one, 3).await.unwrap(), batches[..3]);
    assert_eq!(store.claim_unpublished(two, 3).await.unwrap(), batches[3..]);
    store.mark_published(one.owner, &batches[..1]).await.unwrap();
    assert_eq!(
        store.release(one.owner, Some(&batches[..2])).await.unwrap(),
        1,
        "not what is published"
    );
    assert_eq!(
        store.mark_published(one.owner, &batches[..2]).await.unwrap(),
        0,
        "nor what was given back"
    );
    assert_eq!(store.release(one.owner, Some(&[])).await.unwrap(), 0);
    assert_eq!(store.claim_unpublished(two, 10).await.unwrap(), batches[1..2]);
    assert_eq!(store.release(one.owner, None).await.unwrap(), 1);
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), batches[2..3]);
    assert_eq!(store.release(two.owner, None).await.unwrap(), 2);
    assert_eq!(
        store.claim_unpublished(long(), 10).await.unwrap(),
        [batches[1], batches[3]]
    );
}

/// Several that claim, mark and give back at the same time: every batch is marked exactly once.
pub(super) async fn concurrent_claims_never_overlap(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let batches = unpublished(&store, 60).await;
    let claiming = async |store: &Arc<dyn Store>| {
        let (mut mine, lease) = (Vec::new(), long());
        loop {
            let claimed = store.claim_unpublished(lease, 3).await.unwrap();
            if claimed.is_empty() {
                return mine;
            }
            assert_eq!(
                store.mark_published(lease.owner, &claimed).await.unwrap(),
                claimed.len() as u64
            );
            mine.extend(claimed);
        }
    };
    let (here, there) = tokio::join!(claiming(&store), claiming(&other));
    let mut all = [here, there].concat();
    all.sort_unstable();
    assert_eq!(all, batches);
    assert_eq!(backlog_batches(&store).await, 0);
}

/// The whole batch, portion by portion.
async fn portions(store: &Arc<dyn Store>, batch: i64, bytes_max: usize) -> Vec<Vec<StoredEvent>> {
    let (mut portions, mut after) = (Vec::new(), None);
    loop {
        let portion = store.events_of(&[batch], after, bytes_max).await.unwrap();
        let bytes: usize = portion
            .events
            .iter()
            .map(|stored| stored.event.payload.as_str().len())
            .sum();
        assert!(!portion.events.is_empty() && portion.events.len() <= 1000);
        assert!(bytes <= bytes_max || portion.events.len() == 1, "{bytes} > {bytes_max}");
        after = portion.events.last().map(|stored| stored.cursor);
        portions.push(portion.events);
        if portion.is_last {
            return portions;
        }
    }
}

pub(super) async fn events_of_several_batches_come_in_log_order(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let mut batches = Vec::new();
    for number in 0..4 {
        batches.push(writer.send_unleased(&events("t", &format!("{number}-"), 3)).await);
    }
    let all = listed(&store).await;
    let wanted = [batches[3], batches[0], batches[2]];
    let expected: Vec<_> = all
        .iter()
        .filter(|event| wanted.contains(&event.cursor.batch()))
        .cloned()
        .collect();
    let portion = store.events_of(&wanted, None, usize::MAX).await.unwrap();
    assert_eq!((portion.events, portion.is_last), (expected.clone(), true));
    for (place, event) in expected.iter().enumerate() {
        let portion = store.events_of(&wanted, Some(event.cursor), usize::MAX).await.unwrap();
        assert_eq!((&portion.events[..], portion.is_last), (&expected[place + 1..], true));
    }
    // In portions of one event.
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let portion = store.events_of(&wanted, after, 0).await.unwrap();
        assert_eq!(portion.events.len(), 1);
        after = portion.events.last().map(|event| event.cursor);
        seen.extend(portion.events);
        if portion.is_last {
            break;
        }
    }
    assert_eq!(seen, expected);
}

pub(super) async fn events_of_a_batch_come_in_its_order(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send_unleased(&events("t", "before ", 3)).await;
    // Neither the order of identities nor without gaps: one is a copy, one a duplicate.
    let sent = [
        event("u", "9", "{}"),
        event("t", "5", r#"{"v": 1}"#),
        event("t", "5", r#"{"v":2}"#),
        event("t", "before 0", "{}"),
        event("t", "1", "{}"),
    ];
    let batch = writer.send_unleased(&sent).await;
    writer.send_unleased(&events("t", "behind ", 3)).await;
    let all = listed(&store).await;
    let whole = EventsPage {
        events: all[3..6].to_vec(),
        is_last: true,
    };
    assert_eq!(all[3].event.event_id.as_str(), "9");
    assert_eq!(store.events_of(&[batch], None, usize::MAX).await.unwrap(), whole);
    for (place, rest) in [(2, 3..6), (3, 4..6), (4, 5..6), (5, 6..6), (6, 6..6)] {
        let portion = store
            .events_of(&[batch], Some(all[place].cursor), usize::MAX)
            .await
            .unwrap();
        assert_eq!(
            portion,
            EventsPage {
                events: all[rest].to_vec(),
                is_last: true
            },
            "{place}"
        );
    }
    let nothing = EventsPage {
        events: vec![],
        is_last: true,
    };
    assert_eq!(store.events_of(&[i64::MAX], None, usize::MAX).await.unwrap(), nothing);
}

/// Sizes are those of the texts as they were sent, however the store keeps them: one can be compressed, one cannot.
pub(super) fn large() -> Vec<Event> {
    let random = || -> String { (0..6_400).map(|_| Uuid::new_v4().simple().to_string()).collect() };
    (0..6)
        .map(|number| {
            let text = if number % 2 == 0 { "x".repeat(204_800) } else { random() };
            event("t", &number.to_string(), &format!(r#"{{"a":"{text}"}}"#))
        })
        .collect()
}

pub(super) async fn page_of_batches_is_limited_by_bytes(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batch = Writer::of(&store).await.send_unleased(&large()).await;
    let all = listed(&store).await;
    let one = all[0].event.payload.as_str().len();
    assert_eq!(one, 204_808);
    for (bytes_max, expected) in [
        (0, vec![1; 6]),
        (one - 1, vec![1; 6]),
        (one, vec![1; 6]),
        (2 * one - 1, vec![1; 6]),
        (2 * one, vec![2; 3]),
        (4 * one, vec![4, 2]),
        (6 * one - 1, vec![5, 1]),
        (6 * one, vec![6]),
        (usize::MAX, vec![6]),
    ] {
        let portions = portions(&store, batch, bytes_max).await;
        assert_eq!(
            portions.iter().map(Vec::len).collect::<Vec<_>>(),
            expected,
            "{bytes_max}"
        );
        assert_eq!(portions.concat(), all);
    }
}

pub(super) async fn large_batch_is_read_in_pages(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for (count, expected) in [
        (999, vec![999]),
        (1000, vec![1000]),
        (1001, vec![1000, 1]),
        (2500, vec![1000, 1000, 500]),
    ] {
        let batch = writer.send_unleased(&events("t", &format!("{count} "), count)).await;
        let portions = portions(&store, batch, usize::MAX).await;
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        let all = listed(&store).await;
        assert_eq!(portions.concat(), all[all.len() - count..]);
    }
}

fn new_dead_letter(cursor: Cursor, reason: &str) -> NewDeadLetter {
    NewDeadLetter {
        cursor,
        reason: reason.to_owned(),
    }
}

pub(super) async fn backlog_has_batches_age_and_dead_letters(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog {
            batches: 0,
            oldest_seconds: 0.0,
            dead_letters: 0
        }
    );
    let batches = unpublished(&store, 3).await;
    age(db, &format!("batch = {}", batches[1])).await;
    store
        .dead_letter(&[new_dead_letter(listed(&store).await[0].cursor, "")])
        .await
        .unwrap();
    let unpublished = store.backlog().await.unwrap();
    assert_eq!((unpublished.batches, unpublished.dead_letters), (3, 1));
    assert!(
        (7200.0..7800.0).contains(&unpublished.oldest_seconds),
        "{unpublished:?}"
    );
    let lease = long();
    store.claim_unpublished(lease, 10).await.unwrap();
    store.mark_published(lease.owner, &batches[1..]).await.unwrap();
    let unpublished = store.backlog().await.unwrap();
    assert_eq!(unpublished.batches, 1);
    assert!((0.0..600.0).contains(&unpublished.oldest_seconds), "{unpublished:?}");
}

pub(super) async fn dead_letters_are_listed_in_log_order(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "1 ", 3)).await;
    writer.send(&events("u", "2 ", 3)).await;
    let all = listed(&store).await;
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap(), []);
    let gone = Cursor::new(all[5].cursor.batch(), 77);
    let before = store.clock().await.unwrap();
    store
        .dead_letter(&[
            new_dead_letter(all[4].cursor, "too large"),
            new_dead_letter(gone, "is not there"),
            new_dead_letter(all[1].cursor, "not this"),
            new_dead_letter(all[1].cursor, "nul \0 and ü"),
            new_dead_letter(all[2].cursor, ""),
        ])
        .await
        .unwrap();
    store.dead_letter(&[]).await.unwrap();
    let letters = store.dead_letters(Cursor::BEGINNING, 10).await.unwrap();
    let seen: Vec<_> = letters.iter().map(|letter| &letter.event).collect();
    assert_eq!(seen, [&all[1], &all[2], &all[4]]);
    assert!(
        letters[0].reason.starts_with("nul ") && letters[0].reason.ends_with(" and ü"),
        "{:?}",
        letters[0].reason
    );
    assert_eq!(
        (letters[1].reason.as_str(), letters[2].reason.as_str()),
        ("", "too large")
    );
    let after = store.clock().await.unwrap();
    assert!(
        letters
            .iter()
            .all(|letter| before <= letter.dead_lettered_at && letter.dead_lettered_at <= after)
    );
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 3);
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 2).await.unwrap(), letters[..2]);
    assert_eq!(store.dead_letters(all[1].cursor, 2).await.unwrap(), letters[1..]);
    assert_eq!(store.dead_letters(all[4].cursor, 2).await.unwrap(), []);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn repeated_dead_letter_has_new_reason_and_old_time(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    Writer::of(&store).await.send(&events("t", "", 2)).await;
    let cursor = listed(&store).await[0].cursor;
    store.dead_letter(&[new_dead_letter(cursor, "one")]).await.unwrap();
    let mut first = store.dead_letters(Cursor::BEGINNING, 1).await.unwrap();
    eventually("the clock advances", async || {
        store.clock().await.unwrap() > first[0].dead_lettered_at
    })
    .await;
    other.dead_letter(&[new_dead_letter(cursor, "two")]).await.unwrap();
    first[0].reason = "two".to_owned();
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap(), first);
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 1);
}

pub(super) async fn removed_dead_letter_is_gone(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 4)).await;
    let all: Vec<_> = listed(&store).await.iter().map(|stored| stored.cursor).collect();
    let letters: Vec<_> = all[..3].iter().map(|cursor| new_dead_letter(*cursor, "no")).collect();
    store.dead_letter(&letters).await.unwrap();
    assert_eq!(store.remove_dead_letters(&[]).await.unwrap(), 0);
    assert_eq!(
        store
            .remove_dead_letters(&[all[3], all[1], all[1], all[0]])
            .await
            .unwrap(),
        2
    );
    assert_eq!(store.remove_dead_letters(&all[..2]).await.unwrap(), 0);
    let left = store.dead_letters(Cursor::BEGINNING, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|letter| letter.event.cursor).collect::<Vec<_>>(),
        all[2..3]
    );
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 1);
}

/// The step from the beginning of the ledger, with rows of an hour. Rows that are not stable stay.
async fn ledger_pruned(store: &Arc<dyn Store>, after: i64, limit: u32) -> (u64, Option<i64>) {
    until_stable(store).await;
    let pruned = store.prune_commit_ledger(after, HOUR, limit).await.unwrap();
    (pruned.removed, pruned.next)
}

/// Whether a commit still has its row in the commit ledger: then a retry gets the same batch.
async fn is_in_ledger(store: &Arc<dyn Store>, commit: (Uuid, i64)) -> bool {
    let again = Writer::of(store).await.send_as(commit.0, &[]).await;
    again.batch == commit.1
}

pub(super) async fn ledger_is_pruned_in_steps_up_to_young_rows(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let mut group_commits = Vec::new();
    for round in 0..7 {
        let id = Uuid::new_v4();
        let sent = if round % 2 == 0 {
            vec![]
        } else {
            events("t", &round.to_string(), 2)
        };
        group_commits.push((id, writer.send_as(id, &sent).await.batch));
    }
    assert_eq!(ledger_pruned(&store, 0, 10).await, (0, None), "all are young");
    age(db, &format!("batch <= {}", group_commits[4].1)).await;
    let (events, counts) = (listed(&store).await, store.stats().await.unwrap().counts);
    assert_eq!(ledger_pruned(&store, 0, 2).await, (2, Some(group_commits[1].1)));
    assert_eq!(
        ledger_pruned(&store, group_commits[1].1, 2).await,
        (2, Some(group_commits[3].1))
    );
    assert_eq!(
        ledger_pruned(&store, group_commits[3].1, 2).await,
        (1, None),
        "the second is young"
    );
    assert_eq!(ledger_pruned(&store, 0, 10).await, (0, None));
    assert_eq!(
        ledger_pruned(&store, group_commits[6].1, 10).await,
        (0, None),
        "behind the end there is nothing"
    );
    assert_eq!(
        (listed(&store).await, store.stats().await.unwrap().counts),
        (events, counts)
    );
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    for commit in &group_commits[5..] {
        assert!(is_in_ledger(&store, *commit).await, "it is answered as it was");
    }
    assert!(!is_in_ledger(&store, group_commits[4]).await);
}

/// A step reads no further than it must: what lies behind a young row, such as after a clock was set back, waits.
pub(super) async fn ledger_step_ends_at_first_young_row(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(writer.send(&[]).await.batch);
    }
    age(db, &format!("batch <> {}", batches[1])).await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (1, None));
    assert_eq!(ledger_pruned(&store, 0, 2).await, (0, None));
    assert_eq!(ledger_pruned(&store, batches[1], 1).await, (1, Some(batches[2])));
}

/// An old batch may have been published a moment ago: a retry must still find it.
pub(super) async fn unpublished_and_recent_rows_stay_in_ledger(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batches = unpublished(&store, 4).await;
    let lease = long();
    assert_eq!(store.claim_unpublished(lease, 3).await.unwrap(), batches[..3]);
    store.mark_published(lease.owner, &batches[..1]).await.unwrap();
    age(db, "true").await;
    store.mark_published(lease.owner, &batches[1..2]).await.unwrap();
    assert_eq!(ledger_pruned(&store, 0, 4).await, (1, Some(batches[3])));
    assert_eq!(backlog_batches(&store).await, 2);
    age(db, "true").await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (1, None));
    store.release(lease.owner, None).await.unwrap();
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), batches[2..]);
}

/// An idle log whose whole ledger was pruned: there is nothing left that bears the newest number.
pub(super) async fn batch_numbers_are_not_reused_after_ledger_is_empty(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[]).await;
    let newest = writer.send(&[]).await.batch;
    age(db, "true").await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (2, None));
    assert!(Writer::of(&db.store()).await.send(&[]).await.batch > newest);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}
