//! What people and machines may see of a running master: metrics, status, health.
//!
//! The master owns every number. For each request this folder asks it, through [`Control`], for one [`Snapshot`] taken at
//! one instant, and renders that: so the numbers of one answer always fit each other, and nothing is counted twice.
//!
//! | path | what it says |
//! |---|---|
//! | `/metrics` | the numbers, for Prometheus (text format 0.0.4, or OpenMetrics 1.0.0 if the client prefers it) |
//! | `/status` | the same and more, as JSON |
//! | `/healthz` | 200 as long as the master's loop answers |
//! | `/readyz` | 200 if a new connection would find a worker, else 503 and why |
//!
//! It never changes the master's state, never binds a socket, never reads `/proc`, and never answers with more than the
//! snapshot holds.

mod control;
mod families;
mod histogram;
mod metrics;
mod negotiate;
mod pages;
mod server;
mod snapshot;
mod token;

#[cfg(test)]
mod example;
#[cfg(test)]
mod exposition;

pub use control::{Control, ControlError, ControlRequest, channel};
pub use histogram::Histogram;
pub use metrics::encode;
pub use negotiate::Format;
pub use server::{AdminListener, serve};
pub use snapshot::{ExitStatus, SlotState, SlotStatus, Snapshot};
pub use token::{TokenFile, TokenFileError};
