//! Any header lines from a client, and what its proxy adds behind them.

use std::net::{IpAddr, SocketAddr};

use haft::peek::request::{RequestParse, look};
use haft::peek::{ClientHeader, Headers, MalformedForwarded, TrustedProxies};

/// What a proxy of ours writes at the end of a list, and whom it means.
const ADDED: [(&str, &str); 4] = [
    ("192.0.2.7", "192.0.2.7:0"),
    ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
    ("192.0.2.7:80, 10.0.0.1", "192.0.2.7:80"),
    ("::ffff:192.0.2.7, 10.0.0.1,10.0.0.2", "192.0.2.7:0"),
];
const ADDED_FORWARDED: [(&str, &str); 4] = [
    ("for=192.0.2.7", "192.0.2.7:0"),
    ("for=\"[2001:db8::7]:4711\"", "[2001:db8::7]:4711"),
    ("proto=https;for=\"192.0.2.7:80\";host=\"a,b\", for=10.0.0.1", "192.0.2.7:80"),
    ("by=\"\\\",\\\\\";For=192.0.2.7, for=10.0.0.1;by=_x", "192.0.2.7:0"),
];

/// The first byte says which header tells the client and which of the endings is added; the others are what the client
/// sends: as header lines, and as the list in a line of that header.
pub fn check(data: &[u8]) {
    let Some((choice, sent)) = data.split_first() else { return };
    let trusted: TrustedProxies = ["10.0.0.0/8"].iter().map(|net| net.parse().expect("a network")).collect();
    let (header, added) = match choice % 3 {
        0 => (ClientHeader::XForwardedFor, ADDED),
        1 => ("cf-connecting-ip".parse().expect("a name"), ADDED),
        _ => (ClientHeader::Forwarded, ADDED_FORWARDED),
    };
    let (added, client) = added[usize::from(choice / 3) % 4];
    let client: SocketAddr = client.parse().expect("an address");
    let told = |head: &[u8]| header.client(headers(head), &trusted);

    if let Ok(Some(found)) = told(&head(sent, b"")) {
        assert_eq!(found.ip(), IpAddr::to_canonical(&found.ip()));
        // Then the last entry is an address too, and counts if nobody's word does.
        let last = header.client(headers(&head(sent, b"")), &TrustedProxies::default());
        assert!(matches!(last, Ok(Some(_))), "{last:?}");
    }

    // No line that a client sends changes what is told in a line behind it.
    assert_eq!(told(&head(sent, format!("{header}: {added}\r\n").as_bytes())), Ok(Some(client)));

    // Nor does anything that it sends in the same line; that can only make the line none at all.
    let is_value = !sent.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    let line = [header.name().as_bytes(), b": ", sent, b", ", added.as_bytes(), b"\r\n"].concat();
    let expected = if is_value { Ok(Some(client)) } else { Err(MalformedForwarded) };
    if !sent.contains(&b'\n') {
        assert_eq!(told(&head(b"", &line)), expected);
    }
}

/// A request's head with the lines that a client sends, as far as they are one head's, and those that are added.
fn head(sent: &[u8], added: &[u8]) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    for line in sent.split_inclusive(|byte| *byte == b'\n') {
        if !matches!(line, b"\n" | b"\r\n") {
            head.extend(line);
        }
    }
    if !head.ends_with(b"\n") {
        head.extend(b"\r\n");
    }
    head.extend(added);
    head.extend(b"\r\n");
    head
}

fn headers(head: &[u8]) -> Headers<'_> {
    match look(head, 0, true) {
        RequestParse::Request(request) => request.headers,
        other => panic!("{other:?}"),
    }
}
