//! The PROXY protocol, versions 1 and 2: the client's address, sent by a proxy ahead of the client's own bytes.
//!
//! From haproxy's `doc/proxy-protocol.txt`. The parser returns a header's exact length, since exactly that much has to
//! be consumed; that of a broken one, too, where its end can be found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use memchr::memchr2;

use super::MAX_PEEKED;

/// What a header of version 1 begins with. (Section 2.1; the space is one, exactly.)
pub(super) const V1: &[u8] = b"PROXY ";
/// What a header of version 2 begins with. (Section 2.2)
pub(super) const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1 with its CRLF. (Section 2.1: the worst case)
const MAX_V1_LEN: usize = 107;
/// Length of the part of a header of version 2 that all have.
const V2_FIXED: usize = 16;

/// What the first bytes of a connection are to the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyParse {
    /// So far it can be a header: look again when more has come.
    More,
    /// No header: the first bytes are others.
    Absent,
    /// It begins as a header does and is none: broken, of a version that there is not, or longer than version 1 allows.
    Malformed {
        /// Its exact length in bytes: the client's own bytes begin there. None: of version 1 there is no end of a line
        /// in [`MAX_PEEKED`] bytes.
        len: Option<usize>,
    },
    /// A header, with what it states.
    Header(ProxyHeader),
}

/// A PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its exact length in bytes: so many are to be consumed, the next one is the client's. The last of them need not
    /// have come.
    pub len: usize,
    /// The client. None: the proxy's own connection (LOCAL), or one without TCP addresses (UNKNOWN,
    /// UNSPEC, datagrams, Unix sockets); then those of the connection itself count.
    pub ends: Option<Ends>,
}

/// The two ends of the connection between the client and the proxy. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub client: SocketAddr,
    /// The one that the client connected to.
    pub local: SocketAddr,
}

impl Ends {
    fn new(client: impl Into<IpAddr>, client_port: u16, local: impl Into<IpAddr>, local_port: u16) -> Self {
        let end = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
        Self { client: end(client.into(), client_port), local: end(local.into(), local_port) }
    }
}

/// Looks at all the bytes that a connection has brought so far.
pub fn look(bytes: &[u8]) -> ProxyParse {
    if let Some(rest) = bytes.strip_prefix(V1) {
        look_v1(rest)
    } else if let Some(rest) = bytes.strip_prefix(V2) {
        look_v2(rest)
    } else if V1.starts_with(bytes) || V2.starts_with(bytes) {
        ProxyParse::More
    } else {
        ProxyParse::Absent
    }
}

/// Version 1, behind its signature: words up to a CRLF.
fn look_v1(rest: &[u8]) -> ProxyParse {
    let rest = &rest[..rest.len().min(MAX_PEEKED - V1.len())];
    let malformed = |len| ProxyParse::Malformed { len: Some(V1.len() + len) };
    let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
    let (line, behind) = rest.split_at(end);
    match behind {
        [b'\r', b'\n', ..] => {
            let len = V1.len() + end + 2;
            let ends = if len <= MAX_V1_LEN { words(line) } else { None };
            ends.map_or(malformed(end + 2), |ends| ProxyParse::Header(ProxyHeader { len, ends }))
        }
        // Another kind of end, where a proxy ends its lines so.
        [b'\n', ..] | [b'\r', _, ..] => malformed(end + 1),
        _ if V1.len() + rest.len() >= MAX_PEEKED => ProxyParse::Malformed { len: None },
        _ => ProxyParse::More,
    }
}

/// The content of a line of version 1, if it is valid.
fn words(line: &[u8]) -> Option<Option<Ends>> {
    let mut words = line.split(|byte| *byte == b' ');
    let family = words.next()?;
    if family == b"UNKNOWN" {
        return Some(None);
    }
    // Five words with one space between each are all there is.
    let fields = [words.next()?, words.next()?, words.next()?, words.next()?];
    if words.next().is_some() {
        return None;
    }
    match family {
        b"TCP4" => tcp::<Ipv4Addr>(fields),
        b"TCP6" => tcp::<Ipv6Addr>(fields),
        _ => None,
    }
    .map(Some)
}

