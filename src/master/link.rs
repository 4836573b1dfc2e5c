//! One worker as the master's hand-over sees it: its channel, and the connections in flight to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::ledger::Ledger;
use crate::handover::haft::{ChannelError, Entry, FromWorker, MAX_CONNECTIONS, MasterEnd};
use crate::handover::outbox::{Outbox, Violation};
use crate::lifecycle::pool::WorkerId;
use crate::route::Slot;
use crate::sys::poller::Interest;
use crate::sys::scm::Sent;

/// Why a worker is not to be trusted any further.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its channel failed, or it sent no proper frame.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It said what cannot be.
    #[error("broke the hand-over protocol: {0}")]
    Violation(#[from] Violation),
    /// Nothing can be sent to it.
    #[error("nothing can be sent to it: {0}")]
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
}

/// What a worker told, as far as others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct News {
    /// It is ready.
    pub ready: bool,
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
    end: MasterEnd,
    outbox: Outbox<Connection>,
    /// Connections it has open, by its own word.
    open: Option<u32>,
    ready: bool,
    /// Most connections in one frame: fewer after the kernel found a frame too long.
    batch: usize,
    drain: Option<Duration>,
}

impl Link {
    /// A link over a new channel.
    pub fn new(worker: WorkerId, slot: Slot, end: MasterEnd) -> Self {
        Self {
            worker,
            slot,
            obstacle: Obstacle::None,
            interest: Interest::Readable,
            end,
            outbox: Outbox::new(),
            open: None,
            ready: false,
            batch: MAX_CONNECTIONS,
            drain: None,
        }
    }

    /// Connections sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.outbox.in_flight()
    }

    /// Connections that the worker says it has open.
    pub fn open(&self) -> Option<u32> {
        self.open
    }

    /// Sends from the front of `held` as much as the worker has room for. Never waits.
    pub fn send(&mut self, held: &mut VecDeque<Connection>, max_in_flight: usize) -> Result<(), LinkError> {
        self.obstacle = Obstacle::None;
        loop {
            let count = self.outbox.room(max_in_flight).min(held.len()).min(self.batch);
            if count == 0 {
                return self.send_drain();
            }
            let first = self.outbox.next_sequence();
            let entries = held.iter().take(count).zip(first..).map(|(connection, sequence)| Entry {
                sequence,
                listener: connection.listener,
                client: connection.client,
                local: connection.local,
            });
            match self.end.send_connections(entries, held.iter().take(count).map(AsFd::as_fd))? {
                Sent::Bytes(_) => held.drain(..count).for_each(|connection| self.outbox.push(connection)),
                Sent::TooLong if self.batch > 1 => self.batch = count.div_ceil(2).min(self.batch - 1),
                Sent::Full | Sent::TooLong => {
                    self.obstacle = Obstacle::ChannelFull;
                    return Ok(());
                }
                Sent::TooManyInFlight => {
                    self.obstacle = Obstacle::TooManyInFlight;
                    return Ok(());
                }
            }
        }
    }

    /// Tells the worker to finish, after what was sent before.
    pub fn drain(&mut self, within: Duration) -> Result<(), LinkError> {
        self.drain = Some(within);
        self.send_drain()
    }

    fn send_drain(&mut self) -> Result<(), LinkError> {
        if let Some(within) = self.drain {
            match self.end.send_drain(u32::try_from(within.as_millis()).unwrap_or(u32::MAX))? {
                Sent::Bytes(_) => self.drain = None,
                Sent::Full | Sent::TooLong | Sent::TooManyInFlight => self.obstacle = Obstacle::ChannelFull,
            }
        }
        Ok(())
    }

    /// Takes in all that the worker has said. What it returned goes to the front of `held`.
    pub fn receive(
        &mut self,
        held: &mut VecDeque<Connection>,
        ledger: &mut Ledger,
        now: Instant,
    ) -> Result<News, LinkError> {
        let mut news = News::default();
        while let Some(frame) = self.end.receive()? {
            match frame {
                FromWorker::Ready { limit } => {
                    self.outbox.raise_limit(limit)?;
                    news.ready = !self.ready;
                    self.ready = true;
                }
                FromWorker::Taken { below, limit, open } => {
                    self.outbox.raise_limit(limit)?;
                    self.open = Some(open);
                    let slot = self.slot;
                    self.outbox.taken(below)?.for_each(|connection| ledger.deliver(connection, slot, now));
                }
                FromWorker::Returned { first, count } => {
                    let returned = self.outbox.returned(first, count)?;
                    ledger.returned += returned.len() as u64;
                    give_back(returned.into_iter(), held, now);
                }
            }
        }
        Ok(news)
    }

    /// The worker is dead: takes in its last words, then gives back what it had not acknowledged. The channel is
    /// drained first, so that nothing it had acknowledged is sent again.
    pub fn reclaim(mut self, held: &mut VecDeque<Connection>, ledger: &mut Ledger, now: Instant) {
        if let Err(error) = self.receive(held, ledger, now) {
            tracing::debug!(worker = self.worker.0, %error, "the last words of a worker");
        }
        let unread_from = self.end.take_unread().unwrap_or(u64::MAX);
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
