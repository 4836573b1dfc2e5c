//! What is on its way to a worker: the `haft` dialect (of `haft-worker`), and what waits for room on a channel.
//!
//! Nothing here chooses a worker, starts one, or reads a byte of a client's.

pub use haft_worker::protocol as haft;

pub mod outbox;
