//! Taking connections from a listener, and what the kernel may answer instead.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::closing;
use crate::addr::EndAddr;

/// The answer to one accept4(2).
#[derive(Debug)]
pub enum Accepted {
    /// A connection, non-blocking (libuv never sets that on a descriptor it is given) and close-on-exec.
    Connection(OwnedFd, EndAddr),
    /// No connection waits.
    Empty,
    /// One connection went away before it was taken; the next call may succeed.
    Aborted(io::Error),
    /// This process (EMFILE) or the host (ENFILE, ENOBUFS, ENOMEM) has no descriptor or no memory left; the connection
    /// stays in the queue.
    Exhausted(io::Error),
}

/// Takes one connection without waiting.
///
/// An error is one of the listener itself (EBADF, EINVAL, ENOTSOCK): it will not pass.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Accepted> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    loop {
        // SAFETY: `storage` has room for any address and `len` is its size.
        let accepted = unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                storage.as_mut_ptr().cast(),
                &raw mut len,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        };
        if accepted >= 0 {
            // SAFETY: accept4 returned a new descriptor that nothing else owns, and filled the zeroed storage.
            let (descriptor, storage) = unsafe { (OwnedFd::from_raw_fd(accepted), storage.assume_init()) };
            return Ok(Accepted::Connection(descriptor, end_addr(&storage)));
        }
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINTR) => continue,
            Some(libc::EAGAIN) => Ok(Accepted::Empty),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Ok(Accepted::Exhausted(error)),
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP) => Err(error),
            // accept(2): errors already pending on the new socket (ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, a
            // firewall's EPERM and their kin) concern one connection alone.
            _ => Ok(Accepted::Aborted(error)),
        };
    }
}

/// How many connections wait in a TCP listener's accept queue; `None` for another kind of socket.
///
/// tcp(7): for a listening socket TCP_INFO reports the queue's length as `tcpi_unacked`. It costs a fifth of an accept4
/// that finds none.
pub fn waiting(listener: BorrowedFd<'_>) -> Option<usize> {
    Some(queue(listener)?.waiting)
}

/// The accept queue of a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait in it.
    pub waiting: usize,
    /// Connections that it has room for: what listen(2) was asked for, capped at net.core.somaxconn.
    pub length: usize,
}

/// The accept queue of a TCP listener; None for any other. The kernel reports its capacity as `tcpi_sacked`.
pub fn queue(listener: BorrowedFd<'_>) -> Option<AcceptQueue> {
    // SAFETY: tcp_info is plain data; all zero is a value of it.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `len` bytes.
    let asked = unsafe {
        libc::getsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    (asked == 0).then_some(AcceptQueue { waiting: info.tcpi_unacked as usize, length: info.tcpi_sacked as usize })
}

/// Whether a connection waits at a listener, of any kind.
pub fn somebody_waits(listener: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(listener, PollFlags::POLLIN)];
    // It fails for want of memory only: then nothing is known, and the next poll will show.
    poll(&mut asked, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}

/// The address at our end of a connection (getsockname(2)).
pub fn local_addr(connection: BorrowedFd<'_>) -> io::Result<EndAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` has room for any address and `len` is its size; it was zeroed, so it is initialised.
    unsafe {
        if libc::getsockname(connection.as_raw_fd(), storage.as_mut_ptr().cast(), &raw mut len) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(end_addr(&storage.assume_init()))
    }
}

fn end_addr(storage: &libc::sockaddr_storage) -> EndAddr {
    let at: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family shows that the storage holds a sockaddr_in, which is smaller and no stricter aligned.
            let addr = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
            EndAddr::Ip(SocketAddr::new(IpAddr::V4(ip), u16::from_be(addr.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let addr = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            let port = u16::from_be(addr.sin6_port);
            EndAddr::from_ip(SocketAddrV6::new(ip, port, 0, addr.sin6_scope_id).into())
        }
        _ => EndAddr::Unix,
    }
}

/// Closes a connection with a reset instead of an orderly end, so that the client learns at once that it was refused.
///
/// Best effort: SO_LINGER does not exist on a Unix socket, whose peer sees the close at once anyway.
pub fn reset(connection: OwnedFd) {
    socket2::SockRef::from(&connection).set_linger(Some(std::time::Duration::ZERO)).ok();
    // A worker that had it, and has it still, may have asked for another end meanwhile.
    closing::close(connection);
}

/// As [`reset`], at once, of a TCP connection that no other process holds, so its close cannot be delayed.
pub fn reset_unshared(connection: OwnedFd) {
    socket2::Socket::from(connection).set_linger(Some(std::time::Duration::ZERO)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_connection_comes_non_blocking_with_both_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("non-blocking");
        assert!(matches!(accept(listener.as_fd()).expect("accept"), Accepted::Empty));
        assert_eq!(waiting(listener.as_fd()), Some(0));
        assert!(!somebody_waits(listener.as_fd()));
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        assert!(somebody_waits(listener.as_fd()));
        assert_eq!(waiting(listener.as_fd()), Some(1));
        socket2::SockRef::from(&listener).listen(7).expect("listen");
        assert_eq!(queue(listener.as_fd()), Some(AcceptQueue { waiting: 1, length: 7 }));
        let Accepted::Connection(connection, peer) = accept(listener.as_fd()).expect("accept") else {
            panic!("no connection");
        };
        assert_eq!(peer, EndAddr::Ip(client.local_addr().expect("address")));
        assert_eq!(local_addr(connection.as_fd()).expect("address"), EndAddr::Ip(client.peer_addr().expect("address")));
        let flags = nix::fcntl::fcntl(&connection, nix::fcntl::FcntlArg::F_GETFL).expect("flags");
        assert_ne!(flags & libc::O_NONBLOCK, 0);
        let flags = nix::fcntl::fcntl(&connection, nix::fcntl::FcntlArg::F_GETFD).expect("flags");
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_an_ipv4_client() {
        let listener = TcpListener::bind("[::]:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let Accepted::Connection(_, peer) = accept(listener.as_fd()).expect("accept") else {
            panic!("no connection");
        };
        assert_eq!(peer, EndAddr::Ip(client.local_addr().expect("address")));
    }

    #[test]
    fn an_error_of_the_listener_itself_is_an_error() {
        let not_listening = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        assert!(accept(not_listening.as_fd()).is_err());
    }
}
