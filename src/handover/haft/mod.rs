//! The `haft` dialect: what the master and a worker of haft's own kind say to each other.
//!
//! This page is the whole of the wire; `examples/worker.py` is a worker written from it.
//!
//! # The channel
//!
//! A pair of Unix sockets of type SOCK_SEQPACKET, one end in the master, one in the worker. Each message is one frame.
//! The worker finds its end in the descriptor whose number is in the environment variable `HAFT_CHANNEL_FD`; beside it
//! are `HAFT_SLOT` (0 to N-1), `HAFT_WORKERS` (N), `HAFT_GENERATION` and `HAFT_WORKER` (a number that no other
//! worker of this master has or had). The worker should clear them from its environment and make the descriptor
//! close-on-exec, so that its own children do not hold the channel.
//!
//! # Frames
//!
//! Numbers are little-endian. Every frame starts with 8 bytes:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind |
//! | 2 | 2 | count of entries (CONNECTIONS), otherwise 0 |
//! | 4 | 4 | 0; reserved, to be ignored by the receiver |
//!
//! From the master:
//!
//! | kind | name | after the first 8 bytes |
//! |---|---|---|
//! | 1 | CONNECTIONS | `count` entries of 64 bytes, 1 to 253; as many descriptors in SCM_RIGHTS, in the same order |
//! | 2 | DRAIN | u32: milliseconds until the worker is made to end |
//!
//! From the worker:
//!
//! | kind | name | after the first 8 bytes |
//! |---|---|---|
//! | 129 | READY | u64 `limit` |
//! | 130 | TAKEN | u64 `below`, u64 `limit`, u32 `open` |
//! | 131 | RETURNED | u64 `first`, u32 `count` |
//!
//! An entry:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | sequence number: 0 for the first connection on this channel, then one more for each |
//! | 8 | 2 | number of the listener that took it, in the order of `--listen`, from 0 |
//! | 10 | 6 | 0; reserved |
//! | 16 | 24 | the client's address |
//! | 40 | 24 | the address at our end |
//!
//! An address:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 1 | family: 0 Unix socket (no address), 4 IPv4, 6 IPv6 |
//! | 1 | 1 | 0; reserved |
//! | 2 | 2 | port |
//! | 4 | 16 | the address in network order; of IPv4 the first 4 bytes, then 0 |
//! | 20 | 4 | scope of a link-local IPv6 address, else 0 |
//!
//! # The rules
//!
//! 1. The worker sends READY when it can serve, before anything else. `limit` is a promise: it has room for the
//!    connections with sequence numbers below `limit`. The master never sends one that is not below the newest limit,
//!    and a later limit is never lower.
//! 2. TAKEN says: every connection below `below` is mine (but for those I returned). The worker sends it **before it
//!    reads the first byte** of any of them, because the master then forgets them; until then it keeps a copy and gives
//!    them to another worker if this one dies. `open` is how many connections the worker has open, for display.
//!    It is cumulative: one TAKEN may answer many frames. It may also be sent only to raise `limit`.
//! 3. A worker that is short of descriptors gets fewer than the frame has entries, and MSG_CTRUNC. It has those at the
//!    front. It sends RETURNED for the missing ones, as a range, and TAKEN for the whole frame after that.
//!    It may return others too; it must then close its descriptor without having read from it.
//! 4. After DRAIN the worker gets no more connections. It finishes what it has and exits; the end of the stream (the
//!    master is gone) means the same, without a time. Frames sent before either arrive first and are served.
//! 5. A frame that breaks these rules ends the worker that sent it (SIGKILL); nobody else notices.
//! 6. Descriptors come non-blocking and unread. Receive with room for 253 and with MSG_CMSG_CLOEXEC.

mod frame;
mod master_end;
mod worker_end;

pub use frame::{Entry, FrameError, FromMaster, FromWorker, MAX_CONNECTIONS};
pub use master_end::MasterEnd;
pub use worker_end::{Heard, WorkerEnd};

use std::io;

/// Why nothing more comes from the other end of a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end broke the rules.
    #[error("broke the hand-over protocol: {0}")]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("the channel failed: {0}")]
    Socket(#[from] io::Error),
    /// The other end was closed.
    #[error("the other end of the channel was closed")]
    Closed,
}
