//! The test harness itself: a fault that is not injected proves nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use integration_tests::disk::Disk;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::postgres::{PostgresServer, free_port};
use integration_tests::proxy::{CommitFault, Network, Proxy};
use integration_tests::publish::{Publish, event, shuffled, text};
use integration_tests::redis::{RedisServer, RedisTarget, Subscriber, command};
use integration_tests::service::Settings;
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, timeout};

/// Long enough for an answer of a healthy database.
const WELL: Duration = Duration::from_secs(5);
/// Long enough to conclude that no answer will come.
const DEAF: Duration = Duration::from_millis(500);

/// A world whose `append_v1` records its commits.
async fn world_with_commits() -> World {
    let world = World::new().await;
    world
        .execute(
            "create table commits (id bigint primary key);
            create function append_v1(id bigint) returns bigint language sql as 'insert into commits values (id) returning id'",
        )
        .await;
    world
}

async fn connect(proxy: &Proxy, world: &World) -> PgConnection {
    PgConnection::connect(&proxy.through(world.database_url()))
        .await
        .expect("the database is reachable")
}

async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
    integration_tests::redis::connect(url).await.expect("it answers")
}

async fn commit(connection: &mut PgConnection, id: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select append_v1($1)")
        .bind(id)
        .fetch_one(connection)
        .await
}

async fn ask_one(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select 1").fetch_one(connection).await
}

async fn committed(world: &World) -> i64 {
    world.number("select count(*) from commits").await
}

#[tokio::test]
async fn proxy_swallows_replies_of_armed_commits_only() {
    let world = world_with_commits().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    assert_eq!(ask_one(&mut connection).await.expect("no fault"), 1);
    assert_eq!(commit(&mut connection, 1).await.expect("no fault"), 1);
    assert_eq!((proxy.commits(), proxy.lost_replies()), (1, 0));
    proxy.arm(CommitFault::LoseReply);
    assert_eq!(ask_one(&mut connection).await.expect("no commit, no fault"), 1);
    // The statement is prepared by now: only its name is sent.
    commit(&mut connection, 2)
        .await
        .expect_err("the reply is lost and the connection closed");
    assert_eq!((proxy.commits(), proxy.lost_replies()), (2, 1));
    assert_eq!(committed(&world).await, 2);

    // On a new connection the statement is prepared and executed at once, and a large one is sent in pieces.
    proxy.arm(CommitFault::LoseReply);
    let mut connection = connect(&proxy, &world).await;
    let large: Result<i64, _> = sqlx::query_scalar("select append_v1($1) where length($2) > 0")
        .bind(3_i64)
        .bind("x".repeat(3_000_000))
        .fetch_one(&mut connection)
        .await;
    large.expect_err("the reply is lost");
    assert_eq!((committed(&world).await, proxy.lost_replies()), (3, 2));
}

#[tokio::test]
async fn failed_commit_does_not_use_up_a_fault() {
    let world = world_with_commits().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    commit(&mut connection, 1).await.expect("no fault");
    proxy.arm(CommitFault::LoseReply);
    let failed = commit(&mut connection, 1).await.expect_err("a unique violation");
    assert!(failed.as_database_error().is_some(), "the error is passed on: {failed}");
    assert_eq!(proxy.lost_replies(), 0);
    commit(&mut connection, 2)
        .await
        .expect_err("the next one gets the fault");
    assert_eq!((proxy.lost_replies(), committed(&world).await), (1, 2));
}

#[tokio::test]
async fn proxy_black_hole_starts_with_a_commit() {
    let world = world_with_commits().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    // Prepares the statement.
    commit(&mut connection, 0).await.expect("no fault");
    proxy.arm(CommitFault::BlackHole);
    timeout(DEAF, commit(&mut connection, 1))
        .await
        .expect_err("no reply comes, and no reset");
    eventually(WELL, async || {
        anyhow::ensure!(committed(&world).await == 2, "not committed");
        Ok(())
    })
    .await;
    timeout(DEAF, PgConnection::connect(&proxy.through(world.database_url())))
        .await
        .expect_err("new connections get no answer either");
    proxy.set(Network::Pass);
    timeout(DEAF, ask_one(&mut connection))
        .await
        .expect_err("a connection that has lost bytes stays silent");
    let mut fresh = connect(&proxy, &world).await;
    assert_eq!(commit(&mut fresh, 2).await.expect("no fault"), 2);
}

