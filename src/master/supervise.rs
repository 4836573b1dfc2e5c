//! Doing what the pool of slots decides: the joint between its decisions and the processes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::link::Link;
use super::plan::{Plan, Reach, Start};
use super::report::unix_time;
use super::service::Effect;
use super::{Master, MasterError, Phase, While};
use crate::config::Config;
use crate::handover::haft::MasterEnd;
use crate::lifecycle::crew::{self, Crew, Exit};
use crate::lifecycle::guardian::Guardian;
use crate::lifecycle::pool::{Action, MOST_FAILED_STARTS, WorkerId};
use crate::lifecycle::program::Dialect;
use crate::lifecycle::program::preload::Preload;
use crate::route::Slot;
use crate::sys::code;
use crate::sys::notify::NotifySocket;
use crate::sys::oom::OomWatch;
use crate::sys::process::{Inherited, Passed};
use crate::sys::scm;

/// What is needed to carry out the pool's decisions, and what became of them.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) crew: Crew,
    /// What to start, by generation.
    pub(super) plans: BTreeMap<u32, Plan>,
    /// Whether the master has nothing left to do.
    pub(super) finished: bool,
    /// What became of the earlier workers of each slot.
    pub(super) history: BTreeMap<Slot, History>,
    oom: OomWatch,
    /// The script that Node programs run before their own, once one was to be given it.
    preload: Option<Preload>,
    /// How the last worker ended, and whether it had written anything.
    pub(super) last_words: (String, bool),
    /// Who is told to finish when nobody waits for it any more, or then at the latest.
    pub(super) told_later: BTreeMap<WorkerId, Instant>,
}

/// What became of the earlier workers of a slot.
#[derive(Debug, Default)]
pub struct History {
    /// Deaths by how the process ended.
    pub deaths: BTreeMap<String, u64>,
    /// The last death, and when (seconds since 1970).
    pub last_exit: Option<(String, u64)>,
}

impl Supervisor {
    pub(super) fn new(
        config: &Config,
        plan: Plan,
        guardian: Option<Guardian>,
    ) -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (crew, exits) = Crew::new(config.prefix_output, guardian);
        let supervisor = Self {
            crew,
            plans: BTreeMap::from([(0, plan)]),
            finished: false,
            history: BTreeMap::new(),
            oom: OomWatch::new(),
            preload: None,
            last_words: Default::default(),
            told_later: BTreeMap::new(),
        };
        (supervisor, exits)
    }
}

/// Has the preload written. Where that cannot be, workers do without.
fn ensure(preload: &mut Option<Preload>) {
    let written = match preload {
        Some(preload) => preload.ensure(),
        None => Preload::write().map(|written| *preload = Some(written)),
    };
    if let Err(error) = written {
        *preload = None;
        tracing::error!(
            %error,
            "the preload for Node programs cannot be written (to $XDG_RUNTIME_DIR, or the folder for temporary files): \
             their sessions are not tagged, and a proxy's address is taken for their clients'"
        );
    }
}

impl Master {
    /// Does all that is to be done to the world, and then waits for it as it now is.
    pub(super) fn perform(&mut self) -> Result<(), MasterError> {
        loop {
            // First, so that nobody new comes to a worker that is then told to finish.
            if let Some(kernel) = &mut self.kernel {
                kernel.steer(self.service.dispatch.steering());
            }
            let Some(effect) = self.service.next_effect() else { break };
            match effect {
                Effect::Ready(worker) => self.worker_ready(worker)?,
                Effect::Act(action) => self.act(action)?,
            }
        }
        let channels = self.channels.refresh(&mut self.service.dispatch, &self.poller, self.busy);
        channels.doing("waiting for a worker")?;
        self.refresh_doors()
    }

