//! The harness itself: a fault that does not happen proves nothing.

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
use integration_tests::follower::Follower;
use integration_tests::http::ask;
use integration_tests::postgres::{PostgresServer, free_port};
use integration_tests::proxy::{FlushFault, Network, Proxy};
use integration_tests::publish::{Publish, event, shuffled, text};
use integration_tests::redis::{Outlet, RedisServer, Subscriber, command};
use integration_tests::service::Settings;
use integration_tests::world::World;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, timeout};

/// Long enough for an answer of a database that is well.
const WELL: Duration = Duration::from_secs(5);
/// Long enough to know that no answer comes.
const DEAF: Duration = Duration::from_millis(500);

/// A world in which `append_v1` counts how often it was committed.
async fn world_with_flushes() -> World {
    let world = World::new().await;
    world
        .execute(
            "create table flushes (id bigint primary key);
            create function append_v1(id bigint) returns bigint language sql as 'insert into flushes values (id) returning id'",
        )
        .await;
    world
}

async fn connect(proxy: &Proxy, world: &World) -> PgConnection {
    PgConnection::connect(&proxy.through(world.database_url()))
        .await
        .expect("a way to the database")
}

async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
    integration_tests::redis::connect(url).await.expect("it answers")
}

async fn flush(connection: &mut PgConnection, id: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select append_v1($1)")
        .bind(id)
        .fetch_one(connection)
        .await
}

async fn ask_one(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select 1").fetch_one(connection).await
}

async fn committed(world: &World) -> i64 {
    world.number("select count(*) from flushes").await
}

#[tokio::test]
async fn the_proxy_swallows_the_reply_of_exactly_the_flushes_it_was_told_to_and_they_are_committed() {
    let world = world_with_flushes().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    assert_eq!(ask_one(&mut connection).await.expect("no fault"), 1);
    assert_eq!(flush(&mut connection, 1).await.expect("no fault"), 1);
    assert_eq!((proxy.flushes(), proxy.swallowed()), (1, 0));
    proxy.arm(FlushFault::SwallowReply);
    assert_eq!(ask_one(&mut connection).await.expect("no flush, no fault"), 1);
    // The statement is prepared by now: only its name goes by.
    flush(&mut connection, 2)
        .await
        .expect_err("the reply is swallowed and the connection closed");
    assert_eq!((proxy.flushes(), proxy.swallowed()), (2, 1));
    assert_eq!(committed(&world).await, 2);

    // On a fresh connection the statement is prepared and executed at once, and a large one comes in pieces.
    proxy.arm(FlushFault::SwallowReply);
    let mut connection = connect(&proxy, &world).await;
    let large: Result<i64, _> = sqlx::query_scalar("select append_v1($1) where length($2) > 0")
        .bind(3_i64)
        .bind("x".repeat(3_000_000))
        .fetch_one(&mut connection)
        .await;
    large.expect_err("the reply is swallowed");
    assert_eq!((committed(&world).await, proxy.swallowed()), (3, 2));
}

#[tokio::test]
async fn a_flush_that_fails_is_not_taken_for_committed() {
    let world = world_with_flushes().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    flush(&mut connection, 1).await.expect("no fault");
    proxy.arm(FlushFault::SwallowReply);
    let failed = flush(&mut connection, 1).await.expect_err("a unique violation");
    assert!(failed.as_database_error().is_some(), "the error is passed on: {failed}");
    assert_eq!(proxy.swallowed(), 0);
    flush(&mut connection, 2)
        .await
        .expect_err("the next one meets the fault");
    assert_eq!((proxy.swallowed(), committed(&world).await), (1, 2));
}

#[tokio::test]
async fn the_proxy_loses_the_reply_of_a_flush_and_all_that_follows_in_a_black_hole() {
    let world = world_with_flushes().await;
    let proxy = Proxy::to(world.database_url()).await;
    let mut connection = connect(&proxy, &world).await;
    // Prepared, it is sent at once.
    flush(&mut connection, 0).await.expect("no fault");
    proxy.arm(FlushFault::BlackHole);
    timeout(DEAF, flush(&mut connection, 1))
        .await
        .expect_err("no reply comes, and no reset");
    eventually(WELL, async || {
        anyhow::ensure!(committed(&world).await == 2, "not committed");
        Ok(())
    })
    .await;
    timeout(DEAF, PgConnection::connect(&proxy.through(world.database_url())))
        .await
        .expect_err("new connections are deaf as well");
    proxy.set(Network::Pass);
    timeout(DEAF, ask_one(&mut connection))
        .await
        .expect_err("a connection that has lost bytes stays deaf");
    let mut fresh = connect(&proxy, &world).await;
    assert_eq!(flush(&mut fresh, 2).await.expect("no fault"), 2);
}

