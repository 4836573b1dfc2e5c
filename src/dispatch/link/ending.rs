//! How long a worker has been silent although it should answer; and what becomes of the connections in flight when the
//! worker, or the master, ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{ClientConnection, ClusterPrimary, DialectLink, Ledger, Link, LinkError};
use crate::config::DrainSignal;
use crate::handover::in_flight::give_back;

impl Link {
    /// The signal by which its program learns that it is to finish. `interrupted`: it is to be over soon (Ctrl-C).
    pub fn drain_signal(&self, choice: DrainSignal, interrupted: bool) -> Option<Signal> {
        match (choice, &self.end) {
            (DrainSignal::None, _) => None,
            (DrainSignal::Named(signal), _) => Some(signal),
            (DrainSignal::Auto, DialectLink::Haft(_)) => None,
            (DrainSignal::Auto, DialectLink::Node(_) | DialectLink::ListenFds(_)) if interrupted => {
                Some(Signal::SIGINT)
            }
            (DrainSignal::Auto, DialectLink::Node(end)) => end.reported().handles_term().then_some(Signal::SIGTERM),
            (DrainSignal::Auto, DialectLink::ListenFds(_)) => Some(Signal::SIGTERM),
        }
    }

    /// As [`Link::drain`], for a program that is sent a signal first: its own handler closes its servers, which would
    /// fail if Node's cluster had closed them before. It gets `disconnect` when it has closed them, and at `at` at the
    /// latest.
    pub fn drain_later(&mut self, within: Duration, at: Instant, now: Instant) -> Result<(), LinkError> {
        let DialectLink::Node(end) = &mut self.end else { return self.drain(within, None) };
        end.drain_later(at, now + within);
        (self.finishes, self.lingers) = (true, None);
        Ok(())
    }

    /// Sends a postponed `disconnect`, if it is due.
    pub fn drain_if_due(&mut self, now: Instant) {
        if let DialectLink::Node(end) = &mut self.end {
            end.drain_if_due(now);
        }
    }

    /// The worker is dead: takes in its last words, then gives back what it had not acknowledged. The channel is
    /// drained first, so that nothing it had acknowledged is sent again.
    pub fn reclaim(
        mut self,
        held: &mut VecDeque<ClientConnection>,
        ledger: &mut Ledger,
        mut primary: Option<&mut ClusterPrimary>,
        now: Instant,
    ) {
        // What a dead worker has written fits a socket's buffer; only what it has started could go on for ever.
        for _ in 0..64 {
            match self.receive(held, ledger, primary.as_deref_mut(), &mut Vec::new(), now) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    tracing::debug!(worker = self.worker.0, %error, "the last words of a worker");
                    break;
                }
            }
        }
        let unread_from = match &mut self.end {
            DialectLink::Haft(end) => end.unread_from().unwrap_or(u64::MAX),
            // A Node worker's queue dies with it: what was in it cannot be distinguished from what it had received.
            DialectLink::Node(_) | DialectLink::ListenFds(_) => u64::MAX,
        };
        let mut unread = 0;
        let connections: Vec<ClientConnection> = self
            .outbox
            .reclaim()
            .map(|(sequence, mut connection)| {
                unread += u64::from(sequence >= unread_from);
                // Another worker is to come: the time to wait for it starts now.
                connection.held_since = now;
                connection
            })
            .collect();
        ledger.redelivered_unread += unread;
        ledger.redelivered_unacknowledged += connections.len() as u64 - unread;
        give_back(connections.into_iter(), held);
    }

    /// The master ends: what is in flight is the worker's.
    pub fn abandon(mut self) {
        self.outbox.reclaim().for_each(|(_, connection)| connection.close_delivered());
    }

    /// Asks the worker to say something: until it does it is silent. Never waits.
    pub fn ping(&mut self, now: Instant) -> Result<(), LinkError> {
        if self.pinged_since.is_some() || self.ended || !self.takes_connections() {
            return Ok(());
        }
        self.pinged_since = Some(now);
        match &mut self.end {
            DialectLink::Haft(end) => self.obstacle = end.ping()?,
            DialectLink::Node(end) => end.ping(),
            DialectLink::ListenFds(_) => {}
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

    /// The master itself was away until now: workers that were silent meanwhile were not asked.
    pub fn forgive(&mut self, now: Instant) {
        self.silent_since = self.silent_since.map(|_| now);
        self.pinged_since = self.pinged_since.map(|_| now);
    }
}
