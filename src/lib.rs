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
//! A place uses only what stands below it in this table; no file reaches itself again by `use`. A test keeps both.
//!
//! | place | what it is for |
//! |---|---|
//! | [`commands`] | the commands beside running a master, each in a file |
//! | [`master`] | the only loop that waits: it joins the rest, supervises, reloads and stops |
//! | `pending` | the connections whose first request is waited for |
//! | `dispatch` | queues, choosing, the links to the workers; its simulation. No process, no clock |
//! | [`node`] | Node programs as workers: the wire of Node's cluster, its primary, the link to one worker, the preload |
//! | [`flags`] | the command line, the environment and the file |
//! | [`builtin`] | the built-in Socket.IO worker, on `haft-worker` |
//! | [`admin`] | metrics, status, health; control, for callers that may use it |
//! | [`handover`] | what all channels have in common: the connections in flight, the ledger, errors |
//! | [`process`] | what to run for a worker, starting it, its output, the guardian |
//! | `listen` | the listeners that the master accepts from, and the SO_REUSEPORT groups that the kernel assigns from |
//! | [`pool`] | the slots as a pure state machine: which worker starts, drains, is replaced |
//! | `page` | what the chat page and the admin page have in common |
//! | `alarms` | pure: what goes wrong for a while, found in samples of counters, as one line with the cure |
//! | [`log`] | how haft speaks to its operator |
//! | [`config`] | the validated configuration |
//! | `connection` | a connection on its way, and the reasons for refusing it |
//! | [`peek`] | pure: what the first bytes of a connection reveal about its client |
//! | [`route`] | pure: key, hash, order of slots. No clock, no system call |
//! | [`rooms`] | the relay between workers, by which broadcasts of Socket.IO reach the clients of all |
//! | `confine` | what processes and threads of haft's own give up: programs, sockets, files |
//! | [`ids`], [`histogram`] | the numbers by which all else is called; a histogram of durations |
//!
//! Two crates lie below it, in folders of their own:
//!
//! | crate | folder | what it is for |
//! |---|---|---|
//! | [`haft_worker`] | `src/worker` | what a Rust worker uses; the `haft` dialect, with both ends of its channel |
//! | [`haft_sys`] | `src/sys` | the only place with unsafe code and raw system calls: thin, typed, tested; addresses |

#[cfg(test)]
#[global_allocator]
static COUNTING: haft_sys::allocator::counting::Counting = haft_sys::allocator::counting::Counting;

pub(crate) use haft_sys as sys;
pub use haft_sys::addr;

pub mod admin;
mod alarms;
pub mod builtin;
pub mod commands;
pub mod config;
mod confine;
mod connection;
mod dispatch;
pub mod flags;
pub mod handover;
pub mod histogram;
pub mod ids;
mod listen;
pub mod log;
pub mod master;
pub mod node;
mod page;
pub mod peek;
mod pending;
pub mod pool;
pub mod process;
pub mod rooms;
pub mod route;
