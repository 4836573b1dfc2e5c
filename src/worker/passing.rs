//! Giving connections back to the master that are another worker's.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc::{Permit, Receiver, Sender, channel};

use crate::handover::haft::Passed;

/// Most connections that wait to be passed on. The master takes them within a turn; if it does not, the client is better
/// served with an error than by waiting.
const MOST: usize = 64;

/// A connection to be passed on.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) passed: Passed,
    pub(super) connection: OwnedFd,
}

/// Gives connections to the master that are another worker's. Cheap to clone.
///
/// Such a connection carries, unread, a request with the valid tag of another worker: a proxy between it and the client
/// uses one connection for many clients. See `PASSED` in [`crate::handover::haft`] for what its sender promises.
#[derive(Debug, Clone)]
pub struct Passer(Sender<Passing>);

/// Room for one connection: from here on passing it cannot fail.
#[derive(Debug)]
pub struct Room<'p>(Permit<'p, Passing>);

impl Passer {
    /// A passer, and where what it passes comes out.
    pub(super) fn new() -> (Self, Receiver<Passing>) {
        let (sender, receiver) = channel(MOST);
        (Self(sender), receiver)
    }

    /// Room for a connection; `None` if too many wait, if the worker is to finish, or if the master is gone.
    pub fn room(&self) -> Option<Room<'_>> {
        self.0.try_reserve().ok().map(Room)
    }
}

impl Room<'_> {
    /// Passes a connection on. Nothing of the request that waits on it may have been read, everything before must have
    /// been answered, and nobody else may hold a copy or wait for it.
    pub fn pass(self, passed: Passed, connection: OwnedFd) {
        self.0.send(Passing { passed, connection });
    }
}
