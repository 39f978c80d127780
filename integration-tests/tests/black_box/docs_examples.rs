//! The documentation: the commands in its pages print what the pages show, and the example programs run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use integration_tests::containers::manual;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::markdown::{Example, blocks, examples, page, pages, root, section};
use integration_tests::publish::{self, Publish, event};
use integration_tests::redis::RedisServer;
use integration_tests::service::{Service, Settings, binary};
use integration_tests::world::World;
use reqwest::Url;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

/// Pages whose commands run against a service on an empty embedded store, each page against one of its own.
const EMBEDDED: [&str; 5] = [
    "README.md",
    "docs/quickstart.md",
    "docs/guides/publish.md",
    "docs/guides/read.md",
    "docs/guides/retention.md",
];

/// The page whose commands run against a service with a Redis and a stream named `log`.
const SUBSCRIBERS: &str = "docs/guides/subscribe.md";

/// The page whose commands run in the root of the repository.
const REPOSITORY: &str = "CONTRIBUTING.md";

/// Where `integration-tests/setup test` installs the Python of the examples, with its packages.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin");

/// The exit code of `timeout` when it had to end the command.
const TIMED_OUT: i32 = 124;

/// The number at which the log of the pages began. The numbers of batches begin at the time of the first start.
const SHOWN_BASE: i64 = 0x000660caf0d073d4;

/// Numbers of batches are written with this many digits, and followed by eight digits of a position.
const BATCH_DIGITS: usize = 16;

/// The text with the cursors of another log: those of its first 1000 batches.
fn renumbered(text: &str, from: i64, to: i64) -> String {
    // All of them have these digits in common.
    let common = &format!("{from:016x}")[..BATCH_DIGITS - 4];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(common) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let (batch, behind) = found.split_at(BATCH_DIGITS.min(found.len()));
        match i64::from_str_radix(batch, 16) {
            Ok(batch) if (from..from + 1000).contains(&batch) => out.push_str(&format!("{:016x}", to + (batch - from))),
            _ => out.push_str(batch),
        }
        rest = behind;
    }
    out + rest
}

/// The text without values that differ from run to run: times, and how many events a flush waited for.
fn steady(text: &str) -> String {
    let mut steady = text.to_owned();
    let before = "received before ";
    for (begin, end) in [("\"received_at\":\"", '"'), ("\"flushed\":", '}'), (before, 'Z')] {
        let parts: Vec<String> = steady
            .split(begin)
            .enumerate()
            .map(|(number, part)| match part.find(end) {
                Some(at) if number > 0 => format!("…{}", &part[at..]),
                _ => part.to_owned(),
            })
            .collect();
        steady = parts.join(begin);
    }
    steady
}

/// A folder in which a reader tries a page, with a service on an embedded store.
struct Reader {
    folder: TempDir,
    service: Service,
    redis_url: String,
    /// The number at which the log of the service begins.
    base: i64,
}

impl Reader {
    async fn with(settings: impl Fn(Settings) -> Settings, redis_url: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let service = Service::start(settings(Settings::new(&Self::database(&folder)))).await;
        service.ready().await;
        // The first writer begins the numbering.
        let beginning = eventually(SOON, async || {
            let next = publish::page(&service, "limit=1").await.next;
            let batch = &next[..BATCH_DIGITS];
            ensure!(batch.bytes().any(|digit| digit != b'0'), "the numbering has not begun");
            Ok(next)
        })
        .await;
        Reader {
            folder,
            service,
            redis_url: redis_url.to_owned(),
            base: i64::from_str_radix(&beginning[..BATCH_DIGITS], 16).expect("a cursor"),
        }
    }

    fn database(folder: &TempDir) -> String {
        format!("sqlite://{}", folder.path().join("data/eventsieve.db").display())
    }

    /// A text of the page with the address of this reader's service.
    fn localized(&self, text: &str) -> String {
        let text = text.replace("http://127.0.0.1:8080", self.service.url());
        renumbered(&text, SHOWN_BASE, self.base)
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = shell(&self.localized(command), self.folder.path());
        shell
            .env("DATABASE_URL", Self::database(&self.folder))
            .env("REDIS_URL", &self.redis_url)
            .env("TARGET_URL", self.service.url());
        shell
    }

    /// Runs a command to its end and returns its output.
    async fn run(&self, command: &str) -> String {
        output(self.shell(command), command).await
    }

