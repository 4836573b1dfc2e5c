//! The client's address out of the headers that proxies write.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::{Headers, TrustedProxies};

/// The header that tells the client's address: what follows `--client-ip-header`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientHeader {
    /// `x-forwarded-for`: a list of addresses, each proxy adds at its end whom it was talking to.
    XForwardedFor,
    /// `x-real-ip`: the address. Read like `x-forwarded-for`.
    XRealIp,
    /// `forwarded`: a list like `x-forwarded-for`, of `for=` among others (RFC 7239).
    Forwarded,
    /// Any other name, such as `cf-connecting-ip`. Read like `x-forwarded-for`.
    Named(HeaderName),
}

/// Why a text is not a [`ClientHeader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a header (write x-forwarded-for, x-real-ip, forwarded or the name of another)")]
pub struct ClientHeaderError;

/// What the headers say cannot be relied on: a line that is no header, or a hop that is no address, to the right of any
/// that could count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers do not say reliably who the client is")]
pub struct Malformed;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_REAL_IP: &str = "x-real-ip";
const FORWARDED: &str = "forwarded";

impl ClientHeader {
    /// The client's address, port 0 if it is not told; None if there is no such header, or no entry in it.
    ///
    /// To be asked only about requests whose peer is a trusted proxy. Of all entries, in the order of the lines and in
    /// the order within a line, the right-most one counts that is not itself a trusted proxy's, since it is the one that
    /// a trusted proxy has written; if all are, the left-most. What is further left was sent by the client and is not
    /// even looked at. An IPv4-mapped IPv6 address is the IPv4 address.
    ///
    /// # Errors
    ///
    /// When an entry that is no address (also `unknown` and hidden names such as `_gate`), or a line that is no header, is
    /// further right than any address that could count.
    pub fn client(&self, headers: Headers<'_>, trusted: &TrustedProxies) -> Result<Option<SocketAddr>, Malformed> {
        let mut left_most = None;
        for value in headers.values(self.name()).rev() {
            let mut list = value?;
            while !list.is_empty() {
                let (rest, entry) = split_last(list);
                list = rest;
                let hop = match entry.trim_ascii() {
                    // RFC 9110, 5.6.1.2: empty entries do not count.
                    b"" => continue,
                    entry if *self == Self::Forwarded => read_element(entry),
                    entry => read_node(entry),
                };
                let hop = hop.ok_or(Malformed)?;
                if !trusted.contains_ip(hop.ip()) {
                    return Ok(Some(hop));
                }
                left_most = Some(hop);
            }
        }
        Ok(left_most)
    }

    /// One that the headers have, to tell the operator of it.
    pub fn found_in(headers: Headers<'_>) -> Option<Self> {
        [Self::XForwardedFor, Self::XRealIp, Self::Forwarded]
            .into_iter()
            .find(|known| headers.values(known.name()).any(|value| value.is_ok()))
    }

    /// The header's name in lower case.
    pub fn name(&self) -> &str {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::XRealIp => X_REAL_IP,
            Self::Forwarded => FORWARDED,
            Self::Named(name) => name.as_str(),
        }
    }
}

impl FromStr for ClientHeader {
    type Err = ClientHeaderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| ClientHeaderError)?;
        Ok(match name.as_str() {
            X_FORWARDED_FOR => Self::XForwardedFor,
            X_REAL_IP => Self::XRealIp,
            FORWARDED => Self::Forwarded,
            _ => Self::Named(name),
        })
    }
}

impl fmt::Display for ClientHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ClientHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is left of the last comma that is not quoted, and what is right of it.
///
/// From the right: a quotation mark that a client leaves open cannot swallow what its proxy adds.
fn split_last(list: &[u8]) -> (&[u8], &[u8]) {
    let mut quoted = false;
    for (at, byte) in list.iter().enumerate().rev() {
        match byte {
            // RFC 9110, 5.6.4: within quotation marks a backslash takes the next character's meaning, be it one itself.
            b'"' => quoted = !quoted || list[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1,
            b',' if !quoted => return (&list[..at], &list[at + 1..]),
            _ => {}
        }
    }
    (&[], list)
}

/// The address in `for=` of one element of `forwarded` (RFC 7239, 4).
fn read_element(mut element: &[u8]) -> Option<SocketAddr> {
    let mut hop = None;
    loop {
        let (name, rest) = split_first(element.trim_ascii_start(), b'=')?;
        let (value, rest) = match rest.strip_prefix(b"\"") {
            Some(rest) => unquote(rest)?,
            None => rest.split_at(rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len())),
        };
        if name.eq_ignore_ascii_case(b"for") && hop.replace(read_node(value.trim_ascii())?).is_some() {
            // No parameter may come twice: which of the two would be meant?
            return None;
        }
        element = match rest.trim_ascii_start() {
            [] | [b';'] => return hop,
            [b';', rest @ ..] => rest,
            _ => return None,
        };
    }
}

fn split_first(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// What is in front of the closing quotation mark, escapes left as they are (no address has one), and what is behind it.
fn unquote(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        end
    })?;
    Some((&text[..end], &text[end + 1..]))
}

/// An address, with a port or without: `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]`,
/// `[2001:db8::7]:4711`. A hidden port (`_p`; RFC 7239, 6) is none.
fn read_node(text: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    let (ip, port) = if let Some(inside) = text.strip_prefix('[') {
        let (ip, port) = inside.split_once(']')?;
        (ip.parse::<Ipv6Addr>().ok()?.into(), port.strip_prefix(':').or(port.is_empty().then_some("_"))?)
    } else if let Some((ip, port)) = text.split_once(':').filter(|(_, port)| !port.contains(':')) {
        (ip.parse::<Ipv4Addr>().ok()?.into(), port)
    } else {
        (text.parse::<IpAddr>().ok()?, "_")
    };
    let port = match port.strip_prefix('_') {
        Some(_) => 0,
        None if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        None => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}
