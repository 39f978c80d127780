//! The accept loop: its own, over hyper, because a connection needs limits that `axum::serve` does not set.
//!
//! - a connection limit, beyond which connections wait in the kernel's backlog,
//! - a time-out for the head of a request, counted from its first byte ([`HeadTimeout`]),
//! - a time-out for an idle connection (hyper's own timer, which runs from the end of one request to the head of the next),
//! - a time-out for a reader that does not read what it is sent.
//!
//! HTTP/1.1 only. The body's time-out is the handler's. A handler whose answer has no end can ask whether its client is still
//! there ([`Client`]).

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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::socket::Client;
use self::socket::Socket;
use crate::config::HttpConfig;
use crate::metrics::{GaugeGuard, Metrics};

/// The most bytes that hyper buffers of a connection, which are not in the budget of bytes; also the most of a head. With 64 KiB,
/// batches of 1000 and 5000 events are no faster, and the service has 130 MB instead of 95 in an overload from 500 connections.
const CONNECTION_BUFFER: usize = 24 << 10;

/// How long an answer to a GET may still take to be read when the service stops.
const READ_END: Duration = Duration::from_secs(3);

/// How long the loop waits after a failed accept (out of file handles, most likely) for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An open port.
pub struct Listener {
    tcp: TcpListener,
    config: HttpConfig,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Opens the port, and writes the ready-file where one is named.
    ///
    /// # Errors
    /// The port is taken, the address is not ours, or the ready-file cannot be written.
    pub async fn bind(config: HttpConfig, metrics: Arc<Metrics>) -> io::Result<Self> {
        let tcp = TcpListener::bind((config.host.as_str(), config.port)).await?;
        let listener = Self { tcp, config, metrics };
        if let Some(file) = &listener.config.ready_file {
            // Written beside and renamed, so that whoever waits for the file never reads half of it.
            let new = file.with_extension("new");
            tokio::fs::write(&new, format!("{}\n", listener.url()?)).await?;
            tokio::fs::rename(&new, file).await?;
        }
        Ok(listener)
    }

    /// The address, with the port that the system chose if any would do.
    ///
    /// # Errors
    /// The system does not tell the port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The base URL.
    ///
    /// # Errors
    /// As [`Listener::address`].
    pub fn url(&self) -> io::Result<String> {
        Ok(format!("http://{}", self.address()?))
    }

    /// Accepts until `stop`, and then lets the requests of the connections end. Connections are tasks of `connections`.
    pub async fn run(self, app: Router, stop: CancellationToken, connections: TaskTracker) {
        let places = Arc::new(Semaphore::new(self.config.connections_max));
        loop {
            let accept = async {
                let place = places.clone().acquire_owned().await;
                (self.tcp.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let open = GaugeGuard::new(&self.metrics.http_connections);
                    let metrics = self.metrics.clone();
                    let connection = serve(stream, self.config.clone(), app.clone(), metrics, stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop((open, place));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, config: HttpConfig, app: Router, metrics: Arc<Metrics>, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended at once");
        return;
    }
    let requests = Arc::new(Requests::default());
    let seen = requests.clone();
    let address = stream.peer_addr().ok();
    let socket = Socket(Arc::new(stream));
    let client = Client(socket.0.clone());
    let mut stream = TimeoutStream::new(socket);
    stream.set_write_timeout(Some(config.idle_timeout));
    let stream = HeadTimeout {
        stream: Box::pin(stream),
        limit: config.header_timeout,
        requests: requests.clone(),
        timer: None,
        metrics,
        client: address,
    };
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let under_way = requests.clone().begin(request.method() == Method::GET);
        let answer = hyper::service::Service::call(&TowerToHyperService::new(app.clone()), request);
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout)
        // A client that sends its request and closes has sent it: without this, hyper would drop it on the way.
        .half_close(true)
        .max_buf_size(CONNECTION_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if seen.is_read.load(Ordering::Relaxed) {
                // A reader that does not read would keep us for as long as it likes; nothing is lost with it.
                match tokio::time::timeout(READ_END, connection).await {
                    Ok(result) => result,
                    Err(_) => {
                        tracing::debug!("a reader that does not read was cut at the stop");
                        return;
                    }
                }
            } else {
                connection.await
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

/// The requests of one connection: how many have begun, and whether one is under way.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicU64,
    is_under_way: AtomicBool,
    /// Whether the last one was a GET.
    is_read: AtomicBool,
}

/// A request is under way as long as this lives.
struct UnderWay(Arc<Requests>);

impl Requests {
    fn begin(self: Arc<Self>, is_read: bool) -> UnderWay {
        self.is_read.store(is_read, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.is_under_way.store(true, Ordering::Relaxed);
        UnderWay(self)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.is_under_way.store(false, Ordering::Relaxed);
    }
}

/// A stream whose reads fail once the head of a request has been arriving for too long. The time runs from the head's first
/// byte: hyper's own timer runs from the end of the request before, and so cannot tell a slow head from an idle connection.
struct HeadTimeout<S> {
    stream: S,
    limit: Duration,
    requests: Arc<Requests>,
    /// Runs while a head arrives, with the number of requests that had begun when its first byte came.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
    metrics: Arc<Metrics>,
    client: Option<SocketAddr>,
}

impl<S> HeadTimeout<S> {
    /// Counts a write that took too long: the connection ends with it.
    fn noted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // An error of the system is of a client that is gone.
        let is_ours = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        if matches!(&written, Poll::Ready(Err(error)) if is_ours(error)) {
            self.metrics.http_slow_readers.inc();
            tracing::debug!(client = ?self.client, "a reader that does not read is cut");
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let begun = self.requests.begun.load(Ordering::Relaxed);
        if self.requests.is_under_way.load(Ordering::Relaxed) || self.timer.as_ref().is_some_and(|(at, _)| *at != begun)
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
                "the head of the request took too long",
            )));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(written)
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
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
