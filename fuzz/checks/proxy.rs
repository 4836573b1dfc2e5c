//! Any bytes, looked at as a PROXY header.

use std::net::IpAddr;

use haft::peek::MAX_PEEKED;
use haft::peek::proxy::{ProxyHeader, ProxyParse, look};

/// The first byte says in what pieces the others come in.
pub fn check(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let mut answer = ProxyParse::More;
    let ends = (0..bytes.len()).step_by(usize::from(*piece) + 1).chain([bytes.len()]);
    for end in ends {
        let so_far = look(&bytes[..end]);
        // What was answered once stays.
        assert!(answer == ProxyParse::More || so_far == answer, "{answer:?}, then {so_far:?} at {end}");
        answer = so_far;
    }
    match answer {
        ProxyParse::Header(header) => is_exact(bytes, header),
        // No header takes more until it tells something.
        ProxyParse::More => assert!(bytes.len() < MAX_PEEKED),
        ProxyParse::Absent => assert!(!bytes.starts_with(b"PROXY ") && !bytes.starts_with(V2)),
        ProxyParse::Malformed { len: None } => assert!(bytes.starts_with(b"PROXY ") && bytes.len() >= MAX_PEEKED),
        ProxyParse::Malformed { len: Some(len) } if bytes.starts_with(V2) => assert_eq!(len, length_of_v2(bytes)),
        ProxyParse::Malformed { len: Some(len) } => {
            assert!(matches!(bytes[len - 1], b'\r' | b'\n'));
            assert_eq!(look(&bytes[..len - 1]), ProxyParse::More);
        }
    }
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn length_of_v2(bytes: &[u8]) -> usize {
    16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

/// The header needs all of its bytes that tell something, and nothing of what follows.
fn is_exact(bytes: &[u8], header: ProxyHeader) {
    let needed = if bytes.starts_with(V2) {
        assert_eq!(header.len, length_of_v2(bytes));
        match header.ends {
            None => 16,
            Some(_) if bytes[13] == 0x11 => 28,
            Some(_) => 52,
        }
    } else {
        let line = &bytes[..header.len];
        assert!((15..=107).contains(&line.len()) && line.ends_with(b"\r\n"));
        assert_eq!(line.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(), 2);
        header.len
    };
    let (own, rest) = bytes.split_at(needed);
    assert_eq!(look(own), ProxyParse::Header(header));
    assert_eq!(look(&own[..own.len() - 1]), ProxyParse::More);
    for ip in header.ends.into_iter().flat_map(|ends| [ends.client.ip(), ends.local.ip()]) {
        assert_eq!(ip, IpAddr::to_canonical(&ip));
    }
    let other: Vec<u8> = rest.iter().map(|byte| !byte).collect();
    assert_eq!(look(&[own, &other].concat()), ProxyParse::Header(header));
}
