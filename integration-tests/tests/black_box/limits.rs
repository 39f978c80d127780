//! Configured limits, with the value on each side of each. The limits of an event, and the default limits of a request, are checks of
//! the tester: `checks::limits`, `checks::schema` and `checks::payload`.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use futures_util::future::join_all;
use integration_tests::api::Api;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, raw, read_to_end};
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::publish::{Publish, event, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use sqlx::Executor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const JSON: &str = "application/json";

async fn request_has_at_most_max_events(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_EVENTS", "10");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&Value::from(events("nine", 0..9))).await.status, 201);
    assert_eq!(
        service.publish(&json!({"events": events("ten", 0..10)})).await.status,
        201
    );
    for body in [
        Value::from(events("eleven", 0..11)),
        json!({"events": events("eleven", 0..11)}),
    ] {
        let errors = service.publish(&body).await.validation_errors();
        assert_eq!(errors[0].0, "list_too_long", "{errors:?}");
        let lenient = service.publish_preferring("handling=lenient", &body).await;
        assert_eq!(lenient.validation_errors()[0].0, "list_too_long");
    }
    let lines: String = events("lines", 0..11)
        .iter()
        .map(|event| format!("{event}\n\n"))
        .collect();
    let answer = service.publish_bytes("application/x-ndjson", lines).await;
    assert_eq!(answer.validation_errors()[0].0, "list_too_long");
    world.check(19).await;
}

async fn request_head_has_at_most_24_kib(world: World) {
    let service = world.serve().await;
    for (kibibytes, status) in [(23, "200"), (25, "431"), (100, "431")] {
        let request = format!(
            "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {}\r\n\r\n",
            "x".repeat(kibibytes << 10)
        );
        let answer = raw(service.address(), request.as_bytes(), SOON).await;
        let answer = answer.expect("an answer, and the end of the connection");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{kibibytes} KiB: {answer}"
        );
    }
    world.check(0).await;
}

const BODY_LIMIT: usize = 4096;

/// An event that fills a body of exactly this length.
fn body_of(length: usize) -> String {
    let empty = event_with_payload("orders", &format!("evt-{length}"), r#"{"a":""}"#);
    let filling = format!(r#"{{"a":"{}"}}"#, "x".repeat(length - empty.len()));
    event_with_payload("orders", &format!("evt-{length}"), &filling)
}

/// Posts a body in chunks, without saying its length first.
async fn publish_chunked(service: &Service, body: &str) -> u16 {
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n",
        service.address()
    );
    for chunk in body.as_bytes().chunks(1000) {
        request.push_str(&format!("{:x}\r\n", chunk.len()));
        request.push_str(std::str::from_utf8(chunk).expect("the bodies here are ASCII"));
        request.push_str("\r\n");
    }
    request.push_str("0\r\n\r\n");
    let answer = raw(service.address(), request.as_bytes(), Duration::from_secs(20))
        .await
        .expect("an answer");
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
}

async fn body_has_at_most_max_body(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_BODY", "4KiB");
    let service = world.serve_with(settings).await;
    for (length, first, again) in [
        (BODY_LIMIT - 1, 201, 200),
        (BODY_LIMIT, 201, 200),
        (BODY_LIMIT + 1, 413, 413),
        (BODY_LIMIT * 100, 413, 413),
    ] {
        let body = body_of(length);
        let answer = service.publish_bytes(JSON, body.clone()).await;
        assert_eq!(answer.status, first, "{length}: {}", answer.text());
        if first == 413 {
            answer.problem(413);
        }
        assert_eq!(publish_chunked(&service, &body).await, again, "{length} in chunks");
    }
    world.check(2).await;
}

async fn compressed_body_counts_decompressed(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_BODY", "4KiB");
    let service = world.serve_with(settings).await;
    let before = service.resident_bytes();
    for (length, status) in [(BODY_LIMIT, 201), (BODY_LIMIT + 1, 413), (64 * 1024 * 1024, 413)] {
        let body = body_of(length);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body.as_bytes()).expect("memory takes all");
        let gzip = encoder.finish().expect("memory takes all");
        let zstd = zstd::encode_all(body.as_bytes(), 1).expect("memory takes all");
        for (coding, bytes) in [("gzip", gzip), ("zstd", zstd)] {
            let answer = ask(service
                .post("/publish")
                .header("content-type", JSON)
                .header("content-encoding", coding)
                .body(bytes))
            .await;
            let expected = if status == 201 && coding == "zstd" { 200 } else { status };
            assert_eq!(answer.status, expected, "{coding} {length}: {}", answer.text());
        }
    }
    let grown = service.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "a bomb took {grown} bytes");
    world.check(1).await;
}

