//! The tester: a correct service passes, whatever other traffic it has, and a broken one fails.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join;
use integration_tests::postgres::free_port;
use integration_tests::redis::{RedisTarget, Subscriber, command};
use integration_tests::service::{Finished, Service};
use integration_tests::world::World;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a whole run may take, on a busy machine and without optimisation.
const RUN_TIMEOUT: Duration = Duration::from_secs(180);

/// The subject of the checks that need a Redis.
const CHANNEL: &str = "[channel]";

/// The environment variables of the tester.
#[derive(Default)]
struct Environment(BTreeMap<&'static str, String>);

impl Environment {
    fn of(service: &Service) -> Self {
        Self::default().with("BASE_URL", service.url())
    }

    fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.0.insert(variable, value.to_owned());
        self
    }

    fn with_redis(self, target: &RedisTarget) -> Self {
        self.with("REDIS_URL", target.url())
            .with("REDIS_CHANNEL", target.channel())
    }

    /// Runs the tester to its end. It inherits nothing else from the environment of the tests.
    async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tester"));
        command.args(arguments).env_clear().envs(&self.0).kill_on_drop(true);
        let output = timeout(RUN_TIMEOUT, command.output())
            .await
            .unwrap_or_else(|_| panic!("the tester did not end in {RUN_TIMEOUT:?}"))
            .expect("the tester starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The names of all checks.
async fn all() -> Vec<String> {
    let listed = Environment::default().run(&["--list"]).await;
    listed.ended_with(0);
    let names = listed.stdout.lines();
    names
        .map(|line| line.strip_suffix(": test").expect("a line for each check").to_owned())
        .collect()
}

/// Asserts that the last line reports this many passed checks and no failed one.
#[track_caller]
fn assert_passed(ended: &Finished, count: usize) {
    ended.ended_with(0);
    let last = ended.stdout.trim_end().lines().last().unwrap_or_default();
    let totals = format!("test result: ok. {count} passed; 0 failed;");
    assert!(last.starts_with(&totals), "{last} is not {totals}");
}

/// Asserts that the check with this name failed, and that its message contains this text.
#[track_caller]
fn assert_check_failed(ended: &Finished, name: &str, word: &str) {
    ended.ended_with(1);
    let message = ended
        .stdout
        .split_once(&format!("---- {name} ----\n"))
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map(|(message, _)| message)
        .unwrap_or_else(|| panic!("{name:?} did not fail:\n{}", ended.stdout));
    assert!(message.contains(word), "no {word:?} in {message}");
    assert!(message.contains("integration-tests/src/"), "no location in {message}");
    assert_eq!(ended.stderr, "", "failures are printed below the name of the check");
}

#[tokio::test]
async fn lists_every_check_without_a_service() {
    let all = all().await;
    assert!(all.len() >= 40, "{all:?}");
    for name in &all {
        assert!(name.starts_with('[') && name.contains("] "), "no subject: {name}");
        assert!(!name.contains('_'), "no words: {name}");
    }
    let channel = Environment::default().run(&["--list", CHANNEL]).await;
    assert!(channel.stdout.lines().count() >= 3, "{}", channel.stdout);
}

#[tokio::test]
async fn postgres_with_redis_passes_repeatedly_under_load() {
    let world = World::new().await;
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let tester = Environment::of(&service).with_redis(&target);
    let all = all().await;
    assert_passed(&tester.run(&[]).await, all.len());
    let load = ["--events", "6000", "--duplicate-rate", "0.3", "--rate", "600"];
    let (ended, _) = join(tester.run(&[]), world.load(service.url(), &load)).await;
    assert_passed(&ended, all.len());
    world.check_published(world.totals().await.rows).await;
    target.clean_up().await;
}

#[tokio::test]
async fn embedded_store_passes_without_channel_checks() {
    let world = World::embedded();
    let service = world.serve().await;
    let all = all().await;
    let of_the_channel = all.iter().filter(|name| name.starts_with(CHANNEL)).count();
    for _ in 0..2 {
        let ended = Environment::of(&service).run(&[]).await;
        assert_passed(&ended, all.len() - of_the_channel);
        let left_out = format!("no Redis: {of_the_channel} checks of the channel do not apply");
        assert!(ended.stdout.contains(&left_out), "{}", ended.stdout);
    }
    world.check(world.totals().await.rows).await;
}

/// Forwards each connection to the next of these services.
async fn balance(listener: &TcpListener, services: [&Service; 2]) {
    let mut connections = JoinSet::new();
    for service in services.into_iter().cycle() {
        let (mut client, _) = listener.accept().await.expect("a listener of our own");
        let address = service.address().to_owned();
        connections.spawn(async move {
            let mut service = TcpStream::connect(address).await.expect("the service listens");
            // Either side may disconnect.
            drop(copy_bidirectional(&mut client, &mut service).await);
        });
    }
}

#[tokio::test]
async fn two_replicas_behind_a_balancer_pass() {
    let world = World::new().await;
    let target = RedisTarget::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&target)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let tester = Environment::default()
        .with("BASE_URL", &format!("http://{address}"))
        .with_redis(&target);
    let ended = tokio::select! {
        ended = tester.run(&[]) => ended,
        () = balance(&listener, [replicas.one(), replicas.other()]) => panic!("it never ends"),
    };
    assert_passed(&ended, all().await.len());
    for replica in [replicas.one(), replicas.other()] {
        let received = replica.json("/stats").await["uptime_stats"]["received"].as_u64();
        assert!(received > Some(1000), "a replica has received {received:?} events");
    }
    world.check_published(world.totals().await.rows).await;
    target.clean_up().await;
}

#[tokio::test]
async fn missing_service_is_reported_in_one_line() {
    let unreachable = format!("http://127.0.0.1:{}", free_port());
    let patience = "EVENTSIEVE_TESTER_PATIENCE";
    for (base_url, word) in [
        (unreachable.as_str(), "was not ready within 1 s"),
        ("nonsense", "BASE_URL is not a URL"),
        ("https://127.0.0.1/", "BASE_URL is not of the form http://HOST:PORT"),
    ] {
        let tester = Environment::default().with("BASE_URL", base_url).with(patience, "1");
        let ended = tester.run(&[]).await;
        ended.ended_with(1);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(word) && ended.stderr.contains(base_url),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn unknown_check_name_fails() {
    let world = World::embedded();
    let service = world.serve().await;
    let ended = Environment::of(&service).run(&["no such check"]).await;
    ended.ended_with(1);
    assert!(ended.stderr.contains("--list"), "{}", ended.stderr);
}

/// A trigger before each row that is written to a table.
fn trigger(table: &str, body: &str) -> String {
    format!(
        "create function corrupt() returns trigger language plpgsql as $$ begin {body} end $$;
         create trigger corrupt before insert or update on {table} for each row execute function corrupt()"
    )
}

#[tokio::test]
async fn broken_store_fails_the_matching_check() {
    for (subject, name, word, table, body) in [
        (
            "[counters]",
            "the counters of a topic are exact",
            "after three more, each twice in one request",
            "topic_counts",
            "new.unique_processed := new.received; new.duplicate_dropped := 0; return new;",
        ),
        (
            "[batches]",
            "an array an envelope and ndjson are accepted",
            "what was stored",
            "events",
            "if new.event_id like '%7' then return null; end if; return new;",
        ),
        (
            "[order]",
            "the events of a request keep its order",
            "lists the events of one request in its order",
            "events",
            "new.position := 1000 - new.position; return new;",
        ),
        (
            "[topics]",
            "topics are kept apart and are case sensitive",
            "the events of",
            "events",
            "new.topic := lower(new.topic); return new;",
        ),
        (
            "[dedup]",
            "identities are compared byte for byte",
            "the ids as they are listed",
            "events",
            "new.event_id := btrim(new.event_id); return new;",
        ),
        (
            "[payload]",
            "a payload comes back byte for byte",
            "came back otherwise",
            "events",
            "new.payload := new.payload::jsonb::json; return new;",
        ),
        (
            "[schema]",
            "a timestamp comes back in utc in its shortest form",
            "2025-10-24T10:30:00.25Z",
            "events",
            "new.occurred_at := date_trunc('second', new.occurred_at); return new;",
        ),
    ] {
        let world = World::new().await;
        let service = world.serve().await;
        world.execute(&trigger(table, body)).await;
        let ended = Environment::of(&service).run(&[subject]).await;
        assert_check_failed(&ended, name, word);
    }
}

#[tokio::test]
async fn message_of_a_duplicate_fails() {
    const DUPLICATE: &str = "duplicates and conflicts have no message";

    let world = World::new().await;
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let tester = Environment::of(&service).with_redis(&target);
    let ended = tokio::select! {
        ended = tester.run(&[DUPLICATE]) => ended,
        () = repeat_each_seventh(&target, &subscriber) => panic!("it never ends"),
    };
    assert_check_failed(&ended, DUPLICATE, "messages of one stored event");
    target.clean_up().await;
}

/// Publishes every seventh message of the channel once more.
async fn repeat_each_seventh(target: &RedisTarget, subscriber: &Subscriber) {
    let mut seen = 0;
    loop {
        for message in &subscriber.wait_for(seen + 1, RUN_TIMEOUT).await[seen..] {
            seen += 1;
            // Repeated messages are received again, and counted with the others.
            if seen % 7 == 0 {
                command::<i64>(target.url(), &["PUBLISH", target.channel(), &message.event]).await;
            }
        }
    }
}

#[tokio::test]
async fn wrong_redis_is_reported() {
    let world = World::new().await;
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let each = "each stored event is one message as listed";
    let unset = Environment::of(&service).run(&[each]).await;
    assert_check_failed(&unset, each, "REDIS_URL is not set");
    let unreachable = format!("redis://127.0.0.1:{}/0", free_port());
    let wrong = Environment::of(&service)
        .with("REDIS_URL", &unreachable)
        .run(&[each])
        .await;
    assert_check_failed(&wrong, each, "the Redis that REDIS_URL names cannot be subscribed to");
    let elsewhere = Environment::of(&service)
        .with_redis(&RedisTarget::shared())
        .run(&[each])
        .await;
    assert_check_failed(&elsewhere, each, "have no message on the channel \"channel-");
    target.clean_up().await;
}
