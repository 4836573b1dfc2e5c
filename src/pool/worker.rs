//! One worker of the pool: its state, and the steps from asking it to go to making it.

use std::time::Duration;

use super::{Action, Policy, Time, WorkerId};
use crate::route::Slot;

/// How long a worker has between SIGTERM and SIGKILL.
pub(super) const TERMINATION_GRACE: Duration = Duration::from_secs(2);

/// How long it has between SIGTERM and SIGKILL when the operator has asked for the end twice.
pub(super) const LAST_GRACE: Duration = Duration::from_millis(500);

/// A program that handles a signal gets it when this part of its time to finish is left, if not before.
const SHARE_FOR_SIGNAL: u32 = 5;

/// A stop leaves this part of its time between SIGTERM and SIGKILL, [`TERMINATION_GRACE`] at most.
const SHARE_FOR_TERMINATION: u32 = 10;

/// When a stop is over, whatever its workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopDeadline {
    /// Workers that are left get SIGTERM.
    pub terminate: Time,
    /// Workers that are left get SIGKILL.
    pub kill: Time,
}

impl StopDeadline {
    pub fn new(now: Time, end: Time) -> Self {
        let grace = TERMINATION_GRACE.min(end.saturating_sub(now) / SHARE_FOR_TERMINATION);
        Self { terminate: end.saturating_sub(grace), kill: end }
    }
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    Starting {
        since: Time,
    },
    /// `hung`: there are [`Signs`] of it.
    Ready {
        hung: bool,
    },
    /// `asked`: it was asked to, or announced it; otherwise it only closed its channel.
    Draining {
        until: Time,
        asked: bool,
    },
    Terminating {
        until: Time,
    },
    Killed,
}

/// By what a worker is known to hang, if it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// It acknowledges nothing.
    pub silent: bool,
    /// It does not answer the health check.
    pub unhealthy: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub slot: Slot,
    pub generation: u32,
    pub started: Time,
    pub state: WorkerState,
    /// By what it is known to hang.
    pub signs: Signs,
    /// Whether it has ever been ready.
    pub served: bool,
    /// Whether the pool has no use for it any more, by no fault of its own.
    pub retired: bool,
    /// When it is to be sent the signal by which its program learns that it is to finish.
    signal_at: Option<Time>,
    /// Whether it was sent that, or SIGTERM.
    pub signalled: bool,
    /// Whether that was SIGTERM, for its program to handle.
    pub handles_term: bool,
}

impl Worker {
    pub fn new(id: WorkerId, slot: Slot, generation: u32, now: Time) -> Self {
        let state = WorkerState::Starting { since: now };
        let (served, retired, signal_at, signalled, handles_term) = (false, false, None, false, false);
        let signs = Signs::default();
        Self { id, slot, generation, started: now, state, signs, served, retired, signal_at, signalled, handles_term }
    }

    /// Whether it is there to stay: it starts, or takes connections.
    pub fn is_staying(&self) -> bool {
        matches!(self.state, WorkerState::Starting { .. } | WorkerState::Ready { .. })
    }

    /// It is wanted no more: if it has clients it may finish with them.
    pub fn retire(&mut self, now: Time, within: Duration, actions: &mut Vec<Action>) {
        self.retired = true;
        match self.state {
            // It has no client: there is nothing to finish.
            WorkerState::Starting { .. } => self.terminate(now, actions),
            WorkerState::Ready { .. } => {
                self.state = WorkerState::Draining { until: now + within, asked: true };
                self.signal_at = Some(now + (within - within / SHARE_FOR_SIGNAL));
                actions.push(Action::Drain { worker: self.id, within });
            }
            WorkerState::Draining { .. } | WorkerState::Terminating { .. } | WorkerState::Killed => {}
        }
    }

    /// If it finishes, its program learns so by a signal now, and has no more time for it than this.
    pub fn hasten(&mut self, now: Time, within: Option<Duration>) {
        if let WorkerState::Draining { until, .. } = &mut self.state {
            self.signal_at = Some(now);
            *until = within.map_or(*until, |within| (*until).min(now + within));
        }
    }

    /// The operator has asked for the end twice: a program that handles SIGTERM has a moment for it.
    pub fn end_now(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.state {
            WorkerState::Draining { .. } if !self.signalled => {
                self.terminate(now, actions);
                self.state = WorkerState::Terminating { until: now + LAST_GRACE };
            }
            _ => self.kill(actions),
        }
    }

    /// Its time to finish is over, or it has nothing to finish. A program that is at its end since SIGTERM does not get it
    /// again: a handler that is called once leaves the second one to the kernel, which ends the process.
    pub fn terminate(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.state = WorkerState::Terminating { until: now + TERMINATION_GRACE };
        self.signalled = true;
        if !self.handles_term {
            actions.push(Action::Terminate(self.id));
        }
    }

    /// Its remaining work is unknown: it is asked to end, and killed no sooner than it would have been.
    pub fn finished(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let WorkerState::Draining { until, .. } = self.state {
            self.terminate(now, actions);
            self.state = WorkerState::Terminating { until: until.max(now) + TERMINATION_GRACE };
        }
    }

    pub fn kill(&mut self, actions: &mut Vec<Action>) {
        if self.state != WorkerState::Killed {
            self.state = WorkerState::Killed;
            actions.push(Action::Kill(self.id));
        }
    }

    /// Whether it should have been ready by now.
    pub fn is_overdue(&self, now: Time, policy: Policy) -> bool {
        matches!(self.state, WorkerState::Starting { since } if now >= since + policy.start_timeout)
    }

    /// What becomes of one that goes as time passes. With a deadline, none outlives it.
    pub fn escalate(&mut self, now: Time, deadline: Option<StopDeadline>, actions: &mut Vec<Action>) {
        if let Some(deadline) = deadline {
            match &mut self.state {
                _ if now >= deadline.kill => return self.kill(actions),
                WorkerState::Draining { until, .. } => *until = (*until).min(deadline.terminate),
                WorkerState::Terminating { until } => *until = (*until).min(deadline.kill),
                WorkerState::Starting { .. } | WorkerState::Ready { .. } | WorkerState::Killed => {}
            }
        }
        match self.state {
            WorkerState::Draining { until, .. } if now < until && self.signal_at.is_some_and(|at| now >= at) => {
                self.signal_at = None;
                if !self.signalled {
                    actions.push(Action::Signal(self.id));
                }
            }
            WorkerState::Draining { until, .. } if now >= until => {
                self.terminate(now, actions);
                if let (WorkerState::Terminating { until }, Some(deadline)) = (&mut self.state, deadline) {
                    *until = (*until).min(deadline.kill);
                }
            }
            WorkerState::Terminating { until } if now >= until => self.kill(actions),
            _ => {}
        }
    }
}