    /// Writes each Python script of a page into the folder, under the name in its first line.
    fn write_scripts(&self, page: &str) {
        for script in blocks(page, "python") {
            let name = script.lines().next().and_then(|line| line.strip_prefix("# "));
            let file = self.folder.path().join(name.expect("a script begins with its name"));
            fs::write(file, self.localized(script)).expect("a file in a folder of our own");
        }
    }
}

/// A command in a shell that finds the program under test.
fn shell(command: &str, folder: &Path) -> Command {
    let programs = binary();
    let programs = programs.parent().expect("the binary is in a folder");
    let path = std::env::var("PATH").expect("programs are found by it");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}:{PYTHON}:{path}", programs.display()))
        .env("NO_PROXY", "*")
        // Of the `make` that runs the tests: a `make` below it would print that it enters a directory.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .kill_on_drop(true);
    shell
}

/// Runs a command to its end, which may be the end of a `timeout` of its own, and returns its output.
async fn output(mut shell: Command, command: &str) -> String {
    let ran = timeout(SOON, shell.output())
        .await
        .expect("an example ends")
        .expect("bash is there");
    let is_over = ran.status.success() || (command.starts_with("timeout ") && ran.status.code() == Some(TIMED_OUT));
    assert!(is_over, "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    // curl ends without a line feed.
    String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()
}

/// An example program in Rust, which cargo has built beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let built = test
        .ancestors()
        .nth(2)
        .expect("cargo builds tests in a folder of the target");
    built.join("examples").join(name)
}

#[tokio::test]
async fn examples_of_an_embedded_store_print_what_they_show() {
    for path in EMBEDDED {
        let reader = Reader::with(|settings| settings, "").await;
        let text = page(path);
        reader.write_scripts(&text);
        let examples = examples(&text);
        assert!(!examples.is_empty(), "{path} has no examples");
        for Example { command, output } in examples {
            let shown = steady(&reader.localized(output.trim_end()));
            if changes(&command) {
                let printed = reader.run(&command).await;
                assert_eq!(steady(&printed), shown, "{path}: {command}");
                continue;
            }
            // On a busy machine a second may be too short for a stream, and an event not published yet.
            eventually(SOON, async || {
                let printed = steady(&reader.run(&command).await);
                ensure!(printed == shown, "{path}: {command}\n{printed}\ninstead of\n{shown}");
                Ok(())
            })
            .await;
        }
    }
}

/// Whether another run of a command may find what its first run did: those that publish or delete. The others only read.
fn changes(command: &str) -> bool {
    command.contains("publish") || (command.contains("prune") && !command.contains("--dry-run"))
}

/// A command that ends in `&` continues in the background, and is listening before the next one is run; the final content of a file
/// is waited for.
#[tokio::test]
async fn examples_for_subscribers_print_what_they_show() {
    let redis = RedisServer::new().await;
    let settings = |settings: Settings| {
        // At debug each request has a line in the log, which shows when a subscriber is connected.
        let settings = settings.with("RUST_LOG", "eventsieve=debug");
        settings.with("REDIS_URL", &redis.url()).with("REDIS_STREAM", "log")
    };
    let reader = Reader::with(settings, &redis.url()).await;
    let text = page(SUBSCRIBERS);
    reader.write_scripts(&text);
    let examples = examples(&text);
    assert!(examples.len() > 6, "{SUBSCRIBERS} has examples");
    let mut background = Vec::new();
    for Example { command, output } in examples {
        if let Some(command) = command.strip_suffix(" &") {
            background.push(reader.shell(&format!("exec {command}")).spawn().expect("bash is there"));
            listening(&reader, &redis, command).await;
            continue;
        }
        eventually(SOON, async || {
            let printed = reader.run(&command).await;
            let (printed, output) = (steady(&printed), steady(&reader.localized(output.trim_end())));
            ensure!(printed == output, "{command}\n{printed}\ninstead of\n{output}");
            Ok(())
        })
        .await;
    }
}

