//! Signals to workers.

use nix::sys::signal::Signal;

use super::Processes;
use crate::ids::WorkerId;
use crate::sys::process::signal_group;
use crate::sys::signals::signal_of_group;

impl Processes {
    /// Sends a signal to a worker and to what it has started.
    pub fn signal(&mut self, worker: WorkerId, signal: Signal) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.asked |= signal == Signal::SIGTERM;
            signal_group(member.pid, signal);
        }
    }

    /// Sends a signal to the process that serves, whose program handles it: what started it may pass on what it gets, and a
    /// program that gets the signal twice ends at the second. The worker and all that it has started get it where no such
    /// process is known.
    pub fn signal_program(&mut self, worker: WorkerId, signal: Signal) {
        let serving = self.members.get(&worker).map(|member| (member.sight.pid, member.pid));
        match serving {
            Some((serving, leader)) if serving != leader && signal_of_group(serving, leader, signal) => {}
            _ => self.signal(worker, signal),
        }
    }

    /// Kills all processes.
    pub fn kill_all(&mut self) {
        self.members.values().for_each(|member| signal_group(member.pid, Signal::SIGKILL));
        self.speaker = None;
        self.show_pending();
    }
}
