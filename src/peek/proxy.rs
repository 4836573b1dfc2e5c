//! The PROXY protocol, versions 1 and 2: who the client is, told by a proxy ahead of the client's own bytes.
//!
//! From haproxy's `doc/proxy-protocol.txt`. A header is looked at in its whole length or not at all, and its length is
//! told to the byte, since exactly that much has to be consumed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use memchr::memchr2;

use super::MOST_PEEKED;

/// What a header of version 1 begins with. (Section 2.1; the space is one, exactly.)
pub(super) const V1: &[u8] = b"PROXY ";
/// What a header of version 2 begins with. (Section 2.2)
pub(super) const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1 with its CRLF. (Section 2.1: the worst case)
const V1_MOST: usize = 107;
/// Length of the part of a header of version 2 that all have.
const V2_FIXED: usize = 16;

/// What the first bytes of a connection are to the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// So far it can be a header: look again when more has come.
    More,
    /// No header: the first bytes are others.
    Absent,
    /// It begins as a header does and is none: broken, or longer than allowed (107 bytes; [`MOST_PEEKED`] in version 2).
    Malformed,
    /// A whole header.
    Header(Header),
}

/// A whole PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its exact length in bytes: so many are to be consumed, the next one is the client's.
    pub len: usize,
    /// Whose connection it is. None: the proxy's own (LOCAL), or one whose ends are not told as TCP addresses (UNKNOWN,
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
pub fn look(bytes: &[u8]) -> Look {
    if let Some(rest) = bytes.strip_prefix(V1) {
        look_v1(rest)
    } else if let Some(rest) = bytes.strip_prefix(V2) {
        look_v2(rest)
    } else if V1.starts_with(bytes) || V2.starts_with(bytes) {
        Look::More
    } else {
        Look::Absent
    }
}

/// Version 1, behind its signature: words up to a CRLF.
fn look_v1(rest: &[u8]) -> Look {
    let within = &rest[..rest.len().min(V1_MOST - V1.len())];
    let end = memchr2(b'\r', b'\n', within);
    let line = &within[..end.unwrap_or(within.len())];
    let known = [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].into_iter().any(|word| {
        let both = word.len().min(line.len());
        word[..both] == line[..both]
    });
    match end.map(|end| (end, &within[end..])) {
        _ if !known => Look::Malformed,
        Some((end, [b'\r', b'\n', ..])) => {
            let len = V1.len() + end + 2;
            words(line).map_or(Look::Malformed, |ends| Look::Header(Header { len, ends }))
        }
        // The end of a line needs another byte at least, and that must still be within the longest header.
        None | Some((_, [b'\r'])) if V1.len() + line.len() + 2 <= V1_MOST => Look::More,
        _ => Look::Malformed,
    }
}

/// What a line of version 1 tells, if it is right.
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

/// Version 2, behind its signature: version and command, family and protocol, length, then so many bytes.
fn look_v2(rest: &[u8]) -> Look {
    let Some((command, rest)) = rest.split_first() else { return Look::More };
    let by_proxy = match command {
        0x20 => false,
        0x21 => true,
        _ => return Look::Malformed,
    };
    let Some((family, rest)) = rest.split_first() else { return Look::More };
    // Of a connection of the proxy's own the family is to be ignored, whatever it is.
    if by_proxy && (family >> 4 > 3 || family & 0xf > 2) {
        return Look::Malformed;
    }
    let Some((length, rest)) = rest.split_first_chunk() else { return Look::More };
    let length = usize::from(u16::from_be_bytes(*length));
    let addresses = match family {
        0x11 if by_proxy => 12,
        0x21 if by_proxy => 36,
        _ => 0,
    };
    let len = V2_FIXED + length;
    if length < addresses || len > MOST_PEEKED {
        return Look::Malformed;
    }
    let Some(body) = rest.get(..length) else { return Look::More };
    // What follows the addresses (TLVs) is skipped.
    let ends = match addresses {
        12 => ends::<4>(body),
        36 => ends::<16>(body),
        _ => None,
    };
    Look::Header(Header { len, ends })
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
