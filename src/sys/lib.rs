//! The only place with unsafe code and raw system calls: thin, typed, tested.
//!
//! Descriptors are borrowed in (`BorrowedFd`) and owned out (`OwnedFd`); a raw number never leaves this folder.
//! "Not ready" is a variant, never a magic value. Nothing here knows of workers, slots or routing.
//!
//! This crate is a part of haft and of haft-worker: its interface changes as they need it, in any release.

pub mod accept;
#[cfg(feature = "master")]
pub mod account;
#[cfg(feature = "master")]
mod activation;
pub mod addr;
pub mod allocator;
pub mod close_on_exec;
pub mod closing;
pub mod descriptors;
#[cfg(feature = "master")]
pub mod detached;
#[cfg(feature = "master")]
pub mod folder;
pub mod inherit;
#[cfg(feature = "master")]
pub mod input;
#[cfg(feature = "master")]
pub mod listen;
#[cfg(feature = "master")]
pub mod local_time;
#[cfg(feature = "master")]
pub mod name_service;
#[cfg(feature = "master")]
pub mod notify;
#[cfg(feature = "master")]
pub mod oom;
#[cfg(feature = "master")]
pub mod orphans;
#[cfg(feature = "master")]
pub mod own_program;
pub mod page;
#[cfg(feature = "master")]
pub mod passed;
#[cfg(feature = "master")]
pub mod peek;
#[cfg(feature = "master")]
pub mod pidfd;
#[cfg(feature = "master")]
pub mod placeholder;
pub mod poller;
#[cfg(feature = "master")]
pub mod probe;
#[cfg(feature = "master")]
pub mod process;
#[cfg(feature = "master")]
pub mod resident;
#[cfg(feature = "master")]
pub mod reuseport;
pub mod rights;
pub mod scm;
#[cfg(feature = "master")]
mod sharing;
#[cfg(feature = "master")]
pub mod signals;
#[cfg(feature = "master")]
pub mod terminal;
#[cfg(feature = "master")]
pub mod trust;
#[cfg(feature = "master")]
mod unix_socket;
#[cfg(feature = "master")]
pub mod usage;
