//! Overload: five times as much as the service can take, for some seconds.
//!
//! Requests begin when their time has come and not when an answer has, from so many connections that one is always free: those
//! who send do not know how the service is. What is refused is sent again later, as its senders would.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::eventually::SOON;
use integration_tests::processes::resident_bytes;
use integration_tests::redis::Outlet;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::contest::{Processor, Servers, Side, rate, since};
use crate::events::{Ids, Maker};
use crate::load::{percentile, read_answer};
use crate::report::{Aim, Ratio, median, megabytes, rounded};
use crate::{http, subscriber};

/// How much is offered, of what the service can take.
pub const TIMES: f64 = 5.0;
/// How many connections there are. None is free when so many requests wait for their answers.
const CONNECTIONS: usize = 500;
/// How many events wait in the service at most, and some.
const WAITING: usize = 150_000;
/// A debug build, which a test runs this with, may let what it has taken wait for longer than the default deadline.
const UNHURRIED: (&str, &str) = ("EVENTSIEVE_REQUEST_DEADLINE", "60s");
/// How often the service's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What an overload has shown.
#[derive(Debug, Clone, Copy)]
pub struct Overload {
    /// Events a second that were sent.
    pub offered: f64,
    /// Events a second that were acknowledged.
    pub goodput: f64,
    /// The part of the requests that were refused.
    pub refused: f64,
    /// The time to a refusal: the median, and what one of a hundred exceeds.
    pub refused_p50: Duration,
    pub refused_p99: Duration,
    /// The same of what was taken.
    pub taken_p50: Duration,
    pub taken_p99: Duration,
    /// The most memory that the service had in the first half and in the second, in bytes.
    pub first_half_bytes: u64,
    pub second_half_bytes: u64,
    /// Who has worked for how long, for each second.
    pub processor: Processor,
}

/// What the senders share.
struct Offer {
    requests: RefCell<VecDeque<Vec<u8>>>,
    begun: Instant,
    duration: Duration,
    interval: Duration,
    sent: Cell<u32>,
    /// Events that were acknowledged, as long as requests began, and in all; and how many of them were stored.
    in_time: Cell<usize>,
    acknowledged: Cell<usize>,
    stored: Cell<usize>,
    taken: RefCell<Vec<Duration>>,
    refused: RefCell<Vec<Duration>>,
}

/// Offers [`TIMES`] as many events a second as `peak`, in batches of this side's size.
pub async fn overload(servers: &Servers, side: Side, size: usize, peak: f64, duration: Duration) -> Result<Overload> {
    let world = World::on(&servers.postgres).await;
    world.run(&["migrate"]).await.ended_with(0);
    let outlet = Outlet::on(&servers.redis);
    let service = servers.serve(&world, &outlet, &[UNHURRIED]).await;
    // More than it can take of them, and than wait in it.
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
    // The subscriber takes what comes until the end; that nothing is missing shows in the outbox.
    let redis = format!("127.0.0.1:{}", servers.redis.port());
    let _messages = subscriber::subscribe(&redis, outlet.channel(), usize::MAX)?;
    let (begun, before) = (Instant::now(), servers.processor(Some(&service))?);
    let (end, mut offered) = oneshot::channel();
    std::thread::spawn(move || {
        let interval = Duration::from_secs_f64(f64::from(u32::try_from(size).unwrap_or(u32::MAX)) / peak / TIMES);
        // Nobody waits any more only when the bench has failed already.
        end.send(offer(&address, requests, duration, interval)).ok();
    });
    let mut looks = Vec::new();
    let offered = loop {
        match tokio::time::timeout(LOOK, &mut offered).await {
            Ok(offered) => break offered??,
            Err(_) => looks.push(resident_bytes(pid)?),
        }
    };
    let processor = since(before, servers.processor(Some(&service))?);
    let elapsed = begun.elapsed();
    world.fanned_out(3 * SOON).await;
    let totals = world.totals().await;
    let counted = (usize::try_from(totals.received)?, usize::try_from(totals.unique)?);
    let acknowledged = (offered.acknowledged.get(), offered.stored.get());
    ensure!(
        counted == acknowledged,
        "received and stored: counted {counted:?}, acknowledged {acknowledged:?}"
    );
    world.check(totals.rows).await;
    Ok(summary(offered, size, (processor, elapsed), &looks))
}

