//! The pool of slots: what is observed and the time go in, actions come out. Pure.
//!
//! It supervises by reconciling: an event changes what is known, and [`Pool::step`] then compares what is known with
//! what is desired (every slot filled by one worker, or, once stopping, by none) and says what to do about the
//! difference.

use std::time::Duration;

use crate::route::Slot;

/// Time since the master started. Never goes back.
pub type Time = Duration;

/// How long a worker has between SIGTERM and SIGKILL.
const TERMINATION_GRACE: Duration = Duration::from_secs(2);
/// The first wait before a dead worker is replaced; it doubles from one death to the next.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest wait before a dead worker is replaced.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// A worker that lived this long was a good one: its death is the first again.
const GOOD_LIFE: Duration = Duration::from_secs(30);
/// A slot whose workers died this often in a row before they were ready is given up.
pub const MOST_FAILED_STARTS: u32 = 5;

/// A worker's number, which no other worker of this master has or had. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// The times that govern the pool.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker may take to finish once it is told to.
    pub drain_timeout: Duration,
}

/// What was observed.
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
    /// The operator wants an end: drain all workers.
    Stop,
    /// The operator wants an end now.
    StopNow,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a worker for a slot.
    Start {
        /// The slot it fills.
        slot: Slot,
        /// Its number.
        worker: WorkerId,
        /// How many configurations came before its own.
        generation: u32,
    },
    /// Tell the worker to take no more and to finish within this time.
    Drain {
        /// Whom to tell.
        worker: WorkerId,
        /// Until it is made to end.
        within: Duration,
    },
    /// Send SIGTERM.
    Terminate(WorkerId),
    /// Send SIGKILL.
    Kill(WorkerId),
    /// The worker was not ready in time; [`Action::Kill`] follows.
    NotReadyInTime(WorkerId),
    /// The slot's workers die before they are ready, and no worker of the pool is ready.
    GiveUp(Slot),
    /// The pool was told to stop, and no worker is left.
    Finished,
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting {
        since: Time,
    },
    Ready,
    /// `told`: it was told to, or said that it would; otherwise it only closed its channel.
    Draining {
        until: Time,
        told: bool,
    },
    Terminating {
        until: Time,
    },
    Killed,
}

#[derive(Debug)]
struct Worker {
    id: WorkerId,
    generation: u32,
    started: Time,
    state: State,
    /// Whether it has ever been ready.
    served: bool,
}

/// What people are told of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Its worker is not ready yet.
    Starting,
    /// Its worker takes connections.
    Ready,
    /// Its worker finishes what it has.
    Draining,
    /// It has no worker.
    Gone,
}

#[derive(Debug, Default)]
struct Place {
    worker: Option<Worker>,
    /// Deaths in a row without a good life between them.
    deaths: u32,
    /// Deaths in a row before the worker was ready.
    failed_starts: u32,
    not_before: Time,
    given_up: bool,
}

/// The slots and their workers.
#[derive(Debug)]
pub struct Pool {
    places: Vec<Place>,
    policy: Policy,
    generation: u32,
    last_worker: u64,
    stopping: bool,
    finished: bool,
}

impl Pool {
    /// A pool of empty slots; the first [`Event::Tick`] starts their workers.
    pub fn new(slots: usize, policy: Policy) -> Self {
        let places = (0..slots).map(|_| Place::default()).collect();
        Self { places, policy, generation: 0, last_worker: 0, stopping: false, finished: false }
    }

