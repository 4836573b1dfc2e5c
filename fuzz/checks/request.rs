//! Any bytes, looked at as the head of a request.

use haft::peek::request::{RequestParse, look};
use haft::peek::{Headers, NotHttp, Request};
use httparse::Status;

/// The first byte says in what pieces the others come in.
pub fn check(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    for needs_headers in [false, true] {
        comes_in(bytes, usize::from(*piece) + 1, needs_headers);
    }
    is_what_another_reads(bytes);
}

/// What was answered once stays, and what was looked at before makes no difference.
fn comes_in(bytes: &[u8], piece: usize, needs_headers: bool) {
    let (mut answer, mut seen) = (RequestParse::More, [0; 2]);
    for end in (0..bytes.len()).step_by(piece).chain([bytes.len()]) {
        let so_far = look(&bytes[..end], 0, needs_headers);
        match (answer, so_far) {
            (RequestParse::More, _) => {
                for seen in seen {
                    assert_eq!(look(&bytes[..end], seen, needs_headers), so_far, "{seen} seen of {end}");
                }
                seen = [end, seen[0]];
            }
            // Headers that were not asked for come in all the same.
            (RequestParse::Request(before), RequestParse::Request(now)) if !needs_headers => {
                assert_eq!(without_headers(before), without_headers(now), "at {end}");
            }
            (before, now) => assert_eq!(before, now, "at {end}"),
        }
        answer = so_far;
    }
}

fn without_headers(request: Request<'_>) -> Request<'_> {
    Request { headers: Headers::default(), ..request }
}

/// A parser that takes line and headers at one go finds the same.
fn is_what_another_reads(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 512];
    let mut another = httparse::Request::new(&mut headers);
    let read = match another.parse(bytes) {
        Err(httparse::Error::TooManyHeaders) => return,
        read => read,
    };
    let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let complete = matches!(read, Ok(Status::Complete(_)));
    match (look(bytes, 0, false), look(bytes, 0, true)) {
        (RequestParse::Request(line), RequestParse::Request(whole)) => {
            assert_eq!(line, whole);
            let ours: Result<Vec<_>, _> = whole.headers.iter().collect();
            assert_eq!(ours.is_ok(), complete, "{ours:?} {read:?}");
            assert_eq!(another.method, Some(whole.method));
            let theirs = another.headers.iter().map(|header| (header.name.as_bytes(), header.value));
            assert!(ours.is_err() || theirs.eq(ours.into_iter().flatten()));
        }
        (RequestParse::Request(line), RequestParse::More) => {
            assert!(!complete);
            assert_eq!(another.method, Some(line.method));
        }
        (RequestParse::More, RequestParse::More) => {
            let beginnings = [&b"\x16\x03"[..], b"\r\n\r\n\0\r\nQUIT\n"];
            assert!(read == Ok(Status::Partial) || beginnings.iter().any(|first| first.starts_with(bytes)));
        }
        (RequestParse::NotHttp(kind), RequestParse::NotHttp(again)) => {
            assert_eq!(kind, again);
            let expected = match kind {
                NotHttp::Http2 => another.method == Some("PRI"),
                NotHttp::ProxyHeader => another.method == Some("PROXY") || read.is_err(),
                // No limit of ours is another's.
                NotHttp::Other => read.is_err() || another.method.is_none_or(|method| method.len() > 32) || empty > 16,
                NotHttp::Tls => read.is_err(),
            };
            assert!(expected, "{kind:?} {read:?}");
        }
        (line, whole) => panic!("{line:?} {whole:?}"),
    }
}
