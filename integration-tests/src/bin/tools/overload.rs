//! Overload: five times the rate that the service can sustain, for some seconds.
//!
//! The load is open-loop: a request is sent when it is due, whether or not earlier ones were answered, from so many connections
//! that one is always free. A rejected request is sent again later, as a client would do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::eventually::SOON;
use integration_tests::processes::resident_bytes;
use integration_tests::redis::RedisTarget;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::events::{Ids, Maker};
use crate::load::{percentile, read_answer};
use crate::report::{Ratio, median, megabytes, rounded};
use crate::runs::{Processor, Servers, rate, since, sink_settings};
use crate::sides::{Side, Sink};
use crate::{http, subscriber};

/// The offered load, as a multiple of the peak throughput.
const TIMES: f64 = 5.0;
/// The number of connections, and so of requests in flight at most.
const CONNECTIONS: usize = 500;
/// More events than can wait in the service.
const WAITING: usize = 150_000;
/// A test runs this with a debug build, in which an accepted request may wait for longer than the default deadline.
const LONG_DEADLINE: (&str, &str) = ("EVENTSIEVE_REQUEST_DEADLINE", "60s");
/// The interval at which the memory of the service is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// The result of an overload.
#[derive(Debug, Clone, Copy)]
pub struct Overload {
    /// Events a second that were sent.
    pub offered: f64,
    /// Events a second that were acknowledged.
    pub goodput: f64,
    /// The part of the requests that were rejected.
    pub rejected: f64,
    /// The latency of rejections: the median, and the 99th percentile.
    pub rejected_p50: Duration,
    pub rejected_p99: Duration,
    /// The same of accepted requests.
    pub accepted_p50: Duration,
    pub accepted_p99: Duration,
    /// The peak memory of the service in the first half and in the second, in bytes.
    pub first_half_bytes: u64,
    pub second_half_bytes: u64,
    /// The processor time of each process, for each second.
    pub processor: Processor,
}

/// The state that the senders share.
struct Offer {
    requests: RefCell<VecDeque<Vec<u8>>>,
    begun: Instant,
    duration: Duration,
    interval: Duration,
    sent: Cell<u32>,
    /// Acknowledged events: until the end of the overload, in all, and those of them that were stored.
    in_time: Cell<usize>,
    acknowledged: Cell<usize>,
    stored: Cell<usize>,
    accepted: RefCell<Vec<Duration>>,
    rejected: RefCell<Vec<Duration>>,
}

/// Offers [`TIMES`] as many events a second as `peak`, in batches of this size.
pub async fn overload(servers: &Servers, side: Side, size: usize, peak: f64, duration: Duration) -> Result<Overload> {
    let world = World::on(&servers.postgres).await;
    world.run(&["migrate"]).await.ended_with(0);
    let target = RedisTarget::on(&servers.redis);
    let settings = [sink_settings(Sink::Channel, &target), vec![LONG_DEADLINE]].concat();
    let service = servers.serve(&world, settings).await;
    // More than the service can store and queue.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of events"
    )]
    let events = (peak * duration.as_secs_f64() * 1.5) as usize + WAITING;
    let (events, _) = Maker::new(Ids::Random, side.topics, 1).with_duplicates(events / size * size);
    let requests = side.requests(&events).into();
    drop(events);
    let (address, pid) = (service.address().to_owned(), service.pid());
    // The subscriber reads until the end. The outbox shows whether everything was published.
    let _messages = subscriber::subscribe(&servers.redis_address(), target.channel(), usize::MAX)?;
    let (begun, before) = (Instant::now(), servers.processor(Some(&service))?);
    let (end, mut offered) = oneshot::channel();
    std::thread::spawn(move || {
        let interval = Duration::from_secs_f64(f64::from(u32::try_from(size).unwrap_or(u32::MAX)) / peak / TIMES);
        // The receiver is gone only when the benchmark has failed already.
        end.send(offer(&address, requests, duration, interval)).ok();
    });
    let mut samples = Vec::new();
    let offered = loop {
        match tokio::time::timeout(SAMPLE_INTERVAL, &mut offered).await {
            Ok(offered) => break offered??,
            Err(_) => samples.push(resident_bytes(pid)?),
        }
    };
    let processor = since(before, servers.processor(Some(&service))?);
    let elapsed = begun.elapsed();
    world.published(3 * SOON).await;
    let totals = world.totals().await;
    let counted = (usize::try_from(totals.received)?, usize::try_from(totals.unique)?);
    let acknowledged = (offered.acknowledged.get(), offered.stored.get());
    ensure!(
        counted == acknowledged,
        "(received, unique) counted {counted:?}, acknowledged {acknowledged:?}"
    );
    world.check(totals.rows).await;
    Ok(summary(offered, size, (processor, elapsed), &samples))
}

