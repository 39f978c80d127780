//! What is unpublished to the fan-out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{ATTEMPT, Bed, Writer, event, events, eventually, listed, migrated};
use crate::event::{Cursor, Event, StoredEvent};
use crate::store::{Backlog, EventsPage, Lease, NewDeadLetter, Store};

pub(super) async fn a_batch_with_a_lease_is_owed_to_the_fan_out(bed: &dyn Bed) {
    let store = migrated(bed).await;
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

pub(super) async fn a_batch_without_a_lease_is_born_published(bed: &dyn Bed) {
    let store = migrated(bed).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog.batches, stats.backlog.oldest_seconds), (0, 0.0));
    assert_eq!(store.verify().await.unwrap().outbox_batches, 0);
}

pub(super) async fn a_batch_that_stored_nothing_is_born_published(bed: &dyn Bed) {
    let store = migrated(bed).await;
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
    /// Commits some events that anybody may claim at once; answers with the number of the batch.
    pub(super) async fn send_owed(&mut self, events: &[Event]) -> i64 {
        let appended = self.append(Uuid::new_v4(), events, Some(lease(0)), ATTEMPT).await;
        appended.unwrap().batch
    }
}

/// Some batches that anybody may claim, of one event each.
pub(super) async fn unpublished(store: &Arc<dyn Store>, count: usize) -> Vec<i64> {
    let mut writer = Writer::of(store).await;
    let mut batches = Vec::new();
    for number in 0..count {
        let id = format!("{} {number}", Uuid::new_v4());
        batches.push(writer.send_owed(&[event("t", &id, "{}")]).await);
    }
    batches
}

/// Lets batches, and their events, be as if they had come and been published two hours earlier.
pub(super) async fn age(bed: &dyn Bed, which: &str) {
    let ago = match bed.name() {
        "postgres" => "interval '2 hours'",
        _ => "7200000000",
    };
    bed.execute(&format!(
        "update batches set received_at = received_at - {ago}, published_at = published_at - {ago} where {which};
         update events set received_at = received_at - {ago} where {which}"
    ))
    .await;
}

async fn outbox_batches(store: &Arc<dyn Store>) -> i64 {
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

pub(super) async fn the_oldest_are_claimed_first_and_no_more_than_asked_for(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
    let batches = unpublished(&store, 5).await;
    assert_eq!(store.claim_unpublished(long(), 2).await.unwrap(), batches[..2]);
    assert_eq!(other.claim_unpublished(long(), 2).await.unwrap(), batches[2..4]);
    assert_eq!(store.claim_unpublished(long(), 2).await.unwrap(), batches[4..]);
    assert_eq!(other.claim_unpublished(long(), 2).await.unwrap(), [0; 0]);
    assert_eq!(outbox_batches(&store).await, 5);
}

pub(super) async fn what_is_claimed_is_left_alone_until_its_lease_ends(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
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

pub(super) async fn the_lease_of_a_flush_holds_others_off(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send_leased(&[event("t", "1", "{}")]).await;
    let unpublished = writer.send_owed(&[event("t", "2", "{}")]).await;
    writer.send(&[event("t", "3", "{}")]).await;
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [unpublished]);
}

pub(super) async fn a_lease_of_no_length_can_be_claimed_at_once(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let batches = unpublished(&store, 2).await;
    for _ in 0..3 {
        // By a clock that counts microseconds the next call may fall into the same one.
        eventually("the lease has ended", async || {
            store.claim_unpublished(lease(0), 10).await.unwrap() == batches
        })
        .await;
    }
}

pub(super) async fn what_is_marked_is_owed_no_more(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let batches = unpublished(&store, 3).await;
    let lease = long();
    store.claim_unpublished(lease, 10).await.unwrap();
    let first = [batches[0], batches[2], batches[2], i64::MAX];
    assert_eq!(store.mark_published(lease.owner, &first).await.unwrap(), 2);
    assert_eq!(outbox_batches(&store).await, 1);
    assert_eq!(
        store.mark_published(lease.owner, &batches).await.unwrap(),
        1,
        "what is marked is not marked again"
    );
    assert_eq!(store.mark_published(lease.owner, &[]).await.unwrap(), 0);
    assert_eq!(outbox_batches(&store).await, 0);
    assert_eq!(store.release(lease.owner, None).await.unwrap(), 0);
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [0; 0]);
}

