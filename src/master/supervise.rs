//! Doing what the pool of slots decides: the joint between the pure pool, the processes and the hand-over.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::link::{Link, LinkError};
use super::plan::{Plan, Start};
use super::{Master, MasterError, Phase, While, token};
use crate::config::Config;
use crate::handover::haft::MasterEnd;
use crate::lifecycle::crew::{self, Crew, Exit};
use crate::lifecycle::pool::{Action, Event, MOST_FAILED_STARTS, Policy, Pool, Time, WorkerId};
use crate::route::Slot;
use crate::sys::poller::Interest;
use crate::sys::scm;

/// The pool of slots with what is needed to carry out its decisions.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) pool: Pool,
    pub(super) crew: Crew,
    plan: Plan,
    started: Instant,
    actions: Vec<Action>,
    finished: bool,
    /// By slot: what became of its earlier workers.
    pub(super) history: Vec<History>,
    /// How the last worker ended, and whether it had written anything.
    last_words: (String, bool),
}

/// What became of the earlier workers of a slot.
#[derive(Debug, Default)]
pub struct History {
    /// Workers started.
    pub starts: u64,
    /// Deaths by how the process ended.
    pub deaths: BTreeMap<String, u64>,
    /// The last death, and when (seconds since 1970).
    pub last_exit: Option<(String, u64)>,
}

impl Supervisor {
    pub(super) fn new(config: &Config, plan: Plan) -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let policy = Policy { start_timeout: config.start_timeout, drain_timeout: config.drain_timeout };
        let (crew, exits) = Crew::new(config.prefix_output);
        let supervisor = Self {
            pool: Pool::new(config.workers, policy),
            crew,
            plan,
            started: Instant::now(),
            actions: Vec::new(),
            finished: false,
            history: (0..config.workers).map(|_| History::default()).collect(),
            last_words: Default::default(),
        };
        (supervisor, exits)
    }

    /// Time since the master started.
    pub(super) fn now(&self) -> Time {
        self.started.elapsed()
    }

    /// Whether the master has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the pool waits for events only.
    pub(super) fn is_settled(&self) -> bool {
        self.pool.is_settled()
    }
}

