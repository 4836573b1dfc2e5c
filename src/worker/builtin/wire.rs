//! The byte stream between a WebSocket client and the engine.
//!
//! It is transparent but for three things: it can begin with bytes that were read before the engine took over, it can
//! keep the engine's first bytes to itself (they were sent before), and it can say "close" in the client's name, which
//! makes the engine flush what it has queued, send a close frame and forget the session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::drain::lock;

/// An Engine.IO close packet (`1`) in a text frame as a client would send it, with a zero mask (RFC 6455, 5.2).
const CLOSE_PACKET: &[u8] = b"\x81\x81\0\0\0\x001";

const OPEN: u8 = 0;
const ENDING: u8 = 1;
const ABORTED: u8 = 2;

/// The life of one WebSocket, as seen by those who may end it.
#[derive(Debug)]
pub(super) struct WsLife {
    state: AtomicU8,
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
    closed: watch::Sender<bool>,
}

impl WsLife {
    /// A new life, and the guard that ends it.
    pub(super) fn begin() -> (Arc<Self>, WsGuard) {
        let life = Arc::new(Self {
            state: AtomicU8::new(OPEN),
            reader: Mutex::default(),
            writer: Mutex::default(),
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

/// Marks the life as over when dropped.
#[derive(Debug)]
pub(super) struct WsGuard(Arc<WsLife>);

impl Drop for WsGuard {
    fn drop(&mut self) {
        self.0.closed.send_replace(true);
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
#[derive(Debug, Default)]
pub(super) struct FrameScan {
    header: [u8; 14],
    have: usize,
    payload: u64,
    in_message: bool,
}

impl FrameScan {
    /// Whether all that was fed ends with a whole message.
    pub(super) fn between_messages(&self) -> bool {
        self.have == 0 && self.payload == 0 && !self.in_message
    }

    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let n = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= n as u64;
                bytes.advance(n);
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes.advance(1);
            if self.have == self.header_length() {
                self.begin_payload();
            }
        }
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
