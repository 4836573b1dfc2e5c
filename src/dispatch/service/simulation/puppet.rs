//! A worker that does as the dice say, at its end of a real channel.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use super::laws::Laws;
use super::*;
use crate::handover::haft::{FromWorker, MasterMessage, WorkerEnd};
use crate::sys::scm::Sent;

/// A worker.
pub(super) struct FakeWorker {
    end: WorkerEnd,
    pub since: Time,
    pub is_ready: bool,
    /// It tags its sessions.
    tags: bool,
    /// It was replaced, and goes on with its sessions.
    pub lingers: bool,
    /// It neither reads nor speaks.
    pub stopped: bool,
    /// It has announced that it leaves.
    pub leaves: bool,
    pub terminated: bool,
    pub killed: bool,
    /// It has misbehaved, and is not read any more.
    is_mute: bool,
    /// What it has received and not acknowledged: sequence number and client.
    received: VecDeque<(u64, u16)>,
    /// Below this it has acknowledged, or given back, everything.
    settled: u64,
    /// How many it takes at most beyond those that are settled.
    room: u64,
    limit: u64,
}

impl FakeWorker {
    pub fn new(channel: OwnedFd, since: Time, tags: bool) -> Self {
        Self {
            end: WorkerEnd::new(channel),
            since,
            is_ready: false,
            tags,
            lingers: false,
            stopped: false,
            leaves: false,
            terminated: false,
            killed: false,
            is_mute: false,
            received: VecDeque::new(),
            settled: 0,
            room: 0,
            limit: 0,
        }
    }

    /// Sends something. `false`: the channel has no room for it.
    fn say(&self, frame: FromWorker) -> bool {
        !self.is_mute && matches!(self.end.send(frame), Ok(Sent::Bytes(_)))
    }

    pub fn get_ready(&mut self, room: u64, at_once: bool) {
        if at_once && self.say(FromWorker::Ready { limit: room, tags: self.tags }) {
            (self.is_ready, self.room, self.limit) = (true, room, room);
        }
    }

    /// Receives one frame.
    pub fn receive(&mut self, laws: &mut Laws) {
        if self.is_mute {
            return;
        }
        match self.end.receive() {
            Ok(Some(MasterMessage::Connections(entries, descriptors))) => {
                assert_eq!(entries.len(), descriptors.len());
                for entry in entries {
                    let EndAddr::Ip(client) = entry.client else { panic!("{entry:?}") };
                    laws.received(client.port());
                    self.received.push_back((entry.sequence, client.port()));
                }
            }
            Ok(Some(MasterMessage::Linger { .. })) => {
                assert!(self.tags && !self.lingers, "asked to linger for no reason");
                self.lingers = true;
                laws.totals.add("lingered", 1);
            }
            Ok(Some(MasterMessage::Drain { .. } | MasterMessage::Ping) | None) | Err(_) => {}
        }
    }

    /// It lingers, and announces that its last session has ended.
    pub fn end_sessions(&mut self, laws: &mut Laws) {
        if self.say(FromWorker::Idle) {
            self.lingers = false;
            laws.totals.add("idle", 1);
        }
    }

    /// Takes at most so many of those that it has received.
    pub fn acknowledge(&mut self, worker: WorkerId, most: u64, laws: &mut Laws) {
        let count = self.received.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let settled = if count == 0 { self.settled } else { self.received[count - 1].0 + 1 };
        let limit = self.limit.max(settled + self.room);
        if self.is_ready && self.say(FromWorker::Taken { below: settled, limit, open: 0 }) {
            (self.settled, self.limit) = (settled, limit);
            self.received.drain(..count).for_each(|(_, client)| laws.serve(client, worker));
        }
    }

    /// Gives back the last of those that it has received.
    pub fn give_back(&mut self, most: u64) {
        let Some((newest, _)) = self.received.back() else { return };
        // Only what follows without a gap can be named in one frame.
        let count = (0..most.min(self.received.len() as u64))
            .take_while(|back| self.received[self.received.len() - 1 - *back as usize].0 == newest - back)
            .count();
        let first = newest + 1 - count as u64;
        if count > 0 && self.say(FromWorker::Returned { first, count: count as u32 }) {
            self.received.truncate(self.received.len() - count);
        }
    }

    /// Sends a violation, and nothing more.
    pub fn misbehave(&mut self) {
        self.say(FromWorker::Taken { below: u64::MAX, limit: u64::MAX, open: 0 });
        self.is_mute = true;
        self.received.clear();
    }
}

/// Makes a channel that few frames fill.
pub(super) fn narrow(end: &MasterEnd) {
    setsockopt(&end.as_fd(), sockopt::SndBuf, &4096).expect("a small buffer");
}
