//! The signals by which programs learn that they are to finish, and for how long they are put off.

use std::collections::BTreeMap;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::queues::KernelQueues;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::process::crew::Processes;

/// Signals to finish that are put off. A worker that takes no connections from us, and whose slot was removed, gets its
/// signal once it has accepted the connections queued there, which no other worker could; or when its time is over.
#[derive(Debug, Default)]
pub(super) struct FinishSignals {
    deferred: BTreeMap<WorkerId, Instant>,
}

/// What the signals depend on.
pub(super) struct FinishContext<'a> {
    pub(super) service: &'a mut Service,
    pub(super) crew: &'a mut Processes,
    pub(super) queues: &'a KernelQueues,
}

impl FinishContext<'_> {
    fn has_last_clients(&self, worker: WorkerId) -> bool {
        self.queues.has_last_clients(worker, self.service)
    }

    /// The signal by which the worker's program learns that it is to finish, if it does by one.
    fn signal_of(&self, worker: WorkerId) -> Option<Signal> {
        let (choice, interrupted) = (self.service.drain_signal, self.service.pool.is_interrupted());
        self.service.dispatch.link(worker)?.drain_signal(choice, interrupted)
    }

    fn send(&mut self, worker: WorkerId, signal: Signal) {
        self.service.pool.note_signal(worker, signal == Signal::SIGTERM);
        self.crew.signal_program(worker, signal);
    }
}

impl FinishSignals {
    /// Sends a worker SIGTERM, or puts it off until then at most; at the next attempt it is sent.
    pub(super) fn terminate(&mut self, worker: WorkerId, world: FinishContext<'_>, until: Instant) {
        let was_put_off = self.deferred.remove(&worker).is_some();
        if !was_put_off && world.has_last_clients(worker) {
            self.deferred.insert(worker, until);
        } else {
            world.crew.signal(worker, Signal::SIGTERM);
        }
    }

    /// Sends a worker the signal by which its program learns that it is to finish, once; or puts it off until then at
    /// most. Returns whether its program learns of it by a signal.
    pub(super) fn finish(&mut self, worker: WorkerId, mut world: FinishContext<'_>, until: Instant) -> bool {
        let Some(signal) = world.signal_of(worker) else { return false };
        if world.service.pool.was_signalled(worker) {
            return true;
        }
        if world.has_last_clients(worker) {
            self.deferred.insert(worker, until);
        } else {
            tracing::debug!(worker = worker.0, "{signal}: the program is to finish");
            world.send(worker, signal);
        }
        true
    }

    /// Sends the signals that need to wait no longer.
    pub(super) fn send_deferred(&mut self, mut world: FinishContext<'_>, now: Instant) {
        for (worker, until) in std::mem::take(&mut self.deferred) {
            if now < until && world.has_last_clients(worker) {
                self.deferred.insert(worker, until);
            } else {
                let signal = world.signal_of(worker).unwrap_or(Signal::SIGTERM);
                world.send(worker, signal);
            }
        }
    }
}
