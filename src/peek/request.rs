//! The first request of a connection, or that it will be none.

use memchr::memchr;

use super::headers::Headers;
use super::proxy;

/// What the first bytes of a connection are to HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'b> {
    /// So far it can be a request: look again when more has come.
    More,
    /// It will never be a request of HTTP/1.
    NotHttp(NotHttp),
    /// A request, as much of it as was asked for.
    Request(Request<'b>),
}

/// What it is if it is no request of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotHttp {
    /// A handshake of TLS (RFC 8446, 5.1).
    Tls,
    /// HTTP/2 without TLS (RFC 9113, 3.4). No other request has the method PRI (11.6).
    Http2,
    /// A PROXY header that nobody asked for.
    ProxyHeader,
    /// Something else.
    Other,
}

/// The first bytes of what is well known and no request of HTTP/1.
const SIGNATURES: [(&[u8], NotHttp); 4] = [
    (b"\x16\x03", NotHttp::Tls),
    (b"PRI ", NotHttp::Http2),
    (proxy::V1, NotHttp::ProxyHeader),
    (proxy::V2, NotHttp::ProxyHeader),
];

/// A request of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    /// The method, as it was sent.
    pub method: &'b str,
    /// The path without the query, as it was sent; of a target with scheme and host, what follows these. Not a path when
    /// the target is none (`*`; host and port of CONNECT).
    pub path: &'b str,
    /// What follows the question mark.
    pub query: Option<&'b str>,
    /// All headers if they were asked for; otherwise those whose lines happen to be there.
    pub headers: Headers<'b>,
}

/// Looks at all the bytes that a connection has brought so far.
///
/// `seen`: of these, how many an earlier call with the same `needs_headers` was given, which answered [`Look::More`]; 0
/// if there was none. The answer is the same with 0, it only takes longer. `needs_headers`: whether to wait for all
/// headers, or for the request line only.
///
/// When the headers are not to be read as such, the request is one all the same: what they say is told when they are
/// read.
pub fn look(bytes: &[u8], seen: usize, needs_headers: bool) -> Look<'_> {
    if let Some((_, kind)) = SIGNATURES.into_iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return Look::NotHttp(kind);
    }
    // RFC 9112, 2.2: empty lines may come first.
    let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let Some(end) = memchr(b'\n', &bytes[empty..]).map(|at| empty + at + 1) else {
        return match read_line(bytes) {
            Ok(_) => Look::More,
            Err(_) => refuse(bytes),
        };
    };
    let (line, rest) = bytes.split_at(end);
    let headers =
        if needs_headers { Headers::complete(rest, seen.saturating_sub(end)) } else { Some(Headers::so_far(rest)) };
    // A line that was there before was found to be good.
    if headers.is_none() && seen >= end {
        return Look::More;
    }
    let Ok(Some((method, target))) = read_line(line) else { return refuse(bytes) };
    headers.map_or(Look::More, |headers| {
        let (path, query) = split(target);
        Look::Request(Request { method, path, query, headers })
    })
}

/// Method and target, if the line has them both already.
fn read_line(line: &[u8]) -> Result<Option<(&str, &str)>, httparse::Error> {
    let mut request = httparse::Request::new(&mut []);
    // Never complete: that would take the headers.
    request.parse(line)?;
    Ok(request.method.zip(request.path))
}

/// What to say of bytes that no request begins with.
fn refuse(bytes: &[u8]) -> Look<'_> {
    if SIGNATURES.into_iter().any(|(signature, _)| signature.starts_with(bytes)) {
        Look::More
    } else {
        Look::NotHttp(NotHttp::Other)
    }
}

/// Path and query of a request's target (RFC 9112, 3.2).
fn split(target: &str) -> (&str, Option<&str>) {
    // No client sends a fragment; servers that are sent one leave it out.
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    match path.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => (rest.find('/').map_or("/", |at| &rest[at..]), query),
        _ => (path, query),
    }
}

impl<'b> Request<'b> {
    /// The session id: the value of the query's first `sid`, as it was sent. None if it is empty, which is how Engine.IO
    /// takes it.
    ///
    /// Escapes are left as they are. A tag has none, and an id with one cannot pass for tagged: the tag's checksum is over
    /// the id without.
    pub fn sid(&self) -> Option<&'b str> {
        self.query?.split('&').find_map(|pair| pair.strip_prefix("sid=")).filter(|sid| !sid.is_empty())
    }

    /// Whether the path is `prefix` or below it. See [`is_below`].
    pub fn is_below(&self, prefix: &str) -> bool {
        is_below(self.path, prefix)
    }
}

/// Whether a request's path is `prefix` or below it: `/socket.io`, `/socket.io/` and `/socket.io/x`, not `/socket.iox`,
/// are below `/socket.io/`.
///
/// Compared as they are written: a path with escapes or `..` is below nothing that it does not begin with.
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
