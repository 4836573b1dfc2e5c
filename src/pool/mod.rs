//! The pool of slots: what is observed and the time go in, actions come out. Pure.
//!
//! It supervises by reconciling: an event changes what is known, and [`Pool::step`] then compares what is known with
//! what is desired (every slot filled by one worker of its generation, or, once stopping, by none) and returns what to
//! do about the difference. A worker that goes, for whatever reason, no longer fills its slot: the next one starts
//! while it finishes what it has.

mod care;
mod change;
mod place;
mod view;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::care::{Cause, GiveUp, Renewal, RestartLimit};
use self::place::SlotWorkers;
pub use self::view::{Availability, SlotState, WorkerInfo};
use self::worker::{Signs, StopDeadline, Worker, WorkerState};
use crate::ids::WorkerId;
use crate::route::Slot;

/// Time since the master started. Never goes back.
pub type Time = Duration;

/// haft gives up on a slot whose workers died this often in a row before they were ready.
pub const MAX_FAILED_STARTS: u32 = 5;

/// How long workers have to finish after [`Event::Interrupt`]. They get half of it.
pub const INTERRUPT_TIME: Duration = Duration::from_secs(2);

/// What governs the pool.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker may take to finish after DRAIN.
    pub drain_timeout: Duration,
    /// Whether a hung worker is killed.
    pub hang_kill: bool,
    /// How old a worker may become.
    pub max_age: Option<Duration>,
    /// How often a slot's worker may end by itself. None: as often as it likes, with longer and longer pauses.
    pub restarts: Option<RestartLimit>,
}

/// What was observed, or is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The worker can serve.
    Ready(WorkerId),
    /// The worker's process has ended, or could not be started.
    Exited(WorkerId),
    /// The worker finishes of its own will: it takes no more, and its process will end.
    Leaving(WorkerId),
    /// The worker closed its channel: it takes no more, and its process has ended or will.
    Left(WorkerId),
    /// The worker broke the rules of its channel.
    Misbehaved(WorkerId),
    /// The worker, which finishes what it has, has no client left.
    Finished(WorkerId),
    /// The worker has connections to take and has acknowledged nothing for too long.
    Hung(WorkerId),
    /// The worker that was hung acknowledges again.
    Recovered(WorkerId),
    /// The worker does not answer the health check: it counts as hung, too.
    Unhealthy(WorkerId),
    /// It answers again.
    Healthy(WorkerId),
    /// The operator wants new workers in place of the old ones, slot by slot. Without effect while that is under way.
    Reload,
    /// A new worker is wanted in place of this slot's, of the same generation. Slots are renewed one after another, and
    /// wait for a reload that is under way.
    Renew(Slot),
    /// The worker has so many bytes of resident memory, more than it may have.
    TooLarge(WorkerId, u64),
    /// It is time to look how old the workers are.
    CheckAges,
    /// The operator wants so many slots, at least 1.
    Scale(usize),
    /// The operator wants no new client in this slot.
    Drain(Slot),
    /// The operator wants new clients in this slot again.
    Undrain(Slot),
    /// The operator wants an end: drain all workers.
    Stop,
    /// The operator sits at the terminal and wants an end: as [`Event::Stop`], within [`INTERRUPT_TIME`].
    Interrupt,
    /// The operator wants an end now. A worker that was sent no signal yet gets SIGTERM first.
    StopNow,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a worker for a slot.
    Start {
        /// The slot it fills, at once or when it is ready.
        slot: Slot,
        /// Its number.
        worker: WorkerId,
        /// How many configurations came before its own.
        generation: u32,
    },
    /// Ask the worker to take no more and to finish within this time.
    Drain {
        /// The worker that gets it.
        worker: WorkerId,
        /// Until it is made to end.
        within: Duration,
    },
    /// Send the signal by which the program learns that it is to finish, if it has one.
    Signal(WorkerId),
    /// Send SIGTERM.
    Terminate(WorkerId),
    /// Send SIGKILL.
    Kill(WorkerId),
    /// The worker was not ready in time; [`Action::Kill`] follows.
    NotReadyInTime(WorkerId),
    /// The slot's workers die before they are ready, and no worker of the pool is ready.
    GiveUp(Slot),
    /// Every slot has a worker of this generation.
    Reloaded {
        /// The workers' generation.
        generation: u32,
    },
    /// The new worker of this slot did not become ready: this slot and those after it keep their old workers.
    ReloadFailed {
        /// Where it ended.
        slot: Slot,
        /// The generation that will not be.
        generation: u32,
    },
    /// The slot was to get a new worker, which did not become ready: it keeps its old one.
    RenewalFailed(Slot),
    /// This worker, which serves, is replaced, though no operator wants that; [`Action::Start`] was just before.
    Renewing {
        /// Its slot.
        slot: Slot,
        /// The old worker.
        worker: WorkerId,
        /// Why.
        why: Renewal,
        /// How long it has lived.
        age: Duration,
    },
    /// The slot's workers have ended by themselves too often: haft is to stop.
    TooManyRestarts(Slot),
    /// The same: the slot gets no worker until the operator wants it.
    KeptOut(Slot),
    /// The pool is to stop, and no worker is left.
    Finished,
}

