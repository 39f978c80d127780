//! The load side: connections that send requests which were built before, one after the other, from one thread, to take as little
//! of the machine as possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::{http, postgres};

/// How much of an answer is read at once.
const READ_BYTES: usize = 64 << 10;

/// The receiver of the requests.
#[derive(Debug, Clone)]
pub enum Target {
    /// The service.
    Service {
        /// Its `HOST:PORT`.
        address: String,
    },
    /// PostgreSQL itself.
    Postgres {
        /// Its `HOST:PORT`.
        address: String,
        /// The name of the database.
        database: String,
        /// The statement that each request executes.
        statement: &'static str,
    },
}

/// What was sent, and when.
#[derive(Debug, Default)]
pub struct Sent {
    /// The time at which the last answer had arrived.
    pub end: Option<Instant>,
    /// The latency of each request, sorted.
    pub latencies: Vec<Duration>,
    /// Events that were answered as stored.
    pub stored: usize,
    /// Events that were answered as duplicates.
    pub duplicates: usize,
    /// The connections, which stay open until this is dropped, so that the server's process for each of them can still be inspected.
    pub streams: Vec<TcpStream>,
}

/// Connections that wait for the start.
pub struct Load {
    go: oneshot::Sender<()>,
    sent: oneshot::Receiver<Result<Sent>>,
}

impl Load {
    /// Connects, and keeps the requests ready. Any connection that is free sends the next one.
    pub async fn prepare(target: Target, connections: usize, requests: Vec<Vec<u8>>) -> Result<Self> {
        let (go, started) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (end, sent) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let sending = async { run(target, connections, requests, ready, started).await };
            let result = match runtime {
                Ok(runtime) => runtime.block_on(sending),
                Err(error) => Err(error.into()),
            };
            // The receiver is gone only when the benchmark has failed already.
            end.send(result).ok();
        });
        let mut load = Self { go, sent };
        tokio::select! {
            Ok(()) = is_ready => Ok(load),
            result = &mut load.sent => Err(result?.err().context("the load has ended before it began")?),
        }
    }

    /// Starts. The result is the time of the start, and the future end of the load.
    pub fn start(self) -> (Instant, impl Future<Output = Result<Sent>>) {
        let begun = Instant::now();
        let is_waiting = self.go.send(());
        let sent = self.sent;
        (begun, async move {
            ensure!(is_waiting.is_ok(), "the load has ended before it began");
            sent.await?
        })
    }
}

async fn run(
    target: Target,
    connections: usize,
    requests: Vec<Vec<u8>>,
    ready: oneshot::Sender<()>,
    started: oneshot::Receiver<()>,
) -> Result<Sent> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(&target).await?);
    }
    ensure!(ready.send(()).is_ok(), "the benchmark has ended before the load began");
    started.await?;
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let mut sending = JoinSet::new();
    for stream in streams {
        let is_http = matches!(target, Target::Service { .. });
        sending.spawn(send_all(stream, is_http, requests.clone(), next.clone()));
    }
    let mut all = Sent::default();
    while let Some(sent) = sending.join_next().await {
        let sent = sent??;
        all.latencies.extend(sent.latencies);
        all.stored += sent.stored;
        all.duplicates += sent.duplicates;
        all.streams.extend(sent.streams);
    }
    all.end = Some(Instant::now());
    all.latencies.sort_unstable();
    Ok(all)
}

async fn connect(target: &Target) -> Result<TcpStream> {
    match target {
        Target::Service { address } => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Target::Postgres {
            address,
            database,
            statement,
        } => postgres::connect(address, database, statement).await,
    }
}

/// Sends the next request as long as there is one.
async fn send_all(
    mut stream: TcpStream,
    is_http: bool,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
) -> Result<Sent> {
    let (mut sent, mut buffer) = (Sent::default(), vec![0; READ_BYTES]);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let begun = Instant::now();
        stream.write_all(request).await?;
        if is_http {
            let answer = read_answer(&mut stream, &mut buffer, http::answer).await?;
            ensure!(answer.status < 300, "the service answered {}", answer.status);
            sent.stored += answer.stored;
            sent.duplicates += answer.duplicates;
        } else {
            read_answer(&mut stream, &mut buffer, postgres::answer).await?;
        }
        sent.latencies.push(begun.elapsed());
    }
    sent.streams.push(stream);
    Ok(sent)
}

/// Reads until `parse` finds a complete answer.
pub async fn read_answer<T>(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> Result<Option<T>>,
) -> Result<T> {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection was closed");
        filled += read;
        if let Some(answer) = parse(&buffer[..filled])? {
            return Ok(answer);
        }
    }
}

/// The latency that this part of the requests did not exceed.
pub fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "no run has 2^52 requests"
    )]
    let index = (last as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}
