//! Taking clients out of queues that no worker serves, where the kernel assigns them.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::arrivals::connection;
use super::error::Context;
use super::{Master, MasterError};
use crate::config::Config;
use crate::dispatch::link::Link;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::listen::accept::{self, NO_DESCRIPTOR};
use crate::listen::kernel::{Kernel, LOOK, MemberId};
use crate::sys::accept::waiting as queued;
use crate::sys::closing;
use crate::sys::poller::Poller;

impl Master {
    /// Whether queues are to be looked at from time to time.
    pub(super) fn looks_at_queues(&self) -> bool {
        self.kernel.is_some()
    }

    /// Applies a new steering to the kernel. Queues that it bypasses now are checked at once.
    pub(super) fn steer(&mut self) {
        let dispatch = &mut self.service.dispatch;
        if let Some(kernel) = &mut self.kernel
            && dispatch.take_steers_anew()
        {
            self.look_soon |= kernel.steer(dispatch.steering(), |number| dispatch.steering_at(number));
        }
    }

    /// Looks at the queues, and does what follows from it.
    pub(super) fn look_at_queues(&mut self, now: Instant) -> Result<(), MasterError> {
        let may_accept = !self.over_budget && !self.doors.is_paused();
        self.look_soon = false;
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let primary = &mut self.service.dispatch.node;
        let regroup = |before: &_, after: &_| primary.iter_mut().for_each(|primary| primary.regroup(before, after));
        let lost = kernel.inspect(&self.poller, now, regroup);
        lost.into_iter().for_each(|slot| self.service.lost_listener(slot, now));
        for worker in look(kernel, &self.service, &self.changes.config, (may_accept, &self.poller), now) {
            self.service.ping(worker, now);
        }
        self.report_late(now);
        self.service.send(now);
        self.perform()
    }

    /// Sends a worker the signal to finish. A worker that takes no connections from us, and whose slot was removed,
    /// gets SIGTERM once it has accepted the connections queued there, which no other worker could; or at the next
    /// attempt, when its time to finish is over.
    pub(super) fn terminate(&mut self, worker: WorkerId, now: Instant) {
        let was_put_off = self.supervisor.deferred_terms.remove(&worker).is_some();
        if !was_put_off && self.has_last_clients(worker) {
            self.supervisor.deferred_terms.insert(worker, now + self.changes.config.hold_timeout);
        } else {
            self.supervisor.crew.signal(worker, Signal::SIGTERM);
        }
    }

    /// Sends a worker the signal by which its program learns that it is to finish, once. As [`Master::terminate`], it
    /// is put
    /// off where no other worker could accept the queued connections.
    pub(super) fn signal_to_finish(&mut self, worker: WorkerId, now: Instant) {
        let (choice, interrupted) = (self.service.drain_signal, self.service.pool.is_interrupted());
        let link = self.service.dispatch.link(worker);
        let Some(signal) = link.and_then(|link| link.drain_signal(choice, interrupted)) else { return };
        if self.service.pool.was_signalled(worker) {
            return;
        }
        if self.has_last_clients(worker) {
            self.supervisor.deferred_terms.insert(worker, now + self.changes.config.hold_timeout);
            return;
        }
        tracing::debug!(worker = worker.0, "{signal}: the program is to finish");
        self.service.pool.note_signal(worker, signal == Signal::SIGTERM);
        self.supervisor.crew.signal_program(worker, signal);
    }

