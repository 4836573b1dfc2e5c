//! Which of a program's servers gets a listener of `--listen`, and the answer to its worker.

use super::server::{Server, ServerSource};
use super::{Decision, Fit, ListenRefusal, Query, ServerId, Servers, SharedKind, key, refuse};
use crate::ids::WorkerId;
use crate::node::wire::say::Sockname;

/// A listener reports its own port, and Node takes a server that asked for another one to have failed (`checkBindError`
/// in its lib/net.js).
const ANOTHER_PORT: &str = "with --dispatch kernel and --no-preload the program must ask for the port of --listen, or for \
    port 0: leave out --no-preload, or let --listen name the program's port";
/// The listener that a server had for a moment is another's, and it cannot have one of its own.
const NOT_SERVED: &str = "--listen serves another server, which asks for that port, and this one cannot have a listener of \
    its own";

impl Servers {
    /// The server that `--listen` serves now keeps it for as long as a worker has it.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether the answer to a worker that has joined this server has to wait, since the listener that would go with it
    /// may yet be for another.
    pub fn is_unsettled(&self, server: ServerId) -> bool {
        self.share && !self.settled && server == ServerId::OWN && self.is_provisional()
    }

    /// The server that the worker calls so, for an answer that had to wait.
    pub fn named(&self, worker: WorkerId, key: &str) -> Result<ServerId, ListenRefusal> {
        let named = |(_, server): &(&ServerId, &Server)| server.key == key && server.holders.contains(&worker);
        let refusal = || ListenRefusal { key: key.to_owned(), errno: libc::EADDRINUSE, why: NOT_SERVED };
        self.servers.iter().find(named).map(|(id, _)| *id).ok_or_else(refusal)
    }

    /// Whether what is served from `--listen` without having been named may be another server from now on: no worker
    /// has it any more, and this one has no other (a new version of the program, on another port).
    pub(super) fn is_free(&self, worker: WorkerId) -> bool {
        let own = self.servers.get(&ServerId::OWN);
        own.is_none_or(|own| own.holders.is_empty() && self.of_worker(worker).next().is_none())
    }

    pub(super) fn take_own(&mut self, own: ServerId, fit: Fit, worker: WorkerId, query: &Query<'_>) -> Decision {
        self.note_probe(own, fit, worker);
        let port = query.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        let source = match self.share && !(self.by_master && own == ServerId::OWN) {
            true => match self.shared_listener(own, port) {
                Some(kind) => ServerSource::Shared(kind),
                None => return refuse(key(query), libc::EADDRINUSE, ANOTHER_PORT),
            },
            false => ServerSource::Stream { sockname: self.own.sockname(own).cloned(), port },
        };
        let (data, last_of_slot) = self.servers.remove(&own).map(|it| (it.data, it.last_of_slot)).unwrap_or_default();
        self.insert(own, worker, query, (source, Some(fit)), data);
        if let Some(server) = self.servers.get_mut(&own) {
            for (slot, last) in last_of_slot {
                server.last_of_slot.entry(slot).or_insert(last);
            }
        }
        Decision::Join(own)
    }

    /// A worker asks for the very port that it was shown for another one, on which it listens no more: it looks for a
    /// free port, and takes what it was shown for the port that it found.
    fn note_probe(&mut self, own: ServerId, fit: Fit, worker: WorkerId) {
        let Some(before) = self.servers.get(&own).filter(|_| fit == Fit::Exact) else { return };
        let had = before.last_of_slot.values().any(|last| *last == worker) && !before.holders.contains(&worker);
        if had && before.fit == Some(Fit::First) {
            self.probed = self.port(own).and_then(|port| u16::try_from(port).ok());
        }
    }

    /// Whether this is asked for only to find out whether the port is free.
    pub(super) fn is_probe(&self, query: &Query<'_>) -> bool {
        self.probed.is_some_and(|probed| query.port == Some(probed.into()))
    }

    /// What goes with the answer to a program that gets a listener of `--listen`, and asked for this port; nothing if
    /// it would not take it.
    fn shared_listener(&self, own: ServerId, port: Option<u16>) -> Option<SharedKind> {
        match port.filter(|port| self.own.is_of(own) && Some(*port) != self.own.port(own)) {
            None => Some(SharedKind::Listener),
            Some(port) => self.tells_ports.then_some(SharedKind::ListenerAs(port)),
        }
    }

    pub(super) fn take_beside(&mut self, server: ServerId, worker: WorkerId, query: &Query<'_>) -> Decision {
        let port = query.port.and_then(|port| u16::try_from(port).ok());
        let source = match self.servers.get(&server).map(|server| &server.source) {
            Some(ServerSource::Shared(_)) => match self.shared_listener(server, port) {
                Some(kind) => ServerSource::Shared(kind),
                None => return refuse(key(query), libc::EADDRINUSE, ANOTHER_PORT),
            },
            Some(ServerSource::Stream { sockname, .. }) => ServerSource::Stream { sockname: sockname.clone(), port },
            None => ServerSource::Stream { sockname: None, port },
        };
        let id = self.next_id();
        self.insert(id, worker, query, (source, Some(Fit::Beside(server))), None);
        Decision::Join(id)
    }

    /// Whether the master accepts the connections of [`ServerId::OWN`], where workers accept those of other servers
    /// themselves.
    pub fn is_by_master(&self) -> bool {
        self.by_master
    }

    /// The address of a server that was displaced: its programs are shown this one.
    pub fn set_address(&mut self, server: ServerId, shown: Sockname) {
        if let Some(ServerSource::Stream { sockname, .. }) =
            self.servers.get_mut(&server).map(|server| &mut server.source)
        {
            *sockname = Some(shown);
        }
    }

    /// The server that the listeners of `--listen` are for has come: the one that they served until now gets one of its
    /// own. Where workers accept from them already, the connections of both are handed over from now on.
    pub(super) fn displace(&mut self, own: ServerId, worker: WorkerId, query: &Query<'_>) -> Decision {
        self.note_probe(own, Fit::Exact, worker);
        let probed = self.probed.map(i64::from).filter(|probed| self.port(own) == Some(*probed));
        let Some(mut before) = self.servers.remove(&own) else { return self.take_own(own, Fit::Exact, worker, query) };
        if probed.is_some() {
            // Other workers are still finding out whether that port is free.
            before.fit = Some(Fit::Beside(own));
            let id = self.next_id();
            self.servers.insert(id, before);
            return self.take_own(own, Fit::Exact, worker, query);
        }
        before.fit = None;
        if let ServerSource::Shared(kind) = &mut before.source {
            // It gets one on the port that it asked for.
            *kind = SharedKind::Listener;
            if self.settled {
                self.by_master = true;
                before.source = ServerSource::Stream { sockname: None, port: None };
            }
        }
        let (id, spec) = (self.next_id(), before.spec.clone());
        self.servers.insert(id, before);
        match (self.take_own(own, Fit::Exact, worker, query), spec) {
            (Decision::Join(_), Some(spec)) => Decision::Displace(id, spec),
            (decision, _) => decision,
        }
    }
}
