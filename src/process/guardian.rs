//! The guardian: a small process beside the master that outlives it, however the master dies, and ends the workers that
//! do not end by themselves then.
//!
//! The kernel's own way (PR_SET_PDEATHSIG) is no certain one: a program that changes its user loses it, what a shell
//! has started never had it, and a program that stands still does not heed it. Such an orphan would keep its listeners,
//! and the next master could not bind.
//!
//! The guardian is started before any worker, with the master's rights, and detached, so it is no worker and is
//! not waited for. It learns of each worker from the worker's own process, before that becomes the program: no
//! worker is unknown to it. When the master dies (its end of the socket closes), then
//!
//! 1. workers that take listeners over get SIGTERM at once; those of a dialect end by themselves;
//! 2. it lets go of the listeners that workers have taken over as soon as no worker holds them; after
//!    [`LISTENER_GRACE`] it shuts them, which frees the ports no matter which process still holds them;
//! 3. at the end of the drain time SIGTERM goes to those that are left, and two seconds later SIGKILL.
//!
//! It holds copies of those listeners as long as the master holds its own, and no longer.

mod holders;
mod process;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::process::{is_wanted, main};
use crate::sys::process::Registration;
use crate::sys::{detached, scm};

/// Where the guardian finds its end of the socket, by number.
const VARIABLE: &str = "HAFT_GUARDIAN";
/// How long workers have to close their listeners before these are shut. What waits in them they can still accept, and
/// a program whose listener is shut under it may fail of that, with the connections that it has.
pub const LISTENER_GRACE: Duration = Duration::from_secs(1);
/// How long workers have between SIGTERM and SIGKILL, when the drain time is over.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long the master waits for the guardian's end.
const END_GRACE: Duration = Duration::from_secs(1);

/// First byte of a message: a worker is about to become its program. A byte that is not 0 if it gets a signal, then
/// its process id (4 bytes, little-endian).
const WORKER: u8 = b'W';
/// The drain time in milliseconds (8 bytes, little-endian).
const DRAIN_TIME: u8 = b'T';
/// Listeners, as descriptors.
const LISTENERS: u8 = b'L';
/// Forget all listeners so far.
const NO_LISTENERS: u8 = b'X';
/// All is over, and the guardian has nothing left to do.
const DONE: u8 = b'D';

/// Most listeners in one message (SCM_MAX_FD).
const MAX_AT_ONCE: usize = 253;

/// The master's side.
#[derive(Debug)]
pub struct Guardian {
    socket: OwnedFd,
    drain_time: Duration,
    /// It is gone, or has not got what it was to get.
    failed: bool,
}

impl Guardian {
    /// Starts the guardian process.
    pub fn start(drain_time: Duration) -> io::Result<Self> {
        // What it knows of workers is there.
        std::fs::metadata("/proc/self/stat")?;
        let (socket, its_own) = scm::seqpacket_pair()?;
        // What `ps` shows.
        let name = format!("haft: guardian of {}", std::process::id());
        detached::start(&name, VARIABLE, its_own.as_fd())?;
        let mut guardian = Self { socket, drain_time, failed: false };
        guardian.set_drain_time(drain_time);
        Ok(guardian)
    }

    /// A worker process's registration. `by_signal`: only a signal makes its program end.
    pub fn registration(&self, by_signal: bool) -> Registration<'_> {
        Registration { socket: self.socket.as_fd(), head: [WORKER, by_signal.into()] }
    }

    /// Orphans may take so long to finish.
    pub fn set_drain_time(&mut self, drain_time: Duration) {
        self.drain_time = drain_time;
        let millis = u64::try_from(drain_time.as_millis()).unwrap_or(u64::MAX);
        self.send(&[&[DRAIN_TIME], &millis.to_le_bytes()[..]].concat(), &[]);
    }

    /// Whether it has to be replaced: it was killed or stopped.
    pub fn is_gone(&self) -> bool {
        // Nothing ever comes from it but its end.
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        self.failed || poll(&mut polled, PollTimeout::ZERO) == Ok(1)
    }

    /// Another one, that knows of these workers: process ids, and whether nothing but a signal makes them end. It is
    /// yet to be given the listeners.
    pub fn replace(&mut self, workers: impl Iterator<Item = (u32, bool)>) -> io::Result<()> {
        *self = Self::start(self.drain_time)?;
        for (pid, by_signal) in workers {
            self.send(&[&[WORKER, by_signal.into()], &pid.to_le_bytes()[..]].concat(), &[]);
        }
        Ok(())
    }

    /// Workers have copies of these listeners.
    pub fn add_listeners(&mut self, listeners: &[BorrowedFd<'_>]) {
        listeners.chunks(MAX_AT_ONCE).for_each(|some| self.send(&[LISTENERS], some));
    }

    /// The listeners are being closed.
    pub fn forget_listeners(&mut self) {
        self.send(&[NO_LISTENERS], &[]);
    }

    /// No worker is left: the guardian ends, and is waited for, though not for long.
    pub fn end(mut self) {
        self.send(&[DONE], &[]);
        let until = Instant::now() + END_GRACE;
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Nothing ever comes from it but its end.
        let rest = || u16::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u16::MAX);
        while !self.failed && matches!(poll(&mut polled, rest()), Err(nix::errno::Errno::EINTR)) {}
    }

    fn send(&mut self, bytes: &[u8], listeners: &[BorrowedFd<'_>]) {
        if self.failed {
            return;
        }
        let why = match scm::send(self.socket.as_fd(), bytes, listeners.iter().copied()) {
            Ok(scm::Sent::Bytes(_)) => return,
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        self.failed = true;
        tracing::warn!(
            "haft's guardian process is gone or stands still ({why}); another is started with the next worker"
        );
    }
}
