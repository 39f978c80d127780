//! What the fan-out costs: the throughput of batches of 1000 with Redis (a subscriber attached) and without, and how much of
//! the CPU each process took for an event.
//!
//! Each round runs every side once, each on an empty database, in an order that turns; the ratio of a round is of its own
//! sides, and the median of the ratios is the figure. `make fanout-cost` runs it on release builds, a throwaway PostgreSQL with
//! fsync on and a throwaway Redis. `ROUNDS` and `EVENTS` may be set.
//!
//! Then the same of followers: a tenth as many events, alone and with 500 of `/events/stream`, each of which must get all.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::processes;
use integration_tests::service::Settings;
use integration_tests::world::World;
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// How many follow at once.
const FOLLOWERS: usize = 500;
/// What each event brings once.
const FRAME: &[u8] = b"\nevent: event\n";

/// What the service publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Nothing,
    Channel,
    ChannelAndStream,
}

const SIDES: [Side; 3] = [Side::Nothing, Side::Channel, Side::ChannelAndStream];

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Nothing => "without Redis",
            Side::Channel => "channel",
            Side::ChannelAndStream => "channel and stream",
        }
    }
}

/// The CPU time in seconds that each process has taken so far, and their names.
const PROCESSES: [&str; 5] = ["service", "postgres", "publisher", "redis", "subscriber"];
type CpuTimes = [f64; 5];

/// What one run of a side showed.
struct Run {
    events_per_second: f64,
    cpu: CpuTimes,
}

#[tokio::main]
async fn main() -> Result<()> {
    let number = |name, default| std::env::var(name).map_or(Ok(default), |text| text.parse::<u32>());
    let (rounds, events) = (number("ROUNDS", 5)?, number("EVENTS", 200_000)?);
    let redis_url = std::env::var("REDIS_URL").context("REDIS_URL is not set: `make fanout-cost` starts a Redis")?;
    let mut runs: Vec<Vec<Run>> = SIDES.map(|_| Vec::new()).into();
    for round in 0..rounds {
        for turn in 0..SIDES.len() {
            let side = (turn + round as usize) % SIDES.len();
            runs[side].push(run(SIDES[side], &redis_url, events).await?);
        }
    }
    println!("{events} events in batches of 1000, 30 % duplicates, {rounds} rounds, medians; CPU in µs for each event");
    print!("{:<20}{:>12}{:>9}", "", "events/s", "ratio");
    PROCESSES.iter().for_each(|name| print!("{name:>12}"));
    println!();
    for (side, of_side) in SIDES.iter().zip(&runs) {
        let ratios = of_side
            .iter()
            .zip(&runs[0])
            .map(|(run, base)| run.events_per_second / base.events_per_second);
        print!(
            "{:<20}{:>12.0}{:>9.2}",
            side.name(),
            median(of_side.iter().map(|run| run.events_per_second)),
            median(ratios)
        );
        for process in 0..PROCESSES.len() {
            print!(
                "{:>12.2}",
                median(of_side.iter().map(|run| run.cpu[process] * 1e6 / f64::from(events)))
            );
        }
        println!();
    }
    let (mut alone, mut followed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(follow(0, events / 10).await?);
        followed.push(follow(FOLLOWERS, events / 10).await?);
    }
    let ratio = median(followed.iter().zip(&alone).map(|(followed, alone)| followed / alone));
    println!();
    println!("{} events in batches of 1000, {rounds} rounds, medians", events / 10);
    println!(
        "{:<20}{:>12.0}{:>9.2}",
        "nobody follows",
        median(alone.into_iter()),
        1.0
    );
    println!(
        "{:<20}{:>12.0}{ratio:>9.2}",
        format!("{FOLLOWERS} followers"),
        median(followed.into_iter())
    );
    Ok(())
}

/// Publishes while so many follow, until each has got every event; answers with the events published a second.
async fn follow(followers: usize, events: u32) -> Result<f64> {
    let world = World::new().await;
    let service = world.serve_with(world.settings().with("RUST_LOG", "warn")).await;
    let mut following = JoinSet::new();
    // 30 % are duplicates, rounded to the nearest.
    let unique = (events - (events * 3 + 5) / 10) as usize;
    for _ in 0..followers {
        let mut stream = TcpStream::connect(service.address()).await?;
        let request = format!("GET /events/stream HTTP/1.1\r\nhost: {}\r\n\r\n", service.address());
        stream.write_all(request.as_bytes()).await?;
        // The head comes once its place in the log is fixed.
        stream.readable().await?;
        following.spawn(count(stream, unique));
    }
    let published = publish(&world, service.url(), events).await;
    while let Some(counted) = following.join_next().await {
        counted??;
    }
    Ok(published)
}