#[tokio::test]
async fn the_proxy_refuses_cuts_and_slows() {
    let world = World::new().await;
    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let url = proxy.through(world.database_url());
    PgConnection::connect(&url).await.expect_err("nobody listens");
    proxy.set(Network::Pass);
    let mut connection = eventually(WELL, async || Ok(PgConnection::connect(&url).await?)).await;
    assert_eq!(ask_one(&mut connection).await.expect("no fault"), 1);
    proxy.set(Network::Refuse);
    assert_eq!(ask_one(&mut connection).await.expect("what exists goes on"), 1);
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
fn a_free_port_can_be_taken_at_once_while_other_processes_are_being_started() {
    // Not all that there are: the same port is given to nobody else then.
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
async fn a_server_of_the_tests_own_is_killed_and_recovers() {
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
async fn publish_by_hand(outlet: &Outlet, event_id: &str) {
    let told = format!(r#"{{"event_id":"{event_id}","cursor":"cursor of {event_id}"}}"#);
    let fields = [
        "topic", "orders", "event_id", event_id, "cursor", event_id, "event", &told,
    ];
    let append = [&["XADD", outlet.stream(), "*"][..], &fields].concat();
    command::<String>(outlet.url(), &append).await;
    command::<i64>(outlet.url(), &["PUBLISH", outlet.channel(), &told]).await;
}

#[tokio::test]
async fn a_subscriber_and_a_stream_keep_all_in_order_and_tests_do_not_meet() {
    let (outlet, other) = (Outlet::shared(), Outlet::shared());
    let (subscriber, stranger) = (outlet.subscribe().await, other.subscribe().await);
    assert_eq!(outlet.subscribers().await, 1);
    assert!(outlet.entries().await.is_empty());
    for number in 0..20 {
        publish_by_hand(&outlet, &format!("evt-{number}")).await;
    }
    let messages = subscriber.wait_for_event("evt-19", WELL).await;
    assert_eq!(messages.len(), 20);
    let expected: Vec<String> = (0..20).map(|number| format!("evt-{number}")).collect();
    assert_eq!(subscriber.event_ids(), expected);
    assert_eq!(subscriber.cursors()[7], "cursor of evt-7");
    let entries = outlet.entries().await;
    let ids: Vec<String> = entries.iter().map(|entry| entry.event_id.clone()).collect();
    assert_eq!(ids, expected);
    assert_eq!(text(&entries[3].json(), "cursor"), "cursor of evt-3");
    assert_eq!(messages[5].event, entries[5].event);
    assert_eq!((stranger.count(), other.length().await), (0, 0));
    outlet.clean_up().await;
    assert_eq!(outlet.length().await, 0);
}

#[tokio::test]
async fn a_stream_is_read_whole_however_long_it_is() {
    let server = RedisServer::new().await;
    let outlet = Outlet::on(&server);
    let script = "for i = 1, 5000 do
        redis.call('XADD', KEYS[1], '*', 'topic', 't', 'event_id', i, 'cursor', i, 'event', '{}') end";
    command::<()>(outlet.url(), &["EVAL", script, "1", outlet.stream()]).await;
    let cursors: Vec<String> = outlet.entries().await.into_iter().map(|entry| entry.cursor).collect();
    let expected: Vec<String> = (1..=5000).map(|number| number.to_string()).collect();
    assert_eq!(cursors, expected);
}

#[tokio::test]
async fn a_redis_of_the_tests_own_is_absent_started_killed_and_frozen() {
    let mut server = RedisServer::absent(&["--appendonly", "yes", "--appendfsync", "always"]);
    let outlet = Outlet::on(&server);
    let connect = async || {
        let client = redis::Client::open(outlet.url()).expect("a Redis URL");
        timeout(DEAF, client.get_multiplexed_async_connection()).await
    };
    connect().await.expect("refused at once").expect_err("nobody listens");
    server.start().await;
    publish_by_hand(&outlet, "evt-1").await;
    server.kill();
    connect().await.expect("refused at once").expect_err("nobody listens");
    server.start().await;
    assert_eq!(outlet.length().await, 1, "it was told to keep what it has");

    server.freeze();
    let deaf = timeout(DEAF, publish_by_hand(&outlet, "evt-2")).await;
    deaf.expect_err("nothing is answered");
    server.thaw();
    publish_by_hand(&outlet, "evt-3").await;
    assert_eq!(
        outlet.length().await,
        2,
        "who was not let in while it was frozen has sent nothing"
    );
}

#[tokio::test]
async fn a_full_redis_refuses_a_transaction_as_a_whole_and_counts_that() {
    let server = RedisServer::new().await;
    let outlet = Outlet::on(&server);
    let subscriber = outlet.subscribe().await;
    let both = async || {
        let mut connection = redis_at(outlet.url()).await;
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("XADD").arg(outlet.stream()).arg("*").arg("a").arg("b");
        transaction.cmd("PUBLISH").arg(outlet.channel()).arg("{}");
        transaction.query_async::<(String, i64)>(&mut connection).await
    };
    both().await.expect("there is room");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for _ in 0..3 {
        both().await.expect_err("it is full");
    }
    assert!(server.errors("OOM").await >= 3);
    assert_eq!(server.errors("READONLY").await, 0);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    both().await.expect("there is room again");
    assert_eq!(subscriber.wait_for(2, WELL).await.len(), 2);
}

#[tokio::test]
async fn a_redis_follows_another_and_is_read_only_until_it_leads() {
    const BRISK: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

    let (one, other) = (RedisServer::with(&BRISK).await, RedisServer::with(&BRISK).await);
    let outlet = Outlet::on(&one);
    publish_by_hand(&outlet, "evt-1").await;
    other.follow(&one).await;
    let copy = outlet.by(&other.url());
    assert_eq!(copy.length().await, 1);
    let refused: redis::RedisResult<i64> = redis::cmd("DEL")
        .arg(copy.stream())
        .query_async(&mut redis_at(&other.url()).await)
        .await;
    assert_eq!(refused.expect_err("it is a replica").code(), Some("READONLY"));
    assert_eq!(other.errors("READONLY").await, 1);
    other.lead().await;
    publish_by_hand(&copy, "evt-2").await;
    assert_eq!((outlet.length().await, copy.length().await), (1, 2));
}

#[tokio::test]
async fn the_proxy_stands_before_a_redis_too_and_can_lead_to_another() {
    let (one, other) = (RedisServer::new().await, RedisServer::new().await);
    let proxy = Proxy::to(&one.url()).await;
    let (outlet, behind) = (Outlet::on(&one), Outlet::on(&one).through(&proxy));
    assert!(behind.url().ends_with("/0"), "{}", behind.url());
    publish_by_hand(&behind, "evt-1").await;
    assert_eq!(behind.by(&one.url()).length().await, 1);
    let subscriber = behind.subscribe().await;
    proxy.set(Network::Slow(Duration::from_millis(300)));
    let begun = Instant::now();
    publish_by_hand(&behind, "evt-2").await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    subscriber.wait_for_event("evt-2", WELL).await;
    proxy.set(Network::BlackHole);
    timeout(DEAF, publish_by_hand(&behind, "evt-3"))
        .await
        .expect_err("nothing is answered");
    proxy.set(Network::Pass);
    proxy.lead_to(&other.url());
    publish_by_hand(&behind, "evt-4").await;
    assert_eq!(behind.by(&other.url()).length().await, 1);
    assert_eq!(behind.by(&one.url()).length().await, 2);
    assert_eq!(outlet.length().await, 0, "another test's stream");
}

#[tokio::test]
async fn a_user_of_redis_is_let_to_channels_by_their_names() {
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
    for (channel, is_let) in [("a", true), ("a:ok-1", true), ("a:bad", false), ("b", false)] {
        let answer: redis::RedisResult<i64> = redis::cmd("PUBLISH")
            .arg(channel)
            .arg("{}")
            .query_async(&mut connection)
            .await;
        match answer {
            Ok(_) => assert!(is_let, "{channel}"),
            Err(error) => assert!(!is_let && error.code() == Some("NOPERM"), "{channel}: {error}"),
        }
    }
    let with_password = RedisServer::with(&["--requirepass", "secret"]).await;
    let subscriber = Subscriber::to(&with_password.url_for("", "secret"), &["a"]).await;
    assert_eq!(subscriber.count(), 0);
}

fn body_of(pieces: &[&'static str]) -> Follower {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
        .collect();
    Follower::of(stream::iter(pieces))
}

#[tokio::test]
async fn a_follower_reads_whole_frames_and_knows_the_end_of_a_stream_from_a_break() {
    let mut follower = body_of(&[
        ": hello\n\nid: 1\nevent: event\nda",
        "ta: {\"a\":1}\n\n:\n\nid: 2\nevent: event\ndata: {}\n\nid: 3\nevent: ev",
    ]);
    assert_eq!(follower.last(), None);
    let frames = follower.collect(1, WELL).await;
    assert_eq!((frames[0].id.as_str(), frames[0].data.as_str()), ("1", r#"{"a":1}"#));
    assert_eq!(follower.last(), Some("1"));
    let rest = follower.rest().await;
    assert_eq!(rest.len(), 1, "half a frame is none");
    assert_eq!(follower.last(), Some("2"));

    for bad in [
        "event: event\ndata: {}\n\n",
        "id: 1\nevent: other\ndata: {}\n\n",
        "id: 1\nevent: event\ndata: {\ndata: }\n\n",
    ] {
        body_of(&[bad]).next().await.expect_err("no frame of an event");
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"id: 1\n")), Err(anyhow::anyhow!("reset"))]);
    Follower::of(broken).next().await.expect_err("the connection broke");
}

#[tokio::test]
async fn a_database_is_gone_with_its_world() {
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
        .expect_err("whoever is connected is put out");
}

#[tokio::test]
async fn a_folder_is_gone_with_its_world() {
    let world = World::embedded();
    world.run(&["migrate"]).await.ended_with(0);
    let folder = world.sqlite().folder().to_owned();
    assert!(folder.join("events.db").is_file());
    drop(world);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_writer_is_held_back_on_each_store_until_it_is_released() {
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
async fn a_disk_is_small_and_seen_by_those_that_enter_it_alone() {
    let disk = Disk::new("size=64k").await;
    let (here, there) = (disk.path("file"), disk.inside("file"));
    fs::write(&here, "x").expect("there is room");
    assert!(!Path::new(&there).exists(), "the rest of the machine does not see it");
    for round in 0..2 {
        let more = disk.path(&format!("more-{round}"));
        disk.fill();
        let full = fs::write(&more, "x").expect_err("it is full");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        disk.make_room();
        fs::write(&more, "x").expect("there is room again");
    }
    disk.remount("ro").await;
    let refused = fs::write(&here, "y").expect_err("it is read-only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    // What is not a store is found by the binary on the disk, and nowhere else.
    let url = format!("sqlite://{there}");
    let verify = Settings::new(&url).arguments(&["verify"]);
    let outside = verify.run().await;
    assert!(outside.stderr.contains("there is no store"), "{}", outside.stderr);
    let inside = disk.enter(verify).run().await;
    assert!(!inside.stderr.contains("there is no store"), "{}", inside.stderr);
}

#[tokio::test]
async fn a_condition_is_asked_until_it_holds() {
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
#[should_panic(expected = "not so within 100ms: never")]
async fn a_condition_that_never_holds_fails_with_its_reason() {
    eventually(Duration::from_millis(100), async || -> anyhow::Result<()> {
        anyhow::bail!("never")
    })
    .await;
}

#[tokio::test]
async fn a_shuffled_order_holds_everything_once_and_differs_by_seed() {
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
async fn a_service_that_is_dropped_is_gone() {
    let world = World::embedded();
    let service = world.serve().await;
    let process = format!("/proc/{}", service.pid());
    assert!(Path::new(&process).exists());
    drop(service);
    assert!(!Path::new(&process).exists(), "it still holds its file");
    // A file has one service.
    world.serve().await;
}
