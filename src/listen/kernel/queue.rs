//! An accept queue, as far as it can be seen from outside.

use std::time::Instant;

use super::Place;
use crate::config::Config;
use crate::dispatch::link::Link;
use crate::sys::listen::Listener;
use crate::sys::poller::{Interest, Poller};

/// What is known of a listener's accept queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    /// Since when no worker has served it.
    pub unserved_since: Option<Instant>,
    /// How many waited when it was last looked at.
    length: usize,
    /// Since when somebody has waited in it, without it ever becoming shorter.
    standing_since: Option<Instant>,
    /// The master accepts from it.
    pub open: bool,
    /// That its worker takes nothing was said.
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

    /// Says once that a worker, which answers if it can be asked, takes nothing: its program may not know that it is to
    /// accept by itself.
    pub fn report_standing(&mut self, config: &Config, link: &Link, now: Instant) {
        let stands = self.standing_since.map(|since| now.saturating_duration_since(since));
        if stands < config.hang_timeout || std::mem::replace(&mut self.reported, true) {
            return;
        }
        let why = match link.takes_connections() {
            true => {
                "it answers and takes none: does its program accept from HAFT_LISTEN_FDS, as --dispatch kernel needs?"
            }
            false => {
                "it takes none. If it has taken others before, it is busy, or stopped; else: does its program take \
                 descriptor 3 over (LISTEN_FDS), or does it listen elsewhere? It may have to be told so (Puma: \
                 --bind-to-activated-sockets only), to be given the very address of --listen, or to be started by a shell \
                 with exec"
            }
        };
        tracing::warn!(
            slot = %link.slot, worker = link.worker.0, waiting = self.length,
            "clients wait at the worker's own listener; {why}"
        );
    }

    /// Starts or stops to wait for connections.
    pub fn set_open(&mut self, open: bool, listener: &Listener, place: Place, poller: &Poller) {
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
                "nobody takes the slot's clients: those who wait in its queue are handed to other slots, or refused if \
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
