//! How fast a worker takes what it is given.

use std::time::{Duration, Instant};

/// How long a worker needs for each connection, as far as was seen while it had more to take all the time.
#[derive(Debug, Default)]
pub(super) struct ServiceRate {
    each: Duration,
    /// When it last answered, if it had more to take then.
    since: Option<Instant>,
}

impl ServiceRate {
    /// It has taken so many since its last answer, and so many are left.
    pub fn took(&mut self, count: u64, left: usize, now: Instant) {
        if left == 0 {
            // It may have rested.
            self.since = None;
            return;
        }
        let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) else { return };
        if let Some(since) = self.since {
            let each = now.saturating_duration_since(since) / count;
            // One that is quick again is believed at once, one that was slow is not.
            self.each = each.min((self.each * 7 + each) / 8);
        }
        self.since = Some(now);
    }

    /// For how long it has something to take at least, with so many on their way: if it goes on twice as fast.
    pub fn busy_for(&self, in_flight: usize) -> Duration {
        self.each / 2 * u32::try_from(in_flight).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_took_while_it_may_have_rested_tells_nothing() {
        let (mut taking, start) = (ServiceRate::default(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        taking.took(3, 5, at(0));
        assert_eq!(taking.busy_for(100), Duration::ZERO, "since when it has had more to take is not known");
        taking.took(0, 5, at(400));
        taking.took(10, 5, at(800));
        assert_eq!(taking.busy_for(16), Duration::from_micros(80), "an eighth of 80 us each, halved");
        taking.took(5, 0, at(9_000));
        taking.took(1, 4, at(20_000));
        assert_eq!(taking.busy_for(16), Duration::from_micros(80));
    }

    #[test]
    fn it_is_quickly_taken_for_quick_and_slowly_for_slow() {
        let (mut taking, start) = (ServiceRate::default(), Instant::now());
        let mut at = start;
        let mut receive = |each: u64, times: u32| {
            for _ in 0..times {
                at += Duration::from_micros(each * 4);
                taking.took(4, 9, at);
            }
            taking.busy_for(20).as_micros()
        };
        receive(100, 60);
        let (slow, stalled, quick) = (receive(100, 1), receive(900, 1), receive(20, 1));
        assert!((900..=1000).contains(&slow), "{slow}");
        assert!(stalled <= 3 * slow, "{stalled}");
        assert_eq!(quick, 200);
    }
}
