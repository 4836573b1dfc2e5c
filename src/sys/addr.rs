//! The addresses haft speaks of, named by their role.
//!
//! Plain data: no system call, no name resolution.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where the master listens: what follows `--listen` and `--admin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// Every interface, IPv4 and IPv6 (written `3000` or `:3000`).
    DualStack(u16),
    /// One address and port; an IPv6 address takes IPv6 clients only.
    Ip(SocketAddr),
    /// A Unix stream socket (written `unix:/path`).
    Unix(PathBuf),
}

/// A listener, and the server of a Node program that it is for: what follows `--listen`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listen {
    /// Where clients connect.
    pub addr: ListenAddr,
    /// The port that the server asks for (written `443=3000`).
    pub server_port: Option<u16>,
    /// Whether a service manager has passed the socket, so that it is not to be bound.
    pub is_passed: bool,
}

/// A listening socket that a service manager has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedAddr {
    /// Its name there (`FileDescriptorName=`), by which `--listen name:NAME` finds it.
    pub name: String,
    /// Where clients connect. An abstract Unix socket has `@` before its name.
    pub addr: ListenAddr,
}

impl FromStr for Listen {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A path may have anything in it but a port at its end.
        let named = text.rsplit_once('=').filter(|(_, port)| port.bytes().all(|it| it.is_ascii_digit()));
        let Some((addr, port)) = named else { return Ok(text.parse::<ListenAddr>()?.into()) };
        match port.parse::<u16>() {
            Ok(port @ 1..) => Ok(Self { addr: addr.parse()?, server_port: Some(port), is_passed: false }),
            _ => Err(ListenAddrError("the port behind `=` is not a number from 1 to 65535")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)?;
        self.server_port.map_or(Ok(()), |port| write!(f, "={port}"))
    }
}

impl From<ListenAddr> for Listen {
    fn from(addr: ListenAddr) -> Self {
        Self { addr, server_port: None, is_passed: false }
    }
}

