//! A long run of mixed load at the edge of memory: a service in a control group of 256 MB whose log nobody reads, with publishers,
//! subscribers that read and some that do not, and readers of the largest pages, some of whom never read their answers.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::api::Api;
use integration_tests::containers::group::MemoryGroup;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::try_ask;
use integration_tests::processes::resident_bytes;
use integration_tests::publish::{event, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::stream_subscriber::{StalledSubscriber, StreamSubscriber};
use integration_tests::world::World;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::settings;

const MEMORY: u64 = 256 << 20;

/// How often the memory of the service is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// What was acknowledged, and what went wrong.
#[derive(Default)]
struct Tally {
    stored: AtomicU64,
    refused: AtomicU64,
}

/// Runs for so many minutes as `MINUTES` says, 60 unless it is set.
pub async fn endurance() -> Result<()> {
    let minutes = settings::minutes()?;
    for (name, world) in [("sqlite", World::embedded()), ("postgres", World::new().await)] {
        println!("on {name}, {minutes} minutes");
        run(world, Duration::from_secs(60 * minutes)).await?;
    }
    Ok(())
}

async fn run(world: World, time: Duration) -> Result<()> {
    let group = MemoryGroup::new(MEMORY);
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    ensure!(Command::new("mkfifo").arg(&log).status()?.success(), "no pipe");
    // Somebody holds the reading end, and never reads.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&log)?;
    let (program, arguments) = group.starter_with_log(&log);
    let settings = world
        .settings()
        .with("EVENTSIEVE_RETAIN", "20MB")
        .with("RUST_LOG", "debug");
    let service = Service::start(settings.by(&program, &arguments)).await;
    service.ready_within(Duration::from_secs(60)).await;
    let pid = service.pid();
    let (url, tally) = (service.url().to_owned(), Arc::new(Tally::default()));
    let mut load = JoinSet::new();
    for number in 0..3 {
        load.spawn(publish_singles(url.clone(), number, tally.clone()));
    }
    load.spawn(publish_batches(url.clone(), tally.clone()));
    load.spawn(publish_large(url.clone(), tally.clone()));
    for _ in 0..5 {
        load.spawn(follow(url.clone()));
    }
    for _ in 0..4 {
        load.spawn(read_pages(url.clone()));
        load.spawn(leave_pages_unread(url.clone()));
        load.spawn(stall(url.clone()));
    }
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        sleep(SAMPLE_INTERVAL).await;
        samples.push(resident_bytes(pid)? >> 20);
    }
    load.shutdown().await;
    let stored = tally.stored.load(Ordering::Relaxed);
    let quarter = samples.len() / 4;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or_default()
    };
    let (second, last) = (median(&samples[quarter..2 * quarter]), median(&samples[3 * quarter..]));
    println!(
        "{stored} events acknowledged, {} requests refused; resident memory: {} MB at most, median {second} MB in the second quarter and {last} MB in the last",
        tally.refused.load(Ordering::Relaxed),
        samples.iter().max().copied().unwrap_or_default()
    );
    ensure!(service.pid() == pid, "it was started again");
    ensure!(last <= second + second / 5 + 10, "the memory grows: {samples:?}");
    // A request that was cut off may have been stored after that.
    eventually(SOON, async || {
        let stats = service.json("/stats").await;
        ensure!(stats["queue"]["events"] == 0, "{stats}");
        Ok(())
    })
    .await;
    let stats = service.json("/stats").await;
    let unique = stats["unique_processed"].as_u64().unwrap_or_default();
    ensure!(
        unique >= stored,
        "{stored} events were acknowledged, {unique} are counted"
    );
    drop(service);
    drop(reader);
    group.remove().await;
    world.run(&["verify"]).await.ended_with(0);
    Ok(())
}

async fn publish(api: &Api, body: String, count: u64, tally: &Tally) {
    let sent = try_ask(
        api.post("/publish")
            .header("content-type", "application/json")
            .body(body),
    )
    .await;
    match sent {
        Ok(answer) if answer.status == 201 => drop(tally.stored.fetch_add(count, Ordering::Relaxed)),
        _ => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn publish_singles(url: String, client: usize, tally: Arc<Tally>) {
    let api = Api::at(&url);
    for number in 0.. {
        publish(
            &api,
            event(&format!("single-{client}"), &number.to_string()).to_string(),
            1,
            &tally,
        )
        .await;
        sleep(Duration::from_millis(20)).await;
    }
}

async fn publish_batches(url: String, tally: Arc<Tally>) {
    let api = Api::at(&url);
    for number in 0.. {
        let batch = Value::from(events("batch", number * 500..(number + 1) * 500));
        publish(&api, batch.to_string(), 500, &tally).await;
        sleep(Duration::from_millis(500)).await;
    }
}

/// Events of nearly the largest size.
async fn publish_large(url: String, tally: Arc<Tally>) {
    let api = Api::at(&url);
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(200 << 10));
    for number in 0.. {
        publish(
            &api,
            event_with_payload("large", &number.to_string(), &payload),
            1,
            &tally,
        )
        .await;
        sleep(Duration::from_millis(250)).await;
    }
}

async fn follow(url: String) {
    let api = Api::at(&url);
    loop {
        if let Ok(mut subscriber) = StreamSubscriber::try_open(&api, "", None).await {
            while let Ok(Some(_)) = subscriber.next().await {}
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// The largest pages.
async fn read_pages(url: String) {
    let api = Api::at(&url);
    loop {
        try_ask(api.get("/events?topic=large&limit=1000&order=desc")).await.ok();
        sleep(Duration::from_millis(100)).await;
    }
}

/// The same, but the answers are not read.
async fn leave_pages_unread(url: String) {
    let api = Api::at(&url);
    loop {
        let left = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            let mut stream: TcpStream = socket
                .connect(api.address().parse().map_err(std::io::Error::other)?)
                .await?;
            stream
                .write_all(b"GET /events?topic=large&limit=1000&order=desc HTTP/1.1\r\nhost: a\r\n\r\n")
                .await?;
            sleep(Duration::from_secs(20)).await;
            std::io::Result::Ok(())
        };
        left.await.ok();
        sleep(Duration::from_millis(500)).await;
    }
}

async fn stall(url: String) {
    let api = Api::at(&url);
    loop {
        let stalled = StalledSubscriber::open(&api, "after=").await;
        sleep(Duration::from_secs(30)).await;
        drop(stalled);
    }
}
