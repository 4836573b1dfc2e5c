//! Which listener of a group the kernel gives a connection to, without the connection coming into being.
//!
//! A probe is a connection from this host to itself whose packets have a time to live of 1. For the moment of the trial
//! the listeners take only packets that have more (IP_MINTTL, ip(7); IPV6_MINHOPCOUNT): the one that the kernel chooses
//! drops the probe and counts that (SO_MEMINFO). On the loopback this happens within connect(2), so the answer is there
//! at once. No listener's queue sees anything, and no program accepts anything.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, SockRef, Socket, Type};

/// `IPV6_MINHOPCOUNT` (linux/in6.h).
const IPV6_MINHOPCOUNT: libc::c_int = 73;
/// What a listener takes while it is on trial.
const OVER_ONE: libc::c_int = 2;
/// `SK_MEMINFO_DROPS` (linux/sock_diag.h), the last of the numbers of SO_MEMINFO.
const DROPS: usize = 8;
/// TCP_ESTABLISHED (net/tcp_states.h).
const ESTABLISHED: u8 = 1;

/// Where a probe came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// At this one of the listeners.
    At(usize),
    /// At a socket that is none of them: it was connected.
    Elsewhere,
    /// Unknown: it did not arrive (a packet filter may drop it), or several listeners dropped packets just then.
    Unknown,
}

/// What a probe carries for the steering program, beside its source address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeMark {
    /// Its source address (IPv4 only): any of this host's if there is none.
    pub from: Option<Ipv4Addr>,
    /// Its differentiated services code point (IPv6 only).
    pub class: u8,
}

/// Listeners of one address that drop probes as long as this lives.
#[derive(Debug)]
pub struct Trial<'a> {
    listeners: Vec<BorrowedFd<'a>>,
    to: SocketAddr,
}

impl<'a> Trial<'a> {
    /// `to`: an address of this host at which all the listeners listen.
    pub fn new(listeners: Vec<BorrowedFd<'a>>, to: SocketAddr) -> Self {
        let trial = Self { listeners, to };
        trial.take_only(OVER_ONE);
        trial
    }

    /// What a listener refuses is found out by the probe.
    fn take_only(&self, ttl: libc::c_int) {
        let (level, option) = match self.to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
        };
        for listener in &self.listeners {
            set(*listener, level, option, ttl).ok();
        }
    }

    /// Where a connection with this mark would come to. The listener where it should is asked first.
    pub fn probe(&self, mark: ProbeMark, expected: usize) -> io::Result<Landed> {
        let Some(listener) = self.listeners.get(expected) else { return self.search(mark) };
        let before = drops(*listener)?;
        let connected = self.connect(mark)?;
        match drops(*listener)? != before {
            true if !connected => Ok(Landed::At(expected)),
            _ => self.search(mark),
        }
    }

    fn search(&self, mark: ProbeMark) -> io::Result<Landed> {
        let all = || self.listeners.iter().map(|listener| drops(*listener)).collect::<io::Result<Vec<u32>>>();
        let before = all()?;
        if self.connect(mark)? {
            return Ok(Landed::Elsewhere);
        }
        let after = all()?;
        let mut changed = (0..before.len()).filter(|at| before[*at] != after[*at]);
        Ok(match (changed.next(), changed.next()) {
            (Some(only), None) => Landed::At(only),
            _ => Landed::Unknown,
        })
    }

    /// Returns whether a connection came into being. It is reset.
    fn connect(&self, mark: ProbeMark) -> io::Result<bool> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Without unsent data such a close never waits: it resets.
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        match self.to {
            SocketAddr::V4(_) => socket.set_ttl_v4(1)?,
            SocketAddr::V6(_) => {
                socket.set_unicast_hops_v6(1)?;
                // The two bits below are TCP's own.
                socket.set_tclass_v6(u32::from(mark.class) << 2)?;
            }
        }
        if let Some(from) = mark.from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        match socket.connect(&self.to.into()) {
            Ok(()) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(state(socket.as_fd())? == ESTABLISHED)
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.take_only(0);
    }
}

