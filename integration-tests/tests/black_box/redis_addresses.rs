//! Where Redis is: its schemes, TLS with certificates of one's own, and what is said about an address that cannot work.

use std::fs;

use anyhow::ensure;
use integration_tests::certificates::Certificates;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, event, event_with_payload};
use integration_tests::redis::{RedisServer, RedisTarget};
use integration_tests::service::{Finished, Service, Settings};
use integration_tests::world::World;

/// A Redis that takes TLS on a second port, and requires a certificate of its clients there.
struct Tls {
    server: RedisServer,
    port: u16,
    certificates: Certificates,
}

impl Tls {
    async fn new(names: &[&str]) -> Self {
        let certificates = Certificates::new(names);
        let port = free_port();
        let files = ["server.pem", "server.key", "ca.pem"].map(|name| certificates.path(name));
        let arguments = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &files[0],
            "--tls-key-file",
            &files[1],
            "--tls-ca-cert-file",
            &files[2],
            "--bind",
            "127.0.0.1",
            "-::1",
        ];
        Self {
            server: RedisServer::with(&arguments).await,
            port,
            certificates,
        }
    }

    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}/0", self.port)
    }

    fn flags(&self) -> [String; 6] {
        let path = |name| self.certificates.path(name);
        [
            "--redis-ca-file".to_owned(),
            path("ca.pem"),
            "--redis-cert-file".to_owned(),
            path("client.pem"),
            "--redis-key-file".to_owned(),
            path("client.key"),
        ]
    }
}

/// A `tail --redis` of this service.
fn tail(service: &str, flags: &[&str]) -> Settings {
    let settings = Settings::new("unused").without("DATABASE_URL").without("PORT");
    settings.arguments(&[&["tail", "--redis", "--url", service], flags].concat())
}

/// What `/health` says about Redis, once it is down for a reason that contains `word`.
async fn reason(service: &Service, word: &str) -> String {
    eventually(SOON, async || {
        let health = service.json("/health").await;
        let reason = health["fanout"]["reason"].as_str().unwrap_or_default().to_owned();
        ensure!(
            health["status"] == "degraded" && reason.contains(word),
            "{health}: {}",
            service.log()
        );
        Ok(reason)
    })
    .await
}

/// The lines of the log about Redis.
fn lines(service: &Service) -> Vec<String> {
    let log = service.log();
    let about = log.lines().filter(|line| line.contains("failed to publish"));
    about.map(str::to_owned).collect()
}

#[tokio::test]
async fn publishes_over_tls_with_a_client_certificate() {
    let world = World::embedded();
    let tls = Tls::new(&["DNS:localhost", "IP:127.0.0.1", "IP:::1"]).await;
    let target = RedisTarget::on(&tls.server);
    let subscriber = target.subscribe().await;
    // Each name of the host: that of the certificate, and its addresses of both kinds.
    let mut count = 0;
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let settings = world
            .settings()
            .with_redis(&target)
            .with("REDIS_URL", &tls.url(host))
            .with("REDIS_CA_FILE", &tls.certificates.path("ca.pem"))
            .with("REDIS_CERT_FILE", &tls.certificates.path("client.pem"))
            .with("REDIS_KEY_FILE", &tls.certificates.path("client.key"));
        let mut service = world.serve_with(settings).await;
        let url = tls.url(host);
        let flags: Vec<String> = ["--redis-url", &url, "--redis-channel", target.channel(), "--limit", "1"]
            .map(str::to_owned)
            .into_iter()
            .chain(tls.flags())
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let tail = Program::start(&tail(service.url(), &flags));
        eventually(SOON, async || {
            ensure!(target.subscribers().await >= 2, "{}", tail.stderr());
            Ok(())
        })
        .await;
        let id = format!("over-tls-{count}");
        assert_eq!(service.publish(&event("t", &id)).await.status, 201);
        count += 1;
        subscriber.wait_for(count, SOON).await;
        eventually(SOON, async || {
            ensure!(tail.stdout().contains(&id), "{}{}", tail.stdout(), tail.stderr());
            Ok(())
        })
        .await;
        service.stop().await;
    }
    assert_eq!(target.length().await, count);
    world.check_published(i64::try_from(count).expect("few")).await;
}

