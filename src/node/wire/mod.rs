//! The `node` dialect: the protocol of Node's cluster primary, so that unmodified Node programs are workers.
//!
//! Everything here is decided from bytes and messages: no socket, no clock. What is written here was measured with Node
//! 14 to 26; the code of Node that it follows is `lib/internal/child_process.js` (framing, descriptors) and
//! `lib/internal/cluster/` (messages).
//!
//! # The channel
//!
//! A Unix stream socket pair. The worker's end is inherited; `NODE_CHANNEL_FD` is its number, `NODE_UNIQUE_ID` the
//! worker's (positive, ever increasing), `NODE_CHANNEL_SERIALIZATION_MODE` is [`Serialization::name`].
//!
//! # From bytes to effects, and back
//!
//! ```text
//! read ──▶ IpcReader ──frames──▶ Session::receive ──▶ IpcEffect ──▶ Servers (Ask, Closed), AdapterRelay (Relay),
//!                                                               outbox (Taken, Returned)
//! write ◀── Session::chunks (bytes, which descriptor) ◀── Session::{answer, connection, forward, notify, disconnect}
//! ```
//!
//! One [`IpcReader`] and one [`Session`] for each worker, one [`Servers`] and one [`AdapterRelay`] for all.
//!
//! # What must hold
//!
//! 1. One descriptor and one message that wants it for each system call, and never a message that a read of Node's cuts
//!    in two with its descriptor at the wrong end: [`Session::chunks`] yields what goes into one call.
//! 2. Connections and listeners are non-blocking before they are sent: Node does not make them so.
//! 3. A connection is ours until [`IpcEffect::Taken`]; a dead worker's channel is read to its end before the rest is given
//!    to another.
//! 4. Bad input costs at most the worker that sent it: any bytes give a message or an error. Only messages that were
//!    walked to their end are forwarded, since Node dies of a malformed one.

mod compose;
mod effect;
mod frame;
mod lane;
mod message;
mod outgoing;
mod own;
mod preload_message;
mod raw;
mod relay;
mod say;
mod servers;
mod session;
mod spec;
mod style;
mod trouble;
mod unheard;
mod v8;
mod violation;

#[cfg(test)]
mod tests;

pub use effect::{IpcEffect, ReturnReason};
pub use frame::{IpcFrame, IpcFrameError, IpcFrames, IpcReader, MAX_FRAME, Piece};
pub use message::{AdapterRouting, AddressType, Query};
pub use outgoing::Split;
pub use own::{Own, ServerId};
pub use preload_message::PreloadMessage;
pub use raw::{MalformedMessage, Raw};
pub use relay::{AdapterRelay, To, WorkerDied};
pub use say::{ListenOutcome, ListenReply, SharedKind, Sockname};
pub use servers::{Decision, Left, ListenRefusal, Servers};
pub use session::{Delivery, Handle, MAX_QUEUED, MAX_SOCKETS, Session};
pub use spec::Spec;
pub use style::ConnectionMessage;
pub use trouble::{Noticed, Trouble, Troubles};
pub use unheard::Library;
pub use violation::IpcViolation;

pub use crate::config::Serialization;
