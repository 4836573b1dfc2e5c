//! What the channels to all workers have in common, whatever their dialect: what is in flight on them, the ledger,
//! their events, why one failed. The `haft` dialect itself is `haft-worker`'s.
//!
//! Nothing here chooses a worker, starts one, or reads a byte of a client's.

pub use haft_worker::protocol as haft;

pub(crate) mod channel;
pub(crate) mod error;
pub(crate) mod in_flight;
pub(crate) mod ledger;
pub mod outbox;
pub mod trace;
