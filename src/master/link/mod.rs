//! One worker as the master's hand-over sees it: its channel, and the connections in flight to it.

mod haft;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use self::haft::HaftLink;
use super::connection::Connection;
use super::ledger::Ledger;
use crate::handover::haft::{ChannelError, MasterEnd};
use crate::handover::outbox::{Outbox, Violation};
use crate::lifecycle::pool::WorkerId;
use crate::route::Slot;
use crate::sys::poller::Interest;

/// Most turns that are given to the last words of a dead worker: far more than a channel holds. They end by themselves,
/// but for those of a child of its that has the channel still.
const MOST_LAST_TURNS: usize = 64;
/// How long a worker is left alone after it has given connections back.
const REST: Duration = Duration::from_millis(100);

/// Why a worker is not to be trusted any further.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its channel failed, or it sent no proper frame.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It said what cannot be.
    #[error("broke the hand-over protocol: {0}")]
    Violation(#[from] Violation),
    /// It said something before it was ready.
    #[error("broke the hand-over protocol: it spoke before it was ready")]
    NotReadyYet,
    /// It said a second time that it is ready.
    #[error("broke the hand-over protocol: it said that it is ready a second time")]
    ReadyTwice,
    /// Nothing can be sent to it.
    #[error("takes nothing any more: {0}")]
    Send(#[from] io::Error),
}

/// What stands in the way of sending more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing: all was sent, or the worker has no room and will say when it has.
    None,
    /// The channel is full: wait until it is writable.
    ChannelFull,
    /// Too many descriptors are in flight on this host: try again after a while.
    TooManyInFlight,
    /// The worker gave connections back: it gets no more for a while, since it would give those back too.
    Resting,
}

/// What a worker told, as far as others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is ready.
    Ready,
}

/// How much of what a worker has said was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// All of it.
    All,
    /// As much as one worker may say a turn; the poller will tell of the rest.
    Part,
}

/// A worker's channel and what is in flight on it.
#[derive(Debug)]
pub struct Link {
    /// Who it is.
    pub worker: WorkerId,
    /// The slot it fills.
    pub slot: Slot,
    /// What stopped the last sending.
    pub obstacle: Obstacle,
    /// What the poller waits for.
    pub interest: Interest,
    end: HaftLink,
    outbox: Outbox<Connection>,
    rests_until: Option<Instant>,
}

impl Link {
    /// A link over a new channel.
    pub fn new(worker: WorkerId, slot: Slot, end: MasterEnd) -> Self {
        Self {
            worker,
            slot,
            obstacle: Obstacle::None,
            interest: Interest::Readable,
            end: HaftLink::new(end),
            outbox: Outbox::new(),
            rests_until: None,
        }
    }

    /// Connections sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.outbox.in_flight()
    }

    /// Connections that the worker says it has open.
    pub fn open(&self) -> Option<u32> {
        self.end.open()
    }

    /// What the poller is to wait for.
    pub fn wanted_interest(&self) -> Interest {
        match self.obstacle {
            Obstacle::ChannelFull => Interest::ReadableOrWritable,
            Obstacle::None | Obstacle::TooManyInFlight | Obstacle::Resting => Interest::Readable,
        }
    }

    /// Whether sending must be tried again after a while, without an event that says when.
    pub fn must_retry(&self) -> bool {
        matches!(self.obstacle, Obstacle::TooManyInFlight | Obstacle::Resting)
    }

    /// Sends from the front of `held` as much as the worker has room for. Never waits.
    pub fn send(
        &mut self,
        held: &mut VecDeque<Connection>,
        max_in_flight: usize,
        now: Instant,
    ) -> Result<(), LinkError> {
        if self.rests_until.is_some_and(|until| now < until) {
            self.obstacle = Obstacle::Resting;
            return Ok(());
        }
        self.rests_until = None;
        self.obstacle = self.end.send(&mut self.outbox, held, max_in_flight)?;
        Ok(())
    }

    /// Tells the worker to finish, after what was sent before.
    pub fn drain(&mut self, within: Duration) -> Result<(), LinkError> {
        self.obstacle = self.end.drain(within)?;
        Ok(())
    }

    /// Takes in what the worker has said, but no more than a turn's worth. What it returned goes to the front of `held`.
    pub fn receive(
        &mut self,
        held: &mut VecDeque<Connection>,
        ledger: &mut Ledger,
        news: &mut Vec<News>,
        now: Instant,
    ) -> Result<Heard, LinkError> {
        let mut in_flight =
            InFlight { slot: self.slot, outbox: &mut self.outbox, held, ledger, rests_until: &mut self.rests_until };
        self.end.receive(&mut in_flight, news, now)
    }

    /// The worker is dead: takes in its last words, then gives back what it had not acknowledged. The channel is
    /// drained first, so that nothing it had acknowledged is sent again.
    pub fn reclaim(mut self, held: &mut VecDeque<Connection>, ledger: &mut Ledger, now: Instant) {
        for _ in 0..MOST_LAST_TURNS {
            match self.receive(held, ledger, &mut Vec::new(), now) {
                Ok(Heard::Part) => {}
                Ok(Heard::All) => break,
                Err(error) => {
                    tracing::debug!(worker = self.worker.0, %error, "the last words of a worker");
                    break;
                }
            }
        }
        let unread_from = self.end.unread_from().unwrap_or(u64::MAX);
        let mut unread = 0;
        let connections: Vec<Connection> = self
            .outbox
            .reclaim()
            .map(|(sequence, connection)| {
                unread += u64::from(sequence >= unread_from);
                connection
            })
            .collect();
        ledger.redelivered_unread += unread;
        ledger.redelivered_unacknowledged += connections.len() as u64 - unread;
        give_back(connections.into_iter(), held, now);
    }

    /// The master ends: what is in flight is the worker's.
    pub fn abandon(mut self) {
        self.outbox.reclaim().for_each(|(_, connection)| connection.close_delivered());
    }
}

/// What a worker's words change: the connections in flight to it, and what becomes of them.
struct InFlight<'a> {
    slot: Slot,
    outbox: &'a mut Outbox<Connection>,
    held: &'a mut VecDeque<Connection>,
    ledger: &'a mut Ledger,
    rests_until: &'a mut Option<Instant>,
}

impl InFlight<'_> {
    /// The worker has taken everything below `below`.
    fn taken(&mut self, below: u64, now: Instant) -> Result<(), Violation> {
        let (slot, ledger) = (self.slot, &mut self.ledger);
        self.outbox.taken(below)?.for_each(|connection| ledger.deliver(connection, slot, now));
        Ok(())
    }

    /// The worker gives `count` connections from `first` on back.
    fn returned(&mut self, first: u64, count: u32, now: Instant) -> Result<(), Violation> {
        let returned = self.outbox.returned(first, count)?;
        self.ledger.returned += returned.len() as u64;
        *self.rests_until = Some(now + REST);
        give_back(returned.into_iter(), self.held, now);
        Ok(())
    }
}

/// Puts connections in front of those that wait, in their order; their time to wait starts anew.
fn give_back(connections: impl DoubleEndedIterator<Item = Connection>, held: &mut VecDeque<Connection>, now: Instant) {
    for mut connection in connections.rev() {
        connection.held_since = now;
        held.push_front(connection);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

#[cfg(test)]
mod tests;
