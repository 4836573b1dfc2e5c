//! The sockets of a Node worker's lane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::connection::ClientConnection;
use crate::handover::channel::Blocked;
use crate::handover::error::LinkError;
use crate::handover::outbox::Outbox;
use crate::ids::WorkerId;
use crate::node::wire::Session;
use crate::sys::scm::{self, Sent};

/// Our end of a lane, and the worker's end until the worker confirms that it reads from the lane.
#[derive(Debug)]
pub(super) struct LaneSockets {
    ours: OwnedFd,
    theirs: Option<OwnedFd>,
}

impl LaneSockets {
    /// Opens a lane and gives the worker its end. Without one, connections go over the channel.
    pub(super) fn offer(worker: WorkerId, session: &mut Session) -> Option<Self> {
        match scm::stream_pair() {
            Ok((ours, theirs)) => {
                session.offer_lane();
                Some(Self { ours, theirs: Some(theirs) })
            }
            Err(error) => {
                tracing::warn!(worker = worker.0, %error, "no second socket for its connections: they go over the channel");
                None
            }
        }
    }

    pub(super) fn theirs(&self) -> Option<BorrowedFd<'_>> {
        self.theirs.as_ref().map(AsFd::as_fd)
    }

    /// The worker reads from the lane.
    pub(super) fn open(&mut self) {
        self.theirs = None;
    }

    /// Gives the kernel the connections that wait, as far as it takes them.
    pub(super) fn flush(&self, session: &mut Session, outbox: &Outbox<ClientConnection>) -> Result<Blocked, LinkError> {
        while session.has_on_lane() {
            let records = session.on_lane().map(|(record, number)| (record, outbox.get(number).map(AsFd::as_fd)));
            match scm::send_many(self.ours.as_fd(), records)? {
                Ok(sent) => sent.taken().try_for_each(|taken| session.sent_on_lane(taken))?,
                Err(Sent::TooManyInFlight) => return Ok(Blocked::TooManyInFlight),
                // The worker has as many to take, and confirms them on the channel.
                Err(Sent::Bytes(_) | Sent::Full | Sent::TooLong) => break,
            }
        }
        Ok(Blocked::None)
    }
}
