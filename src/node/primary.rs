//! What Node workers have in common: the servers that their programs listen with, and the messages between them.

mod bounds;
mod groups;
mod messages;
mod opening;
mod plan;
mod rooms;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::messages::Relayed;
pub use self::opening::Opened;
use self::opening::RESERVED_PORT;
pub use self::plan::NodePlan;
use super::named::SessionIndex;
use super::paths::EnginePaths;
use crate::addr::ListenAddr;
use crate::ids::WorkerId;
use crate::listen::kernel::{Group, Kernel, Opener};
use crate::node::wire::{
    AdapterRelay, Decision, Library, ListenRefusal, ListenReply, Own, Query, Serialization, ServerId, Servers,
    Sockname, Spec, Troubles,
};
use crate::rooms::RoomsRelay;
use crate::route::Slot;
use crate::sys::listen::{self, Access, ListenError, Listener};
use crate::sys::rights::Sender;

/// How much is read from a worker at once.
const READ: usize = 64 << 10;

/// A program that takes connections by message and never listens is silent when it is ready: it counts as
/// after this time without a word. A message that comes before the program waits for it would be lost, and what comes
/// meanwhile is held, so this is rather long than short.
const SILENCE: Duration = Duration::from_secs(2);
/// The same for a program that is expected to listen.
const LONG_SILENCE: Duration = Duration::from_secs(15);

/// What Node workers have in common.
#[derive(Debug)]
pub struct ClusterPrimary {
    plan: NodePlan,
    message: Arc<[u8]>,
    servers: Servers,
    relay: AdapterRelay,
    /// Which server each listener belongs to, by the listener's number.
    server_of: BTreeMap<u32, ServerId>,
    /// The number of the next listener: a number is not used again.
    next: u32,
    /// UDP sockets, of which each worker gets a copy.
    udp: BTreeMap<ServerId, OwnedFd>,
    /// With `--dispatch kernel`: what opens listeners, and those of each server.
    opener: Option<Rc<Opener>>,
    groups: BTreeMap<ServerId, Rc<Group>>,
    /// Listeners that were opened and not taken over yet.
    fresh: Vec<Opened>,
    /// Listeners that were closed by the last worker that had them.
    closing: Vec<u32>,
    mail: Vec<Relayed>,
    buffer: Vec<u8>,
    named: SessionIndex,
    /// The ports of `--listen`.
    own_ports: Vec<u16>,
    /// What workers wanted to listen on and may not, or was too much.
    pub refused: u64,
    /// Why the last that a worker wanted to listen on could not be had.
    listen_failures: BTreeMap<WorkerId, ListenError>,
    /// The listeners of `--listen`.
    own: Vec<ListenAddr>,
    /// Servers whose listener was logged.
    logged: BTreeSet<ServerId>,
    /// Since when `--listen` serves a server only because it was the first; `None` once that is settled.
    provisional_since: Option<Instant>,
    settled: bool,
    /// Libraries whose messages to a primary were logged.
    libraries: BTreeSet<Library>,
    /// Since when no worker has had a server.
    orphaned: BTreeMap<ServerId, Instant>,
    /// Which worker has which server has changed.
    changed: bool,
    /// Since when workers that serve have no server in common; and whether that was logged.
    apart_since: Option<Instant>,
    apart_told: bool,
    /// Messages of programs to their primary.
    pub messages: u64,
    /// Messages between workers that were dropped, because they were too long or too many.
    pub dropped: u64,
    /// Where workers have an Engine.IO.
    pub paths: EnginePaths,
    /// What the program does that goes round haft.
    pub troubles: Troubles,
    /// The relay between workers, if they share rooms.
    rooms: Option<RoomsRelay>,
}

impl ClusterPrimary {
    /// A desk without a server. `own`: haft's own listeners, if it has any.
    pub fn new(plan: NodePlan, own: &[Listener]) -> Self {
        Self::over(plan, own.iter().map(Listener::addr).collect())
    }

    /// A primary whose workers accept from listeners of their own, if they listen on TCP. `by_master`: those of
    /// `--listen` after the kernel's, of which connections are handed over.
    pub fn over_kernel(plan: NodePlan, kernel: &Kernel, by_master: &[Listener]) -> Self {
        let own = kernel.own().map(|group| group.addr()).chain(by_master.iter().map(Listener::addr));
        let mut primary = Self::over(plan, own.collect());
        primary.servers.share_listeners(primary.plan.tells_ports);
        primary.opener = Some(kernel.opener());
        let own =
            (0..).zip(kernel.own()).filter_map(|(number, group)| Some((primary.server_of(number)?, Rc::clone(group))));
        primary.groups = own.collect();
        primary
    }

