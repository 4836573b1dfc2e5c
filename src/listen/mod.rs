//! Listening: the listeners that the master accepts from, the gate with the limits for clients, and the SO_REUSEPORT groups that the kernel assigns from.
//!
//! Nothing here chooses a worker for a connection.

pub mod accept;
pub mod gate;
pub mod kernel;
pub mod listeners;
mod offenders;
