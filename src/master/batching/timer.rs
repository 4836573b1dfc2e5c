//! How fast connections come, and how long it is worth to let them gather. Pure: time is an argument.
//!
//! A turn costs the same for one connection as for many: to be woken, with cold caches, is most of it. Where
//! connections come so fast that several arrive within an imperceptible time, one turn is made for them. Where they
//! come slower, waiting would cost each its delay and gain nothing, so there is no waiting.

use std::time::{Duration, Instant};

/// How many connections a pause is to gather.
const GATHERED: u32 = 12;
/// The longest pause that may delay a connection.
///
/// With the kernel's timer, which adds about 50 us, it stays below 200 us.
pub const LONGEST: Duration = Duration::from_micros(140);
/// The longest pause while all workers are busy: it delays no client, but other events wait, too.
const MAX_UNNOTICED: Duration = Duration::from_micros(1500);
/// Longer gaps between connections count as this.
const MAX_GAP: Duration = Duration::from_millis(2);
/// How many connections the mean looks back, about.
const MEMORY: u32 = 8;

/// How long nothing needs to be done where every worker has something to take for `busy` at least, if it is worth it.
pub fn unnoticed(busy: Duration) -> Duration {
    if busy > LONGEST { busy.min(MAX_UNNOTICED) } else { Duration::ZERO }
}

/// The mean time between connections, the latest counting most.
#[derive(Debug)]
pub struct BatchTimer {
    last: Instant,
    gap: Duration,
}

impl BatchTimer {
    /// No connection has come for a long time.
    pub fn new(now: Instant) -> Self {
        Self { last: now, gap: MAX_GAP }
    }

    /// So many connections came at once.
    pub fn came(&mut self, count: u64, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(MEMORY * 8);
        if count > 0 {
            let gap = (now.saturating_duration_since(self.last) / count).min(MAX_GAP);
            self.gap = (self.gap * (MEMORY - 1) + gap * count) / (MEMORY - 1 + count);
            self.last = now;
        }
    }

    /// How long to let connections gather, where every worker has something to take for `busy` at least; `None` where
    /// not even two would come meanwhile.
    pub fn pause(&self, busy: Duration) -> Option<Duration> {
        let longest = busy.clamp(LONGEST, MAX_UNNOTICED);
        (self.gap * 2 <= longest).then(|| (self.gap * GATHERED).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause after `turns` turns of `count` connections each, `gap` after one another.
    fn pause(timer: &mut BatchTimer, turns: u32, count: u64, gap: Duration) -> Option<Duration> {
        for _ in 0..turns {
            timer.came(count, timer.last + gap);
        }
        timer.pause(Duration::ZERO)
    }

    #[test]
    fn who_comes_alone_is_not_delayed() {
        let mut timer = BatchTimer::new(Instant::now());
        assert_eq!(timer.pause(Duration::ZERO), None);
        assert_eq!(pause(&mut timer, 100, 1, Duration::from_secs(1)), None);
        assert_eq!(pause(&mut timer, 100, 1, Duration::from_micros(100)), None);
    }

    #[test]
    fn the_faster_they_come_the_shorter_is_the_pause() {
        let mut timer = BatchTimer::new(Instant::now());
        let pauses = [60, 15, 10, 5].map(|gap| pause(&mut timer, 100, 1, Duration::from_micros(gap)));
        let micros = pauses.map(|pause| pause.map_or(0, |pause| pause.as_micros()));
        assert_eq!(micros, [140, 140, 120, 60]);
    }

    #[test]
    fn while_all_are_busy_a_longer_pause_gathers_as_many() {
        let mut timer = BatchTimer::new(Instant::now());
        pause(&mut timer, 100, 1, Duration::from_micros(90));
        let pauses = [0, 170, 400, 5000].map(|busy| timer.pause(Duration::from_micros(busy)));
        let micros = pauses.map(|pause| pause.map_or(0, |pause| pause.as_micros()));
        assert_eq!(micros, [0, 0, 400, 1080]);
        let pauses = [0, 140, 400, 5000].map(|busy| unnoticed(Duration::from_micros(busy)).as_micros());
        assert_eq!(pauses, [0, 0, 400, 1500]);
    }

    #[test]
    fn many_at_once_count_as_many_and_a_silence_ends_it() {
        let mut timer = BatchTimer::new(Instant::now());
        assert_eq!(pause(&mut timer, 100, 4, Duration::from_micros(40)), Some(Duration::from_micros(120)));
        assert_eq!(pause(&mut timer, 2, 1, Duration::from_millis(50)), None);
        // Nothing at all is no news, and more than can be is survived.
        timer.came(0, timer.last + Duration::from_secs(1));
        timer.came(u64::MAX, timer.last);
        assert!(timer.pause(Duration::MAX).is_some_and(|pause| pause <= MAX_UNNOTICED));
    }
}
