//! Doing what the pool of slots decides: the joint between its decisions and the processes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Instant;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::history::History;
use super::plan::{ChannelKind, Plan};
use super::preload::ensure_for;
use super::{Context, Master, MasterError, Phase, farewell};
use crate::config::Config;
use crate::dispatch::link::Link;
use crate::dispatch::service::Effect;
use crate::handover::haft::MasterEnd;
use crate::ids::WorkerId;
use crate::node::preload::Preload;
use crate::pool::{Action, MAX_FAILED_STARTS};
use crate::process::crew::{self, Exit, Processes};
use crate::process::guardian::Guardian;
use crate::process::output::OutputStyle;
use crate::process::program::Dialect;
use crate::process::program::channel::NodeChannel;
use crate::rooms::RoomsRelay;
use crate::route::Slot;
use crate::sys::account::Account;
use crate::sys::input;
use crate::sys::notify::NotifySocket;
use crate::sys::oom::OomWatch;
use crate::sys::page::Page;
use crate::sys::process::{Inherited, Passed};
use crate::sys::scm;
use haft_worker::protocol::scoreboard::PAGE;

/// What a program did that ended without an error.
const RETURNED: &str = ". Exit code 0: the program ended by itself, where it should listen and go on. Its standard input \
                        stays open and silent below haft: it must not end because nothing comes there, or because it is \
                        no terminal";
/// The same, where standard input cannot be kept open.
const RETURNED_OF_INPUT: &str = ". Exit code 0: the program ended by itself, where it should listen and go on. Its \
                                 standard input is /dev/null, since /proc is not mounted: one that ends with its \
                                 standard input needs /proc, or must be configured not to";

/// What is needed to carry out the pool's decisions, and what became of them.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) crew: Processes,
    /// What to start, by generation.
    pub(super) plans: BTreeMap<u32, Plan>,
    /// Whether the master has nothing left to do.
    pub(super) finished: bool,
    /// Why it stops, if that is a failure.
    pub(super) gave_up: Option<MasterError>,
    /// What became of the earlier workers of each slot.
    pub(super) history: BTreeMap<Slot, History>,
    oom: OomWatch,
    /// The script that Node programs run before their own, once one was to be given it.
    pub(super) preload: Option<Preload>,
    /// How the last worker ended, and whether it had written anything.
    pub(super) last_words: (String, bool),
    /// Whether it ended by itself and without an error.
    returned: bool,
    /// Workers that get DRAIN once their queues are empty, or at this time at the latest.
    pub(super) deferred_terms: BTreeMap<WorkerId, Instant>,
    /// The relay between workers that have haft's own protocol, if they share rooms.
    pub(super) rooms: Option<RoomsRelay>,
    /// Connections that workers took with them when they ended as asked, as far as it is known.
    pub(super) cut_off: u64,
}

impl Supervisor {
    /// `descriptors`: the soft limit on them that haft was started with; `guardian`: ends workers when haft has died.
    pub(super) fn new(
        config: &Config,
        plan: Plan,
        preload: Option<Preload>,
        (descriptors, guardian, account): (u64, Option<Guardian>, Option<Account>),
    ) -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (crew, exits) = Processes::new(OutputStyle::new(config.marks_output()), descriptors, guardian, account);
        let rooms = plan.shares_rooms().then(|| RoomsRelay::new(config.rooms.redis.as_ref()));
        let supervisor = Self {
            rooms,
            crew,
            plans: BTreeMap::from([(0, plan)]),
            finished: false,
            gave_up: None,
            history: BTreeMap::new(),
            oom: OomWatch::new(),
            preload,
            last_words: Default::default(),
            returned: false,
            deferred_terms: BTreeMap::new(),
            cut_off: 0,
        };
        (supervisor, exits)
    }
}

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