fn summary(offered: Offer, size: usize, (processor, elapsed): (Processor, Duration), samples: &[u64]) -> Overload {
    let (mut accepted, mut rejected) = (offered.accepted.into_inner(), offered.rejected.into_inner());
    accepted.sort_unstable();
    rejected.sort_unstable();
    let (first, second) = samples.split_at(samples.len() / 2);
    let peak = |samples: &[u64]| samples.iter().copied().max().unwrap_or_default();
    let requests = accepted.len() + rejected.len();
    let per_second = |seconds: f64| seconds / elapsed.as_secs_f64();
    Overload {
        offered: rate(requests * size, offered.duration),
        goodput: rate(offered.in_time.get(), offered.duration),
        rejected: rate(rejected.len(), Duration::from_secs(1)) / rate(requests, Duration::from_secs(1)),
        rejected_p50: percentile(&rejected, 0.5),
        rejected_p99: percentile(&rejected, 0.99),
        accepted_p50: percentile(&accepted, 0.5),
        accepted_p99: percentile(&accepted, 0.99),
        first_half_bytes: peak(first),
        second_half_bytes: peak(second),
        processor: Processor {
            load: per_second(processor.load),
            service: per_second(processor.service),
            postgres: per_second(processor.postgres),
            redis: per_second(processor.redis),
        },
    }
}

fn offer(address: &str, requests: VecDeque<Vec<u8>>, duration: Duration, interval: Duration) -> Result<Offer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(TcpStream::connect(address).await?);
        }
        let offer = Rc::new(Offer {
            requests: RefCell::new(requests),
            begun: Instant::now(),
            duration,
            interval,
            sent: Cell::new(0),
            in_time: Cell::new(0),
            acknowledged: Cell::new(0),
            stored: Cell::new(0),
            accepted: RefCell::default(),
            rejected: RefCell::default(),
        });
        let senders: Vec<_> = streams
            .into_iter()
            .map(|stream| tokio::task::spawn_local(send(stream, address.to_owned(), offer.clone())))
            .collect();
        for sender in senders {
            sender.await??;
        }
        Rc::into_inner(offer).context("all senders have ended")
    })
}

/// Sends a request whenever one is due and this connection is free.
async fn send(mut stream: TcpStream, address: String, offer: Rc<Offer>) -> Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let due = offer.interval * offer.sent.replace(offer.sent.get() + 1);
        if due >= offer.duration {
            return Ok(());
        }
        tokio::time::sleep_until((offer.begun + due).into()).await;
        // Without one, all are in flight or stored: then less is offered, which the result shows.
        let Some(request) = offer.requests.borrow_mut().pop_front() else {
            continue;
        };
        let begun = Instant::now();
        let is_in_time = offer.begun.elapsed() <= offer.duration;
        stream.write_all(&request).await?;
        let answer = read_answer(&mut stream, &mut buffer, http::answer).await?;
        if answer.status == 503 {
            ensure!(answer.has_retry_after, "a 503 carries Retry-After");
            if is_in_time {
                offer.rejected.borrow_mut().push(begun.elapsed());
            }
            offer.requests.borrow_mut().push_back(request);
            if answer.closes {
                stream = TcpStream::connect(&address).await?;
            }
            continue;
        }
        if offer.begun.elapsed() <= offer.duration {
            offer
                .in_time
                .set(offer.in_time.get() + answer.stored + answer.duplicates);
        }
        offer
            .acknowledged
            .set(offer.acknowledged.get() + answer.stored + answer.duplicates);
        offer.stored.set(offer.stored.get() + answer.stored);
        if is_in_time {
            offer.accepted.borrow_mut().push(begun.elapsed());
        }
    }
}

