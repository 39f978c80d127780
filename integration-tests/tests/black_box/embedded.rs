//! The embedded store: killed, on a full or read-only disk, locked, removed, or missing.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::ensure;
use futures_util::future::{join, join_all};
use integration_tests::disk::Disk;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, client, try_ask};
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, Scan, event, events};
use integration_tests::service::{Finished, Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::{Value, json};

/// The error of a failed command, which must be one line beside those of the log.
#[track_caller]
fn error_line(ended: &Finished) -> &str {
    let mut lines = ended.stderr.lines().filter(|line| !line.starts_with('{'));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "more than one line: {}", ended.stderr);
    assert!(line.starts_with("eventsieve: "), "{line}");
    line
}

/// The rows, received and unique events that `verify` prints; it must find no drift.
async fn verified(settings: &Settings) -> [i64; 3] {
    let ended = settings.clone().arguments(&["verify"]).run().await;
    ended.ended_with(0);
    ["rows", "received", "unique"].map(|name| ended.count(name))
}

#[tokio::test]
async fn ten_kills_under_load_lose_and_repeat_nothing() {
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
    // A cursor read fails when an event comes twice.
    let mut scan = Scan::default();
    scan.until(&service, "", published.len(), SOON).await;
    let seen = scan.events.iter().map(|event| {
        let member = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (member("topic"), member("event_id"))
    });
    assert!(
        seen.collect::<HashSet<_>>() == published,
        "the stored events are not the published ones"
    );
    world.sqlite().check_integrity();
    world.check(i64::try_from(published.len()).expect("a few")).await;
}

/// Events of about a kilobyte each, which need new space on a disk.
fn large_events(topic: &str, numbers: std::ops::Range<usize>) -> Value {
    let mut events = events(topic, numbers);
    for event in &mut events {
        event["payload"] = json!({"filling": "x".repeat(1000)});
    }
    Value::from(events)
}

/// The settings of a service whose file is on the disk.
fn on(disk: &Disk) -> Settings {
    disk.enter(Settings::new(&format!("sqlite://{}", disk.inside("events.db"))))
        .with("EVENTSIEVE_REQUEST_DEADLINE", "2s")
}

/// Publishes until the answer is 503. An attempt that is in flight at the deadline is answered 504.
async fn answered_503(service: &Service, batch: &Value) {
    for _ in 0..5 {
        let answer = service.publish(batch).await;
        if answer.status == 503 {
            answer.problem(503);
            return;
        }
        answer.problem(504);
    }
    panic!("always 504");
}

#[tokio::test]
async fn full_disk_is_503_and_loses_nothing() {
    const BATCH: usize = 200;

    let disk = Disk::new("size=8m").await;
    let settings = on(&disk);
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    assert_eq!(service.publish(&large_events("orders", 0..BATCH)).await.status, 201);
    let mut stored = BATCH;
    for round in 0..2 {
        disk.fill();
        // The allocated pages of the store may have some free space.
        let rejected = loop {
            let answer = service.publish(&large_events("orders", stored..stored + BATCH)).await;
            if answer.status != 201 {
                break answer;
            }
            stored += BATCH;
            assert!(stored < 8000, "the disk does not fill up");
        };
        assert!([503, 504].contains(&rejected.status), "{}", rejected.text());
        service.unready_within(SOON).await;
        for number in 0..3 {
            answered_503(&service, &large_events("orders", stored + number..stored + number + 1)).await;
        }
        service.fetch("/readyz").await.problem(503);
        assert_eq!(service.fetch("/livez").await.status, 200);
        let rows = i64::try_from(stored).expect("a few");
        assert_eq!(
            service.json("/stats").await["database_total_rows"],
            rows,
            "reads still work"
        );
        assert_eq!(
            verified(&settings).await,
            [rows; 3],
            "rejected events are neither stored nor counted"
        );

        disk.make_room();
        service.ready().await;
        let answer = service.publish(&large_events("orders", stored..stored + BATCH)).await;
        assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
        stored += BATCH;
    }
    let mut scan = Scan::default();
    scan.until(&service, "", stored, SOON).await;
    let all: Vec<String> = (0..stored).map(|number| format!("evt-{number}")).collect();
    assert_eq!(scan.event_ids(), all);
    service.stop().await;
    assert_eq!(verified(&settings).await, [i64::try_from(stored).expect("a few"); 3]);
}

