//! The rooms that Node workers share.

use std::os::fd::OwnedFd;

use super::ClusterPrimary;
use crate::rooms::{RoomsError, SharedRooms};

impl ClusterPrimary {
    /// A link for a worker's preload; none if workers share no rooms.
    pub fn attach_to_rooms(&mut self) -> Option<Result<OwnedFd, RoomsError>> {
        self.rooms.as_mut().map(SharedRooms::attach)
    }

    /// The relay between workers, if they share rooms.
    pub fn rooms(&self) -> Option<&SharedRooms> {
        self.rooms.as_ref()
    }
}
