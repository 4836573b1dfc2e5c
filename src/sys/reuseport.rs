//! A group of listeners on one address, among which a program in the kernel chooses (SO_REUSEPORT, socket(7)).
//!
//! # Other processes in the group
//!
//! The kernel lets any process of the same user join a group, and the program returns a place in it, so it matters that
//! all members are ours and stay where they are:
//!
//! * The first member is bound **without** SO_REUSEPORT, which fails where any process listens, another user's group
//!   too, as it does for a listener of its own. Only then it gets the option, which the kernel looks at anew for each
//!   socket that is bound after it (`inet_csk_bind_conflict`).
//! * A listener that joins later comes after our members, which the program never selects.
//! * A member's place is the order of listen(2), and when one is closed the last one takes its place. So a member must
//!   not be closed before all are: the caller keeps them all.
//! * The program is changed by the first member, which no worker is given. The others are locked (SO_LOCK_FILTER), so
//!   that a process that holds one cannot attach another program. It can still detach the program
//!   (SO_DETACH_REUSEPORT_BPF heeds no lock), move members by shutdown(2), or join with a socket that is not locked:
//!   see [`probe`].
//! * More members can [`join`] as long as no other process has ([`alone`]): behind a foreign listener their indexes
//!   would not be known.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::listen::{ListenError, Listener, at_candidates, bound_to, tcp_error, tcp_socket};
use super::probe;
use super::sharing::ListeningSockets;
use crate::addr::ListenAddr;

/// A program for the kernel, in classic BPF. It returns the place of a member, from 0.
#[derive(Debug)]
pub struct BpfProgram(Vec<libc::sock_filter>);

impl BpfProgram {
    /// A program of these instructions: `code`, `jt`, `jf` and `k` of `struct sock_filter`.
    pub fn new(instructions: impl IntoIterator<Item = (u16, u8, u8, u32)>) -> Self {
        let instruction = |(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k };
        Self(instructions.into_iter().map(instruction).collect())
    }

