//! The rooms that Node workers share.

use std::os::fd::OwnedFd;

use super::ClusterPrimary;
use crate::rooms::{RoomsRelay, RoomsThreadError};

impl ClusterPrimary {
    /// A link for a worker's preload; none if workers share no rooms.
    /// `replaces`: in place of `@socket.io/cluster-adapter`.
    pub fn attach_to_rooms(&mut self, replaces: bool) -> Option<Result<OwnedFd, RoomsThreadError>> {
        self.rooms.as_mut().map(|rooms| {
            if replaces {
                rooms.replaces_adapter();
            }
            rooms.attach()
        })
    }

    /// The relay between workers, if they share rooms.
    pub fn rooms(&self) -> Option<&RoomsRelay> {
        self.rooms.as_ref()
    }
}
