//! The members that are there, and which of them get a message.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::yield_now;

use super::bridge::{self, BridgeMessage, Changes, Hosts, host_of};
use super::counts::{Counts, Dropped};
use super::member::{MAX_QUEUED, Member};
use haft_worker::protocol::rooms::{self as frame, ALL, Frame, Kind, Malformed, Reader};

/// Most messages that wait to be published; their bytes are bounded by [`MAX_QUEUED`].
const MAX_UNPUBLISHED: usize = 1 << 16;
/// Bytes that one read may bring.
const ROOM: usize = 64 << 10;
/// So many bytes in one read may be followed by more at once.
const MUCH: usize = 32 << 10;
/// Longest body of READY.
const MAX_TOLD: usize = 1024;

/// All members, by their numbers.
#[derive(Debug)]
pub(super) struct Relay {
    members: BTreeMap<u64, Member>,
    counts: Arc<Counts>,
    next: u64,
    /// Members with output that the kernel has not taken yet.
    dirty: Vec<u64>,
    /// What all members are read with: most of them are silent, and each would keep its own.
    room: BytesMut,
    host: u32,
    bridge: Option<Bridge>,
}

/// What is to be published.
#[derive(Debug)]
pub(super) struct Published {
    /// To this host alone.
    pub(super) host: Option<u32>,
    pub(super) payload: Bytes,
    /// It is of a member's, and counted where it is dropped.
    pub(super) is_message: bool,
}

/// The way to other hosts.
#[derive(Debug)]
struct Bridge {
    hosts: Hosts,
    queue: Sender<Published>,
    /// Bytes in it.
    queued: usize,
    /// Messages to all that were put into it so far.
    sent: u64,
    /// When this relay last received what it had published itself, while the link holds.
    own_seen: Option<Instant>,
}

impl Bridge {
    /// Puts it behind what waits to be published. `false`: too much waits already.
    fn put(&mut self, host: Option<u32>, payload: Bytes, is_message: bool) -> bool {
        let length = payload.len();
        let fits = self.queue.try_send(Published { host, payload, is_message }).is_ok();
        if fits {
            self.queued += length;
        }
        fits
    }
}

