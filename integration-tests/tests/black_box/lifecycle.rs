//! The life cycle of a service: start, probes, outages of its database, time-outs of connections, and stop.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask, raw, read_to_end};
use integration_tests::on_both_stores;
use integration_tests::postgres::{Authentication, PASSWORD, PostgresServer};
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How soon a service must notice an outage of its database.
const NOTICE: Duration = Duration::from_secs(5);

/// How soon a connection must be cut: the time-outs in these tests are one second.
const CUT: Duration = Duration::from_secs(5);

async fn all_probes_of_a_healthy_service_succeed(world: World) {
    let service = world.serve().await;
    for path in ["/livez", "/readyz", "/health", "/healthz"] {
        assert_eq!(service.fetch(path).await.status, 200, "{path}");
    }
    for path in ["/health", "/healthz"] {
        let health = service.json(path).await;
        assert_eq!(health["status"], "healthy");
        assert!(health["store"].is_object(), "{health}");
        assert!(health["fanout"].is_object(), "{health}");
    }
    world.check(0).await;
}

#[tokio::test]
async fn starts_before_database_and_becomes_ready() {
    let world = World::new().await;
    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let settings = world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()))
        .with("EVENTSIEVE_REQUEST_DEADLINE", "5s");
    let service = Service::start(settings).await;
    assert_eq!(service.fetch("/livez").await.status, 200);
    assert_eq!(service.fetch("/").await.status, 200);
    service.fetch("/readyz").await.problem(503);
    let health = service.fetch("/health").await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (503, &Value::from("unhealthy"))
    );
    assert_eq!(health.header("retry-after"), "1", "every 503 has Retry-After");
    service.publish(&event("orders", "early")).await.problem(503);
    service.fetch("/events").await.problem(503);
    service.fetch("/stats").await.problem(503);

    // Each attempt is logged in a line of JSON.
    eventually(SOON, async || {
        let log = service.log();
        let attempts = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .filter(|line| line["level"] == "WARN")
            .count();
        ensure!(attempts >= 3, "{attempts} attempts were logged");
        Ok(())
    })
    .await;

    // It also recovers from a black hole and from broken connections.
    proxy.set(Network::BlackHole);
    service.fetch("/readyz").await.problem(503);
    proxy.set(Network::Refuse);
    proxy.cut();
    service.fetch("/readyz").await.problem(503);
    proxy.set(Network::Pass);
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "late")).await.status, 201);
    assert_eq!(service.json("/health").await["status"], "healthy");
    world.check(1).await;
}

#[tokio::test]
async fn wrong_password_fails_start_and_is_not_shown() {
    const WRONG: &str = "wrong-Sw0rdfish";

    let server = PostgresServer::with(Authentication::Password).await;
    let world = World::on(&server).await;
    let url = world.database_url().replace(PASSWORD, WRONG);
    for arguments in [&["serve"][..], &["migrate"], &["verify"]] {
        let ended = Settings::new(&url).arguments(arguments).run().await;
        ended.ended_with(1);
        let output = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!output.contains(WRONG), "{output}");
        let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(last.contains("password"), "{arguments:?}: {output}");
    }
    let service = world.serve().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert!(!service.log().contains(PASSWORD), "{}", service.log());
    world.check(1).await;
}

#[tokio::test]
async fn missing_database_fails_start() {
    let world = World::new().await;
    let url = world.database_url().replace("eventsieve_test_", "eventsieve_missing_");
    let ended = Settings::new(&url).run().await;
    ended.ended_with(1);
    let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("does not exist"), "{}", ended.stderr);
}

#[tokio::test]
async fn eight_replicas_migrate_at_once() {
    let world = World::new().await;
    let services = join_all((0..8).map(|_| world.serve())).await;
    for (number, service) in services.iter().enumerate() {
        let answer = service.publish(&event("orders", &format!("evt-{number}"))).await;
        assert_eq!(answer.status, 201);
    }
    for service in &services {
        assert_eq!(service.json("/stats").await["unique_processed"], 8);
    }
    world.check(8).await;
}

