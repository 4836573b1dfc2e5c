//! An accept queue, as far as it can be seen from outside.

use std::time::{Duration, Instant};

use super::MemberId;
use crate::sys::listen::Listener;
use crate::sys::poller::{Interest, Poller};

/// What is known of a listener's accept queue.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Since when no worker has served it.
    pub unserved_since: Option<Instant>,
    /// How many waited when it was last looked at.
    length: usize,
    /// Since when connections have waited in it, without it ever becoming shorter.
    standing_since: Option<Instant>,
    /// The master accepts from it.
    pub open: bool,
    /// Whether it was logged that its worker takes nothing.
    reported: bool,
}

impl Queue {
    /// So many wait now.
    pub fn note(&mut self, length: usize, now: Instant) {
        if length == 0 || length < self.length {
            (self.standing_since, self.reported) = (None, false);
        } else {
            self.standing_since.get_or_insert(now);
        }
        self.length = length;
    }

    /// How many have waited for `hang_timeout` without any of them having been taken, once.
    pub fn is_stuck(&mut self, hang_timeout: Option<Duration>, now: Instant) -> Option<usize> {
        let stands = self.standing_since.map(|since| now.saturating_duration_since(since));
        let is_news = stands >= hang_timeout && !std::mem::replace(&mut self.reported, true);
        is_news.then_some(self.length)
    }

    /// Starts or stops to wait for connections.
    pub fn set_open(&mut self, open: bool, listener: &Listener, place: MemberId, poller: &Poller) {
        if self.open == open {
            return;
        }
        let changed = match open {
            true => poller.add(listener, place.token(), Interest::Readable),
            false => poller.remove(listener),
        };
        match changed {
            Ok(()) if open => tracing::warn!(
                slot = %place.slot, waiting = self.length,
                "no worker takes the slot's clients: those in its queue are handed to other slots, or refused if \
                 no other worker can take them"
            ),
            Ok(()) => tracing::debug!(slot = %place.slot, "the slot's queue is its worker's again"),
            Err(error) => {
                tracing::error!(slot = %place.slot, %error, "the slot's queue cannot be waited for");
                return;
            }
        }
        self.open = open;
    }
}