fn tcp<Ip: FromStr + Into<IpAddr>>([client, local, client_port, local_port]: [&[u8]; 4]) -> Option<Ends> {
    let ip = |word| str::from_utf8(word).ok()?.parse::<Ip>().ok();
    Some(Ends::new(ip(client)?, port(client_port)?, ip(local)?, port(local_port)?))
}

/// A port as the specification wants it: digits, no zero ahead of others.
fn port(word: &[u8]) -> Option<u16> {
    let plain = word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || !word.starts_with(b"0"));
    str::from_utf8(word).ok().filter(|_| plain)?.parse().ok()
}

/// Version 2, behind its signature: version and command, family and protocol, length, then so many bytes. What follows
/// the addresses (TLVs) is skipped.
fn look_v2(rest: &[u8]) -> ProxyParse {
    let Some((fixed, rest)) = rest.split_first_chunk::<{ V2_FIXED - V2.len() }>() else { return ProxyParse::More };
    let [command, family, length @ ..] = *fixed;
    let (version, command, length) = (command >> 4, command & 0xf, usize::from(u16::from_be_bytes(length)));
    let len = V2_FIXED + length;
    let by_proxy = command == 1;
    // Of a connection of the proxy's own the family is to be ignored, whatever it is.
    let is_known = version == 2 && command <= 1 && !(by_proxy && (family >> 4 > 3 || family & 0xf > 2));
    let addresses = match family {
        0x11 if by_proxy => 12,
        0x21 if by_proxy => 36,
        _ => 0,
    };
    if !is_known || length < addresses {
        // Another version, too, is taken to say in the same place how long it is.
        return ProxyParse::Malformed { len: Some(len) };
    }
    let Some(block) = rest.get(..addresses) else { return ProxyParse::More };
    let ends = match addresses {
        12 => ends::<4>(block),
        36 => ends::<16>(block),
        _ => None,
    };
    ProxyParse::Header(ProxyHeader { len, ends })
}

