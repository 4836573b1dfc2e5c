//! What others have started and left: its end is taken, it is never mistaken for a worker, and what a dead worker has
//! left in its process group does not outlive the master.

use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::Context;
use super::{Master, MasterError};
use crate::sys::orphans::{self, Reaped};

/// Adopts orphans, as process 1 does, and returns the receiver of their ends.
pub(super) fn adopt() -> Result<Signal, MasterError> {
    if let Err(errno) = orphans::adopt() {
        tracing::warn!(%errno, "what dead workers leave behind cannot be found (PR_SET_CHILD_SUBREAPER)");
    }
    signal(SignalKind::child()).context("preparing for the ends of processes")
}

impl Master {
    /// Takes the ends of processes that are no workers. A worker's exit is collected where it is waited for.
    pub(super) fn reap(&mut self) {
        let crew = &self.supervisor.crew;
        self.reap_again = orphans::reap(|pid| crew.has(pid)) == Reaped::OwnFirst;
    }

    /// Does what is to be done because time has passed.
    pub(super) fn look_after_orphans(&mut self, now: Instant) {
        if self.reap_again || !self.supervisor.crew.remains.is_empty() {
            self.reap();
            self.supervisor.crew.remains.tick(now);
        }
    }

    /// Whether the master may end: nothing is left to do, and no worker is left that finishes.
    pub(super) fn has_ended(&self) -> bool {
        self.supervisor.finished && self.supervisor.crew.remains.is_empty()
    }
}
