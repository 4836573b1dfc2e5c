//! Sessions that Node workers name by themselves, as those with @socket.io/sticky do: which worker has which.
//!
//! It is the one thing that the master remembers of sessions, and only where their ids carry no tag. Its size is
//! bounded; past that, sessions are found by their client's address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::ids::WorkerId;
use crate::route::Tag;

/// Most sessions that are remembered: 16 MiB and a bit.
const MOST: usize = 1 << 20;
/// Most of one worker's: one that names sessions without end must leave room for the others'.
const MAX_OF_ONE: usize = MOST / 4;

/// What is kept of a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

/// The owner of a session without a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerLookup {
    /// The worker with this tag has named it.
    Known(Tag),
    /// No worker has named it yet. A worker names a session after its client has the id, so the name may still be on
    /// its way.
    Awaited(SessionKey),
    /// No worker has named it, and none will.
    Unknown,
}

/// Which worker has which session. Of an id only a keyed hash is kept: 64 bits, so that two of a million sessions are
/// mistaken for one another with a chance of 1 in 10 million.
#[derive(Debug, Default)]
pub struct SessionIndex {
    hasher: RandomState,
    workers: HashMap<SessionKey, WorkerId>,
    /// How many sessions each worker has.
    counts: HashMap<WorkerId, usize>,
    /// How often a session was not remembered: there are too many, or it is another worker's.
    pub forgotten: u64,
}

impl SessionIndex {
    /// The worker has opened this session. One that another worker has named stays that one's.
    pub fn opened(&mut self, sid: &str, worker: WorkerId) {
        let key = self.key(sid);
        let of_one = self.counts.get(&worker).copied().unwrap_or(0);
        match self.workers.get(&key) {
            Some(owner) if *owner == worker => {}
            None if self.workers.len() < MOST && of_one < MAX_OF_ONE => {
                self.workers.insert(key, worker);
                self.counts.insert(worker, of_one + 1);
            }
            _ => self.forgotten += 1,
        }
    }

    /// The worker has closed this session.
    pub fn closed(&mut self, sid: &str, worker: WorkerId) {
        let key = self.key(sid);
        if self.workers.get(&key) == Some(&worker) {
            self.workers.remove(&key);
            self.counts.entry(worker).and_modify(|count| *count -= 1);
        }
    }

    /// The worker has ended, and its sessions with it.
    pub fn ended(&mut self, worker: WorkerId) {
        if self.counts.remove(&worker).is_some() {
            self.workers.retain(|_, of| *of != worker);
            self.workers.shrink_to(self.workers.len() * 2);
        }
    }

    /// What a session is known by here.
    pub fn key(&self, sid: &str) -> SessionKey {
        SessionKey(self.hasher.hash_one(sid))
    }

    /// The owner of a session.
    pub fn worker_of(&self, key: SessionKey) -> Option<WorkerId> {
        self.workers.get(&key).copied()
    }

    /// Whether there may be sessions that are not remembered, of one worker at least.
    pub fn is_full(&self) -> bool {
        self.workers.len() >= MOST || self.counts.values().any(|count| *count >= MAX_OF_ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_workers_until_that_one_closes_it_or_ends() {
        let (one, other) = (WorkerId(1), WorkerId(2));
        let mut named = SessionIndex::default();
        named.opened("a", one);
        named.opened("b", one);
        named.opened("c", other);
        named.closed("a", other);
        assert_eq!(
            ["a", "b", "c", "d"].map(|sid| named.worker_of(named.key(sid))),
            [Some(one), Some(one), Some(other), None]
        );
        named.closed("a", one);
        assert_eq!(named.worker_of(named.key("a")), None);
        named.ended(one);
        assert_eq!(["b", "c"].map(|sid| named.worker_of(named.key(sid))), [None, Some(other)]);
    }

    #[test]
    fn one_worker_fills_its_share_and_takes_nothing_of_the_others() {
        let (hostile, other) = (WorkerId(1), WorkerId(2));
        let mut named = SessionIndex::default();
        named.opened("other's", other);
        named.opened("other's", hostile);
        assert_eq!((named.worker_of(named.key("other's")), named.forgotten), (Some(other), 1));
        (0..MAX_OF_ONE + 3).for_each(|at| named.opened(&at.to_string(), hostile));
        assert_eq!((named.workers.len(), named.forgotten, named.is_full()), (MAX_OF_ONE + 1, 4, true));
        named.opened("new", other);
        assert_eq!(named.worker_of(named.key("new")), Some(other));
        named.closed("0", hostile);
        assert!(!named.is_full());
        named.ended(hostile);
        assert_eq!(named.workers.len(), 2);
    }
}
