//! A client that behaves, beside others that take what they can get, on a service with the memory of a small container.
//!
//! Each attack is one that once took all of something: memory, places, turns, topics, or the queue. The service is a process of this
//! machine in a control group of 512 MB; its clients have addresses of their own, as clients of different machines would have.
//!
//! The tests demand that no request of the client fails, and that the memory suffices. How much it is delayed depends on the processors,
//! which it shares with those that attack: `tools neighbours` measures that, of a release build.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::group::MemoryGroup;
use super::stack::Stack;
use crate::publish::{event, events};
use crate::service::{Service, Settings};

const MEMORY: u64 = 512 << 20;

const ATTACKER: [u8; 4] = [127, 0, 0, 2];

/// How long the client is measured alone, and beside each attack; and how long an attack has to unfold.
const ALONE: Duration = Duration::from_secs(4);
const BESIDE: Duration = Duration::from_secs(4);
const UNFOLD: Duration = Duration::from_secs(2);

/// A client that is answered within this time is not delayed, whatever it was alone.
const NO_DELAY: Duration = Duration::from_millis(20);

/// The client sends a single event so often.
const PACE: Duration = Duration::from_millis(10);

/// One that takes a connection is answered within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// On the embedded store.
pub async fn well_behaved_client_is_served_on_the_embedded_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    show(&six_attacks(Settings::new(&url)).await);
}

/// On the PostgreSQL of the deployment.
pub async fn well_behaved_client_is_served_on_postgres() {
    let stack = Stack::plain().await;
    let storage = stack.container("storage").await;
    let address = stack.address(&storage).await;
    let url = format!("postgres://eventsieve:eventsieve@{address}:5432/eventsieve");
    show(&six_attacks(Settings::new(&url).with("EVENTSIEVE_SCHEMA", "neighbours")).await);
    stack.sql("drop schema neighbours cascade").await;
}

fn show(slow: &[String]) {
    slow.iter()
        .for_each(|line| println!("more than three times as slow: {line}"));
}

/// Runs one attack after the other beside the client. No request of the client may fail. Returns what was slower than three times as slow as
/// without the attack.
pub async fn six_attacks(settings: Settings) -> Vec<String> {
    let group = MemoryGroup::new(MEMORY);
    let (program, arguments) = group.starter();
    // Without a limit of new topics for what is prepared here, and with room for the handles of thousands of connections.
    let mut service = Service::start(settings.by(&program, &arguments)).await;
    service.ready_within(Duration::from_secs(60)).await;
    let client = Client::of(&service);
    let filling: Vec<Value> = (0..30)
        .map(|part| events(&format!("filling-{part}"), 0..500).into())
        .collect();
    for part in &filling {
        assert_eq!(client.publish(part).await, 201);
    }
    let mut number = 0;
    let mut measure = async |time: Duration| client.measure(time, &mut number).await;
    // The first requests open connections.
    measure(Duration::from_secs(1)).await;
    let alone = measure(ALONE).await;
    println!("alone: {alone}");
    let target = Arc::new(Target::of(&service));
    let mut slow = Vec::new();
    for attack in Attack::ALL {
        let mut attackers = attack.begin(&target);
        sleep(UNFOLD).await;
        let beside = measure(BESIDE).await;
        attackers.shutdown().await;
        let is_delayed = beside.p99 > (3 * alone.p99).max(NO_DELAY);
        println!("beside {attack:?}: {beside}");
        if is_delayed {
            slow.push(format!("{attack:?}: {beside}, alone {alone}"));
        }
    }
    println!(
        "memory at most: {} MB of {} MB, caches of files included",
        group.peak() >> 20,
        MEMORY >> 20
    );
    service.stop().await;
    group.remove().await;
    slow
}

/// The latencies of a client.
#[derive(Debug, Clone, Copy)]
struct Latency {
    p50: Duration,
    p99: Duration,
    requests: usize,
}

impl std::fmt::Display for Latency {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            formatter,
            "p50 {:.1} ms, p99 {:.1} ms of {} requests",
            milliseconds(self.p50),
            milliseconds(self.p99),
            self.requests
        )
    }
}

/// The client that behaves.
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    fn of(service: &Service) -> Self {
        let http = reqwest::Client::builder()
            .local_address(IpAddr::from([127, 0, 0, 1]))
            .timeout(PATIENCE)
            .build();
        Self {
            http: http.expect("a client"),
            url: format!("http://{}", service.address()),
        }
    }

    async fn publish(&self, body: &Value) -> u16 {
        let sent = self.http.post(format!("{}/publish", self.url)).json(body).send().await;
        sent.map_or(0, |answer| answer.status().as_u16())
    }

    async fn get(&self, path: &str) -> u16 {
        let sent = self.http.get(format!("{}{path}", self.url)).send().await;
        sent.map_or(0, |answer| answer.status().as_u16())
    }

    /// Sends single events at a pace, and looks at the probes and the figures now and then. All must succeed.
    async fn measure(&self, time: Duration, number: &mut u64) -> Latency {
        let end = Instant::now() + time;
        let mut latencies = Vec::new();
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while Instant::now() < end {
            pace.tick().await;
            *number += 1;
            let body = event("behaved", &number.to_string());
            let begun = Instant::now();
            assert_eq!(
                self.publish(&body).await,
                201,
                "event {number} after {:?}",
                begun.elapsed()
            );
            latencies.push(begun.elapsed());
            if number.is_multiple_of(25) {
                for path in ["/readyz", "/livez", "/stats", "/health"] {
                    assert_eq!(self.get(path).await, 200, "{path}");
                }
            }
        }
        latencies.sort_unstable();
        Latency {
            p50: latencies[latencies.len() / 2],
            p99: latencies[latencies.len() * 99 / 100],
            requests: latencies.len(),
        }
    }
}

