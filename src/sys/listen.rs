//! Binding listeners, and telling in plain words why one cannot be bound.

pub(crate) mod error;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::error::{Access, ListenError};
use super::rights::Rights;
use super::unix_socket;
pub use super::unix_socket::{SocketFile, SocketHandle, remove_stale_in};
use crate::addr::{EndAddr, ListenAddr};

/// A bound, listening, non-blocking socket. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    addr: ListenAddr,
    local: Option<EndAddr>,
    file: Option<SocketFile>,
}

impl Listener {
    /// Binds and listens.
    ///
    /// `backlog` is the length of the accept queue, which the kernel caps at net.core.somaxconn. Port 0 takes a free
    /// port, which [`Listener::addr`] then returns.
    pub fn bind(addr: &ListenAddr, backlog: u32, access: Access) -> Result<Self, ListenError> {
        Self::bind_as(addr, backlog, access, &Rights::Own)
    }

    /// The same, with the rights of the process that asks for it: they matter for Unix paths alone.
    pub fn bind_as(addr: &ListenAddr, backlog: u32, access: Access, rights: &Rights) -> Result<Self, ListenError> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match addr {
            ListenAddr::Unix(path) => {
                let (socket, file) = unix_socket::bind(addr, path, backlog, access, rights)?;
                Ok(Self { socket, addr: addr.clone(), local: Some(EndAddr::Unix), file: Some(file) })
            }
            ListenAddr::DualStack(_) | ListenAddr::Ip(_) => Self::bind_tcp(addr, backlog),
        }
    }

    /// A socket that another process has bound and that listens already. Its queue and its file, if it has one, stay as
    /// they are.
    ///
    /// # Errors
    ///
    /// When the kernel does not say where it is bound, or that is neither TCP nor a Unix socket.
    pub(super) fn adopt(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?;
        if let Some(bound) = bound.as_socket() {
            // As for our own: it is handed down to every connection.
            socket.set_tcp_nodelay(true)?;
            let is_dual = bound.is_ipv6() && bound.ip().is_unspecified() && !socket.only_v6()?;
            let addr = if is_dual { ListenAddr::DualStack(bound.port()) } else { ListenAddr::Ip(bound) };
            return Ok(Self::tcp(socket, &addr, bound));
        }
        let abstract_name = |name: &[u8]| PathBuf::from(OsString::from_vec([b"@", name].concat()));
        let path = bound.as_pathname().map(Path::to_owned);
        let path =
            path.or_else(|| bound.as_abstract_namespace().map(abstract_name)).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket: socket.into(), addr: ListenAddr::Unix(path), local: Some(EndAddr::Unix), file: None })
    }

    /// The address with the port that the kernel chose.
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// The address at our end of every connection, unless it differs from one to the next (wildcard addresses).
    pub fn local(&self) -> Option<EndAddr> {
        self.local
    }

    /// The same listener under another descriptor. A Unix socket's file stays with this one.
    ///
    /// # Errors
    ///
    /// When no descriptor is left (EMFILE, ENFILE).
    pub fn duplicate(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { socket, addr: self.addr.clone(), local: self.local, file: None })
    }

    /// Gives up the socket for another owner; a Unix socket's file stays as long as the second part lives.
    pub fn into_parts(self) -> (OwnedFd, Option<SocketFile>) {
        (self.socket, self.file)
    }

    /// A listening TCP socket that was bound to `bound` for the requested address `asked`.
    pub(super) fn tcp(socket: Socket, asked: &ListenAddr, bound: SocketAddr) -> Self {
        let (addr, local) = match asked {
            ListenAddr::DualStack(_) => (ListenAddr::DualStack(bound.port()), None),
            _ if bound.ip().is_unspecified() => (ListenAddr::Ip(bound), None),
            _ => (ListenAddr::Ip(bound), Some(EndAddr::from_ip(bound))),
        };
        Self { socket: socket.into(), addr, local, file: None }
    }

    fn bind_tcp(addr: &ListenAddr, backlog: i32) -> Result<Self, ListenError> {
        let (socket, bound) = at_candidates(addr, |candidate| {
            let socket = tcp_socket(addr, candidate)?;
            socket.bind(&candidate.into())?;
            socket.listen(backlog)?;
            let bound = bound_to(&socket)?;
            Ok((socket, bound))
        })?;
        Ok(Self::tcp(socket, addr, bound))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes something at the first address that can be had of those that `addr` stands for.
pub(super) fn at_candidates<T>(
    addr: &ListenAddr,
    make: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, ListenError> {
    let mut last = None;
    for candidate in addr.candidates() {
        match make(candidate) {
            Ok(made) => return Ok(made),
            // A host without IPv6: try the next candidate.
            Err(error) if matches!(addr, ListenAddr::DualStack(_)) && no_ipv6(&error) => last = Some(error),
            Err(error) => return Err(tcp_error(addr, error)),
        }
    }
    Err(tcp_error(addr, last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into())))
}

/// A TCP socket that is to be bound to `candidate` for the requested address `asked`.
pub(super) fn tcp_socket(asked: &ListenAddr, candidate: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(candidate), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A master that was killed leaves connections behind: the next one must be able to bind at once.
    socket.set_reuse_address(true)?;
    if candidate.is_ipv6() {
        socket.set_only_v6(!matches!(asked, ListenAddr::DualStack(_)))?;
    }
    // Linux hands it down to every accepted connection: it spares each worker a system call.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The address that a TCP socket is bound to.
pub(super) fn bound_to(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A bound UDP socket that haft itself does not read.
pub fn udp(addr: SocketAddr, ipv6_only: bool, reuse_address: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(reuse_address)?;
    if addr.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

pub(super) fn tcp_error(addr: &ListenAddr, source: io::Error) -> ListenError {
    let addr = addr.clone();
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::PortInUse(addr),
        Some(libc::EACCES | libc::EPERM) => ListenError::PortPermission(addr),
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => ListenError::NotOurs(addr),
        _ => ListenError::Other { addr, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn bind(text: &str) -> Result<Listener, ListenError> {
        Listener::bind(&text.parse().expect(text), 128, Access::Umask)
    }

    fn port(listener: &Listener) -> u16 {
        match listener.addr() {
            ListenAddr::DualStack(port) => *port,
            ListenAddr::Ip(addr) => addr.port(),
            ListenAddr::Unix(_) => panic!("a Unix socket has no port"),
        }
    }

    #[test]
    fn dual_stack_takes_both_families_and_one_address_only_its_own() {
        let both = bind("0").expect("bind");
        TcpStream::connect(("127.0.0.1", port(&both))).expect("IPv4");
        TcpStream::connect(("::1", port(&both))).expect("IPv6");
        assert_eq!(both.local(), None);
        let six = bind("[::1]:0").expect("bind");
        assert!(TcpStream::connect(("127.0.0.1", port(&six))).is_err());
        TcpStream::connect(("::1", port(&six))).expect("IPv6");
        assert!(six.local().is_some());
    }

    #[test]
    fn a_port_in_use_and_an_address_that_is_not_ours_are_named_with_the_cure() {
        let first = bind("127.0.0.1:0").expect("bind");
        let again = first.addr().to_string();
        let message = bind(&again).expect_err("in use").to_string();
        assert!(
            message.contains(&again) && message.contains("in use") && message.contains("choose another"),
            "{message}"
        );
        let message = bind("192.0.2.1:0").expect_err("not ours").to_string();
        assert!(message.contains("192.0.2.1") && message.contains("no such address"), "{message}");
    }
}
