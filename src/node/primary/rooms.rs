//! The rooms that Node workers share.

use std::os::fd::OwnedFd;

use super::ClusterPrimary;
use crate::config::Redis;
use crate::rooms::{Link, Rooms, RoomsError, Totals};
use crate::route::Slot;

/// The relay, and what was logged about it.
#[derive(Debug, Default)]
pub(super) struct SharedRooms {
    rooms: Rooms,
    /// Other hosts must be reached.
    is_required: bool,
    /// There has been more than one slot.
    are_several: bool,
    /// A program has a Socket.IO.
    are_used: bool,
    told: bool,
}

impl SharedRooms {
    /// Rooms of this host, or of all that share this Redis.
    pub(super) fn new(redis: Option<&Redis>) -> Self {
        let Some(Redis { url, prefix, required }) = redis else { return Self::default() };
        let link = Link { url: url.clone(), prefix: prefix.clone() };
        let rooms = Rooms::linked(link).unwrap_or_else(|error| {
            tracing::error!("rooms are this host's own: {error}");
            Rooms::default()
        });
        Self { rooms, is_required: *required, ..Self::default() }
    }

    /// A worker of this slot is started.
    pub(super) fn started(&mut self, slot: Slot) {
        self.are_several |= slot.0 > 0;
        self.tell();
    }

    fn tell(&mut self) {
        if self.are_several && self.are_used && !std::mem::replace(&mut self.told, true) {
            tracing::info!(
                "rooms are shared: what the program sends by Socket.IO to a room or to everybody reaches the clients of \
                 all workers (--rooms off: those of the same worker)"
            );
        }
    }
}

impl ClusterPrimary {
    /// A link for a worker's preload; none if workers share no rooms.
    pub fn attach_to_rooms(&mut self) -> Option<Result<OwnedFd, RoomsError>> {
        let shared = self.rooms.as_mut()?;
        shared.are_used = true;
        shared.tell();
        Some(shared.rooms.attach())
    }

    /// What was sent between workers so far.
    pub fn rooms(&self) -> Totals {
        let shared = self.rooms.as_ref();
        shared.map(|shared| Totals { is_required: shared.is_required, ..shared.rooms.totals() }).unwrap_or_default()
    }
}
