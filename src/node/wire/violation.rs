//! What no worker may say.

use super::raw::MalformedMessage;

/// An impossible message of a worker, which is not to be trusted any further.
#[derive(Debug, thiserror::Error)]
pub enum IpcViolation {
    /// No message.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// It acknowledged a descriptor, or the lack of one, when none was on its way.
    #[error("acknowledged a descriptor that was never sent")]
    NothingToAcknowledge,
    /// It answered what was not asked.
    #[error("answered message {ack}, but only those below {sent} were sent")]
    AnsweredUnsent {
        /// What it named.
        ack: u64,
        /// What is true.
        sent: u64,
    },
    /// It gets sockets of servers and does not acknowledge them.
    #[error("does not acknowledge the sockets that it asked for ({sockets} of them)")]
    DoesNotAcknowledge {
        /// How many.
        sockets: usize,
    },
    /// It asks and asks and does not read the answers.
    #[error("does not read its messages ({queued} bytes wait)")]
    DoesNotRead {
        /// What waits for it.
        queued: usize,
    },
}
