//! The connection below a WebSocket, with a bound on what waits there.
//!
//! The engine's writes are always taken, so that nothing piles up inside the engine, where it could not be counted; what
//! the client has not read waits here, in bytes. While more than a little waits, nothing is read from the client: what it
//! sends can only make more. What exceeds the bounds of the [`MemoryBudget`](super::budget::MemoryBudget) ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::budget::{Excess, HeldBytes};
use super::wire::{FrameScan, WsGuard};

/// Nothing is read while more bytes than these wait to be written.
const READ_BELOW: usize = 64 * 1024;

/// After so many bytes read, everything that they caused has its turn first.
const TURN: usize = 4 * 1024;

/// How many turns of the runtime that takes: the handler, the engine's writer, and one to be sure.
const TURNS: u8 = 3;

/// A buffer that grew beyond this is not kept when it is empty.
const KEEP_CAPACITY: usize = 16 * 1024;

/// How long a client may take to read what waits when the engine has done with it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The bounded connection.
#[derive(Debug)]
pub(super) struct Bounded<S: AsyncWrite + Unpin + Send + 'static> {
    /// There until it is dropped.
    io: Option<S>,
    /// Shows that the WebSocket is not gone while something waits.
    guard: Option<WsGuard>,
    waiting: BytesMut,
    /// The greatest write so far: the engine's library never gives back the buffer that it wrote from.
    kept_by_engine: usize,
    hold: Option<HeldBytes>,
    frames: FrameScan,
    since_turn: usize,
    turns: u8,
    reader: Option<Waker>,
    ended: bool,
}

impl<S: AsyncWrite + Unpin + Send + 'static> Bounded<S> {
    /// `waiting` is written before anything else.
    pub(super) fn new(io: S, guard: WsGuard, hold: HeldBytes, waiting: BytesMut) -> Self {
        Self {
            io: Some(io),
            guard: Some(guard),
            waiting,
            kept_by_engine: 0,
            hold: Some(hold),
            frames: FrameScan::default(),
            since_turn: 0,
            turns: 0,
            reader: None,
            ended: false,
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut S>> {
        match &mut self.io {
            Some(io) if !self.ended => Ok(Pin::new(io)),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Writes what waits, as far as that is possible now.
    fn write_waiting(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let written = self.io().map(|io| io.poll_write(cx, &waiting));
            self.waiting = waiting;
            match written? {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => self.waiting.advance(written),
                Poll::Ready(Err(error)) => {
                    self.give_up();
                    return Err(error);
                }
                Poll::Pending => return Ok(()),
            }
        }
        if self.waiting.capacity() > KEEP_CAPACITY {
            self.waiting = BytesMut::new();
        }
        Ok(())
    }

    /// Notes what is held, with `more` bytes.
    fn count(&mut self, more: usize) -> io::Result<()> {
        let kept = self.kept_by_engine.saturating_sub(READ_BELOW);
        let bytes = self.waiting.len() + self.frames.unfinished() + kept + more;
        match self.hold.as_mut().map(|hold| hold.set(bytes)) {
            Some(Err(excess)) => Err(self.end(excess)),
            _ => Ok(()),
        }
    }

    fn end(&mut self, excess: Excess) -> io::Error {
        if let Some(hold) = &self.hold {
            hold.budget().close(excess);
        }
        self.give_up();
        io::ErrorKind::ConnectionAborted.into()
    }

    fn give_up(&mut self) {
        self.ended = true;
        self.waiting = BytesMut::new();
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            this.reader = Some(cx.waker().clone());
        }
        this.write_waiting(cx)?;
        this.count(0)?;
        if this.waiting.len() > READ_BELOW {
            return Poll::Pending;
        }
        if this.turns > 0 {
            this.turns -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(this.io()?.poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        this.frames.feed(read);
        this.since_turn += read.len();
        if this.since_turn >= TURN {
            (this.since_turn, this.turns) = (0, TURNS);
        }
        Poll::Ready(this.count(0))
    }
}

impl<S: AsyncWrite + Unpin + Send + 'static> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.kept_by_engine = this.kept_by_engine.max(buf.len());
        this.write_waiting(cx)?;
        let written = match this.waiting.is_empty() {
            true => match this.io()?.poll_write(cx, buf) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            },
            false => 0,
        };
        let rest = &buf[written..];
        this.count(rest.len())?;
        if !rest.is_empty() {
            this.waiting.extend_from_slice(rest);
            // To be woken when there is room.
            this.write_waiting(cx)?;
        }
        Poll::Ready(Ok(buf.len()))
    }

    /// Does not wait: see [`Bounded`].
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.write_waiting(cx)?;
        this.count(0)?;
        match this.io()?.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.write_waiting(cx)?;
        match this.waiting.is_empty() {
            true => this.io()?.poll_shutdown(cx),
            false => Poll::Pending,
        }
    }
}

