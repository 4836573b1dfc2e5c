//! The rooms of one haft, and what is logged about them.

use std::os::fd::OwnedFd;

use super::{RedisLink, RoomsThread, RoomsThreadError, RoomsTotals};
use crate::config::Redis;
use crate::route::Slot;

/// The relay, and what was logged about it.
#[derive(Debug, Default)]
pub struct RoomsRelay {
    rooms: RoomsThread,
    /// Other hosts must be reached.
    is_required: bool,
    /// There has been more than one slot.
    are_several: bool,
    /// A program has a Socket.IO.
    are_used: bool,
    is_logged: bool,
    is_replacement_logged: bool,
}

impl RoomsRelay {
    /// Rooms of this host, or of all that share this Redis.
    pub fn new(redis: Option<&Redis>) -> Self {
        let Some(Redis { url, prefix, required, emitter }) = redis else { return Self::default() };
        let link = RedisLink { url: url.clone(), prefix: prefix.clone(), emitter: emitter.clone() };
        let rooms = RoomsThread::linked(link).unwrap_or_else(|error| {
            tracing::error!("rooms are this host's own: {error}");
            RoomsThread::default()
        });
        Self { rooms, is_required: *required, ..Self::default() }
    }

    /// A worker of this slot is started.
    pub fn started(&mut self, slot: Slot) {
        self.are_several |= slot.0 > 0;
        self.announce();
    }

    fn announce(&mut self) {
        if self.are_several && self.are_used && !std::mem::replace(&mut self.is_logged, true) {
            tracing::info!(
                "rooms are shared: what the program sends by Socket.IO to a room or to all clients reaches those of \
                 all workers (--rooms off: those of the same worker)"
            );
        }
    }

    /// A program has `@socket.io/cluster-adapter`, and shares rooms in its place.
    pub fn replaces_adapter(&mut self) {
        if !std::mem::replace(&mut self.is_replacement_logged, true) {
            tracing::info!(
                "haft's rooms stand in for the program's @socket.io/cluster-adapter: the same messages, also to other hosts \
                 (--redis), and with binary data (--rooms off: the program's adapter, within this host)"
            );
        }
    }

    /// A link for a worker, which uses rooms.
    ///
    /// # Errors
    ///
    /// When there can be none.
    pub fn attach(&mut self) -> Result<OwnedFd, RoomsThreadError> {
        self.are_used = true;
        self.announce();
        self.rooms.attach()
    }

    /// A link for a worker that may use rooms: nothing is kept for it before it sends READY.
    ///
    /// # Errors
    ///
    /// When there can be none.
    pub fn offer(&mut self) -> Result<OwnedFd, RoomsThreadError> {
        self.rooms.offer()
    }

    /// What was sent between workers so far.
    pub fn totals(&self) -> RoomsTotals {
        RoomsTotals { is_required: self.is_required, ..self.rooms.totals() }
    }
}
