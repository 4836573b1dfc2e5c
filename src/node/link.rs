//! The `node` dialect's way of handing over: one connection a message, confirmed one by one.

mod lane;
mod reported;
mod rooms;
mod sending;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::lane::LaneSockets;
pub(crate) use self::reported::Reported;
use self::rooms::RoomsProgress;
use crate::handover::channel::WorkerEvent;
use crate::handover::error::LinkError;
use crate::handover::haft::ChannelError;
use crate::handover::in_flight::InFlight;
use crate::ids::WorkerId;
use crate::node::primary::ClusterPrimary;
use crate::node::refused::RefusedListen;
use crate::node::wire::{IpcEffect, IpcReader, IpcViolation, MAX_FRAME, MAX_SOCKETS, Piece, Query, ServerId, Session};
use crate::route::Slot;
use crate::sys::closing::{self, SharedFd, SharedFds};
use crate::sys::rights::Sender;
use crate::sys::scm::{self, Received};

/// Most reads of one worker's channel a turn: one that writes without end must not keep the others waiting.
const MAX_READS: u32 = 16;

/// The primary's end of a Node worker's channel.
#[derive(Debug)]
pub(crate) struct NodeLink {
    worker: WorkerId,
    slot: Slot,
    /// What the program has put into it goes with it.
    channel: SharedFd,
    /// The sender of what was read last, as the kernel reports it: a worker may have changed its user.
    sender: Option<Sender>,
    reader: IpcReader,
    session: Session,
    /// The second socket, if the worker has asked for one.
    lane: Option<LaneSockets>,
    /// Sockets of servers that the worker could not receive, or not yet, to be sent again.
    unanswered: Vec<(ServerId, u64)>,
    /// Its link for rooms.
    rooms: RoomsProgress,
    /// Queries that are answered when it is settled which listener serves what they ask for, each with the server's
    /// name.
    unsettled: Vec<(String, u64)>,
    life: StartupPhase,
    /// The last that its program asked to listen on was refused.
    refused: Option<RefusedListen>,
    /// When the worker last sent something.
    last_received: Option<Instant>,
    /// What is known of its sessions and signals.
    reported: Reported,
    /// The program has sent descriptors.
    sends_descriptors: bool,
    /// When it is asked to leave if it has not closed its servers before, and when it is to have finished.
    leave_at: Option<(Instant, Instant)>,
}

/// How far the program has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartupPhase {
    /// Its Node starts.
    Starting,
    /// Its Node has started; the program has not asked for a server.
    Online,
    /// It has asked for a server.
    Asked,
    /// It can take connections.
    Ready,
}

impl StartupPhase {
    /// The program asks for a server.
    fn ask(&mut self) {
        if *self == Self::Online {
            *self = Self::Asked;
        }
    }
}

impl NodeLink {
    pub(crate) fn new(worker: WorkerId, slot: Slot, channel: OwnedFd, primary: &ClusterPrimary) -> Self {
        if let Err(error) = scm::ask_for_senders(channel.as_fd()) {
            tracing::warn!(worker = worker.0, %error, "cannot determine the worker's user: it gets no Unix paths");
        }
        Self {
            worker,
            slot,
            channel: channel.into(),
            sender: None,
            reader: IpcReader::new(primary.serialization(), MAX_FRAME),
            session: Session::new(primary.serialization(), primary.message()),
            lane: None,
            unanswered: Vec::new(),
            rooms: RoomsProgress::Unasked,
            unsettled: Vec::new(),
            life: StartupPhase::Starting,
            refused: None,
            last_received: None,
            reported: Reported::new(primary.names_sessions()),
            sends_descriptors: false,
            leave_at: None,
        }
    }

    /// The process that has the channel, if the kernel has reported it.
    pub(crate) fn process(&self) -> Option<u32> {
        self.sender.and_then(|sender| u32::try_from(sender.pid).ok()).filter(|pid| *pid > 0)
    }

    /// What is known of its sessions and signals.
    pub(crate) fn reported(&self) -> &Reported {
        &self.reported
    }

    /// As [`NodeLink::drain`], once the program has closed all its servers, and then at the latest.
    pub(crate) fn drain_later(&mut self, at: Instant, until: Instant) {
        self.leave_at = Some((at, until));
    }

    /// Asks it to leave if it is time to.
    pub(crate) fn drain_if_due(&mut self, now: Instant) {
        if let Some((_, until)) = self.leave_at.take_if(|(at, _)| now >= *at) {
            self.drain(until.saturating_duration_since(now), None);
        }
    }

    pub(crate) fn linger(&mut self, within: Duration) {
        self.session.linger(within);
    }

    pub(crate) fn life(&self) -> StartupPhase {
        self.life
    }

    /// That the last that its program asked to listen on was refused, as long as it is not ready.
    pub(crate) fn refused(&self) -> Option<&RefusedListen> {
        self.refused.as_ref().filter(|_| self.life != StartupPhase::Ready)
    }

