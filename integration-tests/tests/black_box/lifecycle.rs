//! The life of a service: how it starts, what its probes say, how it meets trouble with its database, and how it stops.

use std::time::Duration;

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

/// How soon a service must notice what has become of its database.
const NOTICE: Duration = Duration::from_secs(5);

/// How long a connection that is to be cut may live at most: the time-outs in these tests are one second.
const CUT: Duration = Duration::from_secs(5);

async fn a_service_that_is_well_says_so_everywhere(world: World) {
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
async fn a_service_starts_before_its_database_and_becomes_ready_by_itself() {
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
    assert_eq!(health.header("retry-after"), "1", "every 503 says when to try again");
    service.publish(&event("orders", "early")).await.problem(503);
    service.fetch("/events").await.problem(503);
    service.fetch("/stats").await.problem(503);

    // It tells of each try in a line of its own, that can be read by a machine.
    eventually(SOON, async || {
        let log = service.log();
        let tries = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .filter(|line| line["level"] == "WARN")
            .count();
        ensure!(tries >= 3, "{tries} tries were told of");
        Ok(())
    })
    .await;

    // A network that swallows everything, and one that breaks, are waited out as well.
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
async fn a_wrong_password_ends_the_start_at_once_and_no_line_shows_a_password() {
    const WRONG: &str = "wrong-Sw0rdfish";

    let server = PostgresServer::with(Authentication::Password).await;
    let world = World::on(&server).await;
    let url = world.database_url().replace(PASSWORD, WRONG);
    for arguments in [&["serve"][..], &["migrate"], &["verify"]] {
        let ended = Settings::new(&url).arguments(arguments).run().await;
        ended.ended_with(1);
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!told.contains(WRONG), "{told}");
        let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(last.contains("password"), "{arguments:?}: {told}");
    }
    let service = world.serve().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert!(!service.log().contains(PASSWORD), "{}", service.log());
    world.check(1).await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_ends_the_start_at_once() {
    let world = World::new().await;
    let url = world.database_url().replace("eventsieve_test_", "eventsieve_missing_");
    let ended = Settings::new(&url).run().await;
    ended.ended_with(1);
    let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("does not exist"), "{}", ended.stderr);
}

#[tokio::test]
async fn eight_replicas_migrate_an_empty_database_at_once() {
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
async fn a_database_that_becomes_read_only_is_noticed_and_one_that_is_writable_again_is_used_again() {
    let world = World::new().await;
    let settings = world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "2s");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "before")).await.status, 201);
    world.postgres().alter("set default_transaction_read_only = on").await;
    world.postgres().terminate_connections().await;
    service.unready_within(NOTICE).await;
    // What was sent on a connection just as it ended may be in doubt; after that there is no doubt any more.
    let first = service.publish(&event("orders", "meanwhile")).await;
    assert!([503, 504].contains(&first.status), "{}", first.text());
    for _ in 0..3 {
        service.publish(&event("orders", "meanwhile")).await.problem(503);
    }
    assert_eq!(service.fetch("/livez").await.status, 200);

    world.postgres().alter("reset default_transaction_read_only").await;
    world.postgres().terminate_connections().await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "meanwhile")).await.status, 201);
    world.check(2).await;
}

#[tokio::test]
async fn connections_that_the_database_ends_are_made_again() {
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

/// Requests that are under way, because a held writer holds their commit.
async fn requests_under_way(world: &World, service: &Service, count: usize) -> JoinSet<Answer> {
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

async fn a_stopping_service_answers_what_it_was_asked_and_ends_well(world: World) {
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
    let requests = requests_under_way(&world, &service, 50).await;
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

async fn a_stopping_service_says_it_is_not_ready_and_still_serves_during_the_drain_delay(world: World) {
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

async fn the_end_of_the_grace_period_or_a_second_signal_ends_it_whatever_is_left(world: World) {
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
                let told = service.log().matches("SIGTERM").count() > 0;
                ensure!(told, "the signal was not told of");
                Ok(())
            })
            .await;
        }
        let status = service.ended_within(Duration::from_secs(8)).await;
        assert_ne!(status.code(), Some(0), "something was left, and that is no good end");
        held.release().await;
    }
    // What was held may have been committed when the lock went, or was undone with its connection: it is whole either way.
    eventually(SOON, async || {
        ensure!(world.service_connections().await == 0, "a connection is left");
        Ok(())
    })
    .await;
    let rows = world.totals().await.rows;
    world.check(rows).await;
}

#[tokio::test]
async fn a_stop_before_the_database_is_there_ends_at_once() {
    let world = World::new().await;
    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let settings = world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()));
    let mut service = Service::start(settings).await;
    service.stop().await;
}

#[tokio::test]
async fn replicas_take_turns_in_a_rolling_restart_without_a_lost_event() {
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

/// A service whose connections have a second for each thing.
async fn impatient_service(world: &World) -> Service {
    let settings = world
        .settings()
        .with("EVENTSIEVE_HEADER_TIMEOUT", "1s")
        .with("EVENTSIEVE_BODY_TIMEOUT", "1s")
        .with("EVENTSIEVE_IDLE_TIMEOUT", "1s");
    world.serve_with(settings).await
}

async fn a_head_that_does_not_arrive_in_time_is_cut(world: World) {
    let service = impatient_service(&world).await;
    let connections = (0..20).map(|_| raw(service.address(), b"POST /publish HTTP/1.1\r\nhost: a\r\nx-a", CUT));
    for ended in join_all(connections).await {
        let answer = ended.expect("the service closes it");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
    // A byte now and then does not help.
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

async fn a_body_that_does_not_arrive_in_time_is_answered_408(world: World) {
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

async fn an_idle_connection_is_closed_and_one_in_use_is_not(world: World) {
    let service = impatient_service(&world).await;
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = raw(service.address(), request.as_bytes(), CUT)
        .await
        .expect("the service closes it");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer:?}");
    let never_used = raw(service.address(), b"", CUT).await.expect("the service closes it");
    assert_eq!(never_used, "");

    // A request whose commit takes longer than any of the three time-outs is no idle connection.
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

async fn connections_beyond_the_limit_wait_for_a_place(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_CONNECTIONS", "8");
    let service = world.serve_with(settings).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let stream = TcpStream::connect(service.address()).await;
        crowd.push(stream.expect("the kernel takes it"));
    }
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let waiting = raw(service.address(), request.as_bytes(), SOON);
    let leaving = async {
        eventually(SOON, async || {
            let open = service.open_connections();
            ensure!(open == 8, "{open} were let in");
            Ok(())
        })
        .await;
        drop(crowd);
    };
    let (answer, ()) = join(waiting, leaving).await;
    assert!(answer.expect("a place became free").starts_with("HTTP/1.1 200"));
    world.check(0).await;
}

on_both_stores! {
    a_service_that_is_well_says_so_everywhere
    a_stopping_service_answers_what_it_was_asked_and_ends_well
    a_stopping_service_says_it_is_not_ready_and_still_serves_during_the_drain_delay
    the_end_of_the_grace_period_or_a_second_signal_ends_it_whatever_is_left
    a_head_that_does_not_arrive_in_time_is_cut
    a_body_that_does_not_arrive_in_time_is_answered_408
    an_idle_connection_is_closed_and_one_in_use_is_not
    connections_beyond_the_limit_wait_for_a_place
}
