//! The byte stream between a WebSocket client and the engine.
//!
//! It is transparent but for three things: it can begin with bytes that were read before the engine took over, it can
//! keep the engine's first bytes to itself (they were sent before), and it can say "close" in the client's name, which
//! makes the engine flush what it has queued, send a close frame and forget the session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// An Engine.IO close packet (`1`) in a text frame as a client would send it, with a zero mask (RFC 6455, 5.2).
const CLOSE_PACKET: &[u8] = b"\x81\x81\0\0\0\x001";

const OPEN: u8 = 0;
const ENDING: u8 = 1;
const ABORTED: u8 = 2;

/// Locks even if a holder panicked: what these mutexes guard is valid after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The life of one WebSocket, as seen by whatever may end it.
#[derive(Debug)]
pub(super) struct WsLife {
    state: AtomicU8,
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
    guards: AtomicUsize,
    closed: watch::Sender<bool>,
}

impl WsLife {
    /// A new life, and the guard that ends it.
    pub(super) fn begin() -> (Arc<Self>, WsGuard) {
        let life = Arc::new(Self {
            state: AtomicU8::new(OPEN),
            reader: Mutex::default(),
            writer: Mutex::default(),
            guards: AtomicUsize::new(1),
            closed: watch::Sender::new(false),
        });
        (Arc::clone(&life), WsGuard(life))
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Asks for a close after the message that is being received.
    pub(super) fn end(&self) {
        self.to(ENDING);
    }

    /// Fails every further read and write.
    pub(super) fn abort(&self) {
        self.to(ABORTED);
    }

    /// Resolves once the stream is gone.
    pub(super) async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn to(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        for waker in [&self.reader, &self.writer] {
            let waker = lock(waker).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The state, the task being woken when it changes.
    fn watch(&self, waker: &Mutex<Option<Waker>>, cx: &Context<'_>) -> io::Result<u8> {
        let mut slot = lock(waker);
        if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *slot = Some(cx.waker().clone());
        }
        drop(slot);
        match self.state.load(Ordering::Acquire) {
            ABORTED => Err(io::ErrorKind::ConnectionAborted.into()),
            state => Ok(state),
        }
    }
}

/// Marks the life as over when it and all others are dropped.
#[derive(Debug)]
pub(super) struct WsGuard(Arc<WsLife>);

impl WsGuard {
    /// One more for the same life.
    pub(super) fn another(&self) -> Self {
        self.0.guards.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }

    /// Whether reads and writes fail.
    pub(super) fn aborted(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == ABORTED
    }
}

impl Drop for WsGuard {
    fn drop(&mut self) {
        if self.0.guards.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.closed.send_replace(true);
        }
    }
}

/// The stream that the engine is given.
#[derive(Debug)]
pub(super) struct WsStream<S> {
    io: S,
    guard: WsGuard,
    /// Read by the engine before anything from `io`.
    first: Bytes,
    /// How many of the engine's first bytes are not written.
    swallow: usize,
    frames: FrameScan,
    said_close: bool,
}

impl<S> WsStream<S> {
    /// A stream that begins with `first`, and drops the first `swallow` bytes written to it.
    pub(super) fn new(io: S, guard: WsGuard, first: Bytes, swallow: usize) -> Self {
        Self { io, guard, first, swallow, frames: FrameScan::default(), said_close: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let life = &this.guard.0;
        let state = life.watch(&life.reader, cx)?;
        let before = buf.filled().len();
        if this.first.is_empty() {
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending if state == ENDING && !this.said_close && this.frames.between_messages() => {
                    this.said_close = true;
                    this.first = Bytes::from_static(CLOSE_PACKET);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        if !this.first.is_empty() {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first.split_to(n));
        }
        this.frames.feed(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let life = &this.guard.0;
        life.watch(&life.writer, cx)?;
        if this.swallow > 0 && !buf.is_empty() {
            let n = this.swallow.min(buf.len());
            this.swallow -= n;
            return Poll::Ready(Ok(n));
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Follows the frames of a client without looking at what they carry (RFC 6455, 5.2).
#[derive(Debug, Default, Clone)]
pub(super) struct FrameScan {
    header: [u8; 14],
    have: usize,
    payload: u64,
    in_message: bool,
    unfinished: usize,
}

impl FrameScan {
    /// Whether all that was fed ends with a whole message.
    pub(super) fn between_messages(&self) -> bool {
        self.have == 0 && self.payload == 0 && !self.in_message
    }

    /// Whether all that was fed ends with a whole frame.
    pub(super) fn between_frames(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// How many bytes are left of the payload that has begun.
    pub(super) fn payload_left(&self) -> u64 {
        self.payload
    }

    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let n = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= n as u64;
                bytes.advance(n);
                self.took(n);
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes.advance(1);
            if self.have == self.header_length() {
                self.begin_payload();
            }
            self.took(1);
        }
    }

    /// Bytes of the message that has begun and not ended.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    fn took(&mut self, bytes: usize) {
        self.unfinished = if self.between_messages() { 0 } else { self.unfinished.saturating_add(bytes) };
    }

    /// Two bytes, the longer length if there is one, and the mask.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let [first, second, rest @ ..] = self.header;
        self.payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => rest.first_chunk().map_or(0, |length| u64::from_be_bytes(*length)),
            short => u64::from(short),
        };
        let control = first & 0x08 != 0;
        if !control {
            self.in_message = first & 0x80 == 0;
        }
        self.have = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A masked frame as a client sends it.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            126..=0xffff => {
                frame.push(0xfe);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0xff);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    proptest! {
        /// However the bytes are cut, the scan is between messages exactly where a message has ended.
        #[test]
        fn the_scan_finds_the_end_of_every_message(
            frames in prop::collection::vec((prop::sample::select(vec![0x81u8, 0x01, 0x80, 0x82, 0x89]),
                prop_oneof![0usize..200, 65_530..65_540usize]), 1..6),
            cut in 1usize..100,
        ) {
            let mut scan = FrameScan::default();
            let mut in_message = false;
            for (first, length) in frames {
                let frame = frame(first, length);
                let (last, rest) = frame.split_last().expect("never empty");
                for part in rest.chunks(cut) {
                    scan.feed(part);
                    prop_assert!(!scan.between_messages(), "in the middle of a frame");
                }
                scan.feed(&[*last]);
                if first != 0x89 {
                    in_message = first & 0x80 == 0;
                }
                prop_assert_eq!(scan.between_messages(), !in_message);
                prop_assert_eq!(scan.unfinished() == 0, !in_message);
            }
        }
    }

    #[tokio::test]
    async fn the_engine_hears_close_after_the_message_and_only_once() {
        let (mut client, server) = duplex(1024);
        let (life, guard) = WsLife::begin();
        let mut stream = WsStream::new(server, guard, Bytes::from_static(b"\x81\x80mask"), 3);
        let mut received = [0; 6];
        stream.read_exact(&mut received).await.expect("what was read before");
        assert_eq!(&received, b"\x81\x80mask");
        stream.write_all(b"abcdef").await.expect("write");
        let mut received = [0; 3];
        client.read_exact(&mut received).await.expect("read");
        assert_eq!(&received, b"def", "the first three bytes are kept back");

        client.write_all(b"\x81\x82mas").await.expect("half a header");
        life.end();
        let mut received = vec![0; 5];
        stream.read_exact(&mut received).await.expect("the half");
        client.write_all(b"kxy").await.expect("the rest");
        let mut received = vec![0; 3 + CLOSE_PACKET.len()];
        stream.read_exact(&mut received).await.expect("the rest and the close");
        assert_eq!(received, [b"kxy", CLOSE_PACKET].concat());
        drop(client);
        assert_eq!(stream.read(&mut received).await.expect("end"), 0);
        drop(stream);
        life.closed().await;
    }

    #[tokio::test]
    async fn an_abort_wakes_who_waits() {
        let (_client, server) = duplex(4);
        let (life, guard) = WsLife::begin();
        let (mut reader, mut writer) = tokio::io::split(WsStream::new(server, guard, Bytes::new(), 0));
        let reading = tokio::spawn(async move { reader.read_u8().await.map_err(|error| error.kind()) });
        let writing = tokio::spawn(async move { writer.write_all(&[0; 64]).await.map_err(|error| error.kind()) });
        tokio::task::yield_now().await;
        life.abort();
        assert_eq!(reading.await.expect("task"), Err(io::ErrorKind::ConnectionAborted));
        assert_eq!(writing.await.expect("task"), Err(io::ErrorKind::ConnectionAborted));
    }
}