impl Master {
    /// Tells the pool what was observed, and does what it decides.
    pub(super) fn observe(&mut self, event: Event) -> Result<(), MasterError> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let now = self.supervisor.now();
            let mut actions = std::mem::take(&mut self.supervisor.actions);
            self.supervisor.pool.step(now, event, &mut actions);
            // One that was given up meanwhile is ready too late.
            if let Event::Ready(worker) = event
                && self.supervisor.pool.was_ready(worker)
            {
                self.worker_ready(worker)?;
            }
            for action in actions.drain(..) {
                events.extend(self.act(action)?);
            }
            self.supervisor.actions = actions;
        }
        self.refresh_serving();
        self.send_dirty()
    }

    /// Does one thing; may yield what was observed in doing it.
    fn act(&mut self, action: Action) -> Result<Option<Event>, MasterError> {
        match action {
            Action::Start { slot, worker, generation } => return self.start(slot, worker, generation),
            Action::Drain { worker, within } => {
                if let Some(link) = self.dispatch.link(worker)
                    && let Err(error) = link.drain(within)
                {
                    let slot = link.slot;
                    return Ok(Some(self.distrust(worker, slot, &error)));
                }
            }
            Action::Terminate(worker) => self.supervisor.crew.signal(worker, Signal::SIGTERM),
            Action::Kill(worker) => self.supervisor.crew.signal(worker, Signal::SIGKILL),
            Action::NotReadyInTime(worker) => {
                let why = self.dispatch.link(worker).map_or("", |link| link.why_not_ready());
                tracing::error!(worker = worker.0, "the worker was not ready within --start-timeout: {why}");
            }
            Action::GiveUp(_) => return Err(self.give_up()),
            Action::Finished => self.supervisor.finished = true,
        }
        Ok(None)
    }

    /// A worker broke the rules, or its channel did: it is listened to no more and will be ended; nobody else notices.
    fn distrust(&mut self, worker: WorkerId, slot: Slot, error: &LinkError) -> Event {
        if let Some(link) = self.dispatch.link(worker) {
            self.poller.remove(&*link).ok();
            link.end();
        }
        tracing::warn!(%slot, worker = worker.0, "the worker {error}; it is ended");
        Event::Misbehaved(worker)
    }

    /// As [`Master::distrust`], and tells the pool.
    pub(super) fn mistrust(&mut self, worker: WorkerId, slot: Slot, error: &LinkError) -> Result<(), MasterError> {
        let event = self.distrust(worker, slot, error);
        self.observe(event)
    }

    /// Starts a worker. What keeps it from starting ends the master as long as no worker was ever ready: it is likely
    /// the operator's typing error. Later it may pass (an upgrade under way, no memory, no descriptor), and counts as a
    /// death.
    fn start(&mut self, slot: Slot, worker: WorkerId, generation: u32) -> Result<Option<Event>, MasterError> {
        match self.try_start(slot, worker, generation) {
            Ok(()) => Ok(None),
            Err(error) if self.phase != Phase::Starting => {
                tracing::error!(%slot, "{error}");
                Ok(Some(Event::Exited(worker)))
            }
            Err(error) => {
                self.supervisor.crew.kill_all();
                Err(error)
            }
        }
    }

    fn try_start(&mut self, slot: Slot, worker: WorkerId, generation: u32) -> Result<(), MasterError> {
        let (link, channel) = match &self.dispatch.node {
            None => {
                let (end, channel) = MasterEnd::pair().doing("making a worker's channel")?;
                (Link::haft(worker, slot, end), channel)
            }
            Some(desk) => {
                let (end, channel) = scm::stream_pair().doing("making a worker's channel")?;
                (Link::node(worker, slot, end, desk), channel)
            }
        };
        self.poller.add(&link, token(worker), Interest::Readable).doing("waiting for a worker")?;
        let supervisor = &mut self.supervisor;
        let Start { command, environment } = supervisor.plan.start(slot, worker, generation, channel.as_fd());
        match supervisor.crew.start(worker, slot, &command, &environment, channel.as_fd()) {
            Ok(pid) => {
                supervisor.history[slot.index()].starts += 1;
                tracing::debug!(%slot, worker = worker.0, pid, "started a worker");
                self.dispatch.attach(link);
                Ok(())
            }
            Err(error) => {
                self.poller.remove(&link).ok();
                Err(error.into())
            }
        }
    }

    fn worker_ready(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        self.supervisor.crew.ready(worker);
        let pid = self.supervisor.crew.pid(worker).unwrap_or(0);
        if let Some(link) = self.dispatch.link(worker) {
            tracing::info!(slot = %link.slot, worker = worker.0, pid, "worker is ready");
        }
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            self.open_doors()?;
        }
        Ok(())
    }

    /// Tells the hand-over which worker takes each slot's connections.
    fn refresh_serving(&mut self) {
        for slot in self.dispatch.slots() {
            let worker = self.supervisor.pool.ready_worker(slot);
            self.dispatch.serve(slot, worker);
            if worker.is_some() && self.dispatch.held_for(slot) > 0 {
                self.mark(slot);
            }
        }
    }

    /// A worker's process has ended.
    pub(super) fn exited(&mut self, exit: &Exit) -> Result<(), MasterError> {
        let worker = exit.worker;
        let description = crew::describe(&exit.status);
        let was_ready = self.supervisor.pool.was_ready(worker);
        let leaving = self.supervisor.pool.is_leaving(worker);
        let wrote = self.supervisor.crew.ended(worker, was_ready);
        if let Some(link) = self.dispatch.link(worker) {
            let slot = link.slot;
            self.poller.remove(&*link).ok();
            self.dispatch.detach(worker, Instant::now());
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
        self.observe(Event::Exited(worker))
    }

    fn note_death(&mut self, slot: Slot, description: String) {
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let history = &mut self.supervisor.history[slot.index()];
        *history.deaths.entry(description.clone()).or_default() += 1;
        history.last_exit = Some((description, unix_time));
    }

    fn give_up(&mut self) -> MasterError {
        self.supervisor.crew.kill_all();
        let (end, wrote) = std::mem::take(&mut self.supervisor.last_words);
        // It was shown when it was written, or when its worker died.
        let wrote = if wrote { "what it wrote is above" } else { "it wrote nothing to standard error" };
        MasterError::GaveUp { times: MOST_FAILED_STARTS, end, wrote }
    }
}
