//! Waiting entries in order of arrival: each is found by its key and removed from any position, at
//! the same cost however many there are.

use super::verdict::Progress;
use crate::connection::ClientConnection;
use crate::connection::waits::{SourceCounts, Waits};
use crate::route::Source;

/// Capacity that is kept when nothing waits.
const KEPT: usize = 64;
/// No neighbour.
const NONE: u32 = u32::MAX;
/// How many bits of a key are the index; the bits above count the index's successive uses.
const PLACE_BITS: u32 = 32;
/// So that a key stays below the tokens of others.
const SERIALS: u32 = (1 << 30) - 1;

#[derive(Debug)]
struct WaitingEntry {
    /// Nothing: the place is free.
    content: Option<(ClientConnection, Progress)>,
    /// Counts it as one of its client's.
    waits: Option<Waits>,
    serial: u32,
    /// The previous entry, or the next free index.
    older: u32,
    newer: u32,
}

/// The waiting entries.
#[derive(Debug)]
pub(super) struct Waiting {
    entries: Vec<WaitingEntry>,
    free: u32,
    oldest: u32,
    newest: u32,
    serial: u32,
    len: usize,
    by_client: SourceCounts,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            serial: 0,
            len: 0,
            by_client: SourceCounts::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The key of the one that is pushed next.
    pub(super) fn next(&self) -> u64 {
        let place = if self.free == NONE { self.entries.len() as u32 } else { self.free };
        key(place, self.serial)
    }

    /// The one that has waited longest.
    pub(super) fn oldest(&self) -> Option<&ClientConnection> {
        let entry = self.entries.get(self.oldest as usize)?;
        entry.content.as_ref().map(|(connection, _)| connection)
    }

    /// How many of those that wait are of the client that has waited longest.
    pub(super) fn of_the_oldest_client(&self) -> usize {
        let waits = self.entries.get(self.oldest as usize).and_then(|entry| entry.waits.as_ref());
        waits.map_or(0, Waits::all)
    }

    /// Adds one under the key that [`Waiting::next`] returned. `is_one_client_s`: its peer's address is its client's.
    pub(super) fn push(&mut self, connection: ClientConnection, progress: Progress, is_one_client_s: bool) {
        let place = if self.free == NONE { self.entries.len() as u32 } else { self.free };
        let client = connection.client.ip().filter(|_| is_one_client_s);
        let waits = client.map(|client| Waits::new(&self.by_client, Source::of(client.ip())));
        let content = Some((connection, progress));
        let entry = WaitingEntry { content, waits, serial: self.serial, older: self.newest, newer: NONE };
        match self.entries.get_mut(place as usize) {
            Some(free) => self.free = std::mem::replace(free, entry).older,
            None => self.entries.push(entry),
        }
        self.serial = (self.serial + 1) & SERIALS;
        match self.entries.get_mut(self.newest as usize) {
            Some(before) => before.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.len += 1;
    }

    /// The one with this key, unless it waits no more.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut (ClientConnection, Progress)> {
        let (place, serial) = (key as u32, (key >> PLACE_BITS) as u32);
        let entry = self.entries.get_mut(place as usize).filter(|entry| entry.serial == serial)?;
        entry.content.as_mut()
    }

    /// How far each has come.
    pub(super) fn progress_mut(&mut self) -> impl Iterator<Item = &mut Progress> {
        self.entries.iter_mut().filter_map(|entry| Some(&mut entry.content.as_mut()?.1))
    }

    /// Takes out the one with this key.
    pub(super) fn remove(&mut self, key: u64) -> Option<(ClientConnection, Progress)> {
        self.get_mut(key)?;
        self.take(key as u32)
    }

    /// Takes out the one that has waited longest.
    pub(super) fn remove_oldest(&mut self) -> Option<(ClientConnection, Progress)> {
        self.take(self.oldest)
    }

    fn take(&mut self, place: u32) -> Option<(ClientConnection, Progress)> {
        let entry = self.entries.get_mut(place as usize)?;
        let content = entry.content.take()?;
        entry.waits = None;
        let (older, newer) = (entry.older, entry.newer);
        (entry.older, self.free) = (self.free, place);
        match self.entries.get_mut(older as usize) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(behind) => behind.older = older,
            None => self.newest = older,
        }
        self.len -= 1;
        if self.len == 0 && self.entries.capacity() > KEPT {
            // Serial numbers go on, so that no old key is met again.
            *self = Self { serial: self.serial, ..Self::new() };
        }
        Some(content)
    }
}

fn key(place: u32, serial: u32) -> u64 {
    u64::from(serial) << PLACE_BITS | u64::from(place)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs::File;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::EndAddr;
    use crate::route::Key;

    fn connection(number: u32) -> ClientConnection {
        let descriptor = File::open("/dev/null").expect("a descriptor").into();
        ClientConnection::new(descriptor, number, (EndAddr::Unix, EndAddr::Unix), Key::ANYONE, Instant::now())
    }

    fn number((connection, _): (ClientConnection, Progress)) -> u32 {
        let number = connection.listener;
        connection.close_delivered();
        number
    }

    /// A growing list is twice as long as needed at most, and for a moment half of it is there twice.
    #[test]
    fn one_that_waits_costs_little() {
        assert!(size_of::<WaitingEntry>() * 2 <= 512, "{} bytes", size_of::<WaitingEntry>());
    }

    proptest! {
        #[test]
        fn each_is_found_by_its_key_alone_and_the_oldest_goes_first(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..300),
        ) {
            let mut waiting = Waiting::new();
            let mut model: VecDeque<(u64, u32)> = VecDeque::new();
            let mut gone = Vec::new();
            let mut next = 0;
            for (step, at) in steps {
                match step {
                    0 | 1 => {
                        model.push_back((waiting.next(), next));
                        waiting.push(connection(next), Progress::default(), true);
                        next += 1;
                    }
                    2 if !model.is_empty() => {
                        let (key, expected) = model.remove(at.index(model.len())).expect("one");
                        prop_assert_eq!(waiting.remove(key).map(number), Some(expected));
                        gone.push(key);
                    }
                    _ => {
                        let expected = model.pop_front();
                        gone.extend(expected.map(|(key, _)| key));
                        prop_assert_eq!(waiting.remove_oldest().map(number), expected.map(|(_, number)| number));
                    }
                }
                prop_assert_eq!(waiting.len(), model.len());
                prop_assert_eq!(waiting.oldest().map(|oldest| oldest.listener), model.front().map(|(_, it)| *it));
                prop_assert!(gone.iter().all(|key| waiting.get_mut(*key).is_none()));
            }
            while let Some(connection) = waiting.remove_oldest() {
                number(connection);
            }
        }
    }
}
