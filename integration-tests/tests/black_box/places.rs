//! Places that last: whoever reads on from a cursor misses nothing that is there, after crashes, promotions and restores, and is told
//! where something is gone.

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::api::Api;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::try_ask;
use integration_tests::on_both_stores;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Publish, Scan, event, page, publish_batch, text};
use integration_tests::redis::{Message, RedisTarget, Subscriber};
use integration_tests::service::{Service, Settings};
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use serde_json::Value;

/// How often the server crashes in each test of crashes; `EVENTSIEVE_TEST_CRASHES` sets another number.
const CRASHES: usize = 5;

fn crashes() -> usize {
    std::env::var("EVENTSIEVE_TEST_CRASHES").map_or(CRASHES, |text| text.parse().expect("a number"))
}

/// A cursor above everything that the log has given out.
const BEYOND: &str = "7fffffffffffffff7fffffff";

async fn unknown_cursor_is_gone(world: World) {
    let service = world.serve().await;
    publish_batch(&service, vec![event("orders", "1")]).await;
    for style in ["", "&format=array", "&topic=orders"] {
        let answer = service.fetch(&format!("/events?after={BEYOND}{style}")).await;
        assert_eq!(answer.status, 410, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["type"], "cursor_unknown");
    }
    let lines = service
        .get(&format!("/events?after={BEYOND}"))
        .header("accept", "application/x-ndjson");
    assert_eq!(try_ask(lines).await.expect("an answer").status, 410);

    let mut stream = StreamSubscriber::open(&service, &format!("after={BEYOND}"), None).await;
    let frames = stream.rest().await;
    let kinds: Vec<&str> = frames.iter().map(|frame| frame.kind.as_str()).collect();
    assert_eq!(kinds, ["cursor_unknown"]);
    assert_eq!(frames[0].json()["after"], BEYOND);

    let tail = world
        .run(&["tail", "--url", service.url(), "--after", BEYOND, "--limit", "1"])
        .await;
    tail.ended_with(1);
    assert!(tail.stderr.contains("410"), "{}", tail.stderr);
}

async fn pruned_events_are_told_once(world: World) {
    let service = world.serve().await;
    let old = publish_batch(&service, vec![event("orders", "1"), event("orders", "2")]).await;
    let mut scan = Scan::default();
    scan.until(&service, "", 2, SOON).await;
    world.run(&["prune", "--older-than", "0s"]).await.ended_with(0);
    publish_batch(&service, vec![event("orders", "3")]).await;
    scan.until(&service, "", 3, SOON).await;

    let after = format!("/events?after={}", old[0]);
    let body = service.json(&after).await;
    assert_eq!(
        (&body["truncated"], &body["count"]),
        (&Value::from(true), &Value::from(1))
    );
    let next = text(&body, "next");
    assert_eq!(
        service.json(&format!("/events?after={next}")).await["truncated"],
        Value::Null
    );
    assert_eq!(service.json("/events?after=").await["truncated"], Value::Null);
    for (accept, query) in [("application/json", "&format=array"), ("application/x-ndjson", "")] {
        let request = service.get(&format!("{after}{query}")).header("accept", accept);
        let answer = try_ask(request).await.expect("an answer");
        assert_eq!(answer.header("eventsieve-truncated"), "true", "{accept}");
        assert_eq!(
            service
                .fetch(&format!("/events?after={query}"))
                .await
                .header("eventsieve-truncated"),
            ""
        );
    }

    let mut stream = StreamSubscriber::open(&service, "", Some(&old[0])).await;
    let frames = stream.collect(2, SOON).await;
    assert_eq!(
        (frames[0].kind.as_str(), frames[1].event_id().as_str()),
        ("truncated", "3")
    );
    let mut stream = StreamSubscriber::open(&service, "", Some(&old[1])).await;
    assert_eq!(stream.collect(1, SOON).await[0].event_id(), "3");

    let tail = world
        .run(&["tail", "--url", service.url(), "--after", &old[0], "--limit", "1"])
        .await;
    tail.ended_with(0);
    assert_eq!(
        tail.stderr.matches("some events are missing").count(),
        1,
        "{}",
        tail.stderr
    );
}

on_both_stores! {
    unknown_cursor_is_gone
    pruned_events_are_told_once
}

