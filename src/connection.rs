//! A connection while it is the master's, and why one may be refused.

pub mod waits;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::addr::EndAddr;
use crate::peek::SourceKind;
use crate::route::{Key, Slot, Tag};
use crate::sys::{accept, closing};

/// What decides which worker a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteBy {
    /// The client's address: its key.
    Address,
    /// A value that the request has there: its key.
    Value(SourceKind),
    /// The session that it names, which is with this worker, or was with one before it.
    Session(Tag),
    /// It opens a session: to the worker with the fewest.
    RecentSessions,
    /// Nothing: to the worker with the fewest connections in flight.
    Load,
}

/// A connection that was accepted and is neither delivered nor refused yet.
///
/// It must end in [`ClientConnection::close_delivered`] or [`ClientConnection::refuse`]: dropping it otherwise is a bug
/// that is reported, since a client would lose its connection without a reason being counted.
#[derive(Debug)]
pub struct ClientConnection {
    descriptor: Option<OwnedFd>,
    /// Which listener took it, in the order of `--listen`.
    pub listener: u32,
    /// The client's address.
    pub client: EndAddr,
    /// The address at our end.
    pub local: EndAddr,
    /// Whether that address was learnt from a proxy, and is not the peer's own.
    pub client_is_stated: bool,
    /// Whether a trusted proxy should have stated the client, and has not.
    pub unattributed: bool,
    /// What decides where it goes.
    pub goal: RouteBy,
    /// What must stick, where the address or a value decides.
    pub key: Key,
    /// When it was accepted.
    pub accepted: Instant,
    /// Since when it has waited for the worker it is assigned to.
    pub held_since: Instant,
    /// How often it was passed on to another slot.
    pub moves: usize,
    /// Counts it as one of its client's that wait, where they are limited.
    pub waits: Option<waits::Waits>,
    /// The slot that accounts for it, once it is assigned to one.
    pub(crate) assigned: Option<Slot>,
}

/// Why a connection was refused: it was closed with a reset before any worker had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// No worker was ready to take it within the hold time.
    NoWorker,
    /// Every queue it could have waited in was full.
    QueueFull,
    /// The master, or the host, had no descriptor left for it.
    NoDescriptor,
    /// Its client sent no request in time, and is not to be waited for.
    NoRequest,
    /// A trusted proxy did not name its client.
    Unattributed,
    /// haft was stopping.
    Stopping,
    /// Its peer may not connect (`--allow`, `--deny`).
    Denied,
    /// Its client, or all together, came faster than they may, or with more at once.
    OverLimit,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoWorker,
        Self::QueueFull,
        Self::NoDescriptor,
        Self::NoRequest,
        Self::Unattributed,
        Self::Stopping,
        Self::Denied,
        Self::OverLimit,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoWorker => "no_worker",
            Self::QueueFull => "queue_full",
            Self::NoDescriptor => "no_descriptor",
            Self::NoRequest => "no_request",
            Self::Unattributed => "unattributed",
            Self::Stopping => "stopping",
            Self::Denied => "denied",
            Self::OverLimit => "over_limit",
        }
    }
}

impl ClientConnection {
    /// A connection as it was accepted.
    pub fn new(
        descriptor: OwnedFd,
        listener: u32,
        (client, local): (EndAddr, EndAddr),
        key: Key,
        accepted: Instant,
    ) -> Self {
        Self {
            descriptor: Some(descriptor),
            listener,
            client,
            local,
            client_is_stated: false,
            unattributed: false,
            goal: RouteBy::Address,
            key,
            accepted,
            held_since: accepted,
            moves: 0,
            waits: None,
            assigned: None,
        }
    }

    /// Its worker has it: our copy is closed, which the client does not notice.
    pub fn close_delivered(self) {
        self.delivered().into_iter().for_each(closing::close);
    }

    /// Its worker has it: our copy, to be closed soon.
    pub fn delivered(mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// No worker can take it: it is reset, so that the client learns at once. The caller counts the reason.
    pub fn refuse(mut self) {
        self.descriptor.take().into_iter().for_each(accept::reset);
    }

    /// As [`ClientConnection::refuse`], for one that was never sent to a worker and whose descriptor is needed at once.
    pub fn refuse_unsent(mut self) {
        match self.client {
            EndAddr::Ip(_) => self.descriptor.take().into_iter().for_each(accept::reset_unshared),
            // It may be full of descriptors.
            EndAddr::Unix => self.refuse(),
        }
    }
}

impl AsFd for ClientConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // It is taken only by functions that consume the connection.
        self.descriptor.as_ref().map_or_else(|| unreachable!("a settled connection is gone"), AsFd::as_fd)
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            closing::close(descriptor);
            tracing::error!(client = %self.client, "a connection was lost without a reason: this is a bug in haft");
        }
    }
}