/// Why a text is not a [`ListenAddr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} (write 3000, 127.0.0.1:3000, [::1]:3000 or unix:/path)")]
pub struct ListenAddrError(&'static str);

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| Err(ListenAddrError(why));
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path holds 108 bytes with its closing NUL (unix(7)).
            return match path.len() {
                0 => refuse("the path is missing"),
                _ if path.contains('\0') => refuse("a path has no NUL"),
                1..=107 => Ok(Self::Unix(path.into())),
                _ => refuse("a Unix socket's path has at most 107 bytes"),
            };
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            // An IPv6 socket of ours takes IPv6 only, so a mapped address can be bound only as the IPv4 one it is.
            return Ok(Self::Ip(EndAddr::canonical(addr)));
        }
        if text.parse::<IpAddr>().is_ok() {
            return refuse("the port is missing");
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        // `u16::from_str` would take `+80`.
        let Some(port) = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten() else {
            return refuse("the port is not a number from 0 to 65535");
        };
        match host {
            "" | "*" => Ok(Self::DualStack(port)),
            "localhost" => Ok(Self::Ip((Ipv4Addr::LOCALHOST, port).into())),
            _ => refuse("names are not resolved, give an IP address"),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DualStack(port) => write!(f, ":{port}"),
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddr {
    /// What a browser on this host would be given, if it is TCP; otherwise as it is written.
    pub fn url(&self) -> String {
        match self {
            Self::DualStack(port) => format!("http://localhost:{port} (every interface)"),
            Self::Ip(addr) if !addr.ip().is_unspecified() => format!("http://{addr}"),
            Self::Ip(SocketAddr::V4(addr)) => format!("http://127.0.0.1:{} (every IPv4 interface)", addr.port()),
            Self::Ip(SocketAddr::V6(addr)) => format!("http://[::1]:{} (every IPv6 interface)", addr.port()),
            Self::Unix(_) => self.to_string(),
        }
    }
}

/// One end of a connection as accept4 reported it.
///
/// An IPv4-mapped IPv6 address is held as the IPv4 address that it is, so that a client has one name whichever
/// listener took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndAddr {
    /// A TCP end.
    Ip(SocketAddr),
    /// An end of a Unix stream socket: it has no address that would distinguish clients.
    Unix,
}

impl EndAddr {
    /// The address with an IPv4-mapped IPv6 address turned into IPv4.
    pub fn from_ip(addr: SocketAddr) -> Self {
        Self::Ip(Self::canonical(addr))
    }

    fn canonical(addr: SocketAddr) -> SocketAddr {
        match addr.ip().to_canonical() {
            IpAddr::V4(v4) => (v4, addr.port()).into(),
            // As it is: an IPv6 address can carry a scope.
            IpAddr::V6(_) => addr,
        }
    }

    /// The Internet address, if the end has one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for EndAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Default for ListenAddr {
    fn default() -> Self {
        Self::Ip((Ipv4Addr::LOCALHOST, 3000).into())
    }
}

impl ListenAddr {
    /// The addresses to try in turn: dual stack falls back to IPv4 on a host without IPv6.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match self {
            Self::DualStack(port) => {
                vec![(Ipv6Addr::UNSPECIFIED, *port).into(), (Ipv4Addr::UNSPECIFIED, *port).into()]
            }
            Self::Ip(addr) => vec![*addr],
            Self::Unix(_) => Vec::new(),
        }
    }

    /// Whether a connection to one of the two could also be meant for the other, so that they cannot both be bound.
    ///
    /// Port 0 means any free port, so it never overlaps.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (Some(mine), Some(theirs)) = (self.port(), other.port()) else {
            return self.port() == other.port() && self == other;
        };
        let meets =
            |a: IpAddr, b: IpAddr| a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified());
        mine == theirs
            && mine != 0
            && match (self, other) {
                (Self::Ip(a), Self::Ip(b)) => meets(a.ip(), b.ip()),
                _ => true,
            }
    }

    /// The port, unless it is a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::DualStack(port) => Some(*port),
            Self::Ip(addr) => Some(addr.port()),
            Self::Unix(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_as_what_one_can_click() {
        for (addr, url) in [
            ("3000", "http://localhost:3000 (every interface)"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("[::1]:80", "http://[::1]:80"),
            ("0.0.0.0:80", "http://127.0.0.1:80 (every IPv4 interface)"),
            ("[::]:80", "http://[::1]:80 (every IPv6 interface)"),
            ("unix:/run/haft.sock", "unix:/run/haft.sock"),
        ] {
            assert_eq!(addr.parse::<ListenAddr>().expect(addr).url(), url);
        }
    }

    #[test]
    fn every_documented_form_parses_and_prints_back() {
        for (text, printed) in [
            ("3000", ":3000"),
            (":3000", ":3000"),
            ("*:3000", ":3000"),
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:3000", "[::1]:3000"),
            ("[::ffff:127.0.0.1]:3000", "127.0.0.1:3000"),
            ("unix:/run/haft.sock", "unix:/run/haft.sock"),
        ] {
            let addr: ListenAddr = text.parse().expect(text);
            assert_eq!(addr.to_string(), printed);
            assert_eq!(printed.parse::<ListenAddr>().expect(printed), addr);
        }
    }

    #[test]
    fn a_wrong_form_says_what_is_wrong_and_how_to_write_it() {
        for (text, part) in [
            ("127.0.0.1", "the port is missing"),
            ("::1", "the port is missing"),
            ("70000", "0 to 65535"),
            ("example.org:80", "give an IP address"),
            ("+80", "0 to 65535"),
            ("", "0 to 65535"),
            ("3000/tcp", "0 to 65535"),
            ("unix:", "the path is missing"),
            ("unix:/a\0b", "no NUL"),
        ] {
            let message = text.parse::<ListenAddr>().expect_err(text).to_string();
            assert!(message.contains(part) && message.contains("write 3000, 127.0.0.1:3000, [::1]:3000"), "{message}");
        }
        assert!(format!("unix:/{}", "a".repeat(200)).parse::<ListenAddr>().is_err());
    }

    #[test]
    fn addresses_overlap_when_one_connection_could_be_meant_for_both() {
        for (a, b, overlap) in [
            ("3000", "3000", true),
            ("3000", "3001", false),
            ("3000", "127.0.0.1:3000", true),
            ("3000", "[::1]:3000", true),
            ("0.0.0.0:3000", "127.0.0.1:3000", true),
            ("0.0.0.0:3000", "[::1]:3000", false),
            ("0.0.0.0:3000", "[::]:3000", false),
            ("[::]:3000", "[::1]:3000", true),
            ("127.0.0.1:3000", "127.0.0.2:3000", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "3000", false),
        ] {
            let (a, b): (ListenAddr, ListenAddr) = (a.parse().expect(a), b.parse().expect(b));
            assert_eq!(a.overlaps(&b), overlap, "{a} and {b}");
            assert_eq!(b.overlaps(&a), overlap, "{b} and {a}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped: SocketAddr = "[::ffff:127.0.0.4]:9".parse().expect("address");
        assert_eq!(EndAddr::from_ip(mapped).to_string(), "127.0.0.4:9");
    }
}
