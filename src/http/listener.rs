//! The accept loop. It uses hyper directly, because a connection needs limits that `axum::serve` does not have:
//!
//! - a connection limit, beyond which connections wait in the kernel's backlog,
//! - a connection limit for each client, beyond which they are refused ([`Gate`]), whom a header of the PROXY protocol may name,
//! - a timeout for the head of a request, counted from its first byte ([`HeadTimeout`]),
//! - a timeout for an idle connection (hyper's own timer, which runs from the end of one request to the head of the next),
//! - a timeout for a client that does not read its answer.
//!
//! HTTP/1.1 only. The timeout of the body is the handler's. A handler whose answer has no end can watch for the end of the
//! connection ([`Peer`]).

mod clients;
mod gate;
mod proxy_protocol;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::gate::{Admitted, Gate};
pub use self::socket::Peer;
use self::socket::Socket;
use crate::config::HttpConfig;
use crate::http::client_address::ClientAddress;
use crate::metrics::{GaugeGuard, Metrics};

/// The most bytes that hyper buffers for a connection, outside of the byte budget; also the most of a head. With 64 KiB, batches of
/// 1000 and 5000 events are no faster, and an overload from 500 connections takes 130 MB of memory instead of 95 MB.
const CONNECTION_BUFFER: usize = 24 << 10;

/// The most connections to the port for metrics and probes.
const METRICS_CONNECTIONS: usize = 64;

/// After so many time limits of a write the system ends the connection of a client whose machine is gone, or that has not read what was
/// sent to it: also where little was, so that no write waits. Twice, so that a write that waits meets its own limit, and is counted.
const KERNEL_TIMEOUTS: u32 = 2;

/// The longest that a system takes, in milliseconds: it has 31 bits for them.
const KERNEL_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// How long clients may still read answers to a GET when the service stops.
const READ_END: Duration = Duration::from_secs(3);

/// How long the loop waits after a failed accept for connections to end: most likely there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An open port.
pub struct Listener {
    tcp: TcpListener,
    config: HttpConfig,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Opens the second port, for metrics and probes. Fails as [`Listener::bind`].
    pub async fn bind_metrics(config: &HttpConfig, address: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let mut config = HttpConfig {
            connections_max: METRICS_CONNECTIONS,
            connections_per_client_max: METRICS_CONNECTIONS,
            ..config.clone()
        };
        // Monitoring connects to it, and not by way of the proxies.
        config.proxy.proxy_protocol = false;
        Ok(Self { tcp, config, metrics })
    }

