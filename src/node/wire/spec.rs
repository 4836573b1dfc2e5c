//! What is to be opened for a worker's query.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::message::{AddressType, Query};
use crate::addr::ListenAddr;

/// libuv's flag for IPv6 only, of TCP (UV_TCP_IPV6ONLY) and UDP (UV_UDP_IPV6ONLY) alike.
const IPV6_ONLY: u32 = 1;
/// libuv's flag UV_UDP_REUSEADDR.
pub const UDP_REUSE_ADDR: u32 = 4;
/// Longest path of a Unix socket (unix(7): 108 bytes with the closing NUL).
const MAX_PATH: usize = 107;

/// A socket to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A listener of which connections are handed over.
    Stream {
        /// Where. Dual stack as Node does it: an IPv6 socket that takes IPv4 too, or IPv4 where there is no IPv6.
        addr: ListenAddr,
        /// Length of the accept queue, if the program cares.
        backlog: Option<u32>,
        /// All users may read from the Unix socket.
        readable_all: bool,
        /// All users may write to the Unix socket.
        writable_all: bool,
    },
    /// A UDP socket, bound and not read from, of which every worker gets a copy.
    Udp {
        /// Where.
        addr: SocketAddr,
        /// An IPv6 socket takes IPv6 only.
        ipv6_only: bool,
        /// With SO_REUSEADDR.
        reuse_addr: bool,
    },
}

impl Spec {
    /// The port; none of a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Stream { addr, .. } => addr.port(),
            Self::Udp { addr, .. } => Some(addr.port()),
        }
    }
}

/// What a query asks for, or why it cannot be (as the kernel numbers errors, positive, and for people).
pub(super) fn read(query: &Query<'_>, folder: &Path) -> Result<Spec, (i32, &'static str)> {
    if query.fd.is_some() {
        // Node means a descriptor of the primary's. What haft has under that number is no business of the program's.
        return Err((libc::EOPNOTSUPP, "listening on a descriptor by its number (fd) is not possible"));
    }
    let ipv6_only = query.flags & IPV6_ONLY != 0;
    match query.address_type {
        AddressType::Tcp4 | AddressType::Tcp6 => Ok(stream(query, tcp(query, ipv6_only)?)),
        AddressType::Unix => Ok(stream(query, unix(query, folder)?)),
        AddressType::Udp4 | AddressType::Udp6 => {
            let any: IpAddr = match query.address_type {
                AddressType::Udp4 => Ipv4Addr::UNSPECIFIED.into(),
                _ => Ipv6Addr::UNSPECIFIED.into(),
            };
            let addr = SocketAddr::new(ip(query)?.unwrap_or(any), port(query)?);
            Ok(Spec::Udp { addr, ipv6_only, reuse_addr: query.flags & UDP_REUSE_ADDR != 0 })
        }
        AddressType::Other => Err((libc::EINVAL, "an unknown kind of server")),
    }
}

fn stream(query: &Query<'_>, addr: ListenAddr) -> Spec {
    let Query { backlog, readable_all, writable_all, .. } = *query;
    Spec::Stream { addr, backlog, readable_all, writable_all }
}

fn tcp(query: &Query<'_>, ipv6_only: bool) -> Result<ListenAddr, (i32, &'static str)> {
    let port = port(query)?;
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let ip = ip(query)?.unwrap_or(any);
    // An IPv6 socket on all interfaces takes IPv4 too, unless that is switched off.
    if ip == any && !ipv6_only {
        return Ok(ListenAddr::DualStack(port));
    }
    Ok(ListenAddr::Ip(SocketAddr::new(ip.to_canonical(), port)))
}

fn unix(query: &Query<'_>, folder: &Path) -> Result<ListenAddr, (i32, &'static str)> {
    let path = Path::new(
        query
            .address
            .as_deref()
            .filter(|path| !path.is_empty() && !path.contains('\0'))
            .ok_or((libc::EINVAL, "a Unix socket needs a path"))?,
    );
    // The worker makes every path absolute; the same seen from here may be short enough.
    let path = if path.as_os_str().len() > MAX_PATH { path.strip_prefix(folder).unwrap_or(path) } else { path };
    if path.as_os_str().len() > MAX_PATH {
        return Err((libc::ENAMETOOLONG, "a Unix socket's path has at most 107 bytes"));
    }
    Ok(ListenAddr::Unix(path.to_owned()))
}

/// The address, if one is given. The worker has resolved names before it asks.
fn ip(query: &Query<'_>) -> Result<Option<IpAddr>, (i32, &'static str)> {
    let parsed = query.address.as_deref().map(str::parse).transpose();
    parsed.map_err(|_| (libc::EINVAL, "an address that is no IP address"))
}

fn port(query: &Query<'_>) -> Result<u16, (i32, &'static str)> {
    query.port.and_then(|port| port.try_into().ok()).ok_or((libc::EINVAL, "no port"))
}
