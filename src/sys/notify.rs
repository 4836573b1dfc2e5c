//! The socket on which a program reports its state (sd_notify(3)).

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::unistd::{Pid, getpgid};

use super::closing::{SharedFd, SharedFds};
use super::folder::{NOTIFY, PrivateFolder};
use super::scm::MAX_DESCRIPTORS;
use super::unix_socket::bind_for_everybody;

/// Longest message: sd_notify(3) names no bound, systemd reads as much.
const LONGEST: usize = 4096;

/// What a program reported of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`: it finishes.
    Stopping,
    /// Anything else, or a message of an unrelated process.
    Other,
}

/// A datagram socket in a folder of its own, as long as this lives.
///
/// It is a file, as systemd's is: not every program knows the names that are none (Ruby's sd_notify takes any for a
/// path).
#[derive(Debug)]
pub struct NotifySocket {
    /// What programs have sent and was not read goes with it.
    socket: SharedFd,
    name: String,
    /// Removed after the socket's file.
    _folder: PrivateFolder,
}

impl NotifySocket {
    /// Makes one in the folder for temporary files, non-blocking and close-on-exec.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let folder = PrivateFolder::below(&std::env::temp_dir())?;
        let path = folder.path().join(NOTIFY);
        let made = Self { socket: socket.into(), name: path.to_string_lossy().into_owned(), _folder: folder };
        let addr = UnixAddr::new(&path)?;
        // The program may run as another user. The sender's process group decides whether a message counts.
        bind_for_everybody(&made.socket, || bind(made.socket.as_fd().as_raw_fd(), &addr))?;
        Ok(made)
    }

    /// What the program finds in `NOTIFY_SOCKET`: an absolute path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next message, if there is one. Only messages of the process group `leader` count: any process of this host
    /// may send something here.
    pub fn receive(&self, leader: u32) -> io::Result<Option<Notification>> {
        let mut text = [0; LONGEST];
        let mut part = [IoSliceMut::new(&mut text)];
        // Room for descriptors too (`FDSTORE=1`): what does not fit is closed by the kernel, which may keep us waiting.
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; MAX_DESCRIPTORS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, sender) = match recvmsg::<()>(self.socket.as_fd().as_raw_fd(), &mut part, Some(&mut control), flags) {
            Ok(message) => {
                let mut sender = None;
                let mut descriptors = SharedFds::default();
                for one in message.cmsgs().into_iter().flatten() {
                    match one {
                        ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials.pid()),
                        // SAFETY: the kernel has just made them, and nothing else has seen their numbers.
                        ControlMessageOwned::ScmRights(numbers) => descriptors
                            .0
                            .extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) })),
                        _ => {}
                    }
                }
                (message.bytes, sender)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let is_ours = sender.is_some_and(|pid| group_of(pid).is_some_and(|group| Ok(group) == i32::try_from(leader)));
        Ok(Some(if is_ours { read(&text[..len]) } else { Notification::Other }))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // The error can go nowhere, and what is left is empty.
        fs::remove_file(&self.name).ok();
    }
}

/// The process group of a process that still lives.
fn group_of(pid: i32) -> Option<i32> {
    // 0 would be this process.
    (pid > 0).then(|| getpgid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw))?
}

fn read(message: &[u8]) -> Notification {
    let has = |line: &[u8]| message.split(|byte| *byte == b'\n').any(|one| one == line);
    if has(b"STOPPING=1") {
        Notification::Stopping
    } else if has(b"READY=1") {
        Notification::Ready
    } else {
        Notification::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    #[test]
    fn what_the_program_says_is_read_and_what_strangers_say_is_not() {
        let socket = NotifySocket::new().expect("a socket");
        assert_ne!(socket.name(), NotifySocket::new().expect("another").name());
        let program = UnixDatagram::unbound().expect("a socket");
        // As a path, whatever it begins with.
        program.connect(socket.name()).expect("a path");
        let to = socket.name().to_owned();
        let own = u32::try_from(nix::unistd::getpgrp().as_raw()).expect("a group");
        assert_eq!(socket.receive(own).expect("nothing"), None);
        for (text, read) in [
            ("READY=1", Notification::Ready),
            ("STATUS=Gunicorn arbiter booted\nREADY=1\n", Notification::Ready),
            ("READY=0", Notification::Other),
            ("NOTREADY=1", Notification::Other),
            ("STOPPING=1\nSTATUS=Bye", Notification::Stopping),
            ("", Notification::Other),
        ] {
            program.send(text.as_bytes()).expect("send");
            assert_eq!(socket.receive(own).expect("a message"), Some(read), "{text}");
        }
        program.send(b"READY=1").expect("send");
        assert_eq!(socket.receive(own + 1).expect("a message"), Some(Notification::Other));
        assert_eq!(socket.receive(own).expect("nothing"), None);
        drop(socket);
        assert!(!Path::new(&to).parent().expect("a folder").exists());
    }
}
