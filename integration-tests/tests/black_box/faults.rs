//! Broken networks, lost replies, disconnected clients, full budgets: nothing is lost, nothing is counted twice, and the service
//! recovers by itself.

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join;
use futures_util::{StreamExt, stream};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask, client, try_ask};
use integration_tests::on_both_stores;
use integration_tests::proxy::{CommitFault, Network, Proxy};
use integration_tests::publish::{Publish, event, events, statuses, text};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How soon the service must accept events again after the network is repaired.
const RECOVERY: Duration = Duration::from_secs(10);

/// The settings of a service whose database is behind the proxy.
fn behind(proxy: &Proxy, world: &World) -> Settings {
    world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()))
}

/// Waits until publishing succeeds again.
async fn recovered(service: &Service, event_id: &str) {
    eventually(RECOVERY, async || {
        let answer = service.publish(&event("recovery", event_id)).await;
        ensure!([200, 201].contains(&answer.status), "{}", answer.text());
        Ok(())
    })
    .await;
}

/// Publishes until it succeeds, as a client may, and returns the number of attempts.
async fn publish_until_stored(service: &Service, batch: &Value) -> u32 {
    for attempt in 1..=100 {
        let Ok(answer) = try_ask(service.post("/publish").json(batch)).await else {
            continue;
        };
        match answer.status {
            200 | 201 => return attempt,
            503 | 504 => {}
            status => panic!("{status} is not expected with a broken network: {}", answer.text()),
        }
    }
    panic!("a hundred attempts, and not stored");
}

#[tokio::test]
async fn lost_commit_reply_is_stored_and_counted_once() {
    const COMMITS: usize = 20;

    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let service = world.serve_with(behind(&proxy, &world)).await;
    service.publish(&event("orders", "first")).await;
    for number in 0..COMMITS {
        let lost = proxy.lost_replies();
        proxy.arm(CommitFault::LoseReply);
        let mut conflicting = event("orders", "first");
        conflicting["payload"] = json!({"another": number});
        let batch = json!([
            event("orders", &format!("a-{number}")),
            event("orders", "first"),
            event("orders", &format!("b-{number}")),
            event("orders", &format!("a-{number}")),
            conflicting,
        ]);
        let answer = service.publish_preferring("return=representation", &batch).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(
            statuses(&answer),
            ["stored", "duplicate", "stored", "duplicate", "conflict"]
        );
        assert_eq!(
            proxy.lost_replies(),
            lost + 1,
            "the commit succeeded and its reply was lost"
        );
        let received = i64::try_from(1 + 5 * (number + 1)).expect("a few");
        assert_eq!(world.totals().await.received, received, "each event is counted once");
    }
    let totals = world.check(1 + 2 * 20).await;
    assert_eq!(totals.conflicts, 20);
}

#[tokio::test]
async fn in_doubt_commit_is_504_and_safe_to_resend() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = behind(&proxy, &world).with("EVENTSIEVE_REQUEST_DEADLINE", "2s");
    let service = world.serve_with(settings).await;
    publish_until_stored(&service, &event("orders", "before")).await;
    proxy.arm(CommitFault::BlackHole);
    let batch = Value::from(events("orders", 0..3));
    let asked = Instant::now();
    let answer = service.publish(&batch).await;
    assert_eq!(answer.problem(504)["outcome"], "unknown");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "answered at the deadline, not after {:?}",
        asked.elapsed()
    );
    eventually(SOON, async || {
        let rows = world.totals().await.rows;
        ensure!(rows == 4, "{rows} rows: the server had received the commit");
        Ok(())
    })
    .await;

    proxy.set(Network::Pass);
    recovered(&service, "after").await;
    let again = service.publish(&batch).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json()["duplicate_dropped"], 3);
    let totals = world.check(5).await;
    assert!(totals.received >= 8, "{totals:?}");
}

#[tokio::test]
async fn late_first_attempt_is_counted_once() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let service = world.serve_with(behind(&proxy, &world)).await;
    service.publish(&event("orders", "before")).await;
    let first = proxy.commits();
    let held = world.hold_writers().await;
    let batch = json!([event("orders", "a"), event("orders", "b"), event("orders", "a")]);
    let publishing = service.publish_preferring("return=representation", &batch);
    let landing = async {
        world.writer_is_held(&service).await;
        // The server continues with the first attempt, whose client is disconnected, while the retry begins.
        proxy.cut();
        eventually(SOON, async || {
            ensure!(proxy.commits() >= first + 2, "no retry yet");
            Ok(())
        })
        .await;
        held.release().await;
    };
    let (answer, ()) = join(publishing, landing).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(statuses(&answer), ["stored", "stored", "duplicate"]);
    assert_eq!(world.check(3).await.received, 4);
}

