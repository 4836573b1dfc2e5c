//! Starting a worker.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Supervisor;
use crate::dispatch::link::Link;
use crate::dispatch::service::Service;
use crate::handover::haft::MasterEnd;
use crate::ids::WorkerId;
use crate::master::MasterError;
use crate::master::error::Context;
use crate::master::plan::{ChannelKind, Plan};
use crate::master::preload::ensure_for;
use crate::master::queues::KernelQueues;
use crate::master::stopping::Phase;
use crate::node::preload::Preload;
use crate::process::program::Dialect;
use crate::process::program::channel::NodeChannel;
use crate::rooms::RoomsRelay;
use crate::route::Slot;
use crate::sys::notify::NotifySocket;
use crate::sys::page::Page;
use crate::sys::process::{Inherited, Passed};
use crate::sys::scm;
use haft_worker::protocol::scoreboard::PAGE;

/// A scoreboard page for a worker of this plan. Without one the worker has no figures.
fn scoreboard_page(plan: &Plan) -> Option<Page> {
    if plan.passes_listeners() {
        return None;
    }
    Page::new(PAGE).inspect_err(|error| tracing::debug!(%error, "a worker has no page of the scoreboard")).ok()
}

/// A worker's link to the others. Without one it is alone.
fn link_to_others(rooms: &mut RoomsRelay, slot: Slot) -> Option<OwnedFd> {
    rooms.offer().inspect_err(|error| tracing::error!(%slot, "a worker's broadcasts stay within it: {error}")).ok()
}

impl Supervisor {
    /// Starts a worker. What keeps it from starting ends the master as long as no worker was ever ready: it is likely
    /// the operator's typing error. Later it may pass (an upgrade under way, no memory, no descriptor), and counts as a
    /// death.
    pub(in crate::master) fn start(
        &mut self,
        slot: Slot,
        (worker, generation): (WorkerId, u32),
        service: &mut Service,
        (queues, phase): (&KernelQueues, Phase),
    ) -> Result<(), MasterError> {
        match self.try_start(slot, (worker, generation), service, queues) {
            Ok(()) => Ok(()),
            Err(error) if phase != Phase::Starting => {
                tracing::error!(%slot, "{error}");
                service.exited(worker, Instant::now());
                Ok(())
            }
            Err(error) => {
                self.crew.kill_all();
                Err(error)
            }
        }
    }

    fn try_start(
        &mut self,
        slot: Slot,
        (worker, generation): (WorkerId, u32),
        service: &mut Service,
        queues: &KernelQueues,
    ) -> Result<(), MasterError> {
        if self.crew.keep_guarded() {
            queues.guard(&mut self.crew.guardian);
        }
        let Self { crew, plans, preload, rooms, .. } = self;
        // A plan is kept as long as a worker may be started by it.
        let plan =
            plans.get(&generation).ok_or(std::io::ErrorKind::NotFound.into()).context("finding what to start")?;
        let number = (worker, generation, service.pool.wanted());
        if plan.preload {
            ensure_for(plan, preload)?;
        }
        let preload = preload.as_ref().filter(|preload| plan.preload && preload.can_be_passed());
        let page = scoreboard_page(plan);
        let start = |reach| plan.start(slot, number, (reach, page.as_ref()), preload);
        let own = queues.own_listeners(slot);
        let (mut link, pid) = match (plan.dialect(), &service.dispatch.node) {
            (Dialect::ListenFds, _) => {
                let socket = NotifySocket::new().context("making a worker's notify socket")?;
                let passed: Vec<Passed<'_>> = plan.passed(&own);
                let start = start(ChannelKind::Notify(socket.name()));
                let order = start.order(plan.descriptors, Inherited::Listeners(&passed), false);
                let pid = crew.start(worker, slot, &order)?;
                (Link::listen_fds(worker, slot, socket, plan.waits_for_ready(), Instant::now()), pid)
            }
            (_, Some(primary)) => {
                let (end, channel) = scm::stream_pair().context("making a worker's channel")?;
                let channel = match plan.is_wrapped() {
                    true => NodeChannel::offered(channel).context("moving a worker's channel to a high number")?,
                    false => NodeChannel::direct(channel),
                };
                let start = start(ChannelKind::Node(&channel));
                // The preload keeps its connections, and ends it in time.
                let pages = page.iter().chain(preload.and_then(Preload::page)).map(AsFd::as_fd);
                let inherited: Vec<_> = channel.inherited().into_iter().chain(pages).collect();
                let order = start.order(plan.descriptors, Inherited::Same(&inherited), preload.is_some());
                let pid = crew.start(worker, slot, &order)?;
                (Link::node(worker, slot, end, primary), pid)
            }
            (_, None) => {
                let (end, channel) = MasterEnd::pair().context("making a worker's channel")?;
                // It is closed here once the worker has it, so that the worker's end is the link's.
                let link_to_others = rooms.as_mut().and_then(|rooms| link_to_others(rooms, slot));
                let link_to_others = link_to_others.as_ref().map(AsFd::as_fd);
                let start = start(ChannelKind::Channel(channel.as_fd(), &own, link_to_others));
                let mut inherited = [&[channel.as_fd()], &own[..]].concat();
                inherited.extend(page.as_ref().map(AsFd::as_fd).into_iter().chain(link_to_others));
                let order = start.order(plan.descriptors, Inherited::Same(&inherited), false);
                let pid = crew.start(worker, slot, &order)?;
                (Link::haft(worker, slot, end), pid)
            }
        };
        crew.keep_page(worker, page);
        tracing::debug!(%slot, worker = worker.0, pid, generation, "started a worker");
        link.generation = generation;
        link.set_pid(pid);
        service.dispatch.attach(link);
        Ok(())
    }
}
