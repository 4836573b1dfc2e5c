//! What an operator can change, and why a change, or an answer, may not come.

/// What an operator can change while haft runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Replace every worker by a new one, slot by slot.
    Reload,
    /// Have another number of slots.
    Scale {
        /// From 1 to [`crate::config::MAX_WORKERS`].
        workers: usize,
    },
    /// Give slots new workers of the same version, one slot after another.
    Restart {
        /// The only slot that is to get one, as in [`Change::Drain`]. None: each.
        slot: Option<usize>,
    },
    /// End, as SIGTERM ends it.
    Stop,
    /// Give a slot no new connections.
    Drain {
        /// The slot's number, below [`crate::config::MAX_WORKERS`]; there need not be such a slot.
        slot: usize,
    },
    /// Give a drained slot connections again.
    Undrain {
        /// As in [`Change::Drain`].
        slot: usize,
    },
}

/// Why the master did not change anything. Each text names the thing and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not now (HTTP: 409 Conflict).
    #[error("{0}")]
    Busy(String),
    /// Never as it was asked (HTTP: 400 Bad Request).
    #[error("{0}")]
    Impossible(String),
}

/// Why the master gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Its loop has ended, or ended with the request unanswered.
    #[error("the master has stopped")]
    Stopped,
    /// Its loop is there and did not answer within the time allowed.
    #[error("the master did not answer in time")]
    Late,
}
