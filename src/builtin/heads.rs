//! What is no request for Node's HTTP server, though the HTTP library here takes it for one.
//!
//! Most of it is seen in the request itself. A line that ends with a bare LF is not, nor that a body's length is given
//! twice: for that the bytes are followed on their way to the library ([`WatchedStream`]), which changes nothing in them.
//! What is not understood on the way is not followed any further.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of address, names and values that a head may have: Node's `--max-http-header-size`.
const MAX_HEAD: usize = 16 << 10;
/// Headers of one request. (Node takes 2000, and passes over the rest.)
pub(super) const MAX_HEADERS: usize = 1000;
/// Bytes that the library reads before it gives a head up: enough for the longest that may be, with all between its words.
pub(super) const MAX_BUFFER: usize = 32 << 10;
/// Longest line that is looked at: what matters is shorter.
const MAX_LINE: usize = 64;

/// The methods that Node's parser knows.
const METHODS: [&str; 35] = [
    "DELETE",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "SEARCH",
    "UNLOCK",
    "BIND",
    "REBIND",
    "UNBIND",
    "ACL",
    "REPORT",
    "MKACTIVITY",
    "CHECKOUT",
    "MERGE",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PATCH",
    "PURGE",
    "MKCALENDAR",
    "LINK",
    "UNLINK",
    "SOURCE",
    "QUERY",
];