/// The buffer of a long body is larger than the part that has arrived, and its whole size counts towards the budget.
async fn body_counts_with_its_allocated_buffer(world: World) {
    const CONNECTIONS: usize = 20;
    let settings = world
        .settings()
        .with("EVENTSIEVE_MAX_BODY", "1MiB")
        .with("EVENTSIEVE_MAX_EVENTS", "100")
        .with("EVENTSIEVE_QUEUE_BYTES", "4MiB");
    let service = world.serve_with(settings).await;
    let head = format!(
        "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    // Together these are 2.8 MB.
    let begun = [head.into_bytes(), vec![b' '; 140_000]].concat();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
        stream.write_all(&begun).await.expect("it is read");
        connections.push(stream);
    }
    eventually(SOON, async || {
        let is_rejected = |stream: &TcpStream| {
            let mut start = [0; 12];
            let read = stream.peek(&mut start).now_or_never();
            matches!(read, Some(Ok(_))) && start == *b"HTTP/1.1 503"
        };
        let rejected = connections.iter().filter(|stream| is_rejected(stream)).count();
        ensure!(rejected >= CONNECTIONS / 4, "{rejected} were rejected");
        Ok(())
    })
    .await;
    // Closed connections free their part of the budget.
    drop(connections);
    eventually(SOON, async || {
        let status = service.publish(&events("after", 0..1)[0]).await.status;
        ensure!(status < 300, "{status}");
        Ok(())
    })
    .await;
    world.check(1).await;
}

/// A body that is rejected before it has arrived is answered at once, and its connection is closed.
async fn early_answer_closes_the_connection(world: World) {
    let service = world.serve().await;
    let answer = async |media_type: &str, length: usize, body: &[u8]| {
        let head = format!(
            "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = raw(service.address(), &[head.as_bytes(), body].concat(), SOON).await;
        answer.expect("the service closes it")
    };
    let broken = format!(
        "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    );
    let answered = raw(service.address(), broken.as_bytes(), SOON)
        .await
        .expect("the service closes it");
    assert!(
        answered.starts_with("HTTP/1.1 400") && answered.contains("connection: close\r\n"),
        "{answered}"
    );
    for (media_type, length, status) in [("text/plain", 100, "415"), (JSON, 1 << 30, "413")] {
        let answer = answer(media_type, length, b"[").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    // After a body that has arrived completely the connection can be reused.
    let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
    for _ in 0..2 {
        let request = b"POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n[]";
        stream.write_all(request).await.expect("it is open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.expect("it is open");
            assert!(read > 0, "it was closed");
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 415") && !answer.contains("connection: close"),
            "{answer}"
        );
    }
    world.check(0).await;
}

/// One client address may have only so many connections; others are served.
async fn client_has_at_most_so_many_connections(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_CONNECTIONS_PER_CLIENT", "3");
    let service = world.serve_with(settings).await;
    let live = format!("GET /livez HTTP/1.1\r\nhost: {}\r\n", service.address());
    let closing = format!("{live}connection: close\r\n\r\n");
    let connect = async |local: &str| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(local.parse().expect("an address"))
            .expect("loopback has more than one");
        let address = service.address().parse().expect("an address");
        socket.connect(address).await.expect("a connection")
    };
    let ask = async |local: &str| {
        let mut stream = connect(local).await;
        drop(stream.write_all(closing.as_bytes()).await);
        read_to_end(&mut stream, SOON)
            .await
            .expect("an answer, and the end of the connection")
    };
    // From an address of its own: that of the tests has connections that its client keeps.
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = connect("127.0.0.2:0").await;
        stream
            .write_all(format!("{live}\r\n").as_bytes())
            .await
            .expect("it is admitted");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("an answer");
        kept.push(stream);
    }
    let refused = ask("127.0.0.2:0").await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("too many connections"),
        "{refused}"
    );
    assert!(ask("127.0.0.3:0").await.starts_with("HTTP/1.1 200"));
    assert!(service.metric("eventsieve_http_connections_refused_total").await >= 1.0);
    kept.pop();
    eventually(SOON, async || {
        let answer = ask("127.0.0.2:0").await;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    })
    .await;
    world.check(0).await;
}

/// Metrics and probes have an address of their own, which clients cannot fill.
#[tokio::test]
async fn metrics_and_probes_have_their_own_address() {
    let world = World::embedded();
    let address = format!("127.0.0.1:{}", free_port());
    let settings = world.settings().with("EVENTSIEVE_METRICS_ADDRESS", &address);
    let service = world.serve_with(settings.with("EVENTSIEVE_MAX_CONNECTIONS", "4")).await;
    service.publish(&event("orders", "evt-1")).await;
    assert_eq!(service.fetch("/metrics").await.status, 404);
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(
            TcpStream::connect(service.address())
                .await
                .expect("the backlog has room"),
        );
    }
    let own = Api::at(&format!("http://{address}"));
    for path in ["/livez", "/readyz", "/health", "/healthz"] {
        assert_eq!(own.fetch(path).await.status, 200, "{path}");
    }
    assert_eq!(own.metric("eventsieve_http_connections_max").await, 4.0);
    for path in ["/events", "/stats", "/dashboard", "/"] {
        own.fetch(path).await.problem(404);
    }
    drop((idle, service));
    let taken = world.settings().with("EVENTSIEVE_METRICS_ADDRESS", "192.0.2.1:9");
    let refused = taken.run().await;
    refused.ended_with(1);
    assert!(
        refused.stderr.contains("EVENTSIEVE_METRICS_ADDRESS"),
        "{}",
        refused.stderr
    );
    world.check(1).await;
}

