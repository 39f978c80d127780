//! What expires: events go, identities stay, readers are told, and the archive has everything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use integration_tests::disk::Disk;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Scan, event, event_with_payload, events, outcomes, publish_batch, text};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::{Value, json};

use crate::s3_server::S3Server;

/// The Python that `integration-tests/setup` has prepared.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python3");

/// Reads every segment that every manifest names, and checks count, hash and cursors: prints one event's id per line.
const READ_ARCHIVE: &str = r#"
import hashlib, io, json, pathlib, sys, zstandard
folder = pathlib.Path(sys.argv[1])
for manifest in sorted(folder.glob("manifest-*.json")):
    manifest = json.loads(manifest.read_text())
    total = 0
    for segment in manifest["segments"]:
        body = (folder / segment["name"]).read_bytes()
        assert len(body) == segment["bytes"], segment
        assert hashlib.sha256(body).hexdigest() == segment["sha256"], segment
        text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read().decode()
        events = [json.loads(line) for line in text.splitlines()]
        assert len(events) == segment["events"], segment
        assert (events[0]["cursor"], events[-1]["cursor"]) == (segment["first_cursor"], segment["last_cursor"]), segment
        total += len(events)
        for event in events:
            print(event["topic"], event["event_id"])
    assert total == manifest["events"], manifest
"#;

