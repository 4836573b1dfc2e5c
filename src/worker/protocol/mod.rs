//! The `haft` dialect: what the master and a worker of haft's own kind say to each other.
//!
//! This page is the whole of the wire; `examples/worker.py` is a worker written from it.
//!
//! # The channel
//!
//! A pair of Unix sockets of type SOCK_SEQPACKET, one end in the master, one in the worker. Each message is one frame; an
//! empty one is the end of the stream. The worker finds its end in the descriptor whose number is in the environment
//! variable `HAFT_CHANNEL_FD`; beside it are `HAFT_SLOT` (0 to N-1), `HAFT_WORKERS` (N), `HAFT_GENERATION` (how many
//! reloads came before it), `HAFT_WORKER` (a number that no other worker of this master has or had) and
//! `HAFT_DRAIN_TIMEOUT` (milliseconds that it may go on when its master has died; a worker that stood still at that
//! moment gets SIGHUP from the kernel, which it should survive). All are decimal. With `--affinity session` there is also
//! `HAFT_TAG_KEY`, 64 hexadecimal digits, twice with a comma between if an old key is still accepted: the key that session ids are tagged with ([`Tagger`] says how).
//! It is a secret, so it is to be cleared at the latest before the worker starts a child. With `--dispatch kernel` there
//! is `HAFT_LISTEN_FDS`: see [below](#listeners-of-the-workers-own). The descriptor comes
//! non-blocking and without close-on-exec. The worker should clear the variables from its environment and make the
//! descriptor close-on-exec, so that its own children do not hold the channel. It may make it blocking: the master does
//! not mind, and never lets a worker wait for long.
//!
//! The worker's stdin is empty, its stderr (and its stdout with `--prefix-output`) a pipe that the master reads. When the
//! master dies, writing to that pipe fails (EPIPE), and so does sending on the channel.
//!
//! # Frames
//!
//! Numbers are little-endian and unsigned. Nothing is aligned beyond what the tables say. The longest frame is one of
//! CONNECTIONS with 253 entries: 16,200 bytes. Every frame starts with 8 bytes:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind |
//! | 2 | 2 | count of entries (CONNECTIONS), otherwise 0 |
//! | 4 | 4 | flags (READY), otherwise 0; what is not known of them is to be ignored by the receiver |
//!
//! From the master:
//!
//! | kind | name | after the first 8 bytes |
//! |---|---|---|
//! | 1 | CONNECTIONS | `count` entries of 64 bytes, 1 to 253; as many descriptors in SCM_RIGHTS, in the same order |
//! | 2 | DRAIN | u32: milliseconds until the worker is made to end |
//! | 3 | LINGER | u32: milliseconds until DRAIN comes at the latest |
//! | 4 | PING | nothing; only with `--dispatch kernel` |
//!
//! From the worker:
//!
//! | kind | name | after the first 8 bytes |
//! |---|---|---|
//! | 129 | READY | u64 `limit`; flags: 1 TAGS |
//! | 130 | TAKEN | u64 `below`, u64 `limit`, u32 `open` |
//! | 131 | RETURNED | u64 `first`, u32 `count` |
//! | 132 | IDLE | nothing |
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
//! 1. The worker sends READY when it can serve: once, and before anything else. `limit` is a promise: it has room for the
//!    connections with sequence numbers below `limit`. The master never sends one that is not below the newest limit,
//!    and a later limit is never lower: room that was promised and is gone is a case for rule 3. A limit may be as high as
//!    the worker likes; the master bounds by itself what is on its way (`--max-in-flight`).
//! 2. TAKEN says: every connection below `below` is mine (but for those I returned), so `below` is the last sequence
//!    number of a frame and one. The worker sends it **before it reads the first byte** of any of them, because the
//!    master then forgets them; until then it keeps a copy and gives them to another worker if this one dies. `open` is
//!    how many connections the worker has open, for display. It is cumulative: one TAKEN may answer many frames. It may
//!    also be sent only to raise `limit` or to tell `open`, with the same `below` as before (at first 0).
//!    The master hears it at once when it has nothing else to do, and within milliseconds while many connections come;
//!    until then its copy keeps the connection open. So a worker that ends a connection calls shutdown(2) before it
//!    closes its descriptor, which alone would be no end for the client yet.
//! 3. A worker that is short of descriptors gets fewer than the frame has entries, and MSG_CTRUNC. It has those at the
//!    front. It sends RETURNED for the missing ones, as a range, and TAKEN for the whole frame after that.
//!    It may return others too; it must then close its descriptor without having read from it. A connection that was
//!    returned comes again, to this worker or another, under a new sequence number; its old one stays used.
//! 4. After DRAIN the worker gets no more connections. It finishes what it has and exits, with code 0 (a time of a second or
//!    less says that an operator waits: nothing is won by ending sessions one by one); the end of the
//!    stream (the master is gone) means the same, without a time. Frames sent before either arrive first and are served.
//!    If the master died before it had read everything, recvmsg or send fail once with ECONNRESET: that is not the end
//!    yet, which recvmsg tells by 0 bytes, after the frames that are still there.
//! 5. SIGTERM comes in two cases. From a living master: the time for finishing is over, the operator has asked for the end
//!    twice, or the worker was not ready yet when the master was told to stop; SIGKILL follows after 2 seconds at most.
//!    (`--drain-signal` makes the master send a signal before that, for programs that want one.) And when the master has
//!    died, from the kernel (PR_SET_PDEATHSIG, so that a program that knows nothing of this page ends too) and again from
//!    the master's guardian process when the drain time is over, with SIGKILL 2 seconds later: then the end of the stream
//!    says what to do, and the signal is to be ignored. The parent's process id (getppid) tells the two apart. A worker that was
//!    sent SIGTERM by somebody else may stop receiving and finish: what it leaves in the channel goes to its replacement.
//! 6. A frame that breaks these rules ends the worker that sent it (SIGKILL); no other worker notices. No frame of a worker
//!    carries descriptors: a connection that is given back (RETURNED) is named by its number, and the master uses the copy
//!    that it kept. Kind 133 is not used, since it had another meaning once.
//! 7. Descriptors come non-blocking and unread. Receive with room for 253 and with MSG_CMSG_CLOEXEC.
//! 8. TAGS is a worker's word that it tags the sessions it opens with its own slot and generation, and that it knows the
//!    next two rules. Without it a worker is sent no LINGER. Without `HAFT_TAG_KEY` it means nothing.
//! 9. After LINGER the worker goes on: it serves its sessions, takes the connections that still come for them, and
//!    acknowledges as before. The master sends it no new session; one that comes all the same, on a connection that was
//!    kept open, is to be refused in a way that makes the client ask again on a new connection (503 and
//!    `Connection: close`). DRAIN comes when the time of LINGER is over at the latest, and means what it always means.
//! 10. IDLE says that no session is left in a worker that lingers, and that none is being opened. The worker sends it
//!     once, after LINGER only; the master answers with DRAIN. Who never sends it is drained when the time is over.
//!
//! # Listeners of the worker's own
//!
//! With `--dispatch kernel` the worker has a listener for each `--listen`, to which the kernel steers the clients of its
//! slot. `HAFT_LISTEN_FDS` names their descriptors in the order of `--listen`, with commas between (`5,6`). They come
//! non-blocking and without close-on-exec, as the channel does, and are shared with the master and with the slot's other
//! workers: one that another was quicker to take is EAGAIN.
//!
//! * From READY on the worker accepts from them. The master hears nothing of such a connection, but of their number in
//!   `open`.
//! * After DRAIN the worker closes them at once: who waits there is served by its replacement, or was handed over before.
//!   At the end of the stream without a DRAIN nobody else would serve those who wait: it accepts until there are none,
//!   and then closes them.
//! * PING asks for a TAKEN at once, with whatever is true. The master sends one when clients wait at the listener, and
//!   takes a worker that does not answer to hang (`--hang-timeout`).
//! * CONNECTIONS come all the same: those of a slot whose worker is gone or hangs.

mod frame;
mod master_end;
pub mod scoreboard;
mod slot;
mod tag;
mod worker_end;

#[cfg(test)]
mod tests;

pub use frame::{Entry, FrameError, FromMaster, FromWorker, MAX_CONNECTIONS};
pub use master_end::MasterEnd;
pub use slot::Slot;
pub use tag::{Tag, TagKey, Tagger};
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
