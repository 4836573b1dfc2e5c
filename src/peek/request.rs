//! The first request of a connection, or that it will be none.

use memchr::memchr;

use super::headers::Headers;
use super::proxy;

/// What the first bytes of a connection are to HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestParse<'b> {
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
    /// An unexpected PROXY header.
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

/// Most bytes of empty lines ahead of a request. RFC 9112, 2.2 asks for one line to be overlooked.
const MAX_EMPTY: usize = 16;
/// Longest method. The longest that is registered has 17 bytes (UPDATEREDIRECTREF; RFC 4437).
const MAX_METHOD: usize = 32;

/// A request of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    /// The method, as it was sent.
    pub method: &'b str,
    /// The path without the query, as it was sent; of a target with scheme and host, what follows these. Not a path
    /// when the target is none (`*`; host and port of CONNECT).
    pub path: &'b str,
    /// What follows the question mark.
    pub query: Option<&'b str>,
    /// All headers if they were requested; otherwise those whose lines have arrived.
    pub headers: Headers<'b>,
}

/// Looks at all the bytes that a connection has brought so far.
///
/// `seen`: of these, how many an earlier call with the same `needs_headers` was given, which answered [`RequestParse::More`]; 0
/// if there was none. The answer is the same with 0, it only takes longer. `needs_headers`: whether to wait for all
/// headers, or for the request line only. After waiting for headers in vain, a caller can still parse the line alone.
///
/// A request is one whatever its headers are: an unreadable header is an error when it is read.
pub fn look(bytes: &[u8], seen: usize, needs_headers: bool) -> RequestParse<'_> {
    if let Some((_, kind)) = SIGNATURES.into_iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return RequestParse::NotHttp(kind);
    }
    let empty = bytes.iter().take(MAX_EMPTY + 1).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if empty > MAX_EMPTY {
        return RequestParse::NotHttp(NotHttp::Other);
    }
    let Some(end) = memchr(b'\n', &bytes[empty..]).map(|at| empty + at + 1) else {
        return if read_line(bytes, empty).is_ok() { RequestParse::More } else { refuse(bytes) };
    };
    let (line, rest) = bytes.split_at(end);
    let Ok(Some((method, target))) = read_line(line, empty) else { return refuse(bytes) };
    let headers =
        if needs_headers { Headers::complete(rest, seen.saturating_sub(end)) } else { Some(Headers::so_far(rest)) };
    headers.map_or(RequestParse::More, |headers| {
        let (path, query) = split(target);
        RequestParse::Request(Request { method, path, query, headers })
    })
}

/// Method and target of a request line behind `empty` bytes of empty lines, if both have come. The error: it cannot
/// become one.
fn read_line(line: &[u8], empty: usize) -> Result<Option<(&str, &str)>, NotHttp> {
    let mut request = httparse::Request::new(&mut []);
    // Never complete: that would take the headers.
    request.parse(line).map_err(|_| NotHttp::Other)?;
    let method = request.method.map_or(line.len() - empty, str::len);
    if method > MAX_METHOD { Err(NotHttp::Other) } else { Ok(request.method.zip(request.path)) }
}

/// What to say of bytes that no request begins with.
fn refuse(bytes: &[u8]) -> RequestParse<'_> {
    if SIGNATURES.into_iter().any(|(signature, _)| signature.starts_with(bytes)) {
        RequestParse::More
    } else {
        RequestParse::NotHttp(NotHttp::Other)
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
    /// The session id: the value of the query's first `sid`, as it was sent. None if it is empty, which is how
    /// Engine.IO takes it.
    ///
    /// Escapes are left as they are. A tag has none, and an id with one cannot pass for tagged: the tag's checksum is
    /// over the id without.
    pub fn sid(&self) -> Option<&'b str> {
        self.query?.split('&').find_map(|pair| pair.strip_prefix("sid=")).filter(|sid| !sid.is_empty())
    }

    /// Whether it states a version of Engine.IO's protocol, as each of its requests does.
    pub fn is_engine_io(&self) -> bool {
        self.query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("EIO=")))
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

