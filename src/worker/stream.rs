//! A connection as a stream of bytes that is counted as long as it lives.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::drain::OpenGuard;
use super::scoreboard::{Field, Scoreboard};

/// A client's connection, TCP or Unix, which [`super::Drain::finished`] waits for.
///
/// Dropping it ends the connection for the client at once, also while the master still has its copy: closing this copy
/// alone would leave the end, and its cost, to the master.
#[derive(Debug)]
pub struct Stream {
    /// `None`: it was taken out.
    kind: Option<StreamSocket>,
    /// Its client knows that it has ended.
    ended: bool,
    _open: OpenGuard,
    scoreboard: Scoreboard,
}

#[derive(Debug)]
enum StreamSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn tcp(stream: TcpStream, open: OpenGuard, scoreboard: Scoreboard) -> Self {
        Self { kind: Some(StreamSocket::Tcp(stream)), ended: false, _open: open, scoreboard }
    }

    pub(super) fn unix(stream: UnixStream, open: OpenGuard, scoreboard: Scoreboard) -> Self {
        Self { kind: Some(StreamSocket::Unix(stream)), ended: false, _open: open, scoreboard }
    }

    /// The TCP stream itself, which is then no longer counted; `None` for a Unix connection.
    pub fn into_tcp(mut self) -> Option<TcpStream> {
        match self.kind.take_if(|kind| matches!(kind, StreamSocket::Tcp(_)))? {
            StreamSocket::Tcp(stream) => Some(stream),
            StreamSocket::Unix(_) => None,
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.scoreboard.add(Field::BytesOut, count as u64);
        }
        written
    }

    fn kind(&mut self) -> &mut StreamSocket {
        // It is taken only by the function that consumes the stream.
        self.kind.as_mut().unwrap_or_else(|| unreachable!("a stream that was taken out is gone"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let socket = match &self.kind {
            Some(StreamSocket::Tcp(stream)) => SockRef::from(stream),
            Some(StreamSocket::Unix(stream)) => SockRef::from(stream),
            None => return,
        };
        if !self.ended {
            // It fails where the client has reset the connection.
            socket.shutdown(Shutdown::Write).ok();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (stream, before) = (self.get_mut(), buf.filled().len());
        let read = match stream.kind() {
            StreamSocket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            StreamSocket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        stream.scoreboard.add(Field::BytesIn, (buf.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = match stream.kind() {
            StreamSocket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            StreamSocket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        stream.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = match stream.kind() {
            StreamSocket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            StreamSocket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        stream.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().kind() {
            StreamSocket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            StreamSocket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let ended = match stream.kind() {
            StreamSocket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            StreamSocket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        stream.ended |= matches!(ended, Poll::Ready(Ok(())));
        ended
    }
}