#[tokio::test]
async fn connections_cut_under_load_lose_nothing() {
    const CUTS: usize = 15;
    const CLIENTS: usize = 8;

    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let service = world.serve_with(behind(&proxy, &world)).await;
    let stop = tokio::sync::watch::Sender::new(false);
    let client = async |client: usize| {
        let (mut batches, mut attempts) = (0, 0);
        while !*stop.borrow() {
            let topic = format!("client-{client}");
            let batch = Value::from(events(&topic, batches * 20..batches * 20 + 20));
            attempts += publish_until_stored(&service, &batch).await;
            batches += 1;
        }
        (batches, attempts)
    };
    let clients = stream::iter(0..CLIENTS)
        .map(client)
        .buffer_unordered(CLIENTS)
        .collect::<Vec<_>>();
    let cutting = async {
        for _ in 0..CUTS {
            let before = proxy.commits();
            eventually(SOON, async || {
                ensure!(proxy.commits() >= before + 3, "no commits");
                Ok(())
            })
            .await;
            proxy.cut();
        }
        stop.send_replace(true);
    };
    let (clients, ()) = join(clients, cutting).await;
    let batches: usize = clients.iter().map(|(batches, _)| batches).sum();
    let attempts: u32 = clients.iter().map(|(_, attempts)| attempts).sum();
    assert!(batches > CUTS, "only {batches} batches were published meanwhile");
    let totals = world.check(i64::try_from(batches * 20).expect("a few")).await;
    assert!(
        totals.received <= i64::from(attempts) * 20,
        "{totals:?} in {attempts} attempts"
    );
}

#[tokio::test]
async fn black_hole_is_answered_by_deadline_and_recovers() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = behind(&proxy, &world).with("EVENTSIEVE_REQUEST_DEADLINE", "2s");
    let service = world.serve_with(settings).await;
    publish_until_stored(&service, &event("orders", "before")).await;
    for round in 0..3 {
        proxy.set(Network::BlackHole);
        let asked = Instant::now();
        let batches: Vec<Value> = (0..20)
            .map(|number| event("orders", &format!("evt-{round}-{number}")))
            .collect();
        let answers = stream::iter(&batches)
            .map(|batch| service.publish(batch))
            .buffer_unordered(20)
            .collect::<Vec<Answer>>()
            .await;
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "the deadline is 2 s, not {:?}",
            asked.elapsed()
        );
        for answer in &answers {
            assert!([503, 504].contains(&answer.status), "{}", answer.text());
            answer.problem(answer.status);
        }
        proxy.set(Network::Pass);
        recovered(&service, &format!("after-{round}")).await;
        for batch in &batches {
            publish_until_stored(&service, batch).await;
        }
    }
    service.ready().await;
    world.check(1 + 3 * 21).await;
}

#[tokio::test]
async fn commit_never_attempted_is_503_not_504() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = behind(&proxy, &world).with("EVENTSIEVE_REQUEST_DEADLINE", "1s");
    let service = world.serve_with(settings).await;
    publish_until_stored(&service, &event("orders", "before")).await;
    proxy.set(Network::BlackHole);
    proxy.cut();
    // A commit on a connection that is being cut may be in doubt.
    let in_doubt: Vec<Value> = events("in-doubt", 0..20);
    let answers = stream::iter(&in_doubt)
        .map(|event| service.publish(event))
        .buffer_unordered(20)
        .collect::<Vec<Answer>>()
        .await;
    for answer in &answers {
        assert!([503, 504].contains(&answer.status), "{}", answer.text());
    }
    // From here on there are no connections, and none can be opened.
    for event in events("orders", 0..5) {
        service.publish(&event).await.problem(503);
    }
    proxy.set(Network::Pass);
    recovered(&service, "after").await;
    for event in &in_doubt {
        publish_until_stored(&service, event).await;
    }
    world.check(22).await;
}

#[tokio::test]
async fn slow_network_loses_nothing() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let service = world.serve_with(behind(&proxy, &world)).await;
    proxy.set(Network::Slow(Duration::from_millis(200)));
    let batches: Vec<Value> = (0..20)
        .map(|client| Value::from(events(&format!("client-{client}"), 0..10)))
        .collect();
    let answers = stream::iter(&batches)
        .map(|batch| service.publish(batch))
        .buffer_unordered(20)
        .collect::<Vec<Answer>>()
        .await;
    for answer in answers {
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let totals = world.check(200).await;
    assert_eq!(totals.received, 200);
}

/// One event of about 100 KB.
fn bulky_event(number: usize, filling: &str) -> String {
    format!(
        r#"{{"topic":"bulk","event_id":"evt-{number}","timestamp":"2025-10-24T10:30:00Z","source":"s","payload":{{"a":"{filling}"}}}}"#
    )
}

