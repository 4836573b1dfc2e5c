//! The conversation with one worker: its messages go in, their effects and what to send come out. Pure.
//!
//! # The owner of a connection
//!
//! A connection handed to a server ([`Delivery::Server`]) is the worker's when it sends `accepted: true`, before it
//! touches the socket. One sent with a message ([`Delivery::Message`]) is the worker's when its Node acknowledges the
//! descriptor. Until then it is ours, and comes back ([`IpcEffect::Returned`]) if the worker refuses it, or did not get
//! the descriptor. After a worker's death its channel must be read to the end first; what is then still in flight was
//! never touched.

mod on_lane;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Serialization;
use super::effect::{IpcEffect, ReturnReason};
use super::frame::IpcFrame;
use super::lane::{Lane, LaneMessage};
use super::message::WorkerMessage;
use super::outgoing::{Chunk, Outgoing, Split};
use super::own::ServerId;
use super::relay::WorkerDied;
use super::say::{ListenOutcome, ListenReply, Voice};
use super::violation::IpcViolation;

/// Bytes that may wait for a worker before messages of other workers for it are dropped: 32 MiB.
///
/// Node's own primary has no such bound. A worker this far behind is stopped or hung, and what waits for it is the
/// master's memory. One more message may always be added, so that the longest one fits.
pub const MAX_QUEUED: usize = 32 << 20;
/// Bytes of our own answers that may wait beyond that before the worker is given up: it asks and does not read.
const MAX_UNREAD: usize = super::frame::MAX_FRAME + MAX_QUEUED + (1 << 20);

/// Sockets of servers that a worker may have asked for and not acknowledged: it can have 128 servers.
pub const MAX_SOCKETS: usize = 1024;

/// How a connection is given to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// To the server with this key, as Node's primary does.
    Server {
        /// From [`super::Servers::key`].
        key: &'a str,
    },
    /// With the message of the configured style.
    Message,
}

/// What a descriptor on its way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handle {
    /// A connection, by its sequence number on this channel.
    Connection(u64),
    /// The worker's end of its lane.
    Lane,
    /// The socket of a server, which goes with the answer to a query.
    Server {
        /// Which server.
        server: ServerId,
        /// The query's number.
        query: u64,
    },
    /// The worker's link for rooms.
    Rooms,
}

/// What is sent with a connection, and not yet answered.
#[derive(Debug, Clone, Copy)]
struct Passing {
    handle: Handle,
    /// The number of the message, if the worker answers it with `accepted`.
    seq: Option<u64>,
}

/// One worker's conversation.
#[derive(Debug)]
pub struct Session {
    serialization: Serialization,
    voice: Voice,
    outgoing: Outgoing<Passing>,
    /// Descriptors that the kernel has and the worker has not acknowledged, in their order.
    unacknowledged: VecDeque<Passing>,
    /// Connections that the kernel has and the worker has not accepted, with their messages' numbers, in their order.
    unaccepted: VecDeque<(u64, u64)>,
    next_connection: u64,
    in_flight: usize,
    leaving: bool,
    /// A ping is on its way: no descriptor may follow it before it was answered.
    pinging: bool,
    /// The frame that goes with each connection, in the styles that have one.
    message: Arc<[u8]>,
    lane: Lane,
}

impl Session {
    /// A conversation that has not begun. `message`: from [`super::ConnectionMessage::frame`], for
    /// [`Delivery::Message`]; empty if that is not used.
    pub fn new(serialization: Serialization, message: Arc<[u8]>) -> Self {
        Self {
            serialization,
            voice: Voice::new(serialization),
            outgoing: Outgoing::new(),
            unacknowledged: VecDeque::new(),
            unaccepted: VecDeque::new(),
            next_connection: 0,
            in_flight: 0,
            leaving: false,
            pinging: false,
            message,
            lane: Lane::default(),
        }
    }

    /// Connections that are neither the worker's nor ours again, sent or not.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many more connections may be in flight, if `most` may at once.
    pub fn room(&self, most: usize) -> usize {
        let most = if self.pinging { 0 } else { most };
        most.saturating_sub(self.in_flight.max(self.unacknowledged.len()))
    }

    /// Whether the worker is leaving, by its own will or ours.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Asks the worker to say something ([`IpcEffect::Pong`]), unless it was asked already.
    pub fn ping(&mut self) {
        if !std::mem::replace(&mut self.pinging, true) {
            let voice = &self.voice;
            self.outgoing.plain(|out| voice.ping(out));
        }
    }

    /// Whether a ping is on its way. Meanwhile no answer with a socket may be given, nor a connection.
    pub fn is_pinging(&self) -> bool {
        self.pinging
    }