/// Waits until a command that listens is connected to what it listens to.
async fn listening(reader: &Reader, redis: &RedisServer, command: &str) {
    eventually(SOON, async || {
        if command.starts_with("redis-cli") {
            let (_, subscribers): (String, u32) = redis.command(&["PUBSUB", "NUMSUB", "events"]).await;
            ensure!(subscribers == 1, "no subscriber on the channel");
        } else {
            let log = reader.service.log();
            ensure!(log.contains("/events/stream"), "no subscriber of the stream");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn examples_of_the_repository_print_what_they_show() {
    for Example { command, output: shown } in examples(&page(REPOSITORY)) {
        let printed = output(shell(&command, &root()), &command).await;
        assert_eq!(printed, shown.trim_end(), "{REPOSITORY}: {command}");
    }
}

#[test]
fn every_page_with_examples_is_run() {
    let run: BTreeSet<String> = EMBEDDED
        .iter()
        .chain(&[SUBSCRIBERS, REPOSITORY, manual::PAGE])
        .map(|path| (*path).to_owned())
        .collect();
    let with_examples: BTreeSet<String> = pages()
        .into_iter()
        .filter(|path| !blocks(&page(path), "console").is_empty())
        .collect();
    assert_eq!(with_examples, run);
}

/// A producer that is run again finds its events stored, and a consumer that is run again continues where it stopped.
#[tokio::test]
async fn example_programs_publish_and_consume_every_event_once() {
    let reader = Reader::with(|settings| settings, "").await;
    let url = "http://127.0.0.1:8080";
    let producer = root().join("examples/python/producer.py");
    let consumer = root().join("examples/python/consumer.py");
    let publish = |events: u32| format!("python3 {} --url {url} --events {events}", producer.display());
    let consume = |events: u32| format!("python3 {} --url {url} --limit {events}", consumer.display());
    assert_eq!(reader.run(&publish(20)).await, "stored 20, duplicates 0");
    assert_eq!(reader.run(&publish(30)).await, "stored 10, duplicates 20");
    assert!(reader.run(&consume(12)).await.contains("12 events processed"));
    assert!(reader.run(&consume(18)).await.contains("30 events processed"));

    let printed = reader.run(&format!("{} {url} 30", example("client").display())).await;
    assert!(printed.ends_with("read back 30 events"), "{printed}");
    assert_eq!(
        reader.service.fetch("/stats?topic=example.rust").await.json()["unique_processed"],
        30
    );
}

/// The example programs resend after a 503, a 504 and a lost connection, and resume a stream that was cut off where it ended.
#[tokio::test]
async fn example_programs_resend_and_resume() {
    let reader = Reader::with(|settings| settings, "").await;
    let producer = format!("python3 {}", root().join("examples/python/producer.py").display());
    let server = Scripted::start(troubled_publish()).await;
    let begun = Instant::now();
    let printed = reader.run(&format!("{producer} --url {} --events 2", server.url)).await;
    assert!(printed.ends_with("stored 2, duplicates 0"), "{printed}");
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "Retry-After was not honoured"
    );
    let bodies: Vec<String> = server.requests().iter().map(|request| body(request)).collect();
    assert!(
        bodies.len() == 4 && bodies.iter().all(|other| *other == bodies[0]),
        "{bodies:#?}"
    );

    let consumer = format!("python3 {}", root().join("examples/python/consumer.py").display());
    let server = Scripted::start(cut_stream()).await;
    let printed = reader.run(&format!("{consumer} --url {} --limit 2", server.url)).await;
    assert!(printed.ends_with("2 events processed so far"), "{printed}");
    assert_resumed(&server.requests());

    let server = Scripted::start([troubled_publish(), cut_stream()].concat()).await;
    let printed = reader
        .run(&format!("{} {} 2", example("client").display(), server.url))
        .await;
    assert!(
        printed.contains("stored 2, duplicates 0") && printed.ends_with("read back 2 events"),
        "{printed}"
    );
    let requests = server.requests();
    assert!(
        requests[..4].iter().all(|request| body(request) == body(&requests[0])),
        "{requests:#?}"
    );
    assert_resumed(&requests[4..]);
}

/// Responses to a request to publish two events: refused, cut off, unknown, stored.
fn troubled_publish() -> Vec<String> {
    let response = |head: &str, body: &str| {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    vec![
        response("503 Service Unavailable\r\nretry-after: 1", "{}"),
        String::new(),
        response("504 Gateway Timeout", r#"{"outcome":"unknown"}"#),
        response("201 Created", r#"{"unique_processed":2,"duplicate_dropped":0}"#),
    ]
}

/// Responses to a subscriber of two events: the first event and a part of the second, then the second.
fn cut_stream() -> Vec<String> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 1000\n\n";
    let frame = |number: u32| {
        let event = format!(r#"{{"topic":"t","event_id":"order-{number:06}","payload":{{}},"cursor":"c{number}"}}"#);
        format!("id: c{number}\ndata: {event}\n\n")
    };
    let second = frame(1);
    vec![
        format!("{head}{}{}", frame(0), &second[..second.len() / 2]),
        format!("{head}{second}"),
    ]
}

fn assert_resumed(requests: &[String]) {
    let resumed: Vec<bool> = requests
        .iter()
        .map(|request| request.to_lowercase().contains("last-event-id: c0\r\n"))
        .collect();
    assert_eq!(resumed, [false, true], "{requests:#?}");
}

fn body(request: &str) -> String {
    let (_, body) = request.split_once("\r\n\r\n").expect("a request has a head");
    body.to_owned()
}

/// A server that gives each connection the next of its responses, closes it, and records the requests.
struct Scripted {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(responses: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = requests.clone();
        tokio::spawn(async move {
            for response in responses {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let request = read_request(&mut connection).await;
                recorded.lock().expect("no test panics here").push(request);
                let written = connection.write_all(response.as_bytes()).await;
                written.expect("the client reads");
            }
        });
        Scripted { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no test panics here").clone()
    }
}

/// Reads a request with its body.
async fn read_request(connection: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return text;
            }
        }
        let read = connection.read_buf(&mut request).await.expect("the client writes");
        assert!(read > 0, "the client went away: {text}");
    }
}

/// The statements of the guide give a role all that `serve --no-migrate`, `verify` and `prune` need, and not what `migrate`
/// does.
#[tokio::test]
async fn documented_grants_suffice_to_serve_verify_and_prune() {
    let world = World::new().await;
    let role = format!("eventsieve_service_{}", std::process::id());
    let guide = page("docs/guides/postgresql.md");
    let grants = section(&guide, "## Grants", "\n## ");
    let create = blocks(grants, "sql").join("\n");
    world.execute(&create.replace("eventsieve_service", &role)).await;
    let grant = blocks(grants, "sh").join("\n");
    assert_eq!(grant.trim(), "eventsieve migrate --grant-to eventsieve_service");
    world.run(&["migrate", "--grant-to", &role]).await.ended_with(0);
    let unknown = world.run(&["migrate", "--grant-to", "nobody \" of that name"]).await;
    assert!(
        unknown.ended_with(1).stderr.contains("does not exist"),
        "{}",
        unknown.stderr
    );

    let mut url = Url::parse(world.database_url()).expect("a URL");
    url.set_username(&role).expect("a role's name");
    url.set_password(Some("secret")).expect("a password");
    let settings = || Settings::new(url.as_str()).with("EVENTSIEVE_NO_MIGRATE", "true");
    let service = Service::start(settings()).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 200);
    assert_eq!(service.fetch("/events?after=").await.status, 200);
    let mut connection = PgConnection::connect(url.as_str()).await.expect("a connection");
    for change in [
        "update eventsieve.events set source = 'x'",
        "delete from eventsieve.events",
        "drop table eventsieve.events",
    ] {
        let refused = connection.execute(change).await.expect_err("the role may not");
        assert!(
            refused.to_string().contains("must be owner") || refused.to_string().contains("permission denied"),
            "{refused}"
        );
    }
    settings().arguments(&["verify"]).run().await.ended_with(0);
    let pruned = settings().arguments(&["prune", "--older-than", "0s"]).run().await;
    assert!(
        pruned.ended_with(0).stdout.starts_with("pruned 1 "),
        "{}",
        pruned.stdout
    );
    // There is nothing to migrate. Where there is, the role may not.
    settings().arguments(&["migrate"]).run().await.ended_with(0);
    let empty = World::new().await;
    let mut elsewhere = Url::parse(empty.database_url()).expect("a URL");
    elsewhere.set_username(&role).expect("a role's name");
    elsewhere.set_password(Some("secret")).expect("a password");
    let refused = Settings::new(elsewhere.as_str()).arguments(&["migrate"]).run().await;
    assert!(
        refused.ended_with(1).stderr.contains("permission denied"),
        "{}",
        refused.stderr
    );
    drop(service);
    world.check(0).await;
    world.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
