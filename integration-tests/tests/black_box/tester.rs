//! The tester: it passes on a service that is right, whatever else goes on there, and a service that is wrong does not pass.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join;
use integration_tests::postgres::free_port;
use integration_tests::redis::{Outlet, Subscriber, command};
use integration_tests::service::{Finished, Service};
use integration_tests::world::World;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a whole run may take, on a busy machine and without optimisation.
const RUN_TIMEOUT: Duration = Duration::from_secs(180);

/// The subject of the checks that a service without a Redis is not asked.
const CHANNEL: &str = "[channel]";

/// What the tester is told of a deployment.
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

    fn with_redis(self, outlet: &Outlet) -> Self {
        self.with("REDIS_URL", outlet.url())
            .with("REDIS_CHANNEL", outlet.channel())
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

/// Asserts that so many checks passed and none failed, in one line at the end.
#[track_caller]
fn assert_passed(ended: &Finished, count: usize) {
    ended.ended_with(0);
    let last = ended.stdout.trim_end().lines().last().unwrap_or_default();
    let totals = format!("test result: ok. {count} passed; 0 failed;");
    assert!(last.starts_with(&totals), "{last} is not {totals}");
}

/// Asserts that the check with this name failed, and was told of by this word.
#[track_caller]
fn assert_caught(ended: &Finished, sentence: &str, word: &str) {
    ended.ended_with(1);
    let told = ended
        .stdout
        .split_once(&format!("---- {sentence} ----\n"))
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map(|(told, _)| told)
        .unwrap_or_else(|| panic!("{sentence:?} did not fail:\n{}", ended.stdout));
    assert!(told.contains(word), "nothing of {word:?} is told: {told}");
    assert!(told.contains("integration-tests/src/"), "no place is told: {told}");
    assert_eq!(ended.stderr, "", "everything is told under the name of its check");
}

#[tokio::test]
async fn the_list_names_every_check_in_words_and_needs_no_service() {
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
async fn a_service_on_postgresql_with_a_redis_passes_again_and_again_and_beside_traffic() {
    let world = World::new().await;
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let tester = Environment::of(&service).with_redis(&outlet);
    let all = all().await;
    assert_passed(&tester.run(&[]).await, all.len());
    let load = ["--events", "6000", "--duplicate-rate", "0.3", "--rate", "600"];
    let (ended, _) = join(tester.run(&[]), world.load(service.url(), &load)).await;
    assert_passed(&ended, all.len());
    world.check_fanned_out(world.totals().await.rows).await;
    outlet.clean_up().await;
}

#[tokio::test]
async fn a_service_on_the_embedded_store_alone_passes_without_the_checks_of_the_channel() {
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

/// Leads each connection to the next of some services, for ever.
async fn balance(listener: &TcpListener, services: [&Service; 2]) {
    let mut connections = JoinSet::new();
    for service in services.into_iter().cycle() {
        let (mut client, _) = listener.accept().await.expect("a listener of our own");
        let address = service.address().to_owned();
        connections.spawn(async move {
            let mut service = TcpStream::connect(address).await.expect("the service listens");
            // Either side may break it off.
            drop(copy_bidirectional(&mut client, &mut service).await);
        });
    }
}

#[tokio::test]
async fn two_replicas_behind_a_balancer_pass() {
    let world = World::new().await;
    let outlet = Outlet::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&outlet)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let tester = Environment::default()
        .with("BASE_URL", &format!("http://{address}"))
        .with_redis(&outlet);
    let ended = tokio::select! {
        ended = tester.run(&[]) => ended,
        () = balance(&listener, [replicas.one(), replicas.other()]) => panic!("it goes on"),
    };
    assert_passed(&ended, all().await.len());
    for replica in [replicas.one(), replicas.other()] {
        let taken = replica.json("/stats").await["uptime_stats"]["received"].as_u64();
        assert!(taken > Some(1000), "a replica was sent {taken:?} events");
    }
    world.check_fanned_out(world.totals().await.rows).await;
    outlet.clean_up().await;
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_of_in_one_line() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let patience = "EVENTSIEVE_TESTER_PATIENCE";
    for (base_url, word) in [
        (nobody.as_str(), "was not ready within 1 s"),
        ("nonsense", "BASE_URL is no URL"),
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
async fn a_name_that_no_check_has_is_no_success() {
    let world = World::embedded();
    let service = world.serve().await;
    let ended = Environment::of(&service).run(&["no such check"]).await;
    ended.ended_with(1);
    assert!(ended.stderr.contains("--list"), "{}", ended.stderr);
}

/// A trigger before each row that is written to a table.
fn trigger(table: &str, body: &str) -> String {
    format!(
        "create function lie() returns trigger language plpgsql as $$ begin {body} end $$;
         create trigger lie before insert or update on {table} for each row execute function lie()"
    )
}

#[tokio::test]
async fn a_store_that_is_wrong_is_caught_by_the_check_for_it() {
    for (subject, sentence, word, table, body) in [
        (
            "[counters]",
            "the counters of a topic are exact",
            "after three more, each twice in one request",
            "topic_counts",
            "new.unique_processed := new.received; new.duplicate_dropped := 0; return new;",
        ),
        (
            "[batches]",
            "an array an envelope and lines are taken",
            "unique_processed of an answer to /publish",
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
            "unique_processed of an answer to /publish",
            "events",
            "new.topic := lower(new.topic); return new;",
        ),
        (
            "[dedup]",
            "identities are compared byte for byte",
            "is an id of its own",
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
            "a timestamp comes back in utc with no more digits than needed",
            "2025-10-24T10:30:00.25Z",
            "events",
            "new.occurred_at := date_trunc('second', new.occurred_at); return new;",
        ),
    ] {
        let world = World::new().await;
        let service = world.serve().await;
        world.execute(&trigger(table, body)).await;
        let ended = Environment::of(&service).run(&[subject]).await;
        assert_caught(&ended, sentence, word);
    }
}

#[tokio::test]
async fn a_message_of_a_duplicate_is_caught() {
    const DUPLICATE: &str = "no message is of a duplicate or a conflict";

    let world = World::new().await;
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let tester = Environment::of(&service).with_redis(&outlet);
    let ended = tokio::select! {
        ended = tester.run(&[DUPLICATE]) => ended,
        () = repeat_each_seventh(&outlet, &subscriber) => panic!("it goes on"),
    };
    assert_caught(&ended, DUPLICATE, "messages of one stored event");
    outlet.clean_up().await;
}

/// Publishes every seventh message of the channel once more.
async fn repeat_each_seventh(outlet: &Outlet, subscriber: &Subscriber) {
    let mut seen = 0;
    loop {
        for message in &subscriber.wait_for(seen + 1, RUN_TIMEOUT).await[seen..] {
            seen += 1;
            // Its own come back to it, and are counted with the others.
            if seen % 7 == 0 {
                command::<i64>(outlet.url(), &["PUBLISH", outlet.channel(), &message.event]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_redis_that_is_not_the_deployments_is_told_of() {
    let world = World::new().await;
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let each = "each stored event is one message equal to the event in events";
    let untold = Environment::of(&service).run(&[each]).await;
    assert_caught(&untold, each, "REDIS_URL is not set");
    let nobody = format!("redis://127.0.0.1:{}/0", free_port());
    let wrong = Environment::of(&service).with("REDIS_URL", &nobody).run(&[each]).await;
    assert_caught(&wrong, each, "the Redis that REDIS_URL names cannot be subscribed to");
    let elsewhere = Environment::of(&service)
        .with_redis(&Outlet::shared())
        .run(&[each])
        .await;
    assert_caught(&elsewhere, each, "were not heard on the channel \"channel-");
    outlet.clean_up().await;
}
