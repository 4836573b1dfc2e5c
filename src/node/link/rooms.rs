//! A worker's link for rooms: asked for by haft's preload, once its program has a Socket.IO.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::ids::WorkerId;
use crate::node::primary::ClusterPrimary;
use crate::node::wire::Session;

/// How often it is sent to a worker that has no descriptor left.
const MAX_TRIES: u32 = 3;

/// How far a worker has come to its link. There is one for each worker.
#[derive(Debug)]
pub(super) enum RoomsProgress {
    /// Its program has no Socket.IO, as far as is known.
    Unasked,
    /// It is to be given this one, for so many times at most.
    Due(OwnedFd, u32),
    /// This one is on its way. It is closed here once the worker has it, so that the worker's end is the link's.
    Given(OwnedFd, u32),
    /// It has one, or cannot have one.
    Settled,
}

impl RoomsProgress {
    /// The worker asks for it. `replaces`: in place of what it would have without haft.
    pub(super) fn ask(&mut self, worker: WorkerId, replaces: bool, primary: &mut ClusterPrimary) {
        if !matches!(self, Self::Unasked) {
            return;
        }
        *self = match primary.attach_to_rooms(replaces) {
            Some(Ok(socket)) => Self::Due(socket, MAX_TRIES),
            Some(Err(error)) => {
                tracing::error!(worker = worker.0, "its broadcasts stay within the worker: {error}");
                Self::Settled
            }
            None => Self::Settled,
        };
    }

    /// Has it sent, unless a ping is on its way, which no descriptor may follow.
    pub(super) fn give(&mut self, session: &mut Session) {
        if session.is_pinging() || !matches!(self, Self::Due(..)) {
            return;
        }
        if let Self::Due(socket, tries) = std::mem::replace(self, Self::Settled) {
            session.rooms();
            *self = Self::Given(socket, tries - 1);
        }
    }

    /// What is to be sent.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Given(socket, _) => Some(socket.as_fd()),
            Self::Unasked | Self::Due(..) | Self::Settled => None,
        }
    }

    /// The worker has it, or could not receive it for want of descriptors: then it is sent once more.
    pub(super) fn settle(&mut self, worker: WorkerId, has_it: bool) {
        let before = std::mem::replace(self, Self::Settled);
        match before {
            Self::Given(socket, tries @ 1..) if !has_it => *self = Self::Due(socket, tries),
            Self::Given(..) if !has_it => {
                tracing::error!(worker = worker.0, "its broadcasts stay within the worker: it has no descriptor left");
            }
            Self::Unasked | Self::Due(..) | Self::Given(..) | Self::Settled => {}
        }
    }
}
