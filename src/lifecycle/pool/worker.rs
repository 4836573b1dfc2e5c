//! One worker of the pool: its state, and the steps from asking it to go to making it.

use std::time::Duration;

use super::{Action, Policy, Time, WorkerId};
use crate::route::Slot;

/// How long a worker has between SIGTERM and SIGKILL.
pub(super) const TERMINATION_GRACE: Duration = Duration::from_secs(2);

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting {
        since: Time,
    },
    /// `hung`: it acknowledges nothing though it has connections to take.
    Ready {
        hung: bool,
    },
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

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub slot: Slot,
    pub generation: u32,
    pub started: Time,
    pub state: State,
    /// Whether it has ever been ready.
    pub served: bool,
    /// Whether the pool has no use for it any more, by no fault of its own.
    pub retired: bool,
}

impl Worker {
    pub fn new(id: WorkerId, slot: Slot, generation: u32, now: Time) -> Self {
        let state = State::Starting { since: now };
        Self { id, slot, generation, started: now, state, served: false, retired: false }
    }

    /// Whether it is there to stay: it starts, or takes connections.
    pub fn is_staying(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready { .. })
    }

    /// It is wanted no more: if it has clients it may finish with them.
    pub fn retire(&mut self, now: Time, policy: Policy, actions: &mut Vec<Action>) {
        self.retired = true;
        match self.state {
            // It has no client: there is nothing to finish.
            State::Starting { .. } => self.terminate(now, actions),
            State::Ready { .. } => {
                self.state = State::Draining { until: now + policy.drain_timeout, told: true };
                actions.push(Action::Drain { worker: self.id, within: policy.drain_timeout });
            }
            State::Draining { .. } | State::Terminating { .. } | State::Killed => {}
        }
    }

    /// Its time to finish is over, or it has nothing to finish.
    pub fn terminate(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.state = State::Terminating { until: now + TERMINATION_GRACE };
        actions.push(Action::Terminate(self.id));
    }

    /// Nobody can see what else it has to do: it is asked to end, and made to no sooner than it would have been.
    pub fn finished(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let State::Draining { until, .. } = self.state {
            self.terminate(now, actions);
            self.state = State::Terminating { until: until.max(now) + TERMINATION_GRACE };
        }
    }

    pub fn kill(&mut self, actions: &mut Vec<Action>) {
        if self.state != State::Killed {
            self.state = State::Killed;
            actions.push(Action::Kill(self.id));
        }
    }

    /// Whether it should have been ready by now.
    pub fn is_overdue(&self, now: Time, policy: Policy) -> bool {
        matches!(self.state, State::Starting { since } if now >= since + policy.start_timeout)
    }

    /// What becomes of one that goes as time passes.
    pub fn escalate(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.state {
            State::Draining { until, .. } if now >= until => self.terminate(now, actions),
            State::Terminating { until } if now >= until => self.kill(actions),
            _ => {}
        }
    }
}
