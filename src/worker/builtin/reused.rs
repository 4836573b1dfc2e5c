//! A connection that may carry the requests of many clients, of other workers too.
//!
//! The master decides by a connection's first request. A proxy may use the connection for others afterwards, and then a
//! request can come whose session is another worker's. Before such a request is read, and only where it certainly begins
//! ([`Boundary`]), its first line is looked at without being consumed; if it names another worker, the socket goes back
//! to the master as it is.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::boundary::Boundary;
use super::drain::lock;
use super::first_sid::{FirstSid, first_sid};
use crate::handover::haft::Passed;
use crate::route::Tag;
use crate::worker::{Connection, Passer, Stream, Tags, Whose};

/// Bytes that are looked at: whoever sends a longer line is left to the HTTP library.
const LOOK_AT: usize = 8 * 1024;

/// How often in a row nothing more may be there than before although the socket is readable: after its peer's end it
/// stays so.
const IN_VAIN: u8 = 3;

/// The stream of such a connection, as the HTTP library is given it: it ends where the connection was passed on.
#[derive(Debug)]
pub(super) struct Reused {
    /// `None`: passed on.
    stream: Option<Stream>,
    pass: Option<Pass>,
}

/// What it takes to pass a connection on.
#[derive(Debug)]
struct Pass {
    follow: Follow,
    tags: Tags,
    passer: Passer,
    /// What the master is told; the tag is the one found.
    passed: Passed,
    /// Bytes that were there when last looked at, and how often in a row there were no more.
    seen: (usize, u8),
}

/// Follows where a connection is in its requests. Clones follow the same connection.
#[derive(Debug, Clone)]
pub(super) struct Follow(Arc<Mutex<Boundary>>);

impl Follow {
    /// A request was parsed.
    pub(super) fn asked(&self, body: &Incoming) {
        lock(&self.0).asked(body.size_hint().exact());
    }
}

impl Reused {
    /// The connection's stream. Only TCP connections of a worker that tags are followed, and passed on.
    pub(super) fn new(connection: Connection, tags: Option<Tags>, passer: Passer) -> (Self, Option<Follow>) {
        let Connection { stream, client, local, listener } = connection;
        let pass = tags.filter(|_| stream.tcp_ref().is_some()).map(|tags| {
            let passed = Passed { listener, tag: tags.own(), client, local };
            Pass { follow: Follow(Arc::default()), tags, passer, passed, seen: (0, 0) }
        });
        let follow = pass.as_ref().map(|pass| pass.follow.clone());
        (Self { stream: Some(stream), pass }, follow)
    }

    /// At the boundary of two requests: waits until the next one tells whose it is, and passes the connection on if it is
    /// another worker's. `true`: it was passed on.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let (Some(stream), Some(pass)) = (&self.stream, &mut self.pass) else { return Poll::Ready(false) };
        if !lock(&pass.follow.0).is_here() {
            return Poll::Ready(false);
        }
        let tag = ready!(pass.poll_look(stream, cx));
        if let Some(tag) = tag
            && let Some(room) = pass.passer.room()
            && let Some(tcp) = self.stream.take().and_then(Stream::into_tcp)
        {
            // It leaves this runtime's epoll before anybody else is given it.
            match tcp.into_std() {
                Ok(tcp) => room.pass(Passed { tag, ..pass.passed }, OwnedFd::from(tcp)),
                Err(error) => tracing::debug!(%error, "a connection of another worker's cannot be passed on"),
            }
            return Poll::Ready(true);
        }
        lock(&pass.follow.0).begin();
        pass.seen = (0, 0);
        Poll::Ready(false)
    }
}

impl Pass {
    /// Looks at what waits to be read until it tells whether it is another worker's.
    fn poll_look(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Option<Tag>> {
        let Some(tcp) = stream.tcp_ref() else { return Poll::Ready(None) };
        let mut first = [0; LOOK_AT];
        loop {
            if ready!(tcp.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            let looked = tcp.try_io(Interest::READABLE, || {
                let there = recv(tcp.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
                match first_sid(&first[..there]) {
                    FirstSid::Some(sid) => Ok(match self.tags.whose(sid) {
                        Whose::Another(tag) => Some(tag),
                        Whose::Ours(_) | Whose::Untagged => None,
                    }),
                    // Readable is what it becomes when more comes: this makes the runtime wait for that.
                    FirstSid::More if there > 0 && there < LOOK_AT && self.hopes(there) => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    FirstSid::More | FirstSid::None => Ok(None),
                }
            });
            match looked {
                Ok(tag) => return Poll::Ready(tag),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Whoever reads next is told.
                Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// Whether there is reason to wait for more than what is there.
    fn hopes(&mut self, there: usize) -> bool {
        let (before, in_vain) = self.seen;
        self.seen = if there > before { (there, 0) } else { (there, in_vain + 1) };
        self.seen.1 < IN_VAIN
    }
}

impl AsyncRead for Reused {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_pass(cx)) {
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &mut this.stream else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        if let Some(pass) = &this.pass {
            lock(&pass.follow.0).read(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl Reused {
    fn wrote(&mut self) -> io::Result<&mut Stream> {
        if let Some(pass) = &self.pass {
            lock(&pass.follow.0).wrote();
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncWrite for Reused {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().wrote()?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().wrote()?).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(stream).poll_flush(cx))?;
        if let Some(pass) = &this.pass {
            // The HTTP library flushes once it has written all it has.
            lock(&pass.follow.0).flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// An answer's body that tells when it has come to its end.
#[derive(Debug)]
pub(super) struct Followed {
    body: Body,
    _end: Option<End>,
}

#[derive(Debug)]
struct End(Follow);

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.0.0).answered();
    }
}

/// An answer whose end is followed, on a connection that is.
pub(super) fn followed(response: Response<Body>, follow: Option<Follow>) -> Response<Followed> {
    if let Some(follow) = follow.as_ref().filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        lock(&follow.0).upgraded();
    }
    response.map(|body| Followed { body, _end: follow.map(End) })
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
