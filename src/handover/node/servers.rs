//! What the workers listen on: who has which server, and what is answered to a worker that wants one. Pure.
//!
//! It does what Node's primary does (`lib/internal/cluster/primary.js`, `round_robin_handle.js`), with these
//! differences, each for a reason:
//!
//! * A server is one for all workers that ask for the same address, port and type, as in Node 22; Node 20 counts
//!   (`index`) even where the port is given, so that a server that is closed and opened again can miss the others'.
//! * Node's primary closes a listener when its last worker goes, even if that one crashed. Here a crash leaves it open,
//!   so that the clients in its queue are served by the replacement; only `server.close()` by the last one closes it.
//!   In both cases the caller is told, and decides.
//! * With `--listen`, the program's first TCP server is served from haft's own listeners, whatever it asked for. It is
//!   told their address, but the port that it asked for: Node accepts no other ([`Outcome::HandOver`]). Only haft's
//!   preload can tell it the true one, once Node has looked.
//! * With `--dispatch kernel` each worker gets a listener of its own for a TCP server, one of a group
//!   ([`Servers::share_listeners`]): Node's way of sharing one listener, which its workers take as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::message::{AddressType, Query};
use super::say::{Answer, Outcome, SharedKind, Sockname};
use super::spec::{self, Spec};
use crate::lifecycle::pool::WorkerId;

/// Most servers at a time, over all workers: a program has a few.
pub(super) const MOST_SERVERS: usize = 256;
/// Most of them that one worker may have, so that there is room for the others'.
pub(super) const MOST_SERVERS_OF_ONE: usize = 128;
/// Longest address, in bytes: a path's (PATH_MAX).
pub(super) const MOST_ADDRESS: usize = 4096;
/// Most bytes of a server's data. TLS servers have some: their ticket keys, 48 bytes and their names.
pub(super) const MOST_DATA: usize = 64 << 10;
/// Most bytes of all servers' data.
pub(super) const MOST_DATA_IN_ALL: usize = 1 << 20;

/// A listener tells its own port, and Node takes a server that asked for another one to have failed (`checkBindError` in
/// its lib/net.js).
const ANOTHER_PORT: &str = "with --dispatch kernel the program must ask for the port of --listen, or for port 0";

/// A server's number. No other has or had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u64);

impl ServerId {
    /// The server that haft's own listeners (`--listen`) serve.
    pub const OWN: Self = Self(0);
}

/// What is to be done about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The worker has this server now: answer with [`Servers::answer`].
    Join(ServerId),
    /// Open this, then tell [`Servers::opened`].
    Open(Spec),
    /// Answer that it cannot be.
    Refuse(Refusal),
}

/// Why a worker does not get a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    key: String,
    /// As the kernel numbers errors, positive.
    pub errno: i32,
    /// For people.
    pub why: &'static str,
}

impl Refusal {
    /// Of what was asked for, with this error.
    pub fn of(query: &Query<'_>, errno: i32, why: &'static str) -> Self {
        Self { key: key(query), errno, why }
    }

    /// What to tell the worker.
    pub fn answer(&self) -> Answer<'_> {
        Answer { key: &self.key, data: None, outcome: Outcome::Failed { errno: self.errno } }
    }
}

/// A worker has a server no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub server: ServerId,
    /// Nobody has it now.
    pub was_last: bool,
}

/// The servers of all workers.
#[derive(Debug)]
pub struct Servers {
    /// With `--listen`: where that is.
    own: Option<Sockname>,
    /// The folder that Unix paths are relative to.
    folder: PathBuf,
    /// Whether the workers accept TCP connections by themselves.
    share: bool,
    servers: BTreeMap<ServerId, Server>,
    last: u64,
}

#[derive(Debug)]
struct Server {
    key: String,
    data: Option<Vec<u8>>,
    source: Source,
    holders: BTreeSet<WorkerId>,
}

#[derive(Debug)]
enum Source {
    /// Connections are handed over. The program is told this address, with this port if that is not its own.
    Stream { sockname: Option<Sockname>, port: Option<u16> },
    /// Every worker gets a copy of the socket.
    Shared(SharedKind),
}