    /// Takes in one frame of the worker's. After an error the worker must be ended.
    pub fn receive<'f>(&mut self, frame: &IpcFrame<'f>) -> Result<IpcEffect<'f>, IpcViolation> {
        let effect = match WorkerMessage::read(frame)? {
            WorkerMessage::HandleAck => self.acknowledged()?,
            WorkerMessage::HandleNack => self.not_arrived()?,
            WorkerMessage::Reply { ack, accepted } => self.replied(ack, accepted)?,
            // Node's primary does not answer either: the program is on its way out.
            WorkerMessage::QueryServer(_) if self.leaving => IpcEffect::Nothing,
            WorkerMessage::QueryServer(query) => IpcEffect::Ask(query),
            WorkerMessage::ExitedAfterDisconnect { seq } => {
                self.leaving = true;
                let voice = &mut self.voice;
                self.outgoing.plain(|out| voice.acknowledge(seq, out));
                IpcEffect::Leaving
            }
            WorkerMessage::Handle => {
                let voice = &self.voice;
                self.outgoing.plain(|out| voice.acknowledge_handle(out));
                IpcEffect::Descriptor
            }
            WorkerMessage::Online => IpcEffect::Online,
            WorkerMessage::Listening(query) => IpcEffect::Listening(query),
            WorkerMessage::Close { key } => {
                self.lane.closed(&key);
                IpcEffect::Closed { key }
            }
            WorkerMessage::Adapter(routing) => IpcEffect::Relay(routing),
            WorkerMessage::Ready => IpcEffect::Ready,
            WorkerMessage::Closing => IpcEffect::WantsReplacement,
            WorkerMessage::SessionOpened { sid } => IpcEffect::SessionOpened { sid },
            WorkerMessage::SessionClosed { sid } => IpcEffect::SessionClosed { sid },
            WorkerMessage::Preload(message) => IpcEffect::Preload(message),
            WorkerMessage::Lane(message) => self.receive_on_lane(message)?,
            WorkerMessage::Rooms { replaces } => IpcEffect::Rooms { replaces },
            WorkerMessage::Internal => IpcEffect::Nothing,
            WorkerMessage::Other => IpcEffect::Message,
        };
        let sockets = self.unacknowledged.len().saturating_sub(self.in_flight);
        match self.outgoing.len() {
            queued if queued > MAX_UNREAD => Err(IpcViolation::DoesNotRead { queued }),
            _ if sockets > MAX_SOCKETS => Err(IpcViolation::DoesNotAcknowledge { sockets }),
            _ => Ok(effect),
        }
    }

    /// Answers a query. `server` is the one that was joined; a shared socket of it goes with the answer.
    pub fn answer(&mut self, query: u64, server: ServerId, answer: &ListenReply<'_>) {
        let number = match answer.outcome {
            ListenOutcome::HandOver { .. } => self.lane.number(answer.key),
            ListenOutcome::Shared(_) | ListenOutcome::Failed { .. } => None,
        };
        let voice = &mut self.voice;
        let write = |out: &mut Vec<u8>| voice.answer(query, answer, number, out);
        match answer.outcome {
            ListenOutcome::Shared(_) => {
                let handle = Handle::Server { server, query };
                self.outgoing.with_handle(Passing { handle, seq: None }, write);
            }
            ListenOutcome::HandOver { .. } | ListenOutcome::Failed { .. } => self.outgoing.plain(write),
        }
    }

    /// Answers a query with a refusal.
    pub fn refuse(&mut self, query: u64, refusal: &super::servers::ListenRefusal) {
        let voice = &mut self.voice;
        self.outgoing.plain(|out| voice.answer(query, &refusal.answer(), None, out));
    }

    /// Gives the worker its link for rooms, which must go with [`Handle::Rooms`].
    pub fn rooms(&mut self) {
        let voice = &self.voice;
        self.outgoing.with_handle(Passing { handle: Handle::Rooms, seq: None }, |out| voice.rooms(out));
    }

    /// Adds a connection. Yields its sequence number: they count from 0.
    ///
    /// `stated`: the client's address, if a proxy stated another than the socket's own; port 0 if it stated none.
    /// haft's preload shows it to the program; without the preload Node ignores it.
    pub fn connection(&mut self, delivery: Delivery<'_>, stated: Option<SocketAddr>) -> u64 {
        let number = self.next_connection;
        let handle = Handle::Connection(number);
        self.next_connection += 1;
        self.in_flight += 1;
        if let Delivery::Server { key } = delivery
            && self.lane.push(number, key, stated)
        {
            return number;
        }
        let (voice, message) = (&mut self.voice, &self.message);
        match delivery {
            Delivery::Server { key } => {
                let seq = Some(voice.next_seq());
                self.outgoing.with_handle(Passing { handle, seq }, |out| voice.connection(key, stated, out));
            }
            Delivery::Message => {
                let write = |out: &mut Vec<u8>| voice.message(message, stated, out);
                self.outgoing.with_handle(Passing { handle, seq: None }, write);
            }
        }
        number
    }

    /// Asks the worker to leave. haft's preload ends its sessions one by one within this time.
    pub fn disconnect(&mut self, within: Duration, signal: Option<&str>) {
        self.leaving = true;
        let voice = &mut self.voice;
        self.outgoing.plain(|out| voice.disconnect(within, signal, out));
    }

    /// Announces to a worker that sent [`super::PreloadMessage::Tags`] that it gets no new session, and is to report when
    /// the last
    /// one has ended: [`super::PreloadMessage::Idle`]. Connections may still be given to it. In the last of `within` it
    /// ends what is left.
    pub fn linger(&mut self, within: Duration) {
        let voice = &self.voice;
        self.outgoing.plain(|out| voice.linger(within, out));
    }

    /// Forwards another worker's message ([`IpcFrame::whole`]). `false`: it was dropped, because too much waits already.
    pub fn forward(&mut self, whole: &[u8]) -> bool {
        let fits = self.outgoing.len() < MAX_QUEUED;
        if fits {
            self.outgoing.plain(|out| out.extend_from_slice(whole));
        }
        fits
    }

    /// Reports another worker's end to this one. `false`: it was dropped, because too much waits already.
    pub fn notify(&mut self, notice: &WorkerDied) -> bool {
        let (fits, serialization) = (self.outgoing.len() < MAX_QUEUED, self.serialization);
        if fits {
            self.outgoing.plain(|out| notice.write(serialization, out));
        }
        fits
    }

    /// What is to be sent next, in one system call, and the descriptor that goes with it.
    pub fn next(&self) -> Option<(&[u8], Option<Handle>)> {
        self.chunks().next()
    }

    /// What is to be sent, one system call after the other. Nothing after one that was not taken whole may be sent.
    pub fn chunks(&self) -> impl Iterator<Item = (&[u8], Option<Handle>)> {
        self.outgoing.chunks().map(|Chunk { bytes, handle }| (bytes, handle.map(|passing| passing.handle)))
    }

    /// The kernel took this many bytes of the first of [`Session::chunks`]. After an error the worker must be ended.
    pub fn sent(&mut self, taken: usize) -> Result<(), Split> {
        if let Some(passing) = self.outgoing.sent(taken)? {
            self.unacknowledged.push_back(passing);
            if let Passing { handle: Handle::Connection(connection), seq: Some(seq) } = passing {
                self.unaccepted.push_back((seq, connection));
            }
        }
        Ok(())
    }

    /// Bytes that wait for the kernel.
    pub fn queued(&self) -> usize {
        self.outgoing.len()
    }

    /// Bytes of memory held for what waits.
    pub fn held(&self) -> usize {
        self.outgoing.held()
    }

    /// The oldest descriptor has arrived.
    fn acknowledged(&mut self) -> Result<IpcEffect<'static>, IpcViolation> {
        let passing = self.unacknowledged.pop_front().ok_or(IpcViolation::NothingToAcknowledge)?;
        Ok(match passing {
            Passing { handle: Handle::Connection(connection), seq: None } => {
                self.in_flight -= 1;
                IpcEffect::Taken { connection }
            }
            Passing { handle: Handle::Rooms, .. } => IpcEffect::RoomsSettled { has_it: true },
            // `accepted` follows.
            Passing { .. } => IpcEffect::Nothing,
        })
    }

    /// The oldest descriptor did not arrive, or there was none to arrive.
    fn not_arrived(&mut self) -> Result<IpcEffect<'static>, IpcViolation> {
        // Those before the ping were acknowledged before it, and there is none behind it.
        if self.unacknowledged.is_empty() && std::mem::take(&mut self.pinging) {
            return Ok(IpcEffect::Pong);
        }
        let passing = self.unacknowledged.pop_front().ok_or(IpcViolation::NothingToAcknowledge)?;
        Ok(match passing.handle {
            Handle::Server { server, query } => IpcEffect::ServerReturned { server, query },
            // It goes without.
            Handle::Lane => IpcEffect::Nothing,
            Handle::Rooms => IpcEffect::RoomsSettled { has_it: false },
            Handle::Connection(connection) => {
                // If it was answered already, against all order, it is settled.
                if passing.seq.is_some_and(|seq| self.settle(seq).is_none()) {
                    return Ok(IpcEffect::Nothing);
                }
                self.in_flight -= 1;
                IpcEffect::Returned { connection, why: ReturnReason::NoDescriptor }
            }
        })
    }

    /// A message of ours was answered. Node ignores an unexpected answer, such as a second one.
    fn replied(&mut self, ack: u64, accepted: bool) -> Result<IpcEffect<'static>, IpcViolation> {
        if ack >= self.voice.next_seq() {
            return Err(IpcViolation::AnsweredUnsent { ack, sent: self.voice.next_seq() });
        }
        let Some(connection) = self.settle(ack) else { return Ok(IpcEffect::Nothing) };
        self.in_flight -= 1;
        Ok(match accepted {
            true => IpcEffect::Taken { connection },
            false => IpcEffect::Returned { connection, why: ReturnReason::NotAccepted },
        })
    }

    /// The connection that waits for the answer to this message, which it does no longer. Almost always the oldest.
    fn settle(&mut self, seq: u64) -> Option<u64> {
        let at = self.unaccepted.iter().position(|(waiting, _)| *waiting == seq)?;
        self.unaccepted.remove(at).map(|(_, connection)| connection)
    }
}