    fn has_last_clients(&self, worker: WorkerId) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let is_last = |link: &&Link| {
            link.worker == worker && !link.takes_connections() && link.slot.index() >= self.service.pool.wanted()
        };
        self.service.dispatch.links().find(is_last).is_some_and(|link| kernel.waiting(link.slot) > 0)
    }

    /// Sends the postponed signals to finish.
    fn report_late(&mut self, now: Instant) {
        let later = std::mem::take(&mut self.supervisor.deferred_terms);
        for (worker, until) in later {
            if now < until && self.has_last_clients(worker) {
                self.supervisor.deferred_terms.insert(worker, until);
                continue;
            }
            let (choice, interrupted) = (self.service.drain_signal, self.service.pool.is_interrupted());
            let link = self.service.dispatch.link(worker);
            let signal = link.and_then(|link| link.drain_signal(choice, interrupted)).unwrap_or(Signal::SIGTERM);
            self.service.pool.note_signal(worker, signal == Signal::SIGTERM);
            self.supervisor.crew.signal(worker, signal);
        }
    }

    /// Takes some connections from a queue that no worker serves, for other slots.
    pub(super) fn rescue(&mut self, token: u64) -> Result<(), MasterError> {
        let now = Instant::now();
        let Some((place, kernel)) = MemberId::of_token(token).zip(self.kernel.as_mut()) else { return Ok(()) };
        let Some(listener) = kernel.open_listener(place) else { return Ok(()) };
        let dispatch = &self.service.dispatch;
        let most = self.budget.room(dispatch.ledger.outstanding() + closing::waiting() as u64);
        let is_served =
            self.service.served_by(place.number, place.slot).is_some() && !kernel.is_left_to_master(place.number);
        if is_served || most == 0 || !self.service.can_empty(place.slot, place.number) {
            kernel.shut(place, &self.poller);
            return Ok(());
        }
        let service = &mut self.service;
        let turn = accept::take(listener, place.number, most, |arrival| {
            service.rescue(connection(&service.dispatch, arrival, now), place.slot);
        });
        let turn = turn.context("accepting connections")?;
        if let Some(error) = &turn.exhausted {
            tracing::warn!(%error, "{NO_DESCRIPTOR}");
            // They wait where they are; the next look tries again.
            kernel.shut(place, &self.poller);
        }
        self.count(&turn);
        Ok(())
    }

    /// The master stops: it admits no new connection, and hands queued ones to the workers of their own slots. Workers
    /// that take no connections from us have to accept them, and get no signal to finish before they have.
    pub(super) fn close_queues(&mut self) -> Result<(), MasterError> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        kernel.stop_accepting().context("closing the accept queues")?;
        if self.service.dispatch.links().any(|link| link.takes_connections()) {
            self.empty_queues(&kernel)?;
        }
        self.kernel = Some(kernel);
        Ok(())
    }

    /// Whether no connection is queued for a worker to accept.
    pub(super) fn queues_are_empty(&self) -> bool {
        let mut waiting = self.kernel.iter().flat_map(Kernel::places).map(|(_, it)| queued(it.as_fd()));
        waiting.all(|waiting| waiting.unwrap_or(0) == 0)
    }

    /// From now on the listeners are the workers' alone, and are closed when they close them.
    pub(super) fn release_groups(&mut self) {
        if let Some(mut kernel) = self.kernel.take() {
            self.keepers = kernel.close(&self.poller);
        }
        self.guard_listeners();
        self.report_late(Instant::now());
        if let Some(primary) = &mut self.service.dispatch.node {
            primary.forget_groups();
        }
    }

    /// The listeners that workers have are those of the groups, no others: they are to be shut if this process dies.
    pub(super) fn guard_listeners(&mut self) {
        if let Some(guardian) = &mut self.supervisor.crew.guardian {
            let listeners = self.kernel.iter().flat_map(Kernel::places).map(|(_, listener)| listener.as_fd());
            guardian.forget_listeners();
            guardian.add_listeners(&listeners.collect::<Vec<_>>());
        }
    }

    fn empty_queues(&mut self, kernel: &Kernel) -> Result<(), MasterError> {
        let may_accept = !self.over_budget && !self.doors.is_paused();
        for (place, listener) in kernel.places().filter(|_| may_accept) {
            loop {
                let now = Instant::now();
                let service = &mut self.service;
                let turn = accept::take(listener, place.number, usize::MAX, |arrival| {
                    service.admit_to(connection(&service.dispatch, arrival, now), place.slot);
                });
                let turn = turn.context("accepting connections")?;
                let is_last = turn.taken == 0 && turn.aborted == 0;
                self.count(&turn);
                self.service.send(now);
                if is_last || turn.exhausted.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// When the queues are to be looked at.
pub(super) fn looks() -> tokio::time::Interval {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks
}

/// Looks at all queues: what a worker serves is left to it, and what no worker serves is accepted from here, if there
/// are descriptors for it (`may_accept`). Yields the workers that are to say something.
fn look(
    kernel: &mut Kernel,
    service: &Service,
    config: &Config,
    (may_accept, poller): (bool, &Poller),
    now: Instant,
) -> Vec<WorkerId> {
    let mut asked = Vec::new();
    let left_to_master: Vec<u32> = kernel.left_to_master().collect();
    for (place, queue, listener, is_steered_to) in kernel.queues() {
        let length = queued(listener.as_fd()).unwrap_or(0);
        queue.note(length, now);
        let worker = service.served_by(place.number, place.slot).filter(|_| !left_to_master.contains(&place.number));
        let Some(worker) = worker else {
            let since = *queue.unserved_since.get_or_insert(now);
            let is_late = now.saturating_duration_since(since) >= config.hold_timeout;
            // Where we steer past it, only what came before waits there; else more may come.
            let is_due = match is_steered_to {
                false => length > 0,
                true => is_late && (length > 0 || queue.open),
            };
            let rescue = may_accept && is_due && service.can_empty(place.slot, place.number);
            queue.set_open(rescue, listener, place, poller);
            continue;
        };
        queue.unserved_since = None;
        queue.set_open(false, listener, place, poller);
        if length > 0 && config.hang_timeout.is_some() {
            asked.push(worker);
            let link = service.dispatch.links().find(|link| link.worker == worker && !link.is_awaited());
            if let Some((link, waiting)) = link.and_then(|link| Some((link, queue.is_stuck(config.hang_timeout, now)?)))
            {
                report_stuck(link, waiting);
            }
        }
    }
    asked
}

/// A worker, which answers if it can be asked, takes nothing: its program may not know that it is to accept by itself.
fn report_stuck(link: &Link, waiting: usize) {
    let why = match link.takes_connections() {
        true => "it answers and takes none: does its program accept from HAFT_LISTEN_FDS, as --dispatch kernel needs?",
        false => {
            "it takes none. If it has taken others before, it is busy, or stopped; else: does its program take \
             descriptor 3 over (LISTEN_FDS), or does it listen elsewhere? It may need a setting for that (Puma: \
             --bind-to-activated-sockets only), to be given the very address of --listen, or to be started by a shell \
             with exec"
        }
    };
    tracing::warn!(
        slot = %link.slot, worker = link.worker.0, waiting, "clients wait at the worker's own listener; {why}"
    );
}