impl Servers {
    /// No server yet.
    ///
    /// `own`: the address of haft's own listeners, if the program's first TCP server is to be served from them; the
    /// program is told it, but for the port, which is the one that it asked for, if it asked for one.
    /// `folder`: the working directory, as Node's primary a long Unix path is written relative to it.
    pub fn new(own: Option<Sockname>, folder: PathBuf) -> Self {
        Self { own, folder, share: false, servers: BTreeMap::new(), last: ServerId::OWN.0 }
    }

    /// From now on the workers get listeners for their TCP servers, and accept by themselves.
    pub fn share_listeners(&mut self) {
        self.share = true;
    }

    /// A worker wants to listen.
    pub fn ask(&mut self, worker: WorkerId, query: &Query<'_>) -> Decision {
        if query.address.as_deref().is_some_and(|address| address.len() > MOST_ADDRESS) {
            // It is not repeated: Node does not look at the key of what has failed.
            return refuse(String::new(), libc::ENAMETOOLONG, "an address has at most 4096 bytes");
        }
        let key = key(query);
        if let Err((errno, why)) = self.has_room_for_data(&key, query) {
            return refuse(key, errno, why);
        }
        if let Some((id, server)) = self.servers.iter_mut().find(|(_, server)| server.key == key) {
            return match server.join(worker, query) {
                true => Decision::Join(*id),
                false => refuse(key, libc::EADDRINUSE, "the worker has this server already"),
            };
        }
        if self.is_for_own(worker, query) {
            let port = query.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
            let source = match self.share {
                true if port.is_some() && port != self.own_port() => {
                    return refuse(key, libc::EADDRINUSE, ANOTHER_PORT);
                }
                true => Source::Shared(SharedKind::Listener),
                false => Source::Stream { sockname: self.own.clone(), port },
            };
            let data = self.servers.remove(&ServerId::OWN).and_then(|server| server.data);
            self.insert(ServerId::OWN, worker, query, source, data);
            return Decision::Join(ServerId::OWN);
        }
        match spec::read(query, &self.folder) {
            Ok(_) if self.servers.len() >= MOST_SERVERS => refuse(key, libc::EMFILE, "256 servers are open: too many"),
            Ok(_) if self.of_worker(worker).count() >= MOST_SERVERS_OF_ONE => {
                refuse(key, libc::EMFILE, "the worker has 128 servers: too many")
            }
            Ok(spec) => Decision::Open(spec),
            Err((errno, why)) => refuse(key, errno, why),
        }
    }

    /// What [`Decision::Open`] asked for was done: what the program is to be told of its address, or the error as the
    /// kernel numbers it. After an error nothing is kept, so that the next worker tries again.
    pub fn opened(
        &mut self,
        worker: WorkerId,
        query: &Query<'_>,
        result: Result<Option<Sockname>, i32>,
    ) -> Result<ServerId, Refusal> {
        let sockname = result.map_err(|errno| Refusal { key: key(query), errno, why: "it cannot be opened" })?;
        let source = match query.address_type {
            AddressType::Udp4 | AddressType::Udp6 => Source::Shared(SharedKind::Udp),
            AddressType::Tcp4 | AddressType::Tcp6 if self.share => Source::Shared(SharedKind::Listener),
            _ => Source::Stream { sockname, port: None },
        };
        self.last += 1;
        let id = ServerId(self.last);
        self.insert(id, worker, query, source, None);
        Ok(id)
    }

