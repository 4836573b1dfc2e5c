//! The connections in flight to one worker, and what its words make of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use crate::connection::ClientConnection;
use crate::handover::outbox::{Outbox, Violation};
use crate::ids::WorkerId;
use crate::route::Slot;

/// How long a worker is left alone after it has given connections back.
pub(crate) const REST: Duration = Duration::from_millis(100);

/// What a worker's words change: the connections in flight to it, and what becomes of them.
pub(crate) struct InFlight<'a> {
    pub slot: Slot,
    pub worker: WorkerId,
    pub outbox: &'a mut Outbox<ClientConnection>,
    pub held: &'a mut VecDeque<ClientConnection>,
    pub ledger: &'a mut Ledger,
    pub rests_until: &'a mut Option<Instant>,
    /// Set when the worker has sent what answers a ping.
    pub spoke: &'a mut bool,
    /// Set when the worker has closed its end.
    pub ended: &'a mut bool,
}

impl InFlight<'_> {
    /// The worker has taken everything below `below`.
    pub fn taken(&mut self, below: u64, now: Instant) -> Result<(), Violation> {
        let (slot, worker, ledger) = (self.slot, self.worker, &mut self.ledger);
        self.outbox.taken(below)?.for_each(|connection| ledger.deliver(connection, slot, worker, now));
        Ok(())
    }

    /// The worker has taken one connection.
    pub fn settled(&mut self, sequence: u64, now: Instant) {
        if let Some(connection) = self.outbox.settle(sequence) {
            self.ledger.deliver(connection, self.slot, self.worker, now);
        }
    }

    /// The worker gives one connection back: short of descriptors, its server closed, or with as many connections as it
    /// wants. It would give the next ones back too.
    pub fn given_back(&mut self, sequence: u64, now: Instant) {
        if let Some(connection) = self.outbox.settle(sequence) {
            self.ledger.returned += 1;
            *self.rests_until = Some(now + REST);
            give_back(std::iter::once(connection), self.held);
        }
    }

    /// The worker gives `count` connections from `first` on back.
    pub fn returned(&mut self, first: u64, count: u32, now: Instant) -> Result<(), Violation> {
        let returned = self.outbox.returned(first, count)?;
        self.ledger.returned += returned.len() as u64;
        *self.rests_until = Some(now + REST);
        give_back(returned.into_iter(), self.held);
        Ok(())
    }
}

/// Puts connections in front of those that wait, in their order. What a worker gave back has waited for that very worker
/// all the time: were its time to start anew, a worker that goes on giving back would keep its clients for ever.
pub(crate) fn give_back(
    connections: impl DoubleEndedIterator<Item = ClientConnection>,
    held: &mut VecDeque<ClientConnection>,
) {
    connections.rev().for_each(|connection| held.push_front(connection));
}
