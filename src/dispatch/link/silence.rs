//! How long a worker has said nothing although it should.

use std::time::{Duration, Instant};

use super::{End, Link, LinkError};

impl Link {
    /// Asks the worker to say something: until it does it is silent. Never waits.
    pub fn ping(&mut self, now: Instant) -> Result<(), LinkError> {
        if self.pinged_since.is_some() || self.ended || !self.takes_connections() {
            return Ok(());
        }
        self.pinged_since = Some(now);
        match &mut self.end {
            End::Haft(end) => self.obstacle = end.ping()?,
            End::Node(end) => end.ping(),
            End::ListenFds(_) => {}
        }
        Ok(())
    }

    /// Whether a word of the worker is waited for.
    pub fn is_awaited(&self) -> bool {
        self.pinged_since.is_some() || self.in_flight() > 0
    }

    /// How long the worker has had connections to take, or a ping to answer, and has acknowledged none.
    pub fn silence(&self, now: Instant) -> Duration {
        let since = self.silent_since.into_iter().chain(self.pinged_since).min();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The master itself was away until now: whoever was silent meanwhile was not asked.
    pub fn forgive(&mut self, now: Instant) {
        self.silent_since = self.silent_since.map(|_| now);
        self.pinged_since = self.pinged_since.map(|_| now);
    }
}
