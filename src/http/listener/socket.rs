//! A connection's socket, which others may watch while hyper reads and writes.
//!
//! hyper looks for the end of a connection only when it reads, and while it answers it does not read: a client that has sent
//! its request and closed its side is still answered. Of an answer without an end nobody would notice that its client is gone
//! before two writes have failed. So who writes one watches the socket itself.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The socket as hyper has it.
pub(super) struct Socket(pub(super) Arc<TcpStream>);

/// The client of a request: an extension of it.
#[derive(Clone)]
pub struct Client(pub(super) Arc<TcpStream>);

impl Client {
    /// Its address, as long as the connection knows it.
    pub fn address(&self) -> Option<tracing::field::DisplayValue<SocketAddr>> {
        self.0.peer_addr().ok().map(tracing::field::display)
    }

    /// Waits until the client has closed its side of the connection. If it sends something instead, this waits for ever: then
    /// the connection's own limits apply.
    pub async fn gone(&self) {
        // A look that takes nothing: what was readable may be long read.
        let mut byte = [0];
        match self.0.peek(&mut byte).await {
            Ok(sent) if sent > 0 => std::future::pending().await,
            _ => {}
        }
    }
}

impl AsyncRead for Socket {
    /// Into memory that was not zeroed before: with up to 64 KiB at a time that was 2.5 % of the service's time for single events.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Socket {
    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |tcp| tcp.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |tcp| tcp.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