/// Publishes events as a client does that sends a request again until it is acknowledged.
async fn publish_until_acknowledged(service: &Api, batch: Vec<Value>) {
    let body = Value::from(batch);
    eventually(3 * SOON, async || {
        let answer = try_ask(service.post("/publish").json(&body)).await?;
        ensure!(
            matches!(answer.status, 200 | 201),
            "{} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    })
    .await;
}

/// Work of others on the same server, which uses up transaction ids and leaves no trace of them on disk: they are given out again
/// after a crash.
async fn foreign_work(server: &PostgresServer) {
    server
        .execute(
            "create temporary table scratch (number int); begin; insert into scratch values (1); rollback; begin;
             select pg_current_xact_id(); rollback; set synchronous_commit = off; insert into scratch values (2)",
        )
        .await;
}

/// Everybody who follows the log, with what they have seen.
struct Followers {
    scan: Scan,
    stream: StreamSubscriber,
    subscriber: Subscriber,
}

impl Followers {
    async fn of(service: &Service, target: &RedisTarget) -> Self {
        Self {
            scan: Scan::default(),
            stream: StreamSubscriber::open(service, "after=", None).await,
            subscriber: target.subscribe().await,
        }
    }

    /// Waits until all have seen the next `count` events, and asserts that they are these.
    async fn have_seen(&mut self, service: &Service, ids: &[String], count: usize) {
        let seen = ids.len();
        let walking = self.scan.until(service, "", seen, 3 * SOON);
        let (frames, ()) = join(self.stream.collect(count, 3 * SOON), walking).await;
        let streamed: Vec<String> = frames.iter().map(|frame| frame.event_id()).collect();
        assert_eq!(streamed, ids[seen - count..]);
        assert_eq!(self.scan.event_ids(), ids);
        // Redis may get an event twice, and a consumer drops what it has seen by its cursor.
        let messages = self.subscriber.wait_for_event(&ids[seen - 1], 3 * SOON).await;
        let cursor_and_id = |message: &Message| (message.cursor(), message.event_id());
        let mut cursors: Vec<(String, String)> = messages.iter().map(cursor_and_id).collect();
        cursors.sort_unstable();
        cursors.dedup();
        let consumed: Vec<String> = cursors.into_iter().map(|(_, id)| id).collect();
        assert_eq!(consumed, ids);
    }
}

/// Publishes one to three events, lets everybody read to the end, uses up some transaction ids, and reads to the end again: the place
/// at the end is what a crash must not make wrong. Then the server crashes.
async fn nothing_is_skipped(crash: impl AsyncFn(&mut PostgresServer)) {
    let mut server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let mut followers = Followers::of(&service, &target).await;
    let mut ids: Vec<String> = Vec::new();
    for round in 0..=crashes() {
        let count = 1 + round % 3;
        let sent: Vec<String> = (0..count).map(|number| format!("{round}-{number}")).collect();
        publish_until_acknowledged(&service, sent.iter().map(|id| event("orders", id)).collect()).await;
        ids.extend(sent);
        followers.have_seen(&service, &ids, count).await;
        if round == crashes() {
            break;
        }
        foreign_work(&server).await;
        for _ in 0..3 {
            assert_eq!(followers.scan.step(&service, "").await, 0);
        }
        crash(&mut server).await;
    }
    world.check_published(i64::try_from(ids.len()).expect("a count")).await;
}

#[tokio::test]
async fn immediate_shutdowns_skip_nothing() {
    nothing_is_skipped(async |server| {
        server.kill().await;
        server.start().await;
    })
    .await;
}

#[tokio::test]
async fn killed_backends_skip_nothing() {
    nothing_is_skipped(async |server| server.crash_backend().await).await;
}

/// The settings of a service on the database of this world, on another server.
fn on_server(world: &World, server: &PostgresServer) -> Settings {
    let name = world.postgres().name();
    Settings::new(&server.url().replace("/postgres?", &format!("/{name}?")))
}

async fn serve_on(world: &World, server: &PostgresServer) -> Service {
    let service = Service::start(on_server(world, server)).await;
    service.ready().await;
    service
}

async fn verified(world: &World, server: &PostgresServer) {
    on_server(world, server)
        .arguments(&["verify"])
        .run()
        .await
        .ended_with(0);
}

/// Waits until a standby has everything that its primary has.
async fn is_caught_up(primary: &PostgresServer, standby: &PostgresServer) {
    let position = primary.text("select pg_current_wal_flush_lsn()::text").await;
    let behind = format!("select (pg_last_wal_replay_lsn() < '{position}')::text");
    eventually(SOON, async || {
        ensure!(standby.text(&behind).await == "false", "the standby is behind");
        Ok(())
    })
    .await;
}

/// The newest events are lost with the primary. What survived is seen, and so is everything that is published after that; whoever
/// has seen the lost ones is told.
#[tokio::test]
async fn promotion_of_an_asynchronous_standby_skips_nothing() {
    let mut primary = PostgresServer::new().await;
    let world = World::on(&primary).await;
    let service = world.serve().await;
    publish_batch(&service, vec![event("orders", "1"), event("orders", "2")]).await;
    let standby = primary.standby().await;
    publish_batch(&service, vec![event("orders", "3")]).await;
    let mut behind = Scan::default();
    behind.until(&service, "", 3, SOON).await;
    is_caught_up(&primary, &standby).await;
    // The standby hears nothing any more.
    standby
        .execute("alter system set primary_conninfo = ''; select pg_reload_conf()")
        .await;
    eventually(SOON, async || {
        let receivers = standby.text("select count(*)::text from pg_stat_wal_receiver").await;
        ensure!(receivers == "0", "the standby still receives");
        Ok(())
    })
    .await;
    let lost = publish_batch(&service, vec![event("orders", "lost 1"), event("orders", "lost 2")]).await;
    foreign_work(&primary).await;
    let mut ahead = Scan::default();
    ahead.until(&service, "", 5, SOON).await;
    primary.kill().await;
    standby.promote().await;

    let service = serve_on(&world, &standby).await;
    let told = service.json(&format!("/events?after={}", lost[1])).await;
    assert_eq!(
        (&told["truncated"], &told["count"]),
        (&Value::from(true), &Value::from(0))
    );
    let mut stream = StreamSubscriber::open(&service, "", Some(&lost[1])).await;
    for round in 0..5 {
        publish_batch(&service, vec![event("orders", &format!("new {round}"))]).await;
    }
    behind.until(&service, "", 8, SOON).await;
    ahead.until(&service, "", 10, SOON).await;
    let frames = stream.collect(6, SOON).await;
    assert_eq!(
        (frames[0].kind.as_str(), frames[5].event_id().as_str()),
        ("truncated", "new 4")
    );
    verified(&world, &standby).await;
}

/// Nothing is lost, so nobody is told of a gap.
#[tokio::test]
async fn promotion_of_a_synchronous_standby_skips_nothing() {
    let mut primary = PostgresServer::new().await;
    let world = World::on(&primary).await;
    let service = world.serve().await;
    let standby = primary.standby().await;
    primary
        .execute("alter system set synchronous_standby_names = '*'; select pg_reload_conf()")
        .await;
    let mut scan = Scan::default();
    for round in 0..3 {
        publish_batch(&service, vec![event("orders", &format!("old {round}"))]).await;
    }
    scan.until(&service, "", 3, SOON).await;
    foreign_work(&primary).await;
    scan.step(&service, "").await;
    primary.kill().await;
    // Nobody stands by for the new primary.
    standby.promote().await;
    standby
        .execute("alter system set synchronous_standby_names = ''; select pg_reload_conf()")
        .await;

    let service = serve_on(&world, &standby).await;
    for round in 0..5 {
        publish_batch(&service, vec![event("orders", &format!("new {round}"))]).await;
    }
    scan.until(&service, "", 8, SOON).await;
    let answer = service
        .fetch(&format!("/events?after={}", text(&scan.events[2], "cursor")))
        .await;
    assert_eq!(answer.json()["truncated"], Value::Null);
    assert_eq!(answer.json()["count"], 5);
    verified(&world, &standby).await;
}

/// Transaction ids of the other cluster are higher or lower than those of the first.
#[tokio::test]
async fn restored_dump_skips_nothing() {
    let from = PostgresServer::new().await;
    let world = World::on(&from).await;
    for foreign in [false, true] {
        let (service, other) = join(world.serve(), PostgresServer::new()).await;
        let topic = format!("orders {foreign}").replace(' ', "-");
        let filter = format!("&topic={topic}");
        publish_batch(&service, vec![event(&topic, "1"), event(&topic, "2")]).await;
        let mut scan = Scan::default();
        scan.until(&service, &filter, 2, SOON).await;
        if foreign {
            for _ in 0..100 {
                foreign_work(&other).await;
            }
        }
        from.dump_to(world.postgres().name(), &other);
        publish_batch(&service, vec![event(&topic, "not in the dump")]).await;
        scan.until(&service, &filter, 3, SOON).await;
        drop(service);

        let service = serve_on(&world, &other).await;
        for round in 0..5 {
            publish_batch(&service, vec![event(&topic, &format!("new {round}"))]).await;
        }
        scan.until(&service, &filter, 8, SOON).await;
        verified(&world, &other).await;
    }
}

/// An acknowledged event is on the standby, also where the first attempt to commit it was cut off while it waited for the standby.
#[tokio::test]
async fn commit_that_waited_for_a_standby_is_not_acknowledged_without_it() {
    let mut primary = PostgresServer::new().await;
    let world = World::on(&primary).await;
    let settings = world.settings().with("EVENTSIEVE_REQUEST_DEADLINE", "6s");
    let service = world.serve_with(settings).await;
    publish_batch(&service, vec![event("orders", "before")]).await;
    let mut standby = primary.standby().await;
    primary
        .execute("alter system set synchronous_standby_names = '*'; select pg_reload_conf()")
        .await;
    publish_batch(&service, vec![event("orders", "with the standby")]).await;

    for cut in ["terminated", "stopped", "crashed"] {
        standby.kill().await;
        let body = event("orders", cut);
        let cutting = async {
            let waiting = "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
            eventually(SOON, async || {
                ensure!(primary.text(waiting).await != "0", "no commit waits for the standby");
                Ok(())
            })
            .await;
            match cut {
                "terminated" => {
                    let sql = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'";
                    primary.execute(sql).await;
                }
                "stopped" => {
                    primary.stop().await;
                    primary.start().await;
                }
                _ => {
                    primary.kill().await;
                    primary.start().await;
                }
            }
        };
        let (answer, ()) = join(service.publish(&body), cutting).await;
        assert!(answer.status >= 500, "{cut}: {}", answer.text());
        // It is committed: a second attempt finds it, and must not take that for an acknowledgement either.
        let found = world
            .number(&format!("select count(*) from events where event_id = '{cut}'"))
            .await;
        assert_eq!(found, 1, "{cut}");
        let answer = service.publish(&body).await;
        assert!(answer.status >= 500, "{cut}: {}", answer.text());
        standby.start().await;
        publish_until_acknowledged(&service, vec![body]).await;
        is_caught_up(&primary, &standby).await;
    }
    drop(service);
    primary.kill().await;
    standby
        .execute("alter system set synchronous_standby_names = ''; select pg_reload_conf(); select pg_promote()")
        .await;
    let service = serve_on(&world, &standby).await;
    assert_eq!(page(&service, "limit=10").await.events.len(), 5);
    verified(&world, &standby).await;
}

/// The file is put back to a copy that was made earlier, while followers keep their cursors.
#[tokio::test]
async fn older_copy_of_the_file_skips_nothing() {
    let world = World::embedded();
    let mut service = world.serve().await;
    publish_batch(&service, vec![event("orders", "1"), event("orders", "2")]).await;
    let mut scan = Scan::default();
    scan.until(&service, "", 2, SOON).await;
    service.stop().await;
    let path = world.sqlite().path().to_owned();
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).expect("a file of our own");

    let mut service = world.serve().await;
    let lost = publish_batch(&service, vec![event("orders", "lost")]).await;
    scan.until(&service, "", 3, SOON).await;
    service.stop().await;
    std::fs::copy(&copy, &path).expect("a file of our own");

    let service = world.serve().await;
    let told = service.json(&format!("/events?after={}", lost[0])).await;
    assert_eq!(
        (&told["truncated"], &told["count"]),
        (&Value::from(true), &Value::from(0))
    );
    for round in 0..3 {
        publish_batch(&service, vec![event("orders", &format!("new {round}"))]).await;
    }
    scan.until(&service, "", 6, SOON).await;
    let mut stream = StreamSubscriber::open(&service, "", Some(&lost[0])).await;
    let frames = stream.collect(4, SOON).await;
    assert_eq!(
        (frames[0].kind.as_str(), frames[3].event_id().as_str()),
        ("truncated", "new 2")
    );
    world.check(5).await;
}

/// A store that is wiped and made anew under followers: their cursors are those of the older log.
#[tokio::test]
async fn wiped_store_tells_followers() {
    let (old, new) = (World::embedded(), World::embedded());
    let service = old.serve().await;
    let cursors = publish_batch(&service, vec![event("orders", "1")]).await;
    let place = page(&service, "after=").await.next;
    drop(service);
    let service = new.serve().await;
    publish_batch(&service, vec![event("orders", "new")]).await;
    for cursor in [&cursors[0], &place] {
        let told = service.json(&format!("/events?after={cursor}")).await;
        assert_eq!(
            (&told["truncated"], &told["count"]),
            (&Value::from(true), &Value::from(1))
        );
        let mut stream = StreamSubscriber::open(&service, "", Some(cursor)).await;
        let frames = stream.collect(2, SOON).await;
        assert_eq!(
            (frames[0].kind.as_str(), frames[1].event_id().as_str()),
            ("truncated", "new")
        );
    }
}
