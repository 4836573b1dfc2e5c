//! What the workers listen on: the workers of each server, and the answer to a worker that wants one. Pure.
//!
//! It does what Node's primary does (`lib/internal/cluster/primary.js`, `round_robin_handle.js`), with these
//! differences, each for a reason:
//!
//! * A server is one for all workers that ask for the same address, port and type, as in Node 22; Node 20 counts
//!   (`index`) even where the port is given, so that a server that is closed and opened again can miss the others'.
//! * Node's primary closes a listener when its last worker goes, even if that one crashed. Here a crash leaves it open,
//!   so that the clients in its queue are served by the replacement; only `server.close()` by the last one closes it.
//!   In both cases the caller decides.
//! * With `--listen`, haft's own listeners serve servers of the program; [`own`](super::own) decides which. The program
//!   gets haft's address, but the port that it asked for: Node accepts no other ([`ListenOutcome::HandOver`]). Only haft's
//!   preload can give it the true one, after Node's check.
//! * With `--dispatch kernel` each worker gets a listener of its own for a TCP server, one of a group
//!   ([`Servers::share_listeners`]): Node's way of sharing one listener, which its workers take as they are. Such a
//!   listener cannot be taken back, so which server `--listen` serves is settled before its first worker gets it. Where
//!   another one comes later that fits better, the connections of both are handed over.

mod own_listeners;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::server::{Server, ServerSource, key};
use super::message::{AddressType, Query};
use super::own::{Fit, Own, ServerId};
use super::say::{ListenOutcome, ListenReply, SharedKind, Sockname};
use super::spec::{self, Spec};
use crate::ids::WorkerId;
use crate::route::Slot;

/// Most servers at a time, over all workers: a program has a few.
pub(super) const MAX_SERVERS: usize = 256;
/// Most of them that one worker may have, so that there is room for the others'.
pub(super) const MAX_SERVERS_OF_ONE: usize = 128;
/// Longest address, in bytes: a path's (PATH_MAX).
pub(super) const MAX_ADDRESS: usize = 4096;
/// Most bytes of a server's data. TLS servers have some: their ticket keys, 48 bytes and their names.
pub(super) const MAX_DATA: usize = 64 << 10;
/// Most bytes of all servers' data.
pub(super) const MAX_DATA_IN_ALL: usize = 1 << 20;

/// What is to be done about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The worker has this server now: answer with [`Servers::answer`].
    Join(ServerId),
    /// Open this, then call [`Servers::opened`].
    Open(Spec),
    /// The worker has [`ServerId::OWN`] now. The server that had it before is this new one: open this for it.
    Displace(ServerId, Spec),
    /// Answer that it cannot be.
    Refuse(ListenRefusal),
}

/// Why a worker does not get a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenRefusal {
    key: String,
    /// As the kernel numbers errors, positive.
    pub errno: i32,
    /// For people.
    pub why: &'static str,
}

impl ListenRefusal {
    /// Of what was asked for, with this error.
    pub fn of(query: &Query<'_>, errno: i32, why: &'static str) -> Self {
        Self { key: key(query), errno, why }
    }

    /// The answer for the worker.
    pub fn answer(&self) -> ListenReply<'_> {
        ListenReply { key: &self.key, data: None, outcome: ListenOutcome::Failed { errno: self.errno } }
    }
}

/// A worker has a server no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub server: ServerId,
    /// No worker has it now.
    pub was_last: bool,
}

/// The servers of all workers.
#[derive(Debug)]
pub struct Servers {
    /// With `--listen`: which server is served from there.
    own: Own,
    /// The folder that Unix paths are relative to.
    folder: PathBuf,
    /// Whether the workers accept TCP connections by themselves.
    share: bool,
    /// Then: whether haft's preload can show programs the port that they asked for.
    tells_ports: bool,
    /// Whether it stays as it is which server `--listen` serves, if a worker has it.
    settled: bool,
    /// Whether the master accepts the connections of [`ServerId::OWN`] nevertheless.
    by_master: bool,
    /// The port that the program asks for to find out whether it is free, before it listens on the one that it was shown.
    probed: Option<u16>,
    servers: BTreeMap<ServerId, Server>,
    last: u64,
    /// The slots of the living workers.
    slots: BTreeMap<WorkerId, Slot>,
}

