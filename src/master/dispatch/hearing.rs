//! Whom to listen to, and when.

use std::time::Duration;

use super::{Dispatch, Link, WorkerId};
use crate::sys::poller::Interest;

impl Dispatch {
    /// All links, each with what the poller is to wait for.
    ///
    /// `busy`: of acknowledgements that nobody waits for, only the worker's end is, and [`Dispatch::unheard`] tells whom
    /// to listen to after a moment.
    pub fn interests(&mut self, busy: bool) -> impl Iterator<Item = (&mut Link, Option<Interest>)> {
        let (queues, most) = (&self.queues, self.max_in_flight);
        self.links.values_mut().map(move |link| {
            let few = link.in_flight() > 0 && link.has_ample_room(most) && queues[link.slot.index()].is_empty();
            let interest = match link.wanted_interest() {
                Some(Interest::Readable) if busy && few => Some(Interest::HangUp),
                wanted => wanted,
            };
            (link, interest)
        })
    }

    /// The workers that are not waited for although they have something to acknowledge. `all`, or only those that have
    /// so much that they must be listened to now.
    pub fn unheard(&self, all: bool) -> impl Iterator<Item = WorkerId> {
        let unheard = self.links.values().filter(|link| link.interest == Some(Interest::HangUp));
        let most = self.max_in_flight;
        unheard.filter(move |link| all || !link.has_ample_room(most)).map(|link| link.worker)
    }

    /// For how long, at least, every slot's worker has connections to take that were sent to it before: whoever comes
    /// meanwhile would wait behind them.
    pub fn busy_for(&self) -> Duration {
        let links = self.slots().map(|slot| self.links.get(&self.serving(slot)?));
        links.map(|link| link.map_or(Duration::ZERO, Link::busy_for)).min().unwrap_or_default()
    }
}
