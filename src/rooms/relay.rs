//! The members that are there, and which of them get a message.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::bridge::{self, BridgeMessage, Hosts, MemberChanges, host_of};
use super::counts::{DropReason, RoomsCounters};
use super::emitter::EmitterChannels;
use super::member::{MAX_QUEUED, Member};
use haft_worker::protocol::rooms::{self as frame, ALL, Frame, HEADER, Kind, MAX_FRAME, Malformed, Reader};

/// Most messages that wait to be published; their bytes are bounded by [`MAX_QUEUED`].
const MAX_UNPUBLISHED: usize = 1 << 16;
/// Most bytes in one read.
pub(super) const MUCH: usize = 64 << 10;
/// Longest body of READY.
const MAX_TOLD: usize = 1024;

/// All members, by their numbers.
#[derive(Debug)]
pub(super) struct Relay {
    members: BTreeMap<u64, Member>,
    counts: Arc<RoomsCounters>,
    next: u64,
    /// Members with output that the kernel has not taken yet.
    dirty: Vec<u64>,
    /// What a read puts down first.
    scratch: Vec<u8>,
    host: u32,
    bridge: Option<Bridge>,
    /// How much was published where emitters do.
    emitted: u64,
    is_foreign_logged: bool,
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
pub(super) enum MemberError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Relay {
    /// A relay without members. `host`: the upper half of its members' numbers, not 0.
    pub(super) fn new(host: u32, counts: Arc<RoomsCounters>) -> Self {
        let next = u64::from(host) << 32;
        let (members, dirty) = (BTreeMap::new(), Vec::new());
        Self {
            members,
            counts,
            next,
            dirty,
            scratch: vec![0; MUCH],
            host,
            bridge: None,
            emitted: 0,
            is_foreign_logged: false,
        }
    }

    /// Takes a member in, and yields its number.
    pub(super) fn join(&mut self, stream: Rc<UnixStream>, keeps: bool) -> u64 {
        self.next += 1;
        let number = self.next;
        let mut member = Member::new(stream, keeps);
        member.push_always(&frame::write(Kind::Welcome, number, &[frame::VERSION]));
        self.members.insert(number, member);
        self.dirty.push(number);
        number
    }

    /// A member is gone.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(member) = self.members.remove(&number) else { return };
        if member.body.is_some() {
            self.count_members();
            self.send(&frame::write(Kind::Lost, number, &[]), |_| true);
            self.publish_state(false);
        }
    }

    /// Handles a frame from a member.
    fn receive(&mut self, from: u64, frame: Frame) {
        match frame.kind {
            Kind::Ready => self.ready(from, &frame),
            Kind::Message => self.pass(from, frame),
            Kind::Lost => self.counts.dropped(DropReason::Unsent, frame.member),
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
        self.count_members();
        self.send(&frame::write(Kind::Ready, number, &body), |other| other != number);
        self.publish_state(false);
    }

    /// A link that is not used is no member.
    fn count_members(&self) {
        self.counts.set_members(self.members.values().filter(|member| member.body.is_some()).count());
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
        let takes = |member: &Member| member.keeps || member.body.is_some();
        if to != ALL && !self.members.get(&to).is_some_and(takes) {
            self.counts.dropped(DropReason::Left, 1);
            return;
        }
        for (number, member) in &mut self.members {
            if (*number == to || (to == ALL && *number != from)) && takes(member) {
                if member.push(frame) {
                    self.counts.delivery(frame.len());
                } else {
                    self.counts.dropped(DropReason::Unread, 1);
                }
                self.dirty.push(*number);
            }
        }
    }

    /// Gives the kernel what was put down. A member that is gone is let go of where it is read.
    pub(super) fn flush(&mut self) {
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

    pub(super) fn counts(&self) -> &RoomsCounters {
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
            self.counts.dropped(DropReason::Redis, 1);
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
                    self.counts.dropped(DropReason::Unknown, 1);
                } else if frame.kind == Kind::Message {
                    self.deliver(from, to, &frame.naming(from));
                }
            }
            BridgeMessage::Sent { host, total } => {
                let missed = bridge.hosts.missed(host, total);
                self.counts.dropped(DropReason::Missed, missed);
            }
        }
        self.flush();
        false
    }

    /// Takes in what was published where emitters do: each host hears it, and it is for this one's members.
    pub(super) fn receive_emitted(&mut self, channels: &EmitterChannels, channel: &[u8], payload: &[u8]) {
        self.emitted += 1;
        let id = format!("{:x}-e-{:x}", self.host, self.emitted);
        let body = channels.read(channel, payload, &id).filter(|body| HEADER + body.len() <= MAX_FRAME);
        if let Some(body) = body {
            self.counts.message();
            self.deliver(ALL, ALL, &frame::write(Kind::Message, ALL, &body));
            self.flush();
            return;
        }
        self.counts.dropped(DropReason::Emitter, 1);
        if !std::mem::replace(&mut self.is_foreign_logged, true) {
            tracing::warn!(
                channel = %String::from_utf8_lossy(channel),
                "a message in Redis is not one of @socket.io/redis-emitter, and is left out: if other servers of Socket.IO \
                 use this Redis, give emitters a key of their own (--redis-emitter KEY, new Emitter(client, {{ key }})), or \
                 say --redis-emitter off"
            );
        }
    }

    /// Gives up hosts that were silent for too long. While the link holds, the clock is the arrival of this relay's own messages,
    /// which come in order with those of the others: no host is given up because Redis or this relay is late.
    pub(super) fn expire_hosts(&mut self, now: Instant) {
        let Some(bridge) = &mut self.bridge else { return };
        let changes = bridge.hosts.expire(bridge.own_seen.unwrap_or(now));
        self.send_changes(&changes);
        self.flush();
    }

    fn send_changes(&mut self, MemberChanges { come, gone }: &MemberChanges) {
        for (number, body) in come {
            self.send(&frame::write(Kind::Ready, *number, body), |_| true);
        }
        for number in gone {
            self.send(&frame::write(Kind::Lost, *number, &[]), |_| true);
        }
        self.counts.set_hosts(self.bridge.as_ref().map_or(0, |bridge| bridge.hosts.count()));
    }
}

/// What serves a member.
impl Relay {
    /// What wakes its task.
    pub(super) fn wake_of(&self, number: u64) -> Option<Rc<Notify>> {
        self.members.get(&number).map(|member| Rc::clone(&member.wake))
    }

    /// Whether something waits for the kernel to take more for it.
    pub(super) fn is_blocked(&self, number: u64) -> bool {
        self.members.get(&number).is_some_and(|member| member.is_blocked)
    }

    /// Gives the kernel what waits for one member.
    pub(super) fn flush_one(&mut self, number: u64) -> io::Result<()> {
        self.members.get_mut(&number).map_or(Ok(()), Member::flush)
    }

    /// Takes in what a member has sent, and yields how many bytes that are.
    pub(super) fn read(
        &mut self,
        number: u64,
        mut stream: &UnixStream,
        reader: &mut Reader,
    ) -> Result<usize, MemberError> {
        let count = stream.read(&mut self.scratch)?;
        reader.push(BytesMut::from(&self.scratch[..count]));
        let outcome = loop {
            match reader.take() {
                Ok(Some(frame)) => self.receive(number, frame),
                Ok(None) => break Ok(count),
                Err(malformed) => break Err(malformed.into()),
            }
        };
        self.flush();
        outcome
    }
}