/// The slots and their workers.
#[derive(Debug, Clone)]
pub struct Pool {
    /// By slot. Those from `wanted` on are there no more.
    places: Vec<SlotWorkers>,
    wanted: usize,
    workers: BTreeMap<WorkerId, Worker>,
    policy: Policy,
    /// The default generation of started workers.
    generation: u32,
    /// The last number given to a generation.
    newest: u32,
    /// The generation that takes over slot by slot.
    reloading: Option<u32>,
    last_worker: u64,
    stopping: bool,
    /// When a stop is to be over, if one is under way or about to be.
    deadline: Option<StopDeadline>,
    /// The operator sits at the terminal and waits.
    interrupted: bool,
    finished: bool,
    /// What the ages of workers differ by.
    seed: u64,
}

impl Pool {
    /// A pool of empty slots; the first [`Event::Tick`] starts their workers.
    pub fn new(slots: usize, policy: Policy) -> Self {
        Self {
            places: (0..slots).map(|_| SlotWorkers::default()).collect(),
            wanted: slots,
            workers: BTreeMap::new(),
            policy,
            generation: 0,
            newest: 0,
            reloading: None,
            last_worker: 0,
            stopping: false,
            deadline: None,
            interrupted: false,
            finished: false,
            seed: 0,
        }
    }