    /// Whether the program counts as ready only because it has been silent for long enough.
    pub(crate) fn ready_by_silence(&mut self, primary: &ClusterPrimary, now: Instant) -> bool {
        let has_asked = match self.life {
            StartupPhase::Online => false,
            StartupPhase::Asked => true,
            StartupPhase::Starting | StartupPhase::Ready => return false,
        };
        let (Some(patience), Some(last_received)) = (primary.patience(has_asked), self.last_received) else {
            return false;
        };
        let ready = now >= last_received + patience;
        if ready {
            if primary.is_to_listen(has_asked) {
                tracing::warn!(
                    worker = self.worker.0,
                    "the program does not listen as programs of its style do, and has been silent for {patience:?}: it \
                     is taken to be ready. What is sent before it waits for messages is lost: let it call \
                     process.send('ready') and use --wait-ready"
                );
            }
            self.life = StartupPhase::Ready;
        }
        ready
    }

    /// `signal`: its program is sent this one later.
    pub(crate) fn drain(&mut self, within: Duration, signal: Option<Signal>) {
        self.session.disconnect(within, signal.map(Signal::as_str));
    }

    /// Asks the worker to say something; it is sent with the next flush.
    pub(crate) fn ping(&mut self) {
        self.session.ping();
    }

    /// A message of another worker's. `false`: it was dropped, since too much waits already.
    pub(crate) fn forward(&mut self, whole: &[u8]) -> bool {
        self.session.forward(whole)
    }

    /// News of another worker's end.
    pub(crate) fn notify(&mut self, notice: &crate::node::wire::WorkerDied) -> bool {
        self.session.notify(notice)
    }

    /// Takes in what the worker has written. `false`: there is more, to be taken in another turn.
    pub(crate) fn receive(
        &mut self,
        in_flight: &mut InFlight<'_>,
        primary: &mut ClusterPrimary,
        news: &mut Vec<WorkerEvent>,
        now: Instant,
    ) -> Result<bool, LinkError> {
        let mut buffer = primary.take_buffer();
        let mut descriptors = SharedFds::default();
        let mut reads = 0;
        let outcome = loop {
            // Or else it could use up all of ours.
            let floods = self.sends_descriptors && closing::waiting() > scm::MAX_DESCRIPTORS;
            if reads == MAX_READS || floods {
                break Ok(false);
            }
            reads += 1;
            match scm::receive_from(self.channel.as_fd(), &mut buffer, &mut descriptors.0) {
                Ok((Received::Empty, _)) => break Ok(true),
                Ok((Received::Message { len: 0, .. }, _)) => break Err(LinkError::Channel(ChannelError::Closed)),
                Ok((Received::Message { len, .. }, sender)) => {
                    self.sender = sender;
                    // haft has no use for descriptors that a program sends.
                    if !descriptors.0.is_empty() {
                        self.sends_descriptors = true;
                        descriptors.clear();
                    }
                    if let Err(error) = self.take_in(&buffer[..len], in_flight, primary, news, now) {
                        break Err(error);
                    }
                    // A stream without descriptors gives all it has, as far as there is room.
                    if len < buffer.len() {
                        break Ok(true);
                    }
                }
                // The worker died with unread messages of ours.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    break Err(LinkError::Channel(ChannelError::Closed));
                }
                Err(error) => break Err(error.into()),
            }
        };
        primary.give_buffer(buffer);
        match outcome {
            Err(LinkError::Channel(ChannelError::Closed)) => {
                *in_flight.ended = true;
                news.push(WorkerEvent::Left);
                Ok(true)
            }
            other => other,
        }
    }

    fn take_in(
        &mut self,
        bytes: &[u8],
        in_flight: &mut InFlight<'_>,
        primary: &mut ClusterPrimary,
        news: &mut Vec<WorkerEvent>,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.last_received = Some(now);
        let mut frames = self.reader.take_in(bytes);
        while let Some(piece) = frames.next()? {
            let frame = match piece {
                Piece::Frame(frame) => frame,
                Piece::TooLong { len } => {
                    drop_long(self.worker, len, primary);
                    continue;
                }
            };
            let whole = frame.whole();
            match self.session.receive(&frame)? {
                IpcEffect::Nothing => {}
                IpcEffect::Preload(message) => self.reported.receive(message, whole, self.worker, primary, news)?,
                IpcEffect::LaneWanted => self.lane = LaneSockets::offer(self.worker, &mut self.session),
                IpcEffect::LaneOpen => {
                    self.lane.iter_mut().for_each(LaneSockets::open);
                    tracing::debug!(worker = self.worker.0, "takes its connections from a socket of their own");
                }
                IpcEffect::Took { count } => {
                    let taken = (0..count).map_while(|_| self.session.next_taken());
                    taken.for_each(|connection| in_flight.settled(connection, now));
                }
                IpcEffect::Rooms { replaces } => self.rooms.ask(self.worker, replaces, primary),
                IpcEffect::RoomsSettled { has_it } => self.rooms.settle(self.worker, has_it),
                IpcEffect::SessionClosed { sid } => self.reported.closed(&sid, self.worker, primary),
                IpcEffect::Online => self.life = StartupPhase::Online,
                IpcEffect::Ask(query) => {
                    self.life.ask();
                    let asked = ask((self.worker, self.sender), &mut self.session, &query, primary);
                    self.refused = asked.as_ref().err().map(|why| RefusedListen::new(why.clone(), now));
                    let later = asked.unwrap_or_default().filter(|it| !wait(&mut self.unsettled, *it, primary));
                    owe(&mut self.unanswered, later)?;
                }
                IpcEffect::Pong => *in_flight.spoke = true,
                IpcEffect::Listening(_) => {
                    primary.listens(self.worker, self.slot);
                    become_ready(&mut self.life, !primary.waits_for_ready(), news);
                }
                IpcEffect::SessionOpened { sid } => {
                    self.reported.opened(&sid, self.worker, primary);
                    become_ready(&mut self.life, !primary.waits_for_ready(), news);
                }
                IpcEffect::Ready => become_ready(&mut self.life, true, news),
                IpcEffect::Closed { key } => {
                    closed(self.worker, &key, &mut self.session, &mut self.leave_at, primary, now)
                }
                IpcEffect::Taken { connection } => in_flight.settled(connection, now),
                IpcEffect::Returned { connection, .. } => in_flight.given_back(connection, now),
                IpcEffect::ServerReturned { server, query } => owe(&mut self.unanswered, Some((server, query)))?,
                IpcEffect::Leaving | IpcEffect::WantsReplacement => news.push(WorkerEvent::Leaving),
                IpcEffect::Relay(routing) => primary.relay(self.worker, &routing, whole),
                IpcEffect::Descriptor => primary.unheard(self.worker, &[], false),
                IpcEffect::Message => primary.unheard(self.worker, whole, self.reported.is_forked()),
            }
        }
        Ok(())
    }
}

