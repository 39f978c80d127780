//! What only the outbox on PostgreSQL can be asked.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use super::outbox::{age, long, unpublished};
use super::postgres::{Server, on_postgres};
use super::{TestDatabase, Writer, event, events, eventually, listed, migrated, scanned_all, until_stable};
use crate::event::Cursor;
use crate::store::NewDeadLetter;

/// What the relay's connection is doing.
async fn relay_states(pg: &mut PgConnection) -> Vec<(String, bool)> {
    let sql = "select state, xact_start is null from pg_stat_activity
               where datname = current_database() and application_name = 'eventsieve relay'";
    sqlx::query_as(sql).fetch_all(pg).await.unwrap()
}

/// Another replica is within its statement: what it has locked is passed over and not waited for.
#[test]
fn claim_skips_locked_batches() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let batches = unpublished(&store, 5).await;
        let mut other = db.connect().await;
        let sql = format!(
            "begin; select from batches where batch in ({}, {}) for update",
            batches[0], batches[2]
        );
        other.execute(AssertSqlSafe(sql)).await.unwrap();
        assert_eq!(
            store.claim_unpublished(long(), 2).await.unwrap(),
            [batches[1], batches[3]]
        );
        other.execute("rollback").await.unwrap();
        assert_eq!(
            store.claim_unpublished(long(), 10).await.unwrap(),
            [batches[0], batches[2], batches[4]]
        );
    });
}

/// A mark waits for a lock no longer than a second, keeps its connection, and succeeds later.
#[test]
fn mark_gives_up_on_a_lasting_lock() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let batches = unpublished(&store, 1).await;
        let lease = long();
        assert_eq!(store.claim_unpublished(lease, 1).await.unwrap(), batches);
        let mut other = db.connect().await;
        other.execute("begin; select from batches for update").await.unwrap();
        let error = store.mark_published(lease.owner, &batches).await.unwrap_err();
        assert!(!error.class.breaks_connection(), "{}", error.line());
        let pid = "select pid from pg_stat_activity where datname = current_database() and application_name = 'eventsieve relay'";
        let before: i32 = sqlx::query_scalar(pid).fetch_one(&mut other).await.unwrap();
        other.execute("rollback").await.unwrap();
        assert_eq!(store.mark_published(lease.owner, &batches).await.unwrap(), 1);
        let after: i32 = sqlx::query_scalar(pid).fetch_one(&mut other).await.unwrap();
        assert_eq!(before, after);
    });
}

/// While Redis is slow, nothing may hold back the last stable position, or hold a lock.
#[test]
fn outbox_leaves_no_transaction_open() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut pg = db.connect().await;
        let batches = unpublished(&store, 3).await;
        let cursor = listed(&store).await[0].cursor;
        let lease = long();
        let new_dead_letter = NewDeadLetter {
            cursor,
            reason: "no".to_owned(),
        };
        let idle = [("idle".to_owned(), true)];
        for call in 0..7 {
            match call {
                0 => drop(store.claim_unpublished(lease, 10).await.unwrap()),
                1 => drop(store.events_of(&batches[..1], None, 1).await.unwrap()),
                2 => assert_eq!(store.mark_published(lease.owner, &batches[..1]).await.unwrap(), 1),
                3 => assert_eq!(store.release(lease.owner, None).await.unwrap(), 2),
                4 => store.dead_letter(std::slice::from_ref(&new_dead_letter)).await.unwrap(),
                5 => assert_eq!(store.remove_dead_letters(&[cursor]).await.unwrap(), 1),
                _ => drop(store.prune_commit_ledger(0, Duration::ZERO, 1).await.unwrap()),
            }
            assert_eq!(relay_states(&mut pg).await, idle, "{call}");
        }
    });
}

/// A foreign transaction holds scans back, but not publishing.
#[test]
fn unstable_batch_is_claimed_and_read() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        writer.send(&events("t", "before ", 1)).await;
        until_stable(&store).await;
        let (_, edge) = scanned_all(&store, Cursor::BEGINNING, 10).await;
        let mut foreign = db.foreign().await;
        let batch = writer.send_unleased(&events("t", "behind ", 2)).await;
        assert_eq!(scanned_all(&store, edge, 10).await.0, []);
        assert_eq!(store.claim_unpublished(long(), 10).await.unwrap(), [batch]);
        let portion = store.events_of(&[batch], None, usize::MAX).await.unwrap();
        assert_eq!(portion.events, listed(&store).await[1..]);
        foreign.execute("rollback").await.unwrap();
    });
}