    /// A program that always returns this place.
    pub fn to(place: u32) -> Self {
        Self::new([((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, place)])
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none, which the kernel refuses.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the kernel takes it: tries with a socket that is bound nowhere.
    ///
    /// An error is that of [`BpfProgram::attach`].
    pub fn try_out(&self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        self.attach(&socket)
    }

    /// Makes it the program of the member's whole group. The kernel copies it.
    ///
    /// An error is the kernel's: ENOMEM for a program longer than net.core.optmem_max allows, EINVAL for a wrong one.
    pub fn attach(&self, member: impl AsFd) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel reads it only.
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        Ok(setsockopt(&member, sockopt::AttachReusePortCbpf, &program)?)
    }
}

/// Binds so many listeners (at least 1) to one address, each with an accept queue of `backlog`, and lets `program`
/// choose among them. They are in the order of their places.
///
/// Port 0 takes a free port, the same for all, which [`Listener::addr`] then returns.
///
/// # Errors
/// As [`Listener::bind`], and where the kernel does not take the program.
pub fn bind(
    addr: &ListenAddr,
    backlog: u32,
    members: usize,
    program: &BpfProgram,
) -> Result<Vec<Listener>, ListenError> {
    if matches!(addr, ListenAddr::Unix(_)) {
        return Err(ListenError::Undivided(addr.clone()));
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let (sockets, bound) = at_candidates(addr, |candidate| {
        let first = tcp_socket(addr, candidate)?;
        first.bind(&candidate.into())?;
        let bound = bound_to(&first)?;
        first.set_reuse_port(true)?;
        // Not an error of the address: distinguished below.
        if let Err(source) = program.attach(&first) {
            return Ok((Err(source), bound));
        }
        first.listen(backlog)?;
        let others = (1..members).map(|_| member(addr, bound, backlog)).collect::<io::Result<Vec<_>>>()?;
        Ok((Ok(std::iter::once(first).chain(others).collect::<Vec<_>>()), bound))
    })?;
    let refused = |source| ListenError::Program { addr: addr.clone(), len: program.len(), source };
    Ok(sockets.map_err(refused)?.into_iter().map(|socket| Listener::tcp(socket, addr, bound)).collect())
}

/// Binds so many more listeners of a group of which `members` are all. They come behind those, in the order of their
/// indexes, if the group holds no foreign listener before and after: see [`alone`].
///
/// # Errors
/// As [`Listener::bind`].
pub fn join(members: &[impl AsRef<Listener>], backlog: u32, more: usize) -> Result<Vec<Listener>, ListenError> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let Some(first) = members.first().map(AsRef::as_ref) else { return Ok(Vec::new()) };
    let addr = first.addr();
    let joined = || {
        let bound = SockRef::from(&first.as_fd()).local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let sockets = (0..more).map(|_| member(addr, bound, backlog)).collect::<io::Result<Vec<_>>>()?;
        Ok(sockets.into_iter().map(|socket| Listener::tcp(socket, addr, bound)).collect())
    };
    joined().map_err(|error| tcp_error(addr, error))
}

/// Makes sure that these groups, of which all members are given, have no others.
///
/// # Errors
/// Where one has, or where that cannot be known.
pub fn alone<'a, L: AsRef<Listener> + 'a>(groups: impl IntoIterator<Item = &'a [L]>) -> Result<(), ListenError> {
    let mut groups =
        groups.into_iter().filter_map(|members| Some((members.first()?.as_ref().addr(), members))).peekable();
    let Some((first, _)) = groups.peek() else { return Ok(()) };
    let unknown = |addr: &ListenAddr, source| ListenError::Other { addr: addr.clone(), source };
    let listening = ListeningSockets::now().map_err(|source| unknown(first, source))?;
    for (addr, members) in groups {
        let members = members.iter().map(|member| member.as_ref().as_fd());
        if listening.strangers(members).map_err(|source| unknown(addr, source))? > 0 {
            return Err(ListenError::Shared(addr.clone()));
        }
    }
    Ok(())
}

/// How many sockets that are not given listen at the address of these.
///
/// # Errors
/// Where that cannot be known.
pub fn strangers(members: &[impl AsRef<Listener>]) -> io::Result<usize> {
    ListeningSockets::now()?.strangers(members.iter().map(|member| member.as_ref().as_fd()))
}

/// Lets a member listen again that was shut down. The kernel gives it the last place.
///
/// # Errors
/// When it cannot, since it was made something else (it was connected, say, or has another address now).
pub fn listen_again(listener: &Listener, backlog: u32) -> io::Result<()> {
    set_backlog(listener.as_fd(), backlog)?;
    let at = SockRef::from(&listener.as_fd()).local_addr()?.as_socket();
    let port = match listener.addr() {
        ListenAddr::DualStack(port) => Some(*port),
        ListenAddr::Ip(addr) => Some(addr.port()),
        ListenAddr::Unix(_) => None,
    };
    if at.map(|at| at.port()) == port { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
}

/// A further member of the group at `bound`, which was bound for the requested address `asked`.
fn member(asked: &ListenAddr, bound: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let member = tcp_socket(asked, bound)?;
    member.set_reuse_port(true)?;
    member.bind(&bound.into())?;
    probe::lock(member.as_fd())?;
    member.listen(backlog)?;
    Ok(member)
}

/// Sets the length of the accept queue again. Another holder of the listener may have set it by listen(2), which
/// changes nothing else of one that listens.
pub fn set_backlog(listener: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    SockRef::from(&listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Admits no new connection to the accept queue: queued ones stay, new ones are not answered until the listener is
/// closed.
///
/// A filter that keeps nothing of any packet (socket(7), SO_ATTACH_FILTER). Connections that were made before have
/// none.
pub fn stop_accepting(listener: BorrowedFd<'_>) -> io::Result<()> {
    // Return 0: as many bytes of each packet are kept.
    const NOTHING: SockFilter = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(&listener).attach_filter(&[NOTHING])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::{self, Accepted};
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;

    /// Always this place.
    fn to(place: u32) -> BpfProgram {
        BpfProgram::new([((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, place)])
    }

    fn group(text: &str, members: usize, program: &BpfProgram) -> Result<Vec<Listener>, ListenError> {
        bind(&text.parse().expect(text), 16, members, program)
    }

    fn address(listener: &Listener) -> SocketAddr {
        match listener.addr() {
            ListenAddr::DualStack(port) => SocketAddr::from(([127, 0, 0, 1], *port)),
            ListenAddr::Ip(addr) => *addr,
            ListenAddr::Unix(_) => panic!("a Unix socket has no port"),
        }
    }

    fn waiting(group: &[Listener]) -> Vec<usize> {
        group.iter().map(|listener| accept::waiting(listener.as_fd()).expect("a listener")).collect()
    }

    #[test]
    fn the_program_chooses_the_listener_and_can_be_exchanged() {
        for text in ["127.0.0.1:0", "[::1]:0", "0", "0.0.0.0:0"] {
            let group = group(text, 3, &to(1)).expect("a group");
            assert!(group.iter().all(|listener| listener.addr() == group[0].addr()), "{text}");
            let to_addr = address(&group[0]);
            let _one = TcpStream::connect(to_addr).expect("connect");
            assert_eq!(waiting(&group), [0, 1, 0], "{text}");
            to(2).attach(&group[0]).expect("attach");
            let _two = TcpStream::connect(to_addr).expect("connect");
            assert_eq!(waiting(&group), [0, 1, 1], "{text}");
            let accepted = accept::accept(group[1].as_fd()).expect("accept");
            assert!(matches!(accepted, Accepted::Connection(..)));
        }
    }

    #[test]
    fn an_address_that_somebody_has_is_in_use_even_if_he_would_share_it() {
        let sharing = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        sharing.set_reuse_port(true).expect("option");
        sharing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        sharing.listen(1).expect("listen");
        let taken = bound_to(&sharing).expect("address").to_string();
        assert!(matches!(group(&taken, 2, &to(0)), Err(ListenError::PortInUse(_))));
        // Nor can two groups be one, nor a listener of its own join.
        let ours = group("127.0.0.1:0", 2, &to(0)).expect("a group");
        let again = ours[0].addr().to_string();
        assert!(matches!(group(&again, 2, &to(0)), Err(ListenError::PortInUse(_))));
        assert!(TcpListener::bind(address(&ours[0])).is_err());
    }

    #[test]
    fn who_joins_later_gets_nobody() {
        let ours = group("127.0.0.1:0", 2, &to(1)).expect("a group");
        let late = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        late.set_reuse_port(true).expect("option");
        late.bind(&address(&ours[0]).into()).expect("bind");
        late.listen(16).expect("listen");
        let _clients: Vec<_> = (0..8).map(|_| TcpStream::connect(address(&ours[0])).expect("connect")).collect();
        assert_eq!(waiting(&ours), [0, 8]);
    }

    #[test]
    fn more_can_join_behind_the_others_unless_a_stranger_has() {
        for text in ["127.0.0.1:0", "[::1]:0", "0"] {
            let mut ours: Vec<Rc<Listener>> =
                group(text, 2, &to(0)).expect("a group").into_iter().map(Rc::new).collect();
            alone([&ours[..]]).expect("no other process is there");
            let new = join(&ours, 16, 2).expect("more");
            assert!(new.iter().all(|listener| listener.addr() == ours[0].addr()), "{text}");
            assert!(matches!(alone([&ours[..]]), Err(ListenError::Shared(_))), "{text}");
            ours.extend(new.into_iter().map(Rc::new));
            alone([&ours[..]]).expect("all are known");
            to(3).attach(&ours[0]).expect("attach");
            let _client = TcpStream::connect(address(&ours[0])).expect("connect");
            let waiting: Vec<_> = ours.iter().map(|listener| accept::waiting(listener.as_fd())).collect();
            assert_eq!(waiting, [Some(0), Some(0), Some(0), Some(1)], "{text}");
        }
        let ours: Vec<Rc<Listener>> =
            group("127.0.0.1:0", 1, &to(0)).expect("a group").into_iter().map(Rc::new).collect();
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        stranger.set_reuse_port(true).expect("option");
        stranger.bind(&address(&ours[0]).into()).expect("bind");
        stranger.listen(16).expect("listen");
        let message = alone([&ours[..]]).expect_err("not alone").to_string();
        assert!(message.contains("another process listens there, too"), "{message}");
        drop(stranger);
        alone([&ours[..]]).expect("alone again");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_cure() {
        let message = group("unix:/nowhere", 2, &to(0)).expect_err("refused").to_string();
        assert!(message.contains("on a Unix socket") && message.contains("--dispatch handover"), "{message}");
        let too_long = BpfProgram::new(vec![((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0); 4097]);
        assert_eq!(too_long.try_out().expect_err("refused").kind(), io::ErrorKind::InvalidInput);
        to(0).try_out().expect("taken");
        let message = group("127.0.0.1:0", 2, &too_long).expect_err("refused").to_string();
        assert!(message.contains("4097 instructions") && message.contains("optmem_max"), "{message}");
    }

    #[test]
    fn a_queue_can_be_closed_behind_those_who_wait_and_made_long_again() {
        let group = group("127.0.0.1:0", 1, &to(0)).expect("a group");
        // As a program does that takes the listener over: one may wait beyond that.
        SockRef::from(&group[0]).listen(0).expect("listen");
        set_backlog(group[0].as_fd(), 16).expect("listen");
        let _clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address(&group[0])).expect("connect")).collect();
        assert_eq!(waiting(&group), [4]);
        stop_accepting(group[0].as_fd()).expect("filter");
        let late = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        late.set_nonblocking(true).expect("non-blocking");
        let started = late.connect(&address(&group[0]).into()).expect_err("under way");
        assert_eq!(started.raw_os_error(), Some(libc::EINPROGRESS));
        // The loopback delivers within the call: had it been let in, it would wait by now.
        assert_eq!(waiting(&group), [4]);
        for _ in 0..4 {
            let accepted = accept::accept(group[0].as_fd()).expect("accept");
            assert!(matches!(accepted, Accepted::Connection(..)));
        }
        drop(group);
    }
}