#[tokio::test]
async fn proxy_refuses_cuts_and_slows() {
    let world = World::new().await;
    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let url = proxy.through(world.database_url());
    PgConnection::connect(&url).await.expect_err("refused");
    proxy.set(Network::Pass);
    let mut connection = eventually(WELL, async || Ok(PgConnection::connect(&url).await?)).await;
    assert_eq!(ask_one(&mut connection).await.expect("no fault"), 1);
    proxy.set(Network::Refuse);
    assert_eq!(
        ask_one(&mut connection).await.expect("existing connections still work"),
        1
    );
    proxy.cut();
    let cut = timeout(WELL, ask_one(&mut connection))
        .await
        .expect("a cut is noticed at once");
    cut.expect_err("the connection is reset");

    proxy.set(Network::Slow(Duration::from_millis(300)));
    let begun = Instant::now();
    let mut slow = eventually(SOON, async || Ok(PgConnection::connect(&url).await?)).await;
    assert_eq!(ask_one(&mut slow).await.expect("no fault"), 1);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[test]
fn free_port_can_be_bound_while_processes_start() {
    // Fewer than there are, so that no port is given out twice.
    const PORTS: usize = 4000;

    let done = AtomicBool::new(false);
    let start_processes = || {
        while !done.load(Ordering::Relaxed) {
            let ended = Command::new("true").status().expect("`true` runs everywhere");
            assert!(ended.success(), "{ended}");
        }
    };
    let take = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
    let taken: io::Result<Vec<()>> = thread::scope(|scope| {
        scope.spawn(start_processes);
        scope.spawn(start_processes);
        let taken = (0..PORTS).map(|_| take(free_port())).collect();
        done.store(true, Ordering::Relaxed);
        taken
    });
    taken.expect("each port is free");
}

#[tokio::test]
async fn postgres_server_is_killed_and_recovers() {
    let mut server = PostgresServer::new().await;
    let world = World::on(&server).await;
    world.execute("create table kept as select 1").await;
    let mut connection = world.postgres().connect().await;
    server.kill().await;
    ask_one(&mut connection).await.expect_err("its connections are gone");
    server.start().await;
    assert_eq!(world.number("select count(*) from kept").await, 1);
    assert_eq!(
        world
            .number("select count(*) from pg_settings where name = 'fsync' and setting = 'on'")
            .await,
        1
    );
}

/// Appends an event to the stream and publishes it, as a service does.
async fn publish_directly(target: &RedisTarget, event_id: &str) {
    let event = format!(r#"{{"event_id":"{event_id}","cursor":"cursor of {event_id}"}}"#);
    let fields = [
        "topic", "orders", "event_id", event_id, "cursor", event_id, "event", &event,
    ];
    let append = [&["XADD", target.stream(), "*"][..], &fields].concat();
    command::<String>(target.url(), &append).await;
    command::<i64>(target.url(), &["PUBLISH", target.channel(), &event]).await;
}

#[tokio::test]
async fn channels_and_streams_are_isolated_and_ordered() {
    let (target, other) = (RedisTarget::shared(), RedisTarget::shared());
    let (subscriber, unrelated) = (target.subscribe().await, other.subscribe().await);
    assert_eq!(target.subscribers().await, 1);
    assert!(target.entries().await.is_empty());
    for number in 0..20 {
        publish_directly(&target, &format!("evt-{number}")).await;
    }
    let messages = subscriber.wait_for_event("evt-19", WELL).await;
    assert_eq!(messages.len(), 20);
    let expected: Vec<String> = (0..20).map(|number| format!("evt-{number}")).collect();
    assert_eq!(subscriber.event_ids(), expected);
    assert_eq!(subscriber.cursors()[7], "cursor of evt-7");
    let entries = target.entries().await;
    let ids: Vec<String> = entries.iter().map(|entry| entry.event_id.clone()).collect();
    assert_eq!(ids, expected);
    assert_eq!(text(&entries[3].json(), "cursor"), "cursor of evt-3");
    assert_eq!(messages[5].event, entries[5].event);
    assert_eq!((unrelated.count(), other.length().await), (0, 0));
    target.clean_up().await;
    assert_eq!(target.length().await, 0);
}

#[tokio::test]
async fn long_stream_is_read_completely() {
    let server = RedisServer::new().await;
    let target = RedisTarget::on(&server);
    let script = "for i = 1, 5000 do
        redis.call('XADD', KEYS[1], '*', 'topic', 't', 'event_id', i, 'cursor', i, 'event', '{}') end";
    command::<()>(target.url(), &["EVAL", script, "1", target.stream()]).await;
    let cursors: Vec<String> = target.entries().await.into_iter().map(|entry| entry.cursor).collect();
    let expected: Vec<String> = (1..=5000).map(|number| number.to_string()).collect();
    assert_eq!(cursors, expected);
}

#[tokio::test]
async fn redis_server_is_started_killed_and_frozen() {
    let mut server = RedisServer::absent(&["--appendonly", "yes", "--appendfsync", "always"]);
    let target = RedisTarget::on(&server);
    let connect = async || {
        let client = redis::Client::open(target.url()).expect("a Redis URL");
        timeout(DEAF, client.get_multiplexed_async_connection()).await
    };
    connect().await.expect("refused at once").expect_err("refused");
    server.start().await;
    publish_directly(&target, "evt-1").await;
    server.kill();
    connect().await.expect("refused at once").expect_err("refused");
    server.start().await;
    assert_eq!(target.length().await, 1, "its data are persistent");

    server.freeze();
    let frozen = timeout(DEAF, publish_directly(&target, "evt-2")).await;
    frozen.expect_err("no answer");
    server.thaw();
    publish_directly(&target, "evt-3").await;
    assert_eq!(
        target.length().await,
        2,
        "a client that could not connect has sent nothing"
    );
}

#[tokio::test]
async fn full_redis_rejects_whole_transactions() {
    let server = RedisServer::new().await;
    let target = RedisTarget::on(&server);
    let subscriber = target.subscribe().await;
    let both = async || {
        let mut connection = redis_at(target.url()).await;
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("XADD").arg(target.stream()).arg("*").arg("a").arg("b");
        transaction.cmd("PUBLISH").arg(target.channel()).arg("{}");
        transaction.query_async::<(String, i64)>(&mut connection).await
    };
    both().await.expect("there is memory");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for _ in 0..3 {
        both().await.expect_err("it is full");
    }
    assert!(server.errors("OOM").await >= 3);
    assert_eq!(server.errors("READONLY").await, 0);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    both().await.expect("there is memory again");
    assert_eq!(subscriber.wait_for(2, WELL).await.len(), 2);
}

#[tokio::test]
async fn redis_replica_is_read_only_until_promoted() {
    const NO_SYNC_DELAY: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

    let (one, other) = (
        RedisServer::with(&NO_SYNC_DELAY).await,
        RedisServer::with(&NO_SYNC_DELAY).await,
    );
    let target = RedisTarget::on(&one);
    publish_directly(&target, "evt-1").await;
    other.replicate(&one).await;
    let copy = target.by(&other.url());
    assert_eq!(copy.length().await, 1);
    let refused: redis::RedisResult<i64> = redis::cmd("DEL")
        .arg(copy.stream())
        .query_async(&mut redis_at(&other.url()).await)
        .await;
    assert_eq!(refused.expect_err("it is a replica").code(), Some("READONLY"));
    assert_eq!(other.errors("READONLY").await, 1);
    other.promote().await;
    publish_directly(&copy, "evt-2").await;
    assert_eq!((target.length().await, copy.length().await), (1, 2));
}

#[tokio::test]
async fn proxy_serves_redis_and_changes_its_upstream() {
    let (one, other) = (RedisServer::new().await, RedisServer::new().await);
    let proxy = Proxy::to(&one.url()).await;
    let (target, behind) = (RedisTarget::on(&one), RedisTarget::on(&one).through(&proxy));
    assert!(behind.url().ends_with("/0"), "{}", behind.url());
    publish_directly(&behind, "evt-1").await;
    assert_eq!(behind.by(&one.url()).length().await, 1);
    let subscriber = behind.subscribe().await;
    proxy.set(Network::Slow(Duration::from_millis(300)));
    let begun = Instant::now();
    publish_directly(&behind, "evt-2").await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    subscriber.wait_for_event("evt-2", WELL).await;
    proxy.set(Network::BlackHole);
    timeout(DEAF, publish_directly(&behind, "evt-3"))
        .await
        .expect_err("no answer");
    proxy.set(Network::Pass);
    proxy.forward_to(&other.url());
    publish_directly(&behind, "evt-4").await;
    assert_eq!(behind.by(&other.url()).length().await, 1);
    assert_eq!(behind.by(&one.url()).length().await, 2);
    assert_eq!(target.length().await, 0, "another test's stream");
}

#[tokio::test]
async fn redis_user_is_limited_to_channels() {
    let server = RedisServer::new().await;
    let user = [
        "ACL",
        "SETUSER",
        "service",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
        "&a",
        "&a:ok*",
    ];
    server.command::<()>(&user).await;
    let url = server.url_for("service", "secret");
    let mut connection = redis_at(&url).await;
    for (channel, is_allowed) in [("a", true), ("a:ok-1", true), ("a:bad", false), ("b", false)] {
        let answer: redis::RedisResult<i64> = redis::cmd("PUBLISH")
            .arg(channel)
            .arg("{}")
            .query_async(&mut connection)
            .await;
        match answer {
            Ok(_) => assert!(is_allowed, "{channel}"),
            Err(error) => assert!(!is_allowed && error.code() == Some("NOPERM"), "{channel}: {error}"),
        }
    }
    let with_password = RedisServer::with(&["--requirepass", "secret"]).await;
    let subscriber = Subscriber::to(&with_password.url_for("", "secret"), &["a"]).await;
    assert_eq!(subscriber.count(), 0);
}

fn body_of(pieces: &[&'static str]) -> StreamSubscriber {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
        .collect();
    StreamSubscriber::of(stream::iter(pieces))
}

#[tokio::test]
async fn stream_subscriber_tells_end_from_broken_connection() {
    let mut subscriber = body_of(&[
        ": hello\n\nid: 1\nda",
        "ta: {\"a\":1}\n\n:\n\nid: 2\ndata: {}\n\nid: 3\nda",
    ]);
    assert_eq!(subscriber.last(), None);
    let frames = subscriber.collect(1, WELL).await;
    assert_eq!((frames[0].id.as_str(), frames[0].data.as_str()), ("1", r#"{"a":1}"#));
    assert_eq!(subscriber.last(), Some("1"));
    let rest = subscriber.rest().await;
    assert_eq!(rest.len(), 1, "an incomplete frame is dropped");
    assert_eq!(subscriber.last(), Some("2"));

    for bad in [
        "data: {}\n\n",
        "id: 1\nevent: other\ndata: {}\n\n",
        "id: 1\ndata: {\ndata: }\n\n",
    ] {
        body_of(&[bad]).next().await.expect_err("no frame of an event");
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"id: 1\n")), Err(anyhow::anyhow!("reset"))]);
    StreamSubscriber::of(broken)
        .next()
        .await
        .expect_err("the connection broke");
}

#[tokio::test]
async fn database_is_dropped_with_its_world() {
    let world = World::new().await;
    let name = world
        .database_url()
        .rsplit('/')
        .next()
        .and_then(|rest| rest.split('?').next())
        .expect("a URL names the database")
        .to_owned();
    let other = World::new().await;
    let databases = format!("select count(*) from pg_database where datname = '{name}'");
    assert_eq!(other.number(&databases).await, 1);
    let mut open = world.postgres().connect().await;
    drop(world);
    assert_eq!(other.number(&databases).await, 0);
    open.execute("select 1")
        .await
        .expect_err("open connections are terminated");
}

#[tokio::test]
async fn folder_is_removed_with_its_world() {
    let world = World::embedded();
    world.run(&["migrate"]).await.ended_with(0);
    let folder = world.sqlite().folder().to_owned();
    assert!(folder.join("events.db").is_file());
    drop(world);
    assert!(!folder.exists());
}

#[tokio::test]
async fn writers_are_held_until_released() {
    for world in [World::new().await, World::embedded()] {
        let service = world.serve().await;
        let held = world.hold_writers().await;
        let accepted = service
            .publish_preferring("respond-async", &event("orders", "evt-1"))
            .await;
        assert_eq!(accepted.status, 202);
        world.writer_is_held(&service).await;
        assert_eq!(world.totals().await.rows, 0);
        held.release().await;
        assert_eq!(ask(service.post("/_flush")).await.status, 200);
        world.check(1).await;
    }
}

#[tokio::test]
async fn disk_is_small_and_private() {
    let disk = Disk::new("size=64k").await;
    let (here, there) = (disk.path("file"), disk.inside("file"));
    fs::write(&here, "x").expect("there is memory");
    assert!(!Path::new(&there).exists(), "no other process can see it");
    for round in 0..2 {
        let more = disk.path(&format!("more-{round}"));
        disk.fill();
        let full = fs::write(&more, "x").expect_err("it is full");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        disk.make_room();
        fs::write(&more, "x").expect("there is memory again");
    }
    disk.remount("ro").await;
    let refused = fs::write(&here, "y").expect_err("it is read-only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    // The binary finds the file on the disk, and nowhere else.
    let url = format!("sqlite://{there}");
    let verify = Settings::new(&url).arguments(&["verify"]);
    let outside = verify.run().await;
    assert!(outside.stderr.contains("no store"), "{}", outside.stderr);
    let inside = disk.enter(verify).run().await;
    assert!(!inside.stderr.contains("no store"), "{}", inside.stderr);
}

#[tokio::test]
async fn eventually_retries_until_condition_holds() {
    let mut asked = 0;
    let found = eventually(SOON, async || {
        asked += 1;
        anyhow::ensure!(asked > 3, "not yet");
        Ok(asked)
    })
    .await;
    assert_eq!(found, 4);
}

#[tokio::test]
#[should_panic(expected = "not met within 100ms: never")]
async fn eventually_fails_with_last_reason() {
    eventually(Duration::from_millis(100), async || -> anyhow::Result<()> {
        anyhow::bail!("never")
    })
    .await;
}

#[tokio::test]
async fn shuffled_is_a_permutation_for_each_seed() {
    let (one, other) = (shuffled(1000, 1), shuffled(1000, 2));
    assert_ne!(one, other);
    assert_eq!(one, shuffled(1000, 1));
    let mut sorted = one.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    let fixed = one
        .iter()
        .enumerate()
        .filter(|(index, number)| index == *number)
        .count();
    assert!(fixed < 50, "{fixed} stayed where they were");
}

#[tokio::test]
async fn dropped_service_is_killed() {
    let world = World::embedded();
    let service = world.serve().await;
    let process = format!("/proc/{}", service.pid());
    assert!(Path::new(&process).exists());
    drop(service);
    assert!(!Path::new(&process).exists(), "it still runs");
    // Only one service can open a file.
    world.serve().await;
}
