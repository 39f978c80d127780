//! The embedded store, met as operators meet it: killed, full, read-only, taken, removed, not there yet.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::ensure;
use futures_util::future::{join, join_all};
use integration_tests::disk::Disk;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, client, try_ask};
use integration_tests::postgres::free_port;
use integration_tests::publish::{Publish, Walk, event, events};
use integration_tests::service::{Finished, Service, Settings};
use integration_tests::world::World;
use serde_json::{Value, json};

/// Asserts that a command failed, and gives back the one line, beside those of the log, in which it told why.
#[track_caller]
fn told_in_one_line(ended: &Finished) -> &str {
    let mut lines = ended.stderr.lines().filter(|line| !line.starts_with('{'));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "more than one line: {}", ended.stderr);
    assert!(line.starts_with("eventsieve: "), "{line}");
    line
}

/// The figures that `verify` counts, which must find no drift.
async fn verified(settings: &Settings) -> [i64; 3] {
    let ended = settings.clone().arguments(&["verify"]).run().await;
    ended.ended_with(0);
    ["rows", "received", "unique"].map(|figure| ended.figure(figure))
}

#[tokio::test]
async fn killed_ten_times_under_load_it_loses_nothing_and_stores_nothing_twice() {
    const KILLS: usize = 10;
    const CLIENTS: usize = 6;

    let world = World::embedded();
    let port = free_port().to_string();
    let mut service = world.serve_with(world.settings().with("PORT", &port)).await;
    let url = format!("{}/publish", service.url());
    let (acknowledged, done) = (Cell::new(0), Cell::new(false));
    let clients = join_all((0..CLIENTS).map(async |number| {
        let (client, topic) = (client(), format!("client-{number}"));
        let mut published = 0;
        while !done.get() {
            let batch = events(&topic, published..published + 20);
            eventually(SOON, async || {
                let answer = try_ask(client.post(&url).json(&batch)).await?;
                ensure!([200, 201].contains(&answer.status), "{}", answer.text());
                Ok(())
            })
            .await;
            published += 20;
            acknowledged.set(acknowledged.get() + 20);
        }
        (topic, published)
    }));
    let killing = async {
        for _ in 0..KILLS {
            let before = acknowledged.get();
            eventually(SOON, async || {
                ensure!(
                    acknowledged.get() >= before + 500,
                    "{} since the last kill",
                    acknowledged.get() - before
                );
                Ok(())
            })
            .await;
            service.restart().await;
        }
        done.set(true);
    };
    let (published, ()) = join(clients, killing).await;

    let published: HashSet<(String, String)> = published
        .into_iter()
        .flat_map(|(topic, count)| (0..count).map(move |number| (topic.clone(), format!("evt-{number}"))))
        .collect();
    service.ready().await;
    // A walk fails when it sees an event twice.
    let mut walk = Walk::default();
    walk.until(&service, "", published.len(), SOON).await;
    let seen = walk.events.iter().map(|event| {
        let member = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (member("topic"), member("event_id"))
    });
    assert!(
        seen.collect::<HashSet<_>>() == published,
        "other events are there than were published"
    );
    world.sqlite().check_integrity();
    world.check(i64::try_from(published.len()).expect("a few")).await;
}

/// Events of about a kilobyte each, that need new room on a disk.
fn large_events(topic: &str, numbers: std::ops::Range<usize>) -> Value {
    let mut events = events(topic, numbers);
    for event in &mut events {
        event["payload"] = json!({"filling": "x".repeat(1000)});
    }
    Value::from(events)
}

/// What a service is started with whose file lies on the disk.
fn on(disk: &Disk) -> Settings {
    disk.enter(Settings::new(&format!("sqlite://{}", disk.inside("events.db"))))
        .with("EVENTSIEVE_REQUEST_DEADLINE", "2s")
}