    fn act(&mut self, action: Action) -> Result<(), MasterError> {
        match action {
            Action::Start { slot, worker, generation } => self.start(slot, worker, generation)?,
            Action::Signal(worker) => self.signal_to_finish(worker, Instant::now()),
            Action::Terminate(worker) => self.terminate(worker, Instant::now()),
            Action::Kill(worker) => self.supervisor.crew.signal(worker, Signal::SIGKILL),
            Action::NotReadyInTime(worker) => {
                let why = self.service.dispatch.link(worker).map_or("", |link| link.why_not_ready());
                tracing::error!(worker = worker.0, "the worker was not ready within --start-timeout: {why}");
            }
            Action::Reloaded { generation } => self.reloaded(generation),
            Action::ReloadFailed { slot, generation } => self.reload_failed(slot, generation),
            Action::GiveUp(_) => return Err(self.give_up()),
            Action::Finished => self.supervisor.finished = true,
            // The service tells the worker.
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
        let Supervisor { crew, plans, preload, .. } = &mut self.supervisor;
        // A plan is kept as long as a worker may be started by it.
        let plan = plans.get(&generation).ok_or(std::io::ErrorKind::NotFound.into()).doing("finding what to start")?;
        let number = (worker, generation, self.service.pool.wanted());
        if plan.preload {
            ensure(preload);
        }
        let preload = preload.as_ref().filter(|_| plan.preload);
        let start = |reach| plan.start(slot, number, reach, preload);
        let own: Vec<BorrowedFd<'_>> = self.kernel.iter().flat_map(|kernel| kernel.own_listeners(slot)).collect();
        let (mut link, pid) = match (plan.dialect(), &self.service.dispatch.node) {
            (Dialect::ListenFds, _) => {
                let socket = NotifySocket::new().doing("making a worker's notify socket")?;
                let passed: Vec<Passed<'_>> = plan.passed(&own);
                let Start { command, environment } = start(Reach::Notify(socket.name()));
                let pid = crew.start(worker, slot, &command, &environment, Inherited::Listeners(&passed))?;
                (Link::listen_fds(worker, slot, socket, plan.waits_for_ready(), Instant::now()), pid)
            }
            (_, Some(desk)) => {
                let (end, channel) = scm::stream_pair().doing("making a worker's channel")?;
                let Start { command, environment } = start(Reach::Channel(channel.as_fd(), &[]));
                let pid = crew.start(worker, slot, &command, &environment, Inherited::Same(&[channel.as_fd()]))?;
                (Link::node(worker, slot, end, desk), pid)
            }
            (_, None) => {
                let (end, channel) = MasterEnd::pair().doing("making a worker's channel")?;
                let Start { command, environment } = start(Reach::Channel(channel.as_fd(), &own));
                let inherited = [&[channel.as_fd()], &own[..]].concat();
                let pid = crew.start(worker, slot, &command, &environment, Inherited::Same(&inherited))?;
                (Link::haft(worker, slot, end), pid)
            }
        };
        tracing::debug!(%slot, worker = worker.0, pid, generation, "started a worker");
        link.generation = generation;
        link.set_pid(pid);
        self.service.dispatch.attach(link);
        Ok(())
    }

    fn worker_ready(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        self.supervisor.crew.ready(worker);
        // Before others are told that all is ready: they may look at us.
        if self.service.pool.is_settled() {
            // Until the next reload, or death, nothing but serving is to be done.
            match code::give_back() {
                Ok(bytes) => tracing::debug!(bytes, "let go of code that only starting needs"),
                Err(error) => tracing::debug!(%error, "the code that only starting needs stays in memory"),
            }
        }
        let pid = self.supervisor.crew.pid(worker).unwrap_or(0);
        if let Some(link) = self.service.dispatch.link(worker) {
            tracing::info!(slot = %link.slot, worker = worker.0, pid, "worker is ready");
        }
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            self.open_doors()?;
        }
        Ok(())
    }

    /// A worker's process has ended.
    pub(super) fn exited(&mut self, exit: &Exit) -> Result<(), MasterError> {
        let worker = exit.worker;
        let mut description = crew::describe(&exit.status);
        let was_ready = self.service.pool.was_ready(worker);
        let leaving = self.service.pool.is_leaving(worker);
        let wrote = self.supervisor.crew.ended(worker, was_ready);
        if !leaving && crew::was_killed(&exit.status) && self.supervisor.oom.killed_since_last() {
            description += " (out of memory)";
        }
        if let Some(link) = self.service.dispatch.link(worker) {
            let slot = link.slot;
            self.channels.forget(link, &self.poller).ok();
            self.note_death(slot, description.clone());
            match (leaving, was_ready) {
                (true, _) => tracing::info!(%slot, worker = worker.0, "worker has left: {description}"),
                (false, true) => tracing::warn!(%slot, worker = worker.0, "worker died: {description}; replacing it"),
                (false, false) => {
                    tracing::warn!(%slot, worker = worker.0, "worker exited before it was ready: {description}");
                }
            }
        }
        self.supervisor.last_words = (description, wrote);
        self.service.exited(worker, Instant::now());
        self.count_workers();
        self.perform()
    }

    fn note_death(&mut self, slot: Slot, description: String) {
        let history = self.supervisor.history.entry(slot).or_default();
        *history.deaths.entry(description.clone()).or_default() += 1;
        history.last_exit = Some((description, unix_time()));
    }

    fn give_up(&mut self) -> MasterError {
        self.supervisor.crew.kill_all();
        let (end, wrote) = std::mem::take(&mut self.supervisor.last_words);
        // It was shown when it was written, or when its worker died.
        let wrote = if wrote { "what it wrote is above" } else { "it wrote nothing to standard error" };
        MasterError::GaveUp { times: MOST_FAILED_STARTS, end, wrote }
    }
}