/// Two addresses, then two ports.
fn ends<const LEN: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; LEN]>,
{
    let (client, block) = block.split_first_chunk::<LEN>()?;
    let (local, block) = block.split_first_chunk::<LEN>()?;
    let (client_port, block) = block.split_first_chunk()?;
    let (local_port, _) = block.split_first_chunk()?;
    Some(Ends::new(*client, u16::from_be_bytes(*client_port), *local, u16::from_be_bytes(*local_port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of `len` bytes with these ends.
    fn header(len: usize, ends: Option<(&str, &str)>) -> ProxyParse {
        let addr = |text: &str| text.parse().expect("address");
        let ends = ends.map(|(client, local)| Ends { client: addr(client), local: addr(local) });
        ProxyParse::Header(ProxyHeader { len, ends })
    }

    /// Looked at as it comes in byte by byte, `bytes` give `answer` from the byte on that is number `decided`, and
    /// before that nothing.
    fn comes_in(bytes: &[u8], decided: usize, answer: ProxyParse) {
        for end in 0..=bytes.len() {
            let expected = if end < decided { ProxyParse::More } else { answer };
            assert_eq!(look(&bytes[..end]), expected, "{} of {}", end, bytes.escape_ascii());
        }
    }

    /// A header of version 2: command and family, the stated length, the body.
    fn v2(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
        [V2, &[command, family], &length.to_be_bytes(), body].concat()
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";

    #[test]
    fn headers_of_version_1_are_read_to_the_byte() {
        let widest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let (tcp6, unknown) = (format!("PROXY TCP6 {widest} {widest} 65535 65535\r\n"), {
            format!("PROXY UNKNOWN {widest} {widest} 65535 65535\r\n")
        });
        let widest_end = format!("[{widest}]:65535");
        for (line, len, ends) in [
            // The specification's own example, and its longest lines.
            ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", 47, Some(("192.168.0.1:56324", "192.168.0.11:443"))),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                56,
                Some(("255.255.255.255:65535", "255.255.255.255:65535")),
            ),
            (&tcp6, 104, Some((&*widest_end, &*widest_end))),
            (&unknown, 107, None),
            ("PROXY UNKNOWN\r\n", 15, None),
            ("PROXY UNKNOWN anything, \u{fffd} or not\r\n", 36, None),
            ("PROXY TCP6 ::1 2001:DB8::2 0 1\r\n", 32, Some(("[::1]:0", "[2001:db8::2]:1"))),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", 37, Some(("192.0.2.7:1", "[::1]:2"))),
        ] {
            assert_eq!(line.len(), len, "{line}");
            comes_in(&[line.as_bytes(), REQUEST].concat(), len, header(len, ends));
        }
    }

    #[test]
    fn what_version_1_forbids_is_malformed() {
        // Where a line ends with CRLF, that is the header's end, too.
        for line in [
            "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 \r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2 1 2\r\n",
            "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP6 [::1] ::1 1 2\r\n",
        ] {
            let malformed = ProxyParse::Malformed { len: Some(line.len()) };
            comes_in(&[line.as_bytes(), REQUEST].concat(), line.len(), malformed);
        }
        // As it does with another end of the line.
        for (line, len, decided) in [
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\nGET / HTTP/1.1\r\n", 31, 31),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rGET / HTTP/1.1\r\n", 31, 32),
            ("PROXY UNKNOWN\nGET / HTTP/1.1\r\n", 14, 14),
        ] {
            comes_in(line.as_bytes(), decided, ProxyParse::Malformed { len: Some(len) });
        }
    }

    #[test]
    fn a_line_may_have_107_bytes_and_a_longer_one_is_looked_at_for_its_end() {
        let malformed = |len| ProxyParse::Malformed { len };
        for (filling, answer, decided) in [
            (91, header(107, None), 107),
            (92, malformed(Some(108)), 108),
            (MAX_PEEKED - 17, malformed(Some(MAX_PEEKED - 1)), MAX_PEEKED - 1),
            (MAX_PEEKED, malformed(None), MAX_PEEKED),
        ] {
            let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(filling));
            comes_in(&line.as_bytes()[..line.len().min(MAX_PEEKED)], decided, answer);
        }
    }

    #[test]
    fn headers_of_version_2_are_read_to_the_byte() {
        let tcp4 = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
        let ends4 = Some(("192.168.0.1:56324", "192.168.0.11:443"));
        let v6 = |start: &[u8], end: u8| {
            let mut ip = [0; 16];
            ip[..start.len()].copy_from_slice(start);
            ip[15] = end;
            ip
        };
        let tcp6 = [&v6(&[0x20, 0x01, 0x0d, 0xb8], 1)[..], &v6(&[], 1), &[0x12, 0x67, 0x0b, 0xb8]].concat();
        let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 7], &v6(&[], 1), &[0, 1, 0, 2]].concat();
        // NOOP of three bytes, ALPN "h2".
        let tlvs = [0x04, 0, 3, 0, 0, 0, 0x01, 0, 2, b'h', b'2'];
        for (command, family, body, ends) in [
            (0x21, 0x11, tcp4.to_vec(), ends4),
            (0x21, 0x11, [&tcp4[..], &tlvs].concat(), ends4),
            (0x21, 0x21, tcp6.clone(), Some(("[2001:db8::1]:4711", "[::1]:3000"))),
            (0x21, 0x21, [&tcp6[..], &tlvs].concat(), Some(("[2001:db8::1]:4711", "[::1]:3000"))),
            (0x21, 0x21, mapped, Some(("192.0.2.7:1", "[::1]:2"))),
            // The proxy's own connection, whatever else the header holds; it need hold nothing.
            (0x20, 0x00, vec![], None),
            (0x20, 0x11, tcp4.to_vec(), None),
            (0x20, 0xff, tlvs.to_vec(), None),
            // Ends that are no TCP addresses: unspecified, Unix, datagrams.
            (0x21, 0x00, vec![], None),
            (0x21, 0x00, tlvs.to_vec(), None),
            (0x21, 0x10, tcp4.to_vec(), None),
            (0x21, 0x12, tcp4.to_vec(), None),
            (0x21, 0x22, tcp6, None),
            (0x21, 0x31, vec![b'/'; 216], None),
            (0x21, 0x32, vec![b'/'; 216 + 11], None),
        ] {
            let bytes = v2(command, family, body.len() as u16, &body);
            let decided = V2_FIXED + ends.map_or(0, |_| if family == 0x11 { 12 } else { 36 });
            comes_in(&[&bytes, REQUEST].concat(), decided, header(bytes.len(), ends));
        }
    }

    #[test]
    fn what_version_2_forbids_is_malformed() {
        // Versions that there are not.
        for command in [0x11, 0x31] {
            comes_in(&v2(command, 0x11, 12, &[0; 64]), V2_FIXED, ProxyParse::Malformed { len: Some(28) });
        }
        for (command, family, length) in [
            // Commands that there are not.
            (0x22, 0x11, 12),
            // Families and protocols that there are not.
            (0x21, 0x41, 12),
            (0x21, 0x13, 12),
            // Too short for its addresses.
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
        ] {
            let len = V2_FIXED + usize::from(length);
            comes_in(&v2(command, family, length, &[0; 64]), V2_FIXED, ProxyParse::Malformed { len: Some(len) });
        }
    }

    #[test]
    fn a_header_may_be_longer_than_what_is_peeked() {
        let body = [&[192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2][..], &[0; MAX_PEEKED]].concat();
        let ends = Some(("192.0.2.7:1", "192.0.2.8:2"));
        comes_in(&v2(0x21, 0x11, u16::MAX, &body), 28, header(V2_FIXED + usize::from(u16::MAX), ends));
    }

    #[test]
    fn what_begins_otherwise_has_no_header() {
        for (bytes, decided) in [
            (&b"GET / HTTP/1.1\r\n"[..], 1),
            (b"POST / HTTP/1.1\r\n", 2),
            (b"PROPFIND / HTTP/1.1\r\n", 4),
            (b"PROXY\r\n", 6),
            (b"\r\nGET / HTTP/1.1\r\n", 3),
            (b"\r\n\r\n\0\r\nQUIT\r", 12),
            (b"\x16\x03\x01", 1),
        ] {
            comes_in(bytes, decided, ProxyParse::Absent);
        }
    }

    proptest! {
        #[test]
        fn what_a_proxy_writes_is_read(client: SocketAddr, port: u16, tlvs in prop::collection::vec(any::<u8>(), 0..99)) {
            let (client, local) = match client.ip() {
                IpAddr::V4(ip) => (SocketAddr::new(ip.into(), client.port()), SocketAddr::new([127, 0, 0, 1].into(), port)),
                IpAddr::V6(ip) => (SocketAddr::new(ip.into(), client.port()), SocketAddr::new([1; 16].into(), port)),
            };
            let (word, family, mut block) = match (client.ip(), local.ip()) {
                (IpAddr::V4(client), IpAddr::V4(local)) => ("TCP4", 0x11, [client.octets(), local.octets()].concat()),
                (client, local) => ("TCP6", 0x21, [client, local].map(|ip| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                }).concat()),
            };
            block.extend([client.port().to_be_bytes(), local.port().to_be_bytes()].concat());
            block.extend(&tlvs);
            let line = format!("PROXY {word} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port());
            let ends = Some(Ends::new(client.ip(), client.port(), local.ip(), local.port()));
            let (v2, of_addresses) = (v2(0x21, family, block.len() as u16, &block), block.len() - tlvs.len());
            for (bytes, decided) in [(line.as_bytes(), line.len()), (&v2, V2_FIXED + of_addresses)] {
                comes_in(&[bytes, REQUEST].concat(), decided, ProxyParse::Header(ProxyHeader { len: bytes.len(), ends }));
            }
        }
    }
}
