//! A slot's state: the worker that fills it, the one that is to, and how long to wait after a death.

use std::time::Duration;

use super::care::Past;
use super::{Cause, Renewal, Time, WorkerId};

/// The first wait before a dead worker is replaced; it doubles from one death to the next.
pub(super) const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest wait before a dead worker is replaced.
pub(super) const MAX_BACK_OFF: Duration = Duration::from_secs(10);
/// A worker that lived this long was a good one: its death is the first again.
const GOOD_LIFE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub(super) struct SlotWorkers {
    /// The worker that fills it: starting, or ready.
    pub incumbent: Option<WorkerId>,
    /// The worker that is to take over, once ready.
    pub newcomer: Option<WorkerId>,
    /// Its worker is to be replaced by a new one of the same generation.
    pub renewal: Option<Renewal>,
    /// What became of those before.
    pub past: Past,
    /// Of the worker that fills it next.
    pub generation: u32,
    /// Deaths in a row without a good life between them.
    deaths: u32,
    /// Deaths in a row before the worker was ready.
    pub failed_starts: u32,
    not_before: Time,
    /// Why its last worker went, if that was by itself.
    lost: Option<Cause>,
    /// Workers started because the one before went by itself.
    pub respawned: u64,
    /// How often it got a worker in place of another, for each [`Cause`].
    pub replaced: [u64; Cause::ALL.len()],
    /// It gets no worker until the operator wants it.
    pub given_up: bool,
    /// The operator has taken it out: no new client comes to it.
    pub drained: bool,
    /// It was added to a pool that serves, and no worker of it has been ready yet: no client sticks to it.
    pub is_new: bool,
}

impl SlotWorkers {
    /// Its worker goes for reasons of its own: the next one has to wait a while.
    pub fn lose(&mut self, cause: Cause, lived: Option<Duration>, now: Time) {
        self.incumbent = None;
        if lived.is_some_and(|lived| lived >= GOOD_LIFE) {
            self.deaths = 0;
        }
        self.not_before = now + back_off(self.deaths);
        self.deaths += 1;
        self.lost = Some(cause);
    }

    /// What became of its workers is not held against the next one.
    pub fn forgive(&mut self) {
        (self.deaths, self.failed_starts, self.not_before, self.past) = (0, 0, Time::ZERO, Past::default());
    }

    /// It has a worker again.
    pub fn fill(&mut self, worker: WorkerId) {
        self.incumbent = Some(worker);
        if let Some(cause) = self.lost.take() {
            self.respawned += 1;
            self.replaced[cause as usize] += 1;
        }
    }

    /// A newcomer has taken over, from a worker of this age if there was one: what became of those before it is not held
    /// against it.
    pub fn take_over(&mut self, newcomer: WorkerId, generation: u32, old: Option<Duration>) {
        self.fill(newcomer);
        let why = self.renewal.take().filter(|_| generation == self.generation);
        if let Some(lived) = old {
            self.replaced[why.map_or(Cause::Reload, Renewal::cause) as usize] += 1;
            why.into_iter().for_each(|why| self.past.renewed(why, lived));
        }
        (self.generation, self.deaths, self.given_up) = (generation, 0, false);
    }

    /// A place as new, which remembers only what is counted.
    pub fn anew(&self, generation: u32) -> Self {
        Self { respawned: self.respawned, replaced: self.replaced, ..Self::added(generation) }
    }

    /// A place that is added to a pool that serves.
    pub fn added(generation: u32) -> Self {
        Self { generation, is_new: true, ..Self::default() }
    }

    /// Whether a worker is to be started in it now.
    pub fn is_vacant(&self, now: Time) -> bool {
        self.incumbent.is_none() && self.newcomer.is_none() && !self.given_up && now >= self.not_before
    }
}

/// The wait before a replacement after so many earlier deaths in a row.
fn back_off(earlier_deaths: u32) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << earlier_deaths.min(16)).min(MAX_BACK_OFF)
}