#[tokio::test]
async fn start_on_full_disk_waits_for_space() {
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
        // The space that is left may suffice to open the store, but not to write to it. Then the service is ready until a write
        // fails, and a request that came before the store was open is no write.
        service = Service::start(settings.clone()).await;
        eventually(SOON, async || {
            answered_503(&service, &large_events(topic, 50..150)).await;
            let ready = service.fetch("/readyz").await.status;
            ensure!(ready == 503, "/readyz: {ready}");
            Ok(())
        })
        .await;
        assert_eq!(service.fetch("/livez").await.status, 200);
        disk.make_room();
        service.ready().await;
        let answer = service.publish(&large_events(topic, 50..150)).await;
        assert_eq!((answer.status, &answer.json()["unique_processed"]), (201, &json!(50)));
    }
    assert_eq!(verified(&settings).await, [300, 400, 300]);
}

#[tokio::test]
async fn second_service_on_file_fails_in_one_line() {
    let world = World::embedded();
    let mut first = world.serve().await;
    assert_eq!(first.publish(&event("orders", "evt-1")).await.status, 201);
    for _ in 0..3 {
        let second = world.run(&["serve"]).await;
        let line = error_line(second.ended_with(1));
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
async fn verify_and_stats_run_beside_many_clients() {
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
    let checking = async {
        for _ in 0..10 {
            world.run(&["verify"]).await.ended_with(0);
            world.run(&["stats", "--url", service.url()]).await.ended_with(0);
        }
        done.set(true);
    };
    let (published, ()) = join(clients, checking).await;
    let published = published.into_iter().sum::<usize>();
    let log = service.log();
    // A probe may have met a disk that took two seconds.
    let mut errors = log.lines().filter(|line| line.contains("error.class"));
    assert!(
        errors.all(|line| line.contains("the disk does not answer")),
        "the store reported an error: {log}"
    );
    world.check(i64::try_from(published).expect("a few")).await;
}

/// Settings without a store.
fn without_a_store(folder: &Path) -> Settings {
    Settings::new("").without("DATABASE_URL").within(folder)
}

#[tokio::test]
async fn dedup_db_names_file_without_database_url() {
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
async fn default_file_is_data_eventsieve_db() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = without_a_store(folder.path());
    let early = settings.clone().arguments(&["verify"]).run().await;
    assert!(
        error_line(early.ended_with(1)).contains("data/eventsieve.db"),
        "{}",
        early.stderr
    );
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    service.stop().await;
    assert!(folder.path().join("data/eventsieve.db").is_file());
    assert_eq!(verified(&settings).await, [1; 3]);
    // An empty variable is the same as none.
    let empty = ["DATABASE_URL", "DATABASE_URL_FILE", "DEDUP_DB"]
        .into_iter()
        .fold(settings, |settings, variable| settings.with(variable, ""));
    assert_eq!(verified(&empty).await, [1; 3]);
}

#[tokio::test]
async fn read_only_folder_fails_start_in_one_line() {
    let disk = Disk::new("size=1m").await;
    disk.remount("ro").await;
    let ended = on(&disk).run().await;
    let line = error_line(ended.ended_with(1));
    assert!(line.contains(&disk.inside("events.db")), "{line}");
    // The same with a store in it that was made when it could be written to.
    disk.remount("rw").await;
    let mut service = Service::start(on(&disk)).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    service.stop().await;
    disk.remount("ro").await;
    let ended = on(&disk).run().await;
    let line = error_line(ended.ended_with(1));
    assert!(line.contains(&disk.inside("events.db")), "{line}");
    disk.remount("rw").await;
    assert_eq!(verified(&on(&disk)).await, [1; 3]);
}

#[tokio::test]
async fn foreign_file_is_rejected_and_left_unchanged() {
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
            let line = error_line(ended.ended_with(code));
            assert!(line.contains(name), "{command} does not name it: {line}");
        }
    }
    assert_eq!(fs::read_to_string(path("diary")).expect("it exists"), DIARY.repeat(500));
    let other = rusqlite::Connection::open(path("other.db")).expect("it exists");
    let tables: i64 = other
        .query_row("select count(*) from sqlite_schema", [], |row| row.get(0))
        .expect("it is a database");
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn removed_file_is_503_until_it_is_back() {
    let world = World::embedded();
    let settings = world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "4s");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    let (path, aside) = (world.sqlite().path(), world.sqlite().folder().join("aside"));
    for round in 0..2 {
        fs::rename(&path, &aside).expect("a folder of our own");
        for _ in 0..2 {
            answered_503(&service, &event("orders", &format!("evt-2-{round}"))).await;
        }
        service.unready_within(SOON).await;
        service.fetch("/events").await.problem(503);
        service.fetch("/stats").await.problem(503);
        assert_eq!(service.fetch("/livez").await.status, 200);
        assert!(!path.exists(), "no other file is created instead");
        fs::rename(&aside, &path).expect("a folder of our own");
        service.ready().await;
        let answer = service.publish(&event("orders", &format!("evt-2-{round}"))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    world.sqlite().check_integrity();
    assert_eq!(world.check(3).await.received, 3);
}

#[tokio::test]
async fn stop_leaves_one_file_and_its_lock() {
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
    let scanning = ask(service.get("/events?limit=1000")).await;
    assert_eq!(scanning.status, 200);
    service.stop().await;
    assert_eq!(world.sqlite().names(), ["events.db", "events.db-lock"]);
    world.check(201).await;
    // The last reader removes its files, too.
    assert_eq!(world.sqlite().names(), ["events.db", "events.db-lock"]);
}

#[tokio::test]
async fn lock_of_another_program_is_waited_for() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "2s"))
        .await;
    let held = world.hold_writers().await;
    // Its commit has not begun, so nothing was stored.
    let first = service.publish(&event("orders", "evt-1")).await;
    assert_eq!(first.problem(503)["outcome"], Value::Null);
    assert_eq!(service.json("/events").await["count"], 0, "reads still work");
    let (late, ()) = join(service.publish(&event("orders", "evt-2")), held.release()).await;
    // On a slow disk it must be sent again.
    let stored = match late.status {
        503 | 504 => service.publish(&event("orders", "evt-2")).await,
        _ => late,
    };
    assert!([200, 201].contains(&stored.status), "{}", stored.text());
    world.check(1).await;
}

