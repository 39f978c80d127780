//! The keys of clients.

use std::sync::Arc;

use super::list::globs;
use super::{TestDatabase, migrated};
use crate::access::{Key, KeyId, KeyLimits, NewSecret, Scope, Scopes};
use crate::event::{Timestamp, TopicGlobs};
use crate::store::{KEYS_MAX, KeySaved, Store};

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_001 + second * 1_000_000).unwrap()
}

fn new_key(name: &str) -> Key {
    let id = KeyId::random();
    Key {
        id,
        name: name.to_owned(),
        scopes: Scopes::from_iter([Scope::Publish]),
        topics: TopicGlobs::All,
        limits: KeyLimits::default(),
        hash: NewSecret::of(id).hash(),
        previous: None,
        created_at: at(0),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        version: 0,
    }
}

/// Keeps a key, and returns it as it is kept.
async fn saved(store: &Arc<dyn Store>, key: Key) -> Key {
    match store.save_key(&key).await.unwrap() {
        KeySaved::Saved(version) => Key { version, ..key },
        refused => panic!("{refused:?}"),
    }
}

pub(super) async fn key_comes_back_as_it_was_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let plain = saved(&store, new_key("plain")).await;
    let none = Key {
        topics: globs(""),
        scopes: Scopes::NONE,
        ..new_key("none")
    };
    let none = saved(&store, none).await;
    let (old, new) = (NewSecret::of(plain.id), NewSecret::of(plain.id));
    let full = Key {
        name: "a name with 'quotes', \u{1f511} and \"more\"".to_owned(),
        scopes: Scopes::ALL,
        topics: globs("order.* a_b %x"),
        limits: KeyLimits {
            events_per_second: Some(u32::MAX),
            bytes_per_second: Some(1 << 40),
        },
        hash: new.hash(),
        previous: Some((old.hash(), at(50))),
        expires_at: Some(at(100)),
        revoked_at: Some(at(99)),
        ..new_key("full")
    };
    let full = saved(&store, full).await;
    for key in [&plain, &full, &none] {
        assert_eq!(store.key(key.id).await.unwrap().as_ref(), Some(key));
    }
    assert_eq!(store.key(KeyId::random()).await.unwrap(), None);
    let read = store.key(full.id).await.unwrap().unwrap();
    assert!(
        read.accepts(&new.hash(), at(0)) && read.accepts(&old.hash(), at(49)) && !read.accepts(&old.hash(), at(50))
    );
    let mut all = vec![plain, full, none];
    all.sort_by_key(|key| key.id);
    assert_eq!(store.keys(None, 10).await.unwrap(), all);
    assert_eq!(store.keys(None, 2).await.unwrap(), all[..2]);
    assert_eq!(store.keys(Some(all[1].id), 2).await.unwrap(), all[2..]);
}

pub(super) async fn changes_come_in_the_order_of_their_versions(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let nothing = store.changed_keys(0, 10).await.unwrap();
    assert_eq!((nothing.version, nothing.keys), (0, Vec::new()));
    let one = saved(&store, new_key("one")).await;
    let two = saved(&store, new_key("two")).await;
    assert!(one.version < two.version);
    let changes = store.changed_keys(0, 10).await.unwrap();
    assert_eq!(
        (changes.version, &changes.keys),
        (two.version, &vec![one.clone(), two.clone()])
    );
    assert_eq!(store.changed_keys(0, 1).await.unwrap().keys, changes.keys[..1]);
    let revoked = Key {
        revoked_at: Some(at(5)),
        ..one
    };
    let revoked = saved(&store, revoked).await;
    let changes = store.changed_keys(two.version, 10).await.unwrap();
    assert_eq!(changes.keys, std::slice::from_ref(&revoked));
    assert_eq!(store.changed_keys(revoked.version, 10).await.unwrap().keys, []);
}

pub(super) async fn change_of_an_older_state_is_refused(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let read = saved(&store, new_key("one")).await;
    let renamed = Key {
        name: "renamed".to_owned(),
        ..read.clone()
    };
    let renamed = saved(&store, renamed).await;
    let revoked = Key {
        revoked_at: Some(at(5)),
        ..read.clone()
    };
    assert_eq!(store.save_key(&revoked).await.unwrap(), KeySaved::Changed);
    let unknown = Key {
        id: KeyId::random(),
        ..read
    };
    assert_eq!(store.save_key(&unknown).await.unwrap(), KeySaved::Changed);
    assert_eq!(store.keys(None, 10).await.unwrap(), [renamed]);
}

pub(super) async fn revoked_key_goes_after_a_day(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let now = store.clock().await.unwrap();
    let ago = |seconds: i64| Timestamp::from_micros(now.micros() - seconds * 1_000_000);
    for (name, revoked_at) in [("old", ago(90_000)), ("young", ago(80_000)), ("live", None)] {
        let key = Key {
            revoked_at,
            ..new_key(name)
        };
        saved(&store, key).await;
    }
    saved(&store, new_key("next")).await;
    let mut names: Vec<_> = store
        .keys(None, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.name)
        .collect();
    names.sort();
    assert_eq!(names, ["live", "next", "young"]);
}

pub(super) async fn times_of_use_are_no_change(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let (one, two) = (saved(&store, new_key("one")).await, saved(&store, new_key("two")).await);
    store
        .note_key_uses(&[(one.id, at(7)), (KeyId::random(), at(7))])
        .await
        .unwrap();
    store.note_key_uses(&[(one.id, at(6)), (two.id, at(8))]).await.unwrap();
    let used = |key: &Key, second| Key {
        last_used_at: Some(at(second)),
        ..key.clone()
    };
    assert_eq!(store.key(one.id).await.unwrap(), Some(used(&one, 7)));
    assert_eq!(store.key(two.id).await.unwrap(), Some(used(&two, 8)));
    assert_eq!(store.changed_keys(two.version, 10).await.unwrap().keys, []);
    // A change of the key keeps it.
    let renamed = Key {
        name: "renamed".to_owned(),
        ..one
    };
    let renamed = saved(&store, renamed).await;
    assert_eq!(store.key(renamed.id).await.unwrap(), Some(used(&renamed, 7)));
}

pub(super) async fn there_is_a_limit_of_keys(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let one = saved(&store, new_key("one")).await;
    // As many more as fit, but one.
    let (hash, time) = if db.name() == "postgres" {
        ("'\\x00'", "now()")
    } else {
        ("x'00'", "1")
    };
    let more = KEYS_MAX - 2;
    db.execute(&format!(
        "with recursive n (n) as (select 1 union all select n + 1 from n where n < {more})
         insert into keys (id, name, scopes, hash, created_at, version) select 'x' || n, 'n', '', {hash}, {time}, 1 from n"
    ))
    .await;
    saved(&store, new_key("last")).await;
    assert_eq!(
        store.save_key(&new_key("one too many")).await.unwrap(),
        KeySaved::TooMany
    );
    let revoked = Key {
        revoked_at: Some(at(5)),
        ..one
    };
    saved(&store, revoked).await;
    saved(&store, new_key("in place of the revoked one")).await;
}