/// Why a member was let go of.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Relay {
    /// A relay without members. `host`: the upper half of its members' numbers, not 0.
    pub(super) fn new(host: u32, counts: Arc<Counts>) -> Self {
        let next = u64::from(host) << 32;
        Self { members: BTreeMap::new(), counts, next, dirty: Vec::new(), room: BytesMut::new(), host, bridge: None }
    }

    /// Takes a member in, and yields its number.
    fn join(&mut self, stream: UnixStream, keeps: bool) -> u64 {
        self.next += 1;
        let number = self.next;
        let mut member = Member::new(stream, keeps);
        member.push_always(&frame::write(Kind::Welcome, number, &[frame::VERSION]));
        self.members.insert(number, member);
        self.dirty.push(number);
        self.counts.set_members(self.members.len());
        number
    }

    /// A member is gone.
    fn leave(&mut self, number: u64) {
        let Some(member) = self.members.remove(&number) else { return };
        self.counts.set_members(self.members.len());
        if member.body.is_some() {
            self.send(&frame::write(Kind::Lost, number, &[]), |_| true);
            self.publish_state(false);
        }
    }

    /// Reads what a member has written, and yields how many bytes.
    fn read(&mut self, stream: &UnixStream, reader: &mut Reader) -> io::Result<usize> {
        self.room.reserve(ROOM);
        let count = stream.try_read_buf(&mut self.room)?;
        reader.push(self.room.split());
        Ok(count)
    }

    /// Handles a frame from a member.
    fn receive(&mut self, from: u64, frame: Frame) {
        match frame.kind {
            Kind::Ready => self.ready(from, &frame),
            Kind::Message => self.pass(from, frame),
            Kind::Lost => self.counts.dropped(Dropped::Unsent, frame.member),
            // It is for members alone.
            Kind::Welcome => {}
        }
    }

    fn ready(&mut self, number: u64, frame: &Frame) {
        let body = Bytes::copy_from_slice(&frame.body()[..frame.body().len().min(MAX_TOLD)]);
        let mut others: Vec<_> =
            self.members.iter().filter_map(|(other, it)| Some((*other, it.body.clone()?))).collect();
        let afar = self.bridge.iter().flat_map(|bridge| bridge.hosts.members());
        others.extend(afar.map(|(other, body)| (other, body.clone())));
        let Some(member) = self.members.get_mut(&number).filter(|member| member.body.is_none()) else { return };
        for (other, body) in others {
            member.push_always(&frame::write(Kind::Ready, other, &body));
        }
        member.body = Some(body.clone());
        self.dirty.push(number);
        self.send(&frame::write(Kind::Ready, number, &body), |other| other != number);
        self.publish_state(false);
    }

    /// Sends a frame about a member that came or went to the members that read.
    fn send(&mut self, frame: &Bytes, is_for: impl Fn(u64) -> bool) {
        for (number, member) in &mut self.members {
            if member.body.is_some() && is_for(*number) {
                member.push_always(frame);
                self.dirty.push(*number);
            }
        }
    }

    fn pass(&mut self, from: u64, frame: Frame) {
        self.counts.message();
        let to = frame.member;
        let frame = frame.naming(from);
        if to == ALL {
            self.publish(None, to, &frame);
        } else if self.bridge.as_ref().is_some_and(|bridge| bridge.hosts.has(to)) {
            self.publish(Some(host_of(to)), to, &frame);
            return;
        }
        self.deliver(from, to, &frame);
    }

    /// Puts a message down for members of this host.
    fn deliver(&mut self, from: u64, to: u64, frame: &Bytes) {
        if to != ALL && !self.members.contains_key(&to) {
            self.counts.dropped(Dropped::Left, 1);
            return;
        }
        for (number, member) in &mut self.members {
            if (*number == to || (to == ALL && *number != from)) && (member.keeps || member.body.is_some()) {
                if member.push(frame) {
                    self.counts.delivery(frame.len());
                } else {
                    self.counts.dropped(Dropped::Unread, 1);
                }
                self.dirty.push(*number);
            }
        }
    }

    /// Gives the kernel what was put down. A member that is gone is let go of where it is read.
    fn flush(&mut self) {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for number in self.dirty.drain(..) {
            if let Some(member) = self.members.get_mut(&number)
                && !member.is_blocked
                && let Err(error) = member.flush()
            {
                tracing::debug!(number, %error, "a member of the rooms cannot be written to");
            }
        }
    }
}

/// Other hosts.
impl Relay {
    /// From now on there are other hosts; yields what is to be published to them.
    pub(super) fn open_bridge(&mut self) -> Receiver<Published> {
        let (queue, published) = mpsc::channel(MAX_UNPUBLISHED);
        self.bridge = Some(Bridge { hosts: Hosts::default(), queue, queued: 0, sent: 0, own_seen: None });
        published
    }

