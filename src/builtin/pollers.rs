//! The members of each room that are on polling: what a room is sent waits for them, and is counted at each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::outbox::PollingOutbox;
use super::wire::lock;

/// What a packet is more than its data: the event's name, and what Socket.IO puts around it.
const AROUND: usize = 64;

/// The polling members of each room.
#[derive(Default)]
pub(super) struct Pollers(Mutex<HashMap<String, Vec<Weak<PollingOutbox>>>>);

impl Pollers {
    /// Notes that a session is in a room.
    pub(super) fn join(&self, room: &str, outbox: &Arc<PollingOutbox>) {
        if !outbox.moved() {
            lock(&self.0).entry(room.to_owned()).or_default().push(Arc::downgrade(outbox));
        }
    }

    /// Notes that a session is no longer in a room.
    pub(super) fn leave(&self, room: &str, outbox: &Arc<PollingOutbox>) {
        self.retain(room, |other| !Arc::ptr_eq(other, outbox));
    }

    /// Notes that the members of a room, `but` for one, are sent this.
    pub(super) fn sent<T: serde::Serialize>(&self, room: &str, but: Option<&Arc<PollingOutbox>>, data: &T) {
        let mut owing = Vec::new();
        self.retain(room, |outbox| {
            if !but.is_some_and(|but| Arc::ptr_eq(but, outbox)) {
                owing.push(Arc::clone(outbox));
            }
            !outbox.moved()
        });
        if owing.is_empty() {
            return;
        }
        let bytes = serde_json::to_vec(data).map_or(0, |data| data.len()) + AROUND;
        // Not under the lock: one may end of it.
        owing.iter().for_each(|outbox| outbox.owe(bytes));
    }

    fn retain(&self, room: &str, mut stays: impl FnMut(&Arc<PollingOutbox>) -> bool) {
        let mut rooms = lock(&self.0);
        let Some(members) = rooms.get_mut(room) else { return };
        members.retain(|member| member.upgrade().is_some_and(|outbox| stays(&outbox)));
        if members.is_empty() {
            rooms.remove(room);
        }
    }
}