#[tokio::test]
async fn valkey_schemes_are_other_names() {
    let world = World::embedded();
    let server = RedisServer::new().await;
    let target = RedisTarget::on(&server);
    let target = target.by(&server.url().replacen("redis", "valkey", 1));
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    assert_eq!(service.publish(&event("t", "e")).await.status, 201);
    world.check_published(1).await;
    assert_eq!(server.command::<usize>(&["XLEN", target.stream()]).await, 1);
}

/// What only the server can tell: the service goes on and says why, `tail` ends.
async fn is_told_by(settings: Settings, world: &World, flags: &[&str], [health, log]: [&str; 2]) {
    let service = world.serve_with(settings).await;
    service.publish(&event("t", &format!("e{log}"))).await;
    let reason = reason(&service, health).await;
    assert!(!reason.contains("127.0.0.1") && !reason.contains('/'), "{reason}");
    let lines = lines(&service);
    assert!(lines.len() == 1 && lines[0].contains(log), "{lines:#?}");
    let ended = tail(service.url(), flags).run().await;
    assert_one_line(&ended, 64, log);
}

#[track_caller]
fn assert_one_line(ended: &Finished, code: i32, word: &str) {
    ended.ended_with(code);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(word), "{}", ended.stderr);
}

#[tokio::test]
async fn wrong_certificates_are_named() {
    let world = World::embedded();
    let other = Certificates::new(&["DNS:other"]);
    let tls = Tls::new(&["DNS:localhost"]).await;
    let path = |name| tls.certificates.path(name);
    let with = |settings: Settings, host: &str, files: [&str; 3]| {
        let names = ["REDIS_URL", "REDIS_CA_FILE", "REDIS_CERT_FILE", "REDIS_KEY_FILE"];
        let values = [&tls.url(host), files[0], files[1], files[2]];
        names
            .into_iter()
            .zip(values)
            .fold(settings, |settings, (name, value)| settings.with(name, value))
    };
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let (other_ca, other_certificate, other_key) =
        (other.path("ca.pem"), other.path("client.pem"), other.path("client.key"));
    for (host, files, log) in [
        (
            "localhost",
            [other_ca.as_str(), &certificate, &key],
            "not signed by a trusted authority",
        ),
        ("127.0.0.1", [&ca, &certificate, &key], "other host names"),
        ("localhost", [&ca, "", ""], "requires one"),
        (
            "localhost",
            [&ca, &other_certificate, &other_key],
            "rejects the client certificate",
        ),
    ] {
        let url = tls.url(host);
        let flags = [
            "--redis-url",
            &url,
            "--redis-ca-file",
            files[0],
            "--redis-cert-file",
            files[1],
            "--redis-key-file",
            files[2],
        ];
        is_told_by(with(world.settings(), host, files), &world, &flags, ["TLS", log]).await;
    }
    // A port without TLS says nothing at all.
    let url = tls.server.url().replacen("redis", "rediss", 1);
    let settings = world
        .settings()
        .with("REDIS_URL", &url)
        .with("EVENTSIEVE_REDIS_TIMEOUT", "1s");
    let service = world.serve_with(settings).await;
    reason(&service, "cannot be reached").await;
    assert!(
        lines(&service)[0].contains("does this port use TLS?"),
        "{}",
        service.log()
    );
}

#[tokio::test]
async fn address_of_another_kind_of_redis_is_named() {
    let world = World::embedded();
    let server = RedisServer::with(&["--user", "me", "on", ">secret", "~*", "&*", "+@all"]).await;
    let at = |path: &str| format!("redis://127.0.0.1:{}/{path}", server.port());
    let other = |scheme: &str| at("shop").replacen("redis", scheme, 1);
    for (url, health, log) in [
        (at("99"), "database", "database of REDIS_URL"),
        (other("redis+sentinel"), "another kind", "redis://"),
        (other("redis+cluster").replace("/shop", ""), "another kind", "redis://"),
        (server.url_for("me", "wrong"), "password", "user or the password"),
    ] {
        let settings = world.settings().with("REDIS_URL", &url);
        is_told_by(settings, &world, &["--redis-url", &url], [health, log]).await;
    }
}