#[tokio::test]
async fn read_only_database_is_noticed_and_recovers() {
    let world = World::new().await;
    let service = world.serve().await;
    assert_eq!(service.publish(&event("orders", "before")).await.status, 201);
    world.postgres().alter("set default_transaction_read_only = on").await;
    world.postgres().terminate_connections().await;
    service.unready_within(NOTICE).await;
    // At once, and not at the request deadline.
    let begun = Instant::now();
    for _ in 0..3 {
        service.publish(&event("orders", "meanwhile")).await.problem(503);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(service.fetch("/livez").await.status, 200);

    world.postgres().alter("reset default_transaction_read_only").await;
    world.postgres().terminate_connections().await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "meanwhile")).await.status, 201);
    world.check(2).await;
}

#[tokio::test]
async fn terminated_connections_are_reopened() {
    let world = World::new().await;
    let service = world.serve().await;
    for round in 0..5 {
        world.postgres().terminate_connections().await;
        let answer = service.publish(&event("orders", &format!("evt-{round}"))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        for path in ["/stats", "/events"] {
            eventually(SOON, async || {
                let answer = service.fetch(path).await;
                ensure!(answer.status == 200, "{path}: {}", answer.text());
                Ok(())
            })
            .await;
        }
    }
    world.check(5).await;
}

/// Requests that wait for their commit, because the writer is held back.
async fn pending_requests(world: &World, service: &Service, count: usize) -> JoinSet<Answer> {
    let mut requests = JoinSet::new();
    for number in 0..count {
        let event = event("orders", &format!("evt-{number}"));
        requests.spawn(ask(service.post("/publish").json(&event)));
    }
    world.writer_is_held(service).await;
    eventually(SOON, async || {
        let queue = service.json("/stats").await["queue"].clone();
        ensure!(queue["events"].as_u64() >= Some(count as u64), "{queue}");
        Ok(())
    })
    .await;
    requests
}

async fn stop_answers_pending_requests(world: World) {
    let settings = world.settings().with("EVENTSIEVE_HEADER_TIMEOUT", "2s");
    let mut service = world.serve_with(settings).await;
    let mut idle = Vec::new();
    for beginning in ["", "POST /publish HT", "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
            stream.write_all(beginning.as_bytes()).await.expect("it reads");
            idle.push(stream);
        }
    }
    let held = world.hold_writers().await;
    let accepted = service
        .publish_preferring("respond-async", &event("orders", "accepted"))
        .await;
    assert_eq!(accepted.status, 202);
    let requests = pending_requests(&world, &service, 50).await;
    service.signal(Signal::Term);
    eventually(SOON, async || {
        let refused = TcpStream::connect(service.address()).await.is_err();
        ensure!(refused, "it still accepts connections");
        Ok(())
    })
    .await;
    held.release().await;
    for answer in requests.join_all().await {
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let status = service.ended_within(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    drop(idle);
    world.check(51).await;
}

async fn drain_delay_is_unready_and_still_serves(world: World) {
    let settings = world.settings().with("EVENTSIEVE_DRAIN_DELAY", "8s");
    let mut service = world.serve_with(settings).await;
    service.signal(Signal::Term);
    service.unready_within(Duration::from_secs(4)).await;
    service.fetch("/readyz").await.problem(503);
    assert_eq!(service.fetch("/livez").await.status, 200);
    assert_eq!(service.publish(&event("orders", "late")).await.status, 201);
    let status = service.ended_within(SOON).await;
    assert_eq!(status.code(), Some(0));
    world.check(1).await;
}

async fn grace_period_or_second_signal_forces_exit(world: World) {
    for (grace_period, signals) in [("1s", 1), ("60s", 2)] {
        let settings = world.settings().with("EVENTSIEVE_GRACE_PERIOD", grace_period);
        let mut service = world.serve_with(settings).await;
        let held = world.hold_writers().await;
        let accepted = service
            .publish_preferring("respond-async", &event("orders", grace_period))
            .await;
        assert_eq!(accepted.status, 202);
        world.writer_is_held(&service).await;
        for _ in 0..signals {
            service.signal(Signal::Term);
            eventually(SOON, async || {
                ensure!(service.log().contains("SIGTERM"), "the signal was not logged");
                Ok(())
            })
            .await;
        }
        let status = service.ended_within(Duration::from_secs(8)).await;
        assert_ne!(status.code(), Some(0), "pending events were dropped");
        held.release().await;
    }
    // The pending commit may have succeeded when the lock was released, or was rolled back with its connection.
    eventually(SOON, async || {
        ensure!(world.service_connections().await == 0, "a connection is still open");
        Ok(())
    })
    .await;
    let rows = world.totals().await.rows;
    world.check(rows).await;
}

#[tokio::test]
async fn stop_before_database_is_immediate() {
    let world = World::new().await;
    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let settings = world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()));
    let mut service = Service::start(settings).await;
    service.stop().await;
}