/// The setting that the relay's statements have when they end, recorded by triggers: once an event is a dead letter, its row is
/// the only record that it must be published.
#[test]
fn mark_is_lazy_and_dead_letter_is_durable() {
    on_postgres(async |db| {
        migrated(db).await;
        db.execute(
            "create table seen (number bigint generated always as identity, what text, setting text, isolation text);
             create function see() returns trigger language plpgsql as $$ begin
                 insert into \"select\".seen (what, setting, isolation) select tg_op || ' ' || tg_table_name,
                     current_setting('synchronous_commit'), current_setting('transaction_isolation');
                 return null;
             end $$;
             create trigger see after update or delete on batches for each statement execute function see();
             create trigger see after insert or delete on parked for each statement execute function see()",
        )
        .await;
        for (default, durable) in [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
            let database = db.database();
            db.execute(&format!(
                "alter database {database} set synchronous_commit = {default};
                 alter database {database} set default_transaction_isolation = 'serializable'; truncate seen"
            ))
            .await;
            let store = db.store();
            unpublished(&store, 1).await;
            let cursor = listed(&store).await[0].cursor;
            let reason = "no".to_owned();
            store.dead_letter(&[NewDeadLetter { cursor, reason }]).await.unwrap();
            let lease = long();
            store.claim_unpublished(lease, 1).await.unwrap();
            store.remove_dead_letters(&[cursor]).await.unwrap();
            store.release(lease.owner, None).await.unwrap();
            store.prune_commit_ledger(0, Duration::ZERO, 1).await.unwrap();
            let seen: Vec<(String, String, String)> =
                sqlx::query_as("select what, setting, isolation from seen order by number")
                    .fetch_all(&mut db.connect().await)
                    .await
                    .unwrap();
            let expected = [
                ("INSERT parked", durable),
                ("UPDATE batches", "off"),
                ("DELETE parked", durable),
                ("UPDATE batches", "off"),
                ("DELETE batches", "off"),
            ];
            let expected =
                expected.map(|(what, setting)| (what.to_owned(), setting.to_owned(), "read committed".to_owned()));
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn dead_relay_connection_is_replaced() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let batches = unpublished(&store, 1).await;
        assert_eq!(store.claim_unpublished(long(), 0).await.unwrap(), [0; 0]);
        let sql = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                   where datname = current_database() and application_name = 'eventsieve relay'";
        db.execute(sql).await;
        let error = store.claim_unpublished(long(), 1).await.unwrap_err();
        assert!(error.class.breaks_connection(), "{}", error.line());
        assert_eq!(store.claim_unpublished(long(), 1).await.unwrap(), batches);
    });
}

/// The ledger of an idle log is empty, and the cluster is another one whose transaction ids start low.
#[test]
fn batch_pruned_from_ledger_is_not_reused() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&[]).await;
        age(db, "true").await;
        eventually("the ledger is empty", async || {
            let pruned = store
                .prune_commit_ledger(0, Duration::from_secs(3600), 10)
                .await
                .unwrap();
            pruned.removed == 1
        })
        .await;
        db.execute("update log set high_water = high_water + 1000000000000000000, log_oid = null")
            .await;
        let batch = Writer::of(&db.store()).await.send(&[event("t", "1", "{}")]).await.batch;
        assert!(batch > 1_000_000_000_000_000_000, "{batch}");
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

/// An event that is being pruned at this moment is waited for, and then left out.
#[test]
fn pruned_event_is_not_dead_lettered() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&events("t", "", 2)).await;
        let all = listed(&store).await;
        let mut pruner = db.connect().await;
        // Parking waits for a second; neither the way to the server nor its disk is to take part of that.
        let mut pg = db.connect().await;
        pruner.execute("set synchronous_commit = off").await.unwrap();
        pruner
            .execute("begin; delete from events where event_id = '0'")
            .await
            .unwrap();
        let new_dead_letters: Vec<_> = all
            .iter()
            .map(|stored| NewDeadLetter {
                cursor: stored.cursor,
                reason: "no".to_owned(),
            })
            .collect();
        let end = async {
            let sql =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            eventually("dead-lettering waits, or has ended", async || {
                sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut pg).await.unwrap() == 1
            })
            .await;
            pruner.execute("commit").await.unwrap();
        };
        let (result, ()) = tokio::join!(store.dead_letter(&new_dead_letters), end);
        result.unwrap();
        let letters = store.dead_letters(Cursor::BEGINNING, 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(store.stats().await.unwrap().backlog.dead_letters, 1);
    });
}

/// What a plan may never do is to read the whole log or the whole ledger for a claim or a portion.
#[test]
fn outbox_finds_its_rows_by_index() {
    on_postgres(async |db: &Server| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        writer.send(&events("t", "", 3000)).await;
        db.execute(
            "insert into batches (batch, flush_id, received_at, published_at)
             select -g, gen_random_uuid(), now() - interval '1 day', now() - interval '1 day' from generate_series(1, 20000) g;
             analyze",
        )
        .await;
        let batch = writer.send_unleased(&events("u", "", 2)).await;
        let scans = "select relname::text, seq_scan, seq_tup_read from pg_stat_user_tables where relname in ('batches', 'events') and seq_scan > 0";
        db.execute("select pg_stat_reset()").await;
        let other = db.store();
        let lease = long();
        // More often than the planner makes plans of its own for each call's values.
        for _ in 0..8 {
            assert_eq!(other.claim_unpublished(lease, 100).await.unwrap(), [batch]);
            assert_eq!(other.events_of(&[batch], None, 1 << 20).await.unwrap().events.len(), 2);
            assert_eq!(other.release(lease.owner, Some(&[batch])).await.unwrap(), 1);
            assert_eq!(other.claim_unpublished(lease, 100).await.unwrap(), [batch]);
            assert_eq!(other.release(lease.owner, None).await.unwrap(), 1);
            assert_eq!(other.mark_published(lease.owner, &[batch]).await.unwrap(), 0);
            other
                .prune_commit_ledger(-1000, Duration::from_secs(1_000_000), 10)
                .await
                .unwrap();
        }
        // A session that ends has reported all that it counted.
        other.close().await;
        let mut pg = db.connect().await;
        eventually("the relay is gone", async || relay_states(&mut pg).await.is_empty()).await;
        let read: Vec<(String, i64, i64)> = sqlx::query_as(scans).fetch_all(&mut pg).await.unwrap();
        assert_eq!(read, []);
    });
}