pub(super) async fn a_mark_or_a_release_by_a_former_owner_does_nothing(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
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
    assert_eq!(outbox_batches(&store).await, 2);
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [0; 0]);
    assert_eq!(other.mark_published(owner.owner, &batches).await.unwrap(), 2);
}

/// Nobody else has published it, so it need not be published again.
pub(super) async fn an_owner_whose_lease_has_ended_marks_what_nobody_else_has_claimed(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let batches = unpublished(&store, 1).await;
    let lease = lease(0);
    assert_eq!(store.claim_unpublished(lease, 1).await.unwrap(), batches);
    assert_eq!(store.mark_published(lease.owner, &batches).await.unwrap(), 1);
    assert_eq!(outbox_batches(&store).await, 0);
}

pub(super) async fn what_is_released_can_be_claimed_at_once(bed: &dyn Bed) {
    let store = migrated(bed).await;
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
pub(super) async fn claimers_at_the_same_moment_never_claim_the_same(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
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
    assert_eq!(outbox_batches(&store).await, 0);
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

pub(super) async fn the_events_of_several_batches_come_in_log_order_without_what_lies_between(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    let mut batches = Vec::new();
    for number in 0..4 {
        batches.push(writer.send_owed(&events("t", &format!("{number}-"), 3)).await);
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

pub(super) async fn the_events_of_a_batch_come_in_its_order(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send_owed(&events("t", "before ", 3)).await;
    // Neither the order of identities nor without gaps: one is a copy, one a duplicate.
    let sent = [
        event("u", "9", "{}"),
        event("t", "5", r#"{"v": 1}"#),
        event("t", "5", r#"{"v":2}"#),
        event("t", "before 0", "{}"),
        event("t", "1", "{}"),
    ];
    let batch = writer.send_owed(&sent).await;
    writer.send_owed(&events("t", "behind ", 3)).await;
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

pub(super) async fn a_portion_ends_before_it_has_too_many_bytes(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let batch = Writer::of(&store).await.send_owed(&large()).await;
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

pub(super) async fn a_batch_of_many_events_is_read_in_portions(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    for (count, expected) in [
        (999, vec![999]),
        (1000, vec![1000]),
        (1001, vec![1000, 1]),
        (2500, vec![1000, 1000, 500]),
    ] {
        let batch = writer.send_owed(&events("t", &format!("{count} "), count)).await;
        let portions = portions(&store, batch, usize::MAX).await;
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        let all = listed(&store).await;
        assert_eq!(portions.concat(), all[all.len() - count..]);
    }
}

fn refused(cursor: Cursor, reason: &str) -> NewDeadLetter {
    NewDeadLetter {
        cursor,
        reason: reason.to_owned(),
    }
}

pub(super) async fn what_is_owed_is_counted_with_its_age_and_what_is_parked(bed: &dyn Bed) {
    let store = migrated(bed).await;
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog {
            batches: 0,
            oldest_seconds: 0.0,
            dead_letters: 0
        }
    );
    let batches = unpublished(&store, 3).await;
    age(bed, &format!("batch = {}", batches[1])).await;
    store
        .dead_letter(&[refused(listed(&store).await[0].cursor, "")])
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

pub(super) async fn parked_events_are_listed_in_log_order(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "1 ", 3)).await;
    writer.send(&events("u", "2 ", 3)).await;
    let all = listed(&store).await;
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap(), []);
    let gone = Cursor::new(all[5].cursor.batch(), 77);
    let before = store.clock().await.unwrap();
    store
        .dead_letter(&[
            refused(all[4].cursor, "too large"),
            refused(gone, "is not there"),
            refused(all[1].cursor, "not this"),
            refused(all[1].cursor, "nul \0 and ü"),
            refused(all[2].cursor, ""),
        ])
        .await
        .unwrap();
    store.dead_letter(&[]).await.unwrap();
    let parked = store.dead_letters(Cursor::BEGINNING, 10).await.unwrap();
    let seen: Vec<_> = parked.iter().map(|parked| &parked.event).collect();
    assert_eq!(seen, [&all[1], &all[2], &all[4]]);
    assert!(
        parked[0].reason.starts_with("nul ") && parked[0].reason.ends_with(" and ü"),
        "{:?}",
        parked[0].reason
    );
    assert_eq!(
        (parked[1].reason.as_str(), parked[2].reason.as_str()),
        ("", "too large")
    );
    let after = store.clock().await.unwrap();
    assert!(
        parked
            .iter()
            .all(|parked| before <= parked.dead_lettered_at && parked.dead_lettered_at <= after)
    );
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 3);
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 2).await.unwrap(), parked[..2]);
    assert_eq!(store.dead_letters(all[1].cursor, 2).await.unwrap(), parked[1..]);
    assert_eq!(store.dead_letters(all[4].cursor, 2).await.unwrap(), []);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn an_event_that_is_parked_again_has_the_new_reason_and_the_old_time(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
    Writer::of(&store).await.send(&events("t", "", 2)).await;
    let cursor = listed(&store).await[0].cursor;
    store.dead_letter(&[refused(cursor, "one")]).await.unwrap();
    let mut first = store.dead_letters(Cursor::BEGINNING, 1).await.unwrap();
    eventually("the clock goes on", async || {
        store.clock().await.unwrap() > first[0].dead_lettered_at
    })
    .await;
    other.dead_letter(&[refused(cursor, "two")]).await.unwrap();
    first[0].reason = "two".to_owned();
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap(), first);
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 1);
}

pub(super) async fn what_the_fan_out_has_taken_is_parked_no_longer(bed: &dyn Bed) {
    let store = migrated(bed).await;
    Writer::of(&store).await.send(&events("t", "", 4)).await;
    let all: Vec<_> = listed(&store).await.iter().map(|stored| stored.cursor).collect();
    let parked: Vec<_> = all[..3].iter().map(|cursor| refused(*cursor, "no")).collect();
    store.dead_letter(&parked).await.unwrap();
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
        left.iter().map(|parked| parked.event.cursor).collect::<Vec<_>>(),
        all[2..3]
    );
    assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 1);
}

