//! The guardian's own process: what it does until the master's end, and then.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::holders::Inodes;
use super::{DONE, DRAIN_TIME, KILL_GRACE, LISTENER_GRACE, LISTENERS, NO_LISTENERS, VARIABLE, WORKER};
use crate::confine;
use crate::sys::scm::{self, Received};
use crate::sys::{inherit, signals};

/// How often orphans are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often as long as ports are to be freed.
const LOOK_SOON: Duration = Duration::from_millis(5);
/// Dead workers are forgotten when so many are known, and again when twice as many are left.
const SWEEP_FROM: usize = 64;

/// Whether this process was started to be the guardian.
pub fn is_wanted() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Is the guardian, from start to end.
pub fn main() -> ExitCode {
    // Signals that are meant for haft may come to its whole group or unit.
    signals::ignore_all();
    let number = env::var(VARIABLE).unwrap_or_default();
    let Ok(socket) = inherit::take_seqpacket(&number) else { return ExitCode::FAILURE };
    // It runs as the master does, with root's rights perhaps. Where the kernel has no seccomp it does without.
    confine::onlooker().ok();
    let mut guarded = Guarded::default();
    if guarded.watch(&socket) {
        guarded.end_orphans();
    }
    ExitCode::SUCCESS
}

/// What there is to end.
#[derive(Debug, Default)]
struct Guarded {
    /// By process id, which is also the group's.
    workers: BTreeMap<i32, GuardedWorker>,
    sweep_at: usize,
    listeners: Vec<OwnedFd>,
    drain_time: Duration,
}

#[derive(Debug)]
struct GuardedWorker {
    /// Its start time, which distinguishes it from a later process with the same id.
    started: u64,
    by_signal: bool,
}

impl Guarded {
    /// Receives messages until the master announces the end (`false`), or has died.
    fn watch(&mut self, socket: &OwnedFd) -> bool {
        let (mut buffer, mut descriptors) = ([0; 64], Vec::new());
        loop {
            match scm::receive(socket.as_fd(), &mut buffer, &mut descriptors) {
                Ok(Received::Empty) => {
                    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                    if matches!(poll(&mut polled, PollTimeout::NONE), Err(error) if error != Errno::EINTR) {
                        return true;
                    }
                }
                Ok(Received::Message { len: 0, .. }) | Err(_) => return true,
                Ok(Received::Message { len, .. }) => {
                    if self.take_in(&buffer[..len], std::mem::take(&mut descriptors)) {
                        return false;
                    }
                }
            }
        }
    }

    /// Returns whether the master has announced the end.
    fn take_in(&mut self, message: &[u8], descriptors: Vec<OwnedFd>) -> bool {
        match message {
            [WORKER, by_signal, pid @ ..] => {
                let pid = pid.try_into().map_or(0, i32::from_le_bytes);
                if let Some(started) = started(pid).filter(|_| pid > 1) {
                    self.workers.insert(pid, GuardedWorker { started, by_signal: *by_signal != 0 });
                }
                if self.workers.len() >= self.sweep_at.max(SWEEP_FROM) {
                    self.workers.retain(|pid, worker| worker.runs(*pid));
                    self.sweep_at = self.workers.len() * 2;
                }
            }
            [DRAIN_TIME, millis @ ..] => {
                self.drain_time = Duration::from_millis(millis.try_into().map_or(0, u64::from_le_bytes));
            }
            [LISTENERS] => self.listeners.extend(descriptors),
            [NO_LISTENERS] => self.listeners.clear(),
            [DONE] => return true,
            _ => {}
        }
        false
    }

