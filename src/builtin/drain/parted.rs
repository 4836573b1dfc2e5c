//! Sessions that have just ended by a goodbye. A message may have been on its way on another connection: its client is not
//! told that its session is unknown, which it would take for an error, but what the goodbye has told it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::time::Instant;

/// How long a request may be under way.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The longest memory: as many sessions as end within that time where a worker ends very many.
const MAX_PARTED: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Parted {
    known: HashSet<Sid>,
    order: VecDeque<(Instant, Sid)>,
}

impl Parted {
    /// A session has ended by a goodbye.
    pub(super) fn enter(&mut self, sid: Sid) {
        self.forget_old();
        if self.known.insert(sid) {
            self.order.push_back((Instant::now(), sid));
        }
    }

    /// Whether this one has, within the last seconds.
    pub(super) fn has(&mut self, sid: Sid) -> bool {
        self.forget_old();
        self.known.contains(&sid)
    }

    fn forget_old(&mut self) {
        while let Some((since, sid)) = self.order.front().copied()
            && (since.elapsed() >= REMEMBERED || self.order.len() >= MAX_PARTED)
        {
            self.order.pop_front();
            self.known.remove(&sid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_is_remembered_for_a_while_and_the_memory_is_bounded() {
        let (mut parted, first) = (Parted::default(), Sid::new());
        parted.enter(first);
        assert!(parted.has(first) && !parted.has(Sid::new()));
        tokio::time::advance(REMEMBERED / 2).await;
        let second = Sid::new();
        parted.enter(second);
        tokio::time::advance(REMEMBERED / 2).await;
        assert!(!parted.has(first) && parted.has(second));
        (0..MAX_PARTED).for_each(|_| parted.enter(Sid::new()));
        assert!(!parted.has(second));
        assert!(parted.known.len() <= MAX_PARTED && parted.known.len() == parted.order.len());
    }
}
