//! When a worker that leaves ends its sessions.

use std::time::Duration;

use tokio::time::Instant;

/// The last part of the time to linger, in which sessions are ended. The master lets a worker linger for nine tenths of
/// `--drain-timeout`, so sessions are left alone for four fifths of that.
const SHARE_OF_LINGERING: u32 = 9;

/// The client of the session that is ended last must poll once more to learn of it, while the master still brings it
/// here. So long it has for that, and a third of the time to linger where that is less.
const TO_COME_AGAIN: Duration = Duration::from_secs(5);
const SHARE_TO_COME_AGAIN: u32 = 3;

/// Within so short a time all sessions are ended at once: an operator waits (Ctrl-C), and nothing is won by spreading
/// them.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// When sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// The worker is to finish, and not only to linger.
    pub(super) last: bool,
}

impl Pace {
    /// The worker lingers for so long at the most.
    pub(super) fn of_lingering(within: Duration) -> Self {
        let until = Instant::now() + (within - to_come_again(within));
        Self { from: until - within / SHARE_OF_LINGERING, until, last: false }
    }

    /// The worker is to finish within this time.
    pub(super) fn of_draining(within: Duration) -> Self {
        let now = Instant::now();
        let over = if within <= SHORT { Duration::ZERO } else { most_of(within) };
        Self { from: now, until: now + over, last: true }
    }

    /// The master is gone, and the worker ends itself after this time. No operator waits: sessions go on for half of
    /// it.
    pub(super) fn without_master(within: Duration) -> Self {
        let from = Instant::now() + within / 2;
        Self { from, until: from + most_of(within / 2), last: true }
    }
}

/// The part of a time to linger in which all sessions have been ended.
pub(super) fn to_come_again(within: Duration) -> Duration {
    TO_COME_AGAIN.min(within / SHARE_TO_COME_AGAIN)
}

/// The session that is ended last needs a moment before the time is over.
fn most_of(time: Duration) -> Duration {
    time / 5 * 4
}