    /// Other rules from now on; times that run already stay as they are.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes in what was observed at `now` and adds what is to be done to `actions`, in the order to do it.
    pub fn step(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Ready(id) => self.ready(id, now, actions),
            Event::Exited(id) => self.exited(id, now, actions),
            Event::Leaving(id) => self.leave(id, now, true, actions),
            Event::Left(id) => self.leave(id, now, false, actions),
            Event::Misbehaved(id) => self.kill(id, now, actions),
            Event::Finished(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.finished(now, actions);
                }
            }
            Event::Hung(id) => {
                self.set_sign(id, |signs| signs.silent = true, now, actions);
            }
            Event::Unhealthy(id) => {
                self.set_sign(id, |signs| signs.unhealthy = true, now, actions);
            }
            Event::Recovered(id) => {
                self.set_sign(id, |signs| signs.silent = false, now, actions);
            }
            Event::Healthy(id) => {
                self.set_sign(id, |signs| signs.unhealthy = false, now, actions);
            }
            Event::Reload => self.reload(),
            Event::Renew(slot) => self.renew(slot),
            Event::TooLarge(id, bytes) => self.note_size(id, bytes, now),
            Event::CheckAges => self.note_ages(now),
            Event::Scale(slots) => self.scale(slots, now, actions),
            Event::Drain(slot) => self.set_drained(slot, true),
            Event::Undrain(slot) => self.set_drained(slot, false),
            Event::Stop => self.stop(now, actions),
            Event::Interrupt => {
                self.interrupted = true;
                self.stop(now, actions);
            }
            Event::StopNow => {
                self.stop(now, &mut Vec::new());
                self.workers.values_mut().for_each(|worker| worker.end_now(now, actions));
            }
        }
        self.reconcile(now, actions);
    }

    fn incumbent(&self, slot: Slot) -> Option<&Worker> {
        self.workers.get(&self.places.get(slot.index())?.incumbent?)
    }

    fn in_slot(&self, slot: Slot) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(move |worker| worker.slot == slot)
    }

    fn any_ready(&self) -> bool {
        self.workers.values().any(|worker| matches!(worker.state, WorkerState::Ready { .. }))
    }

    fn ready(&mut self, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !matches!(worker.state, WorkerState::Starting { .. }) {
            return;
        }
        worker.state = WorkerState::Ready { hung: false };
        worker.served = true;
        let at = worker.slot.index();
        let place = &mut self.places[at];
        (place.failed_starts, place.is_new) = (0, false);
        if place.newcomer == Some(id) {
            self.take_over(at, now, actions);
        }
    }

    fn leave(&mut self, id: WorkerId, now: Time, asked: bool, actions: &mut Vec<Action>) {
        let until = now + self.policy.drain_timeout;
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.is_staying()
        {
            worker.state = WorkerState::Draining { until, asked };
            self.lose(Cause::Ended, id, now, actions);
        } else if let Some(worker) = self.workers.get_mut(&id) {
            // Its channel is closed because its connections have ended.
            if !asked {
                worker.hasten(now, None);
            }
        }
    }

    fn kill(&mut self, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        self.kill_for(Cause::Ended, id, now, actions);
    }

    fn kill_for(&mut self, cause: Cause, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.kill(actions);
            self.lose(cause, id, now, actions);
        }
    }

    /// It hangs, or no longer: one that goes anyway is left alone.
    fn set_sign(&mut self, id: WorkerId, set: impl Fn(&mut Signs), now: Time, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let WorkerState::Ready { hung } = &mut worker.state else { return };
        set(&mut worker.signs);
        *hung = worker.signs != Signs::default();
        if *hung && self.policy.hang_kill {
            self.kill_for(Cause::Hung, id, now, actions);
        }
    }

    /// The worker fills its place no more, for reasons of its own.
    fn lose(&mut self, cause: Cause, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let at = worker.slot.index();
        let place = &mut self.places[at];
        if place.incumbent == Some(id) {
            place.lose(cause, worker.served.then(|| now.saturating_sub(worker.started)), now);
            self.count_end(at, now, actions);
        } else if place.newcomer == Some(id) {
            self.lose_newcomer(at, now, actions);
        }
    }

    fn exited(&mut self, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        let was_newcomer = self.places.iter().any(|place| place.newcomer == Some(id));
        self.lose(Cause::Ended, id, now, actions);
        let Some(worker) = self.workers.remove(&id) else { return };
        if worker.served || worker.retired || was_newcomer || self.stopping {
            return;
        }
        let nobody_is_ready = !self.any_ready();
        let place = &mut self.places[worker.slot.index()];
        place.failed_starts += 1;
        if place.failed_starts >= MAX_FAILED_STARTS && nobody_is_ready && !place.given_up {
            place.given_up = true;
            actions.push(Action::GiveUp(worker.slot));
        }
    }

    fn stop(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.stopping = true;
        self.reloading = None;
        for at in 0..self.places.len() {
            self.vacate(at, now, actions);
        }
        // Those that leave already learn that the end has come, too.
        let within = self.interrupted.then_some(INTERRUPT_TIME);
        self.workers.values_mut().for_each(|worker| worker.hasten(now, within));
    }

    fn reconcile(&mut self, now: Time, actions: &mut Vec<Action>) {
        let policy = self.policy;
        let late: Vec<WorkerId> =
            self.workers.values().filter(|worker| worker.is_overdue(now, policy)).map(|worker| worker.id).collect();
        for id in late {
            actions.push(Action::NotReadyInTime(id));
            self.kill(id, now, actions);
        }
        let deadline = self.deadline;
        self.workers.values_mut().for_each(|worker| worker.escalate(now, deadline, actions));
        if self.stopping {
            if !self.finished && self.workers.is_empty() {
                self.finished = true;
                actions.push(Action::Finished);
            }
            return;
        }
        self.advance_reload(now, actions);
        self.advance_renewal(now, actions);
        for at in 0..self.wanted {
            if self.places[at].is_vacant(now) {
                let id = self.start(at, self.places[at].generation, now, actions);
                self.places[at].fill(id);
            }
        }
    }

    /// Starts a worker that belongs to a slot; whether it fills it at once is the caller's to say.
    fn start(&mut self, at: usize, generation: u32, now: Time, actions: &mut Vec<Action>) -> WorkerId {
        self.last_worker += 1;
        let (id, slot) = (WorkerId(self.last_worker), Slot(at as u16));
        self.workers.insert(id, Worker::new(id, slot, generation, now));
        actions.push(Action::Start { slot, worker: id, generation });
        id
    }
}

#[cfg(test)]
mod tests;
