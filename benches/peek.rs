//! What it costs to look at the first bytes of a connection: what an ordinary one pays, and the worst that a client can
//! make of its 8 KiB.
//!
//! `cargo bench --bench peek`. The peeking itself (recv) comes on top.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use haft::peek::request::{self, RequestParse};
use haft::peek::{ClientHeader, MAX_PEEKED, TrustedProxies, ValueRoom, ValueSource, proxy};
use haft::route::{Slot, Tag, TagKey, Tagger, ValueKeys};

/// A handshake as Chromium sends it, behind two proxies: 20 headers.
const HANDSHAKE: &[u8] = b"GET /socket.io/?EIO=4&transport=polling&t=PVgDUNT HTTP/1.1\r\n\
    Host: chat.example.org\r\n\
    X-Forwarded-Proto: https\r\n\
    X-Real-IP: 203.0.113.9\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Chromium\";v=\"143\", \"Not A(Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Accept: */*\r\n\
    Origin: https://chat.example.org\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: https://chat.example.org/rooms/42\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: theme=dark; session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0\r\n\
    DNT: 1\r\n\
    Cache-Control: no-cache\r\n\
    X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.1\r\n\
    \r\n";

fn request(bytes: &[u8], needs_headers: bool) -> request::Request<'_> {
    match request::look(black_box(bytes), 0, needs_headers) {
        RequestParse::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn ordinary(c: &mut Criterion) {
    let tagger = Tagger::new(&TagKey::of_text("a key"));
    let sid = tagger.append("lgy5fjW0yVKcPbBnAAAC", Tag { slot: Slot(2), generation: 7 });
    let poll = format!(
        "GET /socket.io/?EIO=4&transport=polling&t=PVgDUNT&sid={sid} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\
         Accept: */*\r\nUser-Agent: node-XMLHttpRequest\r\nConnection: keep-alive\r\n\r\n"
    );
    c.bench_function("request with a tag, tag read", |b| {
        b.iter(|| {
            let request = request(poll.as_bytes(), false);
            assert!(request.is_below("/socket.io/"));
            request.sid().and_then(|sid| tagger.read(sid.as_bytes())).expect("a tag").1
        });
    });
    c.bench_function("request with a tag, tag not read", |b| {
        b.iter(|| request(poll.as_bytes(), false).sid().is_some())
    });

    assert_eq!(request(HANDSHAKE, true).headers.iter().count(), 20);
    let trusted: TrustedProxies =
        ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network")).into_iter().collect();
    let client =
        |header: ClientHeader| move |headers| header.client(headers, &trusted).expect("well-formed").expect("a client");
    let (last, third) = (client.clone()(ClientHeader::XForwardedFor), client(ClientHeader::XRealIp));
    c.bench_function("browser's handshake, all headers", |b| b.iter(|| request(HANDSHAKE, true)));
    c.bench_function("browser's handshake, client from the last header", |b| {
        b.iter(|| last(request(HANDSHAKE, true).headers));
    });
    c.bench_function("browser's handshake, client from the third header", |b| {
        b.iter(|| third(request(HANDSHAKE, true).headers));
    });
}

/// What decides where a connection goes: the session, and values of the same request.
fn affinity(c: &mut Criterion) {
    let key = TagKey::of_text("a key");
    let (tagger, keys) = (Tagger::new(&key), ValueKeys::new(&key));
    let sid = tagger.append("lgy5fjW0yVKcPbBnAAAC", Tag { slot: Slot(2), generation: 7 });
    let query = format!("GET /socket.io/?EIO=4&transport=polling&t=PVgDUNT&room=the+4th%20room&sid={sid} HTTP/1.1\r\n");
    let browsers = String::from_utf8_lossy(HANDSHAKE);
    let whole = query.clone() + browsers.split_once("\r\n").expect("a request line").1;
    c.bench_function("affinity: session", |b| {
        b.iter(|| request(whole.as_bytes(), false).sid().and_then(|sid| tagger.read(sid.as_bytes())).expect("a tag").1);
    });
    for text in ["query:room", "cookie:session", "header:accept-language", "path:1"] {
        let source: ValueSource = text.parse().expect("a source");
        c.bench_function(&format!("affinity: {text}"), |b| {
            b.iter(|| {
                let request = request(whole.as_bytes(), source.needs_headers());
                keys.key(source.value(&request, &mut ValueRoom::new()).expect("a value"))
            });
        });
    }
}

fn proxies(c: &mut Criterion) {
    let v1 = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
    let v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\xa8\0\x01\xc0\xa8\0\x0b\xdc\x04\x01\xbb\x01\0\x02h2GET / HTTP/1.1\r\n";
    for (name, bytes) in [("PROXY v1", &v1[..]), ("PROXY v2", v2)] {
        assert!(matches!(proxy::look(bytes), proxy::ProxyParse::Header(header) if header.ends.is_some()));
        c.bench_function(name, |b| b.iter(|| proxy::look(black_box(bytes))));
    }
}

/// 8 KiB that say nothing yet, looked at once more when their last byte has come.
fn worst(c: &mut Criterion) {
    let fill = |start: &[u8], filling: &[u8]| {
        start.iter().chain(filling.iter().cycle()).copied().take(MAX_PEEKED).collect::<Vec<u8>>()
    };
    for (name, bytes) in
        [("8 KiB of target", fill(b"GET /", b"a")), ("8 KiB of headers", fill(b"GET / HTTP/1.1\r\n", b"a:\r\n"))]
    {
        for (how, seen) in [("the last byte", MAX_PEEKED - 1), ("from the start", 0)] {
            assert_eq!(request::look(&bytes, seen, true), RequestParse::More);
            c.bench_function(&format!("{name}, {how}"), |b| b.iter(|| request::look(black_box(&bytes), seen, true)));
        }
    }
}

criterion_group!(benches, ordinary, affinity, proxies, worst);
criterion_main!(benches);