/// The ids in an archive, in order, as another program reads them.
fn read_archive(folder: &Path) -> Vec<String> {
    let read = Command::new(PYTHON)
        .arg("-c")
        .arg(READ_ARCHIVE)
        .arg(folder)
        .output()
        .expect("Python runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    String::from_utf8(read.stdout)
        .expect("it is UTF-8")
        .lines()
        .map(str::to_owned)
        .collect()
}

fn keeping(world: &World, limit: &str) -> Settings {
    world.settings().with("EVENTSIEVE_RETAIN", limit)
}

/// Waits until no event is left.
async fn until_empty(service: &Service) {
    eventually(SOON, async || {
        let left = service.json("/stats").await["database_total_rows"].clone();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await;
}

/// Publishes some events in batches of 100.
async fn publish_all(service: &Service, topic: &str, numbers: std::ops::Range<usize>) {
    for batch in events(topic, numbers).chunks(100) {
        let answer = service.publish(&Value::from(batch)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// Publish, expire, publish again: the verdicts are as ever, and each way to ask for the event says what became of it.
async fn expired_event_is_known_and_told(world: World) {
    let service = world.serve_with(keeping(&world, "1s")).await;
    let (topic, path) = ("orders/é", "/topics/orders%2F%C3%A9/events/evt%201%25");
    let unseen = service.fetch(path).await;
    assert_eq!(
        (unseen.status, unseen.json()["type"].as_str()),
        (404, Some("about:blank"))
    );
    let first = service.publish(&event(topic, "evt 1%")).await;
    let first = outcomes(&first).remove(0);
    let found = service.fetch(path).await;
    if found.status == 200 {
        // Unless it has expired meanwhile.
        assert_eq!(text(&found.json(), "cursor"), first.cursor);
    }
    until_empty(&service).await;

    let gone = service.fetch(path).await;
    let body = gone.json();
    assert_eq!(
        (
            gone.status,
            text(&body, "type"),
            text(&body, "cursor"),
            text(&body, "received_at")
        ),
        (
            410,
            "event_expired".to_owned(),
            first.cursor.clone(),
            first.received_at.clone()
        )
    );
    let get = world.run(&["get", topic, "evt 1%", "--url", service.url()]).await;
    get.ended_with(1);
    assert!(get.stderr.contains("has expired"), "{}", get.stderr);

    let again = outcomes(&service.publish(&event(topic, "evt 1%")).await).remove(0);
    assert_eq!(
        (again.status.as_str(), &again.cursor, &again.received_at),
        ("duplicate", &first.cursor, &first.received_at)
    );
    let body = event_with_payload(topic, "evt 1%", r#"{ "other": 1 }"#);
    let other = service.publish_bytes("application/json", body).await;
    let other = outcomes(&other).remove(0);
    assert_eq!((other.status.as_str(), &other.cursor), ("conflict", &first.cursor));

    conflict_is_shown(&world, &service, &first.cursor).await;

    let topics = service.json("/topics?prefix=orders%2F").await;
    let expected = json!({"topic": topic, "received": 3, "unique_processed": 1, "duplicate_dropped": 2, "conflicts": 1,
                          "first_received_at": first.received_at, "last_received_at": first.received_at});
    assert_eq!(topics, json!({"topics": [expected], "next": null}));
    let listed = world.run(&["topics", "--url", service.url()]).await;
    listed.ended_with(0);
    assert!(listed.stdout.contains("orders/é"), "{}", listed.stdout);
    let before = format!("{}00000000", &first.cursor[..16]);
    let earlier = format!("/events?after={}", previous(&before));
    assert_eq!(service.json(&earlier).await["truncated"], true);
    let totals = world.check(0).await;
    assert_eq!((totals.received, totals.unique, totals.pruned), (3, 1, 1));
}

/// The conflict with the event at this cursor is listed.
async fn conflict_is_shown(world: &World, service: &Service, cursor: &str) {
    let conflicts = eventually(SOON, async || {
        let page = service.json("/conflicts?topic=orders%2F%C3%A9").await;
        ensure!(page["conflicts"][0] != Value::Null, "it is not stable yet");
        Ok(page)
    })
    .await;
    let conflict = &conflicts["conflicts"][0];
    assert_eq!(
        (
            text(conflict, "event_id"),
            text(conflict, "cursor"),
            &conflict["payload"]
        ),
        ("evt 1%".to_owned(), cursor.to_owned(), &json!({"other": 1}))
    );
    let next = text(&conflicts, "next");
    assert_eq!(
        service.json(&format!("/conflicts?after={next}")).await["conflicts"],
        json!([])
    );
    let listed = world.run(&["conflicts", "--url", service.url(), "--json"]).await;
    listed.ended_with(0);
    assert!(
        listed.stdout.contains(r#""payload":{ "other": 1 }"#),
        "{}",
        listed.stdout
    );
}

/// A cursor of the batch before that of this one.
fn previous(cursor: &str) -> String {
    let batch = u64::from_str_radix(&cursor[..16], 16).expect("a cursor") - 1;
    format!("{batch:016x}7fffffff")
}

/// Events of two replicas expire under load while a service is killed again and again: nothing is lost, counted twice, or archived
/// twice or not at all.
async fn counters_and_archive_are_exact_through_kills(world: World) {
    const EVENTS: usize = 2000;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("archive");
    let url = format!("file://{}", archive.display());
    let settings = keeping(&world, "1s").with("EVENTSIEVE_ARCHIVE", &url);
    let mut replicas = world.serve_replicas_with(settings).await;
    for (round, numbers) in (0..EVENTS).step_by(500).enumerate() {
        let service = if round % 2 == 0 {
            replicas.one()
        } else {
            replicas.other()
        };
        publish_all(service, "orders", numbers..numbers + 500).await;
        eventually(SOON, async || {
            // Something is under way: a file is there that was not before.
            let written = std::fs::read_dir(&archive).map_or(0, Iterator::count);
            ensure!(written > round, "{written} files");
            Ok(())
        })
        .await;
        replicas.restart_one().await;
        replicas.one().ready().await;
    }
    until_empty(replicas.one()).await;
    let totals = world.check(0).await;
    let count = i64::try_from(EVENTS).expect("some thousands");
    assert_eq!((totals.received, totals.unique, totals.pruned), (count, count, count));

    let verify = world
        .settings()
        .with("EVENTSIEVE_ARCHIVE", &url)
        .arguments(&["verify"])
        .run()
        .await;
    verify.ended_with(0);
    let noted = noted_manifests(&world).await;
    let in_folder = |name: &String| archive.join(name).is_file();
    assert!(noted.iter().all(in_folder), "{noted:?}");
    let read = read_archive(&archive);
    assert_eq!(read.len(), EVENTS, "each once");
    assert_eq!(read.iter().collect::<HashSet<_>>().len(), EVENTS);
    archive_is_published_again(&world, replicas.one(), &archive, count).await;
}

/// What was archived can be published again: here it is known, elsewhere it is new. A spoiled segment is found.
async fn archive_is_published_again(world: &World, service: &Service, archive: &Path, count: i64) {
    let url = format!("file://{}", archive.display());
    let segments: Vec<PathBuf> = std::fs::read_dir(archive)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .collect();
    let other = World::embedded();
    let elsewhere = other.serve().await;
    for segment in &segments {
        let file = segment.to_str().expect("it is UTF-8");
        let publish = other.run(&["publish", "--file", file, "--url", elsewhere.url()]).await;
        publish.ended_with(0);
    }
    other.check(count).await;
    let file = segments[0].to_str().expect("it is UTF-8");
    world
        .run(&["publish", "--file", file, "--url", service.url()])
        .await
        .ended_with(0);
    let after = world.check(0).await;
    assert!(
        after.unique == count && after.duplicates > 0 && after.conflicts == 0,
        "{after:?}"
    );

    std::fs::write(segments[0].clone(), "spoiled").expect("a file of our own");
    let verify = world
        .settings()
        .with("EVENTSIEVE_ARCHIVE", &url)
        .arguments(&["verify"])
        .run()
        .await;
    verify.ended_with(1);
    assert!(verify.stdout.contains("is not as it was written"), "{}", verify.stdout);
}

/// The manifests that the store has noted.
async fn noted_manifests(world: &World) -> Vec<String> {
    let count = world.number("select count(*) from archives").await;
    assert!(count > 0);
    world.texts("select manifest from archives order by first_batch").await
}

/// The archive of a bucket is away, refuses the key, and comes back: publishing goes on, and nothing expires that is not archived.
async fn bucket_that_is_away_holds_expiry_back(world: World) {
    let mut bucket = S3Server::start().await;
    bucket.stop().await;
    let mut service = world
        .serve_with(bucket.archive(keeping(&world, "1s"), S3Server::secret()))
        .await;
    publish_all(&service, "orders", 0..300).await;
    let failures = async |service: &Service| {
        let metrics = service.fetch("/metrics").await.text().to_owned();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("eventsieve_archive_errors_total "));
        line.and_then(|number| number.parse::<u64>().ok()).expect("a metric")
    };
    let until_failed = async |service: &Service| {
        eventually(SOON, async || {
            ensure!(failures(service).await > 0, "no attempt has failed");
            Ok(())
        })
        .await;
    };
    until_failed(&service).await;
    publish_all(&service, "orders", 300..600).await;
    world.check(600).await;
    assert!(service.log().contains("failed to archive"), "{}", service.log());
    service.stop().await;

    bucket.resume().await;
    let mut refused = world
        .serve_with(bucket.archive(keeping(&world, "1s"), "another secret"))
        .await;
    until_failed(&refused).await;
    world.check(600).await;
    let log = refused.log();
    assert!(log.contains("403") && !log.contains("Signature="), "{log}");
    refused.stop().await;

    let service = world
        .serve_with(bucket.archive(keeping(&world, "1s"), S3Server::secret()))
        .await;
    until_empty(&service).await;
    world.check(0).await;
    assert_eq!(read_archive(&bucket.objects()).len(), 600);
    let verify = bucket
        .archive(world.settings(), S3Server::secret())
        .arguments(&["verify"])
        .run()
        .await;
    verify.ended_with(0);
}

/// A full disk under the archive holds expiry back until there is room.
async fn full_archive_holds_expiry_back(world: World) {
    let disk = Disk::new("size=300k").await;
    let url = format!("file://{}", disk.inside("archive"));
    let settings = disk.enter(keeping(&world, "1s").with("EVENTSIEVE_ARCHIVE", &url));
    let ballast = disk.path("ballast");
    std::fs::write(&ballast, vec![0; 290 * 1024]).expect("it fits");
    let service = world.serve_with(settings).await;
    let random: String = (0..20_000u64)
        .map(|number| format!("{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let body = event_with_payload("orders", "evt-1", &format!(r#"{{"text":"{}"}}"#, &random[..100_000]));
    assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    eventually(SOON, async || {
        ensure!(service.log().contains("failed to archive"), "no attempt has failed");
        Ok(())
    })
    .await;
    world.check(1).await;
    std::fs::remove_file(&ballast).expect("a file of our own");
    until_empty(&service).await;
    assert_eq!(read_archive(&disk.path("archive")).len(), 1);
}

/// Whoever reads while events expire sees each event once, or is told that some are gone.
async fn readers_are_told_of_a_gap(world: World) {
    let service = world.serve_with(keeping(&world, "1s")).await;
    let sent = publish_batch(&service, events("orders", 0..10)).await;
    until_empty(&service).await;
    let later = publish_batch(&service, events("logins", 0..5)).await;
    eventually(SOON, async || {
        let page = service.json(&format!("/events?after={}", sent[3])).await;
        ensure!(page["truncated"] == true, "{page}");
        Ok(())
    })
    .await;
    // The last that has expired is no loss to whoever has seen it.
    let page = service.json(&format!("/events?after={}", sent[9])).await;
    assert!(page["truncated"] == Value::Null || page["count"] == 0, "{page}");
    let page = service.json(&format!("/events?topic=logins&after={}", sent[3])).await;
    assert!(
        page["truncated"] == Value::Null || page["count"] == 0,
        "another topic has lost nothing: {page}"
    );
    drop(later);
}

/// How many events are in the partition that takes what is stored now.
const IN_OPEN_PARTITION: &str =
    "select count(*) from events where batch >= (select max(first_batch) from partitions where ended_at is null)";

/// Topics have ages of their own, and the size of all has a limit.
async fn topics_and_sizes_have_limits(world: World) {
    let settings = keeping(&world, "1h,2MiB").with("EVENTSIEVE_RETAIN_TOPICS", "debug.*=1s");
    let mut service = world.serve_with(settings).await;
    publish_all(&service, "debug.a", 0..100).await;
    publish_all(&service, "orders", 0..100).await;
    eventually(SOON, async || {
        let left = service.json("/stats").await["database_total_rows"].clone();
        ensure!(left == 100, "{left} are left");
        Ok(())
    })
    .await;
    world.check(100).await;
    let mut scan = Scan::default();
    scan.until(&service, "&topic=orders", 100, SOON).await;

    let filler = "x".repeat(8000);
    for round in 0..15 {
        let lines: String = (0..50)
            .map(|number| {
                // Different texts, which no compression makes small.
                let text: String = (0..250u64)
                    .map(|part| {
                        format!(
                            "{:016x}",
                            (part + 1000 * (round * 50 + number)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
                        )
                    })
                    .collect();
                let payload = format!(r#"{{"text":"{text}{}"}}"#, &filler[..100]);
                event_with_payload("orders", &format!("large-{round}-{number}"), &payload) + "\n"
            })
            .collect();
        let answer = service.publish_bytes("application/x-ndjson", lines).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        // Each in a partition of its own, however busy the machine is: a partition larger than the limit would go as a whole.
        eventually(SOON, async || {
            let open = world.number(IN_OPEN_PARTITION).await;
            ensure!(open == 0, "{open} events in a partition that has not ended");
            Ok(())
        })
        .await;
    }
    eventually(SOON, async || {
        let metrics = service.fetch("/metrics").await.text().to_owned();
        let bytes = metrics
            .lines()
            .find_map(|line| line.strip_prefix("eventsieve_retention_events_bytes "));
        let bytes: u64 = bytes.and_then(|number| number.parse().ok()).expect("a metric");
        ensure!((1..=2 << 20).contains(&bytes), "{bytes} bytes");
        // The metric may be that of a pass before the last events.
        let stats = service.json("/stats").await;
        assert_eq!(stats["unique_processed"], 950);
        let left = stats["database_total_rows"].as_i64().expect("a number");
        ensure!((50..750).contains(&left), "{left} rows");
        Ok(())
    })
    .await;
    service.stop().await;
    let left = world.totals().await.rows;
    world.check(left).await;
}

#[tokio::test]
async fn identities_shorter_than_events_are_refused() {
    let world = World::embedded();
    let settings = keeping(&world, "30d")
        .with("EVENTSIEVE_RETAIN_IDENTITIES", "29d")
        .arguments(&["serve"]);
    let refused = settings.run().await;
    refused.ended_with(64);
    assert!(
        refused
            .stderr
            .contains("EVENTSIEVE_RETAIN_IDENTITIES must be at least 30days"),
        "{}",
        refused.stderr
    );
    let settings = world.settings().with("EVENTSIEVE_RETAIN", "soon").arguments(&["serve"]);
    let refused = settings.run().await;
    refused.ended_with(64);
    assert!(
        refused.stderr.contains("a time such as 30d, a size such as 200GB"),
        "{}",
        refused.stderr
    );
}

/// Forgotten identities are stored anew, and the counters keep both.
async fn forgotten_identity_is_new_again(world: World) {
    let settings = keeping(&world, "1s").with("EVENTSIEVE_RETAIN_IDENTITIES", "2s");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "1")).await.status, 201);
    eventually(SOON, async || {
        let answer = service.fetch("/topics/orders/events/1").await;
        ensure!(answer.status == 404, "{}", answer.status);
        Ok(())
    })
    .await;
    assert_eq!(service.publish(&event("orders", "1")).await.status, 201);
    assert_eq!(service.json("/stats").await["unique_processed"], 2);
    until_empty(&service).await;
    world.check(0).await;
}

on_both_stores! {
    expired_event_is_known_and_told
    counters_and_archive_are_exact_through_kills
    bucket_that_is_away_holds_expiry_back
    full_archive_holds_expiry_back
    readers_are_told_of_a_gap
    topics_and_sizes_have_limits
    forgotten_identity_is_new_again
}
