//! What the words of a worker mean for others.

use std::borrow::Cow;

use super::message::{AdapterRouting, Query};
use super::own::ServerId;
use super::preload_message::PreloadMessage;

/// Why a connection came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnReason {
    /// The worker could not receive the descriptor: it is short of them. Try again after a while.
    NoDescriptor,
    /// The server was closed, or has as many connections as it wants: give it to another worker.
    NotAccepted,
}

/// What a message of the worker's means for others.
#[derive(Debug, Clone, PartialEq)]
pub enum IpcEffect<'f> {
    /// Nothing.
    Nothing,
    /// The worker's Node has started.
    Online,
    /// The program wants to listen: ask [`super::Servers`], then [`super::Session::answer`].
    Ask(Query<'f>),
    /// The program listens; from now on it serves.
    Listening(Query<'f>),
    /// The program closed a server.
    Closed {
        /// Its key.
        key: Cow<'f, str>,
    },
    /// The connection is the worker's.
    Taken {
        /// Its sequence number.
        connection: u64,
    },
    /// The connection is ours again, untouched.
    Returned {
        /// Its sequence number.
        connection: u64,
        /// Why.
        why: ReturnReason,
    },
    /// The worker did not get the socket of a server: answer again after a while.
    ServerReturned {
        /// Which server.
        server: ServerId,
        /// The query's number.
        query: u64,
    },
    /// The worker answered a ping.
    Pong,
    /// The program leaves voluntarily; the answer was sent already.
    Leaving,
    /// The program announces that it is ready.
    Ready,
    /// The program finishes and wants to be replaced.
    WantsReplacement,
    /// The worker has this session (`@socket.io/sticky`).
    SessionOpened {
        /// The session's id.
        sid: Cow<'f, str>,
    },
    /// The session has ended.
    SessionClosed {
        /// The session's id.
        sid: Cow<'f, str>,
    },
    /// A message of haft's preload about the process.
    Preload(PreloadMessage),
    /// The worker wants a lane: open one, then [`super::Session::offer_lane`] (haft's preload).
    LaneWanted,
    /// The worker reads from its lane (haft's preload).
    LaneOpen,
    /// The worker has taken so many connections more from its lane: [`super::Session::next_taken`] yields them (haft's
    /// preload).
    Took {
        /// Their number; as many are in flight on the lane.
        count: u64,
    },
    /// The program wants a link for rooms: [`super::Session::rooms`] (haft's preload).
    Rooms {
        /// In place of `@socket.io/cluster-adapter`.
        replaces: bool,
    },
    /// The worker has its link for rooms, or could not receive it: our copy is of no use any more.
    RoomsSettled {
        /// It has it.
        has_it: bool,
    },
    /// To be forwarded unchanged to where [`super::AdapterRelay::route`] leads.
    Relay(AdapterRouting<'f>),
    /// The program sent a descriptor: it was acknowledged already, and is to be closed.
    Descriptor,
    /// A message that haft does not handle.
    Message,
}