/// Reads until so many events have come.
async fn count(mut stream: TcpStream, events: usize) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let (mut kept, mut seen) = (0, 0);
    while seen < events {
        let read = stream.read(&mut buffer[kept..]).await?;
        ensure!(read > 0, "cut after {seen} of {events} events");
        let read = &buffer[..kept + read];
        seen += read.windows(FRAME.len()).filter(|window| window == &FRAME).count();
        // A frame's name may come in two pieces.
        let end = read.len() - (FRAME.len() - 1).min(read.len());
        kept = read.len() - end;
        buffer.copy_within(end..end + kept, 0);
    }
    Ok(())
}

/// The load generator's events a second.
async fn publish(world: &World, url: &str, events: u32) -> f64 {
    let published = Settings::new(world.database_url())
        .arguments(&[
            "load",
            "--url",
            url,
            "--batch-size",
            "1000",
            "--concurrency",
            "8",
            "--events",
            &events.to_string(),
        ])
        .run()
        .await;
    published.ended_with(0);
    published.figure("events/s") as f64
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn run(side: Side, redis_url: &str, events: u32) -> Result<Run> {
    let world = World::new().await;
    let stream = format!("fanout-cost-{}", uuid::Uuid::new_v4());
    let mut settings = world.settings().with("RUST_LOG", "warn");
    if side != Side::Nothing {
        settings = settings.with("REDIS_URL", redis_url).with("REDIS_CHANNEL", &stream);
    }
    if side == Side::ChannelAndStream {
        settings = settings.with("REDIS_STREAM", &stream);
    }
    let subscriber = subscriber(redis_url, &stream)?;
    let service = world.serve_with(settings).await;
    let client = ::redis::Client::open(redis_url)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let subscribed = || async {
        let mut redis = redis.clone();
        let (_, subscribers): (String, u32) = ::redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(&stream)
            .query_async(&mut redis)
            .await?;
        ensure!(subscribers == 1, "the subscriber has not subscribed");
        Ok(())
    };
    eventually(SOON, subscribed).await;
    let pids = [
        service.pid(),
        postmaster(world.database_url()).await?,
        std::process::id(),
        redis_pid(&mut redis).await?,
        subscriber.id().context("the subscriber runs")?,
    ];
    let before = cpu_times(pids)?;
    let events_per_second = publish(&world, service.url(), events).await;
    ask(service.post("/_flush")).await;
    eventually(SOON, async || {
        let unpublished = world
            .number("select count(*) from batches where published_at is null")
            .await;
        ensure!(unpublished == 0, "{unpublished} batches are not published");
        Ok(())
    })
    .await;
    let after = cpu_times(pids)?;
    let _: () = ::redis::cmd("DEL").arg(&stream).query_async(&mut redis).await?;
    let mut cpu = after;
    cpu.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    Ok(Run { events_per_second, cpu })
}

/// Redis's own client, which does nothing with what it gets.
fn subscriber(redis_url: &str, channel: &str) -> Result<Child> {
    Command::new("redis-cli")
        .args(["-u", redis_url, "subscribe", channel])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("redis-cli comes with Redis")
}

async fn postmaster(database_url: &str) -> Result<u32> {
    let mut pg = PgConnection::connect(database_url).await?;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut pg).await?;
    let postmaster = processes::parent(u32::try_from(backend)?)?;
    pg.close().await?;
    Ok(postmaster)
}

async fn redis_pid(redis: &mut ::redis::aio::MultiplexedConnection) -> Result<u32> {
    let info: String = ::redis::cmd("INFO").arg("server").query_async(redis).await?;
    let line = info.lines().find_map(|line| line.strip_prefix("process_id:"));
    Ok(line.context("INFO tells the process")?.trim().parse()?)
}

/// The service, PostgreSQL with its backends, what this process has waited for (the publisher), Redis, and the subscriber.
fn cpu_times([service, postmaster, own, redis, subscriber]: [u32; 5]) -> Result<CpuTimes> {
    let times = [
        processes::processor_time(service)?,
        processes::processor_time_with_children(postmaster)?,
        processes::processor_time_of_ended_children(own)?,
        processes::processor_time(redis)?,
        processes::processor_time(subscriber)?,
    ];
    Ok(times.map(|time| time.as_secs_f64()))
}