/// The step from the beginning of the ledger, with rows of an hour.
async fn ledger_pruned(store: &Arc<dyn Store>, after: i64, limit: u32) -> (u64, Option<i64>) {
    let pruned = store.prune_commit_ledger(after, HOUR, limit).await.unwrap();
    (pruned.removed, pruned.next)
}

/// The flush that is sent again: its row in the ledger.
async fn is_in_ledger(store: &Arc<dyn Store>, flush: (Uuid, i64)) -> bool {
    let again = Writer::of(store).await.send_as(flush.0, &[]).await;
    again.batch == flush.1
}

pub(super) async fn the_ledger_is_pruned_in_steps_up_to_what_is_young(bed: &dyn Bed) {
    let store = migrated(bed).await;
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
    age(bed, &format!("batch <= {}", group_commits[4].1)).await;
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
    for flush in &group_commits[5..] {
        assert!(is_in_ledger(&store, *flush).await, "it is answered as it was");
    }
    assert!(!is_in_ledger(&store, group_commits[4]).await);
}

/// A step reads no further than it must: what lies behind a young row, such as after a clock was set back, waits.
pub(super) async fn a_step_of_the_ledger_ends_at_the_first_young_row(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(writer.send(&[]).await.batch);
    }
    age(bed, &format!("batch <> {}", batches[1])).await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (1, None));
    assert_eq!(ledger_pruned(&store, 0, 2).await, (0, None));
    assert_eq!(ledger_pruned(&store, batches[1], 1).await, (1, Some(batches[2])));
}

/// What is old in the log may have been published a moment ago: a flush that is sent again must still find it.
pub(super) async fn what_is_unpublished_or_was_published_lately_stays_in_the_ledger(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let batches = unpublished(&store, 4).await;
    let lease = long();
    assert_eq!(store.claim_unpublished(lease, 3).await.unwrap(), batches[..3]);
    store.mark_published(lease.owner, &batches[..1]).await.unwrap();
    age(bed, "true").await;
    store.mark_published(lease.owner, &batches[1..2]).await.unwrap();
    assert_eq!(ledger_pruned(&store, 0, 4).await, (1, Some(batches[3])));
    assert_eq!(outbox_batches(&store).await, 2);
    age(bed, "true").await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (1, None));
    store.release(lease.owner, None).await.unwrap();
    assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), batches[2..]);
}

/// An idle log whose whole ledger was pruned: there is nothing left that bears the newest number.
pub(super) async fn numbers_never_come_again_when_the_ledger_is_empty(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[]).await;
    let newest = writer.send(&[]).await.batch;
    age(bed, "true").await;
    assert_eq!(ledger_pruned(&store, 0, 10).await, (2, None));
    assert!(Writer::of(&bed.store()).await.send(&[]).await.batch > newest);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}
