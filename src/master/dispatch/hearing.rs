//! Whom to listen to, and when.

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
            let few = (1..most / 2).contains(&link.in_flight()) && queues[link.slot.index()].is_empty();
            let interest = match link.wanted_interest() {
                Some(Interest::Readable) if busy && few && link.acknowledges_singly() => Some(Interest::HangUp),
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
        unheard.filter(move |link| all || link.in_flight() >= most / 2).map(|link| link.worker)
    }
}
