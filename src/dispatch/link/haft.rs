//! The `haft` dialect's way of handing over: many connections a frame.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{Blocked, InFlight, LinkError, WorkerEvent};
use crate::connection::ClientConnection;
use crate::handover::haft::{Entry, FromWorker, MAX_CONNECTIONS, MasterEnd};
use crate::handover::outbox::Outbox;
use crate::sys::scm::Sent;

/// Most frames of one worker a turn: one that speaks without end must not keep the others waiting.
const MAX_FRAMES: u32 = 64;

/// The master's end of a channel, and what stands in the way of using it.
#[derive(Debug)]
pub(super) struct HaftLink {
    end: MasterEnd,
    ready: bool,
    /// Connections the worker has open, by its own word.
    open: Option<u32>,
    /// Most connections in one frame: fewer after the kernel found a frame too long.
    batch: usize,
    /// The worker is to be asked to say something.
    ping: bool,
    /// The frame about its end that the worker is to get.
    word: Option<Pending>,
    /// It tags its sessions.
    tags: bool,
    /// It got LINGER, and has not sent IDLE.
    may_be_idle: bool,
}

/// A frame about a worker's end.
#[derive(Debug, Clone, Copy)]
enum Pending {
    /// It was replaced, and goes on with its sessions for this time at most.
    Linger(Duration),
    /// Finish within this time.
    Drain(Duration),
}

impl HaftLink {
    pub(super) fn new(end: MasterEnd) -> Self {
        Self {
            end,
            ready: false,
            open: None,
            batch: MAX_CONNECTIONS,
            ping: false,
            word: None,
            tags: false,
            may_be_idle: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn tags(&self) -> bool {
        self.tags
    }

    pub(super) fn open(&self) -> Option<u32> {
        self.open
    }

    /// Sends from the front of `held` as much as the worker has room for, then the other messages that are due.
    pub(super) fn send(
        &mut self,
        outbox: &mut Outbox<ClientConnection>,
        held: &mut VecDeque<ClientConnection>,
        max_in_flight: usize,
    ) -> Result<Blocked, LinkError> {
        loop {
            let count = outbox.room(max_in_flight).min(held.len()).min(self.batch);
            if count == 0 {
                return self.send_rest();
            }
            let first = outbox.next_sequence();
            let entries = held.iter().take(count).zip(first..).map(|(connection, sequence)| Entry {
                sequence,
                // Those of `--listen`, which a command line holds.
                listener: connection.listener as u16,
                client: connection.client,
                local: connection.local,
            });
            match self.end.send_connections(entries, held.iter().take(count).map(AsFd::as_fd))? {
                Sent::Bytes(_) => held.drain(..count).for_each(|connection| outbox.push(connection)),
                Sent::TooLong if self.batch > 1 => self.batch = count.div_ceil(2).min(self.batch - 1),
                Sent::Full | Sent::TooLong => return Ok(Blocked::ChannelFull),
                Sent::TooManyInFlight => return Ok(Blocked::TooManyInFlight),
            }
        }
    }

    pub(super) fn linger(&mut self, at_most: Duration) -> Result<Blocked, LinkError> {
        self.word = Some(Pending::Linger(at_most));
        self.may_be_idle = true;
        self.send_rest()
    }

    pub(super) fn drain(&mut self, within: Duration) -> Result<Blocked, LinkError> {
        self.word = Some(Pending::Drain(within));
        self.send_rest()
    }

    pub(super) fn ping(&mut self) -> Result<Blocked, LinkError> {
        self.ping = true;
        self.send_rest()
    }

    /// Whether a frame that is no connection is still to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.word.is_some() || self.ping
    }

    /// Sends PING and the frame about the worker's end, where they are due.
    pub(super) fn send_rest(&mut self) -> Result<Blocked, LinkError> {
        if self.ping {
            match self.end.send_ping()? {
                Sent::Bytes(_) => self.ping = false,
                Sent::Full | Sent::TooLong | Sent::TooManyInFlight => return Ok(Blocked::ChannelFull),
            }
        }
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let sent = match self.word {
            None => return Ok(Blocked::None),
            Some(Pending::Linger(at_most)) => self.end.send_linger(millis(at_most))?,
            Some(Pending::Drain(within)) => self.end.send_drain(millis(within))?,
        };
        match sent {
            Sent::Bytes(_) => {
                self.word = None;
                Ok(Blocked::None)
            }
            Sent::Full | Sent::TooLong | Sent::TooManyInFlight => Ok(Blocked::ChannelFull),
        }
    }

    /// Reads the worker's frames. `false`: there may be more, to be read in another turn.
    pub(super) fn receive(
        &mut self,
        in_flight: &mut InFlight<'_>,
        news: &mut Vec<WorkerEvent>,
        now: Instant,
    ) -> Result<bool, LinkError> {
        for _ in 0..MAX_FRAMES {
            let Some(frame) = self.end.receive()? else { return Ok(true) };
            match frame {
                FromWorker::Ready { .. } if self.ready => return Err(LinkError::ReadyTwice),
                FromWorker::Ready { limit, tags } => {
                    in_flight.outbox.raise_limit(limit)?;
                    (self.ready, self.tags) = (true, tags);
                    news.push(WorkerEvent::Ready);
                }
                _ if !self.ready => return Err(LinkError::NotReadyYet),
                FromWorker::Taken { below, limit, open } => {
                    in_flight.outbox.raise_limit(limit)?;
                    self.open = Some(open);
                    *in_flight.spoke = true;
                    let settled = in_flight.outbox.settled();
                    in_flight.taken(below, now)?;
                    // Most probably that was all: a read in vain costs as much as an event.
                    if in_flight.outbox.settled() > settled && in_flight.outbox.in_flight() == 0 {
                        return Ok(false);
                    }
                }
                FromWorker::Returned { first, count } => in_flight.returned(first, count, now)?,
                FromWorker::Idle if std::mem::take(&mut self.may_be_idle) => news.push(WorkerEvent::Idle),
                FromWorker::Idle => return Err(LinkError::NotAsked),
            }
        }
        Ok(false)
    }

    /// After the worker's death: the first sequence number that it had not received.
    pub(super) fn unread_from(&mut self) -> Option<u64> {
        self.end.take_unread()
    }
}

impl AsFd for HaftLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}