/// The program closed a server. If it was the last one, and it did so at a signal, the worker is asked to leave now.
fn closed(
    worker: WorkerId,
    key: &str,
    session: &mut Session,
    leave_at: &mut Option<(Instant, Instant)>,
    primary: &mut ClusterPrimary,
    now: Instant,
) {
    primary.closed(worker, key, session.is_leaving());
    if let Some((_, until)) = leave_at.take_if(|_| primary.has_none(worker)) {
        session.disconnect(until.saturating_duration_since(now), None);
    }
}

/// Keeps a query until its answer is settled. Returns whether it has to wait for that.
fn wait(unsettled: &mut Vec<(String, u64)>, (server, query): (ServerId, u64), primary: &ClusterPrimary) -> bool {
    let key = primary.unsettled_key(server);
    unsettled.extend(key.map(|key| (key.to_owned(), query)));
    key.is_some()
}

fn become_ready(life: &mut StartupPhase, enough: bool, news: &mut Vec<WorkerEvent>) {
    if enough && *life != StartupPhase::Ready {
        *life = StartupPhase::Ready;
        news.push(WorkerEvent::Ready);
    }
}

/// Adds what is to be answered later, of which there is an end.
fn owe(unanswered: &mut Vec<(ServerId, u64)>, more: Option<(ServerId, u64)>) -> Result<(), IpcViolation> {
    unanswered.extend(more);
    match unanswered.len() {
        sockets if sockets > MAX_SOCKETS => Err(IpcViolation::DoesNotAcknowledge { sockets }),
        _ => Ok(()),
    }
}

fn drop_long(worker: WorkerId, len: u64, primary: &mut ClusterPrimary) {
    tracing::warn!(worker = worker.0, len, "a message longer than {MAX_FRAME} bytes was dropped");
    primary.dropped += 1;
}

/// The program wants to listen. Yields what is to be answered later, since its socket must not follow a ping; or why it
/// may not.
fn ask(
    (worker, sender): (WorkerId, Option<Sender>),
    session: &mut Session,
    query: &Query<'_>,
    primary: &mut ClusterPrimary,
) -> Result<Option<(ServerId, u64)>, String> {
    match primary.ask(worker, query, sender) {
        Ok(server) if session.is_pinging() || primary.unsettled_key(server).is_some() => {
            return Ok(Some((server, query.seq)));
        }
        Ok(server) => answer(session, server, query.seq, primary),
        Err(refusal) => {
            tracing::warn!(worker = worker.0, "the program's request to listen is refused: {}", refusal.why);
            session.refuse(query.seq, &refusal);
            return Err(primary.why_refused(worker, query, &refusal));
        }
    }
    Ok(None)
}

/// Answers that the worker has the server that it asked for.
fn answer(session: &mut Session, server: ServerId, query: u64, primary: &ClusterPrimary) {
    if let Some(answer) = primary.answer(server) {
        session.answer(query, server, &answer);
    }
}

impl AsFd for NodeLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl From<IpcViolation> for LinkError {
    fn from(violation: IpcViolation) -> Self {
        Self::Node(violation.to_string())
    }
}