    /// Takes in what was observed at `now` and adds what is to be done to `actions`, in the order to do it.
    pub fn step(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Ready(id) => self.ready(id),
            Event::Exited(id) => self.exited(id, now, actions),
            Event::Leaving(id) => self.leave(id, now, true),
            Event::Left(id) => self.leave(id, now, false),
            Event::Misbehaved(id) => {
                if let Some(worker) = self.worker_mut(id) {
                    worker.kill(actions);
                }
            }
            Event::Stop => self.stopping = true,
            Event::StopNow => {
                self.stopping = true;
                self.places.iter_mut().filter_map(|place| place.worker.as_mut()).for_each(|worker| {
                    worker.kill(actions);
                });
            }
        }
        self.reconcile(now, actions);
    }

    /// What the slot is in.
    pub fn state(&self, slot: Slot) -> SlotState {
        match self.places.get(usize::from(slot.0)).and_then(|place| place.worker.as_ref()).map(|worker| worker.state) {
            None => SlotState::Gone,
            Some(State::Starting { .. }) => SlotState::Starting,
            Some(State::Ready) => SlotState::Ready,
            Some(State::Draining { .. } | State::Terminating { .. } | State::Killed) => SlotState::Draining,
        }
    }

    /// The worker that takes the slot's connections, if it is ready.
    pub fn ready_worker(&self, slot: Slot) -> Option<WorkerId> {
        let worker = self.places.get(usize::from(slot.0))?.worker.as_ref()?;
        matches!(worker.state, State::Ready).then_some(worker.id)
    }

    /// The worker in the slot with its generation and how long it has lived, whatever its state.
    pub fn worker(&self, slot: Slot, now: Time) -> Option<(WorkerId, u32, Duration)> {
        let worker = self.places.get(usize::from(slot.0))?.worker.as_ref()?;
        Some((worker.id, worker.generation, now.saturating_sub(worker.started)))
    }

    /// Whether the worker has ever been ready.
    pub fn was_ready(&self, id: WorkerId) -> bool {
        self.places.iter().filter_map(|place| place.worker.as_ref()).any(|worker| worker.id == id && worker.served)
    }

    /// Whether nothing will happen without an event other than [`Event::Tick`].
    pub fn is_settled(&self) -> bool {
        let settled = |place: &Place| match place.worker.as_ref().map(|worker| worker.state) {
            Some(State::Ready) => !self.stopping,
            // Only its end is still awaited.
            Some(State::Killed) => true,
            Some(State::Starting { .. } | State::Draining { .. } | State::Terminating { .. }) => false,
            None => place.given_up || self.stopping,
        };
        self.finished || self.places.iter().all(settled)
    }

    /// Whether the worker was told to leave, made to, or said that it would: its end is no surprise.
    pub fn is_leaving(&self, id: WorkerId) -> bool {
        let worker = self.places.iter().filter_map(|place| place.worker.as_ref()).find(|worker| worker.id == id);
        worker.is_none_or(|worker| match worker.state {
            State::Starting { .. } | State::Ready => false,
            State::Draining { told, .. } => told,
            State::Terminating { .. } | State::Killed => true,
        })
    }

    fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.places.iter_mut().filter_map(|place| place.worker.as_mut()).find(|worker| worker.id == id)
    }

    fn leave(&mut self, id: WorkerId, now: Time, told: bool) {
        let until = now + self.policy.drain_timeout;
        if let Some(worker) = self.worker_mut(id)
            && matches!(worker.state, State::Starting { .. } | State::Ready)
        {
            worker.state = State::Draining { until, told };
        }
    }

    fn any_ready(&self) -> bool {
        let mut workers = self.places.iter().filter_map(|place| place.worker.as_ref());
        workers.any(|worker| matches!(worker.state, State::Ready))
    }

    fn ready(&mut self, id: WorkerId) {
        let place = self.places.iter_mut().find(|place| place.worker.as_ref().is_some_and(|worker| worker.id == id));
        let Some((place, worker)) = place.and_then(|place| {
            let Place { worker, failed_starts, .. } = place;
            Some((failed_starts, worker.as_mut()?))
        }) else {
            return;
        };
        if matches!(worker.state, State::Starting { .. }) {
            worker.state = State::Ready;
            worker.served = true;
            *place = 0;
        }
    }

    fn exited(&mut self, id: WorkerId, now: Time, actions: &mut Vec<Action>) {
        let Some(at) = self.places.iter().position(|place| place.worker.as_ref().is_some_and(|it| it.id == id)) else {
            return;
        };
        let any_other_ready = {
            self.places[at].worker.as_mut().into_iter().for_each(|worker| worker.state = State::Killed);
            self.any_ready()
        };
        let place = &mut self.places[at];
        let Some(worker) = place.worker.take() else { return };
        if self.stopping {
            return;
        }
        if worker.served && now.saturating_sub(worker.started) >= GOOD_LIFE {
            place.deaths = 0;
        }
        place.not_before = now + back_off(place.deaths);
        place.deaths += 1;
        if !worker.served {
            place.failed_starts += 1;
            if place.failed_starts >= MOST_FAILED_STARTS && !any_other_ready {
                place.given_up = true;
                actions.push(Action::GiveUp(Slot(at as u16)));
            }
        }
    }

    fn reconcile(&mut self, now: Time, actions: &mut Vec<Action>) {
        for at in 0..self.places.len() {
            match (&mut self.places[at].worker, self.stopping) {
                (Some(worker), stopping) => worker.reconcile(now, stopping, self.policy, actions),
                (None, true) => {}
                (None, false) => self.fill(at, now, actions),
            }
        }
        if self.stopping && !self.finished && self.places.iter().all(|place| place.worker.is_none()) {
            self.finished = true;
            actions.push(Action::Finished);
        }
    }

    fn fill(&mut self, at: usize, now: Time, actions: &mut Vec<Action>) {
        let place = &mut self.places[at];
        if place.given_up || now < place.not_before {
            return;
        }
        self.last_worker += 1;
        let (id, generation) = (WorkerId(self.last_worker), self.generation);
        let state = State::Starting { since: now };
        place.worker = Some(Worker { id, generation, started: now, state, served: false });
        actions.push(Action::Start { slot: Slot(at as u16), worker: id, generation });
    }
}

impl Worker {
    fn reconcile(&mut self, now: Time, stopping: bool, policy: Policy, actions: &mut Vec<Action>) {
        match self.state {
            State::Starting { since } if !stopping && now >= since + policy.start_timeout => {
                actions.push(Action::NotReadyInTime(self.id));
                self.kill(actions);
            }
            // It has no client: there is nothing to finish.
            State::Starting { .. } if stopping => self.terminate(now, actions),
            State::Ready if stopping => {
                self.state = State::Draining { until: now + policy.drain_timeout, told: true };
                actions.push(Action::Drain { worker: self.id, within: policy.drain_timeout });
            }
            State::Draining { until, .. } if now >= until => self.terminate(now, actions),
            State::Terminating { until } if now >= until => self.kill(actions),
            State::Starting { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Terminating { .. }
            | State::Killed => {}
        }
    }

    fn terminate(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.state = State::Terminating { until: now + TERMINATION_GRACE };
        actions.push(Action::Terminate(self.id));
    }

    fn kill(&mut self, actions: &mut Vec<Action>) {
        if self.state != State::Killed {
            self.state = State::Killed;
            actions.push(Action::Kill(self.id));
        }
    }
}

/// The wait before a replacement after so many earlier deaths in a row.
fn back_off(earlier_deaths: u32) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << earlier_deaths.min(16)).min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests;