impl Master {
    /// Does all that is to be done to the world, and then waits for it as it now is.
    pub(super) fn perform(&mut self) -> Result<(), MasterError> {
        loop {
            // First, so that no new connection comes to a worker that then gets DRAIN.
            self.steer();
            let Some(effect) = self.service.next_effect() else { break };
            match effect {
                Effect::Ready(worker) => self.worker_ready(worker)?,
                Effect::Act(action) => self.act(action)?,
            }
        }
        let channels = self.batching.channels.refresh(&mut self.service.dispatch, &self.poller, self.batching.busy);
        channels.context("waiting for a worker")?;
        self.refresh_doors()
    }

    fn act(&mut self, action: Action) -> Result<(), MasterError> {
        match action {
            Action::Start { slot, worker, generation } => self.start(slot, worker, generation)?,
            Action::Signal(worker) => self.signal_to_finish(worker, Instant::now()),
            Action::Terminate(worker) => self.terminate(worker, Instant::now()),
            Action::Kill(worker) => self.supervisor.crew.signal(worker, Signal::SIGKILL),
            Action::NotReadyInTime(worker) => {
                let why = self.why_not_ready(worker);
                tracing::error!(worker = worker.0, "the worker was not ready within --start-timeout: {why}");
            }
            Action::Reloaded { generation } => self.reloaded(generation),
            Action::ReloadFailed { slot, generation } => self.reload_failed(slot, generation),
            Action::RenewalFailed(slot) => {
                tracing::error!(%slot, "the slot's new worker did not become ready: the slot keeps its old one");
            }
            Action::Renewing { slot, worker, why, age } => self.renewing(slot, worker, why, age),
            Action::TooManyRestarts(slot) => self.gives_up(slot)?,
            Action::KeptOut(slot) => self.keep_out(slot),
            Action::GiveUp(_) => return Err(self.give_up()),
            Action::Finished => self.supervisor.finished = true,
            // The service sends it to the worker.
            Action::Drain { .. } => {}
        }
        Ok(())
    }

    /// Starts a worker. What keeps it from starting ends the master as long as no worker was ever ready: it is likely
    /// the operator's typing error. Later it may pass (an upgrade under way, no memory, no descriptor), and counts as a
    /// death.
    fn start(&mut self, slot: Slot, worker: WorkerId, generation: u32) -> Result<(), MasterError> {
        match self.try_start(slot, worker, generation) {
            Ok(()) => Ok(()),
            Err(error) if self.phase != Phase::Starting => {
                tracing::error!(%slot, "{error}");
                self.service.exited(worker, Instant::now());
                Ok(())
            }
            Err(error) => {
                self.supervisor.crew.kill_all();
                Err(error)
            }
        }
    }

    fn try_start(&mut self, slot: Slot, worker: WorkerId, generation: u32) -> Result<(), MasterError> {
        if self.supervisor.crew.keep_guarded() {
            self.guard_listeners();
        }
        let Supervisor { crew, plans, preload, rooms, .. } = &mut self.supervisor;
        // A plan is kept as long as a worker may be started by it.
        let plan =
            plans.get(&generation).ok_or(std::io::ErrorKind::NotFound.into()).context("finding what to start")?;
        let number = (worker, generation, self.service.pool.wanted());
        if plan.preload {
            ensure_for(plan, preload)?;
        }
        let preload = preload.as_ref().filter(|preload| plan.preload && preload.can_be_passed());
        let page = scoreboard_page(plan);
        let start = |reach| plan.start(slot, number, (reach, page.as_ref()), preload);
        let own: Vec<BorrowedFd<'_>> = self.kernel.iter().flat_map(|kernel| kernel.own_listeners(slot)).collect();
        let (mut link, pid) = match (plan.dialect(), &self.service.dispatch.node) {
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
        self.service.dispatch.attach(link);
        Ok(())
    }

    fn worker_ready(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        self.supervisor.crew.ready(worker);
        let pid = self.supervisor.crew.pid(worker).unwrap_or(0);
        if let Some(link) = self.service.dispatch.link(worker) {
            tracing::info!(slot = %link.slot, worker = worker.0, pid, "worker is ready");
            if let Some(pid) = link.serving_process() {
                self.supervisor.crew.serves(worker, pid);
            }
        }
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            self.open_doors()?;
            self.notify_ready();
        }
        Ok(())
    }

