//! How many sessions were lately opened with a worker. Pure: time is an argument.
//!
//! A worker's session count arrives late when many clients come at once, which is when it matters most. So what
//! was sent to it lately counts beside it, until it is reported or too old.

use std::time::{Duration, Instant};

/// A session that was opened and not reported counts for this long, and at most twice as long. A worker that is so late
/// has its hands full.
const LATELY: Duration = Duration::from_secs(3);

/// Sessions that were lately opened.
#[derive(Debug, Default)]
pub struct RecentSessions {
    /// Since when `current` is counted.
    since: Option<Instant>,
    current: u64,
    /// What was counted just before that.
    before: u64,
}

impl RecentSessions {
    /// A session is about to be opened.
    pub fn note(&mut self, now: Instant) {
        self.forget(now);
        self.since.get_or_insert(now);
        self.current += 1;
    }

    /// The worker has reported so many sessions more: the oldest ones need not be counted here any more.
    pub fn reported(&mut self, more: u64, now: Instant) {
        self.forget(now);
        let of_before = more.min(self.before);
        self.before -= of_before;
        self.current = self.current.saturating_sub(more - of_before);
    }

    /// How many were opened lately.
    pub fn lately(&self, now: Instant) -> u64 {
        match self.age(now) {
            Some(age) if age < LATELY => self.current + self.before,
            Some(age) if age < 2 * LATELY => self.current,
            _ => 0,
        }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since?))
    }

    /// Forgets what does not count any more.
    fn forget(&mut self, now: Instant) {
        let Some(age) = self.age(now).filter(|age| *age >= LATELY) else { return };
        self.before = if age < 2 * LATELY { self.current } else { 0 };
        self.current = 0;
        self.since = self.since.filter(|_| self.before > 0).map(|since| since + LATELY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_for_one_period_to_two() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut opening = RecentSessions::default();
        assert_eq!(opening.lately(start), 0);
        (0..3).for_each(|_| opening.note(start));
        opening.note(after(2900));
        assert_eq!([2900, 3000, 5999, 6000].map(|at| opening.lately(after(at))), [4, 4, 4, 0]);
        opening.note(after(3500));
        assert_eq!([3500, 5999, 6000, 8999, 9000].map(|at| opening.lately(after(at))), [5, 5, 1, 1, 0]);
        opening.note(after(20_000));
        assert_eq!([20_000, 25_999, 26_000].map(|at| opening.lately(after(at))), [1, 1, 0]);
    }

    #[test]
    fn what_was_told_counts_no_more_the_oldest_first() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut opening = RecentSessions::default();
        opening.reported(5, start);
        (0..3).for_each(|_| opening.note(start));
        (0..2).for_each(|_| opening.note(after(4000)));
        opening.reported(1, after(4000));
        assert_eq!([4000, 5999, 6000].map(|at| opening.lately(after(at))), [4, 4, 2]);
        opening.reported(3, after(4100));
        assert_eq!([4100, 6000].map(|at| opening.lately(after(at))), [1, 1]);
        opening.reported(9, after(4200));
        assert_eq!(opening.lately(after(4200)), 0, "also sessions that began another way are reported");
    }
}