#[tokio::test]
async fn full_byte_budget_is_503_with_bounded_memory() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = behind(&proxy, &world)
        .with("EVENTSIEVE_REQUEST_DEADLINE", "5s")
        .with("EVENTSIEVE_MAX_BODY", "1MiB")
        .with("EVENTSIEVE_QUEUE_BYTES", "4MiB")
        .with("EVENTSIEVE_MAX_EVENTS", "100")
        .with("EVENTSIEVE_QUEUE_EVENTS", "1000");
    let service = world.serve_with(settings).await;
    let filling = "x".repeat(100_000);
    let send = async |number: usize| {
        let answer = service
            .publish_bytes("application/json", bulky_event(number, &filling))
            .await;
        answer.status
    };
    assert_eq!(send(0).await, 201);
    let before = service.resident_bytes();

    proxy.set(Network::Refuse);
    proxy.cut();
    service.unready_within(RECOVERY).await;
    let reject = async |numbers: Range<usize>| {
        let answers = stream::iter(numbers)
            .map(|number| service.publish_bytes("application/json", bulky_event(number, &filling)))
            .buffer_unordered(128)
            .collect::<Vec<Answer>>()
            .await;
        for answer in &answers {
            answer.problem(503);
        }
        service.resident_bytes()
    };
    // The first requests fill the budget and open the connections. Later ones, fifty times the budget, need no more memory.
    let filled = reject(1..500).await;
    let after = reject(500..2500).await;
    assert!(
        filled < before + (64 << 20),
        "memory grew from {before} to {filled} bytes"
    );
    assert!(
        after < filled + (16 << 20),
        "memory grew on from {filled} to {after} bytes"
    );

    proxy.set(Network::Pass);
    service.ready_within(RECOVERY).await;
    recovered(&service, "after").await;
    for number in 1..20 {
        assert_eq!(send(number).await, 201, "the whole budget is free again");
    }
    world.check(21).await;
}

async fn full_queue_is_503_at_once(world: World) {
    let settings = world
        .settings()
        .with("EVENTSIEVE_WRITERS", "1")
        .with("EVENTSIEVE_MAX_EVENTS", "10")
        .with("EVENTSIEVE_QUEUE_EVENTS", "50");
    let service = world.serve_with(settings).await;
    let held = world.hold_writers().await;
    // Accepted without waiting for the commit; ten of them fill the queue, whatever the writer has taken from it.
    let mut accepted = 0;
    let mut full = None;
    for number in 0..100 {
        let batch = Value::from(events(&format!("batch-{number}"), 0..10));
        let answer = service.publish_preferring("respond-async", &batch).await;
        match answer.status {
            202 => accepted += 10,
            _ => full = Some(answer),
        }
        if full.is_some() {
            break;
        }
    }
    full.expect("fifty events fill the queue").problem(503);
    assert!((50..=100).contains(&accepted), "{accepted} were accepted");
    let asked = Instant::now();
    service.publish(&Value::from(events("late", 0..10))).await.problem(503);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "a full queue is answered at once, not after {:?}",
        asked.elapsed()
    );
    let queue = service.json("/stats").await["queue"].clone();
    assert_eq!(queue["capacity"], 50);
    held.release().await;
    assert_eq!(ask(service.post("/_flush")).await.status, 200);
    assert_eq!(service.publish(&Value::from(events("late", 0..10))).await.status, 201);
    world.check(accepted + 10).await;
}

/// When a client disconnects during a request.
#[derive(Clone, Copy)]
enum Disconnect {
    InHead,
    InBody,
    BeforeAnswer,
    BeforeAnswerWithReset,
}

/// Sends an event up to this point. The caller disconnects.
async fn begin(service: &Service, disconnect: Disconnect, event: &Value) -> std::io::Result<TcpStream> {
    let body = event.to_string();
    let request = format!(
        "POST /publish HTTP/1.1\r\nhost: eventsieve\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent = match disconnect {
        Disconnect::InHead => 40,
        Disconnect::InBody => request.len() - body.len() / 2,
        Disconnect::BeforeAnswer | Disconnect::BeforeAnswerWithReset => request.len(),
    };
    let mut stream = TcpStream::connect(service.address()).await?;
    stream.write_all(&request.as_bytes()[..sent]).await?;
    if matches!(disconnect, Disconnect::BeforeAnswerWithReset) {
        stream.set_zero_linger()?;
    }
    Ok(stream)
}