/// All overloads, each with the peak throughput that was measured before it.
#[derive(Default)]
pub struct Overloads(Vec<(f64, Overload)>);

impl Overloads {
    /// Adds one.
    pub fn add(&mut self, peak: f64, seen: Overload) {
        self.0.push((peak, seen));
    }

    fn median(&self, value: impl Fn(f64, &Overload) -> f64) -> f64 {
        median(self.0.iter().map(|(peak, seen)| value(*peak, seen)).collect())
    }

    /// What the design asks for.
    pub fn aims(&self) -> Vec<Ratio> {
        let growth = |seen: &Overload| megabytes(seen.second_half_bytes) / megabytes(seen.first_half_bytes);
        let memory = |seen: &Overload| megabytes(seen.first_half_bytes.max(seen.second_half_bytes));
        if self.0.is_empty() {
            return Vec::new();
        }
        vec![
            Ratio::new(
                "overload: goodput : peak",
                self.median(|peak, seen| seen.goodput / peak),
            )
            .at_least(0.8),
            Ratio::new(
                "overload: memory in the second half : in the first half",
                self.median(|_, seen| growth(seen)),
            )
            .at_most(1.1),
            Ratio::new("overload: peak memory, MB", self.median(|_, seen| memory(seen))).at_most(100.0),
        ]
    }

    /// The medians, in words.
    pub fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let milliseconds = |of: fn(&Overload) -> Duration| self.median(|_, seen| of(seen).as_secs_f64() * 1e3);
        let bytes = |of: fn(&Overload) -> u64| self.median(|_, seen| megabytes(of(seen)));
        let busy = |of: fn(&Processor) -> f64| self.median(|_, seen| of(&seen.processor)) * 100.0;
        format!(
            "overload, batches of 1000: peak {:.0} events/s, offered {:.0}, acknowledged {:.0}; {:.0} % of the requests rejected\n\
             rejected after {:.1} ms (p50) and {:.1} ms (p99), accepted ones answered after {:.0} and {:.0} ms\n\
             memory of the service {:.0} MB in the first half, {:.0} MB in the second\n\
             of one processor: load {:.0} %, service {:.0} %, PostgreSQL {:.0} %, Redis {:.0} %\n",
            self.median(|peak, _| peak),
            self.median(|_, seen| seen.offered),
            self.median(|_, seen| seen.goodput),
            self.median(|_, seen| seen.rejected * 100.0),
            milliseconds(|seen| seen.rejected_p50),
            milliseconds(|seen| seen.rejected_p99),
            milliseconds(|seen| seen.accepted_p50),
            milliseconds(|seen| seen.accepted_p99),
            bytes(|seen| seen.first_half_bytes),
            bytes(|seen| seen.second_half_bytes),
            busy(|processor| processor.load),
            busy(|processor| processor.service),
            busy(|processor| processor.postgres),
            busy(|processor| processor.redis),
        )
    }

    /// All of them.
    pub fn json(&self) -> Value {
        let one = |(peak, seen): &(f64, Overload)| {
            json!({
                "peak": rounded(*peak),
                "offered": rounded(seen.offered),
                "goodput": rounded(seen.goodput),
                "rejected_part": rounded(seen.rejected),
                "rejected_p50_ms": rounded(seen.rejected_p50.as_secs_f64() * 1e3),
                "rejected_p99_ms": rounded(seen.rejected_p99.as_secs_f64() * 1e3),
                "first_half_bytes": seen.first_half_bytes,
                "second_half_bytes": seen.second_half_bytes,
            })
        };
        self.0.iter().map(one).collect()
    }
}