    /// A worker's process has ended.
    pub(super) fn exited(&mut self, exit: &Exit) -> Result<(), MasterError> {
        let worker = exit.worker;
        let mut description = crew::describe(&exit.status);
        let was_ready = self.service.pool.was_ready(worker);
        let leaving = self.service.pool.is_leaving(worker);
        let within = self.changes.config.drain_timeout;
        let left = self.stop.as_ref().map(|stop| stop.until().saturating_duration_since(Instant::now()));
        self.supervisor.crew.bury(worker, left.map_or(within, |left| within.min(left)));
        // Others' ends may have been hidden by its.
        self.reap();
        let pid = self.supervisor.crew.pid(worker).unwrap_or(0);
        if !leaving && crew::was_killed(&exit.status) && self.supervisor.oom.killed_since_last() {
            description += " (out of memory)";
        }
        let mut end = description.clone();
        if let Some(link) = self.service.dispatch.link(worker) {
            let slot = link.slot;
            if let Some(why) = link.why_refused().filter(|_| !was_ready) {
                end = format!("{end}; what it wanted to listen on was refused: {why}");
            }
            let cut_off = farewell::cut_off(link, &self.finished, &exit.status);
            self.supervisor.cut_off += cut_off.filter(|_| leaving).unwrap_or(0);
            self.batching.channels.forget(link, &self.poller).ok();
            self.note_death(exit, slot, description.clone());
            match (leaving, was_ready) {
                (true, _) => {
                    let left = farewell::describe(&exit.status, cut_off);
                    tracing::info!(%slot, worker = worker.0, pid, "worker has left: {left}");
                }
                (false, true) => {
                    tracing::warn!(%slot, worker = worker.0, pid, "worker died: {description}; replacing it");
                }
                (false, false) => {
                    tracing::warn!(%slot, worker = worker.0, pid, "worker exited before it was ready: {end}");
                }
            }
        }
        if let Some(sought) = self.supervisor.crew.sought(worker).filter(|_| !was_ready) {
            self.preload_was_unreadable(&sought);
        }
        let wrote = self.supervisor.crew.ended(worker, was_ready);
        self.supervisor.last_words = (end, wrote);
        self.supervisor.returned = exit.status.as_ref().is_ok_and(ExitStatus::success);
        self.end_if_it_cannot_listen(worker)?;
        if !was_ready && !leaving {
            self.look_for_own_listeners();
        }
        self.service.exited(worker, Instant::now());
        self.count_workers();
        self.perform()
    }

    /// Another start will not make a port free that another process has: what a program without it does at once, haft
    /// does. A program that tries another port instead, and gets it, goes on.
    fn end_if_it_cannot_listen(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        let primary = self.service.dispatch.node.as_mut();
        match primary.and_then(|primary| primary.take_listen_failure(worker)) {
            Some(error) if self.phase == Phase::Starting => {
                self.supervisor.crew.kill_all();
                Err(MasterError::ProgramListen(error))
            }
            _ => Ok(()),
        }
    }

    fn give_up(&mut self) -> MasterError {
        self.supervisor.crew.kill_all();
        let (end, wrote) = std::mem::take(&mut self.supervisor.last_words);
        // It was shown when it was written, or when its worker died.
        let wrote = if wrote { "what it wrote is above" } else { "it wrote nothing to standard error" };
        let hint = match self.supervisor.returned {
            true if input::ends_at_once() => RETURNED_OF_INPUT,
            true => RETURNED,
            false => "",
        };
        MasterError::GaveUp { times: MAX_FAILED_STARTS, end, wrote, hint }
    }
}