/// Where the others connect to, and what they send.
struct Target {
    address: SocketAddr,
    batches: Vec<String>,
    faults: String,
    gzip: Vec<u8>,
}

/// What the others do.
#[derive(Debug, Clone, Copy)]
enum Attack {
    /// Ten uploads of which a little comes, and then nothing.
    StalledUploads,
    /// New topics, as fast as they are taken, and the figures of all.
    NewTopics,
    /// Lists that are long to read.
    DeepLists,
    /// A thousand streams that nobody reads, and as many connections as there may be that say nothing.
    UnreadStreams,
    /// Batches of ten thousand events from 24 connections.
    LargeBatches,
    /// Requests with thousands of faults, whose answers nobody reads.
    UnreadFaults,
}

impl Attack {
    const ALL: [Self; 6] = [
        Self::StalledUploads,
        Self::NewTopics,
        Self::DeepLists,
        Self::UnreadStreams,
        Self::LargeBatches,
        Self::UnreadFaults,
    ];

    fn begin(self, target: &Arc<Target>) -> JoinSet<()> {
        let mut attackers = JoinSet::new();
        let count = match self {
            Self::StalledUploads => 10,
            Self::NewTopics => 4,
            Self::DeepLists => 16,
            Self::UnreadStreams => 5000,
            Self::LargeBatches => 24,
            Self::UnreadFaults => 1230,
        };
        for number in 0..count {
            let target = target.clone();
            attackers.spawn(async move {
                loop {
                    self.once(&target, number).await;
                }
            });
        }
        attackers
    }

    async fn once(self, target: &Target, number: usize) {
        match self {
            Self::StalledUploads => {
                let head = post(5 << 20, "content-encoding: gzip\r\n");
                target.leave_alone(&[head.as_bytes(), &target.gzip]).await;
            }
            Self::NewTopics => {
                let batch: Vec<Value> = (0..1000)
                    .map(|_| event(&format!("new-{}", uuid::Uuid::new_v4()), "1"))
                    .collect();
                let body = Value::from(batch).to_string();
                target.ask(&[post(body.len(), "").as_bytes(), body.as_bytes()]).await;
                target.ask(&[get("/stats").as_bytes()]).await;
            }
            Self::DeepLists => {
                let path = format!("/events?limit=1000&offset={}", 9000 + number);
                target.ask(&[get(&path).as_bytes()]).await;
            }
            Self::UnreadStreams if number < 1000 => {
                target.leave_alone(&[get("/events/stream?after=").as_bytes()]).await;
            }
            Self::UnreadStreams => target.leave_alone(&[]).await,
            Self::LargeBatches => {
                let body = &target.batches[number % target.batches.len()];
                target.ask(&[post(body.len(), "").as_bytes(), body.as_bytes()]).await;
            }
            Self::UnreadFaults => {
                let head = post(target.faults.len(), "prefer: handling=lenient\r\n");
                target.leave_alone(&[head.as_bytes(), target.faults.as_bytes()]).await;
            }
        }
    }
}

fn post(length: usize, more: &str) -> String {
    format!(
        "POST /publish HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
}

impl Target {
    fn of(service: &Service) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[b' '; 3 << 20]).expect("memory takes all");
        let address = service.address();
        Self {
            address: address.parse().expect("an address"),
            batches: (0..24)
                .map(|number| Value::from(events(&format!("large-{number}"), 0..10_000)).to_string())
                .collect(),
            faults: format!("[{}{}]", event("faults", "1"), ",1".repeat(9_999)),
            gzip: encoder.finish().expect("memory takes all"),
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((ATTACKER, 0)))?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(self.address).await
    }

    /// Sends something, and reads the answer.
    async fn ask(&self, parts: &[&[u8]]) {
        let asked = async {
            let mut stream = self.connect().await?;
            for part in parts {
                stream.write_all(part).await?;
            }
            let mut answer = vec![0; 64 << 10];
            while stream.read(&mut answer).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Whoever is refused does not come back at once, or there would be nothing but connections.
        if !matches!(timeout(PATIENCE, asked).await, Ok(Ok(()))) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends something, and then does nothing until the connection is closed by the service.
    async fn leave_alone(&self, parts: &[&[u8]]) {
        let left = async {
            let mut stream = self.connect().await?;
            for part in parts {
                stream.write_all(part).await?;
            }
            // Not read: only whether it is still there is asked, seldom.
            loop {
                sleep(Duration::from_secs(1)).await;
                stream.write_all(b"").await?;
                if let Ok(Some(_)) = stream.take_error() {
                    return std::io::Result::Ok(());
                }
            }
        };
        if left.await.is_err() {
            sleep(Duration::from_millis(500)).await;
        }
    }
}