/// The time of a hundred requests, sixteen at once.
async fn time_of_a_hundred(service: &Service, topic: &str) -> Duration {
    let begun = Instant::now();
    let batches = events(topic, 0..100);
    let answers = stream::iter(&batches)
        .map(|batch| service.publish(batch))
        .buffer_unordered(16)
        .collect::<Vec<Answer>>()
        .await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    begun.elapsed()
}

/// The number of additional open files: pooled connections for reading, and files that SQLite keeps open. A leak by each of a
/// thousand clients would be far more.
const SPARE_FILES: usize = 20;

/// The same for connections to the store: the size of the pool of readers.
const SPARE_CONNECTIONS: i64 = 8;

async fn thousand_disconnected_clients_leak_nothing(world: World) {
    let service = world.serve().await;
    time_of_a_hundred(&service, "warm").await;
    let before = time_of_a_hundred(&service, "before").await;
    let (files, connections) = (service.open_files(), world.service_connections().await);

    let ways = [
        ("head", Disconnect::InHead),
        ("body", Disconnect::InBody),
        ("whole", Disconnect::BeforeAnswer),
        ("reset", Disconnect::BeforeAnswerWithReset),
    ];
    let requests: Vec<(Disconnect, Value)> = (0..1000)
        .map(|number| {
            let (topic, way) = ways[number % ways.len()];
            (way, event(topic, &format!("evt-{number}")))
        })
        .collect();
    let left = stream::iter(&requests)
        .map(async |(way, event)| begin(&service, *way, event).await.map(drop))
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await;
    let failed: Vec<_> = left.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "the service takes every connection: {failed:?}");

    // Connections are accepted in their order, so all earlier ones were accepted.
    let last = ask(client().get(format!("{}/livez", service.url()))).await;
    assert_eq!(last.status, 200);
    // Some requests may not have reached the queue yet: all have ended when it is empty and nothing more is received.
    let received_before = Cell::new(-1);
    eventually(SOON, async || {
        let received = world.totals().await.received;
        let before = received_before.replace(received);
        ensure!(received == before, "{received} events, {before} a moment ago");
        let stats = service.json("/stats").await;
        ensure!(stats["queue"]["events"] == 0, "{}", stats["queue"]);
        let (files_now, connections_now) = (service.open_files(), world.service_connections().await);
        ensure!(
            files_now <= files + SPARE_FILES,
            "{files_now} open files, before {files}"
        );
        ensure!(
            connections_now <= connections + SPARE_CONNECTIONS,
            "{connections_now} connections, before {connections}"
        );
        Ok(())
    })
    .await;
    let halves = world
        .number("select count(*) from events where topic in ('head', 'body')")
        .await;
    assert_eq!(halves, 0, "half a request stores nothing");
    let wholes = world
        .number("select count(*) from events where topic in ('whole', 'reset')")
        .await;
    assert!(
        (1..=500).contains(&wholes),
        "{wholes} of the 500 that sent a whole request"
    );
    // A leak would slow down every hundred requests, other work of the machine only some.
    let mut hundreds = 2;
    eventually(SOON, async || {
        hundreds += 1;
        let after = time_of_a_hundred(&service, &format!("after-{hundreds}")).await;
        ensure!(
            after < before * 3 + Duration::from_millis(500),
            "a hundred requests took {before:?} before and {after:?} after"
        );
        Ok(())
    })
    .await;
    let totals = world.check(hundreds * 100 + wholes).await;
    assert_eq!(totals.received, totals.rows, "nothing was sent twice");
}

async fn disconnect_during_commit_changes_nothing(world: World) {
    // No request reaches its deadline while the commit is held back.
    let settings = world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "60s");
    let service = world.serve_with(settings).await;
    let held = world.hold_writers().await;
    for number in 0..20 {
        let event = event("orders", &format!("evt-{number}"));
        let client = begin(&service, Disconnect::BeforeAnswer, &event)
            .await
            .expect("it is sent");
        eventually(SOON, async || {
            let queue = service.json("/stats").await["queue"].clone();
            ensure!(queue["events"] == number + 1, "{queue}");
            Ok(())
        })
        .await;
        if number == 0 {
            world.writer_is_held(&service).await;
        }
        drop(client);
    }
    held.release().await;
    eventually(SOON, async || {
        let stats = service.json("/stats").await;
        ensure!(stats["queue"]["events"] == 0, "{}", stats["queue"]);
        ensure!(stats["database_total_rows"] == 20, "{stats}");
        Ok(())
    })
    .await;
    let listed = service.json("/events").await;
    let ids: Vec<String> = listed["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| text(event, "event_id"))
        .collect();
    assert_eq!(ids.len(), 20);
    assert_eq!(world.check(20).await.received, 20);
}

on_both_stores! {
    full_queue_is_503_at_once
    thousand_disconnected_clients_leak_nothing
    disconnect_during_commit_changes_nothing
}