/// Whether a path is that of Socket.IO's requests themselves, and not of something below it (the client bundle).
pub fn is_at(path: &str, prefix: &str) -> bool {
    path == prefix || prefix.strip_suffix('/') == Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looked at as it comes in byte by byte, `bytes` are nothing before the byte that is number `decided`, and from
    /// then on always the same; whatever was looked at before.
    fn comes_in(bytes: &[u8], needs_headers: bool, decided: usize) -> RequestParse<'_> {
        let answer = look(&bytes[..decided], 0, needs_headers);
        for end in 0..=bytes.len() {
            let (so_far, told) = (&bytes[..end], format!("{end} of {}", bytes.escape_ascii()));
            for seen in 0..=end.min(decided - 1) {
                let expected = if end < decided { RequestParse::More } else { answer };
                assert_eq!(
                    without_extra(look(so_far, seen, needs_headers), needs_headers),
                    expected,
                    "{seen} seen, {told}"
                );
            }
        }
        answer
    }

    /// Headers that were not asked for are there or not.
    fn without_extra(look: RequestParse<'_>, needs_headers: bool) -> RequestParse<'_> {
        match look {
            RequestParse::Request(request) if !needs_headers => {
                RequestParse::Request(Request { headers: Headers::default(), ..request })
            }
            other => other,
        }
    }

    fn request(bytes: &[u8]) -> Request<'_> {
        match look(bytes, 0, false) {
            RequestParse::Request(request) => request,
            other => panic!("{other:?} for {}", bytes.escape_ascii()),
        }
    }

    fn of_target(target: &str) -> (String, Option<String>) {
        let bytes = format!("GET {target} HTTP/1.1\r\n");
        let request = request(bytes.as_bytes());
        (request.path.into(), request.sid().map(Into::into))
    }

    const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=polling&t=P HTTP/1.1";

    #[test]
    fn a_request_is_known_when_its_line_has_come() {
        for (empty, end) in [
            ("", "\r\n"),
            ("\r\n", "\r\n"),
            ("\r\n\r\n\n", "\r\n"),
            ("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", "\r\n"),
            ("", "\n"),
        ] {
            let line = format!("{empty}{HANDSHAKE}{end}");
            let bytes = format!("{line}Host: x\r\nA: b\r\n\r\nbody");
            let RequestParse::Request(request) = comes_in(bytes.as_bytes(), false, line.len()) else {
                panic!("{line:?}")
            };
            assert_eq!((request.method, request.path), ("GET", "/socket.io/"));
            assert_eq!((request.query, request.sid()), (Some("EIO=4&transport=polling&t=P"), None));
        }
    }

    #[test]
    fn headers_are_waited_for_when_they_are_needed() {
        for (headers, names) in [
            ("Host: x\r\nA: b\r\n\r\n", &["Host", "A"][..]),
            ("Host: x\nA: b\n\n", &["Host", "A"]),
            ("Host: x\r\nA: b\n\r\n", &["Host", "A"]),
            ("Host: x\nA: b\r\n\n", &["Host", "A"]),
            ("\r\n", &[]),
            ("\n", &[]),
        ] {
            let bytes = format!("{HANDSHAKE}\r\n{headers}body\r\n\r\n\n\n");
            let decided = HANDSHAKE.len() + 2 + headers.len();
            let RequestParse::Request(request) = comes_in(bytes.as_bytes(), true, decided) else {
                panic!("{headers:?}")
            };
            let found: Vec<_> = request.headers.iter().map(|header| header.expect("header").0).collect();
            assert_eq!(found, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), "{headers:?}");
        }
    }

    #[test]
    fn a_request_is_one_whatever_its_headers_are() {
        for headers in ["no colon\r\n\r\n", " folded: x\r\n\r\n", "\x01: x\r\n\r\n", "A: \0\r\n\r\n", "\r: x\n\n"] {
            let bytes = format!("{HANDSHAKE}\r\n{headers}");
            let RequestParse::Request(request) = comes_in(bytes.as_bytes(), true, bytes.len()) else {
                panic!("{headers:?}")
            };
            assert!(request.headers.iter().any(|header| header.is_err()), "{headers:?}");
        }
    }

    #[test]
    fn headers_that_were_not_asked_for_are_those_that_are_there() {
        let line = format!("{HANDSHAKE}\r\n");
        for (rest, count) in
            [("", 0), ("Ho", 0), ("Host: x\r\n", 1), ("Host: x\r\nA", 1), ("A: b\r\n\r\nbody: x\r\n", 1)]
        {
            let bytes = format!("{line}{rest}");
            assert_eq!(request(bytes.as_bytes()).headers.iter().count(), count, "{rest:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_from_the_first_byte_that_cannot_be() {
        for (bytes, decided, kind) in [
            // A ClientHello.
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 2, NotHttp::Tls),
            (b"\x16\x02\x01", 2, NotHttp::Other),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4, NotHttp::Http2),
            (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n\r\n", 6, NotHttp::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 12, NotHttp::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIP\n", 11, NotHttp::Other),
            // SSH, Redis, MQTT, zeros, a response, HTTP/0.9.
            (b"SSH-2.0-OpenSSH_9.2\r\n", 20, NotHttp::Other),
            (b"*1\r\n$4\r\nPING\r\n", 3, NotHttp::Other),
            (b"\x10\x1a\0\x04MQTT", 1, NotHttp::Other),
            (b"\0\0\0\0", 1, NotHttp::Other),
            (b"HTTP/1.1 200 OK\r\n", 5, NotHttp::Other),
            (b"GET /\r\n", 6, NotHttp::Other),
            (b"GET / HTTP/2.0\r\n", 12, NotHttp::Other),
            (b"GET / HTTP/1.2\r\n", 14, NotHttp::Other),
            (b"GET / HTTP/1.1 \r\n", 15, NotHttp::Other),
            (b"GET  / HTTP/1.1\r\n", 5, NotHttp::Other),
            (b"GET /a b HTTP/1.1\r\n", 8, NotHttp::Other),
            (b" GET / HTTP/1.1\r\n", 1, NotHttp::Other),
            (b"\rGET / HTTP/1.1\r\n", 2, NotHttp::Other),
            (b"GET /\xff HTTP/1.1\r\n", 7, NotHttp::Other),
            // What could go on for ever.
            (&[b'A'; 64], 33, NotHttp::Other),
            (&[b'\n'; 64], 17, NotHttp::Other),
        ] {
            for needs_headers in [false, true] {
                assert_eq!(
                    comes_in(bytes, needs_headers, decided),
                    RequestParse::NotHttp(kind),
                    "{}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn other_methods_are_not_taken_for_what_begins_like_them() {
        for method in
            ["POST", "PUT", "PROPFIND", "PRINT", "PRI-X", "PROXYING", "P", "OPTIONS", "M-SEARCH", &"X".repeat(32)]
        {
            let bytes = format!("{method} /x HTTP/1.0\r\n");
            let look = comes_in(bytes.as_bytes(), false, bytes.len());
            assert!(matches!(look, RequestParse::Request(request) if request.method == method), "{method}: {look:?}");
        }
    }

    #[test]
    fn a_path_is_found_in_every_form_of_target() {
        for (target, path) in [
            ("/", "/"),
            ("/socket.io/", "/socket.io/"),
            ("/socket.io/?sid=x", "/socket.io/"),
            ("/a?b?c", "/a"),
            ("/a#b?sid=c", "/a"),
            ("http://example.org/socket.io/?sid=x", "/socket.io/"),
            ("https://[::1]:8080", "/"),
            ("http://example.org?sid=x", "/"),
            ("/x?to=http://example.org/y", "/x"),
            ("/x/http://example.org/y", "/x/http://example.org/y"),
            ("/%73ocket.io/", "/%73ocket.io/"),
            ("example.org:443", "example.org:443"),
            ("*", "*"),
        ] {
            assert_eq!(of_target(target).0, path, "{target}");
        }
    }

    #[test]
    fn the_session_id_is_the_first_sid_of_the_query() {
        for (target, sid) in [
            ("/?sid=a", Some("a")),
            ("/?EIO=4&transport=polling&sid=lgy5100AAIAAAAHc1T68moD&t=1", Some("lgy5100AAIAAAAHc1T68moD")),
            ("/?sid=a&sid=b", Some("a")),
            ("/?sid=a=b", Some("a=b")),
            ("/?sid=a%2Eb+c", Some("a%2Eb+c")),
            ("http://h/?x&sid=a", Some("a")),
            ("/?", None),
            ("/?sid", None),
            ("/?sid=", None),
            ("/?sid=&sid=b", None),
            ("/?SID=a", None),
            ("/?%73id=a", None),
            ("/?xsid=a&sidx=b", None),
            ("/?a#?sid=b", None),
            ("/sid=a", None),
            ("*", None),
        ] {
            assert_eq!(of_target(target).1.as_deref(), sid, "{target}");
        }
    }

    #[test]
    fn below_a_path_is_what_stands_behind_its_slash() {
        for (path, prefix, below) in [
            ("/socket.io/", "/socket.io/", true),
            ("/socket.io", "/socket.io/", true),
            ("/socket.io/x", "/socket.io/", true),
            ("/socket.io/", "/socket.io", true),
            ("/socket.iox", "/socket.io/", false),
            ("/socket", "/socket.io/", false),
            ("/Socket.io/", "/socket.io/", false),
            ("/x/socket.io/", "/socket.io/", false),
            ("/", "/", true),
            ("/x", "/", true),
            ("*", "/", false),
            ("", "/socket.io/", false),
        ] {
            assert_eq!(is_below(path, prefix), below, "{path} below {prefix}");
        }
    }
}
