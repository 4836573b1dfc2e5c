//! Starting this program once more as a process without a parent that waits for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::setsid;

use super::{input, own_program};

/// Starts this program as a detached process, in a session of its own, without standard streams, with no
/// environment but the number of the one descriptor that it inherits.
pub fn start(name: &str, variable: &str, inherited: BorrowedFd<'_>) -> io::Result<()> {
    let mut command = Command::new(own_program::path()?);
    command.arg0(name).env_clear().env(variable, inherited.as_raw_fd().to_string()).current_dir("/");
    command.stdin(input::nowhere()?).stdout(input::nowhere()?).stderr(input::nowhere()?);
    let number = inherited.as_raw_fd();
    let before_exec = move || {
        setsid()?;
        // SAFETY: the forked child has one thread. Its parent's part ends at once and touches nothing.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: fcntl on a descriptor that the forked child holds; clearing its flags frees nothing.
            0 => match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            },
            // SAFETY: it ends this process at once, and runs nothing of ours.
            _ => unsafe { libc::_exit(0) },
        }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
    // What ends here is the part that was forked first.
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("its process could not be started")),
    }
}
