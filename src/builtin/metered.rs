//! What the HTTP library holds for a connection, counted from below it: what it could not write, and what it has read
//! and perhaps not understood yet. While much waits for the client, nothing is read from it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::{Excess, HeldBytes};
use super::heads::MAX_BUFFER;

/// What every connection has at hand. A worker that holds all it may still serves requests that need no more.
const AT_HAND: usize = 8 * 1024;

/// Nothing is read while more bytes than these wait to be written.
const READ_BELOW: usize = 64 * 1024;

/// Set when the connection is no longer the HTTP library's. Whatever comes then counts for itself.
pub(super) type HttpIsOver = Arc<AtomicBool>;

/// The counted connection.
#[derive(Debug)]
pub(super) struct MeteredStream<S> {
    io: S,
    hold: HeldBytes,
    is_over: HttpIsOver,
    /// What was given to be written and was not.
    unwritten: usize,
    /// What was read since the last write, at most what the library keeps.
    unread: usize,
    last_read: usize,
    /// Waits until less is unwritten.
    reader: Option<Waker>,
}

impl<S> MeteredStream<S> {
    /// Counts in `hold` until HTTP is over.
    pub(super) fn new(io: S, hold: HeldBytes) -> (Self, HttpIsOver) {
        let is_over = HttpIsOver::default();
        let over = Arc::clone(&is_over);
        (Self { io, hold, is_over, unwritten: 0, unread: 0, last_read: 0, reader: None }, over)
    }

    fn count(&mut self) -> io::Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            (self.unwritten, self.unread) = (0, 0);
        }
        let bytes = (self.unwritten + self.unread).saturating_sub(AT_HAND);
        self.hold.set(bytes).map_err(|excess: Excess| {
            self.hold.budget().close(excess);
            io::ErrorKind::ConnectionAborted.into()
        })
    }

    fn wrote(&mut self, given: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let taken = match &written {
            Poll::Ready(Ok(taken)) => *taken,
            Poll::Ready(Err(_)) => given,
            Poll::Pending => 0,
        };
        self.unwritten = given - taken.min(given);
        self.unread = self.unread.min(self.last_read);
        self.count()?;
        if self.unwritten <= READ_BELOW {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An upgraded connection's writes wait elsewhere: the one behind it decides what is read.
        if this.unwritten > READ_BELOW && !this.is_over.load(Ordering::Relaxed) {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.last_read = buf.filled().len() - before;
        this.unread = (this.unread + this.last_read).min(MAX_BUFFER);
        Poll::Ready(this.count())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(buf.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, parts);
        this.wrote(parts.iter().map(|part| part.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use haft_worker::scoreboard::Scoreboard;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::budget::MemoryBudget;
    use super::*;

    const MESSAGE: usize = 200_000;

    fn pair(budget: &Arc<MemoryBudget>, room: usize) -> (DuplexStream, MeteredStream<DuplexStream>, HttpIsOver) {
        let (client, server) = duplex(room);
        let (metered, over) = MeteredStream::new(server, budget.hold());
        (client, metered, over)
    }

    /// Writes once. Returns how much was taken.
    async fn give(metered: &mut MeteredStream<DuplexStream>, bytes: &[u8]) -> Option<usize> {
        poll_fn(|cx| match Pin::new(&mut *metered).poll_write(cx, bytes) {
            Poll::Ready(written) => Poll::Ready(written.ok()),
            Poll::Pending => Poll::Ready(Some(0)),
        })
        .await
    }

    #[tokio::test]
    async fn what_the_client_has_not_read_is_counted_and_stops_reading() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (mut client, mut metered, _over) = pair(&budget, 1000);
        client.write_all(b"more").await.expect("write");
        let answer = vec![0; READ_BELOW + AT_HAND + 1000];
        assert_eq!(give(&mut metered, &answer).await, Some(1000));
        assert_eq!(budget.held(), READ_BELOW);
        let read =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut metered).poll_read(cx, &mut ReadBuf::new(&mut [0; 4])).is_ready()));
        assert!(!read.await, "the client has read nothing");
        client.read_exact(&mut [0; 1000]).await.expect("read");
        assert_eq!(give(&mut metered, &answer[..1000]).await, Some(1000));
        assert_eq!(budget.held(), 0);
        metered.read_exact(&mut [0; 4]).await.expect("it is read again");
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_counted_up_to_what_the_library_keeps() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (mut client, mut metered, over) = pair(&budget, 2 * MAX_BUFFER);
        client.write_all(&vec![b'x'; MAX_BUFFER + 100]).await.expect("write");
        metered.read_exact(&mut vec![0; MAX_BUFFER + 100]).await.expect("read");
        assert_eq!(budget.held(), MAX_BUFFER - AT_HAND);
        over.store(true, Ordering::Relaxed);
        assert_eq!(give(&mut metered, b"x").await, Some(1));
        assert_eq!(budget.held(), 0, "an upgraded connection is counted by what took it over");
    }

    #[tokio::test]
    async fn many_are_bounded_together_and_those_that_need_little_are_served_still() {
        let budget = MemoryBudget::new(1, Scoreboard::default());
        let mut other = budget.hold();
        let mut all = Vec::new();
        while other.set(budget.each).is_ok() {
            all.push(std::mem::replace(&mut other, budget.hold()));
        }
        let (_client, mut metered, _over) = pair(&budget, 10);
        assert_eq!(give(&mut metered, &[0; AT_HAND]).await, Some(10));
        let (_client, mut metered, _over) = pair(&budget, 10);
        assert_eq!(give(&mut metered, &vec![0; budget.each]).await, None);
        assert_eq!(budget.closed(Excess::Worker), 1);
    }
}
