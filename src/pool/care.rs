//! When a worker is replaced though it serves: it is too large or too old; and when a slot whose workers die again and
//! again gets no more. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::worker::WorkerState;
use super::{Action, Pool, SlotWorkers, Time, WorkerId};
use crate::route::Slot;

/// A worker that was too large before it had lived this long is what its program always is: the next one of its slot has
/// to live longer and longer before it is replaced for its size.
const USUAL_LIFE: Duration = Duration::from_secs(60);
/// The first of these times, which double.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest of them.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// A worker is replaced up to this part of its greatest age sooner, so that those that began together do not end so.
const JITTER_SHARE: u32 = 10;

/// Why a slot got a worker in place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself, or was killed for breaking the rules.
    Ended,
    /// It hung, and was killed for it.
    Hung,
    /// It had more memory than it may have.
    Memory,
    /// It was older than it may be.
    Age,
    /// The operator wanted a new worker in this slot.
    Restart,
    /// The operator wanted new workers in all slots.
    Reload,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ended, Self::Hung, Self::Memory, Self::Age, Self::Restart, Self::Reload];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Hung => "hung",
            Self::Memory => "memory",
            Self::Age => "age",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// Why a slot is to get a new worker of the same generation, while it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The operator wants it.
    Asked,
    /// Its worker has so many bytes of resident memory.
    Memory(u64),
    /// Its worker has lived for so long.
    Age(Duration),
}

impl Renewal {
    /// The same without figures.
    pub const fn cause(self) -> Cause {
        match self {
            Self::Asked => Cause::Restart,
            Self::Memory(_) => Cause::Memory,
            Self::Age(_) => Cause::Age,
        }
    }
}

/// How often the worker of a slot may end by itself, and within which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    /// So often it is replaced.
    pub most: usize,
    /// Within this time.
    pub within: Duration,
    /// What happens at the next time.
    pub then: GiveUp,
}

/// What happens where a slot's workers end too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// haft stops.
    Exit,
    /// The slot stays empty until an operator restarts it, unless it is the last.
    Out,
}

/// What of a slot's past decides about its next worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// When its last workers ended by themselves: as many as a limit counts.
    ends: VecDeque<Time>,
    /// Workers in a row that were too large before [`USUAL_LIFE`].
    always_large: u32,
    /// New workers in a row that did not become ready.
    failed: u32,
    /// The next one is tried then.
    not_before: Time,
}

impl Past {
    /// Its worker has ended by itself. Whether that is more often than it may.
    fn ended(&mut self, limit: RestartLimit, now: Time) -> bool {
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|then| now.saturating_sub(*then) > limit.within) {
            self.ends.pop_front();
        }
        self.ends.len() > limit.most
    }

    /// The slot is to have no new worker for a while: the last one did not become ready.
    pub(super) fn renewal_failed(&mut self, now: Time) {
        self.not_before = now + wait(self.failed);
        self.failed += 1;
    }

    /// A new worker has taken over from one that lived so long.
    pub(super) fn renewed(&mut self, why: Renewal, lived: Duration) {
        self.failed = 0;
        match why {
            Renewal::Memory(_) if lived < USUAL_LIFE.max(self.least_life() * 2) => self.always_large += 1,
            _ => self.always_large = 0,
        }
    }

    /// How long a worker has to live until it is replaced for its size.
    fn least_life(&self) -> Duration {
        self.always_large.checked_sub(1).map_or(Duration::ZERO, wait)
    }
}

fn wait(before: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << before.min(16)).min(MAX_WAIT)
}

/// The age at which this worker is replaced.
fn age_limit(most: Duration, seed: u64, worker: WorkerId) -> Duration {
    // The finaliser of splitmix64.
    let mut hash = seed ^ worker.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let part = f64::from((hash >> 32) as u32) / f64::from(u32::MAX);
    most.saturating_sub((most / JITTER_SHARE).mul_f64(part))
}

impl Pool {
    /// What the ages of workers differ by.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// How often the slot got a worker in place of another, for each [`Cause`].
    pub fn replaced(&self, slot: Slot) -> [u64; Cause::ALL.len()] {
        self.places.get(slot.index()).map_or_else(Default::default, |place| place.replaced)
    }

    /// Whether the slot gets no worker until an operator restarts it.
    pub fn is_kept_out(&self, slot: Slot) -> bool {
        self.places.iter().take(self.wanted).nth(slot.index()).is_some_and(|place| place.given_up)
    }

    /// The workers that have to be small enough.
    pub fn to_weigh(&self) -> impl Iterator<Item = WorkerId> {
        self.places.iter().take(self.wanted).filter_map(|place| place.incumbent)
    }

    /// The worker has so many bytes: more than it may.
    pub(super) fn note_size(&mut self, id: WorkerId, bytes: u64, now: Time) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (at, age) = (worker.slot.index(), now.saturating_sub(worker.started));
        if self.places[at].past.least_life() <= age {
            self.want_renewal(at, id, Renewal::Memory(bytes), now);
        }
    }

    /// Looks which workers are older than they may be.
    pub(super) fn note_ages(&mut self, now: Time) {
        let Some(most) = self.policy.max_age else { return };
        for at in 0..self.wanted {
            let Some(worker) = self.places[at].incumbent.and_then(|id| self.workers.get(&id)) else { continue };
            let (id, age) = (worker.id, now.saturating_sub(worker.started));
            if age >= age_limit(most, self.seed, id) {
                self.want_renewal(at, id, Renewal::Age(age), now);
            }
        }
    }

    /// Wants a new worker in place of this one, if it fills its slot, unless that is wanted already or has just failed.
    fn want_renewal(&mut self, at: usize, id: WorkerId, why: Renewal, now: Time) {
        let is_ready = self.workers.get(&id).is_some_and(|worker| matches!(worker.state, WorkerState::Ready { .. }));
        let Some(place) = self.places.get_mut(at).filter(|place| place.incumbent == Some(id)) else { return };
        if is_ready && at < self.wanted && place.renewal.is_none() && now >= place.past.not_before {
            place.renewal = Some(why);
        }
    }

    /// Whether the slot can get the new worker that it is to get: no more than two of one slot live because of care.
    pub(super) fn may_renew(&self, at: usize, why: Renewal) -> bool {
        why == Renewal::Asked || self.in_slot(Slot(at as u16)).count() == 1
    }

    /// A worker that filled its slot has ended by itself, or was killed: gives the slot up if that happens too often.
    pub(super) fn count_end(&mut self, at: usize, now: Time, actions: &mut Vec<Action>) {
        let Some(limit) = self.policy.restarts else { return };
        let mut others = self.places[..self.wanted].iter().enumerate().filter(|(other, _)| *other != at);
        let is_last = !others.any(|(_, place)| !place.given_up && !place.drained);
        let Some(place) = self.places[..self.wanted].get_mut(at) else { return };
        if !place.past.ended(limit, now) || place.given_up || self.stopping {
            return;
        }
        let slot = Slot(at as u16);
        match limit.then {
            GiveUp::Exit => {
                place.given_up = true;
                actions.push(Action::TooManyRestarts(slot));
            }
            // Without it, no client would be served.
            GiveUp::Out if is_last => {}
            GiveUp::Out => {
                place.given_up = true;
                actions.push(Action::KeptOut(slot));
            }
        }
    }
}

impl SlotWorkers {
    /// The operator wants a worker in it again.
    pub(super) fn take_back(&mut self) {
        if std::mem::take(&mut self.given_up) {
            self.forgive();
        }
    }
}
