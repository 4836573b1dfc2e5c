//! Why a WebSocket is closed: the engine sends an empty close frame whatever the reason; here it gets the status code
//! that ws 8 gives (RFC 6455, 7.4.1).
//!
//! The frames of the client are followed on their way to the engine, which judges them by itself. When it then closes,
//! its close frame has the code that was found here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client_frames::ClientFrames;
use super::wire::FrameScan;

/// The first byte of a server's close frame.
const CLOSE: u8 = 0x88;

/// A WebSocket's stream whose close frame has the reason.
#[derive(Debug)]
pub(super) struct Reasoned<S: AsyncWrite + Unpin> {
    io: S,
    client: ClientFrames,
    server: FrameScan,
    /// Our close frame, as far as it is not written.
    closing: Bytes,
    has_closed: bool,
    /// The engine has begun a close frame of its own.
    has_ended: bool,
}

impl<S: AsyncWrite + Unpin> Reasoned<S> {
    /// A stream whose client may send messages of so many bytes.
    pub(super) fn new(io: S, max_payload: u64) -> Self {
        let client = ClientFrames::new(max_payload);
        Self { io, client, server: FrameScan::default(), closing: Bytes::new(), has_closed: false, has_ended: false }
    }
}

impl<S: AsyncWrite + Unpin> Reasoned<S> {
    /// Writes what is left of our close frame.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.closing.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.closing))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.closing.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Where in these bytes of the server's a close frame begins.
    fn close_in(&self, bytes: &[u8]) -> Option<usize> {
        let (mut scan, mut at) = (self.server.clone(), 0);
        while at < bytes.len() {
            if scan.between_frames() && bytes[at] == CLOSE {
                return Some(at);
            }
            let payload = usize::try_from(scan.payload_left()).unwrap_or(usize::MAX);
            let count = payload.clamp(1, bytes.len() - at);
            scan.feed(&bytes[at..at + count]);
            at += count;
        }
        None
    }

    /// These bytes of the server's were written.
    fn wrote(&mut self, bytes: &[u8]) {
        self.has_ended |= self.close_in(bytes).is_some();
        self.server.feed(bytes);
    }

    /// Without a code it is the close frame that the engine sends.
    fn begin_to_close(&mut self, code: Option<u16>) {
        self.has_closed = true;
        self.closing = match code.map(u16::to_be_bytes) {
            Some([high, low]) => Bytes::copy_from_slice(&[CLOSE, 2, high, low]),
            None => Bytes::from_static(&[CLOSE, 0]),
        };
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reasoned<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.client.feed(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reasoned<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_closed {
            // Nothing follows a close frame, and ours takes the place of the engine's.
            ready!(this.poll_close(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let Some(code) = this.client.wrong else {
            let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
            this.wrote(&buf[..count]);
            return Poll::Ready(Ok(count));
        };
        match this.close_in(buf) {
            Some(0) => {
                this.begin_to_close(Some(code));
                ready!(this.poll_close(cx))?;
                Poll::Ready(Ok(buf.len()))
            }
            at => {
                let count = ready!(Pin::new(&mut this.io).poll_write(cx, &buf[..at.unwrap_or(buf.len())]))?;
                this.wrote(&buf[..count]);
                Poll::Ready(Ok(count))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_close(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_close(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S: AsyncWrite + Unpin> Drop for Reasoned<S> {
    /// The engine may drop a WebSocket without a close frame: its client has closed it or was wrong, or the session was
    /// ended before the engine's writer had started. The client gets one here, if the kernel takes it at once.
    fn drop(&mut self) {
        if !self.has_closed && !self.has_ended && self.server.between_frames() {
            self.begin_to_close(self.client.wrong.or(self.client.closed));
            // A client that is gone misses nothing.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.poll_close(&mut cx);
            let _ = Pin::new(&mut self.io).poll_flush(&mut cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::client_frames::tests::frame;
    use super::*;

    #[tokio::test]
    async fn the_engine_s_close_frame_says_why_and_nothing_follows_it() {
        let (mut client, server) = duplex(1024);
        let mut stream = Reasoned::new(server, 100);
        stream.write_all(b"\x88\x00").await.expect("write");
        let mut received = [0; 2];
        client.read_exact(&mut received).await.expect("read");
        assert_eq!(&received, b"\x88\x00", "as long as nothing is wrong it is the engine's own");

        drop(stream);
        let (mut client, server) = duplex(1024);
        let mut stream = Reasoned::new(server, 100);
        client.write_all(&frame(0x81, &[0xff])).await.expect("write");
        stream.read_exact(&mut [0; 7]).await.expect("read");
        stream.write_all(b"\x81\x02\x88\x00\x81\x00\x88\x02\x03\xe8\x81\x00").await.expect("write");
        stream.shutdown().await.expect("shutdown");
        drop(stream);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("read");
        assert_eq!(received, b"\x81\x02\x88\x00\x81\x00\x88\x02\x03\xef");
    }

    #[tokio::test]
    async fn a_websocket_that_the_engine_drops_ends_with_a_close_frame() {
        for (sent, answer) in [
            (frame(0x88, b"\x03\xe8bye"), &b"\x88\x02\x03\xe8"[..]),
            (frame(0x88, b"x"), b"\x88\x02\x03\xea"),
            (frame(0x81, b"x"), b"\x88\x00"),
        ] {
            let (mut client, server) = duplex(1024);
            let mut stream = Reasoned::new(server, 100);
            client.write_all(&sent).await.expect("write");
            stream.read_exact(&mut vec![0; sent.len()]).await.expect("read");
            drop(stream);
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.expect("read");
            assert_eq!(received, answer);
        }
    }
}
