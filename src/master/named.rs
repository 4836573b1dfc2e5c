//! Sessions that Node workers name by themselves, as those with @socket.io/sticky do: which worker has which.
//!
//! It is the one thing that the master remembers of sessions, and only where their ids carry no tag. Its size is bounded;
//! past that, sessions are found by their client's address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::lifecycle::pool::WorkerId;
use crate::route::Tag;

/// Most sessions that are remembered: 16 MiB and a bit.
const MOST: usize = 1 << 20;

/// What is kept of a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

/// Whose a session is that has no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The worker with this tag has named it.
    Known(Tag),
    /// Nobody has named it: one of the workers that name theirs may be about to, which they do when they have told their
    /// client already.
    Awaited(SessionKey),
    /// Nobody has named it, and nobody will.
    Unknown,
}

/// Which worker has which session. Of an id only a keyed hash is kept: 64 bits, so that two of a million sessions are
/// mistaken for one another with a chance of 1 in 10 million.
#[derive(Debug, Default)]
pub struct NamedSessions {
    hasher: RandomState,
    workers: HashMap<SessionKey, WorkerId>,
}

impl NamedSessions {
    /// The worker has opened this session.
    pub fn opened(&mut self, sid: &str, worker: WorkerId) {
        if !self.is_full() {
            self.workers.insert(self.key(sid), worker);
        }
    }

    /// The worker has closed this session.
    pub fn closed(&mut self, sid: &str, worker: WorkerId) {
        let key = self.key(sid);
        if self.workers.get(&key) == Some(&worker) {
            self.workers.remove(&key);
        }
    }

    /// The worker has ended, and its sessions with it.
    pub fn ended(&mut self, worker: WorkerId) {
        self.workers.retain(|_, of| *of != worker);
        self.workers.shrink_to(self.workers.len() * 2);
    }

    /// What a session is known by here.
    pub fn key(&self, sid: &str) -> SessionKey {
        SessionKey(self.hasher.hash_one(sid))
    }

    /// Whose a session is.
    pub fn worker_of(&self, key: SessionKey) -> Option<WorkerId> {
        self.workers.get(&key).copied()
    }

    /// Whether no further session is remembered.
    pub fn is_full(&self) -> bool {
        self.workers.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_workers_until_that_one_closes_it_or_ends() {
        let (one, other) = (WorkerId(1), WorkerId(2));
        let mut named = NamedSessions::default();
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
}
