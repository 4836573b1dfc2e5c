//! What the operator may want of a pool that runs: new workers in place of the old ones, more or fewer slots, a slot
//! left alone.

use super::worker::{StopDeadline, WorkerState};
use super::{Action, INTERRUPT_TIME, Pool, Renewal, SlotWorkers, Time, WorkerId};
use crate::route::Slot;

impl Pool {
    /// Whether new workers are taking the places of the old ones.
    pub fn is_reloading(&self) -> bool {
        self.reloading.is_some()
    }

    /// Whether the pool is to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether an operator at the terminal stopped it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Whether the worker was sent a signal by which it learns that it is to finish, or one that is there no more.
    pub fn was_signalled(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_none_or(|worker| worker.signalled)
    }

    /// The worker is being sent such a signal. `is_term`: it is SIGTERM.
    pub fn note_signal(&mut self, id: WorkerId, is_term: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.signalled = true;
            worker.handles_term = is_term;
        }
    }

    /// A stop has begun, and is over at `end` in any case: a worker that is left then gets SIGKILL, and SIGTERM
    /// a moment before.
    pub fn end_by(&mut self, now: Time, end: Time) {
        self.deadline = Some(StopDeadline::new(now, end));
    }

    /// How much time a worker that gets DRAIN now has, where a stop has begun.
    pub fn time_left(&self, now: Time) -> Option<Time> {
        self.deadline.map(|deadline| deadline.terminate.saturating_sub(now))
    }

    /// The newest generation: how many reloads have begun.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The generations that a worker may be started with from now on.
    pub fn generations(&self) -> impl Iterator<Item = u32> + '_ {
        let places = self.places.iter().take(self.wanted).map(|place| place.generation);
        places.chain([self.generation]).chain(self.reloading)
    }

    /// How many slots there are for clients.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether the operator has taken the slot out.
    pub fn is_drained(&self, slot: Slot) -> bool {
        self.places.get(slot.index()).is_some_and(|place| place.drained)
    }

    /// Whether the slot is to get a new worker, or is getting it.
    pub fn is_renewing(&self, slot: Slot) -> bool {
        self.places.iter().take(self.wanted).nth(slot.index()).is_some_and(|place| place.renewal.is_some())
    }

    /// Starts a reload, unless one is under way.
    pub(super) fn reload(&mut self) {
        if !self.stopping && self.reloading.is_none() {
            self.newest += 1;
            self.reloading = Some(self.newest);
            // Every slot gets a new worker now.
            self.places.iter_mut().for_each(|place| place.renewal = None);
        }
    }

    /// Sets the number of slots. A slot that is wanted again begins anew.
    pub(super) fn scale(&mut self, slots: usize, now: Time, actions: &mut Vec<Action>) {
        if self.stopping || slots == 0 {
            return;
        }
        let before = self.wanted;
        self.wanted = slots;
        for at in before..slots {
            match self.places.get_mut(at) {
                Some(old) => *old = old.anew(self.generation),
                None => self.places.push(SlotWorkers::added(self.generation)),
            }
        }
        for at in slots..before {
            self.vacate(at, now, actions);
        }
    }

    /// Takes a slot out, or back in.
    pub(super) fn set_drained(&mut self, slot: Slot, drained: bool) {
        let wanted = self.wanted;
        if let Some(place) = self.places.iter_mut().take(wanted).nth(slot.index()) {
            place.drained = drained;
        }
    }

    /// The slot is to stay empty.
    pub(super) fn vacate(&mut self, at: usize, now: Time, actions: &mut Vec<Action>) {
        let within = self.policy.drain_timeout;
        let within = if self.interrupted { within.min(INTERRUPT_TIME) } else { within };
        let within = self.time_left(now).map_or(within, |left| within.min(left));
        let Some(place) = self.places.get_mut(at) else { return };
        for id in [place.incumbent.take(), place.newcomer.take()].into_iter().flatten() {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.retire(now, within, actions);
            }
        }
    }

    /// Starts the next slot's new worker, when the one before has taken over.
    pub(super) fn advance_reload(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(generation) = self.reloading else { return };
        match self.places.iter().take(self.wanted).position(|place| place.generation < generation) {
            Some(at) if self.places[at].newcomer.is_none() => {
                let id = self.start(at, generation, now, actions);
                self.places[at].newcomer = Some(id);
            }
            Some(_) => {}
            None => {
                self.reloading = None;
                self.generation = generation;
                actions.push(Action::Reloaded { generation });
            }
        }
    }

    /// The newcomer of a slot can serve: it takes over from the slot's old worker.
    pub(super) fn take_over(&mut self, at: usize, now: Time, actions: &mut Vec<Action>) {
        let place = &mut self.places[at];
        let Some(newcomer) = place.newcomer.take() else { return };
        let old = place.incumbent;
        if let Some(worker) = self.workers.get(&newcomer) {
            let age = old.and_then(|old| self.workers.get(&old)).map(|old| now.saturating_sub(old.started));
            place.take_over(newcomer, worker.generation, age);
        }
        let within = self.policy.drain_timeout;
        if let Some(old) = old.and_then(|old| self.workers.get_mut(&old)) {
            old.retire(now, within, actions);
        }
    }

    /// Wants a new worker in place of a slot's.
    pub(super) fn renew(&mut self, slot: Slot) {
        let wanted = self.wanted;
        if let Some(place) = self.places.iter_mut().take(wanted).nth(slot.index()) {
            place.renewal = Some(Renewal::Asked);
            place.take_back();
        }
    }

    /// Starts the new worker of the next slot that is to get one, unless another slot is about to get its own.
    pub(super) fn advance_renewal(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.reloading.is_some() || self.places.iter().any(|place| place.newcomer.is_some()) {
            return;
        }
        // The oldest first, so that each slot's turn comes however often the others are due.
        let mut due: Vec<usize> = (0..self.wanted).filter(|at| self.places[*at].renewal.is_some()).collect();
        due.sort_by_key(|at| self.places[*at].incumbent);
        for at in due {
            let Some(why) = self.places[at].renewal else { continue };
            let is_ready =
                |id| self.workers.get(&id).is_some_and(|worker| matches!(worker.state, WorkerState::Ready { .. }));
            if let Some(old) = self.places[at].incumbent.filter(|id| is_ready(*id)) {
                if !self.may_renew(at, why) {
                    continue;
                }
                let age = self.workers.get(&old).map_or(Time::ZERO, |worker| now.saturating_sub(worker.started));
                let id = self.start(at, self.places[at].generation, now, actions);
                self.places[at].newcomer = Some(id);
                if why != Renewal::Asked {
                    actions.push(Action::Renewing { slot: Slot(at as u16), worker: old, why, age });
                }
                return;
            }
            // What fills it next is new already.
            self.places[at].renewal = None;
        }
    }

    /// The newcomer of a slot will not be ready. The slot keeps its old worker, and a reload ends here.
    pub(super) fn lose_newcomer(&mut self, at: usize, now: Time, actions: &mut Vec<Action>) {
        let place = &mut self.places[at];
        place.renewal = None;
        place.past.renewal_failed(now);
        let newcomer = place.newcomer.take().and_then(|id| self.workers.get_mut(&id));
        let generation = newcomer.map(|worker| {
            worker.retired = true;
            worker.generation
        });
        let slot = Slot(at as u16);
        match self.reloading.take_if(|reloading| generation == Some(*reloading)) {
            Some(generation) => actions.push(Action::ReloadFailed { slot, generation }),
            None => actions.push(Action::RenewalFailed(slot)),
        }
    }
}
