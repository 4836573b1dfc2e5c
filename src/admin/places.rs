//! How many connections the admin listener has at once, and which of them give way to a new one.
//!
//! No client can hold the pages by doing nothing: a connection that only waits for its client (for the rest of its
//! request, or for the client to close) gives way to a new one, the oldest first, and some places are not for such
//! connections at all. Only connections whose request is being answered keep the new one waiting, and that is soon
//! over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::task::AbortHandle;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Its request has not come, or not as a whole.
    Head,
    /// The master is asked.
    Answering,
    /// The answer goes out, as fast as the client reads.
    Writing,
    /// The answer has no end, and its client reads it.
    Streaming,
    /// It was answered, and the client has not closed its end.
    Lingering,
}

/// A connection's stage, as the connection reports it.
#[derive(Debug, Clone, Default)]
pub(super) struct StageReport(Arc<AtomicU8>);

impl StageReport {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, stage: Stage) -> bool {
        self.0.load(Ordering::Relaxed) == stage as u8
    }

    /// Whether nothing is done for it: it waits for its client.
    fn is_idle(&self) -> bool {
        self.is(Stage::Head) || self.is(Stage::Lingering)
    }
}

/// The connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(AbortHandle, StageReport)>);

impl Places {
    /// One more connection.
    pub(super) fn take(&mut self, task: AbortHandle, progress: StageReport) {
        self.0.push((task, progress));
    }

    /// Whether one more has a place, where at most `most` may be there, and at most `idle` of them may be idle.
    pub(super) fn has_room(&mut self, most: usize, idle: usize) -> bool {
        self.0.retain(|(task, _)| !task.is_finished());
        self.0.len() < most && self.0.iter().filter(|(_, progress)| progress.is_idle()).count() < idle
    }

    /// Ends the oldest connection that is idle, or else the oldest whose client does not read, or else the oldest
    /// stream.
    /// `false`: there is none.
    pub(super) fn push_out(&mut self) -> bool {
        let first = |is: fn(&StageReport) -> bool| self.0.iter().position(|(_, progress)| is(progress));
        let slow = || first(|progress| progress.is(Stage::Writing));
        let stream = || first(|progress| progress.is(Stage::Streaming));
        let Some(at) = first(StageReport::is_idle).or_else(slow).or_else(stream) else { return false };
        let (task, _) = self.0.remove(at);
        task.abort();
        true
    }
}
