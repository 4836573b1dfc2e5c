//! How many connections a worker may promise to take, by the descriptors it has left.

use haft_sys::descriptors;

/// Most connections promised at once.
const WIDEST: u64 = 1024;
/// Descriptors left to the program itself: files, sockets to databases, a little air.
const RESERVE: u64 = 32;

/// The promise to the master: connections with sequence numbers below the limit find room.
#[derive(Debug)]
pub(super) struct Window {
    received: u64,
    limit: u64,
}

impl Window {
    /// A window as wide as the descriptors left allow.
    pub(super) fn new() -> Self {
        let mut window = Self { received: 0, limit: 0 };
        window.widen();
        window
    }

    /// First sequence number that was not received.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// First sequence number that must not be sent.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Notes that everything below `below` was received.
    pub(super) fn receive(&mut self, below: u64) {
        self.received = self.received.max(below);
        // Looking at the descriptors costs a system call: not for every frame.
        if self.limit - self.received.min(self.limit) < WIDEST / 2 {
            self.widen();
        }
    }

    /// Whether nothing more may be sent until descriptors are free again.
    pub(super) fn is_shut(&self) -> bool {
        self.limit <= self.received
    }

    /// Looks at the descriptors that are left. A promise is never taken back. Returns whether it grew.
    pub(super) fn widen(&mut self) -> bool {
        let limit = descriptors::limit().unwrap_or(0);
        // Without /proc they cannot be counted: half of them are taken for free.
        let open = descriptors::open_count().unwrap_or(limit / 2);
        let room = limit.saturating_sub(open).saturating_sub(RESERVE).min(WIDEST);
        let widened = self.received + room;
        let grows = widened > self.limit;
        self.limit = self.limit.max(widened);
        grows
    }
}