/// The engine has done with it: what waits is written still, if the client reads it.
impl<S: AsyncWrite + Unpin + Send + 'static> Drop for Bounded<S> {
    fn drop(&mut self) {
        let (Some(mut io), guard, hold) = (self.io.take(), self.guard.take(), self.hold.take()) else { return };
        let waiting = std::mem::take(&mut self.waiting);
        let aborted = guard.as_ref().is_none_or(WsGuard::aborted);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if waiting.is_empty() || self.ended || aborted {
            return;
        }
        runtime.spawn(async move {
            let last_words = async {
                io.write_all(&waiting).await?;
                io.shutdown().await
            };
            // Whatever comes of it, the connection is done.
            let _ = timeout(LAST_WORDS, last_words).await;
            drop((guard, hold));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};

    use super::super::budget::MemoryBudget;
    use super::super::patience::Patient;
    use super::super::wire::WsLife;
    use super::*;
    use haft_worker::scoreboard::Scoreboard;

    const MESSAGE: usize = 200_000;

    /// A client, the bounded connection to it, and a watch on whether that is gone.
    fn pair(budget: &Arc<MemoryBudget>) -> (DuplexStream, Bounded<DuplexStream>, Arc<WsLife>) {
        let (client, server) = duplex(1024);
        let (life, guard) = WsLife::begin();
        (client, Bounded::new(server, guard, budget.hold(), BytesMut::new()), life)
    }

    /// A client's frame of `length` bytes, header and all.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0x82, 0xff];
        frame.extend((length as u64 - 14).to_be_bytes());
        frame.resize(length, 0);
        frame
    }

    #[tokio::test]
    async fn a_client_that_reads_may_send_without_end() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (client, bounded, _life) = pair(&budget);
        let (mut reading, mut writing) = split(client);
        let talking = tokio::spawn(async move {
            for _ in 0..50 {
                if writing.write_all(&frame(MESSAGE)).await.is_err() {
                    return;
                }
            }
        });
        let hearing = tokio::spawn(async move {
            let mut received = vec![0; 50 * MESSAGE];
            reading.read_exact(&mut received).await.map(|_| ())
        });
        let (mut reader, mut writer) = split(bounded);
        let mut part = vec![0; 777];
        for _ in 0..50 * MESSAGE / part.len() {
            reader.read_exact(&mut part).await.expect("read");
            writer.write_all(&part).await.expect("write");
        }
        writer.write_all(&vec![0; 50 * MESSAGE % part.len()]).await.expect("write");
        // Nothing polls it any more: what waits is written in the background.
        drop((reader, writer));
        hearing.await.expect("task").expect("all was received");
        talking.abort();
        assert_eq!(budget.closed(Excess::Connection), 0);
    }

    #[tokio::test]
    async fn nothing_is_read_while_much_waits_and_it_goes_on_when_that_is_read() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (mut client, mut bounded, life) = pair(&budget);
        bounded.write_all(&vec![1; MESSAGE]).await.expect("taken at once");
        assert!(budget.held() > MESSAGE - 2048);
        client.write_all(&frame(100)).await.expect("write");
        let (mut reader, writer) = split(bounded);
        let reading = tokio::spawn(async move {
            let mut read = vec![0; 100];
            reader.read_exact(&mut read).await.map(|_| drop((reader, writer)))
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!reading.is_finished(), "the client has read nothing");
        client.read_exact(&mut vec![0; MESSAGE]).await.expect("what waited");
        reading.await.expect("task").expect("read");
        life.closed().await;
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn more_than_the_bound_ends_it_and_wakes_its_reader() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (_client, bounded, life) = pair(&budget);
        let (mut reader, mut writer) = split(bounded);
        let reading = tokio::spawn(async move { reader.read_u8().await.map_err(|error| error.kind()) });
        tokio::task::yield_now().await;
        let written = writer.write_all(&vec![0; budget.each + 2048]).await.map_err(|error| error.kind());
        assert_eq!(written, Err(io::ErrorKind::ConnectionAborted));
        assert_eq!(reading.await.expect("task"), Err(io::ErrorKind::ConnectionAborted));
        assert_eq!(budget.closed(Excess::Connection), 1);
        drop(writer);
        life.closed().await;
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn many_that_hold_little_are_bounded_together() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let mut all: Vec<_> = (0..300).map(|_| pair(&budget)).collect();
        for (_, bounded, _) in &mut all {
            // The last of them fail.
            let _ = bounded.write_all(&vec![0; MESSAGE]).await;
        }
        assert!(budget.held() <= 256 * MESSAGE, "{}", budget.held());
        assert!(budget.closed(Excess::Worker) > 0);
        assert_eq!(budget.closed(Excess::Connection), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_for_long_is_cut_off() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (_client, server) = duplex(1024);
        let (life, guard) = WsLife::begin();
        let patient = Patient::new(server, Duration::from_secs(45), Arc::clone(&budget));
        let mut bounded = Bounded::new(patient, guard, budget.hold(), BytesMut::new());
        bounded.write_all(&vec![0; MESSAGE]).await.expect("taken");
        let ended = bounded.read_u8().await.map_err(|error| error.kind());
        assert_eq!(ended, Err(io::ErrorKind::TimedOut));
        assert_eq!(budget.closed(Excess::Stalled), 1);
        drop(bounded);
        life.closed().await;
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn what_waits_when_the_engine_is_done_is_heard_still() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let (mut client, mut bounded, life) = pair(&budget);
        bounded.write_all(&vec![7; MESSAGE]).await.expect("taken");
        drop(bounded);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("read");
        assert_eq!(received.len(), MESSAGE);
        life.closed().await;
        assert_eq!(budget.held(), 0);
    }
}
