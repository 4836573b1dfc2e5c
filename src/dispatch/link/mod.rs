//! One worker as the master's hand-over sees it: its channel, and the connections in flight to it.

mod ending;
mod haft;
mod listen_fds;
pub mod opening;
mod sessions;
mod taking;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::haft::HaftLink;
use self::listen_fds::ListenFdsLink;
use self::opening::RecentSessions;
use self::sessions::Lingering;
use self::taking::ServiceRate;
use crate::connection::ClientConnection;
use crate::dispatch::Listening;
use crate::handover::channel::{Blocked, WorkerEvent};
use crate::handover::error::LinkError;
use crate::handover::haft::MasterEnd;
use crate::handover::in_flight::InFlight;
use crate::handover::ledger::Ledger;
use crate::handover::outbox::Outbox;
use crate::ids::WorkerId;
use crate::node::link::{NodeLink, StartupPhase};
use crate::node::primary::{ClusterPrimary, Relayed};
use crate::node::refused::RefusedListen;
use crate::route::Slot;
use crate::sys::notify::NotifySocket;
use crate::sys::poller::Interest;

/// The dialect's own part of a link.
#[derive(Debug)]
enum DialectLink {
    Haft(HaftLink),
    Node(Box<NodeLink>),
    ListenFds(ListenFdsLink),
}

/// A worker's channel and what is in flight on it.
#[derive(Debug)]
pub struct Link {
    /// Its id.
    pub worker: WorkerId,
    /// The slot it fills, or filled before it was replaced.
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
    /// What waits for this worker alone, which does not fill its slot: connections of its sessions.
    pub own: VecDeque<ClientConnection>,
    /// What stopped the last sending.
    pub obstacle: Blocked,
    /// How the channel is polled; not at all as long as nothing waits for this worker.
    pub listening: Option<Listening>,
    end: DialectLink,
    outbox: Outbox<ClientConnection>,
    taking: ServiceRate,
    rests_until: Option<Instant>,
    /// Since when the worker has had connections to take and has acknowledged none.
    silent_since: Option<Instant>,
    /// Since when a ping has not been answered.
    pinged_since: Option<Instant>,
    ended: bool,
    /// It got DRAIN, or finishes of its own accord.
    finishes: bool,
    lingers: Option<Lingering>,
    opening: RecentSessions,
    /// What the worker last reported of itself.
    pub reported_load: ReportedLoad,
}

/// How much a new session would weigh with a worker, by its own word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportedLoad {
    /// See [`crate::route::weight`].
    pub weight: u64,
    /// Connections that it has.
    pub connections: u64,
}

impl Link {
    /// A link in the `haft` dialect over a new channel.
    pub fn haft(worker: WorkerId, slot: Slot, end: MasterEnd) -> Self {
        Self::over(worker, slot, DialectLink::Haft(HaftLink::new(end)))
    }

    /// A link in the `node` dialect over a new channel.
    pub fn node(worker: WorkerId, slot: Slot, channel: OwnedFd, primary: &ClusterPrimary) -> Self {
        Self::over(worker, slot, DialectLink::Node(Box::new(NodeLink::new(worker, slot, channel, primary))))
    }

    /// No channel: the worker takes its listeners over. `wait_ready`: it announces itself that it is ready.
    pub fn listen_fds(worker: WorkerId, slot: Slot, socket: NotifySocket, wait_ready: bool, now: Instant) -> Self {
        Self::over(worker, slot, DialectLink::ListenFds(ListenFdsLink::new(socket, wait_ready, now)))
    }

    /// The worker's process is this one.
    pub fn set_pid(&mut self, pid: u32) {
        if let DialectLink::ListenFds(end) = &mut self.end {
            end.set_leader(pid);
        }
    }

    /// Whether connections can be handed over to the worker.
    pub fn takes_connections(&self) -> bool {
        match &self.end {
            DialectLink::Haft(_) | DialectLink::Node(_) => true,
            DialectLink::ListenFds(_) => false,
        }
    }

    fn over(worker: WorkerId, slot: Slot, end: DialectLink) -> Self {
        Self {
            worker,
            slot,
            generation: 0,
            own: VecDeque::new(),
            obstacle: Blocked::None,
            listening: None,
            end,
            outbox: Outbox::new(),
            taking: ServiceRate::default(),
            rests_until: None,
            silent_since: None,
            pinged_since: None,
            ended: false,
            finishes: false,
            lingers: None,
            opening: RecentSessions::default(),
            reported_load: ReportedLoad::default(),
        }
    }

