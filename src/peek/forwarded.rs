//! The client's address out of the headers that proxies write.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::{Headers, TrustedProxies};

/// The header that holds the client's address: the value of `--client-ip-header`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientHeader {
    /// `x-forwarded-for`: a list of addresses, each proxy appends the address of its own peer.
    XForwardedFor,
    /// `x-real-ip`: the address. Read like `x-forwarded-for`.
    XRealIp,
    /// `forwarded`: a list like `x-forwarded-for`, of `for=` among others (RFC 7239).
    Forwarded,
    /// Any other name, such as `cf-connecting-ip`. Read like `x-forwarded-for`.
    Named(HeaderName),
}

/// The names that large networks of proxies use for it.
const OTHERS: [&str; 2] = ["cf-connecting-ip", "true-client-ip"];

/// Why a text is not a [`ClientHeader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a header (write x-forwarded-for, x-real-ip, forwarded or the name of another)")]
pub struct ClientHeaderError;

/// What the headers say cannot be relied on: a line that is no header, or a hop that is no address, to the right of any
/// that could count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers do not name the client reliably")]
pub struct MalformedForwarded;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_REAL_IP: &str = "x-real-ip";
const FORWARDED: &str = "forwarded";

impl ClientHeader {
    /// The client's address, port 0 if it is not given; None if there is no such header, or no entry in it.
    ///
    /// Only for requests whose peer is a trusted proxy. Of all entries, in the order of the lines and in
    /// the order within a line, the right-most one counts that is not itself a trusted proxy's, since it is the one
    /// that a trusted proxy has written; if all are, the left-most. What is further left was sent by the client and is
    /// not even looked at. An IPv4-mapped IPv6 address is the IPv4 address.
    ///
    /// # Errors
    ///
    /// When an entry that is no address (also `unknown` and hidden names such as `_gate`), or a line that is no header,
    /// is further right than any address that could count.
    pub fn client(
        &self,
        headers: Headers<'_>,
        trusted: &TrustedProxies,
    ) -> Result<Option<SocketAddr>, MalformedForwarded> {
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
                let hop = hop.ok_or(MalformedForwarded)?;
                if !trusted.contains_ip(hop.ip()) {
                    return Ok(Some(hop));
                }
                left_most = Some(hop);
            }
        }
        Ok(left_most)
    }

    /// One that the headers have, to warn the operator of it.
    pub fn found_in(headers: Headers<'_>) -> Option<Self> {
        let named = OTHERS.map(|name| Self::Named(HeaderName::from_static(name)));
        [Self::XForwardedFor, Self::XRealIp, Self::Forwarded]
            .into_iter()
            .chain(named)
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

/// What is in front of the closing quotation mark, escapes left as they are (no address has one), and what is behind
/// it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peek::request::{self, RequestParse};

    /// The client that `header` names in a request with these header lines, when 10.0.0.0/8 and fd00::/8 are
    /// trusted.
    fn client(header: &str, lines: &[&str]) -> Result<Option<String>, MalformedForwarded> {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect(net)).into_iter().collect();
        let bytes = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", lines.join("\r\n") + "\r\n");
        let RequestParse::Request(request) = request::look(bytes.as_bytes(), 0, true) else { panic!("{lines:?}") };
        let header: ClientHeader = header.parse().expect(header);
        header.client(request.headers, &trusted).map(|client| client.map(|client| client.to_string()))
    }

    /// The client that the only line of a list names; None: it is malformed.
    fn of_list(list: &str) -> Option<String> {
        client("x-forwarded-for", &[&format!("X-Forwarded-For: {list}")]).ok().flatten()
    }

    fn of_forwarded(list: &str) -> Option<String> {
        client("forwarded", &[&format!("Forwarded: {list}")]).ok().flatten()
    }

    #[test]
    fn the_right_most_untrusted_hop_counts() {
        for (list, hop) in [
            ("192.0.2.7", "192.0.2.7:0"),
            ("198.51.100.1, 192.0.2.7", "192.0.2.7:0"),
            ("198.51.100.1, 192.0.2.7, 10.0.0.1, 10.0.0.2", "192.0.2.7:0"),
            ("10.0.0.9, 192.0.2.7,10.0.0.1\t,\t10.0.0.2", "192.0.2.7:0"),
            // All trusted: the one that is furthest away.
            ("10.0.0.1, 10.0.0.2", "10.0.0.1:0"),
            ("fd00::1,10.0.0.2", "[fd00::1]:0"),
            // What a client makes up is not looked at.
            ("unknown, \", _x, 192.0.2.7, 10.0.0.2", "192.0.2.7:0"),
            // Empty entries do not count.
            (", ,192.0.2.7,,", "192.0.2.7:0"),
        ] {
            assert_eq!(of_list(list).as_deref(), Some(hop), "{list}");
        }
    }

    #[test]
    fn lines_of_one_name_are_one_list() {
        let lines =
            ["X-FORWARDED-FOR: 198.51.100.1", "x-forwarded-for: 192.0.2.7, 10.0.0.1", "X-Forwarded-For: 10.0.0.2"];
        assert_eq!(client("x-forwarded-for", &lines), Ok(Some("192.0.2.7:0".into())));
        assert_eq!(client("x-forwarded-for", &lines[..1]), Ok(Some("198.51.100.1:0".into())));
        assert_eq!(client("x-forwarded-for", &lines[2..]), Ok(Some("10.0.0.2:0".into())));
    }

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        for (entry, hop) in [
            ("192.0.2.7:4711", Some("192.0.2.7:4711")),
            ("2001:db8::7", Some("[2001:db8::7]:0")),
            ("[2001:db8::7]", Some("[2001:db8::7]:0")),
            ("[2001:DB8::7]:4711", Some("[2001:db8::7]:4711")),
            ("::ffff:192.0.2.7", Some("192.0.2.7:0")),
            ("[::ffff:192.0.2.7]:80", Some("192.0.2.7:80")),
            ("::ffff:10.0.0.7", Some("10.0.0.7:0")),
            ("192.0.2.7:_p", Some("192.0.2.7:0")),
            ("[::1]:65535", Some("[::1]:65535")),
        ] {
            assert_eq!(of_list(entry).as_deref(), hop, "{entry}");
        }
        for entry in [
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.07",
            "192.0.2.7:",
            "192.0.2.7:65536",
            "192.0.2.7:+1",
            "192.0.2.7:http",
            "192.0.2.7 ",
            "[2001:db8::7",
            "[2001:db8::7]4711",
            "[192.0.2.7]",
            "[::1]:",
            "fe80::1%eth0",
            "[fe80::1%1]:80",
            "::1:80:90:a:b:c:d:e:f",
            "example.org",
            "\"192.0.2.7\"",
            "192.0.2.7;",
            "192.0.2.7 198.51.100.1",
            "\u{e4}",
            "/run/x",
        ] {
            let expected = if entry.ends_with(' ') { Some("192.0.2.7:0".into()) } else { None };
            assert_eq!(of_list(entry), expected, "{entry}");
            assert_eq!(
                of_list(&format!("{entry}, 192.0.2.9")).as_deref(),
                Some("192.0.2.9:0"),
                "left of the one that counts"
            );
            let beyond = client("x-forwarded-for", &[&format!("X-Forwarded-For: 192.0.2.9, {entry}, 10.0.0.1")]);
            assert_eq!(beyond.is_err(), expected.is_none(), "nothing is trusted beyond {entry}");
        }
    }

    #[test]
    fn elements_of_forwarded_are_read_as_rfc_7239_has_them() {
        for (list, hop) in [
            // The examples of RFC 7239, 4, 6 and 7.
            ("for=\"_gazonk\"", None),
            ("For=\"[2001:db8:cafe::17]:4711\"", Some("[2001:db8:cafe::17]:4711")),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60:0")),
            ("for=192.0.2.43, for=198.51.100.17", Some("198.51.100.17:0")),
            ("for=192.0.2.43, for=\"[2001:db8:cafe::17]\"", Some("[2001:db8:cafe::17]:0")),
            ("for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown", None),
            ("for=_hidden, for=_SEVKISEK", None),
            ("for=192.0.2.43, for=10.0.0.1", Some("192.0.2.43:0")),
            // Other parameters in any order; quoted text may hold anything.
            ("by=\"a,b;c=\\\"d\\\\\" ; for=192.0.2.7:80 ; host=x;", Some("192.0.2.7:80")),
            ("for=192.0.2.7;by=\"a,\\\"b\"", Some("192.0.2.7:0")),
            ("proto=https;FOR=\"192.0.2.7:_p\"", Some("192.0.2.7:0")),
            ("for=\" 192.0.2.7\"", Some("192.0.2.7:0")),
            ("for=10.0.0.2;host=\"a,b\", for=10.0.0.1;host=\"c,d\"", Some("10.0.0.2:0")),
            // What a client leaves open does not swallow what its proxy adds.
            ("for=\", for=192.0.2.7", Some("192.0.2.7:0")),
            ("for=\", for=\"[2001:db8::7]:80\"", Some("[2001:db8::7]:80")),
            ("for=\"\\, for=\"192.0.2.7\"", Some("192.0.2.7:0")),
            // Not what an element is.
            ("192.0.2.7", None),
            ("proto=https", None),
            ("for", None),
            ("for=", None),
            ("for=;proto=http", None),
            (";for=192.0.2.7", None),
            ("for =192.0.2.7", None),
            ("for=\"192.0.2.7", None),
            ("for=\"192.0.2.7\"x", None),
            ("for=\"192.0.2.\\7\"", None),
            ("for=192.0.2.7;for=192.0.2.8", None),
            ("for=192.0.2.7;proto", None),
        ] {
            assert_eq!(of_forwarded(list).as_deref(), hop, "{list}");
        }
    }

    #[test]
    fn without_an_entry_there_is_no_client() {
        for lines in [&[][..], &["X-Forwarded-For:"], &["X-Forwarded-For: , ,"], &["X-Forwarded-Foo: 192.0.2.7"]] {
            assert_eq!(client("x-forwarded-for", lines), Ok(None), "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_header_hides_what_is_left_of_it() {
        for line in [" , 198.51.100.1", "X-Forwarded-For : 198.51.100.1", "X-Forwarded-For", "X-Forwarded-For: 1\0"] {
            assert_eq!(
                client("x-forwarded-for", &["X-Forwarded-For: 192.0.2.7", line]),
                Err(MalformedForwarded),
                "{line:?}"
            );
            let later = ["X-Forwarded-For: 192.0.2.8", line, "X-Forwarded-For: 192.0.2.7"];
            assert_eq!(client("x-forwarded-for", &later), Ok(Some("192.0.2.7:0".into())), "{line:?}");
        }
    }

    #[test]
    fn no_number_of_headers_hides_the_last() {
        let mut lines = vec!["X-Forwarded-For: 198.51.100.1"; 150];
        lines.push("X-Forwarded-For: 192.0.2.7");
        assert_eq!(client("x-forwarded-for", &lines), Ok(Some("192.0.2.7:0".into())));
    }

    #[test]
    fn any_name_can_be_the_header_and_is_written_in_lower_case() {
        for (text, name, header) in [
            ("X-Forwarded-For", "x-forwarded-for", Some(ClientHeader::XForwardedFor)),
            ("x-real-ip", "x-real-ip", Some(ClientHeader::XRealIp)),
            ("FORWARDED", "forwarded", Some(ClientHeader::Forwarded)),
            ("CF-Connecting-IP", "cf-connecting-ip", None),
        ] {
            let parsed: ClientHeader = text.parse().expect(text);
            assert_eq!(parsed.to_string(), name);
            assert_eq!(name.parse(), Ok(parsed.clone()));
            assert!(header.is_none_or(|header| header == parsed), "{text}");
            let value = if name == "forwarded" { "for=192.0.2.7" } else { "192.0.2.7" };
            assert_eq!(client(text, &[&format!("{text}: {value}")]), Ok(Some("192.0.2.7:0".into())));
        }
        for text in ["", "a b", "a:", "a\n", "\u{e4}"] {
            let message = text.parse::<ClientHeader>().expect_err(text).to_string();
            assert!(message.contains("write x-forwarded-for"), "{message}");
        }
    }

    #[test]
    fn a_forwarding_header_is_found_to_be_told_of() {
        for (lines, found) in [
            ("Host: x\r\n", None),
            ("Host: x\r\nForwarded: for=1\r\nx-forwarded-for: y\r\n", Some("x-forwarded-for")),
            ("X-REAL-IP: y\r\n", Some("x-real-ip")),
            ("broken\r\nForwarded: y\r\n", Some("forwarded")),
            ("CF-Connecting-IP: y\r\n", Some("cf-connecting-ip")),
            ("X-Forwarded-Host: y\r\n", None),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let RequestParse::Request(request) = request::look(bytes.as_bytes(), 0, true) else { panic!("{lines:?}") };
            let name = ClientHeader::found_in(request.headers).map(|header| header.to_string());
            assert_eq!(name.as_deref(), found, "{lines:?}");
        }
    }
}
