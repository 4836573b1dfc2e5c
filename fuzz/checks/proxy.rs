//! Any bytes, looked at as a PROXY header.

use std::net::IpAddr;

use haft::peek::MOST_PEEKED;
use haft::peek::proxy::{Header, Look, look};

/// The first byte says in what pieces the others come in.
pub fn check(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let mut answer = Look::More;
    let ends = (0..bytes.len()).step_by(usize::from(*piece) + 1).chain([bytes.len()]);
    for end in ends {
        let so_far = look(&bytes[..end]);
        // What was answered once stays.
        assert!(answer == Look::More || so_far == answer, "{answer:?}, then {so_far:?} at {end}");
        answer = so_far;
    }
    match answer {
        Look::Header(header) => is_exact(bytes, header),
        // There are no longer headers.
        Look::More => assert!(bytes.len() < MOST_PEEKED),
        Look::Absent => assert!(!bytes.starts_with(b"PROXY ") && !bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n")),
        Look::Malformed { len: None } => {}
        Look::Malformed { len: Some(len) } => {
            assert_eq!(look(&bytes[..len]), answer);
            assert_eq!(look(&bytes[..len - 1]), Look::More);
        }
    }
}

/// The header needs all of its bytes and nothing of what follows.
fn is_exact(bytes: &[u8], header: Header) {
    let (own, rest) = bytes.split_at(header.len);
    assert_eq!(look(own), Look::Header(header));
    assert_eq!(look(&own[..own.len() - 1]), Look::More);
    if own.starts_with(b"P") {
        assert!((15..=107).contains(&own.len()) && own.ends_with(b"\r\n"));
        assert_eq!(own.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(), 2);
    } else {
        let length = u16::from_be_bytes([own[14], own[15]]);
        assert_eq!(own.len(), 16 + usize::from(length));
    }
    for ip in header.ends.into_iter().flat_map(|ends| [ends.client.ip(), ends.local.ip()]) {
        assert_eq!(ip, IpAddr::to_canonical(&ip));
    }
    let other: Vec<u8> = rest.iter().map(|byte| !byte).collect();
    assert_eq!(look(&[own, &other].concat()), Look::Header(header));
}
