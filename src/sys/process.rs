//! Starting worker processes and ending them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::{Child, Command};

/// A process to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Program and arguments; never empty.
    pub command: &'a [String],
    /// Added to the environment that haft itself has.
    pub environment: &'a [(&'a str, String)],
    /// A descriptor that the child inherits under the same number.
    pub channel: BorrowedFd<'a>,
    /// Whether stdout comes through a pipe; otherwise it is haft's own.
    pub pipe_stdout: bool,
}

/// Starts a process in a process group of its own, with nothing to read on stdin and stderr coming through a pipe.
///
/// The group keeps a terminal's Ctrl-C away from workers (the master tells them to finish) and lets a signal reach
/// what a wrapping shell has started. SIGTERM comes to the child when the calling thread ends without having ended it:
/// no orphan is left by a master that was killed.
///
/// An error is that of fork or exec: ENOENT and EACCES concern the program's path.
pub fn launch(launch: &Launch<'_>) -> io::Result<Child> {
    let (program, arguments) = launch.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    if program == "/proc/self/exe" {
        // What `ps` shows.
        command.arg0("haft: worker");
    }
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    if launch.pipe_stdout {
        command.stdout(Stdio::piped());
    }
    for (name, value) in launch.environment {
        command.env(name, value);
    }
    let channel = launch.channel.as_raw_fd();
    let master = getpid();
    let before_exec = move || {
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != master {
            // The master died before the request above: its death will not be told any more.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // SAFETY: fcntl on a descriptor that the forked child holds; clearing its flags frees nothing.
        if unsafe { libc::fcntl(channel, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
    command.spawn()
}

/// Sends a signal to the process group that [`launch`] made. A group that is gone already is no error.
pub fn signal_group(leader: u32, signal: Signal) {
    // 0 would be our own group.
    if let Ok(leader @ 1..) = i32::try_from(leader) {
        killpg(Pid::from_raw(leader), signal).ok();
    }
}
