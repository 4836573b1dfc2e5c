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
//! | place | what it is for |
//! |---|---|
//! | [`flags`], [`config`] | what was typed and what the file says; the validated configuration that comes of it |
//! | [`master`] | the only loop that waits: accept, assign, hand over, supervise |
//! | [`route`] | pure: key, hash, order of slots. No clock, no system call |
//! | [`peek`] | pure: what the first bytes of a connection say about its client |
//! | [`handover`] | the two ends of a channel, one type per role, one folder per dialect; the codecs are pure |
//! | [`lifecycle`] | the pool of slots as a pure state machine (who starts, drains, reloads); the processes and what they write |
//! | [`worker`] | the library that a Rust worker uses; the built-in Socket.IO worker |
//! | [`admin`] | metrics, status, health; control, for those who may |
//! | [`sys`] | the only place with unsafe code and raw system calls: thin, typed, tested |
//! | [`commands`] | the commands beside running a master, each in a file |
//! | [`addr`], [`log`] | addresses, named by their role; how haft speaks to its operator |

pub mod addr;
pub mod admin;
pub mod commands;
pub mod config;
pub mod flags;
pub mod handover;
pub mod lifecycle;
pub mod log;
pub mod master;
pub mod peek;
pub mod route;
pub mod sys;
pub mod worker;
