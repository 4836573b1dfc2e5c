//! How many sessions were lately opened with a worker. Pure: time is an argument.
//!
//! What a worker says of its sessions comes late when many clients come at once, which is when it matters most. So what
//! was sent to it lately counts beside it. Some is then counted twice for a moment, with all workers alike.

use std::time::{Duration, Instant};

/// A session that was opened counts for this long, and at most twice as long.
const LATELY: Duration = Duration::from_secs(1);

/// Sessions that were lately opened.
#[derive(Debug, Default)]
pub struct Opening {
    /// Since when `current` is counted.
    since: Option<Instant>,
    current: u64,
    before: u64,
}

impl Opening {
    /// A session is about to be opened.
    pub fn note(&mut self, now: Instant) {
        let (current, before) = self.at(now);
        if self.age(now).is_none_or(|age| age >= LATELY) {
            self.since = Some(now);
        }
        (self.current, self.before) = (current + 1, before);
    }

    /// How many were opened lately.
    pub fn lately(&self, now: Instant) -> u64 {
        let (current, before) = self.at(now);
        current + before
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since?))
    }

    /// What is current and what came before it, as of now.
    fn at(&self, now: Instant) -> (u64, u64) {
        match self.age(now) {
            Some(age) if age < LATELY => (self.current, self.before),
            Some(age) if age < 2 * LATELY => (0, self.current),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_for_one_to_two_seconds() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut opening = Opening::default();
        assert_eq!(opening.lately(start), 0);
        (0..3).for_each(|_| opening.note(start));
        opening.note(after(900));
        assert_eq!([900, 1000, 1999, 2000].map(|at| opening.lately(after(at))), [4, 4, 4, 0]);
        opening.note(after(1500));
        assert_eq!([1500, 2499, 2500, 3499, 3500].map(|at| opening.lately(after(at))), [5, 5, 1, 1, 0]);
        opening.note(after(9000));
        assert_eq!(opening.lately(after(9000)), 1);
    }
}