fn summary(offered: Offer, size: usize, (processor, elapsed): (Processor, Duration), looks: &[u64]) -> Overload {
    let (mut taken, mut refused) = (offered.taken.into_inner(), offered.refused.into_inner());
    taken.sort_unstable();
    refused.sort_unstable();
    let (first, second) = looks.split_at(looks.len() / 2);
    let most = |looks: &[u64]| looks.iter().copied().max().unwrap_or_default();
    let requests = taken.len() + refused.len();
    let per_second = |seconds: f64| seconds / elapsed.as_secs_f64();
    Overload {
        offered: rate(requests * size, offered.duration),
        goodput: rate(offered.in_time.get(), offered.duration),
        refused: rate(refused.len(), Duration::from_secs(1)) / rate(requests, Duration::from_secs(1)),
        refused_p50: percentile(&refused, 0.5),
        refused_p99: percentile(&refused, 0.99),
        taken_p50: percentile(&taken, 0.5),
        taken_p99: percentile(&taken, 0.99),
        first_half_bytes: most(first),
        second_half_bytes: most(second),
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
            taken: RefCell::default(),
            refused: RefCell::default(),
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
        // Without one, all are under way or were taken: then less is offered, and the figure says so.
        let Some(request) = offer.requests.borrow_mut().pop_front() else {
            continue;
        };
        let begun = Instant::now();
        let is_in_time = offer.begun.elapsed() <= offer.duration;
        stream.write_all(&request).await?;
        let answer = read_answer(&mut stream, &mut buffer, http::answer).await?;
        if answer.status == 503 {
            ensure!(answer.has_retry_after, "a 503 says when to come again");
            if is_in_time {
                offer.refused.borrow_mut().push(begun.elapsed());
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
            offer.taken.borrow_mut().push(begun.elapsed());
        }
    }
}

/// All overloads, each with the rate of the run before it.
#[derive(Default)]
pub struct Overloads(Vec<(f64, Overload)>);

impl Overloads {
    /// Adds one.
    pub fn add(&mut self, peak: f64, seen: Overload) {
        self.0.push((peak, seen));
    }

    fn median(&self, figure: impl Fn(f64, &Overload) -> f64) -> f64 {
        median(self.0.iter().map(|(peak, seen)| figure(*peak, seen)).collect())
    }

    /// What the design asks for.
    pub fn aims(&self) -> Vec<Ratio> {
        let ratio = |name: &str, value, aim| Ratio {
            name: name.to_owned(),
            value,
            aim,
        };
        let growth = |seen: &Overload| megabytes(seen.second_half_bytes) / megabytes(seen.first_half_bytes);
        if self.0.is_empty() {
            return Vec::new();
        }
        vec![
            ratio(
                "overload: goodput : peak",
                self.median(|peak, seen| seen.goodput / peak),
                Aim::AtLeast(0.8),
            ),
            ratio(
                "overload: memory in its second half : in its first",
                self.median(|_, seen| growth(seen)),
                Aim::AtMost(1.1),
            ),
            ratio(
                "overload: memory at its peak, MB",
                self.median(|_, seen| megabytes(seen.first_half_bytes.max(seen.second_half_bytes))),
                Aim::AtMost(100.0),
            ),
        ]
    }

    /// The table of an overload: medians.
    pub fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let milliseconds = |of: fn(&Overload) -> Duration| self.median(|_, seen| of(seen).as_secs_f64() * 1e3);
        let bytes = |of: fn(&Overload) -> u64| self.median(|_, seen| megabytes(of(seen)));
        let busy = |of: fn(&Processor) -> f64| self.median(|_, seen| of(&seen.processor)) * 100.0;
        format!(
            "overload, batches of 1000: peak {:.0} events/s, offered {:.0}, acknowledged {:.0}; {:.0} % of the requests refused\n\
             refusals after {:.1} ms (p50) and {:.1} ms (p99), the others after {:.0} and {:.0} ms\n\
             memory of the service {:.0} MB in the first half, {:.0} MB in the second\n\
             of one processor: load {:.0} %, service {:.0} %, PostgreSQL {:.0} %, Redis {:.0} %\n",
            self.median(|peak, _| peak),
            self.median(|_, seen| seen.offered),
            self.median(|_, seen| seen.goodput),
            self.median(|_, seen| seen.refused * 100.0),
            milliseconds(|seen| seen.refused_p50),
            milliseconds(|seen| seen.refused_p99),
            milliseconds(|seen| seen.taken_p50),
            milliseconds(|seen| seen.taken_p99),
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
                "refused_part": rounded(seen.refused),
                "refused_p50_ms": rounded(seen.refused_p50.as_secs_f64() * 1e3),
                "refused_p99_ms": rounded(seen.refused_p99.as_secs_f64() * 1e3),
                "first_half_bytes": seen.first_half_bytes,
                "second_half_bytes": seen.second_half_bytes,
            })
        };
        self.0.iter().map(one).collect()
    }
}