    /// What to tell a worker that has joined a server.
    pub fn answer(&self, server: ServerId) -> Option<Answer<'_>> {
        let server = self.servers.get(&server)?;
        let outcome = match &server.source {
            Source::Stream { sockname, port } => Outcome::HandOver { sockname: sockname.as_ref(), port: *port },
            Source::Shared(kind) => Outcome::Shared(*kind),
        };
        Some(Answer { key: &server.key, data: server.data.as_deref(), outcome })
    }

    /// The server's name on the wire, for the workers that have it.
    pub fn key(&self, server: ServerId) -> Option<&str> {
        self.servers.get(&server).map(|server| server.key.as_str())
    }

    /// Whether the worker has this server, so that it may be given connections for it.
    pub fn holds(&self, worker: WorkerId, server: ServerId) -> bool {
        self.servers.get(&server).is_some_and(|server| server.holders.contains(&worker))
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
        let left = |(id, server): (&ServerId, &mut Server)| {
            server.leave(worker).map(|was_last| Left { server: *id, was_last })
        };
        self.servers.iter_mut().filter_map(left).collect()
    }

    /// The servers that nobody has, haft's own apart: those of workers that have died, or of ports that a program
    /// chose anew. To be closed when no worker is left that could still ask for them.
    pub fn orphans(&self) -> impl Iterator<Item = ServerId> + '_ {
        let orphans = self.servers.iter().filter(|(id, server)| **id != ServerId::OWN && server.holders.is_empty());
        orphans.map(|(id, _)| *id)
    }

    /// A server's socket was closed: whoever asks for it again gets a new one.
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
            len if len > MOST_DATA => Err((libc::EMSGSIZE, "a server's data has at most 64 KiB")),
            len if kept() + len > MOST_DATA_IN_ALL => Err((libc::ENOBUFS, "all servers' data has at most 1 MiB")),
            _ => Ok(()),
        }
    }

    /// Whether a query for something new is for haft's own listeners.
    ///
    /// The first TCP server that any worker asks for is; from then on it is known by its key, so that workers that open
    /// several servers in another order agree. When no worker has it any more (a new version of the program, on another
    /// port), the first one of the next worker is.
    fn is_for_own(&self, worker: WorkerId, query: &Query<'_>) -> bool {
        let is_tcp = matches!(query.address_type, AddressType::Tcp4 | AddressType::Tcp6) && query.fd.is_none();
        let is_free = match self.servers.get(&ServerId::OWN) {
            None => true,
            Some(own) => own.holders.is_empty() && self.of_worker(worker).next().is_none(),
        };
        self.own.is_some() && is_tcp && is_free
    }

    fn own_port(&self) -> Option<u16> {
        match &self.own {
            Some(Sockname::Ip(addr)) => Some(addr.port()),
            Some(Sockname::Unix(_)) | None => None,
        }
    }

    fn insert(&mut self, id: ServerId, worker: WorkerId, query: &Query<'_>, source: Source, data: Option<Vec<u8>>) {
        let mut server = Server { key: key(query), data, source, holders: BTreeSet::new() };
        server.join(worker, query);
        self.servers.insert(id, server);
    }
}

impl Server {
    /// Whether the worker has it now and had it not before. The first data that a worker brings is kept for all.
    fn join(&mut self, worker: WorkerId, query: &Query<'_>) -> bool {
        if self.data.is_none() {
            self.data = query.data.map(|data| data.bytes().to_vec());
        }
        self.holders.insert(worker)
    }

    /// If the worker had it: whether nobody has it now.
    fn leave(&mut self, worker: WorkerId) -> Option<bool> {
        self.holders.remove(&worker).then_some(())?;
        Some(self.holders.is_empty())
    }
}

fn refuse(key: String, errno: i32, why: &'static str) -> Decision {
    Decision::Refuse(Refusal { key, errno, why })
}

fn is_udp(query: &Query<'_>) -> bool {
    matches!(query.address_type, AddressType::Udp4 | AddressType::Udp6)
}

/// Node's own name for a server (22 and later): with the count only where it tells servers apart, that is for port 0
/// (as many ports as servers, the same in every worker) and for UDP sockets that may share a port.
fn key(query: &Query<'_>) -> String {
    let number = |number: Option<i64>, none: &str| number.map_or_else(|| none.to_owned(), |number| number.to_string());
    let mut key = format!(
        "{}:{}:{}:{}",
        query.address.as_deref().unwrap_or("null"),
        number(query.port, "null"),
        query.address_type.name(),
        number(query.fd, "undefined"),
    );
    if query.port == Some(0) || (is_udp(query) && query.flags & spec::UDP_REUSE_ADDR != 0) {
        key = format!("{key}:{}", query.index);
    }
    key
}