    /// The upper half of this host's members' numbers.
    pub(super) fn host(&self) -> u32 {
        self.host
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// So many bytes do not wait any more.
    pub(super) fn published(&mut self, bytes: usize) {
        if let Some(bridge) = &mut self.bridge {
            bridge.queued -= bytes;
        }
    }

    /// Whether the link to other hosts holds. Yields whether it did before.
    pub(super) fn linked(&mut self, is_linked: bool) -> bool {
        let now = Instant::now();
        let was_linked = self.counts.set_linked(is_linked);
        if let Some(bridge) = &mut self.bridge {
            bridge.own_seen = is_linked.then_some(now);
            if is_linked && !was_linked {
                bridge.hosts.excuse(now);
            }
        }
        was_linked
    }

    /// Publishes which members this host has.
    pub(super) fn publish_state(&mut self, asks: bool) {
        let members = self.members.iter().filter_map(|(number, member)| Some((*number, member.body.as_ref()?)));
        let Some(bridge) = &mut self.bridge else { return };
        // The next one follows soon.
        bridge.put(None, bridge::state(self.host, asks, members), false);
    }

    /// The same, and how many messages were published: the heartbeat.
    pub(super) fn beat(&mut self) {
        self.publish_state(false);
        if let Some(bridge) = &mut self.bridge {
            bridge.put(None, bridge::sent(self.host, bridge.sent), false);
        }
    }

    fn publish(&mut self, host: Option<u32>, to: u64, frame: &Bytes) {
        let Some(bridge) = &mut self.bridge else { return };
        if bridge.queued < MAX_QUEUED && bridge.put(host, bridge::message(self.host, to, frame), true) {
            bridge.sent += u64::from(host.is_none());
        } else {
            self.counts.dropped(Dropped::Redis, 1);
        }
    }

    /// Takes in what was published. Returns whether it was this relay's own.
    pub(super) fn receive_remote(&mut self, payload: &[u8], now: Instant) -> bool {
        let (Some(message), Some(bridge)) = (bridge::read(payload), &mut self.bridge) else { return false };
        if message.host() == self.host {
            if !matches!(message, BridgeMessage::Message { .. }) && bridge.own_seen.is_some() {
                bridge.own_seen = Some(now);
                self.expire_hosts(now);
            }
            return true;
        }
        match message {
            BridgeMessage::State { host, asks, members } => {
                let changes = bridge.hosts.update(host, members, now);
                self.send_changes(&changes);
                if asks {
                    self.publish_state(false);
                }
            }
            BridgeMessage::Message { to, frame, .. } => {
                let from = frame.member;
                let changes = bridge.hosts.update_by_message(from, to == ALL, now);
                let is_known = bridge.hosts.has(from);
                self.send_changes(&changes);
                // Nothing of a member comes before it has joined.
                if !is_known {
                    self.counts.dropped(Dropped::Unknown, 1);
                } else if frame.kind == Kind::Message {
                    self.deliver(from, to, &frame.naming(from));
                }
            }
            BridgeMessage::Sent { host, total } => {
                let missed = bridge.hosts.missed(host, total);
                self.counts.dropped(Dropped::Missed, missed);
            }
        }
        self.flush();
        false
    }

    /// Gives up hosts that were silent for too long. While the link holds, the clock is the arrival of this relay's own messages,
    /// which come in order with those of the others: no host is given up because Redis or this relay is late.
    pub(super) fn expire_hosts(&mut self, now: Instant) {
        let Some(bridge) = &mut self.bridge else { return };
        let changes = bridge.hosts.expire(bridge.own_seen.unwrap_or(now));
        self.send_changes(&changes);
        self.flush();
    }

    fn send_changes(&mut self, Changes { come, gone }: &Changes) {
        for (number, body) in come {
            self.send(&frame::write(Kind::Ready, *number, body), |_| true);
        }
        for number in gone {
            self.send(&frame::write(Kind::Lost, *number, &[]), |_| true);
        }
        self.counts.set_hosts(self.bridge.as_ref().map_or(0, |bridge| bridge.hosts.count()));
    }
}

/// Serves one member until it is gone.
pub(super) async fn serve(relay: Rc<RefCell<Relay>>, stream: UnixStream, keeps: bool) {
    let number = {
        let mut relay = relay.borrow_mut();
        let number = relay.join(stream, keeps);
        relay.flush();
        number
    };
    match attend(&relay, number).await {
        Err(End::Malformed(what)) => {
            tracing::warn!("a worker has sent {what} over its link for rooms, which is closed: it gets no broadcasts");
        }
        Ok(()) | Err(End::Io(_)) => {}
    }
    let mut relay = relay.borrow_mut();
    relay.leave(number);
    relay.flush();
}

/// Reads and writes until the member's end.
async fn attend(relay: &RefCell<Relay>, number: u64) -> Result<(), End> {
    let Some((stream, wake)) =
        relay.borrow().members.get(&number).map(|member| (Rc::clone(&member.stream), Rc::clone(&member.wake)))
    else {
        return Ok(());
    };
    let mut reader = Reader::default();
    loop {
        let is_blocked = relay.borrow().members.get(&number).is_some_and(|member| member.is_blocked);
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                let read = relay.borrow_mut().read(&stream, &mut reader);
                match read {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        take_in(&mut relay.borrow_mut(), number, &mut reader)?;
                        // One that writes without end does not keep the others waiting.
                        if count >= MUCH {
                            yield_now().await;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            ready = stream.writable(), if is_blocked => {
                ready?;
                if let Some(member) = relay.borrow_mut().members.get_mut(&number) {
                    member.flush()?;
                }
            }
            () = wake.notified() => {}
        }
    }
}

fn take_in(relay: &mut Relay, number: u64, reader: &mut Reader) -> Result<(), Malformed> {
    let outcome = loop {
        match reader.take() {
            Ok(Some(frame)) => relay.receive(number, frame),
            Ok(None) => break Ok(()),
            Err(malformed) => break Err(malformed),
        }
    };
    relay.flush();
    outcome
}