/// Judges a request, and answers one that Node would not take. It is the `number`th of its connection, from 0.
pub(super) fn refusal<B>(request: &Request<B>, number: u64, fault: &Fault) -> Option<Response<Body>> {
    let headers = request.headers();
    let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let address = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    let status = if address + length >= MAX_HEAD {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else if fault.is_in(number)
        || request.version() == Version::HTTP_11 && !headers.contains_key(HOST)
        || !METHODS.contains(&request.method().as_str())
    {
        StatusCode::BAD_REQUEST
    } else {
        return None;
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

/// Which request of a connection, from 0, is the first with a line that ends with a bare LF, or that gives the length
/// of its body twice.
#[derive(Debug, Clone)]
pub(super) struct Fault(Arc<AtomicU64>);

impl Fault {
    fn is_in(&self, number: u64) -> bool {
        number >= self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose requests are followed.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    io: S,
    heads: Heads,
    fault: Fault,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(io: S) -> (Self, Fault) {
        let fault = Fault(Arc::new(AtomicU64::new(u64::MAX)));
        (Self { io, heads: Heads::default(), fault: fault.clone() }, fault)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if let Some(number) = this.heads.feed(&buf.filled()[before..]) {
            this.fault.0.fetch_min(number, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, parts)
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

/// Follows the requests of a connection.
#[derive(Debug, Default)]
struct Heads {
    /// Requests that have come to their end.
    number: u64,
    place: Position,
    /// The front of the line that has begun, and how long it is.
    line: Vec<u8>,
    length: usize,
    /// The last byte of it so far.
    last: u8,
    body: Option<u64>,
    is_chunked: bool,
    /// The length of its body is given twice.
    has_two_lengths: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Position {
    /// Before a request, where empty lines may be.
    #[default]
    Before,
    Head,
    Body(u64),
    ChunkSize,
    /// A chunk's bytes and the end of their line.
    Chunk(u64),
    Trailer,
    /// It is not followed any more.
    Lost,
}

impl Heads {
    /// Takes the next bytes. Yields the number of a request that has what it must not have.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut found = None;
        while !bytes.is_empty() && self.place != Position::Lost {
            if let Position::Body(left) | Position::Chunk(left) = &mut self.place {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                bytes = &bytes[count..];
                if *left == 0 {
                    self.after_data();
                }
                continue;
            }
            let end = memchr(b'\n', bytes);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.length += part.len();
            self.last = part.last().copied().unwrap_or(self.last);
            let Some(end) = end else { return found };
            bytes = &bytes[end + 1..];
            let is_whole = self.length > 0 && self.last == b'\r';
            if !is_whole && matches!(self.place, Position::Before | Position::Head) {
                found = found.or(Some(self.number));
            }
            self.length -= usize::from(is_whole);
            self.line.truncate(self.length);
            self.line_ended();
            if std::mem::take(&mut self.has_two_lengths) {
                found = found.or(Some(self.number));
            }
            (self.length, self.last) = (0, 0);
            self.line.clear();
        }
        found
    }

    /// A body, or a chunk of one, has come to its end.
    fn after_data(&mut self) {
        match self.place {
            Position::Chunk(_) => self.place = Position::ChunkSize,
            _ => self.request_ended(),
        }
    }

    fn request_ended(&mut self) {
        (self.number, self.place) = (self.number + 1, Position::Before);
        (self.body, self.is_chunked) = (None, false);
    }

    fn line_ended(&mut self) {
        let is_empty = self.length == 0;
        match self.place {
            Position::Before if is_empty => {}
            Position::Before if self.line.starts_with(b"CONNECT ") => self.place = Position::Lost,
            Position::Before => self.place = Position::Head,
            Position::Head if !is_empty => self.header(),
            Position::Head if self.is_chunked => self.place = Position::ChunkSize,
            Position::Head => match self.body.unwrap_or(0) {
                0 => self.request_ended(),
                length => self.place = Position::Body(length),
            },
            Position::ChunkSize => {
                let digits = self.line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
                self.place = match std::str::from_utf8(digits).map(|digits| u64::from_str_radix(digits, 16)) {
                    Ok(Ok(0)) => Position::Trailer,
                    Ok(Ok(size)) => Position::Chunk(size.saturating_add(2)),
                    _ => Position::Lost,
                };
            }
            Position::Trailer if is_empty => self.request_ended(),
            Position::Trailer | Position::Body(_) | Position::Chunk(_) | Position::Lost => {}
        }
    }

    /// Notes the headers that give the body's length. After an upgrade there are no requests, and if it is refused the
    /// connection ends.
    fn header(&mut self) {
        let Some(colon) = memchr(b':', &self.line) else { return };
        let (name, value) = (&self.line[..colon], self.line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.has_two_lengths = self.body.is_some() || self.is_chunked;
            match std::str::from_utf8(value).map(str::parse) {
                Ok(Ok(length)) if self.body.is_none() => self.body = Some(length),
                _ => self.place = Position::Lost,
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.has_two_lengths = self.body.is_some() || self.is_chunked;
            self.is_chunked = true;
            if !value.eq_ignore_ascii_case(b"chunked") {
                self.place = Position::Lost;
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.place = Position::Lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const BARE: &str = "GET / HTTP/1.1\r\nHost: x\n\r\n";

    fn found(bytes: &str, cut: usize) -> Option<u64> {
        let mut heads = Heads::default();
        bytes.as_bytes().chunks(cut).filter_map(|part| heads.feed(part)).min()
    }

    proptest! {
        /// However the requests are cut, and whatever their bodies hold.
        #[test]
        fn a_bare_lf_is_found_in_heads_and_nowhere_else(
            before in prop::collection::vec((any::<bool>(), "[a\r\n]{0,12}", "(\r\n){0,2}"), 0..4),
            line in 0..4_usize,
            cut in 1..40_usize,
        ) {
            let number = before.len() as u64;
            let mut bytes: String = before.iter().map(|(chunked, body, empty)| match (chunked, body.len()) {
                (true, 0) => format!("{empty}POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: Chunked\r\n\r\n0\r\nA: b\r\n\r\n"),
                (true, length) => format!(
                    "{empty}POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\n\r\n{length:x};a\r\n{body}\r\n1\r\n\n\r\n0\r\n\r\n",
                ),
                (false, length) => format!("{empty}POST / HTTP/1.1\r\nContent-Length: {length} \r\n\r\n{body}"),
            }).collect();
            bytes += GET;
            prop_assert_eq!(found(&bytes, cut), None);
            let lines = ["GET / HTTP/1.1", "Host: x", "", ""].iter().take(3).enumerate();
            bytes.extend(lines.map(|(at, text)| format!("{text}{}", if at == line { "\n" } else { "\r\n" })));
            prop_assert_eq!(found(&bytes, cut), (line < 3).then_some(number + 1));
        }
    }

    #[test]
    fn what_follows_an_upgrade_or_an_unknown_length_is_not_judged() {
        for before in [
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "CONNECT x:1 HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ] {
            assert_eq!(found(&format!("{before}{BARE}"), 7), None, "{before}");
        }
        assert_eq!(found(BARE, 3), Some(0));
    }

    #[test]
    fn a_length_that_has_two_lengths_is_found() {
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        for twice in [[length, length], [length, chunked], [chunked, length]] {
            let bytes = format!("{GET}POST / HTTP/1.1\r\n{}\r\n{BARE}", twice.concat());
            assert_eq!(found(&bytes, 5), Some(1), "{bytes}");
        }
    }
}