    fn over(plan: NodePlan, own: Vec<&ListenAddr>) -> Self {
        let message = plan.message.as_ref().map(|message| message.frame(plan.serialization)).unwrap_or_default();
        let folder = std::env::current_dir().unwrap_or_default();
        let ports = plan.server_ports.iter().copied().chain(std::iter::repeat(None));
        let (own_servers, server_of) = Own::new(own.iter().map(|addr| sockname(addr)).zip(ports));
        Self {
            message: message.into(),
            servers: Servers::new(own_servers, folder),
            relay: AdapterRelay::new(),
            server_of: (0..).zip(server_of).collect(),
            next: own.len() as u32,
            udp: BTreeMap::new(),
            opener: None,
            groups: BTreeMap::new(),
            fresh: Vec::new(),
            closing: Vec::new(),
            mail: Vec::new(),
            buffer: Vec::new(),
            named: SessionIndex::default(),
            own_ports: own.iter().filter_map(|addr| addr.port()).collect(),
            refused: 0,
            listen_failures: BTreeMap::new(),
            own: own.into_iter().cloned().collect(),
            logged: BTreeSet::new(),
            provisional_since: None,
            settled: false,
            libraries: BTreeSet::new(),
            orphaned: BTreeMap::new(),
            changed: false,
            apart_since: None,
            apart_told: false,
            messages: 0,
            dropped: 0,
            paths: EnginePaths::default(),
            troubles: Troubles::default(),
            rooms: plan.rooms.then(|| RoomsRelay::new(plan.redis.as_ref())),
            plan,
        }
    }

    /// How messages are written.
    pub fn serialization(&self) -> Serialization {
        self.plan.serialization
    }

    /// The frame that goes with each connection; empty where connections go to servers.
    pub fn message(&self) -> Arc<[u8]> {
        Arc::clone(&self.message)
    }

    /// Whether programs take connections from `process.on('message')`.
    pub fn is_by_message(&self) -> bool {
        self.plan.message.is_some()
    }

    /// Whether a worker is ready only when its program announces it.
    pub fn waits_for_ready(&self) -> bool {
        self.plan.wait_ready
    }

    /// Whether a program that takes connections by message will say that it is ready by listening: its style does, or
    /// it has asked for a server.
    pub fn is_to_listen(&self, has_asked: bool) -> bool {
        self.plan.listens || has_asked
    }

    /// How long a worker may take to be ready, from now on.
    pub fn reconfigure(&mut self, start_timeout: Duration) {
        self.plan.start_timeout = start_timeout;
    }

    /// After how long a silence a program that takes connections by message counts as ready; never, if it announces it
    /// itself. Always well before it would be too late.
    pub fn patience(&self, has_asked: bool) -> Option<Duration> {
        let patience = if self.is_to_listen(has_asked) { LONG_SILENCE } else { SILENCE };
        (self.is_by_message() && !self.waits_for_ready()).then(|| patience.min(self.plan.start_timeout / 2))
    }

    /// Which server a listener belongs to.
    pub fn server_of(&self, listener: u32) -> Option<ServerId> {
        self.server_of.get(&listener).copied()
    }

    /// What the worker calls a server, if it has it and is to serve it now.
    pub fn key_for(&self, worker: WorkerId, server: ServerId) -> Option<&str> {
        let is_settled = server != ServerId::OWN || self.settled || !self.servers.is_provisional();
        is_settled.then(|| self.servers.key_for(worker, server))?
    }

    /// Whether the worker takes what comes to this listener, though it may have to wait until that is settled.
    pub fn takes(&self, worker: WorkerId, listener: u32) -> bool {
        let Some(server) = self.server_of(listener) else { return false };
        (self.is_by_message() && self.servers.is_own(server)) || self.servers.holds(worker, server)
    }

    /// Whether the worker takes connections at all: by message, or at a server.
    pub fn serves(&self, worker: WorkerId) -> bool {
        self.is_by_message() || self.servers.of_worker(worker).next().is_some()
    }

    /// Whether the next worker of a slot is likely to take what comes to this listener.
    pub fn is_expected(&self, slot: Slot, listener: u32) -> bool {
        let Some(server) = self.server_of(listener) else { return false };
        (self.is_by_message() && self.servers.is_own(server)) || self.servers.is_expected(slot, server)
    }

    /// What waits for a slot may be better off at another.
    pub fn note_change(&mut self) {
        self.changed = true;
    }

    /// Whether it has changed since the last call which worker has which server.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether time changes what listeners serve.
    pub fn depends_on_time(&self) -> bool {
        self.provisional_since.is_some()
            || self.apart_since.is_some()
            || !self.orphaned.is_empty()
            || self.servers.orphans().next().is_some()
    }

    /// A worker of this slot is started.
    pub fn started(&mut self, worker: WorkerId, slot: Slot) {
        self.servers.started(worker, slot);
        self.rooms.iter_mut().for_each(|rooms| rooms.started(slot));
    }

