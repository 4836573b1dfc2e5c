//! The workers' processes: what they are started by, how they finish, and what became of those that have ended.

mod start;

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::finished::Finished;
use super::finishing::{FinishContext, FinishSignals};
use super::history::Histories;
use super::orphans::Orphans;
use super::plan::Plan;
use super::queues::KernelQueues;
use super::stopping::Phase;
use super::{MasterError, farewell, not_ready, preload};
use crate::config::Config;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::node::preload::Preload;
use crate::pool::{MAX_FAILED_STARTS, Pool};
use crate::process::crew::{self, Exit, Processes};
use crate::process::guardian::Guardian;
use crate::process::output::OutputStyle;
use crate::rooms::RoomsRelay;
use crate::sys::account::Account;
use crate::sys::input;
use crate::sys::oom::OomWatch;

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
    plans: BTreeMap<u32, Plan>,
    /// Whether the master has nothing left to do.
    pub(super) finished: bool,
    /// Why it stops, if that is a failure.
    pub(super) gave_up: Option<MasterError>,
    /// What became of the earlier workers of each slot.
    pub(super) histories: Histories,
    /// Processes that are no workers.
    pub(super) orphans: Orphans,
    /// Signals to finish that are put off.
    pub(super) finishing: FinishSignals,
    oom: OomWatch,
    /// The script that Node programs run before their own, once one was to be given it.
    preload: Option<Preload>,
    /// How the last worker ended, and whether it had written anything.
    last_words: (String, bool),
    /// Whether it ended by itself and without an error.
    returned: bool,
    /// The relay between workers that have haft's own protocol, if they share rooms.
    rooms: Option<RoomsRelay>,
    /// Connections that workers took with them when they ended as asked, as far as it is known.
    cut_off: u64,
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
            histories: Histories::default(),
            orphans: Orphans::default(),
            finishing: FinishSignals::default(),
            oom: OomWatch::new(),
            preload,
            last_words: Default::default(),
            returned: false,
            cut_off: 0,
        };
        (supervisor, exits)
    }

    /// What workers of this generation are started by.
    pub(super) fn add_plan(&mut self, generation: u32, plan: Plan) {
        self.plans.insert(generation, plan);
    }

    /// Forgets what no worker will be started with any more.
    pub(super) fn forget_plans(&mut self, pool: &Pool) {
        let used: Vec<u32> = pool.generations().collect();
        self.plans.retain(|generation, _| used.contains(generation));
    }

    /// The relay between workers that have haft's own protocol, if they share rooms.
    pub(super) fn rooms(&self) -> Option<&RoomsRelay> {
        self.rooms.as_ref()
    }

    /// Connections that workers took with them when they ended as asked, as far as it is known.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Sends a worker the signal by which its program learns that it is to finish, once, if it does by one.
    pub(super) fn signal_to_finish(
        &mut self,
        worker: WorkerId,
        service: &mut Service,
        queues: &KernelQueues,
        until: Instant,
    ) -> bool {
        self.finishing.finish(worker, FinishContext { service, crew: &mut self.crew, queues }, until)
    }

    /// Sends a worker SIGTERM, once it has accepted what only it can accept.
    pub(super) fn terminate(&mut self, worker: WorkerId, service: &mut Service, queues: &KernelQueues, until: Instant) {
        self.finishing.terminate(worker, FinishContext { service, crew: &mut self.crew, queues }, until);
    }

    /// Sends the signals to finish that need to wait no longer.
    pub(super) fn send_deferred(&mut self, service: &mut Service, queues: &KernelQueues, now: Instant) {
        self.finishing.send_deferred(FinishContext { service, crew: &mut self.crew, queues }, now);
    }

    /// Takes the ends of processes that are no workers.
    pub(super) fn reap(&mut self) {
        self.orphans.reap(&self.crew);
    }

    /// Does what is to be done because time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.orphans.tick(&mut self.crew, now);
    }

    /// Whether something happens without an event.
    pub(super) fn depends_on_time(&self) -> bool {
        self.orphans.depends_on_time(&self.crew)
    }

    /// Whether the master may end: nothing is left to do, and no worker is left that finishes.
    pub(super) fn has_ended(&self) -> bool {
        self.finished && self.crew.remains.is_empty()
    }

    /// The worker can serve.
    pub(super) fn ready(&mut self, worker: WorkerId, service: &Service) {
        self.crew.ready(worker);
        let pid = self.crew.pid(worker).unwrap_or(0);
        if let Some(link) = service.dispatch.link(worker) {
            tracing::info!(slot = %link.slot, worker = worker.0, pid, "worker is ready");
            if let Some(pid) = link.serving_process() {
                self.crew.serves(worker, pid);
            }
        }
    }

    /// A worker's process has ended, and what it has left has so much time to end, too. Afterwards the service learns
    /// of it.
    pub(super) fn exited(
        &mut self,
        exit: &Exit,
        service: &mut Service,
        (finished, phase): (&Finished, Phase),
        within: Duration,
    ) -> Result<(), MasterError> {
        let worker = exit.worker;
        let was_ready = service.pool.was_ready(worker);
        let leaving = service.pool.is_leaving(worker);
        self.crew.bury(worker, within);
        // Others' ends may have been hidden by its.
        self.reap();
        let end = self.describe_end(exit, service, finished, (was_ready, leaving));
        if let Some(sought) = self.crew.sought(worker).filter(|_| !was_ready) {
            preload::was_unreadable(&mut self.preload, service.dispatch.node.as_mut(), &sought);
        }
        let wrote = self.crew.ended(worker, was_ready);
        self.last_words = (end, wrote);
        self.returned = exit.status.as_ref().is_ok_and(ExitStatus::success);
        self.end_if_it_cannot_listen(worker, service, phase)?;
        if !was_ready && !leaving {
            not_ready::look_for_own_listeners(service, &self.crew);
        }
        Ok(())
    }

    /// Logs how a worker has ended, and keeps what it has counted. Yields how it ended, in words.
    fn describe_end(
        &mut self,
        exit: &Exit,
        service: &Service,
        finished: &Finished,
        (was_ready, leaving): (bool, bool),
    ) -> String {
        let worker = exit.worker;
        let mut description = crew::describe(&exit.status);
        let pid = self.crew.pid(worker).unwrap_or(0);
        if !leaving && crew::was_killed(&exit.status) && self.oom.killed_since_last() {
            description += " (out of memory)";
        }
        let Some(link) = service.dispatch.link(worker) else { return description };
        let (slot, mut end) = (link.slot, description.clone());
        if let Some(why) = link.why_refused().filter(|_| !was_ready) {
            end = format!("{end}; what it wanted to listen on was refused: {why}");
        }
        let cut_off = farewell::cut_off(link, finished, &exit.status);
        self.cut_off += cut_off.filter(|_| leaving).unwrap_or(0);
        self.histories.note(exit, slot, description.clone(), &self.crew);
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
        end
    }

    /// Another start will not make a port free that another process has: what a program without it does at once, haft
    /// does. A program that tries another port instead, and gets it, goes on.
    fn end_if_it_cannot_listen(
        &mut self,
        worker: WorkerId,
        service: &mut Service,
        phase: Phase,
    ) -> Result<(), MasterError> {
        let primary = service.dispatch.node.as_mut();
        match primary.and_then(|primary| primary.take_listen_failure(worker)) {
            Some(error) if phase == Phase::Starting => {
                self.crew.kill_all();
                Err(MasterError::ProgramListen(error))
            }
            _ => Ok(()),
        }
    }

    /// No worker becomes ready: the master ends, with this.
    pub(super) fn give_up(&mut self) -> MasterError {
        self.crew.kill_all();
        let (end, wrote) = std::mem::take(&mut self.last_words);
        // It was shown when it was written, or when its worker died.
        let wrote = if wrote { "what it wrote is above" } else { "it wrote nothing to standard error" };
        let hint = match self.returned {
            true if input::ends_at_once() => RETURNED_OF_INPUT,
            true => RETURNED,
            false => "",
        };
        MasterError::GaveUp { times: MAX_FAILED_STARTS, end, wrote, hint }
    }
}
