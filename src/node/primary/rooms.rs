//! The rooms that Node workers share.

use std::os::fd::OwnedFd;

use super::ClusterPrimary;
use crate::rooms::{RoomsError, SharedRooms};

impl ClusterPrimary {
    /// A link for a worker's preload; none if workers share no rooms.
    /// `replaces`: in place of `@socket.io/cluster-adapter`.
    pub fn attach_to_rooms(&mut self, replaces: bool) -> Option<Result<OwnedFd, RoomsError>> {
        self.rooms.as_mut().map(|rooms| {
            if replaces {
                rooms.replaces_adapter();
            }
            rooms.attach()
        })
    }

    /// The relay between workers, if they share rooms.
    pub fn rooms(&self) -> Option<&SharedRooms> {
        self.rooms.as_ref()
    }
}
