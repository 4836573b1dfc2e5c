//! A process that is not a child of this one, watched for its end.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A descriptor that becomes readable when the process has ended (pidfd_open(2)), close-on-exec. ENOSYS: a kernel before
/// 5.3. ESRCH: it has ended before.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call with numbers alone for arguments.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let Ok(opened @ 0..) = i32::try_from(opened) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the call has just made this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn it_is_readable_once_the_process_has_ended() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let watched = open(cat.id()).expect("pidfd");
        let ready = |timeout: PollTimeout| poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], timeout);
        assert_eq!(ready(PollTimeout::ZERO), Ok(0));
        drop(cat.stdin.take());
        assert_eq!(ready(PollTimeout::from(10_000_u16)), Ok(1));
        let pid = cat.id();
        cat.wait().expect("reaped");
        assert_eq!(open(pid).expect_err("gone").raw_os_error(), Some(libc::ESRCH));
    }
}