/// What the service makes is its owner's alone, and links in the places of its files are not followed.
#[tokio::test]
async fn files_are_private_and_links_are_not_followed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = folder.path().join("new/deep/events.db");
    let settings = Settings::new(&format!("sqlite://{}", store.display()));
    let mut service = Service::start(settings.clone()).await;
    service.ready().await;
    service.publish(&event("orders", "evt-1")).await;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for (name, rights) in [("new", 0o700), ("new/deep", 0o700)] {
        assert_eq!(mode(&folder.path().join(name)), rights, "{name}");
    }
    let files = fs::read_dir(folder.path().join("new/deep")).expect("the folder of the store");
    let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    service.stop().await;

    let target = folder.path().join("target");
    fs::write(&target, "kept").expect("a file");
    let lock = folder.path().join("new/deep/events.db-lock");
    fs::remove_file(&lock).expect("the lock file stays");
    std::os::unix::fs::symlink(&target, &lock).expect("a link");
    let ended = settings.clone().run().await;
    ended.ended_with(1);
    assert!(
        error_line(&ended).contains("events.db-lock: it is a symbolic link"),
        "{}",
        ended.stderr
    );
    fs::remove_file(&lock).expect("the link");

    let ready = folder.path().join("ready");
    std::os::unix::fs::symlink(&target, folder.path().join("ready.new")).expect("a link");
    std::os::unix::fs::symlink(&target, &ready).expect("a link");
    let program = Program::start(&settings.with("EVENTSIEVE_READY_FILE", ready.to_str().expect("UTF-8")));
    eventually(SOON, async || {
        let is_file = fs::symlink_metadata(&ready)?.is_file();
        ensure!(
            is_file && fs::read_to_string(&ready)?.starts_with("http://"),
            "not ready yet"
        );
        Ok(())
    })
    .await;
    assert_eq!(fs::read_to_string(&target).expect("the target"), "kept");
    program.stop(Signal::Term).await.ended_with(0);
}