impl Servers {
    /// No server yet.
    ///
    /// `own`: haft's own listeners, from which servers of the program are to be served; the program gets their
    /// address, but for the port, which is the one that it asked for, if it asked for one.
    /// `folder`: the working directory, as Node's primary a long Unix path is written relative to it.
    pub fn new(own: Own, folder: PathBuf) -> Self {
        let last = own.last().0;
        Self {
            own,
            folder,
            share: false,
            tells_ports: false,
            settled: false,
            by_master: false,
            probed: None,
            servers: BTreeMap::new(),
            last,
            slots: BTreeMap::new(),
        }
    }

    /// A worker of this slot is started.
    pub fn started(&mut self, worker: WorkerId, slot: Slot) {
        self.slots.insert(worker, slot);
    }

    /// From now on the workers get listeners for their TCP servers, and accept by themselves.
    /// `tells_ports`: they have haft's preload, which shows a program the port that it asked for.
    pub fn share_listeners(&mut self, tells_ports: bool) {
        (self.share, self.tells_ports) = (true, tells_ports);
    }

    /// A worker wants to listen.
    pub fn ask(&mut self, worker: WorkerId, query: &Query<'_>) -> Decision {
        if query.address.as_deref().is_some_and(|address| address.len() > MAX_ADDRESS) {
            // It is not repeated: Node does not look at the key of what has failed.
            return refuse(String::new(), libc::ENAMETOOLONG, "an address has at most 4096 bytes");
        }
        let key = key(query);
        if let Err((errno, why)) = self.has_room_for_data(&key, query) {
            return refuse(key, errno, why);
        }
        let slot = self.slots.get(&worker).copied();
        if let Some((id, server)) = self.servers.iter_mut().find(|(_, server)| server.key == key) {
            return match server.join(worker, slot, query) {
                true => Decision::Join(*id),
                false => refuse(key, libc::EADDRINUSE, "the worker has this server already"),
            };
        }
        let is_tcp = matches!(query.address_type, AddressType::Tcp4 | AddressType::Tcp6) && query.fd.is_none();
        if let Some((own, fit)) = is_tcp.then(|| self.own.server_for(query.port)).flatten() {
            let in_use = self.servers.get(&own).filter(|_| own != ServerId::OWN || !self.is_free(worker));
            match (in_use.and_then(|server| server.fit), fit) {
                (None, _) => return self.take_own(own, fit, worker, query),
                // One program at several addresses of one port.
                (Some(Fit::Exact), Fit::Exact) => return self.take_beside(own, worker, query),
                (Some(_), Fit::Exact) => return self.displace(own, worker, query),
                // What other workers were shown for this port, this one is shown, too.
                (Some(Fit::Exact), _) if self.is_probe(query) => return self.take_beside(own, worker, query),
                // It is opened as it was asked for.
                (Some(_), _) => {}
            }
        }
        match spec::read(query, &self.folder) {
            Ok(_) if self.servers.len() >= MAX_SERVERS => refuse(key, libc::EMFILE, "256 servers are open: too many"),
            Ok(_) if self.of_worker(worker).count() >= MAX_SERVERS_OF_ONE => {
                refuse(key, libc::EMFILE, "the worker has 128 servers: too many")
            }
            Ok(spec) if let Some(server) = self.covering(worker, &spec) => self.take_beside(server, worker, query),
            Ok(spec) => Decision::Open(spec),
            Err((errno, why)) => refuse(key, errno, why),
        }
    }