    /// Opens the port, and writes the ready-file if there is one. Fails if the port is in use, the address is not one of this
    /// machine, or the ready-file cannot be written.
    pub async fn bind(config: HttpConfig, metrics: Arc<Metrics>) -> io::Result<Self> {
        let tcp = TcpListener::bind((config.host.as_str(), config.port)).await?;
        let listener = Self { tcp, config, metrics };
        if let Some(file) = &listener.config.ready_file {
            // Written under another name and renamed, so that a process that waits for the file never reads half of it.
            let new = file.with_extension("new");
            // A new file: a link in its place is not followed.
            if let Err(error) = tokio::fs::remove_file(&new).await
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut ready = tokio::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&new)
                .await?;
            ready.write_all(format!("{}\n", listener.url()?).as_bytes()).await?;
            ready.flush().await?;
            tokio::fs::rename(&new, file).await?;
        }
        Ok(listener)
    }

    /// The address, with the port that the system chose if the configured port is 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The base URL.
    pub fn url(&self) -> io::Result<String> {
        Ok(format!(
            "http://{}{}",
            self.address()?,
            self.config.proxy.base_path.as_str()
        ))
    }

    /// Accepts connections until `stop`, and then lets their requests finish. Connections are tasks of `connections`.
    pub async fn run(self, app: Router, stop: CancellationToken, connections: TaskTracker) {
        let permits = Arc::new(Semaphore::new(self.config.connections_max));
        let gate = Arc::new(Gate::new(self.config.clone(), self.metrics.clone()));
        loop {
            let accept = async {
                let permit = permits.clone().acquire_owned().await;
                (self.tcp.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let open = GaugeGuard::new(&self.metrics.http_connections);
                    let (gate, app, stop) = (gate.clone(), app.clone(), stop.clone());
                    let (config, metrics) = (self.config.clone(), self.metrics.clone());
                    connections.spawn(async move {
                        let admitted = tokio::select! {
                            biased;
                            admitted = gate.admit(stream, address) => admitted,
                            () = stop.cancelled() => None,
                        };
                        if let Some(admitted) = admitted {
                            serve(admitted, config, app, metrics, stop).await;
                        }
                        drop((open, permit));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection, retrying in {} ms", ACCEPT_PAUSE.as_millis());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(admitted: Admitted, config: HttpConfig, app: Router, metrics: Arc<Metrics>, stop: CancellationToken) {
    let Admitted { stream, client, .. } = admitted;
    let unread = config
        .idle_timeout
        .saturating_mul(KERNEL_TIMEOUTS)
        .min(KERNEL_TIMEOUT_MAX);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(unread)));
    if let Err(error) = prepared {
        tracing::debug!(%error, "connection ended before its first request");
        return;
    }
    let requests = Arc::new(Requests::default());
    let seen = requests.clone();
    let socket = Socket(Arc::new(stream));
    let peer = Peer(socket.0.clone());
    let mut stream = TimeoutStream::new(socket);
    stream.set_write_timeout(Some(config.idle_timeout));
    let stream = HeadTimeout {
        stream: Box::pin(stream),
        limit: config.header_timeout,
        requests: requests.clone(),
        timer: None,
        metrics,
        client,
    };
    let proxies = config.proxy;
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        gate::identify(&mut request, client, &proxies);
        let in_progress = requests.clone().begin(request.method() == Method::GET);
        let answer = hyper::service::Service::call(&TowerToHyperService::new(app.clone()), request);
        async move {
            let answer = answer.await;
            drop(in_progress);
            answer
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout)
        // A client may close its side after its request. Without this, hyper would drop such a request.
        .half_close(true)
        .max_buf_size(CONNECTION_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if seen.is_read.load(Ordering::Relaxed) {
                // A client that does not read its answer would delay the stop. Nothing is lost by disconnecting it.
                match tokio::time::timeout(READ_END, connection).await {
                    Ok(result) => result,
                    Err(_) => {
                        tracing::debug!("disconnected a client that did not read its answer, the service is stopping");
                        return;
                    }
                }
            } else {
                connection.await
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended with an error");
    }
}

/// The requests of one connection: how many have begun, and whether one is in progress.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicU64,
    is_in_progress: AtomicBool,
    /// Whether the last one was a GET.
    is_read: AtomicBool,
}

/// A request is in progress until this is dropped.
struct InProgress(Arc<Requests>);

impl Requests {
    fn begin(self: Arc<Self>, is_read: bool) -> InProgress {
        self.is_read.store(is_read, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.is_in_progress.store(true, Ordering::Relaxed);
        InProgress(self)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.is_in_progress.store(false, Ordering::Relaxed);
    }
}

/// A stream whose reads fail once the head of a request has been arriving for too long. The time starts with the first byte of the
/// head. hyper's own timer starts with the end of the request before, so it cannot tell a slow head from an idle connection.
struct HeadTimeout<S> {
    stream: S,
    limit: Duration,
    requests: Arc<Requests>,
    /// Runs while a head arrives, with the number of requests that had begun when its first byte came.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
    metrics: Arc<Metrics>,
    client: ClientAddress,
}

impl<S> HeadTimeout<S> {
    /// Counts a write that timed out, which ends the connection.
    fn counted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // An error of the system means that the client has disconnected.
        let is_timeout = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        if matches!(&written, Poll::Ready(Err(error)) if is_timeout(error)) {
            self.metrics.http_slow_readers.inc();
            tracing::debug!(client = %self.client, "disconnected a client that did not read its answer in time");
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let begun = self.requests.begun.load(Ordering::Relaxed);
        if self.requests.is_in_progress.load(Ordering::Relaxed)
            || self.timer.as_ref().is_some_and(|(at, _)| *at != begun)
        {
            self.timer = None;
        } else if buf.filled().len() > before && self.timer.is_none() {
            self.timer = Some((begun, Box::pin(tokio::time::sleep_until(Instant::now() + self.limit))));
        }
        if result.is_pending()
            && let Some((_, timer)) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head of the request did not arrive in time",
            )));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.counted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.counted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
