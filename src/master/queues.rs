//! Taking clients out of queues that no worker serves, where the kernel assigns them.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use super::MasterError;
use super::error::Context;
use super::intake::{Intake, connection, count};
use crate::addr::ListenAddr;
use crate::config::Config;
use crate::dispatch::link::Link;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::listen::accept::{self, NO_DESCRIPTOR};
use crate::listen::kernel::{Kernel, LOOK, MemberId};
use crate::listen::listeners::Listeners;
use crate::node::primary::Opened;
use crate::process::guardian::Guardian;
use crate::route::{Slot, Steering};
use crate::sys::accept::waiting as queued;
use crate::sys::listen::Listener;
use crate::sys::poller::Poller;

/// The kernel's queues with `--dispatch kernel`; otherwise empty.
#[derive(Default)]
pub(super) struct KernelQueues {
    /// Until the master stops.
    kernel: Option<Kernel>,
    /// From then on, what keeps its port shut until all have left.
    keepers: Vec<Rc<Listener>>,
    /// They are to be looked at without waiting for their time.
    look_soon: bool,
}

impl KernelQueues {
    pub(super) fn new(kernel: Option<Kernel>) -> Self {
        Self { kernel, ..Self::default() }
    }

    /// The kernel's groups, until the master stops.
    pub(super) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// The slot's own listeners, for its worker.
    pub(super) fn own_listeners(&self, slot: Slot) -> Vec<BorrowedFd<'_>> {
        self.kernel.iter().flat_map(|kernel| kernel.own_listeners(slot)).collect()
    }

    /// Whether they are to be looked at without waiting for their time.
    pub(super) fn look_soon(&self) -> bool {
        self.look_soon
    }

    /// Applies a new steering to the kernel. Queues that it bypasses now are checked at once.
    pub(super) fn steer(&mut self, service: &mut Service) {
        let dispatch = &mut service.dispatch;
        if let Some(kernel) = &mut self.kernel
            && dispatch.take_steers_anew()
        {
            self.look_soon |= kernel.steer(dispatch.steering(), |number| dispatch.steering_at(number));
        }
    }

    /// Looks at the queues. Connections are taken out of them only if there are descriptors for them (`may_accept`).
    pub(super) fn look(
        &mut self,
        service: &mut Service,
        config: &Config,
        (may_accept, poller): (bool, &Poller),
        now: Instant,
    ) {
        self.look_soon = false;
        let Some(kernel) = &mut self.kernel else { return };
        let primary = &mut service.dispatch.node;
        let regroup = |before: &_, after: &_| primary.iter_mut().for_each(|primary| primary.regroup(before, after));
        let lost = kernel.inspect(poller, now, regroup);
        lost.into_iter().for_each(|slot| service.lost_listener(slot, now));
        for worker in look(kernel, service, config, (may_accept, poller), now) {
            service.ping(worker, now);
        }
    }

    /// Whether connections are queued for a worker that takes none from us and whose slot was removed: no other worker
    /// could accept them.
    pub(super) fn has_last_clients(&self, worker: WorkerId, service: &Service) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let is_last = |link: &&Link| {
            link.worker == worker && !link.takes_connections() && link.slot.index() >= service.pool.wanted()
        };
        service.dispatch.links().find(is_last).is_some_and(|link| kernel.waiting(link.slot) > 0)
    }

    /// Takes some connections from a queue that no worker serves, for other slots.
    pub(super) fn rescue(
        &mut self,
        token: u64,
        service: &mut Service,
        (intake, poller): (&Intake, &Poller),
    ) -> Result<(), MasterError> {
        let now = Instant::now();
        let Some((place, kernel)) = MemberId::of_token(token).zip(self.kernel.as_mut()) else { return Ok(()) };
        let Some(listener) = kernel.open_listener(place) else { return Ok(()) };
        let most = intake.room(service);
        let is_served =
            service.served_by(place.number, place.slot).is_some() && !kernel.is_left_to_master(place.number);
        if is_served || most == 0 || !service.can_empty(place.slot, place.number) {
            kernel.shut(place, poller);
            return Ok(());
        }
        let turn = accept::take(listener, place.number, most, |arrival| {
            service.rescue(connection(&service.dispatch, arrival, now), place.slot);
        });
        let turn = turn.context("accepting connections")?;
        if let Some(error) = &turn.exhausted {
            tracing::warn!(%error, "{NO_DESCRIPTOR}");
            // They wait where they are; the next look tries again.
            kernel.shut(place, poller);
        }
        count(service, &turn);
        Ok(())
    }

    /// Where the kernel assigns, new slots need listeners. Yields how many were opened.
    pub(super) fn grow(&mut self, config: &Config, service: &mut Service) -> Result<usize, String> {
        let Some(kernel) = &mut self.kernel else { return Ok(0) };
        let steering = Steering::new(config.workers, config.prefix).map_err(|error| error.to_string())?;
        let primary = &mut service.dispatch.node;
        let regroup = |before: &_, after: &_| primary.iter_mut().for_each(|primary| primary.regroup(before, after));
        kernel.grow(&steering, regroup).map_err(|error| error.to_string())
    }

    /// Opens and closes the listeners that programs have asked for: the kernel's groups and those where the master
    /// accepts. `opened` is called with each address where clients may connect. Yields whether groups have changed.
    pub(super) fn refresh(
        &mut self,
        service: &mut Service,
        (doors, poller): (&mut Listeners, &Poller),
        mut opened: impl FnMut(&ListenAddr),
    ) -> Result<bool, MasterError> {
        let Some(primary) = &mut service.dispatch.node else { return Ok(false) };
        let mut groups_changed = false;
        for fresh in primary.take_fresh() {
            if !matches!(fresh, Opened::TakenBack(..)) {
                opened(fresh.addr());
            }
            match fresh {
                Opened::Accepting(number, listener) => {
                    doors.add(number, listener, poller).context("waiting for connections")?;
                }
                Opened::TakenBack(number, listener, group) => {
                    // Before the master accepts there: the kernel must have no other place for them.
                    self.kernel.iter_mut().for_each(|kernel| kernel.leave_to_master(&group));
                    doors.add(number, listener, poller).context("waiting for connections")?;
                    self.look_soon = true;
                }
                Opened::Group(number, group) => {
                    self.kernel.iter_mut().for_each(|kernel| kernel.add(number, group.clone()));
                    groups_changed = true;
                }
            }
        }
        for number in primary.take_closing() {
            self.kernel.iter_mut().for_each(|kernel| kernel.remove(number, poller));
            doors.remove(number, poller).context("closing a listener")?;
            groups_changed |= self.kernel.is_some();
        }
        Ok(groups_changed)
    }

    /// The master stops: it admits no new connection, and hands queued ones to the workers of their own slots. Workers
    /// that take no connections from us have to accept them, and get no signal to finish before they have.
    pub(super) fn close(&mut self, service: &mut Service, may_accept: bool) -> Result<(), MasterError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        kernel.stop_accepting().context("closing the accept queues")?;
        if may_accept && service.dispatch.links().any(|link| link.takes_connections()) {
            empty(kernel, service)?;
        }
        Ok(())
    }

    /// Whether no connection is queued for a worker to accept.
    pub(super) fn are_empty(&self) -> bool {
        let mut waiting = self.kernel.iter().flat_map(Kernel::places).map(|(_, it)| queued(it.as_fd()));
        waiting.all(|waiting| waiting.unwrap_or(0) == 0)
    }

    /// From now on the listeners are the workers' alone, and are closed when they close them.
    pub(super) fn release(&mut self, service: &mut Service, poller: &Poller) {
        if let Some(mut kernel) = self.kernel.take() {
            self.keepers = kernel.close(poller);
        }
        if let Some(primary) = &mut service.dispatch.node {
            primary.forget_groups();
        }
    }

    /// The listeners that workers have are those of the groups, no others: they are to be shut if this process dies.
    pub(super) fn guard(&self, guardian: &mut Option<Guardian>) {
        if let Some(guardian) = guardian {
            let listeners = self.kernel.iter().flat_map(Kernel::places).map(|(_, listener)| listener.as_fd());
            guardian.forget_listeners();
            guardian.add_listeners(&listeners.collect::<Vec<_>>());
        }
    }
}

fn empty(kernel: &Kernel, service: &mut Service) -> Result<(), MasterError> {
    for (place, listener) in kernel.places() {
        loop {
            let now = Instant::now();
            let turn = accept::take(listener, place.number, usize::MAX, |arrival| {
                service.admit_to(connection(&service.dispatch, arrival, now), place.slot);
            });
            let turn = turn.context("accepting connections")?;
            count(service, &turn);
            service.send(now);
            if (turn.taken == 0 && turn.aborted == 0) || turn.exhausted.is_some() {
                break;
            }
        }
    }
    Ok(())
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