/// Publishes until the answer is 503. At the deadline an attempt may be just under way, once in a while: then it is 504.
async fn refused_surely(service: &Service, batch: &Value) {
    for _ in 0..5 {
        let answer = service.publish(batch).await;
        if answer.status == 503 {
            answer.problem(503);
            return;
        }
        answer.problem(504);
    }
    panic!("its outcome is never known");
}

#[tokio::test]
async fn a_full_disk_is_answered_503_and_loses_nothing_and_with_room_again_everything_goes_on() {
    const BATCH: usize = 200;

    let disk = Disk::new("size=8m").await;
    let settings = on(&disk);
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    assert_eq!(service.publish(&large_events("orders", 0..BATCH)).await.status, 201);
    let mut stored = BATCH;
    for round in 0..2 {
        disk.fill();
        // The pages that the store has already may hold a little more.
        let refused = loop {
            let answer = service.publish(&large_events("orders", stored..stored + BATCH)).await;
            if answer.status != 201 {
                break answer;
            }
            stored += BATCH;
            assert!(stored < 8000, "the disk does not fill up");
        };
        assert!([503, 504].contains(&refused.status), "{}", refused.text());
        service.unready_within(SOON).await;
        for number in 0..3 {
            refused_surely(&service, &large_events("orders", stored + number..stored + number + 1)).await;
        }
        service.fetch("/readyz").await.problem(503);
        assert_eq!(service.fetch("/livez").await.status, 200);
        let rows = i64::try_from(stored).expect("a few");
        assert_eq!(service.json("/stats").await["database_total_rows"], rows, "reads go on");
        assert_eq!(
            verified(&settings).await,
            [rows; 3],
            "nothing of it was stored, nor counted"
        );

        disk.make_room();
        service.ready().await;
        let answer = service.publish(&large_events("orders", stored..stored + BATCH)).await;
        assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
        stored += BATCH;
    }
    let mut walk = Walk::default();
    walk.until(&service, "", stored, SOON).await;
    let all: Vec<String> = (0..stored).map(|number| format!("evt-{number}")).collect();
    assert_eq!(walk.event_ids(), all);
    service.stop().await;
    assert_eq!(verified(&settings).await, [i64::try_from(stored).expect("a few"); 3]);
}

#[tokio::test]
async fn a_service_that_is_started_on_a_full_disk_waits_for_room() {
    let disk = Disk::new("size=2m").await;
    let settings = on(&disk);
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    for killed in [false, true] {
        let topic = if killed { "killed" } else { "stopped" };
        assert_eq!(service.publish(&large_events(topic, 0..100)).await.status, 201);
        if killed {
            service.kill().await;
        } else {
            service.stop().await;
        }
        disk.fill();
        // What a killed one has left may be enough to open the store, and then not enough to write to it.
        service = Service::start(settings.clone()).await;
        refused_surely(&service, &large_events(topic, 50..150)).await;
        service.unready_within(SOON).await;
        assert_eq!(service.fetch("/livez").await.status, 200);
        disk.make_room();
        service.ready().await;
        let answer = service.publish(&large_events(topic, 50..150)).await;
        assert_eq!((answer.status, &answer.json()["unique_processed"]), (201, &json!(50)));
    }
    assert_eq!(verified(&settings).await, [300, 400, 300]);
}

#[tokio::test]
async fn a_second_service_on_the_same_file_is_refused_in_one_line_and_the_first_goes_on() {
    let world = World::embedded();
    let mut first = world.serve().await;
    assert_eq!(first.publish(&event("orders", "evt-1")).await.status, 201);
    for _ in 0..3 {
        let second = world.run(&["serve"]).await;
        let line = told_in_one_line(second.ended_with(1));
        let (path, process) = (world.sqlite().path(), format!("process {}", first.pid()));
        for word in [path.to_str().expect("UTF-8"), &process, "stop", "DATABASE_URL"] {
            assert!(line.contains(word), "no {word:?}: {line}");
        }
    }
    assert_eq!(first.publish(&event("orders", "evt-2")).await.status, 201);
    first.ready().await;
    first.stop().await;
    let second = world.serve().await;
    assert_eq!(second.publish(&event("orders", "evt-3")).await.status, 201);
    world.check(3).await;
}

