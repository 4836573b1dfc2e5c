//! Sessions that have ended by a goodbye. A message or a poll may have been on its way on another connection: its
//! client does not get "session unknown", which it would take for an error, but its goodbye again. A worker sends
//! goodbyes only when it drains, so it remembers them until it exits.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::time::Instant;

/// How long a request may be under way: so long after the last goodbye a worker that lingers still takes connections.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// The longest memory, in sessions.
const MAX_PARTED: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Parted {
    known: HashSet<Sid>,
    order: VecDeque<Sid>,
    last: Option<Instant>,
}

impl Parted {
    /// A session has ended by a goodbye.
    pub(super) fn enter(&mut self, sid: Sid) {
        self.last = Some(Instant::now());
        if !self.known.insert(sid) {
            return;
        }
        self.order.push_back(sid);
        if self.order.len() > MAX_PARTED {
            self.order.pop_front().iter().for_each(|oldest| _ = self.known.remove(oldest));
        }
    }

    /// Whether this one has.
    pub(super) fn has(&self, sid: Sid) -> bool {
        self.known.contains(&sid)
    }

    /// Whether something may still be under way for one of them.
    pub(super) fn is_crossed(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < UNDER_WAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_are_remembered_to_the_end_and_the_memory_is_bounded() {
        let (mut parted, first) = (Parted::default(), Sid::new());
        assert!(!parted.is_crossed());
        parted.enter(first);
        assert!(parted.has(first) && !parted.has(Sid::new()) && parted.is_crossed());
        tokio::time::advance(UNDER_WAY).await;
        assert!(parted.has(first) && !parted.is_crossed());
        (0..MAX_PARTED).for_each(|_| parted.enter(Sid::new()));
        assert!(!parted.has(first) && parted.is_crossed());
        assert!(parted.known.len() == MAX_PARTED && parted.order.len() == MAX_PARTED);
    }
}