    /// A worker has ended: why the last that it wanted to listen on could not be had, if so.
    pub fn take_listen_failure(&mut self, worker: WorkerId) -> Option<ListenError> {
        self.listen_failures.remove(&worker)
    }

    /// The answer for a worker that has joined a server.
    pub fn answer(&self, server: ServerId) -> Option<ListenReply<'_>> {
        self.servers.answer(server)
    }

    /// A program wants to listen: the server that it gets, opened if no worker had it. Nothing is opened that the worker
    /// (`sender`: its user, as the kernel reports it) might not open itself.
    pub fn ask(
        &mut self,
        worker: WorkerId,
        query: &Query<'_>,
        sender: Option<Sender>,
    ) -> Result<ServerId, ListenRefusal> {
        self.listen_failures.remove(&worker);
        self.changed = true;
        match self.servers.ask(worker, query) {
            Decision::Join(server) => {
                self.joined(server, query);
                self.reopen_removed_path(server, sender);
                Ok(server)
            }
            Decision::Displace(before, spec) => {
                self.joined(ServerId::OWN, query);
                self.take_back_listeners();
                self.open_for_displaced(before, &spec, sender);
                Ok(ServerId::OWN)
            }
            Decision::Refuse(refusal) => {
                self.refused += 1;
                Err(refusal)
            }
            Decision::Open(spec) if !self.may_have(spec.port(), sender) => {
                self.refused += 1;
                Err(ListenRefusal::of(query, libc::EACCES, RESERVED_PORT))
            }
            Decision::Open(Spec::Stream { addr, backlog, readable_all, writable_all }) => {
                let access = Access::for_all(readable_all, writable_all);
                let opened = self.open(&addr, backlog, access, sender, false);
                let bound = opened.as_ref().map(|opened| Some(sockname(opened.addr()))).map_err(|error| {
                    tracing::error!("the program wants to listen, but {error}, or give an address with --listen");
                    error.errno()
                });
                // Node takes the address of a Unix server from the path that the program gave.
                let bound = bound.map(|bound| bound.filter(|bound| matches!(bound, Sockname::Ip(_))));
                let server = self.servers.opened(worker, query, bound);
                let opened = match opened {
                    Ok(opened) => Some(opened),
                    Err(error) => {
                        self.listen_failures.insert(worker, error);
                        None
                    }
                };
                // Before `?`: haft must know what the program is answered.
                let server = server?;
                opened.into_iter().for_each(|opened| self.serve(server, opened));
                Ok(server)
            }
            Decision::Open(Spec::Udp { addr, ipv6_only, reuse_addr }) => {
                let opened = listen::udp(addr, ipv6_only, reuse_addr);
                let bound = opened.as_ref().map(|_| None).map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL));
                let server = self.servers.opened(worker, query, bound)?;
                if let Ok(socket) = opened {
                    self.udp.insert(server, socket);
                }
                Ok(server)
            }
        }
    }

    /// A program closed a server. The listener goes with the last one that had it, unless that worker is leaving: its
    /// replacement will want it.
    pub fn closed(&mut self, worker: WorkerId, key: &str, leaving: bool) {
        let Some(left) = self.servers.closed(worker, key) else { return };
        self.changed = true;
        if left.was_last && !leaving && !self.servers.is_own(left.server) {
            self.close(left.server);
        }
    }

    /// Whether the workers accept by themselves.
    pub fn is_over_kernel(&self) -> bool {
        self.opener.is_some()
    }

    /// Whether the worker's program has no server.
    pub fn has_none(&self, worker: WorkerId) -> bool {
        self.servers.of_worker(worker).next().is_none()
    }

    fn close(&mut self, server: ServerId) {
        self.changed = true;
        self.servers.forget(server);
        self.udp.remove(&server);
        self.groups.remove(&server);
        self.closing.extend(self.server_of.extract_if(.., |_, of| *of == server).map(|(number, _)| number));
    }

    /// A worker has ended.
    pub fn exited(&mut self, worker: WorkerId) {
        self.changed = true;
        self.servers.exited(worker);
        self.named.ended(worker);
        self.paths.ended(worker);
        self.mail.extend(self.relay.died(worker).into_iter().map(Relayed::WorkerDied));
    }

    /// What was opened since the last call.
    pub fn take_fresh(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.fresh)
    }

    /// Numbers of listeners to be closed.
    pub fn take_closing(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.closing)
    }

    /// Room for reading, the same for all workers.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ, 0);
        buffer
    }

    /// Gives the room back.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

/// The address that a program gets to see.
fn sockname(addr: &ListenAddr) -> Sockname {
    match addr {
        ListenAddr::DualStack(port) => Sockname::Ip(SocketAddr::from(([0u16; 8], *port))),
        ListenAddr::Ip(addr) => Sockname::Ip(*addr),
        ListenAddr::Unix(path) => Sockname::Unix(path.display().to_string()),
    }
}
