//! What a worker process inherits from the master, and what it does when the master is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::SFlag;

static TAKING: Mutex<()> = Mutex::new(());

/// Why an inherited descriptor is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Not a number.
    #[error("not a descriptor's number")]
    NotANumber,
    /// No open descriptor, or no socket.
    #[error("descriptor {0} is not a socket of this process: {1}")]
    NotASocket(RawFd, Errno),
    /// Another type of socket.
    #[error("descriptor {0} is a socket of another type than SOCK_SEQPACKET")]
    NotSeqPacket(RawFd),
    /// Another type of socket.
    #[error("descriptor {0} is a socket of another type than SOCK_STREAM")]
    NotAStream(RawFd),
    /// Not inherited, or taken before.
    #[error("descriptor {0} was not inherited, or was taken before")]
    NotInherited(RawFd),
    /// A socket, a pipe, a folder.
    #[error("descriptor {0} is no file")]
    NotAFile(RawFd),
    /// A socket that does not listen.
    #[error("descriptor {0} is a socket that does not listen")]
    NotAListener(RawFd),
}

/// Takes over the SOCK_SEQPACKET socket whose descriptor's number `text` is, and makes it non-blocking and
/// close-on-exec, so that the worker's own children do not hold it.
///
/// Only what this process inherited and has not taken before: what it opens itself is close-on-exec.
pub fn take_seqpacket(text: &str) -> Result<OwnedFd, InheritError> {
    take(text, |socket, number| match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::SeqPacket) => Ok(()),
        Ok(_) => Err(InheritError::NotSeqPacket(number)),
        Err(errno) => Err(InheritError::NotASocket(number, errno)),
    })
}

/// As [`take_seqpacket`], but for a SOCK_STREAM socket.
pub fn take_stream(text: &str) -> Result<OwnedFd, InheritError> {
    take(text, |socket, number| match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::Stream) => Ok(()),
        Ok(_) => Err(InheritError::NotAStream(number)),
        Err(errno) => Err(InheritError::NotASocket(number, errno)),
    })
}

/// As [`take_seqpacket`], but for a listener.
pub fn take_listener(text: &str) -> Result<OwnedFd, InheritError> {
    take(text, |socket, number| match getsockopt(socket, sockopt::AcceptConn) {
        Ok(true) => Ok(()),
        Ok(false) => Err(InheritError::NotAListener(number)),
        Err(errno) => Err(InheritError::NotASocket(number, errno)),
    })
}

/// As [`take_seqpacket`], but for a regular file, or a page of memory.
pub fn take_file(text: &str) -> Result<OwnedFd, InheritError> {
    take(text, |file, number| match nix::sys::stat::fstat(file) {
        Ok(stat) if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG => Ok(()),
        Ok(_) => Err(InheritError::NotAFile(number)),
        Err(errno) => Err(InheritError::NotASocket(number, errno)),
    })
}

fn take(
    text: &str,
    check: impl FnOnce(&BorrowedFd<'_>, RawFd) -> Result<(), InheritError>,
) -> Result<OwnedFd, InheritError> {
    let number: RawFd = text.trim().parse().map_err(|_| InheritError::NotANumber)?;
    if number < 3 {
        // Standard streams are never passed so, and -1 is no descriptor.
        return Err(InheritError::NotASocket(number, Errno::EBADF));
    }
    // Of two that want the same, the second is to see what the first has made of it.
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: only used to ask the kernel what it is; a number that is not open gives EBADF.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    check(&socket, number)?;
    let flags = fcntl(socket, FcntlArg::F_GETFD).map_err(|errno| InheritError::NotASocket(number, errno))?;
    if flags & FdFlag::FD_CLOEXEC.bits() != 0 {
        return Err(InheritError::NotInherited(number));
    }
    // SAFETY: it is open, and not close-on-exec. So it was here when this program began, since whatever Rust's
    // libraries open is close-on-exec; and it was not taken before, since from the next line on it is close-on-exec,
    // too. So it has no owner.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let made = fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .and_then(|_| fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)));
    made.map_err(|errno| InheritError::NotASocket(number, errno))?;
    Ok(socket)
}

/// Makes this process outlive its master: undoes the wish of [`super::process::launch`] to get SIGTERM when the master
/// dies, and does not let SIGHUP end it.
///
/// A worker is a process group of its own. When its master dies while it is stopped (SIGSTOP), the kernel sends the
/// group, now orphaned, SIGHUP and SIGCONT (credentials(7), setpgid(2)): it would be ended when it could go on. A
/// program that has set a disposition for SIGHUP keeps it.
pub fn outlive_parent() {
    // It can only fail for an unknown signal.
    prctl::set_pdeathsig(None).ok();
    extern "C" fn nothing(_: libc::c_int) {}
    // A handler, since a signal that is ignored would be so in the worker's own children, too.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, so whatever it interrupts is as it was.
    let before = unsafe { sigaction(Signal::SIGHUP, &action) };
    if let Ok(before) = before
        && !matches!(before.handler(), SigHandler::SigDfl)
    {
        // SAFETY: it was the disposition a moment ago.
        unsafe { sigaction(Signal::SIGHUP, &before) }.ok();
    }
}

/// Points stdout and stderr at /dev/null where their reader was the master and is gone, so that a late log line does
/// not fail (a Rust program would panic).
pub fn mend_output() {
    let Ok(null) = File::options().write(true).open("/dev/null") else { return };
    if reader_is_gone(io::stdout().as_fd()) {
        nix::unistd::dup2_stdout(&null).ok();
    }
    if reader_is_gone(io::stderr().as_fd()) {
        nix::unistd::dup2_stderr(&null).ok();
    }
}

/// poll(2): POLLERR is set for the writing end of a pipe whose reading end has been closed.
fn reader_is_gone(output: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(output, PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scm;
    use std::os::fd::{AsRawFd, IntoRawFd};

    /// The number of a descriptor as the parent of this program would have left it.
    fn inherited(descriptor: OwnedFd) -> String {
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::empty())).expect("a flag");
        descriptor.into_raw_fd().to_string()
    }

    #[test]
    fn only_a_seqpacket_socket_is_taken() {
        for text in ["", "x", "-1", "0", "999999"] {
            assert!(take_seqpacket(text).is_err(), "{text}");
        }
        let file = File::open("/dev/null").expect("open");
        assert!(matches!(take_seqpacket(&file.as_raw_fd().to_string()), Err(InheritError::NotASocket(..))));
        let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        assert!(matches!(take_seqpacket(&stream.as_raw_fd().to_string()), Err(InheritError::NotSeqPacket(_))));
        let (left, _right) = scm::seqpacket_pair().expect("pair");
        assert!(matches!(take_seqpacket(&left.as_raw_fd().to_string()), Err(InheritError::NotInherited(_))));
        let left = inherited(left);
        let channel = take_seqpacket(&left).expect("a channel");
        assert!(matches!(take_seqpacket(&left), Err(InheritError::NotInherited(_))), "it has an owner");
        drop(channel);
    }

    #[test]
    fn only_a_listener_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let not_listening = take_listener(&client.as_raw_fd().to_string());
        assert!(matches!(not_listening, Err(InheritError::NotAListener(_))));
        let file = File::open("/dev/null").expect("open");
        assert!(matches!(take_listener(&file.as_raw_fd().to_string()), Err(InheritError::NotASocket(..))));
        take_listener(&inherited(listener.into())).expect("a listener");
    }

    #[test]
    fn a_pipe_without_a_reader_is_told_from_one_with() {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        assert!(!reader_is_gone(write.as_fd()));
        drop(read);
        assert!(reader_is_gone(write.as_fd()));
    }
}