/// However many lists wait, figures are answered, and followers get their events.
#[tokio::test]
async fn lists_that_wait_leave_figures_and_followers_alone() {
    let world = World::new().await;
    let service = world.serve().await;
    service.publish(&event("orders", "evt-1")).await;
    let mut blocker = world.postgres().connect().await;
    blocker.execute("begin").await.expect("a transaction");
    // Reading events waits for this; storing them, and counting, does not.
    let lock = "lock table eventsieve.identities in access exclusive mode";
    blocker.execute(lock).await.expect("a lock");
    let lists = (0..30).map(|_| service.get("/events?topic=orders&event_id=evt-1").send());
    let waiting = async {
        let mut answers = JoinSet::new();
        for list in lists {
            answers.spawn(list);
        }
        answers
    }
    .await;
    eventually(SOON, async || {
        let blocked = world.number(WAITING).await;
        ensure!(blocked == 6, "{blocked} reads wait");
        Ok(())
    })
    .await;
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(service.json("/stats").await["unique_processed"], 1);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    blocker.execute("rollback").await.expect("the end of the lock");
    for answer in waiting.join_all().await {
        let status = answer.expect("an answer").status().as_u16();
        assert!([200, 503].contains(&status), "{status}");
    }
    world.check(1).await;
}

const WAITING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and application_name = 'eventsieve reader'";

/// The soft limit of open files is raised; where the hard one is too low, fewer connections are accepted, and the log says so.
#[tokio::test]
async fn connections_fit_the_limit_of_open_files() {
    let world = World::embedded();
    for (limits, connections, open_files) in [("300:3000", 2000, 2256), ("300:400", 144, 400)] {
        let settings = world.settings().with("EVENTSIEVE_MAX_CONNECTIONS", "2000");
        let limited = settings.by("prlimit", &[format!("--nofile={limits}")]);
        let mut service = world.serve_with(limited).await;
        let metrics = service.fetch("/metrics").await.text().to_owned();
        let line = format!("eventsieve_http_connections_max {connections}\n");
        assert!(metrics.contains(&line), "{limits}: {metrics}");
        let file = format!("/proc/{}/limits", service.pid());
        let of_system = std::fs::read_to_string(file).expect("the limits of a process of our own");
        let line = of_system.lines().find(|line| line.starts_with("Max open files"));
        assert!(
            line.is_some_and(|line| line.contains(&format!(" {open_files} "))),
            "{limits}: {line:?}"
        );
        let is_warned = service.log().contains("this process may open 400 files");
        assert_eq!(is_warned, connections < 2000, "{}", service.log());
        service.stop().await;
    }
}

/// Clients that send more than there is room for, in large batches, do not keep out a client that sends one event at a time. (That it is
/// not delayed either is tested where time stands still: `ingest::tests::gathering`.)
async fn large_batches_do_not_keep_out_single_events(world: World) {
    const LARGE: usize = 8;
    const EVENTS: usize = 2000;

    // The large ones do not fit in together.
    let settings = world.settings().with("EVENTSIEVE_QUEUE_EVENTS", "8000");
    let service = world.serve_with(settings.with("EVENTSIEVE_MAX_EVENTS", "2000")).await;
    let refused = AtomicUsize::new(0);
    let single = async {
        for number in 0.. {
            // Long enough that many are refused beside it.
            if refused.load(Ordering::Relaxed) > 40 && number > 40 {
                break;
            }
            let answer = service.publish(&event("single", &number.to_string())).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    };
    let others = (0..LARGE).map(async |client| {
        for round in 0.. {
            let body = Value::from(events(&format!("large-{client}-{round}"), 0..EVENTS));
            match service.publish(&body).await.status {
                201 => {}
                503 => drop(refused.fetch_add(1, Ordering::Relaxed)),
                status => panic!("{status}"),
            }
        }
    });
    tokio::select! {
        () = single => {}
        _ = join_all(others) => unreachable!("they do not end"),
    }
}

/// New topics beyond those of a minute are refused, with all of their request; known ones go on.
async fn new_topics_are_limited(world: World) {
    let settings = || world.settings().with("EVENTSIEVE_NEW_TOPICS", "5");
    let mut service = world.serve_with(settings()).await;
    let of_topics = |from: usize, to: usize| -> Value {
        let events = (from..to).map(|number| event(&format!("topic-{number}"), "1"));
        events.collect::<Vec<_>>().into()
    };
    assert_eq!(service.publish(&of_topics(0, 4)).await.status, 201);
    assert_eq!(
        service.publish(&of_topics(0, 6)).await.status,
        429,
        "two are new, and one may come"
    );
    let refused = service.publish_preferring("respond-async", &of_topics(4, 6)).await;
    let problem = refused.problem(429);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("new topics")),
        "{problem}"
    );
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=13).contains(&wait), "{wait}");
    assert_eq!(service.publish(&of_topics(4, 5)).await.status, 201);
    assert_eq!(service.publish(&of_topics(0, 5)).await.status, 200, "these are known");
    let many = service.publish_preferring("handling=lenient", &of_topics(10, 16)).await;
    many.problem(413);
    let metrics = service.fetch("/metrics").await.text().to_owned();
    assert!(metrics.contains("eventsieve_topics_refused_total 10\n"), "{metrics}");
    service.stop().await;

    // Another process does not know them, and asks the store.
    let service = world.serve_with(settings()).await;
    assert_eq!(service.publish(&of_topics(0, 5)).await.status, 200);
    assert_eq!(service.publish(&of_topics(5, 10)).await.status, 201);
    world.check(10).await;
}