#[tokio::test]
async fn verify_and_stats_beside_many_clients_find_all_well_and_are_in_nobodys_way() {
    const CLIENTS: usize = 32;

    let world = World::embedded();
    let service = world.serve().await;
    let done = Cell::new(false);
    let clients = join_all((0..CLIENTS).map(async |client| {
        let mut batches = 0;
        while !done.get() {
            let batch = Value::from(events(&format!("client-{client}"), batches * 5..batches * 5 + 5));
            let answer = service.publish(&batch).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            batches += 1;
        }
        batches * 5
    }));
    let looking = async {
        for _ in 0..10 {
            world.run(&["verify"]).await.ended_with(0);
            world.run(&["stats", "--url", service.url()]).await.ended_with(0);
        }
        done.set(true);
    };
    let (published, ()) = join(clients, looking).await;
    let published = published.into_iter().sum::<usize>();
    let log = service.log();
    // But for a probe that met a disk which took two seconds.
    let mut trouble = log.lines().filter(|line| line.contains("error.class"));
    assert!(
        trouble.all(|line| line.contains("probing: the disk does not answer")),
        "the store was in trouble: {log}"
    );
    world.check(i64::try_from(published).expect("a few")).await;
}

/// Settings that say nothing about the store.
fn without_a_store(folder: &Path) -> Settings {
    Settings::new("").without("DATABASE_URL").within(folder)
}

#[tokio::test]
async fn without_a_database_url_the_file_is_the_one_of_dedup_db() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("older/dedup.db");
    let settings = without_a_store(folder.path()).with("DEDUP_DB", path.to_str().expect("UTF-8"));
    let service = Service::start(settings.clone()).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert_eq!(service.json("/stats").await["store"], "sqlite");
    assert!(path.is_file());
    assert!(!folder.path().join("data").exists());
    assert_eq!(verified(&settings).await, [1; 3]);

    // DATABASE_URL wins where both are set.
    let world = World::embedded();
    let other = world
        .serve_with(world.settings().with("DEDUP_DB", path.to_str().expect("UTF-8")))
        .await;
    assert_eq!(other.publish(&event("orders", "evt-1")).await.status, 201);
    world.check(1).await;
}

