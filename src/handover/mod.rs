//! The hand-over: the two ends of a channel between the master and a worker.
//!
//! One type per end, so that each can send only its own messages; one folder per dialect. The codecs are pure. Nothing
//! here chooses a worker, starts one, or reads a byte of a client's.

pub mod haft;
pub mod outbox;