/// A body that stands still is cut long before its time limit, and with it the memory that it holds; a small one may be slow.
async fn body_that_stands_still_is_cut(world: World) {
    let service = world.serve().await;
    let head = |length: usize, more: &str| {
        format!(
            "POST /publish HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n{more}\r\n"
        )
    };
    let stalled = async |more: &str, sent: &[u8]| {
        let mut stream = TcpStream::connect(service.address()).await.expect("a connection");
        stream
            .write_all(head(1 << 20, more).as_bytes())
            .await
            .expect("a request");
        stream.write_all(sent).await.expect("the begin of a body");
        let begun = Instant::now();
        let answer = read_to_end(&mut stream, SOON).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&[b' '; 1 << 20]).expect("memory takes all");
    let gzip = encoder.finish().expect("memory takes all");
    let slow = async {
        let body = event("orders", "slow").to_string();
        let mut stream = TcpStream::connect(service.address()).await.expect("a connection");
        stream
            .write_all(head(body.len(), "").as_bytes())
            .await
            .expect("a request");
        let (first, rest) = body.split_at(20);
        stream.write_all(first.as_bytes()).await.expect("the begin of a body");
        // Longer than bytes are counted before they are too few.
        tokio::time::sleep(Duration::from_secs(7)).await;
        stream.write_all(rest.as_bytes()).await.expect("the rest of the body");
        let answer = read_to_end(&mut stream, SOON).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    };
    tokio::join!(
        stalled("", &[b' '; 10_000]),
        stalled("content-encoding: gzip\r\n", &gzip[..gzip.len() / 2]),
        slow
    );
    world.check(1).await;
}

/// While also small requests are refused, health says so at once, and the service is not ready after a while.
async fn full_queue_shows_in_probes(world: World) {
    let settings = world
        .settings()
        .with("EVENTSIEVE_QUEUE_EVENTS", "10")
        .with("EVENTSIEVE_MAX_EVENTS", "10");
    let service = world.serve_with(settings).await;
    service.publish(&event("orders", "0")).await;
    let held = world.hold_writers().await;
    let mut number = 0;
    let mut publish = async || {
        number += 1;
        let event = event("orders", &number.to_string());
        service.publish_preferring("respond-async", &event).await.status
    };
    eventually(SOON, async || {
        ensure!(publish().await == 503, "there is room");
        Ok(())
    })
    .await;
    let health = service.json("/health").await;
    assert_eq!(
        (&health["status"], &health["queue"]["status"]),
        (&"degraded".into(), &"down".into()),
        "{health}"
    );
    assert_eq!(service.fetch("/readyz").await.status, 200, "it may be over in a moment");
    eventually(SOON, async || {
        publish().await;
        ensure!(service.fetch("/readyz").await.status == 503, "still ready");
        Ok(())
    })
    .await;
    held.release().await;
    service.ready().await;
    let health = service.json("/health").await;
    assert_eq!(health["queue"]["status"], "up", "{health}");
}

on_both_stores! {
    new_topics_are_limited
    body_that_stands_still_is_cut
    full_queue_shows_in_probes
    large_batches_do_not_keep_out_single_events
    client_has_at_most_so_many_connections
    early_answer_closes_the_connection
    request_head_has_at_most_24_kib
    request_has_at_most_max_events
    body_has_at_most_max_body
    compressed_body_counts_decompressed
    body_counts_with_its_allocated_buffer
}
