//! The only place with unsafe code and raw system calls: thin, typed, tested.
//!
//! Descriptors are borrowed in (`BorrowedFd`) and owned out (`OwnedFd`); a raw number never leaves this folder.
//! "Not ready" is a variant, never a magic value. Nothing here knows of workers, slots or routing.
//!
//! This crate is a part of haft and of haft-worker: its interface changes as they need it, in any release.

pub mod accept;
mod activation;
pub mod addr;
pub mod allocator;
pub mod close_on_exec;
pub mod closing;
pub mod code;
pub mod descriptors;
pub mod detached;
pub mod folder;
pub mod inherit;
pub mod input;
pub mod listen;
pub mod local_time;
pub mod notify;
pub mod oom;
pub mod orphans;
pub mod page;
pub mod passed;
pub mod peek;
pub mod pidfd;
pub mod poller;
pub mod probe;
pub mod process;
pub mod reuseport;
pub mod rights;
pub mod scm;
mod sharing;
pub mod signals;
pub mod terminal;
pub mod trust;
mod unix_socket;
pub mod usage;