/// Whether a socket listens.
pub fn listens(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).is_listener().unwrap_or(false)
}

/// From now on no process can attach a program or a filter by this socket (SO_LOCK_FILTER, socket(7)). The
/// kernel knows no way back.
pub fn lock(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
}

/// How many packets a socket has dropped.
fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut numbers = [0_u32; DROPS + 1];
    let mut len = mem::size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: `numbers` has room for `len` bytes, and any bits are a value of it.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match asked {
        0 => Ok(numbers[DROPS]),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The state of a TCP socket: the first byte of TCP_INFO (tcp(7)).
fn state(socket: BorrowedFd<'_>) -> io::Result<u8> {
    let mut state = 0_u8;
    let mut len = 1;
    // SAFETY: `state` has room for one byte, which is `len`.
    let asked = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut len)
    };
    if asked == 0 { Ok(state) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is `len` bytes long, and is only read.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept;
    use crate::listen::Listener;
    use crate::reuseport::{self, BpfProgram};

    /// A group whose third member gets all clients, and where it can be reached.
    fn group(addr: &str) -> (Vec<Listener>, SocketAddr) {
        let members = reuseport::bind(&addr.parse().expect(addr), 16, 4, &BpfProgram::to(2)).expect("a group");
        let port = SockRef::from(&members[0].as_fd()).local_addr().expect("address").as_socket().expect("IP").port();
        let to = if addr.starts_with("[::1]") { "[::1]" } else { "127.0.0.1" };
        (members, format!("{to}:{port}").parse().expect("an address"))
    }

    fn trial(members: &[Listener], to: SocketAddr) -> Trial<'_> {
        Trial::new(members.iter().map(AsFd::as_fd).collect(), to)
    }

    #[test]
    fn a_probe_tells_whose_a_connection_would_be_and_none_comes() {
        for addr in ["127.0.0.1:0", "0", "0.0.0.0:0", "[::1]:0"] {
            let (members, to) = group(addr);
            let probe = |expected| trial(&members, to).probe(ProbeMark::default(), expected).expect("a probe");
            for expected in [0, 2, 99] {
                assert_eq!(probe(expected), Landed::At(2), "{addr}");
            }
            reuseport::stop_accepting(members[0].as_fd()).expect("the first is not locked");
            BpfProgram::to(0).attach(&members[0]).expect("attach");
            assert_eq!(probe(2), Landed::At(0), "{addr}");
            let waiting: usize = members.iter().filter_map(|member| accept::waiting(member.as_fd())).sum();
            assert_eq!(waiting, 0, "{addr}");
            // Another process's.
            let stranger = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
            stranger.set_reuse_port(true).expect("option");
            if to.is_ipv6() || addr == "127.0.0.1:0" {
                stranger.bind(&to.into()).expect("bind");
                stranger.listen(16).expect("listen");
                BpfProgram::to(4).attach(&members[0]).expect("attach");
                assert_eq!(probe(2), Landed::Elsewhere, "{addr}");
            }
        }
    }

    #[test]
    fn after_a_trial_packets_are_taken_whatever_they_have_to_live() {
        let (members, to) = group("127.0.0.1:0");
        drop(trial(&members, to));
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        client.set_ttl_v4(1).expect("option");
        client.connect(&to.into()).expect("connect");
        assert_eq!(accept::waiting(members[2].as_fd()), Some(1));
    }

    #[test]
    fn only_the_first_member_can_change_the_program() {
        let (members, _) = group("127.0.0.1:0");
        for member in &members[1..] {
            let refused = BpfProgram::to(1).attach(member).expect_err("locked");
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        }
        assert!(members.iter().all(|member| listens(member.as_fd())));
        SockRef::from(&members[1].as_fd()).shutdown(std::net::Shutdown::Read).expect("shutdown");
        assert!(!listens(members[1].as_fd()));
        reuseport::listen_again(&members[1], 16).expect("listen");
        assert!(listens(members[1].as_fd()));
    }
}
