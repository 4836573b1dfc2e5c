//! The life of workers: a pool of slots as a pure state machine, and what starts a process and carries its output.
//!
//! [`pool`] imports neither a clock nor a system call: time is an argument, actions are its answer.

pub mod crew;
pub mod guardian;
pub mod output;
pub mod pool;
pub mod program;
pub mod remains;
