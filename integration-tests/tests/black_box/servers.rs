//! What a URL of PostgreSQL may name: several servers of which one takes writes, an address of version 6; and what is said of one that
//! cannot work.

use std::time::{Duration, Instant};

use integration_tests::eventually::SOON;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Publish, Scan, event};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;

/// The URL of a database on several servers, with the parameters of the first.
fn on_servers(world: &World, servers: [&PostgresServer; 2]) -> String {
    let [first, second] = servers.map(PostgresServer::port);
    let url = world.database_url();
    let (authority, rest) = url.split_once("127.0.0.1:").expect("servers listen there");
    let (_, path) = rest.split_once('/').expect("it names a database");
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{authority}127.0.0.1:{first},127.0.0.1:{second}/{path}{separator}target_session_attrs=read-write")
}

/// The service goes to the one that takes writes, and after a failover to the other, without a restart.
#[tokio::test]
async fn failover_between_servers_of_one_url_is_followed() {
    let mut primary = PostgresServer::new().await;
    let world = World::on(&primary).await;
    world.run(&["migrate"]).await.ended_with(0);
    let standby = primary.standby().await;
    let url = on_servers(&world, [&standby, &primary]);
    let service = Service::start(Settings::new(&url)).await;
    service.ready().await;
    primary
        .execute("alter system set synchronous_standby_names = '*'; select pg_reload_conf()")
        .await;
    for id in ["1", "2"] {
        assert_eq!(service.publish(&event("orders", id)).await.status, 201);
    }
    primary.kill().await;
    standby
        .execute("alter system set synchronous_standby_names = ''; select pg_reload_conf()")
        .await;
    standby.promote().await;
    service.ready_within(SOON).await;
    assert_eq!(service.publish(&event("orders", "1")).await.status, 200);
    assert_eq!(service.publish(&event("orders", "3")).await.status, 201);
    Scan::default().until(&service, "", 3, SOON).await;
    Settings::new(&url).arguments(&["verify"]).run().await.ended_with(0);
}

/// Each ends at once, with one line that names the cause and shows no password.
#[tokio::test]
async fn url_that_cannot_work_is_one_line() {
    let primary = PostgresServer::new().await;
    let world = World::on(&primary).await;
    let standby = primary.standby().await;
    let standby_url = standby.url();
    for (command, url, cause) in [
        (
            "serve",
            "postgres://u:secret@127.0.0.1/d?target_session_attrs=prefer-standby",
            "target_session_attrs=prefer-standby",
        ),
        (
            "serve",
            "postgres://u:secret@127.0.0.1:99999/d",
            "DATABASE_URL is invalid",
        ),
        (
            "serve",
            "postgres://u:secret@127.0.0.1/d?sslmode=sometimes",
            "sometimes",
        ),
        (
            "serve",
            "postgres://u:secret@127.0.0.1/d?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem",
            "ca.pem",
        ),
        ("migrate", standby_url.as_str(), "read-only"),
    ] {
        let begun = Instant::now();
        let ended = Settings::new(url).arguments(&[command]).run().await;
        assert!(!matches!(ended.code, Some(0) | None), "{url}: {}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(
            lines.iter().any(|line| line.contains(cause)) && !ended.stderr.contains("secret"),
            "{url}: {}",
            ended.stderr
        );
        assert!(
            !ended.stderr.contains("backtrace") && lines.len() <= 4,
            "{url}: {}",
            ended.stderr
        );
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{url} took {:?}",
            begun.elapsed()
        );
    }
    drop(world);
}

/// The brackets of an address are no part of it: the port is asked, and nobody listens there.
#[tokio::test]
async fn address_of_version_6_is_asked() {
    let service = Service::start(Settings::new("postgres://u@[::1]:1/d")).await;
    service.unready_within(SOON).await;
    integration_tests::eventually::eventually(SOON, async || {
        let log = service.log();
        anyhow::ensure!(log.contains("refused"), "{log}");
        Ok(())
    })
    .await;
}