    /// Connections sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.outbox.in_flight()
    }

    /// Connections that were ever sent.
    #[cfg(test)]
    pub fn sent(&self) -> u64 {
        self.outbox.next_sequence()
    }

    /// Open connections that the worker reports.
    pub fn open(&self) -> Option<u32> {
        match &self.end {
            DialectLink::Haft(end) => end.open(),
            DialectLink::Node(_) | DialectLink::ListenFds(_) => None,
        }
    }

    /// The process of the worker that serves, where it may be another than the one that was started.
    pub fn serving_process(&self) -> Option<u32> {
        match &self.end {
            DialectLink::Node(end) => end.process(),
            DialectLink::Haft(_) | DialectLink::ListenFds(_) => None,
        }
    }

    /// Why the worker may not be ready yet, and what to do about it.
    pub fn why_not_ready(&self) -> &'static str {
        match &self.end {
            DialectLink::Haft(_) => {
                "a program that is run by haft takes its connections from haft's channel (HAFT_CHANNEL_FD); if it is \
                 a Node program behind a wrapper, say so with --dialect node; one that can take a listener over \
                 (LISTEN_FDS, descriptor 3) needs --dispatch kernel --dialect listen-fds"
            }
            DialectLink::ListenFds(end) if end.waits_for_ready() => {
                "with --wait-ready it must say READY=1 (sd_notify) itself, to NOTIFY_SOCKET"
            }
            DialectLink::ListenFds(_) => "it is silent and has lived for too short a time",
            DialectLink::Node(end) => match end.life() {
                StartupPhase::Starting => {
                    "no process of it has listened. Where the program starts its servers as processes of its own \
                     (child_process), or a wrapper stands between haft and node, give haft the server's file \
                     (haft -- node FILE)"
                }
                StartupPhase::Online => {
                    "its program has asked for no server. If it waits for connections by message, name the style: \
                     --node-style classic, sticky-session, sticky-cluster, sticky-listen or socket.io-sticky. If it \
                     listens by itself: a wrapper that starts node again (npm, npx, nodemon) keeps the channel to \
                     itself, and `exclusive: true` or `reusePort: true` bypass it"
                }
                StartupPhase::Asked | StartupPhase::Ready => {
                    "its program asked for a server and did not say that it is ready; with --wait-ready it must call \
                     process.send('ready')"
                }
            },
        }
    }

    /// Why the last that its program asked to listen on was refused, if it was and the program is not ready.
    pub fn why_refused(&self) -> Option<&str> {
        match &self.end {
            DialectLink::Node(end) => end.refused().map(RefusedListen::why),
            DialectLink::Haft(_) | DialectLink::ListenFds(_) => None,
        }
    }

    /// Whether all that its program wanted to listen on was refused, and it wants nothing else. One that takes its
    /// connections by message may do without.
    pub fn listens_in_vain(&self, primary: &ClusterPrimary, now: Instant) -> bool {
        let DialectLink::Node(end) = &self.end else { return false };
        let has_nothing = !self.ended && !primary.is_by_message() && primary.has_none(self.worker);
        has_nothing && end.refused().is_some_and(|refused| refused.is_final(now))
    }

    /// Whether the worker counts as ready because it has been silent for long enough.
    pub fn ready_by_silence(&mut self, primary: Option<&ClusterPrimary>, now: Instant) -> bool {
        match (&mut self.end, primary) {
            (DialectLink::Haft(_), _) | (DialectLink::Node(_), None) => false,
            (DialectLink::Node(end), Some(primary)) => end.ready_by_silence(primary, now),
            (DialectLink::ListenFds(end), _) => end.ready_by_silence(now),
        }
    }

    /// Whether the worker may close its channel and live on, until it has finished: programs of Node may.
    pub fn may_leave(&self) -> bool {
        matches!(self.end, DialectLink::Node(_))
    }

    /// Whether nothing can come from the worker any more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the poller is to wait for.
    pub fn wanted_interest(&self) -> Option<Interest> {
        match self.obstacle {
            _ if self.ended => None,
            Blocked::ChannelFull => Some(Interest::ReadableOrWritable),
            Blocked::None | Blocked::TooManyInFlight | Blocked::Resting => Some(Interest::Readable),
        }
    }

    /// Whether the worker has room for more than it has to acknowledge, if at most `most` may be in flight: then no
    /// client waits for its acknowledgements, and hearing them once for many saves much.
    pub fn has_ample_room(&self, most: usize) -> bool {
        let room = match &self.end {
            DialectLink::Haft(_) => self.outbox.room(most),
            DialectLink::Node(end) => end.room(most),
            DialectLink::ListenFds(_) => 0,
        };
        room > self.in_flight()
    }

    /// For how long, at least, the worker has connections to take that were sent to it before, if it has taken none
    /// since
    /// its last answer.
    pub fn busy_for(&self) -> Duration {
        self.taking.busy_for(self.in_flight())
    }

    /// Whether sending must be tried again after a while, without an event for it.
    pub fn must_retry(&self) -> bool {
        matches!(self.obstacle, Blocked::TooManyInFlight | Blocked::Resting)
    }

    /// Sends from the front of `held` as much as the worker has room for. Never waits.
    pub fn send(
        &mut self,
        held: &mut VecDeque<ClientConnection>,
        primary: Option<&ClusterPrimary>,
        max_in_flight: usize,
        now: Instant,
    ) -> Result<(), LinkError> {
        if self.rests_until.is_some_and(|until| now < until) {
            self.obstacle = Blocked::Resting;
            return Ok(());
        }
        self.rests_until = None;
        self.obstacle = match (&mut self.end, primary) {
            (DialectLink::Haft(end), _) => end.send(&mut self.outbox, held, max_in_flight)?,
            (DialectLink::Node(end), Some(primary)) => end.send(&mut self.outbox, held, primary, max_in_flight)?,
            (DialectLink::Node(_), None) | (DialectLink::ListenFds(_), _) => Blocked::None,
        };
        if self.outbox.in_flight() > 0 {
            self.silent_since.get_or_insert(now);
        }
        Ok(())
    }

    /// Sends what waits for the kernel, without any connection of the queue.
    pub fn flush(&mut self, primary: Option<&ClusterPrimary>) -> Result<(), LinkError> {
        if self.ended {
            return Ok(());
        }
        match (&mut self.end, primary) {
            (DialectLink::Haft(end), _) if end.has_unsent() => self.obstacle = end.send_rest()?,
            (DialectLink::Node(end), Some(primary)) if end.has_unsent() || end.is_unsettled() => {
                self.obstacle = end.flush(&self.outbox, primary)?
            }
            (DialectLink::Haft(_) | DialectLink::Node(_) | DialectLink::ListenFds(_), _) => {}
        }
        Ok(())
    }

    /// The worker is not to be trusted, or has closed its end: nothing is sent to it or read from it any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Passes a message of another worker's on, or news of its end. `false`: it was dropped.
    pub fn mail(&mut self, mail: &Relayed) -> bool {
        match (&mut self.end, mail) {
            (DialectLink::Haft(_) | DialectLink::ListenFds(_), _) => true,
            (DialectLink::Node(end), Relayed::Message(_, whole) | Relayed::Pass(_, whole)) => end.forward(whole),
            (DialectLink::Node(end), Relayed::WorkerDied(notice)) => end.notify(notice),
        }
    }

    /// Sends DRAIN, after what was sent before.
    pub fn drain(&mut self, within: Duration, signal: Option<Signal>) -> Result<(), LinkError> {
        self.finishes = true;
        self.lingers = None;
        match &mut self.end {
            DialectLink::Haft(end) => self.obstacle = end.drain(within)?,
            // It is sent with the next flush.
            DialectLink::Node(end) => end.drain(within, signal),
            // It gets a signal.
            DialectLink::ListenFds(_) => {}
        }
        Ok(())
    }

    /// It was asked to finish, and now has less time for that. A Node program learns so by the signal that comes with
    /// it.
    pub fn shorten(&mut self, within: Duration) -> Result<(), LinkError> {
        if let (DialectLink::Haft(end), true, None) = (&mut self.end, self.finishes, self.lingers) {
            self.obstacle = end.drain(within)?;
        }
        Ok(())
    }

    /// Reads what the worker has sent. What it returned goes to the front of `held`. `false`: there may be more,
    /// to be taken in another turn.
    pub fn receive(
        &mut self,
        held: &mut VecDeque<ClientConnection>,
        ledger: &mut Ledger,
        primary: Option<&mut ClusterPrimary>,
        news: &mut Vec<WorkerEvent>,
        now: Instant,
    ) -> Result<bool, LinkError> {
        let (settled, mut spoke) = (self.outbox.settled(), false);
        let mut in_flight = InFlight {
            slot: self.slot,
            worker: self.worker,
            outbox: &mut self.outbox,
            held,
            ledger,
            rests_until: &mut self.rests_until,
            spoke: &mut spoke,
            ended: &mut self.ended,
        };
        let received = match (&mut self.end, primary) {
            (DialectLink::Haft(end), _) => end.receive(&mut in_flight, news, now),
            (DialectLink::Node(end), Some(primary)) => {
                let before = end.reported().sessions();
                let received = end.receive(&mut in_flight, primary, news, now);
                self.opening.reported(end.reported().sessions().saturating_sub(before), now);
                received
            }
            (DialectLink::Node(_), None) => Ok(true),
            (DialectLink::ListenFds(end), _) => end.receive(news),
        };
        self.pinged_since.take_if(|_| spoke);
        self.taking.took(self.outbox.settled() - settled, self.outbox.in_flight(), now);
        if self.outbox.settled() > settled {
            self.silent_since = (self.outbox.in_flight() > 0).then_some(now);
        }
        received
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.end {
            DialectLink::Haft(end) => end.as_fd(),
            DialectLink::Node(end) => end.as_fd(),
            DialectLink::ListenFds(end) => end.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
