//! The heartbeat as Engine.IO's own server has it: the first ping comes `pingInterval` after the handshake.
//!
//! The engine sends its first ping at once and waits `pingTimeout` for the answer. Here that ping is taken out and
//! answered in the client's name, so that the next one, `pingInterval` later, is the first that the client sees. An
//! engine that waits before its first ping loses nothing by it: what does not come at once is left alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use socketioxide::socket::Sid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::engine::Engine;
use super::outbox::PollingOutbox;

/// How soon after the handshake a ping is the one that comes too early. The engine needs two milliseconds.
const AT_ONCE: Duration = Duration::from_millis(100);

/// An Engine.IO ping (`2`) as a server sends it in a text frame (RFC 6455, 5.2).
const PING: &[u8] = b"\x81\x012";

/// An Engine.IO pong (`3`) as a client sends it, with a zero mask.
const PONG: &[u8] = b"\x81\x81\0\0\0\x003";

/// Takes the early ping out of a polling session that has just begun. Requests of the session wait until that is done:
/// see [`PollingOutbox::settled`].
pub(super) async fn settle(engine: Engine, sid: Sid, outbox: Arc<PollingOutbox>, interval: Duration) {
    match timeout(AT_ONCE.min(interval / 2), engine.poll(sid)).await {
        Ok(Some(packets)) if *packets == *b"2" => engine.pong(sid),
        Ok(Some(packets)) => _ = outbox.keep(packets),
        Ok(None) | Err(_) => tracing::debug!("the engine sent no ping at once"),
    }
    outbox.settle();
}

/// A WebSocket stream whose first ping, if it comes at once, is answered here.
#[derive(Debug)]
pub(super) struct FirstPing<S> {
    io: S,
    /// Until when a ping is early; `None` when there is no more to look for.
    early_until: Option<Instant>,
    /// Where in the engine's frames its next byte stands.
    frames: ServerFrames,
    /// What the engine is still to read in the client's name.
    answer: Bytes,
    reader: Option<Waker>,
}

impl<S> FirstPing<S> {
    /// Wraps a stream on which nothing has been sent.
    pub(super) fn new(io: S, interval: Duration) -> Self {
        // Not sooner, however busy the process is: the next ping is a whole interval away.
        let early_until = Some(Instant::now() + interval / 2);
        Self { io, early_until, frames: ServerFrames::default(), answer: Bytes::new(), reader: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstPing<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.answer.is_empty() {
            if this.early_until.is_some() {
                this.reader = Some(cx.waker().clone());
            }
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let n = this.answer.len().min(buf.remaining());
        buf.put_slice(&this.answer.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstPing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.early_until.is_none_or(|until| Instant::now() > until) {
            this.early_until = None;
            return Pin::new(&mut this.io).poll_write(cx, buf);
        }
        let before = this.frames.find(buf, PING);
        if before == Some(0) {
            this.early_until = None;
            this.answer = Bytes::from_static(PONG);
            this.reader.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(PING.len()));
        }
        let written = std::task::ready!(Pin::new(&mut this.io).poll_write(cx, &buf[..before.unwrap_or(buf.len())]))?;
        this.frames.advance(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Follows the frames of a server, which have no mask.
#[derive(Debug, Default)]
struct ServerFrames {
    header: Vec<u8>,
    payload: u64,
}

impl ServerFrames {
    /// Where in `bytes`, which come next, a frame begins that is `frame`.
    fn find(&self, bytes: &[u8], frame: &[u8]) -> Option<usize> {
        let mut ahead = Self { header: self.header.clone(), payload: self.payload };
        let mut at = 0;
        while at < bytes.len() {
            if ahead.header.is_empty() && ahead.payload == 0 && bytes[at..].starts_with(frame) {
                return Some(at);
            }
            at += ahead.step(&bytes[at..]);
        }
        None
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = self.step(bytes);
            bytes = &bytes[n..];
        }
    }

    /// Takes a byte of a header, or what there is of a payload. Returns how much.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let n = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= n as u64;
            return n;
        }
        self.header.extend(bytes.first());
        let length = match self.header.as_slice() {
            [_, 126, high, low] => Some(u64::from(u16::from_be_bytes([*high, *low]))),
            [_, 127, length @ ..] => length.first_chunk().map(|length| u64::from_be_bytes(*length)),
            [_, 126, ..] | [] | [_] => None,
            [_, short, ..] => Some(u64::from(*short)),
        };
        if let Some(length) = length {
            self.payload = length;
            self.header.clear();
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = match payload.len() {
            0..=125 => vec![payload.len() as u8],
            126..=0xffff => [&[126][..], &(payload.len() as u16).to_be_bytes()].concat(),
            _ => [&[127][..], &(payload.len() as u64).to_be_bytes()].concat(),
        };
        [&[0x81], length.as_slice(), payload].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_ping_is_answered_here_and_the_second_is_the_clients() {
        for inside in [b"0{}".to_vec(), PING.repeat(50), PING.repeat(30_000)] {
            let (mut client, server) = duplex(1 << 20);
            let mut stream = FirstPing::new(server, Duration::from_secs(25));
            let sent = [frame(&inside), PING.to_vec(), frame(b"40"), PING.to_vec()].concat();
            stream.write_all(&sent).await.expect("write");
            let mut received = vec![0; sent.len() - PING.len()];
            client.read_exact(&mut received).await.expect("read");
            assert_eq!(received, [frame(&inside), frame(b"40"), PING.to_vec()].concat());
            let mut answer = vec![0; PONG.len()];
            stream.read_exact(&mut answer).await.expect("the answer");
            assert_eq!(answer, PONG);
            client.write_all(b"x").await.expect("write");
            assert_eq!(stream.read_u8().await.expect("read"), b'x', "and no other");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_is_not_early_goes_to_the_client() {
        let (mut client, server) = duplex(1024);
        let mut stream = FirstPing::new(server, Duration::from_millis(20));
        stream.write_all(&frame(b"0{}")).await.expect("write");
        tokio::time::advance(Duration::from_millis(20)).await;
        stream.write_all(PING).await.expect("write");
        let mut received = vec![0; 5 + PING.len()];
        client.read_exact(&mut received).await.expect("read");
        assert!(received.ends_with(PING));
    }

    #[tokio::test]
    async fn an_engine_that_reads_already_is_woken() {
        let (_client, server) = duplex(1024);
        let (mut reader, mut writer) = tokio::io::split(FirstPing::new(server, Duration::from_secs(25)));
        let reading = tokio::spawn(async move {
            let mut answer = vec![0; PONG.len()];
            reader.read_exact(&mut answer).await.map(|_| answer)
        });
        tokio::task::yield_now().await;
        writer.write_all(PING).await.expect("write");
        assert_eq!(reading.await.expect("task").expect("read"), PONG);
    }
}
