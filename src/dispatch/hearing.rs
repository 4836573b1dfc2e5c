//! Whom to listen to, and when.

use std::time::Duration;

use super::{Dispatch, Link};
use crate::sys::poller::Interest;

/// How a worker's channel is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// What it is waited for with.
    pub interest: Interest,
    /// It is enough to hear the worker after a moment, where much else is to be done: nobody waits for its words.
    pub lazily: bool,
}

impl Dispatch {
    /// All links, each with how its channel is to be listened to, if at all.
    pub fn listenings(&mut self) -> impl Iterator<Item = (&mut Link, Option<Listening>)> {
        let (queues, most) = (&self.queues, self.max_in_flight);
        self.links.values_mut().map(move |link| {
            let wanted = link.wanted_interest().map(|interest| {
                let ample = link.has_ample_room(most) && queues[link.slot.index()].is_empty();
                Listening { interest, lazily: ample && interest == Interest::Readable }
            });
            (link, wanted)
        })
    }

    /// Whether a worker that is listened to lazily has something to acknowledge.
    pub fn is_owed_words(&self) -> bool {
        self.links.values().any(|link| link.in_flight() > 0 && link.listening.is_some_and(|it| it.lazily))
    }

    /// For how long, at least, every slot's worker has connections to take that were sent to it before: whoever comes
    /// meanwhile would wait behind them.
    pub fn busy_for(&self) -> Duration {
        let links = self.slots().map(|slot| self.links.get(&self.serving(slot)?));
        links.map(|link| link.map_or(Duration::ZERO, Link::busy_for)).min().unwrap_or_default()
    }
}