#[tokio::test]
async fn what_can_never_work_ends_the_start() {
    let world = World::embedded();
    let certificates = Certificates::new(&["DNS:localhost"]);
    let path = |name| certificates.path(name);
    let no_pem = path("no.pem");
    fs::write(&no_pem, "no certificate").expect("a file in a folder of our own");
    let missing = path("missing");
    let secure = [("REDIS_URL", "rediss://:secret@localhost")];
    for (variables, word) in [
        (
            vec![("REDIS_URL", "redis://:secret@host:port")],
            "REDIS_URL has a port that is not a number",
        ),
        (
            vec![("REDIS_URL", "mysql://:secret@host")],
            "REDIS_URL must begin with redis://",
        ),
        (
            vec![("REDIS_URL", "redis+sentinel://:secret@host")],
            "REDIS_URL must name the service",
        ),
        (
            [&secure[..], &[("REDIS_CA_FILE", &missing)]].concat(),
            "REDIS_CA_FILE: cannot read",
        ),
        (
            [&secure[..], &[("REDIS_CA_FILE", &no_pem)]].concat(),
            "holds no certificate in PEM",
        ),
        (
            [&secure[..], &[("REDIS_CERT_FILE", &path("client.pem"))]].concat(),
            "needs REDIS_KEY_FILE",
        ),
        (
            [
                &secure[..],
                &[("REDIS_CERT_FILE", &path("client.pem")), ("REDIS_KEY_FILE", &no_pem)],
            ]
            .concat(),
            "holds no private key in PEM",
        ),
        (
            [
                &secure[..],
                &[
                    ("REDIS_CERT_FILE", &path("client.pem")),
                    ("REDIS_KEY_FILE", &path("server.key")),
                ],
            ]
            .concat(),
            "another key than that of the certificate",
        ),
    ] {
        let settings = variables
            .iter()
            .fold(world.settings(), |settings, (name, value)| settings.with(name, value));
        for arguments in [&["serve"][..], &["tail", "--redis"]] {
            let ended = settings.clone().arguments(arguments).run().await;
            assert_one_line(&ended, 64, word);
            assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
        }
    }
    let two = world
        .settings()
        .with("REDIS_URL", "redis://host:port")
        .with("EVENTSIEVE_MAX_BODY", "lots");
    let ended = two.run().await.stderr;
    assert!(
        ended.contains("REDIS_URL") && ended.contains("EVENTSIEVE_MAX_BODY"),
        "{ended}"
    );
}

#[tokio::test]
async fn unreachable_redis_is_waited_for() {
    let world = World::embedded();
    let mut server = RedisServer::absent(&[]);
    let target = RedisTarget::on(&server);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    assert_eq!(service.publish(&event("t", "e")).await.status, 201);
    reason(&service, "cannot be reached").await;
    server.start().await;
    world.check_published(1).await;
}

/// The rules that the guide gives to a user, as arguments of a server.
fn rules_of(user: &str) -> Vec<String> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/redis.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    let start = format!("ACL SETUSER {user} ");
    let rules = guide.lines().find_map(|line| line.strip_prefix(start.as_str()));
    let rules = rules.expect("the guide has rules for the user").split(' ');
    ["--user", user].into_iter().chain(rules).map(str::to_owned).collect()
}

#[tokio::test]
async fn users_of_the_guide_have_enough_rights() {
    let world = World::embedded();
    let rules = [rules_of("eventsieve"), rules_of("subscriber")].concat();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let server = RedisServer::with(&[&["--maxmemory", "24mb"], &rules[..]].concat()).await;
    let settings = world
        .settings()
        .with("REDIS_URL", &server.url_for("eventsieve", "secret"));
    let settings = settings
        .with("REDIS_STREAM", "log")
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings.with("REDIS_STREAM_MAX_BYTES", "1GiB")).await;
    let url = server.url_for("subscriber", "other");
    let tail = Program::start(&tail(service.url(), &["--redis-url", &url]));
    eventually(SOON, async || {
        let (_, count): (String, i64) = server.command(&["PUBSUB", "NUMSUB", "events"]).await;
        ensure!(count == 1, "{}", tail.stderr());
        Ok(())
    })
    .await;
    // More than Redis has room for.
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    for number in 0..150 {
        let event = event_with_payload("t", &format!("{number}"), &payload);
        assert_eq!(service.publish_bytes("application/json", event).await.status, 201);
    }
    world.check_published(150).await;
    assert!(server.errors("OOM").await > 0, "Redis was never full");
    assert_eq!(server.errors("NOPERM").await, 0, "{}", service.log());
    eventually(SOON, async || {
        let count = tail.stdout().lines().count();
        ensure!(count == 150, "{count}: {}", tail.stderr());
        Ok(())
    })
    .await;
}