#[tokio::test]
async fn with_nothing_said_the_store_is_data_eventsieve_db_in_the_current_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = without_a_store(folder.path());
    let early = settings.clone().arguments(&["verify"]).run().await;
    assert!(
        told_in_one_line(early.ended_with(1)).contains("data/eventsieve.db"),
        "{}",
        early.stderr
    );
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    service.stop().await;
    assert!(folder.path().join("data/eventsieve.db").is_file());
    assert_eq!(verified(&settings).await, [1; 3]);
    // An empty variable says nothing, too.
    let empty = ["DATABASE_URL", "DATABASE_URL_FILE", "DEDUP_DB"]
        .into_iter()
        .fold(settings, |settings, variable| settings.with(variable, ""));
    assert_eq!(verified(&empty).await, [1; 3]);
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_to_ends_the_start_with_one_line() {
    let disk = Disk::new("size=1m").await;
    disk.remount("ro").await;
    let told = on(&disk).run().await;
    let line = told_in_one_line(told.ended_with(1));
    assert!(line.contains(&disk.inside("events.db")), "{line}");
    // The same with a store in it that was made when it could be written to.
    disk.remount("rw").await;
    let mut service = Service::start(on(&disk)).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    service.stop().await;
    disk.remount("ro").await;
    let told = on(&disk).run().await;
    let line = told_in_one_line(told.ended_with(1));
    assert!(line.contains(&disk.inside("events.db")), "{line}");
    disk.remount("rw").await;
    assert_eq!(verified(&on(&disk)).await, [1; 3]);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_as_it_is() {
    const DIARY: &str = "a diary, and not a short one; ";

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("diary"), DIARY.repeat(500)).expect("a folder of our own");
    fs::create_dir(path("folder")).expect("a folder of our own");
    rusqlite::Connection::open(path("other.db"))
        .and_then(|other| other.execute_batch("create table events (id integer)"))
        .expect("a folder of our own");
    for (name, code) in [("diary", 1), ("folder", 64), ("other.db", 1)] {
        let settings = Settings::new(&format!("sqlite://{}", path(name).display()));
        for command in ["serve", "migrate", "verify"] {
            let ended = settings.clone().arguments(&[command]).run().await;
            let line = told_in_one_line(ended.ended_with(code));
            assert!(line.contains(name), "{command} does not name it: {line}");
        }
    }
    assert_eq!(
        fs::read_to_string(path("diary")).expect("it is there"),
        DIARY.repeat(500)
    );
    let other = rusqlite::Connection::open(path("other.db")).expect("it is there");
    let tables: i64 = other
        .query_row("select count(*) from sqlite_schema", [], |row| row.get(0))
        .expect("it is a database");
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_served_is_answered_503_until_it_is_back() {
    let world = World::embedded();
    let settings = world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "4s");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    let (path, aside) = (world.sqlite().path(), world.sqlite().folder().join("aside"));
    for round in 0..2 {
        fs::rename(&path, &aside).expect("a folder of our own");
        for _ in 0..2 {
            refused_surely(&service, &event("orders", &format!("evt-2-{round}"))).await;
        }
        service.unready_within(SOON).await;
        service.fetch("/events").await.problem(503);
        service.fetch("/stats").await.problem(503);
        assert_eq!(service.fetch("/livez").await.status, 200);
        assert!(!path.exists(), "no other file may take its place");
        fs::rename(&aside, &path).expect("a folder of our own");
        service.ready().await;
        let answer = service.publish(&event("orders", &format!("evt-2-{round}"))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    world.sqlite().check_integrity();
    assert_eq!(world.check(3).await.received, 3);
}

#[tokio::test]
async fn a_service_that_is_stopped_leaves_one_file_and_its_lock_behind() {
    let world = World::embedded();
    let mut service = world.serve().await;
    for number in 0..20 {
        let batch = Value::from(events("orders", number * 10..number * 10 + 10));
        assert_eq!(service.publish(&batch).await.status, 201);
    }
    service.json("/events").await;
    let accepted = service
        .publish_preferring("respond-async", &event("orders", "late"))
        .await;
    assert_eq!(accepted.status, 202);
    let walking = ask(service.get("/events?limit=1000")).await;
    assert_eq!(walking.status, 200);
    service.stop().await;
    assert_eq!(world.sqlite().names(), ["events.db", "events.db-lock"]);
    world.check(201).await;
    // A reader that came last cleans up after itself, too.
    assert_eq!(world.sqlite().names(), ["events.db", "events.db-lock"]);
}

#[tokio::test]
async fn a_lock_that_another_program_holds_is_waited_for() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "2s"))
        .await;
    let held = world.hold_writers().await;
    // It was taken for a commit that waits for its turn: nobody can say yet what will become of it.
    let first = service.publish(&event("orders", "evt-1")).await;
    assert_eq!(first.problem(504)["outcome"], "unknown");
    assert_eq!(service.json("/events").await["count"], 0, "reads go on");
    let (late, ()) = join(service.publish(&event("orders", "evt-2")), held.release()).await;
    // On a disk that took longer it is sent again.
    let stored = match late.status {
        504 => service.publish(&event("orders", "evt-2")).await,
        _ => late,
    };
    assert!([200, 201].contains(&stored.status), "{}", stored.text());
    world.check(2).await;
}
