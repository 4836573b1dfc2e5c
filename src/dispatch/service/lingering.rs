//! Workers that were replaced and go on with the sessions that they have.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{ClusterPrimary, Service};
use crate::ids::WorkerId;
use crate::pool::{Event, INTERRUPT_TIME};

/// A worker that goes on with its sessions, and ends them at DRAIN, has this part of its time left for
/// that. From then on none of their connections can be given to it, so it is no longer than a program needs that ends
/// them all at once; one that ends them one by one, as the built-in worker does, begins before.
const SHARE_TO_FINISH: u32 = 10;

/// A Node program whose own handler was called has this part of its time to close its servers; then it gets
/// `disconnect` as one without a handler is.
const SHARE_FOR_HANDLER: u32 = 5;

impl Service {
    /// A worker is wanted no more. It keeps its sessions for most of its time, if they can be identified: their
    /// connections keep coming. Then it gets DRAIN.
    pub(super) fn retire(&mut self, worker: WorkerId, within: Duration, now: Instant) -> Option<Event> {
        let interrupted = self.pool.is_interrupted();
        let within = if interrupted { within / 2 } else { within };
        let link = self.dispatch.link(worker);
        let (can_linger, ends_sessions) =
            link.map_or((false, false), |link| (link.takes_sessions(), link.ends_sessions()));
        let asked = if can_linger && self.lingers && !self.pool.is_stopping() {
            let rest = to_finish(within, ends_sessions);
            self.dispatch.linger(worker, now + (within - rest), rest, now)
        } else {
            return self.finish(worker, within, now);
        };
        asked.err().and_then(|error| self.distrust(worker, &error))
    }

    /// Whether the worker's program learns by a signal that it is to finish, and hands over what it does meanwhile:
    /// where
    /// the kernel assigns, a program that was not asked at once would go on accepting.
    fn is_signalled(&mut self, worker: WorkerId) -> bool {
        let (choice, interrupted) = (self.drain_signal, self.pool.is_interrupted());
        let by_kernel = self.dispatch.node.as_ref().is_none_or(ClusterPrimary::is_over_kernel);
        !by_kernel && self.dispatch.link(worker).is_some_and(|link| link.drain_signal(choice, interrupted).is_some())
    }

    /// The signal that the worker's program is sent when its connections have ended. When haft stops it is sent at
    /// once.
    fn signal_to_come(&mut self, worker: WorkerId) -> Option<Signal> {
        let (choice, interrupted) = (self.drain_signal, self.pool.is_interrupted());
        let link = self.dispatch.link(worker).filter(|_| !self.pool.is_stopping() && !self.pool.was_signalled(worker));
        link.and_then(|link| link.drain_signal(choice, interrupted))
    }

    /// Sends DRAIN to the workers that have lingered long enough (all that linger: `always`). Yields the resulting events.
    pub(super) fn finish_lingering(&mut self, always: bool, now: Instant) -> Vec<Event> {
        let mut over = self.dispatch.lingered(always, now);
        if self.pool.is_interrupted() {
            over.iter_mut().for_each(|(_, within)| *within = (*within).min(INTERRUPT_TIME / 2));
        }
        over.into_iter().filter_map(|(worker, within)| self.finish(worker, within, now)).collect()
    }

    /// An operator waits for the end: workers that finish already are informed of their shorter time.
    pub(super) fn shorten(&mut self, now: Instant) -> Vec<Event> {
        if !self.pool.is_interrupted() {
            return Vec::new();
        }
        let within = self.pool.time_left(self.time(now)).map_or(INTERRUPT_TIME, |left| left.min(INTERRUPT_TIME)) / 2;
        let asked = self.dispatch.links_mut().filter_map(|link| Some((link.worker, link.shorten(within).err()?)));
        let failed: Vec<_> = asked.collect();
        failed.into_iter().filter_map(|(worker, error)| self.distrust(worker, &error)).collect()
    }

    fn finish(&mut self, worker: WorkerId, within: Duration, now: Instant) -> Option<Event> {
        // Of a stop's time, a part may be over.
        let within = self.pool.time_left(self.time(now)).map_or(within, |left| within.min(left));
        let by_signal = self.pool.is_stopping() && self.is_signalled(worker);
        let signal = self.signal_to_come(worker);
        let link = self.dispatch.link_mut(worker)?;
        let asked = if by_signal {
            link.drain_later(within, now + within / SHARE_FOR_HANDLER, now)
        } else {
            link.drain(within, signal)
        };
        let error = asked.err()?;
        self.distrust(worker, &error)
    }

    /// A worker that lingers has no session left: it may finish.
    pub(super) fn idle(&mut self, worker: WorkerId, now: Instant) {
        let within = self.dispatch.link_mut(worker).and_then(|link| link.lingered(true, now));
        if let Some(event) = within.and_then(|within| self.finish(worker, within, now)) {
            self.observe(event, now);
        }
    }
}

/// How much of its time a worker has left when it gets DRAIN.
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