#[tokio::test]
async fn rolling_restart_loses_no_event() {
    let world = World::new().await;
    let (mut one, mut other) = join(world.serve(), world.serve()).await;
    for round in 0..3 {
        let batch = Value::from(events("orders", round * 20..round * 20 + 20));
        let answers: FuturesUnordered<_> = (0..2)
            .map(|replica| {
                if replica == 0 {
                    one.publish(&batch)
                } else {
                    other.publish(&batch)
                }
            })
            .collect();
        for answer in answers.collect::<Vec<Answer>>().await {
            assert!([200, 201].contains(&answer.status), "{}", answer.text());
        }
        one.stop().await;
        one = world.serve().await;
        other.stop().await;
        other = world.serve().await;
    }
    assert_eq!(world.check(60).await.received, 120);
}

/// A service whose connection time-outs are one second.
async fn impatient_service(world: &World) -> Service {
    let settings = world
        .settings()
        .with("EVENTSIEVE_HEADER_TIMEOUT", "1s")
        .with("EVENTSIEVE_BODY_TIMEOUT", "1s")
        .with("EVENTSIEVE_IDLE_TIMEOUT", "1s");
    world.serve_with(settings).await
}

async fn slow_request_head_is_disconnected(world: World) {
    let service = impatient_service(&world).await;
    let connections = (0..20).map(|_| raw(service.address(), b"POST /publish HTTP/1.1\r\nhost: a\r\nx-a", CUT));
    for ended in join_all(connections).await {
        let answer = ended.expect("the service closes it");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
    // Sending single bytes does not help.
    let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
    stream.write_all(b"GET /livez HTTP/1.1\r\n").await.expect("it reads");
    eventually(CUT, async || {
        let refused = stream.write_all(b"x").await.is_err();
        let ended = read_to_end(&mut stream, Duration::from_millis(100)).await;
        ensure!(refused || ended.is_ok(), "it is still read");
        Ok(())
    })
    .await;
    world.check(0).await;
}

async fn slow_body_is_408(world: World) {
    let service = impatient_service(&world).await;
    let head = "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"topic\":";
    let connections = (0..20).map(|_| raw(service.address(), head.as_bytes(), CUT));
    for ended in join_all(connections).await {
        let answer = ended.expect("the service closes it");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
        assert!(answer.contains("application/problem+json"), "{answer:?}");
    }
    assert_eq!(world.check(0).await.received, 0);
}

async fn only_idle_connections_are_closed(world: World) {
    let service = impatient_service(&world).await;
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = raw(service.address(), request.as_bytes(), CUT)
        .await
        .expect("the service closes it");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer:?}");
    let never_used = raw(service.address(), b"", CUT).await.expect("the service closes it");
    assert_eq!(never_used, "");

    // A connection whose request waits for its commit is not idle.
    let held = world.hold_writers().await;
    let event = event("orders", "evt-1");
    let publishing = service.publish(&event);
    let idle = raw(service.address(), request.as_bytes(), CUT);
    let releasing = async {
        world.writer_is_held(&service).await;
        idle.await.expect("the service closes it");
        held.release().await;
    };
    let (answer, ()) = join(publishing, releasing).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    world.check(1).await;
}

async fn connections_over_limit_wait(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_CONNECTIONS", "8");
    let service = world.serve_with(settings).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let stream = TcpStream::connect(service.address()).await;
        open.push(stream.expect("the kernel accepts it"));
    }
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let waiting = raw(service.address(), request.as_bytes(), SOON);
    let leaving = async {
        eventually(SOON, async || {
            let accepted = service.open_connections();
            ensure!(accepted == 8, "{accepted} were accepted");
            Ok(())
        })
        .await;
        drop(open);
    };
    let (answer, ()) = join(waiting, leaving).await;
    assert!(answer.expect("a connection was closed").starts_with("HTTP/1.1 200"));
    world.check(0).await;
}

on_both_stores! {
    all_probes_of_a_healthy_service_succeed
    stop_answers_pending_requests
    drain_delay_is_unready_and_still_serves
    grace_period_or_second_signal_forces_exit
    slow_request_head_is_disconnected
    slow_body_is_408
    only_idle_connections_are_closed
    connections_over_limit_wait
}