    /// The master has died.
    fn end_orphans(mut self) {
        let died = Instant::now();
        let drain_over = died + self.drain_time.min(Duration::from_secs(10 * 365 * 24 * 3600));
        self.workers.retain(|pid, worker| worker.runs(*pid));
        for (pid, _) in self.workers.iter().filter(|(_, worker)| worker.by_signal) {
            send(*pid, Signal::SIGTERM);
        }
        let (mut asked, mut groups) = (false, Vec::new());
        let (inodes, mut look_at) = (Inodes::of(&self.listeners), died);
        loop {
            let now = Instant::now();
            if now >= died + LISTENER_GRACE {
                // Processes that hold another copy cannot accept from it either.
                for listener in self.listeners.drain(..) {
                    shutdown(listener.as_raw_fd(), Shutdown::Both).ok();
                }
            } else if now >= look_at && !self.listeners.is_empty() {
                if !inodes.are_held(|pid| self.workers.contains_key(&pid)) {
                    self.listeners.clear();
                }
                // To look takes the longer the more processes there are.
                look_at = now + now.elapsed() * 10;
            }
            // What a worker has started may outlive it, in its group, whose number is not used anew meanwhile.
            groups.retain(|group: &i32| killpg(Pid::from_raw(*group), None) != Err(Errno::ESRCH));
            let ended = self.workers.extract_if(.., |pid, worker| !worker.runs(*pid));
            groups.extend(ended.map(|(pid, _)| pid));
            if self.workers.is_empty() && groups.is_empty() && self.listeners.is_empty() {
                return;
            }
            if now >= drain_over && !asked {
                asked = true;
                self.workers.keys().chain(&groups).for_each(|pid| send(*pid, Signal::SIGTERM));
            }
            if now >= drain_over + KILL_GRACE {
                self.workers.keys().chain(&groups).for_each(|pid| send(*pid, Signal::SIGKILL));
                return;
            }
            std::thread::sleep(if self.listeners.is_empty() { LOOK_EVERY } else { LOOK_SOON });
        }
    }
}

impl GuardedWorker {
    fn runs(&self, pid: i32) -> bool {
        started(pid) == Some(self.started)
    }
}

/// Sends a signal to a worker and to what it has started; a worker that has left its group gets it by itself.
fn send(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid);
    if killpg(pid, signal).is_err() {
        kill(pid, signal).ok();
    }
    if signal != Signal::SIGKILL {
        // One that stands still heeds nothing else.
        killpg(pid, Signal::SIGCONT).ok();
    }
}

/// When a process was started, in ticks since the host's own start (proc_pid_stat(5)); `None` if it has ended.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: the state, and 18 fields later this.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_was_started_and_ends_as_a_zombie() {
        let own = std::process::id() as i32;
        assert!(started(own).is_some() && started(own) == started(own));
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = child.id() as i32;
        let deadline = Instant::now() + Duration::from_secs(10);
        while started(pid).is_some() {
            assert!(Instant::now() < deadline, "it has ended, and was not waited for");
            std::thread::yield_now();
        }
        child.wait().expect("its end");
    }

    #[test]
    fn odd_messages_are_nothing_and_listeners_are_let_go_of() {
        let mut guarded = Guarded::default();
        for message in
            [&b""[..], b"W", b"W\x01", b"W\x01\xff\xff\xff\xff", b"W\x01\0\0\0\0", b"W\0\x01\0\0\0", b"T", b"?x"]
        {
            assert!(!guarded.take_in(message, Vec::new()), "{message:?}");
        }
        assert!(guarded.workers.is_empty() && guarded.drain_time.is_zero());
        let own = std::process::id().to_le_bytes();
        guarded.take_in(&[&b"W\x01"[..], &own].concat(), Vec::new());
        assert!(guarded.workers[&(std::process::id() as i32)].by_signal);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        guarded.take_in(b"L", vec![listener.into()]);
        assert_eq!(guarded.listeners.len(), 1);
        guarded.take_in(b"X", Vec::new());
        assert!(guarded.listeners.is_empty());
        guarded.take_in(&[&b"T"[..], &1500u64.to_le_bytes()].concat(), Vec::new());
        assert_eq!(guarded.drain_time, Duration::from_millis(1500));
        assert!(guarded.take_in(b"D", Vec::new()));
    }
}
