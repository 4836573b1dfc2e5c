//! haft: a sticky-session TCP load balancer for one multi-core Linux host.
//!
//! A master accepts each connection with reading paused, chooses a worker by a hash of the client's address, hands the
//! raw socket to a pre-forked worker over a Unix domain socket (SCM_RIGHTS), and is out of the way: not one byte of the
//! connection passes through it, and it keeps no memory for it.
//!
//! # The journey of one connection
//!
//! ```text
//! listener ──accept──▶ Accepted ──choose──▶ Assigned ──hand over──▶ Delivered ──▶ the worker serves it
//!                          └───────────────────┴──────▶ Refused { reason }
//! ```
//!
//! `accepted = delivered + refused + in flight` holds at every moment and is exported.
//!
//! # The house
//!
//! | folder | what it is for |
//! |---|---|
//! | [`config`] | what was typed, and the validated configuration that comes of it |
//! | [`addr`] | addresses, named by their role |
//! | [`route`] | pure: key, hash, order of slots. No clock, no system call |
//! | [`sys`] | the only place with unsafe code and raw system calls |
//! | [`worker`] | the library a Rust worker uses, and the built-in Socket.IO worker |
//! | [`admin`] | metrics, status, health |

pub mod addr;
pub mod admin;
pub mod config;
pub mod flags;
pub mod handover;
pub mod lifecycle;
pub mod log;
pub mod master;
pub mod route;
pub mod sys;
pub mod worker;