    /// What [`Decision::Open`] asked for was done: the address for the program, or the error as the
    /// kernel numbers it. After an error nothing is kept, so that the next worker tries again.
    pub fn opened(
        &mut self,
        worker: WorkerId,
        query: &Query<'_>,
        result: Result<Option<Sockname>, i32>,
    ) -> Result<ServerId, ListenRefusal> {
        let sockname = result.map_err(|errno| ListenRefusal { key: key(query), errno, why: "it cannot be opened" })?;
        let source = match query.address_type {
            AddressType::Udp4 | AddressType::Udp6 => ServerSource::Shared(SharedKind::Udp),
            AddressType::Tcp4 | AddressType::Tcp6 if self.share => ServerSource::Shared(SharedKind::Listener),
            _ => ServerSource::Stream { sockname, port: None },
        };
        let id = self.next_id();
        self.insert(id, worker, query, (source, None), None);
        Ok(id)
    }

    /// The answer for a worker that has joined a server.
    pub fn answer(&self, server: ServerId) -> Option<ListenReply<'_>> {
        let server = self.servers.get(&server)?;
        let outcome = match &server.source {
            ServerSource::Stream { sockname, port } => {
                ListenOutcome::HandOver { sockname: sockname.as_ref(), port: *port }
            }
            ServerSource::Shared(kind) => ListenOutcome::Shared(*kind),
        };
        Some(ListenReply { key: &server.key, data: server.data.as_deref(), outcome })
    }

    /// The server's name on the wire, for the workers that have it.
    pub fn key(&self, server: ServerId) -> Option<&str> {
        self.servers.get(&server).map(|server| server.key.as_str())
    }

    /// What the worker calls this server, if it has it, so that it may be given connections for it.
    pub fn key_for(&self, worker: WorkerId, server: ServerId) -> Option<&str> {
        let has = |server: &&Server| server.holders.contains(&worker);
        let beside = || self.servers.values().find(|other| other.fit == Some(Fit::Beside(server)) && has(other));
        let own = self.servers.get(&server).filter(has);
        own.or_else(beside).map(|server| server.key.as_str())
    }

    /// Whether the worker has this server.
    pub fn holds(&self, worker: WorkerId, server: ServerId) -> bool {
        self.key_for(worker, server).is_some()
    }

    /// Whether the next worker of a slot is likely to have this server: the last one had it, or none has had any yet.
    pub fn is_expected(&self, slot: Slot, server: ServerId) -> bool {
        let had = |server: &Server| server.last_of_slot.contains_key(&slot);
        let of_this =
            |(id, it): (&ServerId, &Server)| (*id == server || it.fit == Some(Fit::Beside(server))) && had(it);
        self.servers.iter().any(of_this) || !self.servers.values().any(had)
    }

    /// Whether a server is served from `--listen` only because the program has asked for no other one yet, which fits
    /// better.
    pub fn is_provisional(&self) -> bool {
        self.servers.get(&ServerId::OWN).is_some_and(|server| server.fit == Some(Fit::First))
    }

    /// Whether haft's own listeners serve it.
    pub fn is_own(&self, server: ServerId) -> bool {
        self.own.is_of(server)
    }

    /// The port that the program asked for.
    pub fn port(&self, server: ServerId) -> Option<i64> {
        match self.servers.get(&server)?.spec.as_ref()? {
            Spec::Stream { addr, .. } => addr.port().map(i64::from),
            Spec::Udp { addr, .. } => Some(addr.port().into()),
        }
    }

    /// What was opened for the server.
    pub fn spec(&self, server: ServerId) -> Option<&Spec> {
        self.servers.get(&server)?.spec.as_ref()
    }

    /// The server whose listener serves this one, too.
    pub fn listener_of(&self, server: ServerId) -> ServerId {
        match self.servers.get(&server).and_then(|server| server.fit) {
            Some(Fit::Beside(own)) => own,
            _ => server,
        }
    }

    /// The servers that the worker has.
    pub fn of_worker(&self, worker: WorkerId) -> impl Iterator<Item = ServerId> + '_ {
        self.servers.iter().filter(move |(_, server)| server.holders.contains(&worker)).map(|(id, _)| *id)
    }

    /// The program in a worker closed a server. An unknown one is nothing: the worker may have lost it before.
    pub fn closed(&mut self, worker: WorkerId, key: &str) -> Option<Left> {
        let (id, server) = self.servers.iter_mut().find(|(_, server)| server.key == key)?;
        server.leave(worker).map(|was_last| Left { server: *id, was_last })
    }

    /// A worker has ended: it has no server any more. Yields those it had.
    pub fn exited(&mut self, worker: WorkerId) -> Vec<Left> {
        if let Some(slot) = self.slots.remove(&worker)
            && self.servers.values().any(|server| server.last_of_slot.get(&slot) == Some(&worker))
        {
            // What it had not, its replacement will not have either.
            for server in self.servers.values_mut().filter(|server| server.last_of_slot.get(&slot) != Some(&worker)) {
                server.last_of_slot.remove(&slot);
            }
        }
        let left = |(id, server): (&ServerId, &mut Server)| {
            server.leave(worker).map(|was_last| Left { server: *id, was_last })
        };
        self.servers.iter_mut().filter_map(left).collect()
    }

    /// The servers that no worker has, haft's own apart: those of workers that have died, or of ports that a program
    /// chose anew. To be closed when no worker is left that could still ask for them.
    pub fn orphans(&self) -> impl Iterator<Item = ServerId> + '_ {
        let orphans = self.servers.iter().filter(|(id, server)| !self.own.is_of(**id) && server.holders.is_empty());
        orphans.map(|(id, _)| *id)
    }

    /// A server's socket was closed: the next request for it opens a new one.
    pub fn forget(&mut self, server: ServerId) {
        self.servers.remove(&server);
    }

    /// Whether the data that comes with a query can be kept, if it would have to be.
    fn has_room_for_data(&self, key: &str, query: &Query<'_>) -> Result<(), (i32, &'static str)> {
        let Some(data) = query.data else { return Ok(()) };
        let has_some = self.servers.values().any(|server| server.key == key && server.data.is_some());
        let kept = || self.servers.values().filter_map(|server| server.data.as_ref()).map(Vec::len).sum::<usize>();
        match data.bytes().len() {
            _ if has_some => Ok(()),
            len if len > MAX_DATA => Err((libc::EMSGSIZE, "a server's data has at most 64 KiB")),
            len if kept() + len > MAX_DATA_IN_ALL => Err((libc::ENOBUFS, "all servers' data has at most 1 MiB")),
            _ => Ok(()),
        }
    }

    /// A server whose listener takes what would come to this address, and which the worker has not: what the worker
    /// opens
    /// there looks the same to its clients. Programs look so for a free port, in each worker.
    fn covering(&self, worker: WorkerId, spec: &Spec) -> Option<ServerId> {
        let Spec::Stream { addr, .. } = spec else { return None };
        let covers = |server: &Server| match &server.spec {
            Some(Spec::Stream { addr: other, .. }) => {
                server.fit.is_none() && addr.port().is_some() && other.overlaps(addr)
            }
            _ => false,
        };
        let mut covering = self.servers.iter().filter(|(id, server)| covers(server) && !self.holds(worker, **id));
        covering.next().map(|(id, _)| *id)
    }

    fn next_id(&mut self) -> ServerId {
        self.last += 1;
        ServerId(self.last)
    }

    fn insert(
        &mut self,
        id: ServerId,
        worker: WorkerId,
        query: &Query<'_>,
        (source, fit): (ServerSource, Option<Fit>),
        data: Option<Vec<u8>>,
    ) {
        let (holders, last_of_slot) = Default::default();
        let spec = spec::read(query, &self.folder).ok();
        let mut server = Server { key: key(query), data, source, spec, fit, holders, last_of_slot };
        server.join(worker, self.slots.get(&worker).copied(), query);
        self.servers.insert(id, server);
    }
}

fn refuse(key: String, errno: i32, why: &'static str) -> Decision {
    Decision::Refuse(ListenRefusal { key, errno, why })
}
