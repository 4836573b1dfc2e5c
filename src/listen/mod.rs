//! Listening: the listeners that the master accepts from, and the SO_REUSEPORT groups that the kernel assigns from.
//!
//! Nothing here chooses a worker for a connection.

pub mod accept;
pub mod kernel;
pub mod listeners;
