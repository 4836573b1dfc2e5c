//! A connection whose client must read: when nothing can be written for as long as a whole heartbeat may take, it ends. What
//! waits for such a client is memory that others could need.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::budget::{Excess, MemoryBudget};

/// The connection.
#[derive(Debug)]
pub(super) struct Patient<S> {
    io: S,
    patience: Duration,
    budget: Arc<MemoryBudget>,
    /// Set while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<S> Patient<S> {
    /// A client that reads nothing for `patience` is cut off, and counted.
    pub(super) fn new(io: S, patience: Duration, budget: Arc<MemoryBudget>) -> Self {
        Self { io, patience, budget, stalled: None, ended: false }
    }

    fn wait(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = write(&mut self.io, cx);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        self.ended = true;
        self.budget.close(Excess::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().wait(cx, |io, cx| Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().wait(cx, |io, cx| Pin::new(io).poll_write_vectored(cx, parts))
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
    use haft_worker::scoreboard::Scoreboard;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(45);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_for_long_is_cut_off_and_one_that_reads_slowly_is_not() {
        let budget = MemoryBudget::new(1, Scoreboard::default());
        let (mut client, server) = duplex(16);
        let mut patient = Patient::new(server, PATIENCE, Arc::clone(&budget));
        let reading = tokio::spawn(async move {
            let mut received = [0; 16];
            for _ in 0..3 {
                sleep(PATIENCE / 3 * 2).await;
                client.read_exact(&mut received).await.expect("read");
            }
            client
        });
        patient.write_all(&[1; 64]).await.expect("read slowly");
        let _client = reading.await.expect("task");
        assert_eq!(budget.closed(Excess::Stalled), 0);
        let cut = patient.write_all(&[1; 64]).await.map_err(|error| error.kind());
        assert_eq!((cut, budget.closed(Excess::Stalled)), (Err(io::ErrorKind::TimedOut), 1));
        assert!(patient.write_all(&[1]).await.is_err());
        assert_eq!(budget.closed(Excess::Stalled), 1, "once");
    }
}
