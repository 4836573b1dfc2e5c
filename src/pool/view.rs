//! The pool's state for other modules and for people.

use std::time::Duration;

use super::worker::{Worker, WorkerState};
use super::{Pool, SlotWorkers, Time, WorkerId};
use crate::route::Slot;

/// A slot's state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Its worker is not ready yet.
    Starting,
    /// Its worker takes connections, unless it hangs or the slot is drained.
    Ready,
    /// It has only workers that finish what they have.
    Draining,
    /// It has no worker.
    Gone,
}

/// What a slot is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// This worker takes them.
    Serving(WorkerId),
    /// They wait for its worker, which is to come.
    Pending,
    /// They go to the next slot in their order: this one is hung, drained, not wanted any more or not ready yet for the
    /// first time.
    OutOfRotation,
}

/// A worker's state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number.
    pub id: WorkerId,
    /// How many configurations came before its own.
    pub generation: u32,
    /// How long it has lived.
    pub age: Duration,
    /// Whether it has connections to take and acknowledges nothing, or fails its health check.
    pub hung: bool,
}

impl Pool {
    /// What the slot is in.
    pub fn state(&self, slot: Slot) -> SlotState {
        match self.incumbent(slot).map(|worker| worker.state) {
            Some(WorkerState::Starting { .. }) => SlotState::Starting,
            Some(_) => SlotState::Ready,
            None if self.in_slot(slot).next().is_some() => SlotState::Draining,
            None => SlotState::Gone,
        }
    }

    /// What the slot is to its clients.
    pub fn standing(&self, slot: Slot) -> Availability {
        let Some(place) = self.places.get(slot.index()).filter(|place| slot.index() < self.wanted && !place.drained)
        else {
            return Availability::OutOfRotation;
        };
        match self.incumbent(slot) {
            Some(Worker { id, state: WorkerState::Ready { hung: false }, .. }) => Availability::Serving(*id),
            Some(worker) if self.must_serve(worker) => Availability::Serving(worker.id),
            Some(Worker { state: WorkerState::Ready { hung: true }, .. }) => Availability::OutOfRotation,
            _ if place.is_new || place.given_up => Availability::OutOfRotation,
            _ => Availability::Pending,
        }
    }

    /// The worker that accepts what comes to the slot, where workers accept by themselves: that of a drained slot, too.
    pub fn accepting(&self, slot: Slot) -> Option<WorkerId> {
        let worker = self.incumbent(slot)?;
        (worker.state == WorkerState::Ready { hung: false } || self.must_serve(worker)).then_some(worker.id)
    }

    /// Whether a worker that fails its health check, and acknowledges connections, still serves: what fails is likely
    /// something else where no worker passes, such as a database, and without them no client is served.
    fn must_serve(&self, worker: &Worker) -> bool {
        let is_unhealthy = worker.state == WorkerState::Ready { hung: true } && !worker.signs.silent;
        let healthy = |place: &SlotWorkers| {
            let worker = place.incumbent.and_then(|id| self.workers.get(&id));
            !place.drained && worker.is_some_and(|worker| worker.state == WorkerState::Ready { hung: false })
        };
        is_unhealthy && !self.places.iter().take(self.wanted).any(healthy)
    }

    /// Whether the slot is no more, and has no worker left.
    pub fn is_abandoned(&self, slot: Slot) -> bool {
        slot.index() >= self.wanted && self.in_slot(slot).next().is_none()
    }

    /// The worker that fills the slot, or, if none does, the last of those that leave it.
    pub fn worker(&self, slot: Slot, now: Time) -> Option<WorkerInfo> {
        let worker = self.incumbent(slot).or_else(|| self.in_slot(slot).last())?;
        let hung = worker.state == WorkerState::Ready { hung: true };
        Some(WorkerInfo { id: worker.id, generation: worker.generation, age: now.saturating_sub(worker.started), hung })
    }

    /// All workers of the slot, whatever their state.
    pub fn workers_of(&self, slot: Slot) -> impl Iterator<Item = WorkerId> {
        self.in_slot(slot).map(|worker| worker.id)
    }

    /// The workers that finish what they have, or are to end, each with its slot.
    pub fn leaving_workers(&self, now: Time) -> impl Iterator<Item = (Slot, WorkerInfo)> {
        let leaving = self.workers.values().filter(|worker| !worker.is_staying());
        leaving.map(move |worker| {
            let age = now.saturating_sub(worker.started);
            (worker.slot, WorkerInfo { id: worker.id, generation: worker.generation, age, hung: false })
        })
    }

    /// Whether the worker fills its slot, and acknowledges nothing though it has connections to take.
    pub fn is_silent(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|it| it.state == WorkerState::Ready { hung: true } && it.signs.silent)
    }

    /// Whether the worker fills its slot, and does not answer the health check.
    pub fn is_unhealthy(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|it| it.state == WorkerState::Ready { hung: true } && it.signs.unhealthy)
    }

    /// The workers that can be asked how they are, each with its slot.
    pub fn to_ask(&self) -> impl Iterator<Item = (Slot, WorkerId)> {
        let ready = self.workers.values().filter(|worker| matches!(worker.state, WorkerState::Ready { .. }));
        ready.map(|worker| (worker.slot, worker.id))
    }

    /// Whether a hung worker is killed.
    pub fn kills_hung(&self) -> bool {
        self.policy.hang_kill
    }

    /// How many configurations came before the worker's own.
    #[cfg(test)]
    pub fn generation_of(&self, id: WorkerId) -> Option<u32> {
        self.workers.get(&id).map(|worker| worker.generation)
    }

    /// How many workers of the slot finish what they have.
    pub fn leaving(&self, slot: Slot) -> usize {
        self.in_slot(slot).filter(|worker| !worker.is_staying()).count()
    }

    /// How many workers of the slot were started because the one before had ended by itself.
    pub fn respawned(&self, slot: Slot) -> u64 {
        self.places.get(slot.index()).map_or(0, |place| place.respawned)
    }

    /// How many workers there are, whatever their state.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// How many workers there can be at once before something else happens: those there are, and those that are still
    /// to be started, of a reload or in empty slots.
    pub fn most_workers(&self) -> usize {
        let expects = |place: &&SlotWorkers| match self.reloading {
            Some(generation) => place.generation < generation && place.newcomer.is_none(),
            None if place.incumbent.is_none() => !place.given_up,
            None => place.renewal.is_some() && place.newcomer.is_none(),
        };
        self.workers.len() + self.places.iter().take(self.wanted).filter(expects).count()
    }

    /// Whether the worker has ever been ready.
    pub fn was_ready(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.served)
    }

    /// Whether the worker was asked to leave, made to, or announced it: its end is no surprise.
    pub fn is_leaving(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_none_or(|worker| match worker.state {
            WorkerState::Starting { .. } | WorkerState::Ready { .. } => false,
            WorkerState::Draining { asked, .. } => asked,
            WorkerState::Terminating { .. } | WorkerState::Killed => true,
        })
    }

    /// Whether nothing will happen without an event other than [`super::Event::Tick`].
    pub fn is_settled(&self) -> bool {
        // Of one that was killed only the end is still awaited.
        let rests = |worker: &Worker| matches!(worker.state, WorkerState::Ready { .. } | WorkerState::Killed);
        let filled = |place: &SlotWorkers| place.incumbent.is_some() || place.given_up;
        let nobody_awaited = self.stopping || self.places.iter().take(self.wanted).all(filled);
        self.finished || (self.workers.values().all(rests) && nobody_awaited)
    }
}
