//! What others have started and left: its end is taken, it is never mistaken for a worker, and what a dead worker has
//! left in its process group does not outlive the master.

use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::MasterError;
use super::error::Context;
use crate::process::crew::Processes;
use crate::sys::orphans::{self, Reaped};

/// Adopts orphans, as process 1 does, and returns the receiver of their ends.
pub(super) fn adopt() -> Result<Signal, MasterError> {
    if let Err(errno) = orphans::adopt() {
        tracing::warn!(%errno, "what dead workers leave behind cannot be found (PR_SET_CHILD_SUBREAPER)");
    }
    signal(SignalKind::child()).context("preparing for the ends of processes")
}

/// Processes that are no workers.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// The end of one may still have to be taken.
    reap_again: bool,
}

impl Orphans {
    /// Takes the ends of processes that are no workers. A worker's exit is collected where it is waited for.
    pub(super) fn reap(&mut self, crew: &Processes) {
        self.reap_again = orphans::reap(|pid| crew.has(pid)) == Reaped::OwnFirst;
    }

    /// Does what is to be done because time has passed.
    pub(super) fn tick(&mut self, crew: &mut Processes, now: Instant) {
        if self.depends_on_time(crew) {
            self.reap(crew);
            crew.remains.tick(now);
        }
    }

    /// Whether something happens without an event.
    pub(super) fn depends_on_time(&self, crew: &Processes) -> bool {
        self.reap_again || !crew.remains.is_empty()
    }
}
