//! No dialect: the program accepts from the listeners that it took over, and at most reports its state (sd_notify(3)).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{LinkError, WorkerEvent};
use crate::sys::notify::{Notification, NotifySocket};

/// Most messages of one worker a turn.
const MAX_MESSAGES: u32 = 16;
/// A silent program counts as ready when it has lived for so long: most of what can go wrong at a start
/// does so at once, and clients that come earlier wait in its listeners' queues anyway.
const SILENCE: Duration = Duration::from_secs(1);

/// What is known of a program that took its listeners over.
#[derive(Debug)]
pub(super) struct ListenFdsLink {
    socket: NotifySocket,
    /// Its process group; 0 until it was started.
    leader: u32,
    started: Instant,
    /// Whether it must say itself that it is ready.
    wait_ready: bool,
    ready: bool,
}

impl ListenFdsLink {
    pub(super) fn new(socket: NotifySocket, wait_ready: bool, now: Instant) -> Self {
        Self { socket, leader: 0, started: now, wait_ready, ready: false }
    }

    pub(super) fn set_leader(&mut self, leader: u32) {
        self.leader = leader;
    }

    pub(super) fn waits_for_ready(&self) -> bool {
        self.wait_ready
    }

    /// Whether the program is ready only because it has lived for long enough.
    pub(super) fn ready_by_silence(&mut self, now: Instant) -> bool {
        let is_news = !self.ready && !self.wait_ready && now >= self.started + SILENCE;
        self.ready |= is_news;
        is_news
    }

    /// Reads the program's notifications. `false`: there are more, to be read in another turn.
    pub(super) fn receive(&mut self, news: &mut Vec<WorkerEvent>) -> Result<bool, LinkError> {
        for _ in 0..MAX_MESSAGES {
            match self.socket.receive(self.leader)? {
                None => return Ok(true),
                Some(Notification::Ready) if !self.ready => {
                    self.ready = true;
                    news.push(WorkerEvent::Ready);
                }
                Some(Notification::Stopping) => news.push(WorkerEvent::Leaving),
                Some(Notification::Ready | Notification::Other) => {}
            }
        }
        Ok(false)
    }
}

impl AsFd for ListenFdsLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
