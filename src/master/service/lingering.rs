//! Workers that were replaced and go on with the sessions that they have.

use std::time::{Duration, Instant};

use super::Service;
use crate::lifecycle::pool::{Event, WorkerId};

/// A worker that goes on with its sessions, and ends them when it is told to finish, has this part of its time left for
/// that. From then on none of their connections can be given to it, so it is no longer than a program needs that ends
/// them all at once; one that ends them one by one, as the built-in worker does, begins before.
const SHARE_TO_FINISH: u32 = 10;

impl Service {
    /// A worker is wanted no more. With its sessions it goes on for most of the time that it has, where they can be told
    /// apart: connections of theirs keep coming. Then it is told to finish.
    pub(super) fn retire(&mut self, worker: WorkerId, within: Duration, now: Instant) -> Option<Event> {
        let link = self.dispatch.link(worker);
        let (can_linger, ends_sessions) =
            link.map_or((false, false), |link| (link.takes_sessions(), link.ends_sessions()));
        let told = if can_linger && self.lingers && !self.pool.is_stopping() {
            let rest = to_finish(within, ends_sessions);
            self.dispatch.linger(worker, now + (within - rest), rest, now)
        } else {
            self.dispatch.drain(worker, within)
        };
        told.err().and_then(|error| self.distrust(worker, &error))
    }

    /// Tells the workers that have lingered long enough (all that linger: `always`) to finish. Yields what that made known.
    pub(super) fn finish_lingering(&mut self, always: bool, now: Instant) -> Vec<Event> {
        let over = self.dispatch.lingered(always, now);
        over.into_iter().filter_map(|(worker, within)| self.finish(worker, within)).collect()
    }

    pub(super) fn finish(&mut self, worker: WorkerId, within: Duration) -> Option<Event> {
        let error = self.dispatch.drain(worker, within).err()?;
        self.distrust(worker, &error)
    }

    /// A worker that lingers has no session left: it may finish.
    pub(super) fn idle(&mut self, worker: WorkerId, now: Instant) {
        let within = self.dispatch.link(worker).and_then(|link| link.lingered(true, now));
        if let Some(event) = within.and_then(|within| self.finish(worker, within)) {
            self.observe(event, now);
        }
    }
}

/// How much of its time a worker has left when it is told to finish.
fn to_finish(within: Duration, ends_sessions: bool) -> Duration {
    if ends_sessions { within / SHARE_TO_FINISH } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_ends_its_sessions_is_given_time_for_it_and_the_others_sessions_have_it_all() {
        let within = Duration::from_secs(25);
        assert_eq!(to_finish(within, true), Duration::from_millis(2500));
        assert_eq!(to_finish(within, false), Duration::ZERO);
    }
}
